"""The viewer for a service that does not serve it itself: a small server on this machine alone.

It has the very files of the gateway (kit.gateway.pages) and passes the two POST paths on, so that for the browser all
is one origin. Who may ask: a page that this server has served. A page from elsewhere is kept out by its Host (a name
that was bent to 127.0.0.1), its Origin, and the Content-Type, with which no form and no simple request can come.
"""

from __future__ import annotations

import json
import re
import socket
import sys
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import httpx

from kit import api
from kit.errors import ExitCode, KitError
from kit.gateway import openapi, pages

HOST = "127.0.0.1"
PATHS = ("/layout-parsing", "/restructure-pages")
NAMES = ("127.0.0.1", "localhost")  # with any port: it may be another one at the near end of an SSH tunnel
LONGEST = 3600.0  # seconds for a reply, as the gateway's own limit
_TO_SERVICE = ("Content-Type", "Authorization", "X-API-Key")
_TO_BROWSER = ("Content-Type", "Retry-After", "X-Gateway-Cause")
_PIECE = 2**16  # bytes


def refusal(headers: Mapping[str, str], method: str) -> tuple[int, str] | None:
    """Why a request is not for us: status and sentence, or None. headers: names in any case."""
    host = headers.get("Host", "")
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return 400, "the Host is no name of a host"
    if name not in NAMES:
        return 421, "this server is asked as http://127.0.0.1 or http://localhost alone"
    if headers.get("Origin", f"http://{host}") != f"http://{host}":
        return 403, "a page of another origin may not ask here"
    if method == "POST":
        if headers.get("Content-Type", "").split(";")[0].strip().lower() != "application/json":
            return 415, "the body must be JSON: Content-Type: application/json"
        length = headers.get("Content-Length")
        if length is None:
            return 411, "Content-Length is needed"
        if not re.fullmatch(r"[0-9]{1,18}", length):  # what int() takes on any Python, no digits of other scripts
            return 400, "Content-Length is no number of bytes"
    return None


class Viewer(ThreadingHTTPServer):
    """The server; `with` closes it. Raises KitError (PORT) where it cannot listen."""

    daemon_threads = True

    def __init__(self, service: str, port: int = 0) -> None:
        """service: address without a path. port: 0 takes a free one."""
        self.service = service
        self.http = api.client(service, LONGEST)
        # Whoever reaches this port is not the operator, whose key that client sends: the page asks for one of its own.
        self.http.headers.pop("Authorization", None)
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            hint = "--port takes another one; without it a free one is taken"
            raise KitError(f"cannot listen on {HOST}:{port}: {error.strerror}", hint, ExitCode.PORT) from None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_port}/"

    def server_close(self) -> None:
        super().server_close()
        self.http.close()

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that leaves is no news; anything else is."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, socket.timeout)):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: Viewer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes
    timeout = 60  # seconds without a byte from the browser

    def do_GET(self) -> None:
        if (reason := refusal(self.headers, "GET")) is not None:
            self._refuse(*reason)
        elif self.path == "/openapi.json":
            # The kit's own table, also in front of a service that describes itself differently, or not at all.
            self._answer(200, "application/json", openapi.document(), {})
        elif (asset := pages.find(self.path.partition("?")[0])) is None:
            self._refuse(404, "no such path")
        else:
            status, body = asset.answer(self.headers.get("If-None-Match", ""))
            self._answer(status, asset.kind, body, asset.headers)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        reason = refusal(self.headers, "POST")
        if reason is None and self.path not in PATHS:
            reason = 404, "no such path"
        if reason is not None:
            self.close_connection = True  # its body is not read
            self._refuse(*reason)
            return
        # The bytes that came: http.server reads them as Latin-1, httpx would take ASCII alone.
        kept = {name.encode(): self.headers[name].encode("latin-1") for name in _TO_SERVICE if name in self.headers}
        length = int(self.headers["Content-Length"])
        left, begun = [length], False
        try:
            request = self.server.http.stream(
                "POST",
                self.server.service + self.path,
                content=self._body(left),
                headers={**kept, b"Content-Length": str(length).encode()},
            )
            with request as reply:
                begun = True
                self._pass_on(reply)
        except httpx.HTTPError as error:
            self.close_connection = True
            if begun:  # what came of the reply is with the browser, which sees that it is cut
                return
            self._refuse(502, f"no service answers at {self.server.service} ({type(error).__name__})")

    def _body(self, left: list[int]) -> Iterator[bytes]:
        while left[0] > 0:
            piece = self.rfile.read(min(_PIECE, left[0]))
            if not piece:
                raise ConnectionAbortedError("the browser has left")
            left[0] -= len(piece)
            yield piece

    def _pass_on(self, reply: httpx.Response) -> None:
        self.send_response(reply.status_code)
        for name in _TO_BROWSER:
            if name in reply.headers:
                self.send_header(name, reply.headers[name])
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Connection", "close")  # the reply ends with the connection: its length may be unknown
        self.close_connection = True
        self.end_headers()
        for piece in reply.iter_bytes():
            self.wfile.write(piece)

    def _refuse(self, status: int, sentence: str) -> None:
        body = json.dumps({"logId": "", "errorCode": status, "errorMsg": sentence}).encode()
        self._answer(status, "application/json", body, {})

    def _answer(self, status: int, kind: str, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        fields = {"content-type": kind, "content-length": str(len(body)), "x-content-type-options": "nosniff", **headers}
        if self.close_connection:
            fields["connection"] = "close"
        for name, value in fields.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: the service has its own log."""
