"""What others import: a service's client, with `await` and without."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from kit.client.failures import Unread, Unusable
from kit.client.flight import PATIENCE, Flight, Job
from kit.client.opened import Opened, Reader
from kit.client.ranges import PER_RANGE, count, cut, page_list, wanted
from kit.client.results import Document, FailedPage, Page, PagesFailed
from kit.client.retry import Backoff
from kit.client.transport import Transport
from kit.errors import ExitCode, KitError

CONCURRENCY = 8  # requests in flight: keeps four API processes busy, with one waiting at each
AHEAD = 4  # ranges for each request in flight that `pages` may hold while an earlier one is not there yet
T = TypeVar("T")
Source = Path | str | bytes


class AsyncClient:
    """A client of one service, to be used in `async with`.

    url: its address, with or without /layout-parsing. api_key: sent as Authorization: Bearer.
    concurrency: requests in flight, of all calls.
    timeout: seconds for the answer to one request of up to 8 pages; by default 60, and 30 for each page that is in flight.
    options: fields of the API for every request, such as {"useChartRecognition": True}.
    backoff: pauses before a failed request is sent again. patience: seconds that the service may refuse everything.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str = "",
        concurrency: int = CONCURRENCY,
        timeout: float | None = None,
        options: Mapping[str, Any] | None = None,
        backoff: Backoff | None = None,
        patience: float = PATIENCE,
    ) -> None:
        self._transport = Transport(url, api_key=api_key, timeout=timeout, connections=concurrency)
        self._concurrency = concurrency
        self._options = dict(options or {})
        self._backoff, self._patience = backoff or Backoff(), patience
        self._reader = Reader()
        self._slots = asyncio.Semaphore(concurrency)

    async def __aenter__(self) -> AsyncClient:
        await self._transport.__aenter__()
        await self._reader.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._reader.stop()
        await self._transport.__aexit__(kind, error, trace)

    async def parse(
        self, source: Source, *, pages: str = "", max_pages: int | None = None, options: Mapping[str, Any] | None = None
    ) -> Document:
        """A whole document: its file's path, or its bytes.

        pages: such as "3-7,9", all by default; max_pages: the first of them at most. options: as those of the client, over them.
        Raises Unusable where the file cannot be read, ParseError where the service cannot be used, and PagesFailed where
        some pages could not be read; it has a document of the others.
        """
        async with self._opened(source) as opened:
            good: list[Page] = []
            bad: list[FailedPage] = []
            async with contextlib.aclosing(self._pages(opened, pages, max_pages, options or {})) as there:
                async for page in there:
                    (good if isinstance(page, Page) else bad).append(page)  # type: ignore[arg-type]
            document = Document(opened.name, opened.pages, tuple(good), tuple(bad))
            if bad:
                raise PagesFailed(document)
            return document

    async def pages(
        self, source: Source, *, pages: str = "", max_pages: int | None = None, options: Mapping[str, Any] | None = None
    ) -> AsyncIterator[Page | FailedPage]:
        """The pages of a document in their order, each as soon as it and all before it are there; few are held at a time.

        Arguments and errors as those of `parse`, but that a page which could not be read comes as a FailedPage.
        """
        async with self._opened(source) as opened:
            async with contextlib.aclosing(self._pages(opened, pages, max_pages, options or {})) as there:
                async for page in there:
                    yield page

    @contextlib.asynccontextmanager
    async def _opened(self, source: Source) -> AsyncIterator[Opened]:
        with contextlib.ExitStack() as stack:
            if isinstance(source, bytes):
                file = stack.enter_context(tempfile.NamedTemporaryFile(prefix="kit-client-"))
                file.write(source)
                file.flush()
                opened = await self._reader.open(Path(file.name), "document")
            else:
                path = Path(source)
                opened = await self._reader.open(path, path.name)
            try:
                yield opened
            finally:
                await opened.close()

    async def _pages(
        self, opened: Opened, pages: str, max_pages: int | None, options: Mapping[str, Any]
    ) -> AsyncGenerator[Page | FailedPage, None]:
        spans = chosen(opened, pages, max_pages)
        numbers = [number for first, last in spans for number in range(first, last + 1)]
        there: dict[int, Page | FailedPage] = {}
        specks: list[Unread] = []  # pages that are blank if another one has text
        has_text = False
        given = 0  # how many of `numbers` were handed out
        changed = asyncio.Event()

        async def send(job: Job) -> list[Page]:
            async with self._slots:
                return await send_part(self._transport, opened, job.span, {**self._options, **options}, "")

        async def take(_: Job, read: list[Page]) -> None:
            nonlocal has_text
            there.update({page.number: page for page in read})
            has_text = has_text or any(page.has_text for page in read)
            judge()

        async def lose(job: Job, error: KitError) -> None:
            if isinstance(error, Unread) and error.page is not None:
                specks.append(error)
            else:
                there.update({number: FailedPage(number, error) for number in range(job.span[0], job.span[1] + 1)})
            judge()

        def judge() -> None:
            if has_text or running.done():
                for page, error in ((error.page, error) for error in specks if error.page):
                    there[page.number] = page if has_text else FailedPage(page.number, error)
                specks.clear()
            changed.set()

        async def fresh() -> AsyncIterator[Job]:
            for span in cut(spans, most=opened.per_range):
                yield Job(opened, span)

        workers = min(self._concurrency, len(numbers))
        flight = Flight(
            *(send, take, lose), concurrency=workers, backoff=self._backoff, patience=self._patience,
            has_room=lambda: bool(specks) or len(there) < AHEAD * PER_RANGE * workers,
        )  # fmt: skip
        running = asyncio.create_task(flight.run(fresh()))
        running.add_done_callback(lambda _: judge())
        try:
            while given < len(numbers):
                if (page := there.pop(numbers[given], None)) is not None:
                    given += 1
                    flight.wake()  # there is room again
                    yield page
                elif running.done() and not specks:
                    await running  # raises what stopped it
                    raise AssertionError(f"page {numbers[given]} was neither read nor lost")
                else:
                    changed.clear()
                    await changed.wait()
            await running
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


def chosen(opened: Opened, pages: str, max_pages: int | None) -> list[tuple[int, int]]:
    """The pages of a document that are asked for. Raises Unusable where it has none of them, KitError (USAGE) for a bad list."""
    try:
        spans = wanted(opened.pages, page_list(pages) if pages else (), max_pages)
    except ValueError as error:
        raise KitError(f"pages {pages!r}: {error}", "such as 3-7,9", ExitCode.USAGE) from None
    if not count(spans):
        which = f"it has {opened.pages} page{'s' if opened.pages > 1 else ''}, none of those that are asked for"
        raise Unusable(opened.name, "no-such-page", which, "ask for others with --pages")
    return spans


async def send_part(
    transport: Transport, opened: Opened, span: tuple[int, int], options: Mapping[str, Any], log_id: str
) -> list[Page]:
    """One request with these pages of a document. Raises ParseError, Unusable, OSError."""
    part = await opened.part(span)
    try:
        return await transport.parse(part.path, part.file_type, range(span[0], span[1] + 1), options, log_id)
    except OSError as error:
        if part.is_cut or error.filename != str(part.path):  # the disk, to which the reply is written
            raise
        raise Unusable(opened.name, "missing", f"the file cannot be read any more: {error.strerror}") from None
    finally:
        part.remove()


class Client:
    """As AsyncClient, for code without `await`, notebooks too: to be used in `with`. Arguments as those of AsyncClient."""

    def __init__(self, url: str, **settings: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="kit-client", daemon=True)
        self._thread.start()

        async def make() -> AsyncClient:
            return AsyncClient(url, **settings)

        try:
            self._client = self._wait(make())
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Client:
        self._wait(self._client.__aenter__())
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            self._wait(self._client.__aexit__(*error))
        finally:
            self._end()

    def parse(
        self, source: Source, *, pages: str = "", max_pages: int | None = None, options: Mapping[str, Any] | None = None
    ) -> Document:
        """As AsyncClient.parse."""
        return self._wait(self._client.parse(source, pages=pages, max_pages=max_pages, options=options))

    def pages(
        self, source: Source, *, pages: str = "", max_pages: int | None = None, options: Mapping[str, Any] | None = None
    ) -> Iterator[Page | FailedPage]:
        """As AsyncClient.pages."""
        there = self._client.pages(source, pages=pages, max_pages=max_pages, options=options)
        try:
            while True:
                try:
                    page = self._wait(_following(there))
                except StopAsyncIteration:
                    return
                yield page
        finally:
            self._wait(there.aclose())  # type: ignore[attr-defined]

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        tasks: list[asyncio.Task[Any]] = []

        async def run() -> T:
            tasks.append(asyncio.current_task())  # type: ignore[arg-type]
            return await work

        future = asyncio.run_coroutine_threadsafe(run(), self._loop)
        try:
            return future.result()
        except BaseException:
            if future.cancel():  # Ctrl-C in this thread ends the work in the other, and waits until it has ended
                asyncio.run_coroutine_threadsafe(_ended(tasks), self._loop).result()
            raise

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _ended(tasks: list[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)


async def _following(pages: AsyncIterator[T]) -> T:
    return await pages.__anext__()
