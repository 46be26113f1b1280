"""The documents in samples/ are what truth.json says, and stay small enough for git."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pypdfium2
import pytest
from PIL import Image
from rapidfuzz import fuzz

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
TRUTH: dict[str, Any] = json.loads((SAMPLES / "truth.json").read_text(encoding="utf-8"))
KINDS = {"title", "heading", "text", "caption", "header", "footer", "table"}
A4_INCHES = (8.27, 11.69)


def blocks_of(name: str, kind: str) -> list[dict[str, Any]]:
    return [block for page in TRUTH[name]["pages"] for block in page["blocks"] if block["kind"] == kind]


def text_layer(name: str) -> list[str]:
    """The text of each page of a PDF file, white space collapsed."""
    with pypdfium2.PdfDocument(SAMPLES / name) as document:
        return [" ".join(page.get_textpage().get_text_bounded().split()) for page in document]


def test_every_sample_has_its_truth_and_no_other() -> None:
    on_disk = {path.name for path in SAMPLES.iterdir()} - {"truth.json", "README.md"}
    assert on_disk == set(TRUTH) == {"paper.pdf", "invoice.png", "chinese.png", "twelve-pages.pdf", "scan.jpg"}


@pytest.mark.parametrize(("name", "limit"), [("invoice.png", 95_000), ("chinese.png", 200_000)])
def test_pictures_are_small(name: str, limit: int) -> None:
    assert (SAMPLES / name).stat().st_size < limit


def test_the_folder_is_small() -> None:
    assert sum(path.stat().st_size for path in SAMPLES.iterdir()) < 1_200_000


@pytest.mark.parametrize("name", TRUTH)
def test_blocks_are_well_formed(name: str) -> None:
    for page in TRUTH[name]["pages"]:
        assert page["blocks"]
        for block in page["blocks"]:
            assert block["kind"] in KINDS
            if block["kind"] == "table":
                assert set(block) == {"kind", "rows"}
                assert len({len(row) for row in block["rows"]}) == 1
            else:
                assert set(block) == {"kind", "text"}
                assert block["text"].strip() == block["text"] != ""


@pytest.mark.parametrize("name", TRUTH)
def test_no_two_paragraphs_are_alike(name: str) -> None:
    """Else a paragraph that was read twice could not be told from its neighbour."""
    texts = [block["text"] for block in blocks_of(name, "text")]
    for index, text in enumerate(texts):
        assert max((fuzz.partial_ratio(text, other) for other in texts[:index]), default=0) < 70


@pytest.mark.parametrize(("name", "pages"), [("paper.pdf", 1), ("twelve-pages.pdf", 12)])
def test_pdf_pages_hold_what_the_truth_says_in_its_order(name: str, pages: int) -> None:
    layers = text_layer(name)
    assert len(layers) == len(TRUTH[name]["pages"]) == pages
    for layer, page in zip(layers, TRUTH[name]["pages"], strict=True):
        words = [block.get("text") or " ".join(" ".join(row) for row in block["rows"]) for block in page["blocks"]]
        places = [layer.find(text) for text in words]
        assert -1 not in places
        assert places == sorted(places)


@pytest.mark.parametrize("name", ["invoice.png", "chinese.png", "scan.jpg"])
def test_pictures_are_one_a4_page(name: str) -> None:
    assert len(TRUTH[name]["pages"]) == 1
    with Image.open(SAMPLES / name) as picture:
        dpi = round(picture.info["dpi"][0])
        assert 150 <= dpi <= 200
        assert (picture.width / dpi, picture.height / dpi) == pytest.approx(A4_INCHES, abs=0.02)


def test_the_samples_have_the_tables_that_the_measures_need() -> None:
    (table,) = blocks_of("invoice.png", "table")
    assert (len(table["rows"]), len(table["rows"][0])) == (6, 4)
    assert table["rows"][-1].count("") == 2
    assert len(blocks_of("paper.pdf", "table")) == len(blocks_of("chinese.png", "table")) == 1


def test_each_of_the_twelve_pages_names_itself() -> None:
    titles = [block["text"] for block in blocks_of("twelve-pages.pdf", "title")]
    assert [f"({number} of 12)" in title for number, title in enumerate(titles, start=1)] == [True] * 12
