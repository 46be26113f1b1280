"""The client against a stub of the service: page counts, written files, every kind of bad answer."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from kit import client, documents
from kit.errors import ExitCode, KitError
from support import SAMPLES, free_port

JPEG = base64.b64encode(b"\xff\xd8picture").decode()
Answer = Callable[[dict[str, Any]], tuple[int, bytes]]


@contextmanager
def stub_service(answer: Answer) -> Iterator[str]:
    """An HTTP server that gives `answer(request body)` to every POST; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            status, body = answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def page(text: str, images: dict[str, str] | None = None) -> dict[str, Any]:
    return {"prunedResult": {"parsing_res_list": []}, "markdown": {"text": text, "images": images or {}}}


def success(*pages: dict[str, Any]) -> Answer:
    body = {"logId": "1", "errorCode": 0, "errorMsg": "Success", "result": {"layoutParsingResults": list(pages), "dataInfo": {}}}
    return lambda request: (200, json.dumps(body).encode())


def refusal(status: int, message: str) -> Answer:
    body = {"logId": "log-7", "errorCode": status, "errorMsg": message}
    return lambda request: (status, json.dumps(body).encode())


INVOICE = SAMPLES / "invoice.png"
TWELVE = SAMPLES / "twelve-pages.pdf"


def failure(path: Path, answer: Answer) -> KitError:
    with stub_service(answer) as url, pytest.raises(KitError) as caught:
        client.parse(documents.read(path), url)
    return caught.value


def test_a_cut_reply_is_an_error() -> None:
    error = failure(TWELVE, success(*[page(f"page {n}") for n in range(10)]))
    assert error.code == ExitCode.INCOMPLETE
    assert "10 of 12 pages" in error.message and "max_num_input_imgs" in error.hint


def test_request_carries_the_file_and_its_type() -> None:
    seen: list[dict[str, Any]] = []

    def answer(request: dict[str, Any]) -> tuple[int, bytes]:
        seen.append(request)
        return success(page("text"))(request)

    with stub_service(answer) as url:
        client.parse(documents.read(INVOICE), url, options={"useChartRecognition": True})
    assert base64.b64decode(seen[0].pop("file")) == INVOICE.read_bytes()
    assert seen[0] == {"fileType": 1, "useChartRecognition": True}


def test_refusals_are_explained() -> None:
    error = failure(INVOICE, refusal(500, "the input params for model settings are invalid!"))
    assert error.code == ExitCode.FAILED
    assert "HTTP 500" in error.message and "use_doc_preprocessor" in error.hint
    assert "./kit logs" in failure(INVOICE, refusal(500, "Internal server error")).hint


@pytest.mark.parametrize(
    "answer",
    [
        lambda request: (200, b"<html>a router's login page</html>"),
        lambda request: (200, b"[]"),
        lambda request: (404, b'{"detail":"Not Found"}'),
        lambda request: (200, b'{"errorCode":0,"result":{}}'),
        success({"markdown": {}}),
        success(page("x", {"imgs/a.jpg": "not base64!"})),
    ],
)
def test_answers_that_are_not_of_the_contract(answer: Answer) -> None:
    error = failure(INVOICE, answer)
    assert error.code == ExitCode.FAILED and error.hint


def block(label: str, content: str) -> dict[str, Any]:
    return {"block_label": label, "block_content": content}


def with_blocks(*blocks: dict[str, Any]) -> dict[str, Any]:
    return page("## \n\n## ") | {"prunedResult": {"parsing_res_list": list(blocks)}}


def test_a_success_without_any_text_is_none() -> None:
    """What PaddleX makes of a VLM that answers with nothing."""
    error = failure(INVOICE, success(with_blocks(block("doc_title", ""), block("image", ""), block("table", " \n"))))
    assert error.code == ExitCode.FAILED
    assert "no text in any block" in error.message and "./kit logs paddleocr-vlm-server" in error.hint


@pytest.mark.parametrize("blocks", [[], [block("image", ""), block("seal", "")], [block("text", ""), block("number", "7")]])
def test_a_page_without_text_or_with_little_of_it_is_no_failure(blocks: list[dict[str, Any]]) -> None:
    with stub_service(success(with_blocks(*blocks))) as url:
        assert client.parse(documents.read(INVOICE), url).pages[0].pruned["parsing_res_list"] == blocks


def test_nothing_listens() -> None:
    with pytest.raises(KitError) as caught:
        client.parse(documents.read(INVOICE), f"http://127.0.0.1:{free_port()}")
    assert caught.value.code == ExitCode.UNREACHABLE and "./kit up" in caught.value.hint


def test_a_service_that_never_answers_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(KitError) as caught:
            client.parse(documents.read(INVOICE), url, timeout=0.5)
    assert "no answer within" in caught.value.message and "--timeout" in caught.value.hint


def test_a_proxy_is_not_asked_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    with stub_service(success(page("text"))) as url:
        assert client.parse(documents.read(INVOICE), url).markdown == "text"


def parsed(path: Path, *pages: dict[str, Any]) -> client.Parsed:
    with stub_service(success(*pages)) as url:
        return client.parse(documents.read(path), url)


def test_pictures_of_two_pages_with_one_name_are_both_kept(tmp_path: Path) -> None:
    key = "imgs/box_1_2_3_4.jpg"
    reply = [page(f'page {n} <img src="{key}">', {key: base64.b64encode(f"picture {n}".encode()).decode()}) for n in range(12)]
    written = client.write(parsed(TWELVE, *reply), tmp_path)
    assert written == tmp_path / "twelve-pages.md"
    text = written.read_text()
    for number in range(12):
        file = f"twelve-pages_images/p{number + 1:04d}_box_1_2_3_4.jpg"
        assert text.count(file) == 1
        assert (tmp_path / file).read_bytes() == f"picture {number}".encode()
    report = json.loads((tmp_path / "twelve-pages.json").read_text())
    assert len(report["layoutParsingResults"]) == 12 and report["source"] == "twelve-pages.pdf"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["twelve-pages.json", "twelve-pages.md", "twelve-pages_images"]


def test_a_hostile_picture_name_stays_in_the_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    client.write(parsed(INVOICE, page("x", {"../../../evil.sh": JPEG, "/etc/passwd": JPEG, "a/..": JPEG})), out)
    files = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert [name for name in files if not name.startswith("out/invoice")] == []


def test_a_second_run_replaces_the_first(tmp_path: Path) -> None:
    client.write(parsed(INVOICE, page("old", {"imgs/old.jpg": JPEG})), tmp_path)
    client.write(parsed(INVOICE, page("new")), tmp_path)
    assert (tmp_path / "invoice.md").read_text() == "new\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["invoice.json", "invoice.md"]


def test_a_disk_error_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client.write(parsed(INVOICE, page("old")), tmp_path)
    result = parsed(INVOICE, page("new", {"imgs/a.jpg": JPEG}))

    def full(self: Path, *_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(KitError) as caught:
        client.write(result, tmp_path)
    monkeypatch.undo()
    assert caught.value.code == ExitCode.ENVIRONMENT and "No space left" in caught.value.message
    assert (tmp_path / "invoice.md").read_text() == "old\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["invoice.json", "invoice.md"]
