"""./kit parse against the running preview: whole documents, files on disk."""

from __future__ import annotations

import json
from pathlib import Path

from kit.batch.folder import JOURNAL
from kit.batch.names import STATE
from kit.errors import ExitCode
from support import SAMPLES, Running


def test_markdown_to_stdout(preview: Running) -> None:
    done = preview.workspace.kit("parse", SAMPLES / "invoice.png")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# Invoice 2026-0117") and "<table" in done.stdout


def test_twelve_pages_give_twelve_pages_in_order(preview: Running, tmp_path: Path) -> None:
    done = preview.workspace.kit("parse", SAMPLES / "twelve-pages.pdf", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "12 pages" in done.stderr
    report = json.loads((tmp_path / "out" / "twelve-pages.json").read_text())
    truth = json.loads((SAMPLES / "truth.json").read_text())["twelve-pages.pdf"]["pages"]
    assert len(report["layoutParsingResults"]) == 12
    for page, expected in zip(report["layoutParsingResults"], truth, strict=True):
        heading = next(block["text"] for block in expected["blocks"] if block["kind"] in ("title", "heading"))
        assert heading in page["markdown"]["text"]
    text = (tmp_path / "out" / "twelve-pages.md").read_text()
    assert text == "\n\n".join(page["markdown"]["text"] for page in report["layoutParsingResults"]) + "\n"


def test_pictures_are_written_beside_the_markdown(preview: Running, tmp_path: Path) -> None:
    done = preview.workspace.kit("parse", SAMPLES / "paper.pdf", "-o", tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "paper.md").read_text()
    pictures = list((tmp_path / "paper_images").iterdir())
    assert pictures, "the figure of the paper"
    for picture in pictures:
        assert f"paper_images/{picture.name}" in text
        assert picture.read_bytes()[:2] == b"\xff\xd8", "JPEG"
    without = preview.workspace.kit("parse", SAMPLES / "paper.pdf")
    assert "not written: 1 picture; -o DIR keeps them" in without.stderr


def test_another_address(preview: Running) -> None:
    done = preview.workspace.kit("parse", SAMPLES / "invoice.png", "--url", preview.url + "/", API_PORT="1")
    assert done.returncode == 0 and "Invoice" in done.stdout
    wrong = preview.workspace.kit("parse", SAMPLES / "invoice.png", "--url", preview.vlm_url)
    assert wrong.returncode == ExitCode.FAILED and "is this the address of a PaddleOCR-VL service?" in wrong.stderr


def test_several_files_in_one_run(preview: Running, tmp_path: Path) -> None:
    done = preview.workspace.kit("parse", SAMPLES / "invoice.png", SAMPLES / "chinese.png", "-o", tmp_path)
    assert done.returncode == 0, done.stderr
    names = {path.name for path in tmp_path.iterdir()}
    assert {"invoice.md", "invoice.json", "chinese.md", "chinese.json"} <= names
    assert {name for name in names if name.startswith(".")} == {STATE}
    assert {path.name for path in (tmp_path / STATE).rglob("*") if path.is_file()} == {JOURNAL, "lock"}, "nothing is left over"


def test_pages_are_put_together_by_the_service(preview: Running, tmp_path: Path) -> None:
    """All pages go back to the real /restructure-pages. Its DOCX is in test_parse_at_scale.py and test_viewer_served.py."""
    options = ("--format", "md,html", "--restructure", "--pages", "1-3,12")
    done = preview.workspace.kit("parse", SAMPLES / "twelve-pages.pdf", "-o", tmp_path, *options)
    assert done.returncode == 0, done.stderr
    truth = json.loads((SAMPLES / "truth.json").read_text())["twelve-pages.pdf"]["pages"]
    headings = [
        next(block["text"] for block in truth[number - 1]["blocks"] if block["kind"] in ("title", "heading"))
        for number in (1, 2, 3, 12)
    ]
    for whole in ((tmp_path / "twelve-pages.md").read_text(), (tmp_path / "twelve-pages.html").read_text()):
        places = [whole.find(heading) for heading in headings]
        assert -1 not in places and places == sorted(places), (places, whole[:500])
