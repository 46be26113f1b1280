"""Every setting of the gateway: one table, read by the command line, the environment, --help and docs/gateway.md."""

from __future__ import annotations

import argparse
import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kit.errors import ExitCode, KitError


def _whole(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
            raise ValueError(f"a whole number from {least} to {most} is needed")
        return int(text)

    return read


def _seconds(least: float, most: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not least <= value <= most:
            raise ValueError(f"seconds from {least:g} to {most:g} are needed")
        return value

    return read


def _url(text: str) -> str:
    parts = urlsplit(text)
    try:
        sound = parts.scheme == "http" and bool(parts.hostname) and (parts.port or 80) > 0 and not parts.query
    except ValueError:
        sound = False
    if not sound or parts.username:
        raise ValueError("an address such as http://paddleocr-vl-api:8080 is needed")
    return text.rstrip("/")


def _urls(text: str) -> tuple[str, ...]:
    urls = tuple(_url(one) for one in text.replace(",", " ").split())
    if len(set(urls)) != len(urls):
        raise ValueError("the same address twice")
    return urls


def _address(text: str) -> str:
    ipaddress.ip_address(text)
    return text


def _networks(text: str) -> tuple[Any, ...]:
    return tuple(ipaddress.ip_network(one) for one in text.replace(",", " ").split())


def _hosts(text: str) -> tuple[str, ...]:
    return tuple(one.lower() for one in text.replace(",", " ").split())


def _file(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise ValueError("no such file")
    return path


def _folder(text: str) -> Path:
    path = Path(text)
    if not path.is_dir():
        raise ValueError("no such folder")
    return path


def _place(text: str) -> Path:
    path = Path(text)
    if not path.parent.is_dir() or (path.exists() and not path.is_socket()):
        raise ValueError("the path of a Unix socket in a folder that exists is needed")
    return path


@dataclass(frozen=True)
class Setting:
    """One setting. name: of the attribute in Settings. default: as text, empty for none. secret: no flag, as `ps` shows those."""

    name: str
    default: str
    read: Callable[[str], Any]
    meaning: str
    secret: bool = False
    flag_name: str = ""

    @property
    def environment(self) -> str:
        return f"GATEWAY_{self.name.upper()}"

    @property
    def flag(self) -> str:
        return "" if self.secret else "--" + (self.flag_name or self.name.replace("_", "-"))


TABLE: tuple[Setting, ...] = (
    Setting("host", "127.0.0.1", _address, "IP address to listen on"),
    Setting("port", "8080", _whole(1, 65535), "port to listen on"),
    Setting(
        "handover", "", _place, "Unix socket through which the next gateway with this setting takes over the port, without a gap"
    ),
    Setting("replicas", "", _urls, "addresses of the API replicas; the flag once for each", flag_name="replica"),
    Setting(
        "discover",
        "",
        _url,
        "address such as http://paddleocr-vl-api:8080 whose name has an IP address for each replica: they come and go with it",
    ),
    Setting("vlm", "", _url, "address of the VLM server, with or without /v1, to tell its failures from the replicas'"),
    Setting("replica_concurrency", "1", _whole(1, 64), "calls at once to one replica; PaddleX reads one document at a time"),
    Setting(
        "pages_per_range",
        "16",
        _whole(1, 200),
        "most pages of a document in one call to a replica; with fewer, a single page waits less behind long documents",
    ),
    Setting("max_body_mib", "100", _whole(1, 4096), "largest request body, and largest document, in MiB"),
    Setting("max_pages", "2000", _whole(1, 100000), "most pages of a document"),
    Setting(
        "max_requests", "256", _whole(1, 100000),
        "requests at once, those still being sent included; more get 429, as does one client alone from four fifths on",
    ),
    Setting(
        "queue_pages", "2000", _whole(1, 1000000),
        "pages waiting for a replica from which on new documents get 429; clients that wait share them evenly",
    ),
    Setting("header_seconds", "15", _seconds(0.1, 600), "for a client to send a request's head"),
    Setting("stall_seconds", "20", _seconds(0.1, 600), "without a byte from or to a client in a body until it is given up"),
    Setting("body_seconds", "600", _seconds(0.1, 86400), "for a whole request body"),
    Setting("range_seconds", "60", _seconds(0.1, 86400), "a call to a replica may take so long,"),
    Setting("page_seconds", "30", _seconds(0, 86400), "and so much longer for each of its pages"),
    Setting("request_seconds", "3600", _seconds(0.1, 86400), "for a whole request, its wait included"),
    Setting(
        "outage_seconds", "30", _seconds(0, 86400), "requests wait so long for a replica or the VLM to come back, then get 503"
    ),
    Setting("probe_seconds", "5", _seconds(0.05, 600), "between two looks at /health of replicas and VLM, and for each answer"),
    Setting("probe_tries", "3", _whole(1, 100), "looks in a row without an answer that take a replica out of service"),
    Setting("proof_seconds", "60", _seconds(1, 86400), "a replica that has read no page for so long is sent a small one"),
    Setting("stop_seconds", "25", _seconds(0, 86400), "after SIGTERM: for what is being parsed; then it gets 503"),
    Setting(
        "api_keys", "", str, "keys that are let in, one a line or with commas, `NAME:KEY` or `KEY`; empty: everybody is", True
    ),
    Setting("api_keys_file", "", _file, "file with such keys; a change counts within a second"),
    Setting("tls_certificate", "", _file, "PEM file: the certificate and its chain; turns on HTTPS"),
    Setting("tls_key", "", _file, "PEM file: the certificate's private key"),
    Setting("url_hosts", "", _hosts, "hosts from which `file` may be fetched: names, `.example.com` with all below, or `*`"),
    Setting("url_networks", "", _networks, "networks that count as public all the same, such as 10.20.0.0/16 of an object store"),
    Setting("url_seconds", "30", _seconds(0.1, 3600), "for fetching such a file"),
    Setting("spool_dir", "", _folder, "folder for documents and replies over 1 MiB, of open requests; default: the system's"),
    Setting("spool_mib", "4096", _whole(1, 2**20), "so much may lie there at once, in MiB; more get 503"),
    Setting("splitters", "2", _whole(1, 64), "processes that open and cut documents"),
)


class Settings:
    """The settings as attributes, named as in TABLE; None where there is no value and no default."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.__dict__.update(values)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)

    @property
    def max_body(self) -> int:
        """Bytes."""
        return int(self.max_body_mib) * 2**20

    def seconds_for(self, pages: int) -> float:
        """A call's deadline."""
        return float(self.range_seconds + self.page_seconds * pages)


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python -m kit.gateway", description="One door in front of several PaddleOCR-VL API replicas.",
        allow_abbrev=False,
        epilog="The environment (GATEWAY_…) counts where a flag is not given; an empty value counts as not set.",
    )  # fmt: skip
    for setting in TABLE:
        if not setting.secret:
            default = f" (default: {setting.default})" if setting.default else ""
            many = {"action": "append"} if setting.name == "replicas" else {}
            found.add_argument(
                setting.flag,
                dest=setting.name,
                metavar="VALUE",
                help=f"{setting.meaning}{default} [{setting.environment}]",
                **many,
            )
    return found


def load(argv: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """The settings from flags, environment and defaults, in this order. Raises KitError (USAGE)."""
    given = vars(parser().parse_args(argv))
    values: dict[str, Any] = {}
    for setting in TABLE:
        text = given.get(setting.name)
        where = setting.flag
        if isinstance(text, list):
            text = " ".join(text)
        if not text:
            text, where = environment.get(setting.environment, ""), setting.environment
        text = text or setting.default
        if not text:
            values[setting.name] = () if setting.read in (_urls, _hosts, _networks) else None
            continue
        try:
            values[setting.name] = setting.read(text)
        except ValueError as error:
            shown = "its value" if setting.secret else repr(text)
            raise KitError(f"{where}: {shown}: {error}", setting.meaning, ExitCode.USAGE) from None
    settings = Settings(values)
    if not settings.replicas and not settings.discover:
        raise KitError(
            "no API replica is named", "--replica http://HOST:PORT, once for each; or --discover http://NAME:PORT", ExitCode.USAGE
        )
    if settings.spool_mib < settings.max_body_mib:
        raise KitError("--spool-mib is less than --max-body-mib", "the largest document has to fit in there", ExitCode.USAGE)
    if bool(settings.tls_certificate) != bool(settings.tls_key):
        raise KitError("TLS needs both --tls-certificate and --tls-key", "or neither: then it speaks HTTP", ExitCode.USAGE)
    return settings


def markdown_table() -> str:
    """The table for docs/gateway.md."""
    rows = ["| flag | environment | default | meaning |", "| --- | --- | --- | --- |"]
    for setting in TABLE:
        flag = f"`{setting.flag}`" if setting.flag else "–"
        default = f"`{setting.default}`" if setting.default else ""
        rows.append(f"| {flag} | `{setting.environment}` | {default} | {setting.meaning} |")
    return "\n".join(rows) + "\n"
