"""kit.client against a stub of the service: typed results, every kind of bad answer as its type."""

from __future__ import annotations

import asyncio
import base64
import errno
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.faulty_service import Service, serving
from gateway_stack import make_pdf, make_tiff
from kit import client
from kit.client import AsyncClient, Backoff, Client, Document, FailedPage, Page, PagesFailed, ParseError, transport
from kit.client.client import AHEAD
from kit.client.opened import Opened, Reader
from kit.errors import ExitCode, KitError
from stub_service import JPEG, Answer, page, refusal, stub_service, success
from support import ROOT, SAMPLES, free_port, wait_for

INVOICE = SAMPLES / "invoice.png"
TWELVE = SAMPLES / "twelve-pages.pdf"
ONCE = Backoff(never=True)


class Stub:
    """A service and its client, for all tests: each says what is answered. requests: what came."""

    def __init__(self) -> None:
        self.reply: Answer = success(page("text"))
        self.requests: list[dict[str, Any]] = []

    def answer(self, request: dict[str, Any]) -> tuple[int, bytes]:
        self.requests.append(request)
        return self.reply(request)


STUB = Stub()


@pytest.fixture(scope="module", autouse=True)
def kit() -> Iterator[Client]:
    with stub_service(STUB.answer) as url, Client(url, backoff=ONCE, options={"topP": 0.5}) as made:
        yield made


def with_box(box: list[Any]) -> dict[str, Any]:
    return page("x") | {"prunedResult": {"parsing_res_list": [{"block_label": "text", "block_content": "x", "block_bbox": box}]}}


def parsed(kit: Client, path: Path, *pages: dict[str, Any]) -> Document:
    STUB.reply = success(*pages)
    return kit.parse(path)


def failure(kit: Client, path: Path, answer: Answer) -> KitError:
    STUB.reply = answer
    with pytest.raises(PagesFailed) as caught:
        kit.parse(path)
    error = caught.value.document.failed[0].error
    assert caught.value.code == error.code and error.message in caught.value.message and error.hint == caught.value.hint
    return error


def test_a_page_with_its_blocks_and_pictures(kit: Client) -> None:
    box = [10, 20.5, 300, 400]
    block = {"block_label": "table", "block_content": "<table>x</table>", "block_bbox": box, "block_order": 2, "block_id": 0}
    reply = page("text ![](imgs/a.jpg)", {"imgs/a.jpg": JPEG}) | {"prunedResult": {"parsing_res_list": [block], "width": 9}}
    document = parsed(kit, INVOICE, reply)
    assert (document.name, document.page_count, document.markdown) == ("invoice.png", 1, "text ![](imgs/a.jpg)")
    (one,) = document.pages
    assert one.number == 1 and one.pruned["width"] == 9
    assert one.blocks == (client.Block("table", (10, 20.5, 300, 400), "<table>x</table>", 2),)
    assert one.pictures == (client.Picture("imgs/a.jpg", base64.b64decode(JPEG)),)


def test_a_picture_that_the_service_keeps_elsewhere(kit: Client) -> None:
    document = parsed(kit, INVOICE, page("x", {"imgs/a.jpg": "https://store.example/a.jpg"}))
    assert document.pages[0].pictures == (client.Picture("imgs/a.jpg", b"", "https://store.example/a.jpg"),)


def test_request_carries_the_file_its_type_and_the_options(kit: Client) -> None:
    STUB.requests.clear()
    STUB.reply = success(page("text"))
    kit.parse(INVOICE, options={"topP": 0.7, "useChartRecognition": True})
    kit.parse(INVOICE.read_bytes())
    for one in STUB.requests:
        assert base64.b64decode(one.pop("file")) == INVOICE.read_bytes()
    always = {"fileType": 1, "visualize": False}
    assert STUB.requests == [always | {"useChartRecognition": True, "topP": 0.7}, always | {"topP": 0.5}]


def test_only_the_pages_that_are_asked_for_are_sent() -> None:
    with serving(Service()) as service, Client(service.url) as kit:
        book = make_pdf([f"page {number}" for number in range(1, 31)])
        document = kit.parse(book, pages="28-,3-5,4")
        assert [one.number for one in document.pages] == [3, 4, 5, 28, 29, 30] and document.page_count == 30
        assert [one.markdown for one in document.pages] == [f"page {number}" for number in (3, 4, 5, 28, 29, 30)]
        assert [one.number for one in kit.parse(book, max_pages=2).pages] == [1, 2]
        assert sum(service.served.values()) == 8
        with pytest.raises(client.Unusable, match="none of those"):
            kit.parse(book, pages="31")
        with pytest.raises(KitError, match="no range of pages"):
            kit.parse(book, pages="7-3")


def test_a_tiff_of_several_pages() -> None:
    with serving(Service()) as service, Client(service.url) as kit:
        document = kit.parse(make_tiff([(1, 1, 1), (2, 2, 2)]))
    assert [one.markdown for one in document.pages] == ["picture (1, 1, 1)", "picture (2, 2, 2)"]
    assert [one["fileType"] for one in service.requests] == [1, 1], "each page as a picture, none of them twice"


def test_pages_come_in_order_and_a_lost_one_in_its_place() -> None:
    texts = [f"page {number}" for number in range(1, 41)]
    texts[20] = "poison-500"

    async def read(url: str) -> list[Page | FailedPage]:
        async with AsyncClient(url, backoff=Backoff(0.01, 0.02), concurrency=3) as kit:
            return [one async for one in kit.pages(make_pdf(texts))]

    with serving(Service()) as service:
        pages = asyncio.run(read(service.url))
        assert service.most_in_flight <= 3
    assert [one.number for one in pages] == list(range(1, 41))
    assert [one.markdown for one in pages if isinstance(one, Page)] == texts[:20] + texts[21:]
    (lost,) = (one for one in pages if isinstance(one, FailedPage))
    assert lost.number == 21 and isinstance(lost.error, client.ServerFault) and lost.error.status == 500


def test_whoever_stops_reading_early_leaves_nothing_running() -> None:
    with serving(Service()) as service, Client(service.url, concurrency=1) as kit:
        pages = kit.pages(make_pdf([f"page {number}" for number in range(400)]))
        assert next(pages).number == 1
        wait_for(lambda: len(service.requests) >= AHEAD, 30, "as many as it may hold")
        time.sleep(0.5)  # for all others, where nothing keeps it from them
        pages.close()  # type: ignore[attr-defined]
        assert kit.parse(make_pdf(["still works"])).markdown == "still works"
        assert len(service.requests) <= AHEAD + 4 + 1, "what `pages` may hold, and those on their way; of 50"


def test_ctrl_c_ends_what_was_begun_and_the_client_goes_on() -> None:
    with serving(Service()) as service, Client(service.url, concurrency=1) as kit:

        def interrupt() -> None:
            wait_for(lambda: len(service.requests) > 1, 30, "the request that hangs")
            time.sleep(0.5)  # until the other thread waits for its answer
            os.kill(os.getpid(), signal.SIGINT)

        waiting = threading.Thread(target=interrupt)
        with pytest.raises(KeyboardInterrupt):
            for one in kit.pages(make_pdf([*["text"] * 8, "poison-hang"])):
                assert isinstance(one, Page)
                if one.number == 8:
                    waiting.start()
        waiting.join()
        assert kit.parse(make_pdf(["still works"])).markdown == "still works"


def test_a_page_of_specks_is_blank_where_others_have_text() -> None:
    speck = with_blocks(block("text", ""))

    class Specks(Service):
        def _page(self, text: str) -> dict[str, Any]:
            return speck if text == "speck" else super()._page(text)

    with serving(Specks()) as service, Client(service.url, backoff=Backoff(0.001, 0.01)) as kit:
        document = kit.parse(make_pdf(["speck", "poison-422", "text"]), pages="1,3")
        assert [bool(one.markdown.strip("# \n")) for one in document.pages] == [False, True]
        with pytest.raises(PagesFailed) as caught:
            kit.parse(make_pdf(["speck", *["poison-422"] * 3, "text"]), pages="1-4")
        assert [one.number for one in caught.value.document.failed] == [1, 2, 3, 4]
        assert isinstance(caught.value.document.failed[0].error, client.Unread)


def test_large_pages_go_out_in_shorter_ranges() -> None:
    """PaddleX renders all pages of a request before it reads the first one."""
    requests = {}
    for size in ((500, 700), (14_400, 14_400)):
        with serving(Service()) as service, Client(service.url) as kit:
            assert kit.parse(make_pdf(["one", "two", "three"], size)).page_count == 3
            requests[size] = len(service.requests)
    assert list(requests.values()) == [1, 3]


def test_parts_of_two_processes_never_have_one_name(tmp_path: Path) -> None:
    """What a child of a killed run still writes is no part of the next one."""
    source = (
        "import asyncio; from pathlib import Path; from kit.client.opened import Reader\n"
        f"async def main():\n reader = Reader(Path({str(tmp_path)!r})); opened = await reader.open(Path({str(TWELVE)!r}))\n"
        " await opened.part((1, 8)); await reader.stop()\nasyncio.run(main())"
    )
    for _ in range(2):
        subprocess.run([sys.executable, "-c", source], env=os.environ | {"PYTHONPATH": str(ROOT / "scripts")}, check=True)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_cut_reply_is_an_error(kit: Client) -> None:
    error = failure(kit, TWELVE, success(*[page(f"page {n}") for n in range(3)]))
    assert isinstance(error, client.WrongPages) and error.code == ExitCode.INCOMPLETE
    assert "3 of 8 pages" in error.message and "max_num_input_imgs" in error.hint


def test_refusals_are_explained(kit: Client) -> None:
    error = failure(kit, INVOICE, refusal(500, "the input params for model settings are invalid!"))
    assert isinstance(error, client.ServerFault) and error.code == ExitCode.FAILED and error.log_id == "log-7"
    assert "HTTP 500" in error.message and "use_doc_preprocessor" in error.hint
    assert "./kit logs" in failure(kit, INVOICE, refusal(500, "Internal server error")).hint
    assert isinstance(failure(kit, INVOICE, refusal(422, "Invalid input file")), client.Refused)
    assert isinstance(failure(kit, INVOICE, refusal(413, "too large")), client.TooLarge)
    assert isinstance(failure(kit, INVOICE, refusal(429, "come back")), client.Busy)
    assert isinstance(failure(kit, INVOICE, refusal(503, "no replica")), client.Unavailable)


@pytest.mark.parametrize(("status", "kind"), [(401, client.KeyRefused), (403, client.KeyRefused), (404, client.NoService)])
def test_what_is_wrong_for_every_document_is_raised_as_it_is(kit: Client, status: int, kind: type[ParseError]) -> None:
    STUB.reply = refusal(status, "no")
    with pytest.raises(kind):
        kit.parse(INVOICE)


@pytest.mark.parametrize(
    "answer",
    [
        lambda request: (200, b"<html>a router's login page</html>"),
        lambda request: (200, b"[]"),
        lambda request: (200, b'{"errorCode":0,"result":{}}'),
        lambda request: (200, b'{"errorCode":0,"result":{"layoutParsingResults":3}}'),
        success({"markdown": {}}),
        success(page("x", {"imgs/a.jpg": "not base64!"})),
        success(page("x") | {"prunedResult": []}),
        *(success(page("x") | {"prunedResult": {"parsing_res_list": blocks}}) for blocks in (None, {}, ["x"], [{}])),
        success(page("x") | {"prunedResult": {"parsing_res_list": [{"block_label": "text", "block_content": 3}]}}),
        success(with_box([0, 0, 1])),
        success(with_box(["a", 0, 1, 1])),
        success(with_box([0, 0, 1, 1e400])),
        lambda request: (200, success(page("x"))(request)[1].replace(b'"dataInfo": {}', b'"dataInfo": {"width": 1e400}')),
    ],
)
def test_answers_that_are_not_of_the_contract(kit: Client, answer: Answer) -> None:
    error = failure(kit, INVOICE, answer)
    assert isinstance(error, client.BadReply) and error.code == ExitCode.FAILED and error.hint


def block(label: str, content: str) -> dict[str, Any]:
    return {"block_label": label, "block_content": content}


def with_blocks(*blocks: dict[str, Any]) -> dict[str, Any]:
    return page("## \n\n## ") | {"prunedResult": {"parsing_res_list": list(blocks)}}


def test_a_success_without_any_text_is_none(kit: Client) -> None:
    """What PaddleX makes of a VLM that answers with nothing."""
    error = failure(kit, INVOICE, success(with_blocks(block("doc_title", ""), block("image", ""), block("table", " \n"))))
    assert isinstance(error, client.Unread) and error.code == ExitCode.FAILED
    assert "no text in any block" in error.message and "./kit logs paddleocr-vlm-server" in error.hint


@pytest.mark.parametrize("blocks", [[], [block("image", ""), block("seal", "")], [block("text", ""), block("number", "7")]])
def test_a_page_without_text_or_with_little_of_it_is_no_failure(kit: Client, blocks: list[dict[str, Any]]) -> None:
    assert parsed(kit, INVOICE, with_blocks(*blocks)).pages[0].pruned["parsing_res_list"] == blocks


def test_nothing_listens() -> None:
    with Client(f"http://127.0.0.1:{free_port()}") as service, pytest.raises(client.Unreachable) as caught:
        service.parse(INVOICE)
    assert caught.value.code == ExitCode.UNREACHABLE and "./kit up" in caught.value.hint


def test_a_service_that_never_answers_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with Client(url, timeout=0.3, backoff=ONCE) as service, pytest.raises(PagesFailed) as caught:
            service.parse(INVOICE)
    assert isinstance(caught.value.document.failed[0].error, client.TimedOut) and "--timeout" in caught.value.hint


@pytest.mark.parametrize("path", ["", "/", "/layout-parsing"])
def test_a_proxy_is_not_asked_for_this_machine(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    with stub_service(success(page("text"))) as url, Client(url + path) as service:
        assert service.parse(INVOICE).markdown == "text"


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda path: None, "missing"),
        (lambda path: path.mkdir(), "missing"),
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: path.write_bytes(b"just text"), "unreadable"),
        (lambda path: path.write_bytes(TWELVE.read_bytes()[:300]), "corrupt"),
        (lambda path: path.write_bytes(INVOICE.read_bytes()[:5000]), "corrupt"),
        (lambda path: path.write_bytes((SAMPLES / "scan.jpg").read_bytes()[:-5000]), "corrupt"),
    ],
)
def test_files_that_cannot_be_read_are_not_sent(kit: Client, tmp_path: Path, make: Callable[[Path], object], kind: str) -> None:
    make(tmp_path / "x.pdf")
    STUB.requests.clear()
    with pytest.raises(client.Unusable) as caught:
        kit.parse(tmp_path / "x.pdf")
    assert not STUB.requests
    assert caught.value.kind == kind and caught.value.code == ExitCode.INPUT and "x.pdf" in caught.value.message


def test_a_file_that_vanishes_costs_itself_and_a_full_disk_ends_it(
    kit: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "x.png"
    source.write_bytes(INVOICE.read_bytes())
    look = Reader.open

    async def vanish(self: Reader, path: Path, name: str = "") -> Opened:
        opened = await look(self, path, name)
        path.unlink()
        return opened

    with monkeypatch.context() as patch:
        patch.setattr(Reader, "open", vanish)
        error = failure(kit, source, success(page("text")))
        assert isinstance(error, client.Unusable) and error.kind == "missing" and "No such file" in error.message

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(transport.tempfile, "SpooledTemporaryFile", full)
    with pytest.raises(OSError, match="No space left"):
        kit.parse(INVOICE)


def test_a_wrong_address_is_told_at_once() -> None:
    with pytest.raises(KitError, match="is not the address of a service"):
        Client("localhost:8080")


EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "client.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_the_examples_of_the_docs(example: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(EXAMPLES) == 3 and "http://127.0.0.1:8080" in example
    monkeypatch.chdir(ROOT)
    with serving(Service()) as service:
        exec(compile(example.replace("http://127.0.0.1:8080", service.url), "docs/client.md", "exec"), {})
        assert service.served
    assert capsys.readouterr().out


def test_a_reply_that_is_too_deep(kit: Client) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    error = failure(kit, INVOICE, lambda request: (200, deep.encode()))
    assert isinstance(error, client.BadReply)
