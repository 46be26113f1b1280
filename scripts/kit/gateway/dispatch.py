"""Which replica works on what: the least busy one that is in service, clients in turn, one more try elsewhere."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import TypeVar

from kit.gateway.causes import Refusal
from kit.gateway.fairness import FairQueue
from kit.gateway.join import BadReply
from kit.gateway.metrics import Metrics
from kit.gateway.replica import Late, Lost, NotSent, Payload, Replica
from kit.gateway.settings import Settings
from kit.gateway.vlm import Vlm

LOG = logging.getLogger("kit.gateway")

TRIES = 2  # attempts at a range that a replica has begun
# What PaddleX answers with HTTP 500 where useDocUnwarping or the like asks for a model that is not there.
_NOT_LOADED = "input params for model settings are invalid"
_TICK = 0.25  # seconds between two looks at whether an outage lasts too long

Result = TypeVar("Result")


class Unread(BadReply):
    """A success in which the VLM read nothing; on the last attempt it is taken as it is, and judged with the whole document."""


@dataclass
class Ticket:
    """A place in the queue. pages: that it stands for. avoid: a replica that failed on it."""

    pages: int
    avoid: Replica | None
    place: asyncio.Future[Replica] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Pool:
    """The replicas and the one queue in front of them."""

    def __init__(self, settings: Settings, vlm: Vlm, metrics: Metrics) -> None:
        self.replicas: list[Replica] = []
        self.vlm = vlm
        self._settings, self._metrics = settings, metrics
        self._queue: FairQueue[Ticket] = FairQueue()
        self.waiting_pages = 0
        self._blocked_since: float | None = time.monotonic()
        self._page_seconds = 2.0  # of one page in one replica, smoothed; the first guess is soon forgotten

    # --- how it stands

    @property
    def slots(self) -> int:
        """Calls that the replicas in service take at once; at least 1."""
        return max(1, sum(replica.is_up for replica in self.replicas)) * int(self._settings.replica_concurrency)

    @property
    def last_page(self) -> float | None:
        """time.monotonic() of the last page with text."""
        return max((replica.last_page for replica in self.replicas if replica.last_page is not None), default=None)

    def retry_after(self) -> int:
        """Seconds until what waits now should be done, from 1 to 300."""
        return max(1, min(300, round(self.waiting_pages * self._page_seconds / self.slots)))

    def outage(self) -> Refusal | None:
        """Why nothing can be parsed now; None where it can."""
        if self.vlm.is_down:
            return Refusal("vlm-down", f"the VLM server does not answer ({self.vlm.reason}); try again later", retry_after=10)
        if not any(replica.is_up for replica in self.replicas):
            why = "; ".join(f"{replica.name}: {replica.reason}" for replica in self.replicas)
            why = why[:300] or "none is known yet"
            return Refusal("no-replica", f"no API replica is in service ({why}); try again later", retry_after=10)
        return None

    def require_room(self) -> None:
        """Raises Refusal (queue-full) at once where a new document would have to wait too long."""
        if self.waiting_pages >= self._settings.queue_pages:
            again = self.retry_after()
            raise Refusal("queue-full", f"{self.waiting_pages} pages are waiting; come again in {again} s", retry_after=again)

    # --- places

    async def acquire(self, client: Hashable, document: Hashable, pages: int, avoid: Replica | None = None) -> Replica:
        """Wait for a place; the replica is occupied, and freed by its `call` or `free`. Raises Refusal in an outage."""
        if (refusal := self._lasting_outage()) is not None:
            raise refusal
        ticket = Ticket(pages, avoid)
        self._queue.put(client, document, ticket)
        self.waiting_pages += pages
        begun = time.monotonic()
        self.wake()
        try:
            return await ticket.place
        except asyncio.CancelledError:
            if ticket.place.done() and not ticket.place.cancelled() and ticket.place.exception() is None:
                ticket.place.result().free()
            else:
                # wake() passes over tickets that nobody waits for.
                ticket.place.cancel()
            raise
        finally:
            self.waiting_pages -= pages
            self._metrics.seconds.observe("wait", time.monotonic() - begun)

    def wake(self) -> None:
        """Give free places to those who are next. Called whenever anything may have changed."""
        blocked = self.outage() is not None
        self._blocked_since = (self._blocked_since or time.monotonic()) if blocked else None
        if blocked:
            return
        while len(self._queue):
            free = [replica for replica in self.replicas if replica.has_room]
            if not free:
                return
            ticket = self._queue.pop()
            if ticket.place.done():
                continue
            elsewhere = [replica for replica in free if replica is not ticket.avoid]
            chosen = min(elsewhere or free, key=lambda replica: (replica.busy, replica.last_given))
            chosen.occupy()
            chosen.last_given = time.monotonic()
            ticket.place.set_result(chosen)

    async def watch(self) -> None:
        """For ever: end the wait of all when an outage lasts longer than it may."""
        while True:
            await asyncio.sleep(_TICK)
            self.wake()
            if (refusal := self._lasting_outage()) is not None:
                while len(self._queue):
                    ticket = self._queue.pop()
                    if not ticket.place.done():
                        ticket.place.set_exception(refusal)

    def _lasting_outage(self) -> Refusal | None:
        since = self._blocked_since
        if since is None or time.monotonic() - since < self._settings.outage_seconds:
            return None
        return self.outage()

    # --- work

    async def run(
        self,
        client: Hashable,
        document: Hashable,
        path: str,
        pages: int,
        make: Callable[[], Awaitable[Payload]],
        accept: Callable[[bytes, bool], Result],
    ) -> tuple[bytes, Result]:
        """Send one range, a second time elsewhere when the first attempt fails; the reply and what `accept` made of it.

        pages: in the range. make: its body, made when a replica is there for it, so that no more bodies exist than
        calls. accept: reads a success; True when this is the last attempt; raises BadReply (Unread) when it is none.
        Parsing changes nothing anywhere, so a second attempt is safe; not made of what the API refuses (4xx).
        Raises Refusal.
        """
        seconds = self._settings.seconds_for(pages)
        failures: list[Exception] = []
        avoid: Replica | None = None
        while True:
            replica = await self.acquire(client, document, pages, avoid)
            try:
                payload = await make()
            except BaseException:
                replica.free()
                raise
            avoid, begun = replica, time.monotonic()
            try:
                status, body = await replica.call(path, payload, seconds)
                if status == 200:
                    result = accept(body, len(failures) + 1 == TRIES)
                    self._was_read(replica, pages, time.monotonic() - begun)
                    return body, result
                if status < 500:
                    raise Refusal("refused-by-api", _message(body, status))
                message = _message(body, status)
                if _NOT_LOADED in message:
                    raise Refusal(
                        "refused-by-api", "an option needs a model that this service has not loaded (document preprocessing)"
                    )
                failures.append(BadReply(f"HTTP {status}: {message}"))
            except NotSent:
                continue  # nothing was begun; the replica is out, so this ends
            except (Lost, Late, BadReply) as error:
                failures.append(error)
            LOG.info("range of %d pages failed on %s: %s", pages, replica.name, failures[-1])
            # A replica says "Internal server error" to all: only the VLM itself tells whether it is the cause.
            vlm_is_up = await self.vlm.check()
            if len(failures) == TRIES:
                raise self._refusal(failures, vlm_is_up)

    def _was_read(self, replica: Replica, pages: int, seconds: float) -> None:
        replica.last_page = time.monotonic()
        self._page_seconds += 0.1 * (seconds / pages - self._page_seconds)

    def _refusal(self, failures: list[Exception], vlm_is_up: bool) -> Refusal:
        if not vlm_is_up and (outage := self.outage()) is not None:
            return outage
        last = failures[-1]
        if all(isinstance(failure, Late) for failure in failures):
            return Refusal("deadline", f"two replicas gave no answer ({last}); the VLM may hang, or the pages be very heavy")
        if isinstance(last, BadReply) and not str(last).startswith("HTTP"):
            return Refusal("bad-reply", str(last))
        said = ", then ".join(str(failure) or type(failure).__name__ for failure in failures)
        return Refusal("failed-twice", f"two attempts failed ({said[:200]}); the API's log has the cause under this logId")


def _message(body: bytes, status: int) -> str:
    try:
        return str(json.loads(body)["errorMsg"])[:500]
    except (ValueError, KeyError, TypeError):
        return f"HTTP {status}"
