"""The gateway as an HTTP server: framing, connections that live on, clients that send much, or take nothing."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from gateway_stack import Bench, Process, bench, cause, encoded, make_picture, post, texts
from support import wait_for

GOOD = json.dumps({"file": encoded(make_picture()), "fileType": 1, "logId": "mine"}).encode()
HEAD = b"POST /layout-parsing HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def stand(api_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with bench(api_python, tmp_path_factory.mktemp("http")) as made:
        made.fake()
        (made.folder / "spool").mkdir()
        made.gateway(
            max_body_mib="50", spool_mib="60", spool_dir=str(made.folder / "spool"), stall_seconds="60", max_requests="40"
        )
        yield made


@pytest.fixture
def door(stand: Bench) -> Process:
    return stand.doors[0]


def connect(door: Process) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(door.url.rpartition(":")[2])), timeout=30)


def read_reply(client: socket.socket) -> tuple[int, bytes, bytes]:
    """Status, head and body of one reply with a Content-Length."""
    got = b""
    while b"\r\n\r\n" not in got:
        got += (more := client.recv(65536))
        assert more, got
    head, _, body = got.partition(b"\r\n\r\n")
    length = int(next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")).partition(b":")[2])
    while len(body) < length:
        body += (more := client.recv(65536))
        assert more, body
    assert len(body) == length
    return int(head.split()[1]), head.lower(), body


def chunked(data: bytes) -> bytes:
    pieces = [data[at : at + 7] for at in range(0, len(data), 7)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def test_a_connection_lives_on_after_results_and_errors(door: Process) -> None:
    wrong = b'{"file": 1}'
    with connect(door) as client:
        for body, expected in ((GOOD, 200), (wrong, 422), (GOOD, 200), (b"[", 422), (b"", 422), (GOOD, 200)):
            client.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            assert read_reply(client)[0] == expected
        client.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(GOOD))
        status, head, body = read_reply(client)
        assert (status, json.loads(body)["logId"]) == (200, "mine") and b"connection: close" not in head
        client.sendall(b"HEAD /ready HTTP/1.1\r\nHost: x\r\n\r\nGET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        got = b""
        while more := client.recv(65536):
            got += more
    assert got.count(b"HTTP/1.1 200") == 2 and got.count(b'"errorMsg"') == 1


def test_two_lengths_in_one_request_are_refused_and_nothing_behind_them_is_read(door: Process) -> None:
    smuggled = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    for head in (HEAD, b"GET /health HTTP/1.1\r\nHost: x\r\n"):
        for lengths in (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"Content-Length: 5\r\nContent-Length: 6\r\n"):
            with connect(door) as client:
                client.sendall(head + lengths + b"\r\n0\r\n\r\n" + smuggled)
                got = b""
                while more := client.recv(65536):
                    got += more
            assert got.startswith(b"HTTP/1.1 400") and got.count(b"HTTP/1.1") == 1, got


def test_a_client_that_asks_first_is_told_before_it_sends(door: Process) -> None:
    with connect(door) as client:
        client.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(GOOD))
        assert client.recv(65536).startswith(b"HTTP/1.1 100 ")
        client.sendall(GOOD)
        assert read_reply(client)[0] == 200
    with connect(door) as client:
        client.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: 99999999999\r\n\r\n")
        assert read_reply(client)[0] == 413


def test_what_is_wrong_with_the_file_is_told_under_the_clients_log_id(door: Process) -> None:
    reply = httpx.post(
        f"{door.url}/layout-parsing", trust_env=False, timeout=20, headers={"Content-Type": "application/json"},
        content=b'{"file": "no base64!", "fileType": 1, "logId": "mine"}',
    )  # fmt: skip
    assert cause(reply) == (422, "base64") and reply.json()["logId"] == "mine"


def test_a_hundred_thousand_unknown_fields_are_refused_like_one(door: Process) -> None:
    body = json.dumps({f"f{number}": 0 for number in range(80_000)}).encode()
    reply = httpx.post(
        f"{door.url}/layout-parsing", content=body, headers={"Content-Type": "application/json"}, trust_env=False, timeout=20
    )
    assert cause(reply) == (422, "unknown-field")


def test_a_client_that_takes_no_reply_is_given_up(stand: Bench) -> None:
    (replica,) = stand.replicas
    door = stand.gateway(stall_seconds="1", probe_seconds="10")
    replica.set(padding=30_000_000)
    try:
        with connect(door) as client:
            client.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(GOOD) + GOOD)
            wait_for(lambda: door.figure("gateway_requests_open") == 1, 20, "it to be parsed")
            wait_for(lambda: door.figure("gateway_requests_open") == 0, 20, "it to be given up")
            got = 0
            with contextlib.suppress(ConnectionResetError):
                while more := client.recv(2**20):
                    got += len(more)
            assert got < 30_000_000, "it was not ended"
        assert len(post(door.url, make_picture()).content) > 30_000_000, "one who takes it gets all of it"
    finally:
        replica.set(padding=0)


def test_a_client_that_takes_no_reply_keeps_no_gateway_from_stopping(stand: Bench) -> None:
    (replica,) = stand.replicas
    door = stand.gateway(stall_seconds="600", stop_seconds="0.5", probe_seconds="10")
    replica.set(padding=30_000_000)
    try:
        with connect(door) as client:
            client.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(GOOD) + GOOD)
            assert client.recv(100).startswith(b"HTTP/1.1 200")
            door.send(signal.SIGTERM)
            assert door.wait(30) == 0
    finally:
        replica.set(padding=0)


def test_documents_that_come_in_lie_on_disk_within_their_room(stand: Bench, door: Process) -> None:
    assert door.process is not None
    own = psutil.Process(door.process.pid)
    before = own.memory_info().rss
    held: list[socket.socket] = []
    piece = b"QUJD" * 2**18  # 768 KiB of a document
    try:

        def send(_: int) -> None:
            held.append(client := connect(door))
            client.sendall(HEAD + b"Content-Length: 40000000\r\n\r\n" + b'{"fileType": 1, "file": "')
            for _ in range(3):
                client.sendall(piece)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(send, range(20)))
        wait_for(lambda: on_disk(stand) > 40 * 2**20, 60, "all to have come")
        grown = own.memory_info().rss - before
        assert grown < 60 * 2**20, f"{grown / 2**20:.0f} MiB"
        reply = post(door.url, b"x" * 30 * 2**20)
        assert cause(reply) == (503, "no-room") and int(reply.headers["Retry-After"]) > 0
        assert texts(post(door.url, make_picture())) == ["picture (1, 2, 3)"]
    finally:
        for client in held:
            client.close()
    wait_for(lambda: on_disk(stand) == 0, 20, "the files to go")
    assert cause(post(door.url, b"x" * 30 * 2**20)) == (422, "unreadable")


def on_disk(stand: Bench) -> int:
    sizes = 0
    for path in (stand.folder / "spool").iterdir():
        try:
            sizes += path.stat().st_size
        except FileNotFoundError:  # just gone
            continue
    return sizes
