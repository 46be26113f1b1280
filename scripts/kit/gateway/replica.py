"""One API process behind the gateway: calls to it, and whether it is in service.

A replica that failed comes back into service when it has parsed a small page, and not before every call that
was given up has come to an end: PaddleX cannot be told to stop, works on what nobody waits for, and is
stuck for up to 30 minutes on a VLM that hangs (measured with paddlex 3.7.2). So a replica that was
restarted is back at once, its connections being broken, and one that hangs is never sent a second page to hang on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import aiohttp

from kit.gateway.body import Spool, base64_pieces
from kit.gateway.join import BadReply, read_reply
from kit.gateway.metrics import Metrics
from kit.gateway.settings import Settings
from kit.gateway.vlm import Vlm
from kit.testpage import page

LOG = logging.getLogger("kit.gateway")

STUCK_SECONDS = 1900.0  # PaddleX gives up on a VLM after three calls of 600 s
MAX_REPLY = 256 * 2**20  # bytes; sixteen pages with all pictures are 32 MB
FAILURES = 3  # errors in a row with the VLM up, after which a replica has to prove itself
LONGEST_PAUSE = 10.0  # seconds between two attempts to prove itself

STARTING, UP, OUT = "starting", "up", "out"


class NotSent(Exception):
    """The replica took no connection: nothing was begun."""


class Lost(Exception):
    """The call was begun and has no answer: the connection broke, or the replica was taken out of service."""


class Late(Exception):
    """The call has had no answer within its deadline."""


@dataclass(frozen=True)
class Payload:
    """A request body for a replica. document: what `file` holds, encoded on the way; None where there is no such field."""

    fields: dict[str, object]
    document: bytes | Spool | None = None

    @cached_property
    def _ends(self) -> tuple[bytes, bytes]:
        fields = json.dumps(self.fields, separators=(",", ":")).encode()
        return (fields, b"") if self.document is None else (b'{"file":"', b'"' + (b"," if self.fields else b"") + fields[1:])

    @property
    def size(self) -> int:
        """Bytes."""
        document = self.document
        length = 0 if document is None else document.size if isinstance(document, Spool) else len(document)
        return sum(map(len, self._ends)) + (length + 2) // 3 * 4

    def pieces(self) -> Iterator[bytes]:
        yield self._ends[0]
        if self.document is not None:
            document = self.document
            yield from document.base64_pieces() if isinstance(document, Spool) else base64_pieces(document)
            yield self._ends[1]


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

    def take_out(self, reason: str) -> None:
        """Out of service until it proves itself; all calls to it end with Lost."""
        if self.state != OUT:
            LOG.warning("replica %s out of service: %s", self.name, reason)
        self.state, self.reason = OUT, reason
        gone, self._gone = self._gone, asyncio.get_running_loop().create_future()
        gone.set_result(None)
        self._changed()

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
        if isinstance(result, Exception):
            raise result
        self._count(result[0])
        return result

    def _outcome(
        self, exchange: asyncio.Task[tuple[int, bytes]], gone: asyncio.Future[None], seconds: float
    ) -> tuple[str, tuple[int, bytes] | Exception]:
        if exchange.done():
            error = exchange.exception()
            if error is None:
                return str(exchange.result()[0]), exchange.result()
            if isinstance(error, BadReply):
                return "large", error
            if isinstance(error, NotSent):
                self.take_out("it takes no connection")
                return "not-sent", error
            self.take_out(f"the connection broke: {error}")
            return "lost", Lost(str(error))
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

    def _count(self, status: int) -> None:
        self._failures = self._failures + 1 if status >= 500 and not self._vlm.is_down else 0
        if self._failures >= FAILURES:
            self._failures = 0
            self.take_out(f"{FAILURES} errors in a row, the last one HTTP {status}")

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
                    self.take_out(f"{missed} times no answer from /health")
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
        with contextlib.suppress(aiohttp.ClientError, asyncio.TimeoutError, OSError):
            async with self._session.get(f"{self.url}/health", timeout=timeout, allow_redirects=False) as reply:
                return reply.status == 200
        return False

    def _is_due(self) -> bool:
        idle = self.busy == 0 and not self._vlm.is_down
        return idle and time.monotonic() - (self.last_page or 0.0) > self._settings.proof_seconds

    async def _prove(self) -> bool:
        self.occupy()
        try:
            status, body = await self.call(
                "/layout-parsing", Payload({"fileType": 1, "visualize": False}, _test_page()), self._settings.seconds_for(1)
            )
            if status != 200:
                raise BadReply(f"HTTP {status} to a small page")
            if not any(read.has_text for read in read_reply(body, 1).pages):
                raise BadReply("no text in a small page")
        except (NotSent, Lost, Late, BadReply) as error:
            if self.is_up or self.state == STARTING:
                self.take_out(f"it does not prove itself: {error}")
            self.reason = str(error) if isinstance(error, BadReply) else self.reason
            return False
        self.last_page = time.monotonic()
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
