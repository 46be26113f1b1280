"""Every way in which a request can fail, as a type, and what it says about trying again.

PASSING: the service's state, not the document's fault (nobody listens, busy, restarting): wait, try again.
DOUBTFUL: the service's fault, or that of a page in the request: try again, then with fewer pages.
FINAL: the document's fault: never again with the same pages.
FATAL: wrong for every document: stop.
"""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from enum import Enum
from time import time

import httpx

from kit import api
from kit.api import ServiceError
from kit.client.results import Page
from kit.errors import ExitCode, KitError


class Standing(Enum):
    PASSING = "passing"
    DOUBTFUL = "doubtful"
    FINAL = "final"
    FATAL = "fatal"


class ParseError(ServiceError):
    """One request failed. kind: stable, for programs. cause: in words without addresses and times, the same each time.

    status: of HTTP, 0 where there was none. log_id: as in the server's log. retry_after: seconds that the service asks for.
    """

    kind = "server"
    standing = Standing.DOUBTFUL
    exit_code = ExitCode.FAILED

    def __init__(
        self, cause: str, hint: str = "", *, status: int = 0, log_id: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(cause, hint or "./kit status and ./kit logs tell why", status=status, log_id=log_id)
        self.code = self.exit_code
        self.cause = cause
        self.retry_after = retry_after


class Unreachable(ParseError):
    """Nobody listens at the address."""

    kind, standing, exit_code = "unreachable", Standing.PASSING, ExitCode.UNREACHABLE


class Busy(ParseError):
    """HTTP 429."""

    kind, standing = "busy", Standing.PASSING


class Unavailable(ParseError):
    """HTTP 503."""

    kind, standing = "unavailable", Standing.PASSING


class TimedOut(ParseError):
    """No whole reply within the limit."""

    kind = "timeout"


class BrokenOff(ParseError):
    """The connection ended before the reply did."""

    kind = "connection"


class ServerFault(ParseError):
    """HTTP 500, 502, 504 and their like."""


class BadReply(ParseError):
    """A success that is none: not JSON, cut off, or not of the contract."""

    kind = "reply"


class WrongPages(ParseError):
    """The reply has another number of pages than were sent."""

    kind, exit_code = "pages", ExitCode.INCOMPLETE


class Unread(ParseError):
    """Blocks of text and no text in any of them.

    page: one that was sent alone, and has so few blocks that it is blank where other pages of its document have text.
    """

    kind = "unread"
    page: Page | None = None


class Refused(ParseError):
    """HTTP 4xx: the service does not take this document."""

    kind, standing = "refused", Standing.FINAL


class TooLarge(ParseError):
    """HTTP 413: too many bytes or pages in one request."""

    kind, standing = "too-large", Standing.FINAL


class KeyRefused(ParseError):
    """HTTP 401 or 403."""

    kind, standing, exit_code = "key", Standing.FATAL, ExitCode.USAGE


class NoService(ParseError):
    """What answers there is no PaddleOCR-VL service."""

    kind, standing = "no-service", Standing.FATAL


class Unusable(KitError):
    """The input itself cannot be used: missing, corrupt, encrypted, too large. kind, cause: as in ParseError."""

    def __init__(self, name: str, kind: str, cause: str, hint: str = "") -> None:
        super().__init__(f"{name}: {cause}", hint or "copy it again from its source, or leave it out", ExitCode.INPUT)
        self.kind = kind
        self.cause = cause


def of_reply(error: ServiceError, retry_after: str | None = None) -> ParseError:
    """What api.result_of raised, as one of these types. retry_after: the header, as it came."""
    status, words = error.status, error.message
    kind: type[ParseError]
    if isinstance(error, api.Unread):
        kind = Unread
    elif status == 200:
        kind, words = BadReply, "the reply is cut off, or not of the contract"
    elif status in (401, 403):
        kind = KeyRefused
        error.hint = "--api-key-file names a file with the key that the operator gave to you"
    elif status in (404, 405):
        kind = NoService
    elif status == 413:
        kind = TooLarge
    elif status == 429:
        kind = Busy
    elif status == 503:
        kind = Unavailable
    elif status in (408, 425) or status >= 500 or status < 400:
        kind = ServerFault
    else:
        kind = Refused
    return kind(words, error.hint, status=status, log_id=error.log_id, retry_after=seconds_of(retry_after))


def of_transport(error: httpx.HTTPError, url: str) -> ParseError:
    """What httpx raised before there was a whole reply, as one of these types."""
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
        there = api.unreachable(url)
        return Unreachable(there.message, there.hint)
    if isinstance(error, httpx.TimeoutException):
        return timed_out()
    return BrokenOff("the connection broke off before the whole reply was there")


def timed_out() -> TimedOut:
    return TimedOut("no answer in time", "give it longer with --timeout; ./kit status tells whether it works at all")


def seconds_of(retry_after: str | None) -> float | None:
    """The header Retry-After, a number of seconds or a date (RFC 9110, 10.2.3), as seconds from now; None where it is neither."""
    if not retry_after:
        return None
    try:
        return max(float(retry_after), 0.0) if retry_after.strip().isdigit() else _until(retry_after)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _until(date: str) -> float:
    return max(parsedate_to_datetime(date).timestamp() - time(), 0.0)
