"""What is sent: the samples, each page tinted a little differently.

vLLM answers a prompt that it has seen from its prefix cache, pictures included. A page that came twice would be measured as
faster than any true page, so each is given a paper colour of its own; nothing else differs, and the work stays the same.
"""

from __future__ import annotations

import base64
import io
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pypdfium2
from PIL import Image, ImageChops
from pypdfium2 import raw

from kit import documents
from kit.documents import IMAGE, PDF

Tint = tuple[int, int, int]  # red, green, blue of the paper, 0 to 255

# One page each, sent in turn: every kind of block, a picture format each, a page that was not turned straight.
PAGES = ("invoice.png", "paper.pdf", "chinese.png", "scan.jpg")
# The pages of the long PDF, in turn.
LONG = ("twelve-pages.pdf", "paper.pdf")
# Steps of 2 survive the JPEG in which PaddleX sends a block; down to 225 the paper stays paper.
_CHANNEL = range(225, 256, 2)


@dataclass(frozen=True)
class Load:
    """One request, ready to be sent. body: JSON. pages: at least 1, each with text."""

    name: str
    body: bytes
    pages: int


class Workload:
    """Documents without end; the same seed gives the same pages.

    samples: folder with the samples. names: those of one page that are sent in turn.
    """

    def __init__(self, samples: Path, seed: int, names: Sequence[str] = PAGES) -> None:
        self._samples = samples
        self._tints = random.Random(seed)
        self._read: dict[str, documents.Document] = {}
        self._names = names
        self._made = 0

    def page(self) -> Load:
        """The next document of one page."""
        name = self._names[self._made % len(self._names)]
        self._made += 1
        source = self._document(name)
        if source.file_type == PDF:
            return _load(name, _pdf([(source.data, 0)], [self._tint()]), PDF, 1)
        return _load(name, _tinted_picture(source.data, self._tint()), IMAGE, 1)

    def long_pdf(self, pages: int) -> Load:
        """A PDF of so many pages, at least 1."""
        sources = [(document.data, index) for document in map(self._document, LONG) for index in range(document.pages)]
        wanted = [sources[index % len(sources)] for index in range(pages)]
        return _load(f"PDF of {pages} pages", _pdf(wanted, [self._tint() for _ in wanted]), PDF, pages)

    def _document(self, name: str) -> documents.Document:
        if name not in self._read:
            self._read[name] = documents.read(self._samples / name)
        return self._read[name]

    def _tint(self) -> Tint:
        red, green, blue = (self._tints.choice(_CHANNEL) for _ in range(3))
        return red, green, blue


def _load(name: str, data: bytes, file_type: int, pages: int) -> Load:
    # Only what every client must send: what else the service does is its own default.
    body = json.dumps({"file": base64.b64encode(data).decode("ascii"), "fileType": file_type})
    return Load(name, body.encode("ascii"), pages)


def _tinted_picture(data: bytes, tint: Tint) -> bytes:
    with Image.open(io.BytesIO(data)) as source:
        kind, picture = source.format, source.convert("RGB")
    out = io.BytesIO()
    # Fast PNG: the zlib level changes no pixel.
    options = {"compress_level": 3} if kind == "PNG" else {"quality": 90}
    ImageChops.multiply(picture, Image.new("RGB", picture.size, tint)).save(out, kind, **options)
    return out.getvalue()


def _pdf(wanted: Sequence[tuple[bytes, int]], tints: Sequence[Tint]) -> bytes:
    """A PDF of these pages, given as (PDF, index of its page), each with its tint."""
    result = pypdfium2.PdfDocument.new()
    open_sources: dict[bytes, pypdfium2.PdfDocument] = {}
    try:
        for source, index in wanted:
            if source not in open_sources:
                open_sources[source] = pypdfium2.PdfDocument(source)
            result.import_pages(open_sources[source], [index])
        for page, tint in zip(result, tints, strict=True):
            _tint_pdf_page(page, tint)
        out = io.BytesIO()
        result.save(out)
        return out.getvalue()
    finally:
        for document in (*open_sources.values(), result):
            document.close()


def _tint_pdf_page(page: pypdfium2.PdfPage, tint: Tint) -> None:
    paper = raw.FPDFPageObj_CreateNewRect(0, 0, *page.get_size())
    raw.FPDFPageObj_SetFillColor(paper, *tint, 255)
    raw.FPDFPath_SetDrawMode(paper, raw.FPDF_FILLMODE_ALTERNATE, False)
    raw.FPDFPageObj_SetBlendMode(paper, b"Multiply")
    raw.FPDFPage_InsertObject(page, paper)
    page.gen_content()
