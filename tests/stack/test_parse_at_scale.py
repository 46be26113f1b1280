"""./kit parse against a service that fails: killed, poisoned, refused, and still the same files as from a sound run."""

from __future__ import annotations

import contextlib
import os
import pty
import random
import re
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import parsing
import pytest
from fakes.faulty_service import FAULTS, Service, serving
from gateway_stack import make_pdf, make_picture, make_tiff
from kit.errors import ExitCode
from parsing import files, journal, parse, report
from support import make_encrypted_pdf, wait_for

PAGES = 500
MOST_MEMORY = 150 * 1024  # kB: half of what it may take, and less than the pictures of all pages would
MOST_WITH_CHILDREN = 2 * MOST_MEMORY
PICTURE = random.Random(0).randbytes(250_000)


@pytest.fixture(scope="module")
def long_pdf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("long") / "long.pdf"
    path.write_bytes(make_pdf([f"page {number} of the book" for number in range(1, PAGES + 1)]))
    return path


def numbers(markdown: str) -> list[int]:
    return [int(number) for number in re.findall(r"^page (\d+) of the book", markdown, re.MULTILINE)]


def test_500_pages_with_little_memory(long_pdf: Path, tmp_path: Path) -> None:
    out, peak, peaks = tmp_path / "out", tmp_path / "peak", list[int]()
    with serving(Service(picture=PICTURE)) as service:
        done = parse(long_pdf, "-o", out, "--url", service.url, peaks=peaks, PEAK_FILE=str(peak))
    assert done.returncode == 0, done.stderr
    assert numbers((out / "long.md").read_text()) == list(range(1, PAGES + 1))
    for number, picture in enumerate(sorted((out / "long_images").iterdir()), 1):
        assert picture.read_bytes() == PICTURE + f"page {number} of the book".encode(), "of another page"
    assert number == PAGES
    alone = int(peak.read_text())
    assert alone <= MOST_MEMORY and 0.9 * alone < peaks[0] <= MOST_WITH_CHILDREN, "with its children it takes no less"


def test_500_pages_killed_three_times(long_pdf: Path, tmp_path: Path) -> None:
    """At moments that chance chooses; what it chose stands in the name of the failure."""
    asked = ("--format", "md,json,jsonl,html,docx", "--restructure")
    with serving(Service(picture=PICTURE[:300])) as service:
        assert parse(long_pdf, "-o", tmp_path / "sound", "--url", service.url, *asked).returncode == 0
        service.served.clear()
        chance, out = random.SystemRandom(), tmp_path / "killed"
        lines = sorted(chance.sample(range(2, PAGES // 8), 3))
        for count in lines:
            run = parsing.start(long_pdf, "-o", out, "--url", service.url, *asked)
            wait_for(lambda count=count: len(journal(out)) >= count, 60, f"line {count} of the journal")
            run.send_signal(signal.SIGKILL)
            run.communicate()
        assert run.returncode == -signal.SIGKILL and not (out / "long.md").exists(), "it was killed before its end"
        done = parse(long_pdf, "-o", out, "--url", service.url, *asked)
    assert done.returncode == 0, f"killed at lines {lines}: {done.stderr}"
    assert files(out) == files(tmp_path / "sound"), f"killed at lines {lines}"
    # What was in flight at a kill is sent again; nothing else is.
    assert set(service.served) == {f"page {number} of the book" for number in range(1, PAGES + 1)}
    assert sum(service.served.values()) - PAGES <= 3 * 8 * 8


def test_killed_while_the_output_is_made(tmp_path: Path) -> None:
    """In a request with all pages, in that for the DOCX, and when the first file is in its place."""

    class Holds(Service):
        held = 0

        def answer(self, path: str, *request: Any) -> tuple[int, dict[str, Any]]:
            if path == "/restructure-pages":
                self.held += 1
                if self.held in (1, 3):
                    self.ended.wait()
            return super().answer(path, *request)

    book, out = tmp_path / "book.pdf", tmp_path / "out"
    book.write_bytes(make_pdf([f"page {number}" for number in range(40)]))
    asked = (book, "--format", "md,json,html,docx", "--restructure", "--url")
    with serving(Service(picture=PICTURE)) as service:
        assert parse(*asked, service.url, "-o", tmp_path / "sound").returncode == 0
    with serving(Holds(picture=PICTURE)) as service:
        assert isinstance(service, Holds)
        for is_there in (lambda: service.held == 1, lambda: service.held == 3, lambda: files(out)):
            run = parsing.start(*asked, service.url, "-o", out)
            while not is_there():
                assert run.poll() is None, run.communicate()
                time.sleep(0.001)
            run.kill()
            run.communicate()
        done = parse(*asked, service.url, "-o", out)
        assert done.returncode == 0, done.stderr
        assert set(service.served.values()) == {1}, "no page is sent twice"
    assert files(out) == files(tmp_path / "sound")


def test_progress_on_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "book.pdf").write_bytes(make_pdf([f"page {number}" for number in range(40)]))
    ours, its = pty.openpty()
    with serving(Service(seconds=0.02)) as service, open(ours, "rb", buffering=0) as terminal:  # noqa: PTH123
        asked = (tmp_path / "book.pdf", "-o", tmp_path / "out", "--url", service.url, "--concurrency", "1")
        run = parsing.start(*asked, stderr=its, TERM="xterm", COLUMNS="120", NO_COLOR="")
        os.close(its)
        shown = b""
        with contextlib.suppress(OSError):  # EIO: it has closed its side
            while piece := terminal.read(4096):
                shown += piece
        run.communicate()
    assert run.returncode == 0, shown
    text = shown.decode()
    assert re.search(r"book\.pdf +\S* *━", text) and re.search(r"(8|16|24)/40", text), "a bar that moves"
    assert "0 of 1 documents, " in text and "pages/s" in text
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.rsplit("\x1b[2K", 1)[-1]).split("\r\n")
    assert [line for line in last if line.strip()][-1].startswith("1 of 1 documents whole; 40 pages"), last


GOOD, BAD = 950, 50
CAUSES = ("corrupt", "corrupt", "encrypted", "empty", "too-many-pixels", "server")


def folder_of_small_documents(folder: Path) -> dict[str, str]:
    """1,000 documents in two folders, the same names in both; the bad ones with the kind of failure that they are to have."""
    huge = make_picture(size=(8, 8), kind="BMP").replace((8).to_bytes(4, "little") * 2, (20_000).to_bytes(4, "little") * 2)
    poison = {
        "corrupt": make_pdf(["x"])[:60], "encrypted": make_encrypted_pdf(b"secret"), "empty": b"", "too-many-pixels": huge,
        "server": make_pdf(["poison-500"]),
    }  # fmt: skip
    odd = ("\x1b[2J", "a b", "'; rm", "new\nline", "e\u0301", "x" * 240)
    hostile = [*odd, *"-rf a.. $(id) CON 名前 é A\\B <b> * report".split()]
    bad: dict[str, str] = {}
    for number in range(GOOD + BAD):
        place = folder / ("one", "two")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        stem = hostile[number // 2] if number // 2 < len(hostile) else f"doc {number // 2}"
        kind = CAUSES[number // 20 % len(CAUSES)] if number % 20 == 19 else ""
        data = poison[kind] if kind else make_pdf([f"document {number}"])
        if number % 20 == 18:
            data = make_picture((number % 256, number // 256, 7))
        path = place / f"{stem}{'.png' if kind == 'too-many-pixels' or number % 20 == 18 else '.pdf'}"
        path.write_bytes(data)
        if kind:
            bad[str(path)] = kind
    return bad


def test_1000_small_documents_of_which_50_are_bad(tmp_path: Path) -> None:
    documents, out, peak = (tmp_path / name for name in ("documents", "out", "peak"))
    bad = folder_of_small_documents(documents)
    with serving(Service()) as service:
        done = parse(documents, "-o", out, "--url", service.url, PEAK_FILE=str(peak))
        assert done.returncode == ExitCode.SOME_FAILED, done.stderr[-2000:]
        assert int(peak.read_text()) <= MOST_MEMORY
        assert "\x1b" not in done.stderr, "no name reaches the terminal as a command"
        first = files(out)
        told = report(out)
        sent = len(service.requests)
        again = parse(documents, "-o", out, "--url", service.url)
    assert {path.name for path in tmp_path.iterdir()} == {"documents", "out", "peak"}, "nothing is written elsewhere"
    assert told["documents"] == {"all": 1000, "whole": GOOD, "partly": 0, "failed": BAD}
    failed = {
        one["input"]: one.get("kind") or one["failed_pages"][0]["kind"] for one in told["inputs"] if one["status"] == "failed"
    }
    assert failed == bad
    assert all(one.get("cause") or one["failed_pages"][0]["cause"] for one in told["inputs"] if one["status"] == "failed")
    outputs = [one["output"] for one in told["inputs"] if one["output"]]
    assert len({name.casefold() for name in outputs}) == GOOD
    texts = Counter((out / f"{name}.md").read_text().strip() for name in outputs)
    assert texts == service.served and set(texts.values()) == {1}, "each good one once, with its own text"
    # The second run sends the bad ones that the service has refused once more, and nothing else.
    assert again.returncode == ExitCode.SOME_FAILED and files(out) == first
    assert len(service.requests) - sent == sum(kind == "server" for kind in bad.values()) * 6


@pytest.mark.parametrize(("count", "more"), [(40, ()), (6, ("--restructure",))])
def test_a_service_that_fails_at_random(long_pdf: Path, tmp_path: Path, count: int, more: tuple[str, ...]) -> None:
    """It resets, answers 500 and 429, hangs and cuts its JSON, a tenth of all requests each."""
    documents = tmp_path / "documents"
    documents.mkdir()
    for number in range(count):
        (documents / f"{number}.pdf").write_bytes(
            make_pdf([f"document {number}, page {page}" for page in range(number % 20 + 1)])
        )
    asked = (documents, long_pdf, "--pages", "1-100", "--timeout", "2", "--concurrency", "16", *more)
    with serving(Service()) as service:
        assert parse(*asked, "-o", tmp_path / "sound", "--url", service.url).returncode == 0
    with serving(Service(FAULTS)) as service:
        done = parse(*asked, "-o", tmp_path / "out", "--url", service.url)
    assert done.returncode == 0, done.stderr
    assert all(service.happened[fault] for fault in FAULTS), service.happened
    assert files(tmp_path / "out") == files(tmp_path / "sound")


@pytest.mark.parametrize("word", ["poison-500", "poison-422"])
def test_a_poison_page_costs_no_other(tmp_path: Path, word: str) -> None:
    texts = [f"page {number}" for number in range(1, 21)]
    (tmp_path / "book.pdf").write_bytes(make_pdf([*texts[:12], f"page 13 {word}", *texts[13:]]))
    with serving(Service()) as service:
        done = parse(tmp_path / "book.pdf", "-o", tmp_path / "out", "--url", service.url)
    assert done.returncode == ExitCode.SOME_FAILED, done.stderr
    assert "19 of 20 pages; page 13: " in done.stderr
    (one,) = report(tmp_path / "out")["inputs"]
    (failed,) = one["failed_pages"]
    assert (one["status"], one["read"], failed["page"]) == ("partly", 19, 13) and failed["cause"] and failed["log_id"]
    parts = (tmp_path / "out" / "book.md").read_text().strip().split("\n\n")
    assert [part.strip() for part in parts[:12] + parts[13:]] == texts[:12] + texts[13:]
    assert parts[12] == f"<!-- page 13 was not read: {failed['cause']} -->"


def test_tiff_pages_and_a_list_on_stdin(tmp_path: Path) -> None:
    (tmp_path / "fax.tiff").write_bytes(make_tiff([(1, 1, 1), (2, 2, 2), (3, 3, 3)]))
    (tmp_path / "a b.pdf").write_bytes(make_pdf(["one"]))
    listed = f"{tmp_path}/fax.tiff\0{tmp_path}/a b.pdf\0{tmp_path}/gone.pdf\0"
    with serving(Service()) as service:
        done = parse("-", "-o", tmp_path / "out", "--url", service.url, stdin=listed)
    assert done.returncode == ExitCode.SOME_FAILED and len(service.requests) == 3 + 1
    assert (tmp_path / "out" / "fax.md").read_text() == "picture (1, 1, 1)\n\npicture (2, 2, 2)\n\npicture (3, 3, 3)\n"
    assert [one["status"] for one in report(tmp_path / "out")["inputs"]] == ["whole", "whole", "failed"]


def test_several_documents_come_to_stdout_in_their_order(tmp_path: Path) -> None:
    for number, pages in enumerate((30, 1, 9)):
        (tmp_path / f"{number}.pdf").write_bytes(make_pdf([f"{number}.{page}" for page in range(pages)]))
    with serving(Service()) as service:
        done = parse(tmp_path, "--url", service.url)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [f"{number}.{page}" for number, pages in enumerate((30, 1, 9)) for page in range(pages)]


def test_a_reader_that_leaves_ends_it_without_an_error(tmp_path: Path) -> None:
    class Wordy(Service):
        def _page(self, text: str) -> dict[str, Any]:
            return super()._page(f"{text}\n" * 100_000)  # more than a pipe holds

    (tmp_path / "a.pdf").write_bytes(make_pdf(["a"]))
    with serving(Wordy()) as service, parsing.start(tmp_path / "a.pdf", "--url", service.url) as run:
        assert run.stdout and run.stderr and run.stdout.readline() == "a\n"
        run.stdout.close()
        assert run.stderr.read() == "" and run.wait(60) == 0


def test_changed_and_touched_inputs(tmp_path: Path) -> None:
    kept, touched, changed = (tmp_path / f"{name}.pdf" for name in ("kept", "touched", "changed"))
    for path in (kept, touched, changed):
        path.write_bytes(make_pdf([f"old {path.stem}"]))
    with serving(Service()) as service:
        assert parse(kept, touched, changed, "-o", tmp_path / "out", "--url", service.url).returncode == 0
        os.utime(touched, (1, 1))
        changed.write_bytes(make_pdf(["new changed"]))
        service.served.clear()
        assert parse(kept, touched, changed, "-o", tmp_path / "out", "--url", service.url).returncode == 0
    assert list(service.served) == ["new changed"]
    assert (tmp_path / "out" / "changed.md").read_text() == "new changed\n"


def test_a_service_that_goes_away_ends_the_run_and_the_next_one_goes_on(tmp_path: Path) -> None:
    (tmp_path / "book.pdf").write_bytes(make_pdf([f"page {number}" for number in range(80)]))
    asked = (tmp_path / "book.pdf", "-o", tmp_path / "out", "--concurrency", "1", "--patience", "0.2")
    with serving(Service(seconds=0.02)) as service:
        run = parsing.start(*asked, "--url", service.url)
        wait_for(lambda: sum(service.served.values()) >= 24, 60, "three ranges")
    _, talk = run.communicate(timeout=60)
    assert run.returncode == ExitCode.UNREACHABLE, talk
    assert "no service answers at" in talk and "the same command goes on" in talk
    with serving(Service()) as other:
        done = parse(*asked, "--url", other.url)
    assert done.returncode == 0, done.stderr
    assert 0 < sum(other.served.values()) <= 80 - 16
    assert [part.strip() for part in (tmp_path / "out" / "book.md").read_text().split("\n\n")] == [f"page {n}" for n in range(80)]


def test_a_key_that_is_refused_stops_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(make_pdf(["a"]))
    (tmp_path / "key").write_text("s3cret\n")
    with serving(Service()) as service:
        assert parse(tmp_path / "a.pdf", "--url", service.url, "--api-key-file", tmp_path / "key").returncode == 0
        assert service.headers[0]["Authorization"] == "Bearer s3cret"
        service.answer = lambda *_: (401, {"errorCode": 401, "errorMsg": "no API key"})  # type: ignore[method-assign]
        done = parse(tmp_path, "-o", tmp_path / "out", "--url", service.url)
    assert done.returncode == ExitCode.USAGE and "--api-key-file" in done.stderr
    assert len(service.requests) <= 1 + 8


def test_two_runs_into_one_folder_do_not_mix(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(make_pdf(["a poison-hang"]))
    with serving(Service()) as service:
        first = parsing.start(tmp_path / "a.pdf", "-o", tmp_path / "out", "--url", service.url)
        wait_for(lambda: service.requests, 60, "a request")
        second = parse(tmp_path / "a.pdf", "-o", tmp_path / "out", "--url", service.url)
        first.kill()
        first.communicate()
        assert second.returncode == ExitCode.ENVIRONMENT and "another ./kit parse writes to" in second.stderr
        other = parse(tmp_path / "a.pdf", "-o", tmp_path / "out", "--url", service.url, "--max-pages", "3")
    assert other.returncode == ExitCode.USAGE and "other settings (max_pages)" in other.stderr
