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
from kit.batch.output import Output
from kit.batch.store import Store
from kit.batch.watch import Watch
from kit.batch.wish import DOCX, Wish
from kit.client.client import CONCURRENCY, send_part
from kit.client.failures import ParseError, Unusable
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
    """A document that is being parsed. left: pages that were neither read nor lost yet."""

    input: Input
    known: Known
    identity: str
    opened: Opened
    left: int


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
            self._output = Output(self._folder, self._state / "aside", self._store, self._transport, self._wish, service.backoff)
            flight = Flight(
                *(self._send, self._take, self._lose), concurrency=service.concurrency, backoff=service.backoff,
                patience=service.patience, has_read=any(known.read for known in self._known.values()),
            )  # fmt: skip
            try:
                await flight.run(self._fresh())
            finally:
                await self._reader.stop()
        result = report.report(self._inputs, self._known, self._wish.settings)
        store.write(self._folder / REPORT, (json.dumps(result, indent=1) + "\n").encode())
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
                work = await coming.popleft()
                if work is None:
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
        """Whether an earlier run has done with it, and it is what it was then."""
        known = self._known[one.key]
        return known.done and (one.path is None or _stamp(one.path) == known.stamp)

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
                await fetch(one.key, path, self._service.backoff)
        stamp = _stamp(path)
        digest = await asyncio.to_thread(_digest, path) if stamp[0] > _SMALL else _digest(path)
        if known.pages and known.sha256 == digest:
            if known.stamp != stamp:
                self._journal.add("touched", key=one.key, stamp=stamp)
            if known.done:
                self._watch.settled(one, self._known[one.key])
                return None
        else:
            known = Known()
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
        known = self._known[one.key]
        for span in [span for span, size in known.read.items() if not self._store.has(identity, span, size)]:
            self._journal.add("gone", key=one.key, span=span)
        left = count(without(known.asked, [*known.read, *(lost.span for lost in known.lost)]))
        self._watch.begun(one, count(known.asked), count(known.asked) - left)
        return _Work(one, known, identity, opened, left)

    def _fail(self, one: Input, error: ParseError | Unusable, before: str = "") -> None:
        self.first_error = self.first_error or error
        stamp = _stamp(one.path) if one.path is not None else (0, 0)
        self._journal.add("failed", key=one.key, stamp=stamp, kind=error.kind, cause=before + error.cause)
        self._watch.finished(one, self._known[one.key])

    # --- pages out

    async def _send(self, job: Job) -> list[Page]:
        work: _Work = job.document
        return await send_part(self._transport, work.opened, job.span, self._wish.page_options, _log_id(work, job.span))

    async def _take(self, job: Job, pages: list[Page]) -> None:
        work: _Work = job.document
        size = await asyncio.to_thread(self._store.put, work.identity, job.span, pages)
        self._journal.add("read", key=work.input.key, span=job.span, size=size)
        await self._advance(work, job, 0)

    async def _lose(self, job: Job, error: KitError) -> None:
        work: _Work = job.document
        self.first_error = self.first_error or error
        kind, cause = (error.kind, error.cause) if isinstance(error, (ParseError, Unusable)) else ("error", error.message)
        log_id = _log_id(work, job.span) if isinstance(error, ParseError) else ""
        self._journal.add("lost", key=work.input.key, span=job.span, kind=kind, cause=cause, log_id=log_id)
        await self._advance(work, job, job.pages)

    async def _advance(self, work: _Work, job: Job, lost: int) -> None:
        work.left -= job.pages
        self._watch.advanced(work.input, job.pages, lost)
        if not work.left:
            await self._finish(work)

    async def _finish(self, work: _Work) -> None:
        """Every page of it is read or lost: write the output."""
        await work.opened.close()
        one, known = work.input, work.known
        if one.path is not None and _stamp(one.path) != known.stamp:
            self._fail(one, Unusable(one.shown, "changed", "the file has changed while it was parsed", "run this again"))
            return
        if known.read:
            try:
                lacks = await self._output.make(work.identity, known, one.source)
            except ParseError as error:
                self._fail(one, error, "the pages were read, and could not be put together: ")
                return
            if lacks is not None:
                self._journal.add("lacks", key=one.key, format=DOCX, kind=lacks.kind, cause=lacks.cause)
        self._journal.add("done", key=one.key)
        if known.is_whole:
            self._store.drop(work.identity)
            (self._downloads / work.identity).unlink(missing_ok=True)
        self._watch.finished(one, known)


def _stamp(path: Path) -> tuple[int, int]:
    """Size and mtime; of no file, zeros."""
    try:
        there = path.stat()
    except (OSError, ValueError):
        return (0, 0)
    return there.st_size, there.st_mtime_ns


def _digest(path: Path) -> str:
    total = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(2**20):
                total.update(piece)
    except (OSError, ValueError):
        return ""  # what is wrong with it, Reader.open says
    return total.hexdigest()


def _log_id(work: _Work, span: Iterable[int]) -> str:
    """The same in each run; stands in the service's log."""
    return "-".join(("kit", work.identity[:12], *(f"{page}" for page in span)))
