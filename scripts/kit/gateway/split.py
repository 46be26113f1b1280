"""PDFs and multi-page TIFFs as page ranges, each a small document of its own. Runs in a child process (see splitters.py),
of the gateway and of the batch client alike.

No page of a PDF is rendered and no two pages of a TIFF are in memory at once. PDFium and
Pillow read what strangers send: a crash, a hang or a bomb ends the child, not its parent.
"""

from __future__ import annotations

import io
import json
import math
import pickle
import re
import signal
import struct
import sys
import warnings
from collections import OrderedDict
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pypdfium2
from PIL import Image, UnidentifiedImageError

from kit.documents import IMAGE, IMAGE_FORMATS, MAX_PIXELS, PDF, PDF_HEADER_WITHIN

Image.init()  # else Pillow knows only the commonest kinds by name
# Beside these OpenCV reads three more, as Pillow names them. MPO has no name of its own there: it comes as JPEG.
_FORMATS = tuple(name for name in (*IMAGE_FORMATS, "DIB", "PPM", "JPEG2000") if name in Image.OPEN)
_TIFF = (b"II\x2a\x00", b"MM\x00\x2a")  # as PaddleX tells TIFF (serving/infra/utils.py, 3.7.2)
_MAGIC = {b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG", b"BM": "BMP", b"RIFF": "WebP", **dict.fromkeys(_TIFF, "TIFF")}
_OPEN = 8  # documents that a child keeps open
_MEMORY = 4 * 2**30  # bytes of address space for a child
# PaddleX renders with two pixels a point; with fewer where a page would have more than MAX_PIXELS, down to a tenth
# (inference/utils/pdf_rendering.py, 3.7.2).
_SCALE, _LEAST_SCALE = 2.0, 0.1
# Of the catalogue, which a page's copy does not carry: fields of forms, and layers that are switched off.
_CATALOGUE = re.compile(rb"/(OCProperties|AcroForm)\b")

Source = "bytes | str"  # a document's bytes, or the path of the file that holds them


class Unusable(Exception):
    """The document cannot be read. cause: a name in kit.gateway.causes."""

    def __init__(self, cause: str, sentence: str) -> None:
        super().__init__(cause, sentence)
        self.cause = cause
        self.sentence = sentence


@dataclass(frozen=True)
class Kind:
    """What a document is. file_type: PDF or IMAGE. pages: at least 1.

    at_once: most pages in a range. The API renders all pages of a call before it reads the first one: together they are to
    have no more pixels than one page may have.
    """

    file_type: int
    pages: int
    name: str  # such as PDF, TIFF, PNG
    at_once: int = MAX_PIXELS

    @property
    def is_tiff(self) -> bool:
        return self.file_type == IMAGE and self.pages > 1


def look(source: bytes | str, max_pages: int) -> Kind:
    """What the document is, told from its content. Raises Unusable.

    max_pages: of a TIFF no more are counted, plus one; a PDF with more is not looked at any further.
    """
    file = _file(source)
    head = file.read(PDF_HEADER_WITHIN)
    file.seek(0)
    if b"%PDF-" in head:
        pdf = _open_pdf(source)
        try:
            return _pdf_kind(pdf, max_pages)
        finally:
            pdf.close()
    try:
        with Image.open(file, formats=_FORMATS) as image:
            _check_pixels(image)
            name = str(image.format)
            return Kind(IMAGE, _frames(image, max_pages) if head[:4] in _TIFF else 1, name)
    except UnidentifiedImageError:
        raise _no_picture(source) from None
    except (OSError, SyntaxError, ValueError, EOFError, KeyError, struct.error) as error:
        raise Unusable("corrupt", f"the picture is damaged: {_said(error)}") from None


def why_not(source: bytes | str) -> str:
    """Why the API may not have read a picture that `look` found nothing wrong with; reads all of it."""
    try:
        with Image.open(_file(source), formats=_FORMATS) as image:
            image.load()
    except (OSError, SyntaxError, ValueError, EOFError, KeyError, struct.error) as error:
        return f"the picture is damaged: {_said(error)}"
    return ""


def ranges(pages: int, slots: int, most: int) -> list[tuple[int, int]]:
    """Pages 0 … pages-1 as (first, last), last included: as few as keep all slots busy, of the same length, none over `most`.

    At the end of each range a replica waits for its slowest block, so few long ones are quicker than many short ones.
    """
    count = min(pages, slots * math.ceil(pages / (slots * most)))
    edges = [pages * number // count for number in range(count + 1)]
    return [(first, after - 1) for first, after in pairwise(edges)]


class Cutter:
    """One document, to be cut. Closed by `close`."""

    def __init__(self, source: bytes | str) -> None:
        self._source = source
        self._pdf: pypdfium2.PdfDocument | None = None
        self._whole_catalogue: bool | None = None

    def cut(self, kind: Kind, first: int, last: int) -> tuple[bytes, int]:
        """Pages first … last (from 0, last included) as a document, and its fileType. Raises Unusable.

        A TIFF is cut into single pages: a lossless PNG with the very pixels that PaddleX makes of that page.
        """
        if kind.file_type == PDF:
            return self._cut_pdf(first, last), PDF
        try:
            with Image.open(_file(self._source), formats=("TIFF",)) as image:
                image.seek(first)
                _check_pixels(image, first)
                page = image.convert("RGB")
        except (OSError, SyntaxError, ValueError, EOFError, KeyError, struct.error) as error:
            raise Unusable("corrupt", f"page {first + 1} of the TIFF is damaged: {_said(error)}") from None
        page.info = {}  # an orientation in it would turn the page a second time
        out = io.BytesIO()
        page.save(out, "PNG", compress_level=1)
        return out.getvalue(), IMAGE

    def _cut_pdf(self, first: int, last: int) -> bytes:
        # A copy of pages alone loses the catalogue, and with it what forms are filled with and which layers are hidden.
        # Taking the other pages out keeps it, and with it all that a tagged PDF's tree holds on to. So: only where needed.
        if self._whole_catalogue is None:
            kept = self._without_others(first, last)
            self._whole_catalogue = bool(_CATALOGUE.search(kept))
            return kept
        if self._whole_catalogue:
            return self._without_others(first, last)
        if self._pdf is None:
            self._pdf = _open_pdf(self._source)
        part = pypdfium2.PdfDocument.new()
        try:
            part.import_pages(self._pdf, list(range(first, last + 1)))
            return _saved(part)
        except (pypdfium2.PdfiumError, ValueError, IndexError):
            raise Unusable("corrupt", f"pages {first + 1} to {last + 1} of the PDF are damaged") from None
        finally:
            part.close()

    def _without_others(self, first: int, last: int) -> bytes:
        pdf = _open_pdf(self._source)
        try:
            for page in reversed(range(len(pdf))):
                if not first <= page <= last:
                    del pdf[page]
            return _saved(pdf)
        except (pypdfium2.PdfiumError, ValueError, IndexError):
            raise Unusable("corrupt", f"pages {first + 1} to {last + 1} of the PDF are damaged") from None
        finally:
            pdf.close()

    def close(self) -> None:
        if self._pdf is not None:
            self._pdf.close()


def _file(source: bytes | str) -> Any:
    return io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb")  # noqa: PTH123 (closed with the image)


def _open_pdf(source: bytes | str) -> pypdfium2.PdfDocument:
    try:
        return pypdfium2.PdfDocument(source)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            sentence = "the PDF is encrypted and needs a password; decrypt it first: qpdf --decrypt --password=… IN OUT"
            raise Unusable("encrypted", sentence) from None
        raise Unusable("corrupt", "the PDF is damaged; qpdf IN OUT can mend some") from None


def _pdf_kind(pdf: pypdfium2.PdfDocument, max_pages: int) -> Kind:
    pages = len(pdf)
    if not pages:
        raise Unusable("corrupt", "the PDF has no page")
    largest = max(map(partial(_rendered, pdf), range(pages))) if pages <= max_pages else 1
    return Kind(PDF, pages, "PDF", at_once=max(1, MAX_PIXELS // largest))


def _rendered(pdf: pypdfium2.PdfDocument, page: int) -> int:
    """Pixels of a page, at least 1, as PaddleX renders it. Raises Unusable when it would refuse to."""
    try:
        width, height = pdf.get_page_size(page)
    except pypdfium2.PdfiumError:
        return 1  # damaged: who opens it says so
    if width * height * _LEAST_SCALE**2 > MAX_PIXELS:
        size = f"{width:.0f} × {height:.0f} points"
        raise Unusable("too-many-pixels", f"page {page + 1} has {size}, which are more pixels than PaddleX reads: scale it down")
    return max(1, min(MAX_PIXELS, math.ceil(width * _SCALE) * math.ceil(height * _SCALE)))


def _saved(pdf: pypdfium2.PdfDocument) -> bytes:
    out = io.BytesIO()
    pdf.save(out)
    return out.getvalue()


def _frames(image: Image.Image, most: int) -> int:
    count = 1
    while count <= most:
        try:
            image.seek(count)
        except EOFError:
            break
        count += 1
    return count


def _check_pixels(image: Image.Image, page: int | None = None) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        what = "the picture" if page is None else f"page {page + 1}"
        sentence = f"{what} has {width} × {height} = {width * height:,} pixels; PaddleX reads up to {MAX_PIXELS:,}: scale it down"
        raise Unusable("too-many-pixels", sentence)


def _no_picture(source: bytes | str) -> Unusable:
    try:
        with Image.open(_file(source)) as image:
            return Unusable("unreadable", f"{image.format} pictures are not read; send PNG, JPEG or PDF")
    except Exception:  # whatever it is, Pillow does not know it
        start = _file(source).read(16)
        if begun := next((name for magic, name in _MAGIC.items() if start.startswith(magic)), ""):
            return Unusable("corrupt", f"the picture is damaged: it begins like {begun}, and cannot be read")
        looks = "HTML" if start.lstrip()[:1] == b"<" else "a ZIP or Office file" if start[:2] == b"PK" else ""
        what = f"it looks like {looks}" if looks else f"it begins with {start[:8]!r}"
        return Unusable(
            "unreadable", f"the file is neither a PDF nor a picture: {what}; PDF, PNG, JPEG, TIFF, BMP, WebP are read"
        )


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def main() -> None:
    """The child: pickled (operation, token, arguments) from stdin, `answered` to stdout, until stdin ends."""
    for number in (signal.SIGINT, signal.SIGTERM):  # its parent ends it by closing stdin
        signal.signal(number, signal.SIG_IGN)
    _limit_memory()
    warnings.simplefilter("ignore")
    Image.MAX_IMAGE_PIXELS = None  # checked by _check_pixels, before anything is decoded
    cutters: OrderedDict[str, Cutter] = OrderedDict()
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # what a library prints must not get between the answers
    while len(size := stdin.read(8)) == 8:
        operation, token, arguments = pickle.loads(stdin.read(int.from_bytes(size, "big")))
        result: Any = None
        error: tuple[str, str] | None = None
        try:
            if operation == "look":
                result = look(*arguments)
            elif operation == "why_not":
                result = why_not(*arguments)
            elif operation in ("cut", "cut_to"):
                *path, source, kind, first, last = arguments
                cutter = cutters.setdefault(token, Cutter(source))
                cutters.move_to_end(token)
                if len(cutters) > _OPEN:
                    cutters.popitem(last=False)[1].close()
                data, file_type = cutter.cut(kind, first, last)
                result = (_kept(Path(*path), data) or file_type) if path else (data, file_type)
            elif operation == "close" and token in cutters:
                cutters.pop(token).close()
        except Unusable as unusable:
            error = (unusable.cause, unusable.sentence)
        except MemoryError:
            error = ("corrupt", "the document takes more memory than it may")
        except Exception as unforeseen:  # no document may end the child by an exception that nobody has thought of
            error = ("corrupt", f"the document cannot be read ({type(unforeseen).__name__})")
        stdout.write(answered(result, error))
        stdout.flush()


def answered(result: Any, error: tuple[str, str] | None) -> bytes:
    """An answer: the length of its head and of its data, 8 bytes each, and both. No pickle: a child may be taken over."""
    data = b""
    if isinstance(result, Kind):
        result = asdict(result)
    elif isinstance(result, tuple):
        data, result = result
    head = json.dumps([result, error]).encode()
    return len(head).to_bytes(8, "big") + len(data).to_bytes(8, "big") + head + data


def _kept(path: Path, data: bytes) -> list[Any] | None:
    """Writes the file. (errno, what it means) when it could not: a full disk is no fault of the document's."""
    try:
        path.write_bytes(data)
    except OSError as error:
        return [error.errno, error.strerror]
    return None


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
