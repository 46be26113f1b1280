"""A run in trouble: a service that puts nothing together, files that change or are none, addresses that lead astray."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from fakes.faulty_service import Service, serving
from gateway_stack import make_pdf
from kit.batch.names import STATE
from kit.batch.report import Totals
from kit.client import KeyRefused, NoService, Unavailable, retry
from parsing import files, report, run_here

OVER_PAGES = "/restructure-pages"
Answered = tuple[int, dict[str, Any]]


def refused(status: int) -> Answered:
    return status, {"errorCode": status, "errorMsg": "no", "logId": ""}


class NotTogether(Service):
    """What answers /restructure-pages the test says: None for what a sound service would."""

    def __init__(self, says: Callable[[], Answered | None]) -> None:
        super().__init__()
        self.says = says
        self.asked = 0

    def answer(self, path: str, fields: dict[str, Any], read: Any) -> Answered:
        if path == OVER_PAGES:
            self.asked += 1
            if (said := self.says()) is not None:
                return said
        return super().answer(path, fields, read)


def without_text() -> Answered:
    page = {"prunedResult": {"parsing_res_list": []}, "markdown": {}}
    return 200, {"errorCode": 0, "result": {"layoutParsingResults": [page] * 2}}


@pytest.fixture
def books(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{name}.pdf" for name in "abc"]
    for path in paths:
        path.write_bytes(make_pdf([f"{path.stem}1", f"{path.stem}2"]))
    return paths


@pytest.mark.parametrize(("answer", "kind"), [(lambda: refused(500), "server"), (without_text, "reply")])
def test_pages_that_are_not_put_together_are_written_as_they_are(
    tmp_path: Path, books: list[Path], answer: Callable[[], Answered], kind: str
) -> None:
    out = tmp_path / "out"
    with serving(NotTogether(answer)) as service:
        assert run_here(out, service.url, *books[:2], restructure=True, formats=("md",)) == Totals(0, 2, 0, read=4, lost=0)
        assert service.asked == 6 + 1, "the second document does not try again and again"
    assert (out / "a.md").read_text().split() == ["a1", "a2"]
    assert [one["failed_restructure"]["kind"] for one in report(out)["inputs"]] == [kind, kind]
    with serving(Service()) as service:
        assert run_here(out, service.url, *books[:2], restructure=True, formats=("md",)).whole == 2
        assert not service.served, "the pages are there"
    assert (out / "a.md").read_text().split("\n\n") == ["[1 of 2] a1", "[2 of 2] a2\n"]


@pytest.mark.parametrize(("status", "error"), [(401, KeyRefused), (404, NoService), (503, Unavailable)])
@pytest.mark.parametrize("wishes", [{"restructure": True}, {"formats": ("md", "docx")}])
def test_what_concerns_every_document_ends_the_run_and_the_pages_stay(
    tmp_path: Path, books: list[Path], status: int, error: type[Exception], wishes: dict[str, Any]
) -> None:
    out = tmp_path / "out"
    with serving(NotTogether(lambda: refused(status))) as service:
        with pytest.raises(error):
            run_here(out, service.url, books[0], patience=0.05, **wishes)
        assert service.asked < 60 and not files(out)
    with serving(Service()) as service:
        assert run_here(out, service.url, books[0], **wishes).whole == 1
        assert not service.served, "the pages are there"


def test_a_docx_that_fails_early_takes_no_later_one_away(tmp_path: Path, books: list[Path]) -> None:
    says = iter([*[refused(500)] * 6, None, refused(500), None])  # a fails, b is made, c at its second try
    with serving(NotTogether(lambda: next(says))) as service:
        assert run_here(tmp_path / "out", service.url, *books, concurrency=1, formats=("docx",)) == Totals(2, 1, 0, 6, 0)


def test_what_is_no_file_holds_nothing_up(tmp_path: Path, books: list[Path]) -> None:
    os.mkfifo(tmp_path / "pipe.pdf")
    (tmp_path / "zero.pdf").symlink_to("/dev/zero")
    with serving(Service()) as service:
        assert run_here(tmp_path / "out", service.url, tmp_path / "pipe.pdf", tmp_path / "zero.pdf", books[0]).whole == 1
    assert [one.get("cause") for one in report(tmp_path / "out")["inputs"]] == ["is no file", "is no file", None]


def test_output_that_is_gone_is_made_again_and_that_of_another_content_goes(tmp_path: Path, books: list[Path]) -> None:
    out = tmp_path / "out"
    with serving(Service(picture=b"jpeg")) as service:
        assert run_here(out, service.url, *books).whole == 3
        before = files(out)
        (out / "a.md").unlink()
        (out / "b_images" / "p0001_img_in_image_box_1_2_3_4.jpg").unlink()
        (out / "b_images" / "p0002_img_in_image_box_1_2_3_4.jpg").unlink()
        (out / "b_images").rmdir()
        service.served.clear()
        assert run_here(out, service.url, *books).whole == 3
        assert files(out) == before and set(service.served) == {"a1", "a2", "b1", "b2"}
        books[0].write_bytes(b"%PDF-1.4 cut off")
        books[1].unlink()
        books[1].symlink_to("nowhere")
        books[2].write_bytes(make_pdf(["c1 poison-422"]))
        assert run_here(out, service.url, *books).failed == 3
    left = {name for name in files(out) if name != "report.json"}
    assert left == {name for name in before if name.startswith("b")}, "of a file that is merely away it stays"


def test_a_file_that_changes_and_changes_back_keeps_no_page_of_the_other(tmp_path: Path) -> None:
    book, out = tmp_path / "book.pdf", tmp_path / "out"
    good, other = (make_pdf([f"{word} {number}" for number in range(17)]) for word in ("good", "other"))
    book.write_bytes(good)

    class Meanwhile(Service):
        def answer(self, *request: Any) -> Answered:
            book.write_bytes(other)
            return super().answer(*request)

    with serving(Meanwhile()) as service:
        assert run_here(out, service.url, book, concurrency=1).failed == 1
        assert any(text.startswith("other") for text in service.served), "else this shows nothing"
    book.write_bytes(good)
    with serving(Service()) as service:
        assert run_here(out, service.url, book).whole == 1
    assert "other" not in (out / "book.md").read_text() and "good 16" in (out / "book.md").read_text()


def test_a_file_that_is_touched_while_it_is_parsed_has_not_changed(tmp_path: Path, books: list[Path]) -> None:
    class Meanwhile(Service):
        def answer(self, *request: Any) -> Answered:
            os.utime(books[0], (1, 1))
            return super().answer(*request)

    with serving(Meanwhile()) as service:
        assert run_here(tmp_path / "out", service.url, books[0]).whole == 1


def test_a_picture_that_is_gone_from_the_store_is_read_again(tmp_path: Path, books: list[Path]) -> None:
    out, asked = tmp_path / "out", {"formats": ("md", "docx")}
    with serving(NotTogether(lambda: refused(401))) as service, pytest.raises(KeyRefused):
        service.picture = b"jpeg"
        run_here(out, service.url, books[0], **asked)
    next((out / STATE / "pages").glob("*/images/*")).write_bytes(b"")
    with serving(Service(picture=b"jpeg")) as service:
        assert run_here(out, service.url, books[0], **asked).whole == 1
        assert service.served == {"a1": 1, "a2": 1}
    assert [data for name, data in sorted(files(out).items()) if "_images/" in name] == [b"jpega1", b"jpega2"]


class Specks(Service):
    """Reads nothing in the blocks of a page that is called so."""

    def _page(self, text: str) -> dict[str, Any]:
        page = super()._page(text)
        blocks = page["prunedResult"]["parsing_res_list"]
        if text.startswith("nothing"):
            page["prunedResult"]["parsing_res_list"] = [blocks[0] | {"block_content": ""}] * int(text.split()[1])
            page["markdown"]["text"] = ""
        return page


@pytest.mark.parametrize(
    ("pages", "lost"),
    [
        (["text"] * 8 + ["nothing 1"], []),  # the last one goes out alone
        (["nothing 2"] + ["poison-422"] + ["text"] * 3, [2]),
        (["text"] * 8 + ["nothing 3"], [9]),
        (["text", "nothing 3", "text"], [2]),  # whatever it is sent with
        (["nothing 1"], [1]),
        (["nothing 0"] * 8 + ["nothing 1"], [9]),
    ],
)
def test_a_page_of_specks_is_blank_where_others_have_text(tmp_path: Path, pages: list[str], lost: list[int]) -> None:
    (tmp_path / "a.pdf").write_bytes(make_pdf(pages))
    with serving(Specks()) as service:
        totals = run_here(tmp_path / "out", service.url, tmp_path / "a.pdf")
    (one,) = report(tmp_path / "out")["inputs"]
    assert [failed["page"] for failed in one.get("failed_pages", [])] == lost
    assert (totals.read, totals.lost) == ((len(pages) - len(lost)), len(lost))


@contextmanager
def web(answer: Callable[[str, int], tuple[int, bytes, dict[str, str]]]) -> Iterator[str]:
    """A place with documents. answer: gets the path and how often it was asked for."""
    came: dict[str, int] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            came[self.path] = came.get(self.path, 0) + 1
            status, body, headers = answer(self.path, came[self.path])
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("asked", ["86400", "9" * 400])
def test_no_server_holds_a_download_longer_than_is_reasonable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    monkeypatch.setattr(retry, "LONGEST_RETRY_AFTER", 0.01)
    times: list[int] = []

    def answer(_: str, time: int) -> tuple[int, bytes, dict[str, str]]:
        times.append(time)
        return (429, b"", {"Retry-After": asked}) if time < 3 else (200, make_pdf(["there"]), {})

    with web(answer) as base, serving(Service()) as service:
        assert run_here(tmp_path / "once", service.url, f"{base}/a.pdf", never=True).failed == 1
        assert times == [1], "--no-retry"
        assert run_here(tmp_path / "out", service.url, f"{base}/a.pdf").whole == 1


def test_a_slow_address_does_not_hold_up_the_documents_behind_it(tmp_path: Path, books: list[Path]) -> None:
    with serving(Service()) as service:
        read_meanwhile: list[bool] = []

        def answer(*_: object) -> tuple[int, bytes, dict[str, str]]:
            for _ in range(600):
                if len(service.served) == 6:
                    break
                service.ended.wait(0.05)
            read_meanwhile.append(len(service.served) == 6)
            return 200, make_pdf(["slow"]), {}

        with web(answer) as base:
            assert run_here(tmp_path / "out", service.url, f"{base}/a.pdf", *books).whole == 4
    assert read_meanwhile == [True]


def test_a_page_that_asks_for_a_login_is_not_taken_for_the_document_for_ever(tmp_path: Path) -> None:
    def answer(_: str, time: int) -> tuple[int, bytes, dict[str, str]]:
        return 200, b"<html>login</html>" if time == 1 else make_pdf(["there"]), {}

    with web(answer) as base, serving(Service()) as service:
        address = f"{base.replace('//', '//me:s3cret@')}/a.pdf?token=t0psecret"
        assert run_here(tmp_path / "out", service.url, address).failed == 1
        assert run_here(tmp_path / "out", service.url, address).whole == 1
    for name, data in files(tmp_path / "out").items():
        assert b"s3cret" not in data and b"t0psecret" not in data, name
    assert (tmp_path / "out" / "a.md").read_text() == "there\n"
