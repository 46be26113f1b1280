"""What a file is: PDF or picture, how many pages, whether the service can read it.

Told from the content, never from the name. Runs on pypdfium2 and Pillow alone.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import pypdfium2
from PIL import Image, UnidentifiedImageError

from kit.errors import ExitCode, KitError

PDF, IMAGE = 0, 1  # the values of `fileType` in the API

# What PaddleX's decoder (OpenCV) reads; the rest comes back as "Invalid input file". MPO is the JPEG of many telephones.
IMAGE_FORMATS = ("BMP", "JPEG", "MPO", "PNG", "TIFF", "WEBP")
# PaddleX 3.7.2 refuses more pixels, and so does Pillow by itself: it warns from half
# of that on, which is no news to the user.
MAX_PIXELS = 178_956_970
warnings.simplefilter("ignore", Image.DecompressionBombWarning)

# The PDF header may stand anywhere in the first 1024 bytes (ISO 32000-1, annex H).
PDF_HEADER_WITHIN = 1024


@dataclass(frozen=True)
class Document:
    """A readable document. data: its bytes as on disk. pages: at least 1."""

    path: Path
    data: bytes
    file_type: int
    pages: int

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        return self.path.stem


def read(path: Path) -> Document:
    """Read a file and make sure that it is a whole PDF or picture.

    Raises KitError (INPUT), which names the file and the cause.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise _unusable(path, "no such file", "check the path; names with spaces need quotes") from None
    except IsADirectoryError:
        raise _unusable(path, "is a folder", "name the files in it, such as folder/*.pdf") from None
    except OSError as error:
        raise _unusable(path, error.strerror or str(error), "check the file's permissions") from None
    if not data:
        raise _unusable(path, "the file is empty", "copy it again from its source")
    if b"%PDF-" in data[:PDF_HEADER_WITHIN]:
        return Document(path, data, PDF, _pdf_pages(path, data))
    _check_image(path, data)
    return Document(path, data, IMAGE, 1)


def _pdf_pages(path: Path, data: bytes) -> int:
    try:
        pdf = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            raise _unusable(
                path, "the PDF is encrypted and needs a password", "decrypt it first: qpdf --decrypt --password=… IN OUT"
            ) from None
        raise _unusable(path, "the PDF is corrupt", "qpdf IN OUT can mend some; else copy it again") from None
    try:
        pages = len(pdf)
    finally:
        pdf.close()
    if pages == 0:
        raise _unusable(path, "the PDF has no page", "copy it again from its source")
    return pages


def _check_image(path: Path, data: bytes) -> None:
    try:
        with Image.open(io.BytesIO(data)) as image:
            kind, frames = image.format or "unknown", getattr(image, "n_frames", 1)
            image.load()
    except UnidentifiedImageError:
        named = f"is named {path.suffix} but is" if path.suffix.lower() == ".pdf" else "is"
        raise _unusable(path, f"{named} neither a PDF nor a picture", "PDF, PNG, JPEG, TIFF, BMP and WebP are read") from None
    except Image.DecompressionBombError:
        raise _unusable(
            path, "too large, the service reads up to 179 million pixels", "scale it down, or cut it in parts"
        ) from None
    except (OSError, SyntaxError, ValueError) as error:
        raise _unusable(path, f"the picture is corrupt ({error})", "copy it again from its source") from None
    if kind not in IMAGE_FORMATS:
        raise _unusable(path, f"{kind} pictures are not read by the service", "save it as PNG, JPEG or PDF")
    if kind == "TIFF" and frames > 1:
        raise _unusable(
            path, f"a TIFF of {frames} pages; the service would read the first alone", "make a PDF of it: tiff2pdf, img2pdf"
        )


def _unusable(path: Path, why: str, hint: str) -> KitError:
    return KitError(f"{path}: {why}", hint, ExitCode.INPUT)
