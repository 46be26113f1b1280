"""A document through the replicas: looked at, divided, joined, and put together anew where all pages are needed at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any

from kit.documents import IMAGE, PDF
from kit.gateway.body import Room, Spool
from kit.gateway.causes import Refusal
from kit.gateway.dispatch import Pool, Unread
from kit.gateway.join import BadReply, Pages, Reading, read_reply, unread_pages
from kit.gateway.replica import PARSE, RESTRUCTURE, Payload
from kit.gateway.settings import Settings
from kit.gateway.split import ranges
from kit.gateway.splitters import Document, Splitters

_TOGETHER = 2  # documents whose pages are all in memory at once
# Of /layout-parsing, and what /restructure-pages is told of them.
_OVER_PAGES = ("mergeTables", "relevelTitles", "prettifyMarkdown", "showFormulaNumber", "returnMarkdownImages", "outputFormats")


@dataclass(frozen=True)
class Answer:
    """A good reply: its bytes, in pieces. size: of all of them. pages: how many it has. close: to be called afterwards."""

    pieces: Iterator[bytes]
    size: int
    pages: int
    close: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Request:
    """A checked request. fields: all but `file`. key: of this document, among those of one client."""

    fields: dict[str, Any]
    log_id: str
    client: Hashable
    key: Hashable


class Parser:
    """POST /layout-parsing and /restructure-pages, behind the checks of the request."""

    def __init__(self, settings: Settings, pool: Pool, splitters: Splitters, room: Room) -> None:
        self._settings, self._pool, self._splitters, self._room = settings, pool, splitters, room
        self.all_pages = asyncio.Semaphore(_TOGETHER)  # to be held by who has all pages of a document in memory

    async def parse(self, request: Request, spool: Spool) -> Answer:
        """Raises Refusal."""
        if not spool.size:
            raise Refusal("empty-file", "`file` is empty")
        document = await self._splitters.open(spool, self._settings.max_pages)
        try:
            self._check(document, request.fields.get("fileType"))
            self._pool.require_room(request.client)
            parts = self._ranges(document)
            if len(parts) == 1:
                return await self._whole(request, spool, document)
            return await self._divided(request, document, parts)
        finally:
            await document.close()

    async def restructure(self, request: Request) -> Answer:
        """Raises Refusal."""
        pages = request.fields["pages"]
        count = 1 if request.fields.get("concatenatePages") else len(pages)

        async def make() -> Payload:
            return await asyncio.to_thread(Payload, {**request.fields, "logId": request.log_id})

        try:
            body, _ = await self._restructured(request, make, len(pages), count)
        except Refusal as refusal:
            if refusal.cause.name != "failed-twice":
                raise
            # No VLM has a part in this, and two replicas failed alike.
            said = "the API cannot put these pages together; take them as a reply of /layout-parsing has them"
            raise Refusal("bad-field", f"`pages`: {said}") from None
        return Answer(iter((body,)), len(body), 0)

    def _check(self, document: Document, file_type: int | None) -> None:
        kind = document.kind
        if file_type is not None and file_type != kind.file_type:
            right = f"it is a {kind.name}: send fileType {kind.file_type}"
            raise Refusal("file-type", f"`fileType` {file_type} means {'PDF' if file_type == PDF else 'picture'}, but {right}")
        if kind.pages > self._settings.max_pages:
            more = "more than" if kind.is_tiff else f"{kind.pages} pages, the limit is"
            raise Refusal("too-many-pages", f"the document has {more} {self._settings.max_pages} pages; send it in parts")

    def _ranges(self, document: Document) -> list[tuple[int, int]]:
        if document.kind.is_tiff:
            return [(page, page) for page in range(document.kind.pages)]
        most = min(self._settings.pages_per_range, document.kind.at_once)
        return ranges(document.kind.pages, self._pool.slots, most)

    def _fields(self, request: Request, **changed: Any) -> dict[str, Any]:
        # Pictures of the pages are 97 % of upstream's default reply: sent to who asks for them.
        visualize = request.fields.get("visualize") or False
        return {**request.fields, "logId": request.log_id, "visualize": visualize, **changed}

    async def _whole(self, request: Request, spool: Spool, document: Document) -> Answer:
        """One call for all: the very document, and the very reply."""
        kind = document.kind

        async def make() -> Payload:
            return Payload(self._fields(request, fileType=kind.file_type), spool)

        def accept(body: bytes, last: bool) -> Reading:
            return _accepted(body, kind.pages, last)

        try:
            body, reading = await self._pool.run(request.client, request.key, PARSE, kind.pages, make, accept)
        except Refusal as refusal:
            raise await self._explained(refusal, document) from None
        _require_text(unread_pages(list(reading.pages)))
        return Answer(iter((body,)), len(body), kind.pages)

    async def _divided(self, request: Request, document: Document, parts: list[tuple[int, int]]) -> Answer:
        restructure = bool(request.fields.get("restructurePages"))
        first_step: dict[str, Any] = {"restructurePages": False}
        if restructure:
            # Exports and formatted blocks are of the pages after they are put together: both are made in the second step.
            first_step |= {"outputFormats": None, "formatBlockContent": False}
            if request.fields.get("outputFormats"):
                first_step["returnMarkdownImages"] = True  # they are drawn from these
        pages = Pages(document.kind.pages, self._room)
        try:
            await _all([self._part(request, document, pages, first, last, first_step) for first, last in parts])
            _require_text(unread_pages(pages.read))
            kind = "tiff" if document.kind.is_tiff else "pdf"
            if restructure:
                async with self.all_pages:
                    await self._over_pages(request, pages)
            pieces = pages.reply(request.log_id, kind)
            return Answer(pieces, pages.size(request.log_id, kind), document.kind.pages, pages.close)
        except (BadReply, KeyError, TypeError, AttributeError) as error:
            pages.close()
            said = str(error) if isinstance(error, BadReply) else "the API's reply is not of the contract"
            raise Refusal("bad-reply", said) from error
        except BaseException:
            pages.close()
            raise

    async def _part(
        self, request: Request, document: Document, pages: Pages, first: int, last: int, changed: dict[str, Any]
    ) -> None:
        async def make() -> Payload:
            data, file_type = await document.cut(first, last)
            return Payload(self._fields(request, fileType=file_type, **changed), data)

        def accept(body: bytes, is_last: bool) -> Reading:
            return _accepted(body, last - first + 1, is_last)

        try:
            _, reading = await self._pool.run(request.client, request.key, PARSE, last - first + 1, make, accept)
        except Refusal as refusal:
            where = f"page {first + 1}" if first == last else f"pages {first + 1} to {last + 1}"
            raise Refusal(refusal.cause.name, f"{where}: {refusal.sentence}", retry_after=refusal.retry_after) from None
        pages.put(first, reading)

    async def _explained(self, refusal: Refusal, document: Document) -> Refusal:
        """PaddleX says "Invalid input file" to all that it cannot read; say why."""
        is_it = refusal.cause.name == "refused-by-api" and "Invalid input file" in refusal.sentence
        if is_it and document.kind.file_type == IMAGE and (why := await document.why_not()):
            return Refusal("corrupt", why)
        return refusal

    async def _over_pages(self, request: Request, pages: Pages) -> None:
        """restructurePages: what PaddleX does in one go, by its own /restructure-pages, with all pages at once, as there."""
        asked = request.fields
        fields = {name: asked[name] for name in _OVER_PAGES if asked.get(name) is not None}
        fields |= {"concatenatePages": False, "logId": request.log_id}
        count = len(pages.read)

        async def make() -> Payload:
            return Payload(await asyncio.to_thread(_together, fields, asked, pages, self._settings.max_body))

        _, reading = await self._restructured(request, make, count, count)
        for number, after in enumerate(reading.pages):
            pages.write(number, await asyncio.to_thread(_put_into, pages.page(number), after.text, asked))

    async def _restructured(
        self, request: Request, make: Callable[[], Awaitable[Payload]], pages: int, count: int
    ) -> tuple[bytes, Reading]:
        """pages: that are sent. count: that are to come back."""

        def accept(body: bytes, _: bool) -> Reading:
            return read_reply(body, count)

        return await self._pool.run(request.client, request.key, RESTRUCTURE, pages, make, accept)


def _together(fields: dict[str, Any], asked: dict[str, Any], pages: Pages, limit: int) -> bytearray:
    """The body for /restructure-pages, page by page, so that one page at a time is there as objects.

    asked: fields of the request. limit: bytes. Raises Refusal (too-large).
    """
    body = bytearray(_encoded(fields)[:-1] + b',"pages":[')
    for number in range(len(pages.read)):
        page = json.loads(pages.page(number))
        page["prunedResult"]["model_settings"]["format_block_content"] = bool(asked.get("formatBlockContent"))
        pictures = page["markdown"].get("images") if asked.get("outputFormats") else None
        body += (b"," if number else b"") + _encoded({"prunedResult": page["prunedResult"], "markdownImages": pictures})
        if len(body) > limit:
            more = f"its pages have more than {limit // 2**20} MiB together, the limit of this gateway"
            raise Refusal("too-large", f"`restructurePages`: {more}; send the document in parts, or without `outputFormats`")
    return body + b"]}"


def _put_into(page: bytes, changed: str, asked: dict[str, Any]) -> str:
    """A page with what /restructure-pages has made of it."""
    before, after = json.loads(page), json.loads(changed)
    markdown = {**before["markdown"], "text": after["markdown"]["text"]}
    if asked.get("returnMarkdownImages") is False:
        markdown = after["markdown"]
    made = {**before, "prunedResult": after["prunedResult"], "markdown": markdown}
    made |= {"exports": after["exports"]} if "exports" in after else {}
    return _encoded(made).decode()


def _encoded(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def _accepted(body: bytes, pages: int, last: bool) -> Reading:
    reading = read_reply(body, pages)
    if not last and unread_pages(list(reading.pages)):
        raise Unread("the VLM read no text")
    return reading


def _require_text(unread: list[int]) -> None:
    if unread:
        which = ", ".join(map(str, unread[:10])) + ("…" if len(unread) > 10 else "")
        raise Refusal(
            "all-empty",
            f"the VLM read no text in any block of page {which}; is its model whole, and the one of the pipeline config?",
        )


async def _all(parts: list[Any]) -> None:
    """Run all; the first failure cancels the others and is raised."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
