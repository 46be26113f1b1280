"""A fake of the service for tests of the client: its contract, and every way of failing that a test asks for; no model.

The Markdown of a page of a PDF is that page's text layer, that of a picture its first pixel: a wrong, missing or doubled
page shows. What happens to a request hangs on its content and on how often it has come, not on chance: a test that
passes once passes each time. Runs in the test's own process; several requests at a time.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pypdfium2
from PIL import Image

RESET, FAULT, BUSY, HANG, CUT = FAULTS = ("reset", "500", "429", "hang", "cut")
POISON = "poison"  # a page with this word fails each time, as the word behind it says: poison-500, poison-hang, poison-422
Read = tuple[list[str], dict[str, Any]]  # the text of each page, and dataInfo
_PDFIUM = threading.Lock()  # is not made for threads


class Service:
    """faults: of FAULTS, a tenth of all requests each. picture: bytes of one on every page, before its text. seconds: for a page.

    docx: whether it can make one.
    """

    def __init__(
        self, faults: Sequence[str] = (), seed: str = "", picture: bytes = b"", seconds: float = 0.0, docx: bool = True
    ) -> None:
        self.faults, self.seed, self.picture, self.seconds = tuple(faults), seed, picture, seconds
        self.docx = docx
        self.url = ""
        self.served: Counter[str] = Counter()  # text of a page → how often it went out in a success
        self.happened: Counter[str] = Counter()
        self.requests: list[dict[str, Any]] = []  # without the file
        self.headers: list[dict[str, str]] = []
        self.ended = threading.Event()
        self._came: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.in_flight = self.most_in_flight = 0

    def fault(self, content: str) -> str:
        """What happens to a request with this content; "" for nothing."""
        with self._lock:
            self._came[content] += 1
            chance = int(hashlib.sha256(f"{self.seed} {content} {self._came[content]}".encode()).hexdigest(), 16) % 10
            kind = self.faults[chance] if chance < len(self.faults) else ""
            self.happened[kind] += 1
        return kind

    def answer(self, path: str, fields: dict[str, Any], read: Read | None) -> tuple[int, dict[str, Any]]:
        if path == "/restructure-pages":
            return self._restructured(fields)
        if path != "/layout-parsing":
            return 404, {"detail": "Not Found"}
        if read is None:  # as PaddleX: one answer for all that it cannot read
            return _refused(422, "Invalid input file")
        texts, info = read
        time.sleep(self.seconds * len(texts))
        for word in (word for text in texts for word in text.split() if word.startswith(POISON)):
            if word.endswith("hang"):
                self.ended.wait()
            return _refused(422, "Invalid input file") if word.endswith("422") else _refused(500, "Internal server error")
        with self._lock:
            self.served.update(texts)
        return 200, _success([self._page(text) for text in texts], info)

    def _page(self, text: str) -> dict[str, Any]:
        block = {"block_label": "text", "block_content": text, "block_bbox": [1, 2, 30, 40], "block_id": 0, "block_order": 1}
        settings = {"use_doc_preprocessor": False, "use_layout_detection": True}
        pruned = {"page_count": None, "width": 10, "height": 10, "model_settings": settings, "parsing_res_list": [block]}
        if not self.picture:
            return {"prunedResult": pruned, "markdown": {"text": text, "images": {}}, "outputImages": None}
        key = "imgs/img_in_image_box_1_2_3_4.jpg"
        images = {key: base64.b64encode(self.picture + text.encode()).decode()}
        return {"prunedResult": pruned, "markdown": {"text": f'{text} <img src="{key}">', "images": images}}

    def _restructured(self, fields: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        given = fields["pages"]
        contents = [page["prunedResult"]["parsing_res_list"][0]["block_content"] for page in given]
        if fields.get("concatenatePages") and not self.docx:
            return _refused(500, "Internal server error")
        if fields.get("concatenatePages"):
            docx = (
                f"DOCX of {len(given)}: {contents[0]} … {contents[-1]}, {sum(len(p['markdownImages']) for p in given)} pictures"
            )
            exports = {"docx": {"content": base64.b64encode(docx.encode()).decode(), "fileName": "x.docx"}}
            page = {"prunedResult": given[0]["prunedResult"], "markdown": {"text": "", "images": None}, "exports": exports}
            return 200, _success([page])
        texts = [f"[{number} of {len(given)}] {content}" for number, content in enumerate(contents, 1)]
        pages = [
            {"prunedResult": page["prunedResult"], "markdown": {"text": text, "images": None}}
            for page, text in zip(given, texts, strict=True)
        ]
        return 200, _success(pages)


def _success(pages: list[dict[str, Any]], info: dict[str, Any] | None = None) -> dict[str, Any]:
    result = {"layoutParsingResults": pages} | ({"dataInfo": info} if info else {})
    return {"logId": "1", "errorCode": 0, "errorMsg": "Success", "result": result}


def _refused(status: int, message: str) -> tuple[int, dict[str, Any]]:
    return status, {"logId": "log-7", "errorCode": status, "errorMsg": message}


def _read(fields: dict[str, Any]) -> Read | None:
    """None for what cannot be read."""
    try:
        return _read_file(base64.b64decode(fields["file"], validate=True), fields["fileType"])
    except Exception:
        return None


def _read_file(data: bytes, file_type: int) -> Read:
    if file_type == 0:
        with _PDFIUM:
            pdf = pypdfium2.PdfDocument(data)
            texts = [page.get_textpage().get_text_range() for page in pdf]
            sizes = [dict(zip(("width", "height"), map(round, page.get_size()), strict=True)) for page in pdf]
            pdf.close()
        return texts, {"numPages": len(texts), "pages": sizes, "type": "pdf"}
    with Image.open(io.BytesIO(data)) as image:
        colour = image.convert("RGB").getpixel((0, 0))
        return [f"picture {colour}"], {"width": image.width, "height": image.height, "type": "image"}


def _handler(service: Service) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with service._lock:
                service.in_flight += 1
                service.most_in_flight = max(service.most_in_flight, service.in_flight)
            try:
                self._post(body)
            finally:
                with service._lock:
                    service.in_flight -= 1

        def _post(self, body: bytes) -> None:
            fields = json.loads(body)
            service.requests.append({name: value for name, value in fields.items() if name != "file"})
            service.headers.append(dict(self.headers))
            read = _read(fields)
            # Not of the bytes: PDFium writes the same pages with another id each time.
            fault = service.fault(f"{self.path} {read[0] if read else len(body)}")
            if fault == HANG:
                service.ended.wait()
            if fault in (RESET, HANG):
                self.close_connection = True
                return
            if fault == BUSY:
                asked = ("0", "1", "soon", format_datetime(datetime.now(timezone.utc)))[len(body) % 4]
                return self._send(*_refused(429, "too many requests"), {"Retry-After": asked})
            status, answer = _refused(500, "Internal server error") if fault == FAULT else service.answer(self.path, fields, read)
            self._send(status, answer, cut=fault == CUT)

        def _send(self, status: int, answer: dict[str, Any], headers: dict[str, str] | None = None, cut: bool = False) -> None:
            data = json.dumps(answer).encode()
            data = data[: len(data) // 2] if cut else data
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def leave(self) -> None:
        """End as a process does: with all its connections."""
        self.shutdown()
        self.server_close()
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, *_: object) -> None:
        """A client that was killed is what the test wants."""


@contextmanager
def serving(service: Service) -> Iterator[Service]:
    """`service`, answering at its `url`."""
    server = _Server(("127.0.0.1", 0), _handler(service))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    service.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield service
    finally:
        service.ended.set()
        server.leave()
