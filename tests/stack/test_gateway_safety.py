"""What the gateway keeps out: callers without a key, URLs into the inside, plain text; and what it never tells."""

from __future__ import annotations

import contextlib
import http.server
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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


def test_who_is_not_let_in_is_told_so_at_once_and_little_of_what_he_sends_is_taken(stand: Bench) -> None:
    environment = {"GATEWAY_API_KEYS": KEY}
    door = stand.gateway(environment=environment, wait=False)
    wait_for(lambda: door.answers("/ready"), 60, f"the gateway; its log is {door.log}")
    head = b"POST /layout-parsing HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 90000000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", int(door.url.rpartition(":")[2])), timeout=10) as client:
        client.sendall(head)
        begun = time.monotonic()
        assert client.recv(65536).startswith(b"HTTP/1.1 401 ")
        assert time.monotonic() - begun < 1.5
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 80_000_000:
                client.sendall(b" " * 2**16)
                sent += 2**16
        assert sent < 40_000_000, "what fits in the sockets' buffers, and 1 MiB"
    # The usual client sends all before it reads anything.
    large = httpx.post(f"{door.url}/layout-parsing", content=b" " * 900_000, trust_env=False, timeout=30)
    assert cause(large) == (401, "no-key")


@pytest.mark.parametrize("flags", [{"max_requests": "10"}, {"queue_pages": "4"}])
def test_a_client_that_takes_all_there_is_leaves_a_place_for_another(stand: Bench, flags: dict[str, str]) -> None:
    (replica,) = stand.replicas
    environment = {"GATEWAY_API_KEYS": f"first:{KEY},second:{OTHER}"}
    door = stand.gateway(environment=environment, wait=False, **flags)
    wait_for(lambda: door.answers("/ready"), 60, f"the gateway; its log is {door.log}")
    replica.set(seconds=0.4)
    with ThreadPoolExecutor(20) as pool:
        first = [pool.submit(ask, door, {"X-API-Key": KEY}) for _ in range(14)]
        wait_for(lambda: any(one.done() and one.result().status_code == 429 for one in first), 10, "it to be told to wait")
        assert ask(door, {"X-API-Key": OTHER}).status_code == 200
        assert not all(one.done() for one in first)
        refused = [one.result() for one in first if one.result().status_code != 200]
    assert 4 <= 14 - len(refused) <= 10 and {cause(one) for one in refused} == {(429, "queue-full")}
    assert all("of this client" in one.json()["errorMsg"] and one.headers["Retry-After"] for one in refused)


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
    reached: list[str]  # the address of this machine, each time

    def do_GET(self) -> None:
        type(self).asked.append(self.path)
        type(self).reached.append(self.connection.getsockname()[0])
        if self.path == "/slow":
            time.sleep(5)
        status, headers, body = {
            "/page.png": (200, {}, PICTURE),
            "/three.pdf": (200, {}, make_pdf(["a", "b", "c"])),
            "/again": (302, {"Location": "/page.png"}, b""),
            "/inside": (302, {"Location": f"http://127.0.0.2:{self.server.server_port}/page.png"}, b""),  # type: ignore[attr-defined]
            "/digits": (302, {"Location": self._here("１２７.０.０.２".encode().decode("latin-1"))}, b""),
            "/decimal": (302, {"Location": self._here("2130706434")}, b""),
            "/name": (302, {"Location": self._here("inside.test")}, b""),
            "/turn": (302, {"Location": self._here("turns.test")}, b""),
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

    def _here(self, host: str) -> str:
        return f"http://{host}:{self.server.server_port}/page.png"  # type: ignore[attr-defined]

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def web() -> Iterator[tuple[int, list[str]]]:
    """A web server on all addresses of this machine; its port and the paths that it was asked for."""
    with web_server() as (port, handler):
        yield port, handler.asked


@contextmanager
def web_server() -> Iterator[tuple[int, type[_Web]]]:
    handler = type("Handler", (_Web,), {"asked": [], "reached": []})
    server = http.server.ThreadingHTTPServer(("", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port, handler
    finally:
        server.shutdown()
        server.server_close()


def by_url(door: Process, url: str, **fields: Any) -> httpx.Response:
    return httpx.post(f"{door.url}/layout-parsing", json={"file": url, **fields}, trust_env=False, timeout=30)


def test_urls_are_fetched_from_where_that_is_allowed_and_from_nowhere_else(stand: Bench) -> None:
    with web() as (port, asked):
        hosts = "*,１２７.０.０.２,2130706434"  # named, so that any port is allowed: the address alone decides
        door = stand.gateway(url_hosts=hosts, url_networks="127.0.0.1/32", url_seconds="1", max_body_mib="2")
        here = f"http://127.0.0.1:{port}"
        assert texts(by_url(door, f"{here}/page.png")) == ["picture (1, 2, 3)"]
        assert [text.strip() for text in texts(by_url(door, f"{here}/three.pdf", fileType=0))] == ["a", "b", "c"]
        assert texts(by_url(door, f"{here}/again")) == ["picture (1, 2, 3)"]
        (replica,) = stand.replicas
        assert all("file" not in fields for fields in replica.seen())
        for path, expected in {
            "/inside": (422, "url-refused"), "/file": (422, "url-refused"), "/loop": (422, "url-failed"),
            "/digits": (422, "url-refused"), "/decimal": (422, "url-refused"),
            "/gzip": (422, "url-failed"), "/none": (422, "url-failed"), "/html": (422, "unreadable"),
            "/large": (413, "too-large"), "/slow": (422, "url-failed"),
        }.items():  # fmt: skip
            assert cause(by_url(door, here + path)) == expected, path
        before = len(asked)
        for host in ("127.0.0.2", "2130706434", "0x7f000002", "0177.0.0.2", "127.2", "[::1]", "[::ffff:127.0.0.2]", "0.0.0.0",
                     "169.254.169.254", "10.0.0.1", "127.0.0.2.", "user@127.0.0.1", "127.0.0.1\\@example.com", "localhost."):  # fmt: skip
            reply = by_url(door, f"http://{host}:{port}/page.png")
            assert cause(reply) == (422, "url-refused"), (host, reply.text)
        assert len(asked) == before
        assert cause(by_url(door, f"http://127.0.0.1:{free_port()}/x")) == (422, "url-failed")
        assert texts(post(door.url, PICTURE)) == ["picture (1, 2, 3)"]


def test_a_name_leads_where_all_its_addresses_are_public_and_to_the_one_that_was_judged(stand: Bench) -> None:
    names = stand.folder / "names"
    lines = ["127.0.0.1 out.test", "127.0.0.2 inside.test", "127.0.0.1 both.test", "127.0.0.2 both.test"]
    names.write_text("\n".join([*lines, "127.0.0.1>127.0.0.2 turns.test"]))
    with web_server() as (port, handler):
        door = stand.gateway(
            stand.replicas[0].url, names=names, url_networks="127.0.0.1/32",
            url_hosts="out.test,inside.test,both.test,turns.test",
        )  # fmt: skip
        there = {name: f"http://{name}.test:{port}" for name in ("out", "inside", "both", "turns", "none", "other")}
        assert texts(by_url(door, there["out"] + "/page.png")) == ["picture (1, 2, 3)"]
        for name in ("inside", "both"):
            assert cause(by_url(door, there[name] + "/page.png")) == (422, "url-refused"), name
        assert cause(by_url(door, there["out"] + "/name")) == (422, "url-refused"), "a redirect to a name inside"
        assert cause(by_url(door, there["other"] + "/page.png")) == (422, "url-refused"), "not a host of --url-hosts"
        # Looked up once: the second answer, which leads inside, is not asked for.
        assert texts(by_url(door, there["turns"] + "/page.png")) == ["picture (1, 2, 3)"]
        assert cause(by_url(door, there["turns"] + "/page.png")) == (422, "url-refused")
        assert cause(by_url(door, there["out"] + "/turn")) == (422, "url-refused")
        assert set(handler.reached) == {"127.0.0.1"}
