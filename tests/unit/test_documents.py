"""What a file is, told from its content; bad files get one clear line."""

from __future__ import annotations

from pathlib import Path

import pypdfium2
import pytest
from kit import documents
from kit.errors import ExitCode, KitError
from PIL import Image
from support import SAMPLES


def refused(path: Path) -> KitError:
    with pytest.raises(KitError) as caught:
        documents.read(path)
    assert caught.value.code == ExitCode.INPUT
    assert str(path) in caught.value.message, "the file is named"
    assert caught.value.hint
    return caught.value


def test_pdf_and_picture() -> None:
    pdf = documents.read(SAMPLES / "twelve-pages.pdf")
    assert (pdf.file_type, pdf.pages, pdf.name) == (0, 12, "twelve-pages")
    assert pdf.data == (SAMPLES / "twelve-pages.pdf").read_bytes()
    picture = documents.read(SAMPLES / "scan.jpg")
    assert (picture.file_type, picture.pages) == (1, 1)


def test_the_content_counts_not_the_name(tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes((SAMPLES / "paper.pdf").read_bytes())
    assert documents.read(tmp_path / "picture.png").file_type == documents.PDF
    (tmp_path / "bare").write_bytes((SAMPLES / "invoice.png").read_bytes())
    assert documents.read(tmp_path / "bare").file_type == documents.IMAGE


def test_no_such_file_folder_and_empty(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "none.pdf").message
    assert "folder" in refused(tmp_path).message
    (tmp_path / "empty.pdf").touch()
    assert "empty" in refused(tmp_path / "empty.pdf").message


def test_text_named_pdf(tmp_path: Path) -> None:
    (tmp_path / "note.pdf").write_text("just a note")
    assert "named .pdf but is neither a PDF nor a picture" in refused(tmp_path / "note.pdf").message


def test_corrupt_pdf(tmp_path: Path) -> None:
    (tmp_path / "cut.pdf").write_bytes((SAMPLES / "paper.pdf").read_bytes()[:900])
    assert "corrupt" in refused(tmp_path / "cut.pdf").message


def test_encrypted_pdf(encrypted_pdf: Path) -> None:
    error = refused(encrypted_pdf)
    assert "encrypted" in error.message and "qpdf --decrypt" in error.hint


def test_cut_picture(tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes((SAMPLES / "invoice.png").read_bytes()[:20_000])
    assert "corrupt" in refused(tmp_path / "cut.png").message


def test_pictures_that_the_service_would_not_read(tmp_path: Path) -> None:
    Image.new("RGB", (10, 10)).save(tmp_path / "a.gif")
    assert "GIF" in refused(tmp_path / "a.gif").message
    frames = [Image.new("L", (10, 10), shade) for shade in (0, 100, 200)]
    frames[0].save(tmp_path / "fax.tiff", save_all=True, append_images=frames[1:])
    assert "TIFF of 3 pages" in refused(tmp_path / "fax.tiff").message
    frames[0].save(tmp_path / "one.tiff")
    assert documents.read(tmp_path / "one.tiff").pages == 1


def test_too_many_pixels(tmp_path: Path) -> None:
    Image.new("1", (14_000, 13_000)).save(tmp_path / "huge.png")
    assert "up to 179 million pixels" in refused(tmp_path / "huge.png").message
    Image.new("1", (13_000, 13_000)).save(tmp_path / "large.png")
    assert documents.read(tmp_path / "large.png").pages == 1


def test_pdf_without_a_page(tmp_path: Path) -> None:
    pdf = pypdfium2.PdfDocument.new()
    pdf.save(tmp_path / "none.pdf")
    assert refused(tmp_path / "none.pdf").message
