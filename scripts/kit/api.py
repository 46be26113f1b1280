"""One call of the service's HTTP interface, with every way that it can fail told apart.

The contract is PaddleX's own (paddlex/inference/serving/schemas/paddleocr_vl.py,
3.7.2): POST /layout-parsing takes {"file": base64, "fileType": 0 PDF | 1 picture, …}
and replies {"logId", "errorCode", "errorMsg", "result"}.
"""

from __future__ import annotations

import base64
import ipaddress
from typing import Any
from urllib.parse import urlsplit

import httpx

from kit import access
from kit.diagnose import explain
from kit.errors import ExitCode, KitError
from kit.reply import was_left_unread

PATH = "/layout-parsing"
CONNECT_TIMEOUT = 10.0  # seconds


class ServiceError(KitError):
    """The service answered, and it was no result. status: HTTP. log_id: as in the server's log."""

    def __init__(self, message: str, hint: str, *, status: int, log_id: str = "") -> None:
        super().__init__(message, hint, ExitCode.FAILED)
        self.status = status
        self.log_id = log_id


class Unread(ServiceError):
    """A success by its status, with blocks of text and no text in any of them. result: that which came all the same."""

    def __init__(self, result: dict[str, Any], log_id: str = "") -> None:
        super().__init__(
            "the service reports success, but the VLM has read no text in any block",
            "./kit logs paddleocr-vlm-server; is the model whole, and the one that the pipeline config names?",
            status=200,
            log_id=log_id,
        )
        self.result = result


def layout_parsing(
    url: str, data: bytes, file_type: int, *, timeout: float, options: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Send one document, return the reply's `result`: `layoutParsingResults` (one a page) and `dataInfo`.

    url: the service's address without a path. timeout: seconds until the whole
    reply is there. options: more fields of the request, as upstream names them.
    Raises KitError (UNREACHABLE) when nothing answers there, ServiceError when
    the answer is an error, not of this contract, or has blocks of text and no
    text in any of them: PaddleX reports success when the VLM answers nothing.
    """
    check(url)
    payload = {"file": base64.b64encode(data).decode("ascii"), "fileType": file_type, **(options or {})}
    try:
        with client(url, timeout) as http:
            reply = http.post(url + PATH, json=payload)
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise unreachable(url) from error
    except httpx.TimeoutException as error:
        raise ServiceError(
            f"{url} gave no answer within {timeout:.0f} s",
            "give it longer with --timeout; ./kit status tells whether it works at all",
            status=0,
        ) from error
    except httpx.HTTPError as error:
        raise ServiceError(
            f"{url} broke off in the middle of its answer ({error})", "./kit status and ./kit logs tell why", status=0
        ) from error
    return result_of(url, reply)


def unreachable(url: str) -> KitError:
    """The error where no service answers."""
    return KitError(f"no service answers at {url}", "./kit up starts one here; --url names another", ExitCode.UNREACHABLE)


def client(url: str, timeout: float) -> httpx.Client:
    """An HTTP client; a proxy of the environment is never asked for this machine's own addresses."""
    own = access.of(url)
    return httpx.Client(timeout=_limits(timeout), trust_env=not _is_loopback(url), headers=own.headers, verify=own.verify)


def async_client(url: str, timeout: float, connections: int) -> httpx.AsyncClient:
    """As `client`, for so many requests at once."""
    own, limits = access.of(url), httpx.Limits(max_connections=connections)
    return httpx.AsyncClient(
        timeout=_limits(timeout), trust_env=not _is_loopback(url), limits=limits, headers=own.headers, verify=own.verify
    )


def _limits(timeout: float) -> httpx.Timeout:
    return httpx.Timeout(timeout, connect=min(timeout, CONNECT_TIMEOUT))


def check(url: str) -> None:
    """Raises KitError (USAGE) when `url` cannot be the address of a service."""
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL):
        sound = False
    if not sound:
        raise KitError(f"{url!r} is not the address of a service", "such as http://127.0.0.1:8080", ExitCode.USAGE)


def address(text: str) -> str:
    """A service's address without a path, from what people give: that of /layout-parsing stands in many a program.

    Raises KitError (USAGE) as check does.
    """
    check(text)
    return text.rstrip("/").removesuffix(PATH).rstrip("/")


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def result_of(url: str, reply: httpx.Response) -> dict[str, Any]:
    """The `result` of a whole reply. Raises ServiceError as layout_parsing does."""
    try:
        body = reply.json()
        log_id = str(body.get("logId", ""))
        message = str(body.get("errorMsg", ""))
    except (ValueError, AttributeError):
        raise ServiceError(
            f"{url} answered HTTP {reply.status_code} with something else than JSON",
            "is this the address of a PaddleOCR-VL service?",
            status=reply.status_code,
        ) from None
    result = body.get("result")
    if reply.status_code == 200 and body.get("errorCode") == 0 and isinstance(result, dict) and "layoutParsingResults" in result:
        if was_left_unread(result["layoutParsingResults"]):
            raise Unread(result, log_id)
        return result
    known = explain([message])
    hint = f"{known.cause}; {known.fix}" if known else "the cause is in the log: ./kit logs paddleocr-vl-api"
    if reply.status_code == 404 and not message:
        hint = "is this the address of a PaddleOCR-VL service?"
    raise ServiceError(
        f"the service refused: HTTP {reply.status_code}, {message or reply.reason_phrase}",
        hint,
        status=reply.status_code,
        log_id=log_id,
    )
