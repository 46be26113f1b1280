"""A gateway whose replicas come and go behind one name, while requests run."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from gateway_stack import Bench, Process, bench, make_pdf, post, texts
from support import free_port, wait_for

LINES = [f"page {number}" for number in range(1, 10)]


@pytest.fixture
def stand(api_python: Path, tmp_path: Path) -> Iterator[Bench]:
    with bench(api_python, tmp_path) as made:
        yield made


def in_service(door: Process) -> set[str]:
    return {name.rpartition(":")[0] for name in door.in_service()}


def test_replicas_are_replaced_one_after_the_other_and_no_request_notices(stand: Bench, tmp_path: Path) -> None:
    names, port = tmp_path / "names", free_port()
    names.write_text("")
    door = stand.gateway(
        names=names, wait=False, discover=f"http://api.test:{port}", probe_seconds="0.2", pages_per_range="2", outage_seconds="20"
    )
    wait_for(lambda: door.answers("/health"), 30, "the gateway")
    assert not door.answers("/ready"), "no replica yet, and no error either"

    replies: list[httpx.Response] = []
    asking = threading.Event()

    def ask() -> None:
        while not asking.is_set():
            replies.append(post(door.url, make_pdf(LINES)))

    clients = [threading.Thread(target=ask) for _ in range(3)]
    running: list[Process] = []
    for client in clients:
        client.start()  # even before the first replica is there
    try:
        for number in range(2, 6):
            running.append(stand.fake(0.02, f"127.0.0.{number}", port))
            names.write_text("".join(f"{httpx.URL(one.url).host} api.test\n" for one in running[-2:]))
            wait_for(lambda: in_service(door) == {httpx.URL(one.url).host for one in running[-2:]}, 20, "the new replica")
            if len(running) > 2:
                running[-3].kill()
        so_far = len(replies)
        wait_for(lambda: len(replies) > so_far + 3, 20, "further replies")
    finally:
        asking.set()
        for client in clients:
            client.join()
    assert all(texts(reply) == LINES for reply in replies)
    assert door.figure('gateway_requests_total{path="/layout-parsing",status="200"}') == len(replies)
