"""From pages in the store to files in the output folder: put together, written aside, renamed into place."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from kit.batch import formats, store
from kit.batch.formats import Head
from kit.batch.journal import Known
from kit.batch.names import IMAGES
from kit.batch.store import Kept, Store
from kit.batch.wish import DOCX, MD, Wish
from kit.client.failures import BadReply, ParseError, Standing
from kit.client.retry import Backoff, Tries, Verdict
from kit.client.transport import Transport


class Output:
    """folder: where the documents go. aside: where they are made, on the same disk."""

    def __init__(self, folder: Path, aside: Path, pages: Store, transport: Transport, wish: Wish, backoff: Backoff) -> None:
        self._folder, self._aside, self._store = folder, aside, pages
        self._transport, self._wish, self._backoff = transport, wish, backoff
        self._over_pages = asyncio.Lock()  # all pages of a document are in memory then: one document at a time
        self._no_docx = False  # the service has made none, and none before that
        self._has_docx = False

    async def make(self, identity: str, known: Known, source: str) -> ParseError | None:
        """Write a document in each format; why there is no DOCX, where one was asked for and the service makes none.

        Whatever ends this before its end, doing it again gives the same files.
        Raises ParseError where the service is to put pages together, and does not; OSError.
        """
        lacks: ParseError | None = None
        aside = self._aside / identity
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        spans = sorted(known.read)
        if self._wish.restructure or DOCX in self._wish.formats:
            async with self._over_pages:
                pages = iter(await self._restructured(aside, identity, spans)) if self._wish.restructure else None
                if DOCX in self._wish.formats:
                    lacks = await self._docx_or_why_not(aside, identity, spans)
                await asyncio.to_thread(self._write, aside, identity, known, source, pages)
        else:
            await asyncio.to_thread(self._write, aside, identity, known, source, None)
        return lacks

    def _write(self, aside: Path, identity: str, known: Known, source: str, pages: Iterator[str] | None) -> None:
        kept = self._store.pages(identity, known.read)
        if pages is not None:
            kept = map(_replaced, kept, pages)
        name = PurePosixPath(known.name)
        pictures = formats.write(aside, Head(name.name, source, known.type, known.lost), kept, self._wish.formats)
        if pictures:
            (aside / "images").mkdir()
            for picture in dict.fromkeys(pictures):
                store.link(self._store.images(identity) / picture, aside / "images" / picture)
        folder = self._folder / name.parent
        folder.mkdir(parents=True, exist_ok=True)
        final = folder / f"{name.name}{IMAGES}"
        if final.exists():
            final.rename(aside / "images-before")
        if pictures:
            (aside / "images").rename(final)
        # The Markdown last: where it is, everything is.
        for one in sorted(self._wish.formats, key=lambda one: one == MD):
            if (aside / one).exists():
                (aside / one).replace(folder / f"{name.name}.{one}")
        shutil.rmtree(aside)

    async def _restructured(self, aside: Path, identity: str, spans: list[tuple[int, int]]) -> list[str]:
        body = aside / "request"
        kept = self._store.pages(identity, spans)
        fields = self._wish.over_pages | {"concatenatePages": False, "returnMarkdownImages": False}
        count = await asyncio.to_thread(store.restructure_body, body, kept, None, fields)
        return await self._persist(body, count, count)

    async def _docx_or_why_not(self, aside: Path, identity: str, spans: list[tuple[int, int]]) -> ParseError | None:
        """A service that makes none says so with every document; the others are not to wait for it each time."""
        try:
            await self._docx(aside, identity, spans)
        except ParseError as error:
            self._no_docx = not self._has_docx
            return error
        self._has_docx = True
        return None

    async def _docx(self, aside: Path, identity: str, spans: list[tuple[int, int]]) -> None:
        body = aside / "request"
        kept = self._store.pages(identity, spans)
        images = self._store.images(identity)
        count = await asyncio.to_thread(store.restructure_body, body, kept, images, self._wish.over_document)
        backoff = replace(self._backoff, never=True) if self._no_docx else self._backoff
        (reply,) = await self._persist(body, count, 1, backoff)
        try:
            content = json.loads(reply)["exports"]["docx"]["content"]
            (aside / DOCX).write_bytes(base64.b64decode(content, validate=True))
        except (KeyError, TypeError, ValueError, binascii.Error):
            raise BadReply("the service sends no DOCX", status=200) from None

    async def _persist(self, body: Path, pages: int, results: int, backoff: Backoff | None = None) -> list[str]:
        """Until it is there, or there is no hope."""
        tries = Tries()
        while True:
            try:
                return await self._transport.restructure(body, pages, results)
            except ParseError as error:
                if error.standing is Standing.FATAL:
                    error.cause = f"the service has no /restructure-pages: {error.cause}"
                verdict, pause = tries.after(error, 1, backoff or self._backoff, random.random())
                if verdict is not Verdict.AGAIN:
                    raise
            await asyncio.sleep(pause)


def _replaced(kept: Kept, page: str) -> Kept:
    """A page as it is after all pages were looked at together; its pictures are the same."""
    after: dict[str, Any] = json.loads(page)
    return Kept(kept.number, after["markdown"]["text"], kept.images, after["prunedResult"], kept.width, kept.height)
