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

from kit.diagnose import explain
from kit.errors import ExitCode, KitError

PATH = "/layout-parsing"
CONNECT_TIMEOUT = 10.0  # seconds
# Blocks that are pictures: they have no text of their own (paddlex 3.7.2, pipelines/paddleocr_vl).
PICTURES = {"image", "header_image", "footer_image", "chart", "seal"}


class ServiceError(KitError):
    """The service answered, and it was no result. status: HTTP. log_id: as in the server's log."""

    def __init__(self, message: str, hint: str, *, status: int, log_id: str = "") -> None:
        super().__init__(message, hint, ExitCode.FAILED)
        self.status = status
        self.log_id = log_id


class Unread(ServiceError):
    """A success by its status, with blocks of text and no text in any of them."""


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
        raise KitError(
            f"no service answers at {url}", "./kit up starts one here; --url names another", ExitCode.UNREACHABLE
        ) from error
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
    return _result(url, reply)


def client(url: str, timeout: float) -> httpx.Client:
    """An HTTP client; a proxy of the environment is never asked for this machine's own addresses."""
    return httpx.Client(timeout=httpx.Timeout(timeout, connect=min(timeout, CONNECT_TIMEOUT)), trust_env=not _is_loopback(url))


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


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _was_left_unread(pages: Any) -> bool:
    """True where there are blocks to read and not one has content. A blank page has no block."""
    try:
        blocks = [block for page in pages for block in page["prunedResult"]["parsing_res_list"]]
        contents = [block["block_content"] for block in blocks if block["block_label"] not in PICTURES]
        return bool(contents) and not any(content.strip() for content in contents)
    except (KeyError, TypeError, AttributeError):
        return False  # of another shape; whoever reads the pages says so


def _result(url: str, reply: httpx.Response) -> dict[str, Any]:
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
    if reply.status_code == 200 and body.get("errorCode") == 0 and "layoutParsingResults" in body.get("result", {}):
        if _was_left_unread(body["result"]["layoutParsingResults"]):
            raise Unread(
                "the service reports success, but the VLM has read no text in any block",
                "./kit logs paddleocr-vlm-server; is the model whole, and the one that the pipeline config names?",
                status=200,
                log_id=log_id,
            )
        return body["result"]
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
