"""Which replica works on what: the least busy one that is in service, clients in turn, one more try elsewhere."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field

from kit.gateway.causes import Refusal
from kit.gateway.fairness import FairQueue
from kit.gateway.join import BadReply, Reading
from kit.gateway.metrics import Metrics
from kit.gateway.replica import PARSE, Late, Lost, NotSent, Payload, Replica
from kit.gateway.settings import Settings
from kit.gateway.vlm import Vlm

LOG = logging.getLogger("kit.gateway")

TRIES = 2  # attempts at a range that a replica has begun
# What PaddleX answers with HTTP 500 where useDocUnwarping or the like asks for a model that is not there.
_NOT_LOADED = "input params for model settings are invalid"
_LARGE = 4 * 2**20  # bytes of a reply from which on others are served while it is read
_TICK = 0.25  # seconds between two looks at whether an outage lasts too long


class ServerError(Exception):
    """The API answered 5xx; says its own words."""


class Unread(BadReply):
    """A success in which the VLM read nothing; on the last attempt it is taken as it is, and judged with the whole document."""


@dataclass
class Ticket:
    """A place in the queue. avoid: a replica that failed on it."""

    avoid: Replica | None
    place: asyncio.Future[Replica] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Pool:
    """The replicas and the one queue in front of them."""

    def __init__(self, settings: Settings, vlm: Vlm, metrics: Metrics) -> None:
        self.replicas: list[Replica] = []
        self.vlm = vlm
        self._settings, self._metrics = settings, metrics
        self._queue: FairQueue[Ticket] = FairQueue()
        self._again: list[Ticket] = []  # those that failed once; each waits for another replica than that one
        self._waiting: Counter[Hashable] = Counter()  # pages of each client, for a replica
        self._blocked_since: float | None = time.monotonic()
        self._page_seconds = 2.0  # of one page in one replica, smoothed; the first guess is soon forgotten

    # --- how it stands

    @property
    def slots(self) -> int:
        """Calls that the replicas in service take at once; at least 1."""
        return max(1, sum(replica.is_up for replica in self.replicas)) * int(self._settings.replica_concurrency)

    @property
    def waiting_pages(self) -> int:
        """For a replica."""
        return self._waiting.total()

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

    def require_room(self, client: Hashable) -> None:
        """Raises Refusal (queue-full) at once where a new document would have to wait too long.

        Clients that wait share the queue evenly, so that none of them fills it for the others.
        """
        own, share = self._waiting[client], self._settings.queue_pages / max(1, len(self._waiting.keys() | {client}))
        if own >= share:
            again = self.retry_after()
            raise Refusal("queue-full", f"{own} pages of this client are waiting; come again in {again} s", retry_after=again)

    # --- places

    async def acquire(self, client: Hashable, document: Hashable, pages: int, avoid: Replica | None = None) -> Replica:
        """Wait for a place; the replica is occupied, and freed by its `call` or `free`. Raises Refusal in an outage."""
        if (refusal := self._lasting_outage()) is not None:
            raise refusal
        ticket = Ticket(avoid)
        if avoid is None:
            self._queue.put(client, document, ticket)
        else:
            self._again.append(ticket)
        self._waiting[client] += pages
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
            self._waiting[client] -= pages
            if not self._waiting[client]:
                del self._waiting[client]
            self._metrics.seconds.observe("wait", time.monotonic() - begun)

    def wake(self) -> None:
        """Give free places to those who are next. Called whenever anything may have changed."""
        blocked = self.outage() is not None
        self._blocked_since = (self._blocked_since or time.monotonic()) if blocked else None
        if blocked:
            return
        # What failed once has had its turn: it comes first, and goes back to the one that failed only where no other is up.
        for ticket in list(self._again):
            others = [replica for replica in self.replicas if replica.is_up and replica is not ticket.avoid]
            if free := [replica for replica in others or self.replicas if replica.has_room]:
                self._again.remove(ticket)
                self._give(ticket, free)
        while len(self._queue):
            free = [replica for replica in self.replicas if replica.has_room]
            if not free:
                return
            self._give(self._queue.pop(), free)

    @staticmethod
    def _give(ticket: Ticket, free: list[Replica]) -> None:
        if ticket.place.done():  # nobody waits for it
            return
        chosen = min(free, key=lambda replica: (replica.busy, replica.last_given))
        chosen.occupy()
        chosen.last_given = time.monotonic()
        ticket.place.set_result(chosen)

    async def watch(self) -> None:
        """For ever: end the wait of all when an outage lasts longer than it may."""
        while True:
            await asyncio.sleep(_TICK)
            self.wake()
            if (refusal := self._lasting_outage()) is not None:
                again, self._again = self._again, []
                for ticket in again + [self._queue.pop() for _ in range(len(self._queue))]:
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
        accept: Callable[[bytes, bool], Reading],
    ) -> tuple[bytes, Reading]:
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
            if not replica.is_up and any(one.is_up for one in self.replicas):  # it went out while the body was made
                replica.free()
                continue
            begun = time.monotonic()
            try:
                status, body = await replica.call(path, payload, seconds)
                if status == 200:
                    last = len(failures) + 1 == TRIES
                    reading = accept(body, last) if len(body) < _LARGE else await asyncio.to_thread(accept, body, last)
                    if path == PARSE:
                        self._was_read(replica, reading, time.monotonic() - begun)
                        if avoid and reading.has_text and isinstance(failures[-1], BadReply):
                            avoid.has_failed(str(failures[-1]))  # another one can read it
                    return body, reading
                message = _message(body, status)
                if _NOT_LOADED in message:
                    message = "an option needs a model that this service has not loaded (document preprocessing)"
                    status = 422
                if status < 500:
                    raise Refusal("refused-by-api", message)
                failures.append(ServerError(f"HTTP {status}: {message}"))
            except NotSent:
                continue  # nothing was begun; the replica is out, so this ends
            except (Lost, Late, BadReply) as error:
                failures.append(error)
            avoid = replica
            LOG.info("range of %d pages failed on %s: %s", pages, replica.name, failures[-1])
            # A replica says "Internal server error" to all: only the VLM itself tells whether it is the cause.
            vlm_is_up = await self.vlm.check()
            # Pages that cannot be put together are the client's.
            if vlm_is_up and path == PARSE and isinstance(failures[-1], ServerError):
                replica.has_failed(str(failures[-1]))
            if len(failures) == TRIES:
                raise self._refusal(failures, vlm_is_up)

    def _was_read(self, replica: Replica, reading: Reading, seconds: float) -> None:
        if reading.has_text:
            replica.is_sound()
        self._page_seconds += 0.1 * (seconds / len(reading.pages) - self._page_seconds)

    def _refusal(self, failures: list[Exception], vlm_is_up: bool) -> Refusal:
        if not vlm_is_up and (outage := self.outage()) is not None:
            return outage
        last = failures[-1]
        if all(isinstance(failure, Late) for failure in failures):
            return Refusal("deadline", f"two replicas gave no answer ({last}); the VLM may hang, or the pages be very heavy")
        if isinstance(last, BadReply):
            return Refusal("bad-reply", str(last))
        said = ", then ".join(str(failure) or type(failure).__name__ for failure in failures)
        return Refusal("failed-twice", f"two attempts failed ({said[:200]}); the API's log has the cause under this logId")


def _message(body: bytes, status: int) -> str:
    try:
        return str(json.loads(body)["errorMsg"])[:500]
    except (ValueError, KeyError, TypeError):
        return f"HTTP {status}"
