"""What the gateway keeps out: callers without a key, URLs into the inside, plain text; and what it never tells."""

from __future__ import annotations

import http.server
import os
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from gateway_stack import Bench, Process, bench, cause, encoded, make_pdf, make_picture, post, texts
from support import free_port, wait_for

KEY, OTHER = "k3y-of-the-first-client", "k3y-of-the-second-client"
PICTURE = make_picture()
GOOD: dict[str, Any] = {"file": encoded(PICTURE), "fileType": 1}


@pytest.fixture
def stand(api_python: Path, tmp_path: Path) -> Iterator[Bench]:
    with bench(api_python, tmp_path) as made:
        made.fake()
        yield made


def ask(door: Process, headers: dict[str, str], path: str = "/layout-parsing") -> httpx.Response:
    if path == "/layout-parsing":
        return httpx.post(door.url + path, json=GOOD, headers=headers, trust_env=False, timeout=30)
    return httpx.get(door.url + path, headers=headers, trust_env=False, timeout=30)


def test_only_who_has_a_key_is_let_in(stand: Bench) -> None:
    file = stand.folder / "keys"
    file.write_text(f"# clients\nfirst:{KEY}\n")
    keys = {"GATEWAY_API_KEYS": "third-key-0123456789"}
    door = stand.gateway(api_keys_file=str(file), environment=keys, wait=False)
    wait_for(lambda: door.answers("/ready"), 60, f"the gateway; its log is {door.log}")
    for headers in ({"Authorization": f"Bearer {KEY}"}, {"X-API-Key": KEY}, {"authorization": "bearer third-key-0123456789"}):
        assert texts(ask(door, headers)) == ["picture (1, 2, 3)"]
    for headers in (
        {},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": f"Bearer {OTHER}"},
        {"X-API-Key": KEY[:-1]},
        {"X-API-Key": ""},
    ):
        reply = ask(door, headers)
        assert cause(reply) == (401, "no-key") and reply.headers["WWW-Authenticate"] == "Bearer"
    for path in ("/metrics", "/openapi.json"):
        assert (ask(door, {}, path).status_code, ask(door, {"X-API-Key": KEY}, path).status_code) == (401, 200)
    for path in ("/health", "/ready"):
        assert ask(door, {}, path).status_code == 200
    assert "replicas" not in ask(door, {}, "/ready").json() and "replicas" in ask(door, {"X-API-Key": KEY}, "/ready").json()

    file.write_text(f"second:{OTHER}\n")
    end = time.monotonic() + 10
    while ask(door, {"X-API-Key": OTHER}).status_code != 200:
        assert time.monotonic() < end, "the new key does not count"
    assert ask(door, {"X-API-Key": KEY}).status_code == 401
    assert door.process is not None
    command = Path(f"/proc/{door.process.pid}/cmdline").read_text()
    assert all(secret not in door.log.read_text() + command for secret in (KEY, OTHER, "third-key"))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--api-keys-file", "{folder}/none"], "no such file"),
        (["--api-keys-file", "{folder}/empty"], "has no key"),
        (["--api-keys-file", "{folder}/short"], "at least 16"),
        (["--tls-certificate", "{folder}/empty"], "both"),
        (["--tls-certificate", "{folder}/empty", "--tls-key", "{folder}/empty"], "certificate"),
        (["--port", "70000"], "whole number"),
        (["--replica", "ftp://x"], "http://"),
        (["--url-networks", "10.0.0.0/99"], "10.0.0.0/99"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(api_python: Path, tmp_path: Path, flags: list[str], said: str) -> None:
    (tmp_path / "empty").write_text("")
    (tmp_path / "short").write_text("name:s3cret\n")
    argv = [
        str(api_python),
        "-m",
        "kit.gateway",
        "--replica",
        "http://127.0.0.1:1",
        *(flag.format(folder=tmp_path) for flag in flags),
    ]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        argv, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(root / "scripts")}, timeout=60
    )
    assert done.returncode == 2 and said in done.stderr and "s3cret" not in done.stderr
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["error", "hint"]


def test_tls(stand: Bench) -> None:
    key, certificate = stand.folder / "key.pem", stand.folder / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    door = stand.gateway(tls_key=str(key), tls_certificate=str(certificate), wait=False)
    context = ssl.create_default_context(cafile=str(certificate))
    end = time.monotonic() + 30
    with httpx.Client(verify=context, trust_env=False, timeout=30) as client:
        while True:
            try:
                if client.get(f"{door.url}/ready").status_code == 200:
                    break
            except httpx.ConnectError:
                pass
            assert time.monotonic() < end, door.log.read_text()
            time.sleep(0.1)
        assert texts(client.post(f"{door.url}/layout-parsing", json=GOOD)) == ["picture (1, 2, 3)"]
    with pytest.raises(httpx.HTTPError):
        httpx.post(door.url.replace("https", "http") + "/layout-parsing", json=GOOD, trust_env=False)


class _Web(http.server.BaseHTTPRequestHandler):
    asked: list[str]

    def do_GET(self) -> None:
        type(self).asked.append(self.path)
        if self.path == "/slow":
            time.sleep(5)
        status, headers, body = {
            "/page.png": (200, {}, PICTURE),
            "/three.pdf": (200, {}, make_pdf(["a", "b", "c"])),
            "/again": (302, {"Location": "/page.png"}, b""),
            "/inside": (302, {"Location": f"http://127.0.0.2:{self.server.server_port}/page.png"}, b""),  # type: ignore[attr-defined]
            "/file": (302, {"Location": "file:///etc/passwd"}, b""),
            "/loop": (302, {"Location": "/loop"}, b""),
            "/gzip": (200, {"Content-Encoding": "gzip"}, b"\x1f\x8b"),
            "/html": (200, {}, b"<html>"),
            "/large": (200, {}, b"x" * (3 * 2**20)),
            "/slow": (200, {}, PICTURE),
        }.get(self.path, (404, {}, b"no"))
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def web() -> Iterator[tuple[int, list[str]]]:
    """A web server on all addresses of this machine; its port and the paths that it was asked for."""
    handler = type("Handler", (_Web,), {"asked": []})
    server = http.server.ThreadingHTTPServer(("", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port, handler.asked
    finally:
        server.shutdown()
        server.server_close()


def by_url(door: Process, url: str, **fields: Any) -> httpx.Response:
    return httpx.post(f"{door.url}/layout-parsing", json={"file": url, **fields}, trust_env=False, timeout=30)


def test_urls_are_fetched_from_where_that_is_allowed_and_from_nowhere_else(stand: Bench) -> None:
    with web() as (port, asked):
        door = stand.gateway(url_hosts="*", url_networks="127.0.0.1/32", url_seconds="1", max_body_mib="2")
        here = f"http://127.0.0.1:{port}"
        assert texts(by_url(door, f"{here}/page.png")) == ["picture (1, 2, 3)"]
        assert [text.strip() for text in texts(by_url(door, f"{here}/three.pdf", fileType=0))] == ["a", "b", "c"]
        assert texts(by_url(door, f"{here}/again")) == ["picture (1, 2, 3)"]
        (replica,) = stand.replicas
        assert all("file" not in fields for fields in replica.seen())
        for path, expected in {
            "/inside": (422, "url-refused"), "/file": (422, "url-refused"), "/loop": (422, "url-failed"),
            "/gzip": (422, "url-failed"), "/none": (422, "url-failed"), "/html": (422, "unreadable"),
            "/large": (413, "too-large"), "/slow": (422, "url-failed"),
        }.items():  # fmt: skip
            assert cause(by_url(door, here + path)) == expected, path
        before = len(asked)
        for host in ("127.0.0.2", "2130706434", "0x7f000002", "0177.0.0.2", "127.2", "[::1]", "[::ffff:127.0.0.2]", "0.0.0.0",
                     "169.254.169.254", "10.0.0.1", "user@127.0.0.1", "127.0.0.1\\@example.com", "localhost."):  # fmt: skip
            reply = by_url(door, f"http://{host}:{port}/page.png")
            assert cause(reply) == (422, "url-refused"), (host, reply.text)
        assert len(asked) == before
        assert cause(by_url(door, f"http://127.0.0.1:{free_port()}/x")) == (422, "url-failed")
        assert texts(post(door.url, PICTURE)) == ["picture (1, 2, 3)"]
