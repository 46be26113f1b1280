"""The measures of scripts/bench/text_accuracy.py: they see what is wrong, and nothing where all is right."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from bench import text_accuracy as accuracy
from bench.text_accuracy import Count

SAMPLES = Path(__file__).resolve().parents[2] / "samples"

ENGLISH = [
    "A harbour office is a quiet place in winter, and its shelves show how many years it has been open.",
    "Nobody reads these folders for pleasure; they are opened when an insurer asks about a collision.",
    "Ruled ledgers were by far the easiest pages, for their lines are straight and the headings printed.",
    "Speed mattered less than we had expected: removing rusty staples takes longer than any machine.",
]
CHINESE = [
    "本馆每周二至周日开放，上午九点开门，晚上八点闭馆。每逢周一整理书架，不接待读者。",
    "读者凭借书证可以同时借阅六册图书，期限为三十天。如果没有其他人预约，还可以续借一次。",
    "窗边的座位可以使用笔记本电脑，插座在桌子下面。离开超过半个小时，请收好个人物品。",
]
LANGUAGES = pytest.mark.parametrize("paragraphs", [ENGLISH, CHINESE], ids=["english", "chinese"])


def in_order(paragraphs: list[str], read: list[str]) -> Count:
    plain = accuracy.plain_text("\n\n".join(read))
    return accuracy.paragraphs_in_order([accuracy.normalised(paragraph) for paragraph in paragraphs], plain)


# ------------------------------------------------------------------------------------------------ character error rate


@pytest.mark.parametrize(
    ("truth", "read", "rate"),
    [
        ("harbour", "harbour", 0.0),
        ("harbour", "", 1.0),
        ("harbour", "harb0ur", 1 / 7),
        ("kitten", "sitting", 3 / 6),
        ("开放时间", "开放对间", 1 / 4),
        ("ab", "abcdef", 2.0),
        ("", "", 0.0),
        ("", "invented", 1.0),
    ],
)
def test_character_error_rate(truth: str, read: str, rate: float) -> None:
    assert accuracy.character_error_rate(truth, read) == pytest.approx(rate)


# ---------------------------------------------------------------------------------------------------------- plain text


@pytest.mark.parametrize(
    ("markdown", "plain"),
    [
        ("# Title\n\n## 1. Part\n\nSome\nwords.", "Title 1. Part Some words."),
        ("before\n<table border=1><tr><td>cell</td></tr></table>\nafter", "before after"),
        ('a <div style="text-align: center;"><img src="imgs/x.jpg" alt="Image" width="40%" /></div> b', "a b"),
        ("![a picture](imgs/x.jpg) words", "words"),
        ("Fish &amp; chips, 3 &lt; 4, and 5 < 6 > 2", "Fish & chips, 3 < 4, and 5 < 6 > 2"),
        ("number #7 stays", "number #7 stays"),
    ],
)
def test_plain_text_keeps_only_the_words(markdown: str, plain: str) -> None:
    assert accuracy.plain_text(markdown) == plain


def test_width_of_punctuation_and_line_breaks_do_not_count_in_chinese() -> None:
    read = accuracy.plain_text("上午九点开门,晚上\n八点闭馆。 每逢周一")
    assert read == accuracy.plain_text("上午九点开门，晚上八点闭馆。每逢周一")


def test_normalising_twice_changes_nothing() -> None:
    for text in (*ENGLISH, *CHINESE, "full\u3000width （１２） ，x"):
        assert accuracy.normalised(accuracy.normalised(text)) == accuracy.normalised(text)


# ---------------------------------------------------------------------------------------------------- once and in order


@LANGUAGES
def test_all_paragraphs_in_order(paragraphs: list[str]) -> None:
    assert in_order(paragraphs, paragraphs) == Count(len(paragraphs), len(paragraphs))


@LANGUAGES
def test_a_few_misread_letters_do_not_lose_a_paragraph(paragraphs: list[str]) -> None:
    misread = [paragraph[:9] + "#" + paragraph[10:20] + paragraph[21:] for paragraph in paragraphs]
    assert in_order(paragraphs, misread) == Count(len(paragraphs), len(paragraphs))


@LANGUAGES
def test_one_moved_paragraph_costs_one(paragraphs: list[str]) -> None:
    assert in_order(paragraphs, [*paragraphs[1:], paragraphs[0]]).found == len(paragraphs) - 1


def test_swapped_columns_cost_a_whole_column() -> None:
    assert in_order(ENGLISH, ENGLISH[2:] + ENGLISH[:2]) == Count(2, 4)


def test_lines_read_across_both_columns_are_not_paragraphs() -> None:
    def lines(paragraph: str) -> list[str]:
        return [paragraph[start : start + 24] for start in range(0, len(paragraph), 24)]

    across = [f"{left} {right}" for left, right in zip(lines(ENGLISH[0]), lines(ENGLISH[2]), strict=False)]
    assert in_order([ENGLISH[0], ENGLISH[2]], across) == Count(0, 2)


@LANGUAGES
def test_a_doubled_paragraph_does_not_count(paragraphs: list[str]) -> None:
    assert in_order(paragraphs, [*paragraphs, paragraphs[1]]).found == len(paragraphs) - 1


def test_a_doubled_paragraph_is_seen_right_beside_itself() -> None:
    assert in_order(ENGLISH, [ENGLISH[0], ENGLISH[0], *ENGLISH[1:]]).found == 3


@LANGUAGES
def test_a_missing_paragraph_does_not_count(paragraphs: list[str]) -> None:
    assert in_order(paragraphs, paragraphs[:-1]).found == len(paragraphs) - 1


def test_a_fragment_is_not_the_paragraph() -> None:
    assert in_order(ENGLISH[:1], ["A harbour office"]) == Count(0, 1)
    assert in_order(ENGLISH[:1], []) == Count(0, 1)


@pytest.mark.parametrize(
    ("places", "length"), [([], 0), ([5], 1), ([1, 2, 3], 3), ([3, 2, 1], 1), ([7, 1, 2, 9, 3], 3), ([4, 4], 1)]
)
def test_longest_rise(places: list[int], length: int) -> None:
    assert accuracy.longest_rise(places) == length


# -------------------------------------------------------------------------------------------------------------- tables


ROWS = [["Office", "Sheets"], ["Northgate", "318"], ["", "523"]]


def table(*rows: str) -> str:
    return "<table>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>"


RIGHT = table("<th>Office</th><th>Sheets</th>", "<td>North gate</td><td> 318 </td>", "<td></td><td>523</td>")


def test_every_cell_is_found() -> None:
    assert accuracy.table_cells_found([ROWS], f"words {RIGHT} words") == Count(6, 6)


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (RIGHT.replace("318", "378"), 5),
        (RIGHT.replace("<td></td>", "<td>x</td>"), 5),
        (RIGHT.replace("<td></td>", ""), 4),  # the rest of the row moves to the left
        (RIGHT.replace("<tr><th>Office</th><th>Sheets</th></tr>", ""), 0),
        ("Office Sheets Northgate 318 523", 0),
    ],
)
def test_a_wrong_cell_does_not_count(wrong: str, found: int) -> None:
    assert accuracy.table_cells_found([ROWS], wrong) == Count(found, 6)


def test_spans_are_spread_out() -> None:
    spanned = table('<td rowspan="2">a</td><td colspan="2">b</td>', "<td>c</td><td>d</td>", "<td>e<td>f<td>g")
    assert accuracy.table_cells_found([[["a", "b", "b"], ["a", "c", "d"], ["e", "f", "g"]]], spanned) == Count(9, 9)


@pytest.mark.parametrize(("value", "cells"), [("0", 1), ("-2", 1), ("two", 1), (None, 1), ("3", 3), ("9" * 5000, 100)])
def test_nonsense_spans_are_bounded(value: str | None, cells: int) -> None:
    assert accuracy.span(value) == cells


def test_each_true_table_takes_the_table_that_agrees_most() -> None:
    other = [["楼层", "册数"], ["一层", "8650"]]
    markdown = table("<td>楼层</td><td>册数</td>", "<td>一层</td><td>８６５０</td>") + table("<td>noise</td>") + RIGHT
    assert accuracy.table_cells_found([ROWS, other], markdown) == Count(10, 10)
    assert accuracy.table_cells_found([ROWS, ROWS], RIGHT) == Count(6, 12)


# ------------------------------------------------------------------------------------------------------- whole samples


def perfect_answer(sample: dict[str, Any], captions_last: bool = False) -> list[dict[str, Any]]:
    """What a service without any fault would answer."""
    results = []
    for page in sample["pages"]:
        blocks = [block for block in page["blocks"] if block["kind"] not in ("header", "footer")]
        if captions_last:
            blocks.sort(key=lambda block: block["kind"] == "caption")
        results.append({"markdown": {"text": "\n\n".join(markdown_of(block) for block in blocks)}})
    return results


def markdown_of(block: dict[str, Any]) -> str:
    if block["kind"] == "table":
        return table(*("".join(f"<td>{cell}</td>" for cell in row) for row in block["rows"]))
    marks = {"title": "# ", "heading": "## ", "caption": '<div style="text-align: center;">'}
    return marks.get(block["kind"], "") + block["text"] + ("</div>" if block["kind"] == "caption" else "")


TRUTH = accuracy.load_truth(SAMPLES / "truth.json")


@pytest.mark.parametrize("captions_last", [False, True])
@pytest.mark.parametrize("name", TRUTH)
def test_a_perfect_answer_has_a_perfect_score(name: str, captions_last: bool) -> None:
    score = accuracy.measure(TRUTH[name], perfect_answer(TRUTH[name], captions_last))
    assert score.character_error_rate == 0
    assert score.characters > 100
    for count in (score.pages, score.paragraphs, score.captions, score.cells):
        assert count.found == count.total


def test_a_missing_caption_does_not_spoil_the_error_rate() -> None:
    answer = perfect_answer(TRUTH["paper.pdf"])
    answer[0]["markdown"]["text"] = answer[0]["markdown"]["text"].replace("Figure 1. The mole on a calm day.", "")
    score = accuracy.measure(TRUTH["paper.pdf"], answer)
    assert score.captions == Count(1, 2)
    assert score.character_error_rate == 0


def test_pages_that_are_missing_are_seen() -> None:
    score = accuracy.measure(TRUTH["twelve-pages.pdf"], perfect_answer(TRUTH["twelve-pages.pdf"])[:10])
    assert score.pages == Count(10, 12)
    assert score.paragraphs == Count(10, 12)
    assert 0.1 < score.character_error_rate < 0.3


def test_an_empty_answer_is_all_wrong() -> None:
    score = accuracy.measure(TRUTH["invoice.png"], [])
    assert score == accuracy.SampleScore(Count(0, 1), 0, 1.0, Count(0, 5), Count(0, 0), Count(0, 24))


# --------------------------------------------------------------------------------------------------------- the command


class Service(BaseHTTPRequestHandler):
    """Answers the Chinese sample without fault, and says of PDF files that they are too large."""

    seen: list[dict[str, Any]]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append(body)
        good = self.path == "/layout-parsing" and body["fileType"] == 1
        answer = (
            {"errorCode": 0, "result": {"layoutParsingResults": perfect_answer(TRUTH["chinese.png"])}}
            if good
            else {"errorCode": 422, "errorMsg": "the file is too large"}
        )
        content = json.dumps(answer).encode()
        self.send_response(200 if good else 422)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def service() -> Iterator[HTTPServer]:
    Service.seen = []
    with HTTPServer(("127.0.0.1", 0), Service) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def url(server: HTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}"


def test_the_command_prints_one_line_a_sample(service: HTTPServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert accuracy.main(["--url", url(service), "samples/chinese.png"]) == 0
    heading, line = capsys.readouterr().out.splitlines()
    assert heading.split()[:3] == ["sample", "pages", "seconds"]
    cells = line.split()
    assert cells[:2] == ["chinese.png", "1/1"]
    assert cells[4:] == ["0.00%", "3/3", "-", "20/20"]
    assert [(body["fileType"], body["visualize"]) for body in Service.seen] == [(1, False)]


def test_the_command_prints_json(service: HTTPServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert accuracy.main(["--url", url(service), "--json", "chinese.png"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert record["sample"] == "chinese.png"
    assert record["cells"] == {"found": 20, "total": 20}


def test_an_error_of_the_service_is_shown(service: HTTPServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert accuracy.main(["--url", url(service), "paper.pdf"]) == 1
    error, hint = capsys.readouterr().err.splitlines()
    assert error.endswith("/layout-parsing answered 422: the file is too large")
    assert hint.startswith("hint: ")


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "nonsense"])
def test_an_unreachable_service_is_one_line_and_a_hint(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert accuracy.main(["--url", address, "paper.pdf"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split(":")[0] for line in err.splitlines()] == ["error", "hint"]


def test_an_unknown_sample_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert accuracy.main(["nothing.pdf"]) == 2
    assert "hint: the samples are: paper.pdf, " in capsys.readouterr().err
