"""One API process behind the gateway: calls to it, and whether it is in service.

A replica that failed comes back into service when it has parsed a small page, and not before every call that
was given up has come to an end: PaddleX cannot be told to stop, works on what nobody waits for, and is
stuck for up to 30 minutes on a VLM that hangs (measured with paddlex 3.7.2). So a replica that was
restarted is back at once, its connections being broken, and one that hangs is never sent a second page to hang on.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator

import aiohttp

from kit.gateway.body import Spool, base64_pieces
from kit.gateway.join import BadReply, read_reply
from kit.gateway.metrics import Metrics
from kit.gateway.settings import Settings
from kit.gateway.vlm import Vlm
from kit.testpage import page

LOG = logging.getLogger("kit.gateway")

PARSE, RESTRUCTURE = "/layout-parsing", "/restructure-pages"
STUCK_SECONDS = 1900.0  # PaddleX gives up on a VLM after three calls of 600 s
_PIECE = 2**18  # bytes that are handed over at once
MAX_REPLY = 256 * 2**20  # bytes; sixteen pages with all pictures are 32 MB
FAILURES = 3  # in a row, that are its own, after which a replica has to prove itself
LONGEST_PAUSE = 10.0  # seconds between two attempts to prove itself

STARTING, UP, OUT = "starting", "up", "out"


class NotSent(Exception):
    """The replica took no connection: nothing was begun."""


class Lost(Exception):
    """The call was begun and has no answer: the connection broke, or the replica was taken out of service."""


class Late(Exception):
    """The call has had no answer within its deadline."""


class Payload:
    """A request body for a replica. size: bytes."""

    def __init__(self, fields: dict[str, object] | bytearray, document: bytes | Spool | None = None) -> None:
        """fields: or the whole body. document: what `file` holds, encoded on the way; None where there is no such field."""
        encoded = json.dumps(fields, separators=(",", ":")).encode() if isinstance(fields, dict) else fields
        self._document = document
        self._start, self._end = encoded, b""
        length = 0
        if document is not None:
            self._start, self._end = b'{"file":"', b'"' + (b"," if fields else b"") + encoded[1:]
            length = document.size if isinstance(document, Spool) else len(document)
        self.size = len(self._start) + (length + 2) // 3 * 4 + len(self._end)

    def pieces(self) -> Iterator[bytes]:
        document = self._document
        for at in range(0, len(self._start), _PIECE):
            yield bytes(self._start[at : at + _PIECE])
        if document is not None:
            yield from document.base64_pieces() if isinstance(document, Spool) else base64_pieces(document)
            yield self._end


class Replica:
    """state: starting, up or out; reason: why it is not up. busy: calls that occupy it, given-up ones included."""

    def __init__(
        self,
        url: str,
        session: aiohttp.ClientSession,
        settings: Settings,
        vlm: Vlm,
        metrics: Metrics,
        changed: Callable[[], None],
    ) -> None:
        """changed: called when it may take more, or its state has changed."""
        self.url = url
        self.name = url.partition("://")[2]
        self.state, self.reason = STARTING, "it has not parsed a page yet"
        self.busy = 0
        self.last_page: float | None = None  # time.monotonic() of the last page with text
        self.last_given = 0.0  # time.monotonic() of the last call that was given to it
        self._session, self._settings, self._vlm, self._metrics, self._changed = session, settings, vlm, metrics, changed
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._failures = 0
        self._refuses = False  # takes no connection, when it was last looked at

    @property
    def is_up(self) -> bool:
        return self.state == UP

    @property
    def has_room(self) -> bool:
        return self.is_up and self.busy < self._settings.replica_concurrency

    def occupy(self) -> None:
        self.busy += 1

    def free(self) -> None:
        self.busy -= 1
        self._changed()

    def take_out(self, reason: str, lose: bool = True) -> None:
        """Out of service until it proves itself. lose: its calls end with Lost; else they may come to their end."""
        if self.state != OUT:
            LOG.warning("replica %s out of service: %s", self.name, reason)
        self.state, self.reason = OUT, reason
        if lose:
            gone, self._gone = self._gone, asyncio.get_running_loop().create_future()
            gone.set_result(None)
        self._changed()

    def is_sound(self) -> None:
        """It has read a page with text just now."""
        self.last_page, self._failures = time.monotonic(), 0

    def has_failed(self, how: str) -> None:
        """A failure that is its own: neither the VLM's nor the document's. Some in a row take it out of service."""
        self._failures += 1
        if self._failures >= FAILURES and self.is_up:
            self._failures = 0
            self.take_out(f"{FAILURES} failures in a row, the last one: {how[:200]}", lose=False)

    # --- calls

    async def call(self, path: str, payload: Payload, seconds: float) -> tuple[int, bytes]:
        """Status and body of the answer. It must have been occupied; it is freed when it has truly answered.

        seconds: the deadline. Raises NotSent, Lost, Late; after each of them the replica is out of service. BadReply: too large.
        A caller that is cancelled leaves the call running: the replica does not stop either.
        """
        begun = time.monotonic()
        exchange = asyncio.create_task(self._exchange(path, payload))
        exchange.add_done_callback(self._ended)
        gone = self._gone
        try:
            await asyncio.wait({exchange, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            left = max(0.0, begun + seconds - time.monotonic())
            asyncio.get_running_loop().call_later(left, self._overdue, exchange, seconds)
            self._metrics.calls.add(self.name, "left")
            raise
        outcome, result = self._outcome(exchange, gone, seconds)
        self._metrics.calls.add(self.name, outcome)
        self._metrics.seconds.observe("call", time.monotonic() - begun)
        if isinstance(result, BaseException):
            raise result
        return result

    def _outcome(
        self, exchange: asyncio.Task[tuple[int, bytes]], gone: asyncio.Future[None], seconds: float
    ) -> tuple[str, tuple[int, bytes] | BaseException]:
        if exchange.done():
            error = exchange.exception()
            if error is None:
                return str(exchange.result()[0]), exchange.result()
            if isinstance(error, BadReply):
                return "large", error
            if isinstance(error, NotSent):
                self.take_out("it takes no connection", lose=False)
                return "not-sent", error
            if isinstance(error, Lost):
                self.take_out(f"the connection broke: {error}")
                return "lost", error
            return "fault", error  # the gateway's own
        if gone.done():
            return "lost", Lost(self.reason)
        self.take_out(f"no answer to a call in {seconds:g} s")
        return "late", Late(f"no answer in {seconds:g} s")

    def _overdue(self, exchange: asyncio.Task[tuple[int, bytes]], seconds: float) -> None:
        if not exchange.done() and self.is_up:
            self.take_out(f"no answer to a call in {seconds:g} s")

    def _ended(self, exchange: asyncio.Task[tuple[int, bytes]]) -> None:
        if not exchange.cancelled():
            exchange.exception()  # asked for, so that asyncio does not complain of one that nobody waits for
        self.free()

    async def _exchange(self, path: str, payload: Payload) -> tuple[int, bytes]:
        async def body() -> AsyncIterator[bytes]:
            for piece in payload.pieces():
                yield piece

        headers = {"Content-Type": "application/json", "Content-Length": str(payload.size)}
        timeout = aiohttp.ClientTimeout(total=STUCK_SECONDS, sock_connect=self._settings.probe_seconds)
        try:
            async with self._session.post(
                self.url + path, data=body(), headers=headers, timeout=timeout, allow_redirects=False
            ) as reply:
                received = bytearray()
                async for chunk in reply.content.iter_chunked(2**18):
                    received += chunk
                    if len(received) > MAX_REPLY:
                        raise BadReply(f"the API's reply is larger than {MAX_REPLY // 2**20} MiB; ask for fewer pictures")
                return reply.status, received  # not copied: it may be large
        except (
            aiohttp.ClientConnectorError,
            aiohttp.ServerTimeoutError,
        ) as error:  # the one timeout that is set is the connection
            raise NotSent(type(error).__name__) from None
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            raise Lost(type(error).__name__) from None

    # --- in and out of service

    async def watch(self) -> None:
        """For ever: look at it, take it out when it is silent, prove it when it is idle for long or out."""
        missed, pause = 0, 0.0
        while True:
            if self.is_up:
                await asyncio.sleep(self._settings.probe_seconds)
                missed = 0 if await self._answers() else missed + 1
                if missed >= self._settings.probe_tries and self.is_up:
                    # One that is being stopped takes no connection and ends what it has; one that died breaks its connections.
                    self.take_out(f"{missed} times no answer from /health", lose=not self._refuses)
                elif self.is_up and self._is_due():
                    await self._prove()
                continue
            missed = 0
            if self.busy == 0 and await self._answers() and await self._prove():
                pause = 0.0
                continue
            pause = min(max(2 * pause, 0.1), LONGEST_PAUSE, 2 * self._settings.probe_seconds)
            await asyncio.sleep(pause)

    async def _answers(self) -> bool:
        timeout = aiohttp.ClientTimeout(total=self._settings.probe_seconds)
        self._refuses = False
        try:
            async with self._session.get(f"{self.url}/health", timeout=timeout, allow_redirects=False) as reply:
                return reply.status == 200
        except aiohttp.ClientConnectorError as error:
            self._refuses = isinstance(error.os_error, ConnectionRefusedError)
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError):
            pass
        return False

    def _is_due(self) -> bool:
        idle = self.busy == 0 and not self._vlm.is_down
        return idle and time.monotonic() - (self.last_page or 0.0) > self._settings.proof_seconds

    async def _prove(self) -> bool:
        self.occupy()
        try:
            status, body = await self.call(
                PARSE, Payload({"fileType": 1, "visualize": False}, _test_page()), self._settings.seconds_for(1)
            )
            if status != 200:
                raise BadReply(f"HTTP {status} to a small page")
            if not read_reply(body, 1).has_text:
                raise BadReply("no text in a small page")
        except (NotSent, Lost, Late, BadReply) as error:
            if self.is_up or self.state == STARTING:
                self.take_out(f"it does not prove itself: {error}")
            self.reason = str(error) if isinstance(error, BadReply) else self.reason
            return False
        self.is_sound()
        if not self.is_up:
            self.state, self.reason = UP, ""
            LOG.info("replica %s in service", self.name)
            self._changed()
        return True


_PAGE: list[bytes] = []


def _test_page() -> bytes:
    if not _PAGE:
        _PAGE.append(page())
    return _PAGE[0]
