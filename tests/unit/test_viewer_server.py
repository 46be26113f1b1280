"""./kit view: what its server lets through, and to whom."""

from __future__ import annotations

import argparse
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from kit import access, api
from kit.errors import ExitCode
from kit.gateway import contract
from kit.verbs import bench, view
from kit.view import Viewer, refusal
from support import Workspace, check_error, free_port, interrupt, make_workspace
from viewer_stack import Service, refused, served, success

GOOD = {"file": "aGVsbG8=", "fileType": 1, "useLayoutDetection": True}


@pytest.fixture
def service() -> Iterator[tuple[Service, str]]:
    with served() as pair:
        yield pair


def ask(url: str, method: str = "POST", path: str = "layout-parsing", **options: object) -> httpx.Response:
    if method == "POST":
        options.setdefault("json", GOOD)
    return httpx.request(method, url + path, trust_env=False, timeout=30, **options)


def test_both_paths_are_passed_on_with_the_key_and_no_cookie(service: tuple[Service, str]) -> None:
    behind, url = service
    behind.answer = lambda path, request: success({"path": path, "file": request["file"]})
    for path in ("layout-parsing", "restructure-pages"):
        reply = ask(url, path=path, headers={"Authorization": "Bearer s3cret", "Cookie": "a=b"})
        assert reply.status_code == 200 and reply.headers["Content-Type"] == "application/json"
        assert reply.json()["result"]["layoutParsingResults"] == [{"path": f"/{path}", "file": GOOD["file"]}]
    assert behind.keys == ["Bearer s3cret"] * 2
    behind.answer = lambda path, request: refused(429, "busy", Retry_After="7")
    reply = ask(url)
    assert (reply.status_code, reply.headers["Retry-After"], reply.json()["errorMsg"]) == (429, "7", "busy")


def test_the_operators_own_key_is_not_lent(service: tuple[Service, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """./kit parse sends the key of .env to the gateway; through this port others could ask."""
    behind, _ = service
    behind.answer = lambda path, request: success({})
    monkeypatch.setattr(access, "_known", {behind.url: access.Access(key="s3cret")})
    with Viewer(behind.url) as viewer:
        threading.Thread(target=viewer.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        assert ask(viewer.url).status_code == 200
        assert ask(viewer.url, headers={"Authorization": "Bearer mine"}).status_code == 200
        viewer.shutdown()
    assert behind.keys == [None, "Bearer mine"]


def test_large_documents_pass(service: tuple[Service, str]) -> None:
    service[0].answer = lambda path, request: success({"length": len(request["file"])})
    reply = ask(service[1], json={"file": "A" * (20 * 2**20), "fileType": 1})
    assert reply.json()["result"]["layoutParsingResults"] == [{"length": 20 * 2**20}]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.test"}, 421),  # a name that has been bent to 127.0.0.1
        ({"Host": "127.0.0.1.evil.test:80"}, 421),
        ({"Host": ""}, 421),
        ({"Origin": "https://evil.test"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),  # another program on this machine
        ({"Content-Type": "text/plain"}, 415),  # what a form of another page can send
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
    ],
)
def test_who_may_not_ask(service: tuple[Service, str], headers: dict[str, str], status: int) -> None:
    reply = ask(service[1], content=json.dumps(GOOD), json=None, headers={"Content-Type": "application/json", **headers})
    assert reply.status_code == status and reply.json()["errorCode"] == status
    assert service[0].seen == []
    if "Content-Type" not in headers:
        assert ask(service[1], "GET", "", headers=headers).status_code == status


def test_who_may_ask() -> None:
    for host in ("127.0.0.1:8090", "localhost:8090", "localhost", "127.0.0.1:9999"):
        asked = {
            "Host": host,
            "Origin": f"http://{host}",
            "Content-Type": "application/json; charset=utf-8",
            "Content-Length": "2",
        }
        assert refusal(asked, "POST") is None
    assert refusal({"Host": "localhost"}, "GET") is None
    assert refusal({"Host": "localhost", "Content-Type": "application/json"}, "POST") == (411, "Content-Length is needed")


@pytest.mark.parametrize(
    "headers",
    [
        (b"Host: [",),
        (b"Host: [::1",),
        (b"Host: localhost", b"Content-Length: \xb2"),  # a digit to Python, and no number
        (b"Host: localhost", b"Content-Length: -1"),
        (b"Host: localhost", b"Content-Length: " + b"9" * 5000),  # more than int() takes
    ],
)
def test_headers_that_are_none_are_refused_without_a_traceback(
    service: tuple[Service, str], capfd: pytest.CaptureFixture[str], headers: tuple[bytes, ...]
) -> None:
    lines = (b"POST /layout-parsing HTTP/1.1", *headers, b"Content-Type: application/json", b"", b"")
    with socket.create_connection(("127.0.0.1", httpx.URL(service[1]).port), timeout=20) as browser:
        browser.sendall(b"\r\n".join(lines))
        reply = browser.makefile("rb").read()
    assert reply.startswith(b"HTTP/1.1 400 ") and json.loads(reply.partition(b"\r\n\r\n")[2])["errorCode"] == 400
    assert "Traceback" not in capfd.readouterr().err and service[0].seen == []


def test_a_key_beyond_ascii_is_the_services_to_refuse(service: tuple[Service, str]) -> None:
    service[0].answer = lambda path, request: refused(401, "not known")
    assert ask(service[1], headers={"Authorization": "Bearer schlüssel".encode("latin-1")}).status_code == 401
    assert service[0].keys == ["Bearer schlüssel"]


def test_only_this_machine_is_listened_to(service: tuple[Service, str]) -> None:
    port = int(service[1].rstrip("/").rpartition(":")[2])
    with socket.socket() as probe, pytest.raises(OSError):
        probe.settimeout(2)
        probe.connect(("127.0.0.2", port))


def test_other_paths_are_not_passed_on(service: tuple[Service, str]) -> None:
    for method, path in (
        *(("POST", "infer"), ("POST", "viewer/app.js"), ("GET", "layout-parsing"), ("GET", "health")),
        *(("GET", "viewer/../../kit/view.py"), ("GET", "viewer/%2e%2e/view.py"), ("GET", "viewer/vendor/../../x")),
    ):
        assert ask(service[1], method, path).status_code == 404, (method, path)
    assert ask(service[1], "PUT", "layout-parsing").status_code == 501
    assert service[0].seen == []


def test_a_file_is_sent_once(service: tuple[Service, str]) -> None:
    first = ask(service[1], "GET", "viewer/app.js")
    again = ask(service[1], "GET", "viewer/app.js", headers={"If-None-Match": first.headers["ETag"]})
    assert (first.status_code, again.status_code, again.content) == (200, 304, b"")
    assert ask(service[1], "HEAD", "viewer/app.js").headers["Content-Length"] == str(len(first.content))


def test_the_options_are_described_where_the_service_does_not(service: tuple[Service, str]) -> None:
    described = ask(service[1], "GET", "openapi.json").json()
    schema = described["paths"]["/layout-parsing"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(schema["properties"]) == {field.name for field in contract.LAYOUT_PARSING}


def test_a_service_that_is_gone() -> None:
    service = f"http://127.0.0.1:{free_port()}"
    with served() as (_, url):
        pass
    with pytest.raises(httpx.ConnectError):
        ask(url)  # closed with its `with`
    with Viewer(service) as viewer:
        threading.Thread(target=viewer.serve_forever, daemon=True).start()
        reply = ask(viewer.url)
        viewer.shutdown()
    assert reply.status_code == 502 and service in reply.json()["errorMsg"]


def test_a_reply_that_breaks_off_ends_there() -> None:
    """Nothing is put behind the part that came: with it, it might look whole."""
    with socket.create_server(("127.0.0.1", 0)) as behind:

        def answer() -> None:
            client, _ = behind.accept()
            with client:
                client.recv(2**16)
                client.sendall(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"result"')

        threading.Thread(target=answer, daemon=True).start()
        with Viewer(f"http://127.0.0.1:{behind.getsockname()[1]}") as viewer:
            threading.Thread(target=viewer.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
            assert ask(viewer.url).text == '{"result"'
            viewer.shutdown()


def test_the_verb(workspace: Workspace) -> None:
    check_error(workspace.kit("view"), ExitCode.START, "no service runs here", "./kit view URL")
    check_error(workspace.kit("view", "localhost:8080", "--port", "8090"), ExitCode.USAGE, "localhost:8080")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        check_error(workspace.kit("view", "http://127.0.0.1:1", "--port", port), ExitCode.PORT, port)


@pytest.mark.parametrize("end", ["", "/", "/layout-parsing", "/layout-parsing/"])
def test_the_address_of_a_request_is_one_of_its_service(end: str) -> None:
    """As with ./kit parse --url."""
    given = f"http://h:8080{end}"
    assert api.address(given) == view._service(given) == "http://h:8080"
    assert bench._url(argparse.Namespace(url=given, local=False, json=None)) == "http://h:8080"


def test_the_verb_serves_until_ctrl_c(tmp_path: Path) -> None:
    port = free_port()
    running = make_workspace(tmp_path).start("view", "http://127.0.0.1:1/", "--port", str(port))
    try:
        assert running.stdout is not None
        lines = []
        end = time.monotonic() + 60
        while time.monotonic() < end and (not lines or not lines[-1].startswith("http://127.0.0.1:")):
            lines.append(running.stdout.readline())
        assert lines[-1] == f"http://127.0.0.1:{port}/\n", lines
        assert "<title>PaddleOCR-VL</title>" in ask(lines[-1].strip(), "GET", "").text
    finally:
        interrupt(running)
    assert running.wait(20) == ExitCode.INTERRUPTED
    assert "Traceback" not in (running.stdout.read() if running.stdout else "")
