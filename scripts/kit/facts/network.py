"""Which proxies are set, and which addresses answer."""

from __future__ import annotations

import json
import re
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx


@dataclass(frozen=True)
class Proxies:
    """Passwords are left out.

    here: "http", "https", "all" → proxy, from the environment of this process. bypass: its NO_PROXY.
    client: the same of the Docker command's config.json, which it hands to every container that it creates.
    client_file: where that is.
    """

    here: dict[str, str] = field(default_factory=dict)
    bypass: tuple[str, ...] = ()
    client: dict[str, str] = field(default_factory=dict)
    client_file: str = ""


@dataclass(frozen=True)
class Reach:
    """status: of HTTP, None where nothing answered. problem: why not, in words. seconds: until the answer."""

    url: str
    status: int | None = None
    problem: str = ""
    seconds: float = 0.0


def proxies(environ: Mapping[str, str], home: Path) -> Proxies:
    """What is set; never raises. home: of the user, for ~/.docker."""
    found = {
        kind: _without_password(value)
        for kind in ("http", "https", "all")
        for value in [environ.get(f"{kind}_proxy") or environ.get(f"{kind.upper()}_PROXY")]
        if value
    }
    bypass = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    file = Path(environ.get("DOCKER_CONFIG") or home / ".docker") / "config.json"
    try:
        default = json.loads(file.read_text())["proxies"]["default"]
        client = {
            kind: _without_password(value)
            for kind, key in (("http", "httpProxy"), ("https", "httpsProxy"), ("all", "allProxy"))
            if isinstance(value := default.get(key), str) and value
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        client = {}
    return Proxies(found, tuple(name.strip() for name in bypass.split(",") if name.strip()), client, str(file) if client else "")


def reach(url: str, timeout: float, method: str = "HEAD") -> Reach:
    """Ask an address once, through the proxies of the environment. Never raises.

    timeout: seconds a step; looking up a name has no limit of its own, so the caller must have one.
    """
    start = time.monotonic()
    try:
        # The system's own certificates, to which companies add theirs; httpx would take a list of its own.
        with httpx.Client(timeout=timeout, verify=ssl.create_default_context()) as http:
            answer = http.request(method, url)
    except httpx.TimeoutException:
        return Reach(url, problem=f"no answer within {timeout:g} s", seconds=time.monotonic() - start)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        return Reach(url, problem=_words(error), seconds=time.monotonic() - start)
    return Reach(url, answer.status_code, "", time.monotonic() - start)


def late(url: str, timeout: float) -> Reach:
    """The answer where none came, not even an error."""
    return Reach(url, problem=f"no answer within {timeout:g} s; looking up the name may hang (DNS)", seconds=timeout)


def _words(error: BaseException) -> str:
    cause: BaseException | None = error
    while cause:
        if isinstance(cause, socket.gaierror):
            return "its name is not known (DNS)"
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted here: {cause.verify_message}"
        cause = cause.__cause__ or cause.__context__
    text = str(error).strip() or type(error).__name__
    return re.sub(r"^\[Errno -?\d+\] ", "", text)


def _without_password(address: str) -> str:
    return re.sub(r"(?<=://)[^/@]*@|^[^/@]*@", "…@", address)
