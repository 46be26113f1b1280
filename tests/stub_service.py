"""A stub of the service for tests: an HTTP server whose answers the test gives."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

JPEG = base64.b64encode(b"\xff\xd8picture").decode()
Answer = Callable[[dict[str, Any]], tuple[int, bytes]]


@contextmanager
def stub_service(answer: Answer, seen: Callable[[Message], object] = id) -> Iterator[str]:
    """An HTTP server that gives `answer(request body)` to every POST; its address. seen: gets the headers of each."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen(self.headers)
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
