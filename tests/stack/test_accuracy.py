"""How well the preview reads our samples; scripts/bench/text_accuracy.py prints the same figures."""

from __future__ import annotations

import base64

import httpx
import pytest
from bench import text_accuracy
from bench.text_accuracy import SampleScore
from support import SAMPLES

TRUTH = text_accuracy.load_truth(SAMPLES / "truth.json")


@pytest.fixture(scope="module", params=sorted(TRUTH))
def score(request: pytest.FixtureRequest, http: httpx.Client) -> SampleScore:
    path = SAMPLES / request.param
    payload = {"file": base64.b64encode(path.read_bytes()).decode(), "fileType": 0 if path.suffix == ".pdf" else 1}
    reply = http.post("/layout-parsing", json=payload).json()
    assert reply["errorCode"] == 0, reply
    return text_accuracy.measure(TRUTH[request.param], reply["result"]["layoutParsingResults"])


def test_character_error_rate(score: SampleScore) -> None:
    assert score.character_error_rate <= 0.02, score


def test_every_page(score: SampleScore) -> None:
    assert score.pages.found == score.pages.total > 0, score


def test_every_paragraph_once_and_in_reading_order(score: SampleScore) -> None:
    assert score.paragraphs.found == score.paragraphs.total > 0, score


def test_every_table_cell_in_its_place(score: SampleScore) -> None:
    assert score.cells.found == score.cells.total, score


def test_every_caption(score: SampleScore) -> None:
    assert score.captions.found == score.captions.total, score


def test_the_samples_have_tables_and_captions() -> None:
    kinds = {block["kind"] for sample in TRUTH.values() for page in sample["pages"] for block in page["blocks"]}
    assert {"title", "text", "caption", "table"} <= kinds
