"""Every way in which the gateway refuses: name, HTTP status, meaning. docs/gateway.md is rendered from this table.

An error has upstream's shape, {"logId", "errorCode", "errorMsg"} with errorCode = HTTP status, and
the cause's name in the header X-Gateway-Cause, for programs and for /metrics.
"""

from __future__ import annotations

from dataclasses import dataclass

CAUSE_HEADER = "X-Gateway-Cause"


@dataclass(frozen=True)
class Cause:
    """name: stable, for programs. status: of HTTP. meaning: for people."""

    name: str
    status: int
    meaning: str


_TABLE = (
    Cause("not-found", 404, "no such path"),
    Cause("framing", 400, "the request has both Content-Length and Transfer-Encoding, which proxies read in two ways"),
    Cause("method", 405, "this path takes another method; `Allow` names it"),
    Cause("no-key", 401, "no API key, or not one of those that are set"),
    Cause("content-type", 415, "the body is not declared as JSON, or is compressed"),
    Cause("json", 422, "the body is not JSON, not UTF-8, or not an object"),
    Cause("too-large", 413, "the body, the fetched file or the pages for `restructurePages` are larger than the limit"),
    Cause("slow-client", 408, "the body stopped coming, or took too long"),
    Cause("unknown-field", 422, "a field that the contract does not have, with the one that may be meant"),
    Cause("bad-field", 422, "a field is missing, of a wrong type, or has a value that is not allowed"),
    Cause("base64", 422, "`file` is not base64"),
    Cause("empty-file", 422, "`file` is empty"),
    Cause("file-type", 422, "`fileType` is missing, or contradicts the file's content"),
    Cause("unreadable", 422, "neither a PDF nor a picture, or of a kind that the service does not read"),
    Cause("encrypted", 422, "the PDF needs a password"),
    Cause("corrupt", 422, "the PDF or the picture is damaged"),
    Cause("too-many-pages", 413, "the document has more pages than the limit"),
    Cause("too-many-pixels", 422, "a picture or a page of more pixels than PaddleX reads (178,956,970)"),
    Cause("url-refused", 422, "`file` is a URL and URLs are not allowed, or not this host or address"),
    Cause("url-failed", 422, "the URL was allowed and could not be fetched"),
    Cause("refused-by-api", 422, "the API refused the request; its own words follow"),
    Cause("queue-full", 429, "too many requests or pages wait, of all or this client; `Retry-After` says when to come again"),
    Cause("no-room", 503, "documents of open requests fill the room there is; `Retry-After` says when to come again"),
    Cause("stopping", 503, "the gateway is being stopped; `Retry-After` says when to come again"),
    Cause("no-replica", 503, "no API replica is in service"),
    Cause("vlm-down", 503, "the VLM server does not answer"),
    Cause("all-empty", 502, "the VLM read no text in any block, on two attempts"),
    Cause("failed-twice", 502, "two attempts at a range of pages failed"),
    Cause("bad-reply", 502, "the API's reply is not of the contract, or has another number of pages"),
    Cause("deadline", 504, "two attempts at a range of pages, or the whole request, took too long"),
    Cause("internal", 500, "a fault of the gateway itself; its log has the traceback under the logId"),
)
CAUSES: dict[str, Cause] = {cause.name: cause for cause in _TABLE}


def markdown_table() -> str:
    """The table for docs/gateway.md."""
    rows = [f"| `{cause.name}` | {cause.status} | {cause.meaning} |" for cause in CAUSES.values()]
    return "\n".join(["| cause | status | meaning |", "| --- | --- | --- |", *rows]) + "\n"


class Refusal(Exception):
    """A request that ends in an error. cause: a name in CAUSES. sentence: for the caller, with the way out.

    retry_after: whole seconds for the header Retry-After, or None. allow: for the header Allow.
    """

    def __init__(self, cause: str, sentence: str, *, retry_after: int | None = None, allow: str = "") -> None:
        super().__init__(sentence)
        self.cause = CAUSES[cause]
        self.sentence = sentence
        self.retry_after = retry_after
        self.allow = allow

    @property
    def headers(self) -> dict[str, str]:
        headers = {CAUSE_HEADER: self.cause.name}
        if self.retry_after is not None:
            headers["Retry-After"] = str(max(1, self.retry_after))
        if self.allow:
            headers["Allow"] = self.allow
        if self.cause.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        if self.cause.status == 400:  # where the next request begins is not sure
            headers["Connection"] = "close"
        return headers
