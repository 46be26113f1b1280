"""./kit bench: what it counts, what it takes for a whole reply, what it writes; against a stub of the service."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import signal
import subprocess
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pypdfium2
import pytest
from kit import cli
from kit.bench import plot, run
from kit.bench.drive import drive
from kit.bench.figures import Figures, Reply, count, percentile
from kit.bench.workload import PAGES, Load, Workload
from kit.errors import ExitCode
from stub_service import Answer, page, refusal, stub_service, success
from support import SAMPLES, Workspace, check_error, free_port, interrupt, wait_for

GOOD = success(page("words"))
ONE = Load("one", b'{"file": ""}', 1)
SVG = "{http://www.w3.org/2000/svg}"


def paged(request: dict[str, Any]) -> tuple[int, bytes]:
    """As many pages as the document has."""
    pages = len(pypdfium2.PdfDocument(base64.b64decode(request["file"]))) if request["fileType"] == 0 else 1
    return success(*[page("words")] * pages)(request)


# --- figures


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([7.0], 50, 7.0),
        ([7.0], 99, 7.0),
        ([4.0, 1.0, 3.0, 2.0], 50, 2.0),
        ([4.0, 1.0, 3.0, 2.0], 51, 3.0),
        ([float(n) for n in range(1, 101)], 95, 95.0),
        ([float(n) for n in range(1, 101)], 99, 99.0),
        ([float(n) for n in range(1, 11)], 95, 10.0),
        ([1.0, 2.0], 0, 1.0),
    ],
)
def test_percentiles_are_values_that_were_measured(values: list[float], percent: float, expected: float) -> None:
    assert percentile(values, percent) == expected


def test_there_is_no_percentile_of_nothing() -> None:
    with pytest.raises(ValueError):
        percentile([], 50)


def test_only_whole_replies_are_pages() -> None:
    replies = [
        Reply(10.0, 12.0, 3, 300, 30),
        Reply(11.0, 15.0, 1, 100, 10),
        Reply(11.0, 20.0, 9, 900, 90, "HTTP 500"),
        Reply(12.0, 13.0, 1, 100, 10, "no connection"),
        Reply(13.0, 14.0, 1, 100, 10, "HTTP 500"),
    ]
    figures = count("1 page", 2, replies)
    assert (figures.requests, figures.pages, figures.seconds) == (5, 4, 10.0)
    assert figures.pages_per_second == 0.4
    assert (figures.p50, figures.p99) == (2.0, 4.0), "of the whole replies alone"
    assert (figures.sent_per_page, figures.received_per_page) == (100.0, 10.0)
    assert figures.errors == {"HTTP 500": 2, "no connection": 1}


def test_nothing_whole() -> None:
    figures = count("1 page", 1, [Reply(0.0, 1.0, 1, 10, 0, "no connection")])
    assert figures.pages_per_second == 0 and figures.p50 is None and figures.received_per_page is None
    assert "1 × no connection" in run.table([figures])


# --- the workload


def test_each_page_is_sent_once_and_the_same_seed_sends_it_again() -> None:
    def pixels(load: Load) -> str:
        body = json.loads(load.body)
        data = base64.b64decode(body["file"])
        if body["fileType"] == 0:  # a PDF's id differs each time that it is written
            data = pypdfium2.PdfDocument(data)[0].render(scale=0.5).to_pil().tobytes()
        return hashlib.sha256(data).hexdigest()

    first, again, other = Workload(SAMPLES, 1), Workload(SAMPLES, 1), Workload(SAMPLES, 2)
    seen = [pixels(first.page()) for _ in range(2 * len(PAGES))]
    assert len(set(seen)) == len(seen)
    assert [pixels(again.page()) for _ in range(len(PAGES))] == seen[: len(PAGES)]
    assert pixels(other.page()) not in seen


@pytest.mark.parametrize("pages", [1, 30])
def test_the_long_pdf_has_its_pages_and_their_text(pages: int) -> None:
    load = Workload(SAMPLES, 1).long_pdf(pages)
    pdf = pypdfium2.PdfDocument(base64.b64decode(json.loads(load.body)["file"]))
    assert load.pages == len(pdf) == pages
    for sheet in pdf:
        assert len(sheet.get_textpage().get_text_bounded()) > 100
        assert min(sheet.render(scale=0.2).to_pil().convert("RGB").getpixel((1, 1))) >= 225, "the paper stays light"


# --- what a reply is worth


def replies_to(answer: Answer, load: Load = ONE, times: int = 1) -> list[Reply]:
    found: list[Reply] = []
    with stub_service(answer) as url:
        asyncio.run(drive(url, [load] * times, 2, 10, found.append))
    return found


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (GOOD, ""),
        (success(), "0 of 1 page"),
        (success(page("a"), page("b")), "2 of 1 page"),
        (success(page(" \n")), "a page without text"),
        (success({"prunedResult": {}}), "a page without Markdown"),
        (success({"prunedResult": {"parsing_res_list": [{"block_label": "text", "block_content": ""}]},
                  "markdown": {"text": "# "}}), "no text in any block"),
        (refusal(429, "busy"), "HTTP 429: busy"),
        (refusal(500, "x" * 100), "HTTP 500: " + "x" * 59 + "…"),
        (lambda request: (200, b"<html>"), "HTTP 200, but no result"),
        (lambda request: (502, b"<html>"), "HTTP 502"),
        (lambda request: (200, b"[]"), "HTTP 200, but no result"),
        (lambda request: (200, b'{"errorCode": 0, "result": null}'), "HTTP 200, but no result"),
    ],
)  # fmt: skip
def test_what_is_no_whole_reply_is_an_error_of_its_kind(answer: Answer, error: str) -> None:
    (reply,) = replies_to(answer)
    assert reply.error == error
    assert reply.sent == len(ONE.body)
    assert reply.received == len(answer({})[1])


def test_nobody_there_and_no_answer() -> None:
    found: list[Reply] = []
    asyncio.run(drive(f"http://127.0.0.1:{free_port()}", [ONE], 1, 10, found.append))
    assert [reply.error for reply in found] == ["no connection"]
    release = threading.Event()
    with stub_service(lambda request: ((release.wait(20) and 200) or 500, b"")) as url:
        asyncio.run(drive(url, [ONE], 1, 0.2, found.append))
        release.set()
    assert found[-1].error == "no reply within 0.2 s"


def test_no_more_requests_at_once_than_clients() -> None:
    running, most, lock = 0, 0, threading.Lock()
    together = threading.Barrier(3)

    def answer(request: dict[str, Any]) -> tuple[int, bytes]:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        together.wait(20)  # only three at once get any further
        with lock:
            running -= 1
        return GOOD(request)

    found: list[Reply] = []
    with stub_service(answer) as url:
        asyncio.run(drive(url, [ONE] * 9, 3, 30, found.append))
    assert most == 3 and len(found) == 9 and not any(reply.error for reply in found)


# --- the plot


@pytest.mark.parametrize("highest", [0, 0.013, 1, 1.2, 7.3, 16, 99.9, 1234])
def test_ticks_are_round_and_reach_the_highest(highest: float) -> None:
    ticks = plot.ticks(highest)
    assert ticks[0] == 0 and ticks[-1] >= highest and len(ticks) <= 8
    assert ticks == sorted(set(ticks))


def test_the_plot_is_whole_xml_with_names_axes_and_values() -> None:
    series = [plot.Series("a <b> & c", [1.0, None, 3.0]), plot.Series("flat", [2.0, 2.0, 2.0])]
    text = plot.svg("a title", ["a note"], [plot.Panel("speed", "clients", "pages/s", ["1", "4", "16"], series)])
    root = ElementTree.fromstring(text)
    words = [node.text for node in root.iter(f"{SVG}text")]
    assert {"a title", "a note", "speed", "clients", "pages/s", "1", "4", "16", "a <b> & c", "flat", "0"} <= set(words)
    assert "prefers-color-scheme: dark" in text
    # Marks: two and three values, and one each in the legend.
    assert len(root.findall(f".//{SVG}circle")) == 2 + 1 and len(root.findall(f".//{SVG}rect[@height='8']")) == 3 + 1
    heights = [float(node.get("cy", "0")) for node in root.iter(f"{SVG}circle")]
    assert heights[1] < heights[0], "more is higher up"


def test_a_plot_without_values() -> None:
    ElementTree.fromstring(plot.svg("t", [], [plot.Panel("p", "x", "y", ["1"], [plot.Series("s", [None])])]))


# --- the verb

Bench = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Bench:
    """./kit bench within this process, which takes no second to start."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        code = cli.main(["bench", *map(str, arguments)])
        shown = capsys.readouterr()
        return subprocess.CompletedProcess([], code, shown.out, shown.err)

    return call


QUICK = ("--clients", "1,2", "--requests", "2", "--pdf-pages", "3")


def test_a_table_on_stdout_json_and_svg_in_files(bench: Bench, tmp_path: Path) -> None:
    with stub_service(paged) as url:
        done = bench(url, *QUICK, "--seed", "7", "--json", tmp_path / "a.json", "--svg", tmp_path / "a.svg")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["1 page", "1 page", "PDF of 3 pages"]
    report = json.loads((tmp_path / "a.json").read_text())
    assert report["complete"] is True and report["seed"] == 7
    assert [(level["clients"], level["requests"], level["pages"]) for level in report["levels"]] == [
        (1, 2, 2),
        (2, 2, 2),
        (1, 1, 3),
    ]
    assert all(level["errors"] == {} and level["pages_per_second"] > 0 for level in report["levels"])
    ElementTree.fromstring((tmp_path / "a.svg").read_text())
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", "a.svg"}, "nothing is left over"


def test_json_alone_on_stdout(bench: Bench) -> None:
    with stub_service(GOOD) as url:
        done = bench(url, *QUICK[:4], "--pdf-pages", "0", "--json")
    report = json.loads(done.stdout)
    assert set(report["levels"][0]) == set(Figures.__dataclass_fields__)
    assert len(report["levels"]) == 2 and "| 1 page" in done.stderr


def test_errors_are_counted_and_end_in_a_failure(bench: Bench) -> None:
    asked = 0

    def answer(request: dict[str, Any]) -> tuple[int, bytes]:
        nonlocal asked
        asked += 1
        return GOOD(request) if asked < 3 else refusal(429, "try again later")(request)  # the first is for warming up

    with stub_service(answer) as url:
        done = bench(url, "--clients", "1", "--requests", "3", "--pdf-pages", "0")
    assert done.returncode == ExitCode.FAILED
    assert "2 × HTTP 429: try again later" in done.stdout


def test_what_cannot_parse_a_page_is_not_measured(bench: Bench) -> None:
    with stub_service(refusal(500, "Internal server error")) as url:
        check_error(bench(url), ExitCode.FAILED, "does not parse a page: HTTP 500: Internal server error")
    check_error(bench(f"http://127.0.0.1:{free_port()}"), ExitCode.UNREACHABLE, "no service answers")


def test_local_where_nothing_runs(workspace: Workspace) -> None:
    check_error(workspace.kit("bench", "--local"), ExitCode.START, "no service runs here", "./kit up")


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        ([], ExitCode.USAGE, "name one service"),
        (["http://h:1", "--local"], ExitCode.USAGE, "name one service"),
        (["--json", "http://h:1"], ExitCode.USAGE, "is an address, not a file"),
        (["ftp://h"], ExitCode.USAGE, "not the address of a service"),
        (["http://h:1", "--clients", "0"], ExitCode.USAGE, "list of numbers of clients"),
        (["http://h:1", "--clients", "1,,2"], ExitCode.USAGE, "list of numbers of clients"),
        (["http://h:1", "--requests", "0"], ExitCode.USAGE, "number of requests"),
        (["http://h:1", "--pdf-pages", "-1"], ExitCode.USAGE, "number of pages"),
        (["http://h:1", "--seed", "x"], ExitCode.USAGE, "whole number"),
        (["http://h:1", "--svg", "/nowhere/a.svg"], ExitCode.ENVIRONMENT, "cannot write /nowhere/a.svg"),
        (["http://h:1", "--json", "/"], ExitCode.ENVIRONMENT, "cannot write /"),
    ],
)
def test_wrong_use_is_told_before_anything_is_sent(bench: Bench, arguments: list[str], code: ExitCode, part: str) -> None:
    check_error(bench(*arguments), code, part)


def test_ctrl_c_shows_what_was_measured(workspace: Workspace, tmp_path: Path) -> None:
    asked, forever = 0, threading.Event()

    def answer(request: dict[str, Any]) -> tuple[int, bytes]:
        nonlocal asked
        asked += 1
        if asked > 6:  # two for warming up, a whole level of three, one of the next
            forever.wait(60)
        return GOOD(request)

    with stub_service(answer) as url:
        process = workspace.start("bench", url, "--clients", "1,2", "--requests", "3", "--json", str(tmp_path / "a.json"))
        wait_for(lambda: asked == 8, 60, "both clients to wait for an answer")
        interrupt(process)
        output, _ = process.communicate(timeout=30)
        forever.set()
    assert process.returncode == ExitCode.INTERRUPTED, output
    assert "Traceback" not in output and "interrupted" in output
    report = json.loads((tmp_path / "a.json").read_text())
    assert report["complete"] is False
    assert [(level["clients"], level["pages"]) for level in report["levels"]] == [(1, 3), (2, 1)]
    assert re.search(r"\| 1 page +\| +2 \| +1 \|", output)


def test_the_key_is_sent_and_never_shown(bench: Bench, tmp_path: Path) -> None:
    seen: list[str | None] = []
    file = tmp_path / "key"
    file.write_text("a-secret-key-of-ours\n")
    with stub_service(GOOD, seen=lambda headers: seen.append(headers["Authorization"])) as url:
        done = bench(url, "--clients", "1", "--requests", "1", "--pdf-pages", "0", "--api-key-file", file, "--json")
    assert done.returncode == 0 and seen == ["Bearer a-secret-key-of-ours"] * 2
    assert "a-secret" not in done.stdout + done.stderr
    file.write_text("two keys-of-ours\n")
    check_error(bench(url, "--api-key-file", file), ExitCode.INPUT, "not one key alone")
    check_error(bench(url, "--api-key-file", tmp_path / "none"), ExitCode.INPUT, "none: No such file")


def test_latency_is_from_sending_to_the_whole_reply() -> None:
    def answer(request: dict[str, Any]) -> tuple[int, bytes]:
        end = time.monotonic() + 0.2
        while time.monotonic() < end:
            threading.Event().wait(0.02)
        return GOOD(request)

    (reply,) = replies_to(answer)
    assert reply.seconds >= 0.2
