"""A run: inputs through the service into a folder, each step told to the journal, so that it can end at any moment."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kit.batch import report, store
from kit.batch.fetch import fetch
from kit.batch.inputs import Input
from kit.batch.journal import Journal, Known
from kit.batch.names import REPORT
from kit.batch.output import Made, Output
from kit.batch.store import Store
from kit.batch.watch import Watch
from kit.batch.wish import Wish
from kit.client.client import CONCURRENCY, send_part
from kit.client.failures import ParseError, Unread, Unusable
from kit.client.flight import PATIENCE, Flight, Job
from kit.client.opened import Opened, Reader
from kit.client.ranges import count, cut, wanted, without
from kit.client.results import Page
from kit.client.retry import Backoff
from kit.client.transport import Transport
from kit.errors import KitError

_SMALL = 2**20  # bytes of a file that is hashed on the way
_AHEAD = 4  # documents that are looked at before their turn


@dataclass(frozen=True)
class Service:
    """Where the pages are read. As the arguments of kit.client.AsyncClient."""

    url: str
    api_key: str = ""
    concurrency: int = CONCURRENCY
    timeout: float | None = None
    backoff: Backoff = field(default_factory=Backoff)
    patience: float = PATIENCE


@dataclass
class _Work:
    """A document that is being parsed. left: pages that were neither read nor lost yet.

    specks: pages that are blank if others are not, which only the whole document tells.
    """

    input: Input
    known: Known
    identity: str
    opened: Opened
    left: int
    specks: list[tuple[Job, Unread]] = field(default_factory=list)


class Run:
    """One call of ./kit parse. folder: of the output; the state lies in a folder below it. journal: open, with its past."""

    def __init__(
        self, service: Service, inputs: Sequence[Input], folder: Path, state: Path, wish: Wish, journal: Journal, watch: Watch
    ) -> None:
        self._service, self._inputs, self._wish, self._watch = service, inputs, wish, watch
        self._folder, self._state, self._journal = folder, state, journal
        self._known = journal.past.known
        self._downloads, self._parts = state / "downloads", state / "parts"
        self._store = Store(state / "pages")
        self.first_error: KitError | None = None  # of this run, for people: with its hint

    async def run(self) -> report.Totals:
        """Raises KitError where the service is of no use, or the disk: the journal stays, the next run goes on. OSError too."""
        for one in (self._downloads, self._parts):
            one.mkdir(parents=True, exist_ok=True)
        for left_over in self._parts.iterdir():
            left_over.unlink()
        service = self._service
        self._reader = Reader(self._parts)
        async with Transport(
            service.url, api_key=service.api_key, timeout=service.timeout, connections=service.concurrency
        ) as self._transport:
            await self._reader.start()
            flight = Flight(
                *(self._send, self._take, self._lose), concurrency=service.concurrency, backoff=service.backoff,
                patience=service.patience, has_read=any(known.read for known in self._known.values()),
            )  # fmt: skip
            self._output = Output(self._folder, self._state / "aside", self._store, self._transport, self._wish, flight)
            try:
                await flight.run(self._fresh())
            finally:
                await self._reader.stop()
        result = report.report(self._inputs, self._known, self._wish.settings)
        (self._state / REPORT).write_text(json.dumps(result, indent=1) + "\n")
        (self._state / REPORT).replace(self._folder / REPORT)
        self._journal.add("ended")
        return report.totals(self._inputs, self._known)

    # --- documents in

    async def _fresh(self) -> AsyncIterator[Job]:
        """Ranges of one document after the other; the next ones are looked at meanwhile."""
        coming: deque[asyncio.Task[_Work | None]] = deque()
        inputs = iter(self._inputs)
        try:
            while True:
                while len(coming) < _AHEAD and (one := next(inputs, None)) is not None:
                    if self._is_settled(one):
                        self._watch.settled(one, self._known[one.key])
                    else:
                        coming.append(asyncio.create_task(self._begin(one)))
                if not coming:
                    return
                # Whichever is there first: one that has to be fetched from far away does not hold up the others.
                await asyncio.wait(coming, return_when=asyncio.FIRST_COMPLETED)
                ready = next(task for task in coming if task.done())
                coming.remove(ready)
                if (work := ready.result()) is None:
                    continue
                if not work.left:
                    await self._finish(work)
                done = [*work.known.read, *(lost.span for lost in work.known.lost)]
                for span in cut(work.known.asked, done, work.opened.per_range):
                    yield Job(work, span)
        finally:
            for task in coming:
                task.cancel()
            await asyncio.gather(*coming, return_exceptions=True)

    def _is_settled(self, one: Input) -> bool:
        """Whether an earlier run has done with it, and it is what it was then, and so is its output."""
        known = self._known[one.key]
        return known.done and (one.path is None or _stamp(one.path) == known.stamp) and self._output.is_there(known)

    async def _begin(self, one: Input) -> _Work | None:
        """Look at a document; None where there is nothing more to do for it."""
        try:
            return await self._opened(one)
        except Unusable as error:
            self._fail(one, error)
            return None

    async def _opened(self, one: Input) -> _Work | None:
        known, identity = self._known[one.key], store.identity(one.key)
        path = one.path
        if path is None:
            path = self._downloads / identity
            if not path.exists():
                await fetch(one.key, one.shown, path, self._service.backoff)
        stamp = _stamp(path)
        digest = await asyncio.to_thread(_digest, path) if stamp[0] > _SMALL else _digest(path)
        if known.pages and digest:  # of what cannot be read, the reader says why
            if known.sha256 != digest:
                self._journal.add("changed", key=one.key)
            elif known.stamp != stamp:
                self._journal.add("touched", key=one.key, stamp=stamp)
        if known.done:
            if digest and known.failed is None and self._output.is_there(known):
                self._watch.settled(one, known)
                return None
            self._journal.add("again", key=one.key)
        opened = await self._reader.open(path, one.shown)
        if not known.pages:
            asked = wanted(opened.pages, self._wish.pages, self._wish.max_pages)
            if not count(asked):
                pages = f"{opened.pages} page{'s' if opened.pages > 1 else ''}"
                await opened.close()
                raise Unusable(one.shown, "no-such-page", f"it has {pages}, none of those that are asked for")
            self._store.drop(identity)
            kind = "tiff" if opened.kind.is_tiff else "pdf" if opened.kind.file_type == 0 else "image"
            self._journal.add(
                *("begun",), key=one.key, stamp=stamp, sha256=digest, pages=opened.pages, type=kind, asked=asked
            )  # fmt: skip
        for span, size in [*known.read.items()]:
            if not await asyncio.to_thread(self._store.has, identity, span, size):
                self._journal.add("gone", key=one.key, span=span)
        left = count(without(known.asked, [*known.read, *(lost.span for lost in known.lost)]))
        self._watch.begun(one, count(known.asked), count(known.asked) - left)
        return _Work(one, known, identity, opened, left)

    def _fail(self, one: Input, error: Unusable) -> None:
        self.first_error = self.first_error or error
        if one.path is None:  # what came may have been a page that asks for a login
            (self._downloads / store.identity(one.key)).unlink(missing_ok=True)
        self._output.remove(self._known[one.key].stale)
        stamp = _stamp(one.path) if one.path is not None else (0, 0)
        self._journal.add("failed", key=one.key, stamp=stamp, kind=error.kind, cause=error.cause)
        self._watch.finished(one, self._known[one.key])

    # --- pages out

    async def _send(self, job: Job) -> list[Page]:
        work: _Work = job.document
        return await send_part(self._transport, work.opened, job.span, self._wish.page_options, _log_id(work, job.span))

    async def _take(self, job: Job, pages: list[Page]) -> None:
        await self._keep(job.document, job, pages)
        await self._advance(job.document, job, 0)

    async def _keep(self, work: _Work, job: Job, pages: list[Page]) -> None:
        size = await asyncio.to_thread(self._store.put, work.identity, job.span, pages)
        self._journal.add("read", key=work.input.key, span=job.span, size=size)

    async def _lose(self, job: Job, error: KitError) -> None:
        work: _Work = job.document
        if isinstance(error, Unread) and error.page is not None:
            work.specks.append((job, error))
            await self._advance(work, job, 0)
        else:
            self._lost(work, job, error)
            await self._advance(work, job, job.pages)

    def _lost(self, work: _Work, job: Job, error: KitError) -> None:
        self.first_error = self.first_error or error
        kind, cause = (error.kind, error.cause) if isinstance(error, (ParseError, Unusable)) else ("error", error.message)
        log_id = _log_id(work, job.span) if isinstance(error, ParseError) else ""
        self._journal.add("lost", key=work.input.key, span=job.span, kind=kind, cause=cause, log_id=log_id)

    async def _advance(self, work: _Work, job: Job, lost: int) -> None:
        work.left -= job.pages
        self._watch.advanced(work.input, job.pages, lost)
        if not work.left:
            await self._finish(work)

    async def _finish(self, work: _Work) -> None:
        """Every page of it is read or lost: write the output."""
        await work.opened.close()
        one, known = work.input, work.known
        if one.path is not None and (stamp := _stamp(one.path)) != known.stamp:
            if await asyncio.to_thread(_digest, one.path) != known.sha256:
                self._journal.add("changed", key=one.key)  # some of its pages may be those of before, some not
                self._fail(one, Unusable(one.shown, "changed", "the file has changed while it was parsed", "run this again"))
                return
            self._journal.add("touched", key=one.key, stamp=stamp)
        await self._judge_specks(work)
        made = await self._output.make(work.identity, known, one.source) if known.read else Made()
        self._output.remove(set(known.stale) - set(made.files))
        lacks = {what: (error.kind, error.cause) for what, error in made.lacks.items()}
        self._journal.add("done", key=one.key, files=made.files, lacks=lacks)
        if known.is_whole:
            self._store.drop(work.identity)
        if known.is_whole or not known.read:
            (self._downloads / work.identity).unlink(missing_ok=True)
        self._watch.finished(one, known)

    async def _judge_specks(self, work: _Work) -> None:
        """As the gateway does with whole documents: a page of specks is blank where another one has text."""
        pages = self._store.pages(work.identity, work.known.read)
        if not work.specks or await asyncio.to_thread(lambda: any(page.has_text for page in pages)):
            for job, error in work.specks:
                await self._keep(work, job, [error.page])
        else:
            for job, error in work.specks:
                self._lost(work, job, error)
                self._watch.advanced(work.input, 0, job.pages)


def _stamp(path: Path) -> tuple[int, int]:
    """Size and mtime; of nothing, zeros."""
    try:
        there = path.stat()
    except (OSError, ValueError):
        return (0, 0)
    return there.st_size, there.st_mtime_ns


def _digest(path: Path) -> str:
    total = hashlib.sha256()
    try:
        if not path.is_file():  # a pipe gives nothing, a device no end
            return ""
        with path.open("rb") as file:
            while piece := file.read(2**20):
                total.update(piece)
    except (OSError, ValueError):
        return ""  # what is wrong with it, Reader.open says
    return total.hexdigest()


def _log_id(work: _Work, span: Iterable[int]) -> str:
    """The same in each run; stands in the service's log."""
    return "-".join(("kit", work.identity[:12], *(f"{page}" for page in span)))
