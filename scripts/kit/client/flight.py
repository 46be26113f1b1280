"""Ranges of pages on their way: so many at once, again after a failure, in halves where a page may be poison.

Knows neither files nor HTTP: what sends, what takes the pages and what takes the failures are given. No more than the
requests in flight and a few that wait for their next try are held at any time; fresh ranges are made when there is room.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from kit.client.failures import ParseError, Standing, Unusable
from kit.client.ranges import Span, halves
from kit.client.results import Page
from kit.client.retry import Backoff, Tries, Verdict
from kit.errors import KitError

# Workers beyond the requests in flight: while they write what has come, the service is not left waiting.
WRITERS_PER_SLOT = 0.5
WAITING_PER_SLOT = 4  # failed ranges that wait for their next try, for each request in flight
PATIENCE = 600.0  # seconds that a service may refuse everything before the run is stopped
HOPELESS = 10  # pages given up before the first one was read: then it is the service
T = TypeVar("T")


class GivenUp(Exception):
    """A request that is no range of pages was given up, and the others go on. error: its last one."""

    def __init__(self, error: ParseError) -> None:
        super().__init__(error.message)
        self.error = error


@dataclass
class Job:
    """A range of one document. document: whatever the caller knows it by."""

    document: Any
    span: Span
    tries: Tries = field(default_factory=Tries)

    @property
    def pages(self) -> int:
        return self.span[1] - self.span[0] + 1


class Flight:
    """send: one request, raises ParseError or Unusable. take: gets the pages of a range.

    lose: gets a range (mostly one page) that was given up, and why.

    has_read: whether the service is known to have read a page, from an earlier run. has_room: asked before a fresh range is made;
    `wake` says that the answer has changed.
    """

    def __init__(
        self,
        send: Callable[[Job], Awaitable[list[Page]]],
        take: Callable[[Job, list[Page]], Awaitable[None]],
        lose: Callable[[Job, KitError], Awaitable[None]],
        *,
        concurrency: int,
        backoff: Backoff,
        patience: float = PATIENCE,
        has_read: bool = False,
        has_room: Callable[[], bool] = lambda: True,
    ) -> None:
        self._send, self._take, self._lose = send, take, lose
        self._concurrency, self._backoff, self._patience = concurrency, backoff, patience
        self._slots = asyncio.Semaphore(concurrency)
        self._has_room = has_room
        self._later: list[tuple[float, int, Job]] = []  # a heap: (when, number, job)
        self._number = itertools.count()
        self._busy = 0
        self._pulling = False
        self._fresh: AsyncIterator[Job] | None = None
        self._changed = asyncio.Event()
        self._hold_until = 0.0
        self._troubles = 0  # refusals since the last answer
        self._answered = False  # whether anything ever came back
        self._has_read, self._given_up = has_read, 0
        self.retries = 0

    async def run(self, fresh: AsyncIterator[Job]) -> None:
        """Until every range of `fresh` was taken or lost. Raises the ParseError that makes all others pointless."""
        self._fresh = fresh
        self._since = asyncio.get_running_loop().time()
        workers = [asyncio.create_task(self._work()) for _ in range(self.workers)]
        try:
            ended, _ = await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
            for worker in ended:
                worker.result()  # raises what stopped it
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            if (close := getattr(fresh, "aclose", None)) is not None:
                await close()

    @property
    def workers(self) -> int:
        """Ranges in hand at most: on their way, or being written."""
        return self._concurrency + math.ceil(self._concurrency * WRITERS_PER_SLOT)

    async def insist(self, send: Callable[[], Awaitable[T]], *, once: bool = False) -> T:
        """What `send` brings, a request that is no range of pages; while `run` runs, and within the same patience.

        once: its first failure is the last word. Raises GivenUp, and the ParseError that makes all other requests pointless.
        """
        tries, backoff = Tries(), replace(self._backoff, never=self._backoff.never or once)
        while True:
            try:
                there = await send()
            except ParseError as error:
                verdict, pause = self._judged(error, tries, 1, backoff)
                if verdict is not Verdict.AGAIN:
                    raise GivenUp(error) from None
                self.retries += 1
            else:
                self._heard()
                return there
            await asyncio.sleep(pause)

    def wake(self) -> None:
        """There may be room again."""
        self._changed.set()

    async def _work(self) -> None:
        while (job := await self._next()) is not None:
            try:
                await self._one(job)
            finally:
                self._busy -= 1
                self._changed.set()

    async def _next(self) -> Job | None:
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            now = loop.time()
            if now >= self._hold_until:
                if self._later and self._later[0][0] <= now:
                    self._busy += 1
                    return heapq.heappop(self._later)[2]
                has_room = len(self._later) < WAITING_PER_SLOT * self._concurrency and self._has_room()
                if self._fresh is not None and not self._pulling and has_room:
                    job = await self._pull()
                    if job is not None:
                        self._busy += 1
                        return job
                    continue
            if self._fresh is None and not self._later and not self._busy:
                self._changed.set()
                return None
            due = max(self._later[0][0], self._hold_until) if self._later else self._hold_until
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._changed.wait(), due - now if due > now else None)

    async def _pull(self) -> Job | None:
        assert self._fresh is not None
        self._pulling = True
        try:
            return await self._fresh.__anext__()
        except StopAsyncIteration:
            self._fresh = None
            return None
        finally:
            self._pulling = False
            self._changed.set()

    async def _one(self, job: Job) -> None:
        try:
            async with self._slots:
                pages = await self._send(job)
        except ParseError as error:
            await self._failed(job, error)
        except Unusable as error:  # it could not be cut
            if job.pages > 1:
                self._halve(job)
            else:
                await self._lose(job, error)
        else:
            self._has_read = True
            self._heard()
            await self._take(job, pages)

    def _heard(self) -> None:
        """The service has done what it was asked for."""
        self._answered, self._troubles = True, 0
        self._since = asyncio.get_running_loop().time()

    def _judged(self, error: ParseError, tries: Tries, pages: int, backoff: Backoff) -> tuple[Verdict, float]:
        """What to do about one request, and the pause before. Raises `error` where it is the end of all of them."""
        now = asyncio.get_running_loop().time()
        verdict, pause = tries.after(error, pages, backoff, random.random())
        if error.standing is Standing.PASSING:
            self._troubles += 1
            never = error.kind == "unreachable" and not self._answered
            if never or now - self._since > self._patience:
                raise error
            if error.kind != "busy":  # it concerns whatever would be sent now
                pause = backoff.pause(self._troubles, random.random(), error.retry_after)
                self._hold_until = max(self._hold_until, now + pause)
        else:
            self._answered, self._troubles = True, 0
            if error.standing is Standing.FINAL:
                self._since = now
        if verdict is Verdict.STOP:
            raise error
        return verdict, pause

    async def _failed(self, job: Job, error: ParseError) -> None:
        verdict, pause = self._judged(error, job.tries, job.pages, self._backoff)
        if verdict is Verdict.HALVE:
            self._halve(job)
        elif verdict is Verdict.AGAIN:
            self.retries += 1
            due = asyncio.get_running_loop().time() + pause
            heapq.heappush(self._later, (due, next(self._number), job))
        else:
            self._given_up += 1
            if not self._has_read and self._given_up >= HOPELESS and error.standing is Standing.DOUBTFUL:
                raise error
            await self._lose(job, error)

    def _halve(self, job: Job) -> None:
        self.retries += 1
        for span in halves(job.span):
            heapq.heappush(self._later, (0.0, next(self._number), Job(job.document, span)))
