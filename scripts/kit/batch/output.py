"""From pages in the store to files in the output folder: put together, written aside, renamed into place."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import os
import shutil
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from kit.batch import formats, store
from kit.batch.formats import Head
from kit.batch.inputs import is_url
from kit.batch.journal import Known
from kit.batch.names import IMAGES
from kit.batch.store import Kept, Store
from kit.batch.wish import DOCX, HTML, MD, RESTRUCTURE, Wish
from kit.client.failures import BadReply, ParseError
from kit.client.flight import Flight, GivenUp
from kit.client.ranges import Span
from kit.client.transport import Transport

T = TypeVar("T")


@dataclass
class Made:
    """files: of a document, paths below the output folder. lacks: what the service would not make, and why."""

    files: list[str] = field(default_factory=list)
    lacks: dict[str, ParseError] = field(default_factory=dict)


class Output:
    """folder: where the documents go. aside: where they are made, on the same disk. flight: the run, with its patience."""

    def __init__(self, folder: Path, aside: Path, pages: Store, transport: Transport, wish: Wish, flight: Flight) -> None:
        self._folder, self._aside, self._store = folder, aside, pages
        self._transport, self._wish, self._flight = transport, wish, flight
        self._over_pages = asyncio.Lock()  # all pages of a document are in memory then: one document at a time
        self._has_made: dict[str, bool] = {}  # DOCX, RESTRUCTURE → whether the service has ever made one

    def is_there(self, known: Known) -> bool:
        """Whether a document's files are where they were put."""
        return all(os.path.lexists(self._folder / one) for one in known.files)

    def remove(self, files: Iterable[str]) -> None:
        """Files and folders of pictures that were written here. Raises OSError."""
        for path in (self._folder / one for one in files):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)

    async def make(self, identity: str, known: Known, source: str) -> Made:
        """Write a document in each format. What the service does not make of its pages costs no more than that.

        Whatever ends this before its end, doing it again gives the same files.
        Raises the ParseError that makes all other requests pointless; OSError.
        """
        made = Made()
        aside = self._aside / identity
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        spans = sorted(known.read)
        if self._wish.restructure or DOCX in self._wish.formats:
            async with self._over_pages:
                pages = await self._restructured(aside, identity, spans, made) if self._wish.restructure else None
                if DOCX in self._wish.formats:
                    await self._docx(aside, identity, spans, made)
                made.files = await asyncio.to_thread(self._write, aside, identity, known, source, pages)
        else:
            made.files = await asyncio.to_thread(self._write, aside, identity, known, source, None)
        return made

    def _write(self, aside: Path, identity: str, known: Known, source: str, pages: list[str] | None) -> list[str]:
        kept = self._store.pages(identity, known.read)
        if pages is not None:
            kept = map(_replaced, kept, pages)
        name = PurePosixPath(known.name)
        elsewhere: set[str] = set()
        if HTML in self._wish.formats:  # its head, which comes first, says where pictures may come from
            for page in self._store.pages(identity, known.read):
                elsewhere.update(filter(is_url, page.images.values()))
        head = Head(name.name, source, known.type, known.lost, elsewhere)
        pictures = formats.write(aside, head, kept, self._wish.formats)
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
        ready = sorted((one for one in self._wish.formats if (aside / one).exists()), key=lambda one: one == MD)
        for one in ready:
            (aside / one).replace(folder / f"{name.name}.{one}")
        shutil.rmtree(aside)
        return [f"{name}.{one}" for one in ready] + [f"{name}{IMAGES}"] * bool(pictures)

    async def _restructured(self, aside: Path, identity: str, spans: list[Span], made: Made) -> list[str] | None:
        """The pages as JSON after all of them were looked at together."""
        body = aside / "request"
        kept = self._store.pages(identity, spans)
        fields = self._wish.over_pages | {"concatenatePages": False, "returnMarkdownImages": False}
        count = await asyncio.to_thread(store.restructure_body, body, kept, None, fields)
        return await self._insist(RESTRUCTURE, lambda: self._transport.restructure(body, count, count), made)

    async def _docx(self, aside: Path, identity: str, spans: list[Span], made: Made) -> None:
        body = aside / "request"
        kept = self._store.pages(identity, spans)
        images = self._store.images(identity)
        count = await asyncio.to_thread(store.restructure_body, body, kept, images, self._wish.over_document)

        async def send() -> bytes:
            (reply,) = await self._transport.restructure(body, count, 1)
            try:
                return base64.b64decode(json.loads(reply)["exports"]["docx"]["content"], validate=True)
            except (KeyError, TypeError, ValueError, binascii.Error):
                raise BadReply("the service sends no DOCX", status=200) from None

        if (content := await self._insist(DOCX, send, made)) is not None:
            (aside / DOCX).write_bytes(content)

    async def _insist(self, what: str, send: Callable[[], Awaitable[T]], made: Made) -> T | None:
        """A service that never makes it says so with every document: one try each has to do, until one has come."""
        try:
            there = await self._flight.insist(send, once=self._has_made.get(what) is False)
        except GivenUp as given_up:
            self._has_made.setdefault(what, False)
            made.lacks[what] = given_up.error
            return None
        self._has_made[what] = True
        return there


def _replaced(kept: Kept, page: str) -> Kept:
    """A page as it is after all pages were looked at together; its pictures are the same."""
    after: dict[str, Any] = json.loads(page)
    return Kept(kept.number, after["markdown"]["text"], kept.images, after["prunedResult"], kept.width, kept.height)
