"""Pages through the store into files: what each format holds, what a hostile document cannot do, what an error leaves."""

from __future__ import annotations

import json
import shutil
import threading
from html import escape
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from fakes.faulty_service import Service, serving
from gateway_stack import make_pdf
from kit.batch import folder, html
from kit.batch.names import STATE
from kit.batch.progress import Figures
from kit.batch.report import Totals
from kit.batch.wish import FORMATS
from kit.errors import ExitCode, KitError
from parsing import files, report
from parsing import run_here as parse
from stub_service import JPEG, page, stub_service, success
from support import SAMPLES

INVOICE, TWELVE = SAMPLES / "invoice.png", SAMPLES / "twelve-pages.pdf"


def written(out: Path, *pages: dict[str, Any], path: Path = INVOICE, **wishes: Any) -> dict[str, bytes]:
    with stub_service(success(*pages)) as url:
        assert parse(out, url, path, **wishes).code == ExitCode.OK
    return files(out)


def test_every_format_of_a_document_with_a_lost_page(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a b.pdf").write_bytes(make_pdf(["one", "two poison-422", "three"]))
    with serving(Service(picture=b"\xff\xd8jpeg")) as service:
        totals = parse(tmp_path / "out", service.url, tmp_path / "in", formats=FORMATS)
    assert totals == Totals(0, 1, 0, read=2, lost=1) and totals.code == ExitCode.SOME_FAILED
    out = files(tmp_path / "out")
    assert set(out) == {
        *(f"a b.{name}" for name in FORMATS), "report.json",
        *(f"a b_images/p000{number}_img_in_image_box_1_2_3_4.jpg" for number in (1, 3)),
    }  # fmt: skip
    shown = 'one <img src="a%20b_images/p0001_img_in_image_box_1_2_3_4.jpg">'
    lost = "the service refused: HTTP 422, Invalid input file"
    last = shown.replace("one", "three").replace("p0001", "p0003")
    assert out["a b.md"].decode() == f"{shown}\n\n<!-- page 2 was not read: {lost} -->\n\n{last}\n"
    told = json.loads(out["a b.json"])
    assert [one["page"] for one in told["layoutParsingResults"]] == [1, 2, 3]
    assert [one["markdown"]["text"] for one in told["layoutParsingResults"]] == [shown, "", last]
    assert [one.get("error") for one in told["layoutParsingResults"]] == [None, lost, None]
    assert told["source"] == "a b.pdf" and told["dataInfo"]["numPages"] == 3 and told["dataInfo"]["type"] == "pdf"
    lines = [json.loads(line) for line in out["a b.jsonl"].splitlines()]
    assert lines[0]["blocks"] == [{"label": "text", "box": [1, 2, 30, 40], "content": "one", "order": 1}]
    assert lines[1] == {"source": "a b.pdf", "page": 2, "error": lost} and lines[2]["markdown"] == last
    assert out["a b.docx"] == b"DOCX of 2: one \xe2\x80\xa6 three, 2 pictures"
    text = out["a b.html"].decode()
    assert text.count("<section") == text.count("</section>") == 3 and 'src="a%20b_images/p0003' in text
    (one,) = report(tmp_path / "out")["inputs"]
    assert one["failed_pages"][0] | {"log_id": ""} == {"page": 2, "kind": "refused", "cause": lost, "log_id": ""}


def test_a_service_that_makes_no_docx_costs_that_file_alone(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.pdf").write_bytes(make_pdf([name]))
    both, wish = (tmp_path / "a.pdf", tmp_path / "b.pdf"), {"formats": ("md", "docx")}
    with serving(Service(docx=False)) as service:
        totals = parse(tmp_path / "out", service.url, *both, **wish)
        assert sum("pages" in one for one in service.requests) == 6 + 1, "the second document does not try again and again"
    assert totals == Totals(0, 2, 0, read=2, lost=0) and set(files(tmp_path / "out")) == {"a.md", "b.md", "report.json"}
    missing = report(tmp_path / "out")["inputs"][1]["failed_format"]
    assert missing == {"format": "docx", "kind": "server", "cause": "the service refused: HTTP 500, Internal server error"}
    with serving(Service()) as service:
        assert parse(tmp_path / "out", service.url, *both, **wish).code == ExitCode.OK
        assert not service.served, "the pages are there"
    assert set(files(tmp_path / "out")) == {"a.md", "b.md", "a.docx", "b.docx", "report.json"}


def test_pages_are_put_together_by_the_service_where_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "book.pdf").write_bytes(make_pdf([f"page {number}" for number in range(1, 21)]))
    with serving(Service()) as service:
        parse(tmp_path / "out", service.url, tmp_path / "book.pdf", restructure=True, pages=((5, 20),))
        (asked,) = (one for one in service.requests if "pages" in one)
        assert len(asked["pages"]) == 16 and asked["concatenatePages"] is False
        assert all("restructurePages" not in one for one in service.requests if "pages" not in one)
    text = (tmp_path / "out" / "book.md").read_text()
    assert [part.strip() for part in text.split("\n\n")] == [f"[{number - 4} of 16] page {number}" for number in range(5, 21)]


def test_pictures_of_two_pages_with_one_name_are_both_kept(tmp_path: Path) -> None:
    (tmp_path / "three.pdf").write_bytes(make_pdf(["1", "2", "3"]))
    key, longer = "imgs/a", "imgs/a/b.jpg"
    reply = [page(f"{key} {longer} {key}", {key: JPEG, longer: JPEG, "else/a": JPEG, "else/A": JPEG}) for _ in range(3)]
    out = written(tmp_path / "out", *reply, path=tmp_path / "three.pdf")
    assert len({name.casefold() for name in out if name.startswith("three_images/")}) == 12
    first = "three_images/p0001_a three_images/p0001_b.jpg three_images/p0001_a"
    assert out["three.md"].decode().splitlines()[0] == first


def test_a_hostile_picture_name_stays_in_the_folder(tmp_path: Path) -> None:
    keys = ("../../../evil.sh", "/etc/passwd", "a/..", "", "x" * 300 + ".png")
    out = tmp_path / "deep" / "out"
    written(out, page("x", dict.fromkeys(keys, JPEG)))
    everything = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file() and STATE not in path.parts]
    assert len(everything) == len(keys) + 3
    assert all(name.startswith(("deep/out/invoice", "deep/out/report.json")) for name in everything)


def test_a_new_result_replaces_the_old_one_and_its_pictures(tmp_path: Path) -> None:
    source, out = tmp_path / "a.png", tmp_path / "out"
    source.write_bytes(INVOICE.read_bytes())
    written(out, page("old", {"imgs/old.jpg": JPEG}), path=source)
    source.write_bytes((SAMPLES / "chinese.png").read_bytes())
    now = written(out, page("new"), path=source)
    assert now["a.md"] == b"new\n" and set(now) == {"a.md", "a.json", "report.json"}


def test_what_a_service_says_of_a_lost_page_does_not_leave_its_comment(tmp_path: Path) -> None:
    class Sly(Service):
        def answer(self, *given: Any) -> tuple[int, dict[str, Any]]:
            status, body = super().answer(*given)
            return status, body | {"errorMsg": "no ---> yes"} if status == 422 else body

    (tmp_path / "a.pdf").write_bytes(make_pdf(["one", "two poison-422"]))
    with serving(Sly()) as service:
        parse(tmp_path / "out", service.url, tmp_path / "a.pdf", formats=("md",))
    text = files(tmp_path / "out")["a.md"].decode()
    assert text.count("-->") == 1 and text.endswith(" yes -->\n")


def test_a_full_disk_leaves_what_was_there_and_the_next_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = tmp_path / "a.png", tmp_path / "out"
    source.write_bytes(INVOICE.read_bytes())
    before = written(out, page("old"), path=source)
    source.write_bytes((SAMPLES / "chinese.png").read_bytes())
    replace = Path.replace

    def full(self: Path, target: Path) -> Path:
        if STATE not in Path(target).parts:
            raise OSError(28, "No space left on device", str(target))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(Exception, match="No space left on device") as caught:
        written(out, page("new"), path=source)
    assert caught.value.code == ExitCode.ENVIRONMENT  # type: ignore[attr-defined]
    monkeypatch.undo()
    assert files(out) == before
    with serving(Service()) as nobody_is_asked:
        parse(out, nobody_is_asked.url, source)
        assert not nobody_is_asked.requests
    assert files(out)["a.md"] == b"new\n"


def test_a_file_that_changes_while_it_is_parsed_is_told(tmp_path: Path) -> None:
    source = tmp_path / "a.pdf"
    source.write_bytes(make_pdf(["old"]))

    def answer(request: dict[str, Any]) -> tuple[int, bytes]:
        source.write_bytes(make_pdf(["new and longer"]))
        return success(page("old"))(request)

    with stub_service(answer) as url:
        assert parse(tmp_path / "out", url, source).failed == 1
    (one,) = report(tmp_path / "out")["inputs"]
    assert one["kind"] == "changed" and set(files(tmp_path / "out")) == {"report.json"}
    with serving(Service()) as service:
        parse(tmp_path / "out", service.url, source)
    assert (tmp_path / "out" / "a.md").read_text() == "new and longer\n"


def test_urls_are_fetched_here_and_sent_as_bytes(tmp_path: Path) -> None:
    """The service that answers GET is the stub of this test; redirects, one fault that passes, one address that leads nowhere."""
    came: list[str] = []

    class Web(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            came.append(self.path)
            body = make_pdf(["from afar"])
            status = {"/gone.pdf": 404, "/moved.pdf": 302, "/paper%201.pdf": 503 if came.count(self.path) == 1 else 200}[
                self.path
            ]
            self.send_response(status)
            self.send_header("Location", "/paper%201.pdf")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    web = ThreadingHTTPServer(("127.0.0.1", 0), Web)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    try:
        base = f"http://127.0.0.1:{web.server_port}"
        out = tmp_path / "out"
        with serving(Service()) as service:
            for _ in range(2):
                totals = parse(out, service.url, f"{base}/moved.pdf", f"{base}/gone.pdf")
            assert len(service.requests) == 1 and service.served == {"from afar": 1}
    finally:
        web.shutdown()
        web.server_close()
    assert totals == Totals(1, 0, 1, read=1, lost=0)
    assert (out / "moved.md").read_text() == "from afar\n"
    assert report(out)["inputs"][1]["cause"] == "the URL answers HTTP 404"
    assert came.count("/paper%201.pdf") == 2 and came.count("/gone.pdf") == 2, (
        "what has failed is tried once more by the next run"
    )
    assert not list((out / STATE / "downloads").iterdir())


HOSTILE = """
<script>alert(1)</script><img src=x onerror=alert(1)> <a href="javascript:alert(1)">a</a> <a href="JaVa\tScript:alert(1)">b</a>
<table><tr><td onclick="x()" style="background:url(//evil)">cell</td></tr></table><iframe src="//evil"></iframe>
<svg><script>alert(1)</script></svg><img src="//evil/x.png"><img src="http://evil/x.png">
<img src="\\\\evil.test\\x.png"> <img src="/\\evil.test/x.png"> <img src="\t/\n/evil.test/x.png">
<img src="file://evil.test/x.png">
![e](</\\evil.test/x.png>) ![f](\\\\\\\\evil.test\\\\x.png) <img src="p.png?evil"> <img src="data:image/png;base64,evil">
<style>*{}</style></section><base href="//evil">
[c](javascript:alert(1)) ![d](https://evil/y.png) <form action="//evil"><input></form> <meta http-equiv=refresh content=0>
"""


def test_html_of_a_hostile_document_does_nothing() -> None:
    text = html.page(1, HOSTILE)
    found: list[tuple[str, dict[str, str | None]]] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            found.append((tag, dict(attributes)))

    Reader().feed(text)
    tags = {tag for tag, _ in found}
    assert tags <= {"section", "p", "img", "a", "table", "tr", "td"} and {"table", "td", "img"} <= tags
    for tag, attributes in found:
        assert set(attributes) <= {"id", "src", "href", "alt"}, (tag, attributes)
        assert "script" not in (attributes.get("href") or "").lower() and "evil" not in (attributes.get("src") or "")
    assert text.count("</section>") == 1 and "alert(1)</" not in text and "cell" in text


def test_html_keeps_what_the_service_writes() -> None:
    table = '<table border=1><tr><td rowspan="2">a &lt; b</td><td colspan="2">1</td></tr></table>'
    markdown = f'# Title\n\n<div style="text-align: center;"><img src="imgs/a.jpg" width="50%" /></div>\n\n{table}'
    text = html.page(1, markdown, ["imgs/a.jpg"])
    assert "<h1>Title</h1>" in text and '<img src="imgs/a.jpg" width="50%">' in text
    assert '<td rowspan="2">a &lt; b</td>' in text
    assert 'src="https://store/a.jpg"' in html.page(1, '<img src="https://store/a.jpg">', ["https://store/a.jpg"])


def test_formulas_in_html_are_what_the_service_wrote() -> None:
    formulas = (r"$ a_1 * b_2 = \{x\} $", r"$$\begin{aligned} x_{1} &= *y* \\ z_{1} \end{aligned}$$", r"$ a <b> c_\$ d_$")
    for formula in formulas:
        text = html.page(1, f"Before *it* {formula} after *it*.")
        assert f"Before <em>it</em> {escape(formula, quote=False)} after <em>it</em>." in text
    assert "$5 <em>and</em> $6" in html.page(1, "$5 *and* $6")


@pytest.mark.parametrize("tag", ["<title>", "<script>", "<TextArea>", "<embed src=x>", "<svg/>", "<style>\n\n"])
def test_a_tag_that_is_never_closed_silences_nothing(tag: str) -> None:
    text = html.page(1, f"<title>a</title>One {tag} two.\n\nThree &amp; four.")
    assert "One" in text and "two." in text and "Three &amp; four." in text and "<t" not in text.lower() and "<s" not in text[8:]


def test_an_html_file_loads_pictures_from_where_its_own_are_and_nowhere_else(tmp_path: Path) -> None:
    url = "https://store.example:8443/bucket/a.jpg?x=1"
    allowed = {"img-src 'self' file:;": page("x"), "img-src 'self' file: https://store.example:8443;": page("x", {"imgs/a": url})}
    for wanted, reply in allowed.items():
        out = written(tmp_path / str(len(wanted)), reply, formats=("html",))
        assert wanted in out["invoice.html"].decode()


def test_none_and_some_have_their_codes() -> None:
    codes = [Totals(whole, partly, failed, 0, 0).code for whole, partly, failed in ((2, 0, 0), (1, 0, 1), (0, 1, 1), (0, 0, 2))]
    assert codes == [ExitCode.OK, ExitCode.SOME_FAILED, ExitCode.SOME_FAILED, ExitCode.FAILED]


def test_a_run_that_was_torn_anywhere_ends_in_the_same_files(tmp_path: Path) -> None:
    """Its journal cut at any byte; a range in the store lost, another damaged."""
    book = tmp_path / "book.pdf"
    book.write_bytes(make_pdf([f"page {number}" for number in range(1, 33)]))
    wishes = {"formats": ("md", "json", "jsonl", "html")}
    with serving(Service(picture=b"jpeg")) as service:
        parse(tmp_path / "sound", service.url, book, **wishes)
    sound = files(tmp_path / "sound")

    class Stops(Service):
        def answer(self, *request: Any) -> tuple[int, dict[str, Any]]:
            return (401, {"errorCode": 401}) if len(self.requests) > 3 else super().answer(*request)

    torn = tmp_path / "torn"
    with serving(Stops(picture=b"jpeg")) as service, pytest.raises(KitError):
        parse(torn, service.url, book, concurrency=1, **wishes)
    journal = (torn / STATE / folder.JOURNAL).read_bytes()
    assert journal.count(b'"read"') == 3
    ranges = sorted((torn / STATE / "pages").glob("*/pages-*.jsonl"))
    last = len(journal) - 1
    cuts = [0, 7, *(last * part // 6 for part in range(1, 6)), last, last + 1]
    with serving(Service(picture=b"jpeg")) as service:
        for cut in cuts:
            out = tmp_path / f"cut-{cut}"
            shutil.copytree(torn, out)
            (out / STATE / folder.JOURNAL).write_bytes(journal[:cut])
            parse(out, service.url, book, **wishes)
            assert files(out) == sound, f"cut after byte {cut}"
        ranges[0].unlink()
        ranges[1].write_bytes(ranges[1].read_bytes()[:-9])
        service.served.clear()
        parse(torn, service.url, book, **wishes)
    assert files(torn) == sound
    assert sum(service.served.values()) == 24, "the two that are not whole, and the one that was never read"


def test_progress_in_figures() -> None:
    figures = Figures(documents=10, now=100.0)
    assert figures.line(100.0) == "0 of 10 documents, 0 of about 10 pages, 0.0 pages/s"
    figures.seen, figures.pages, figures.earlier, figures.now, figures.finished = 2, 60, 10, 20, 1
    assert figures.line(110.0) == "1 of 10 documents, 30 of about 300 pages, 2.0 pages/s, 2 min 15 s left"
    figures.seen, figures.pages, figures.lost = 10, 30_000, 3
    assert figures.line(110.0) == "1 of 10 documents, 30 of 30,000 pages, 2.0 pages/s, 3 failed, 4 h 09 min left"
