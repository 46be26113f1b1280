"""1,000 documents at 32 connections while replicas and VLM are killed, and one replica is stopped: nothing wrong comes back."""

from __future__ import annotations

import collections
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from gateway_stack import Bench, bench, encoded, make_pdf
from support import wait_for

REQUESTS, CONNECTIONS, KINDS = 1000, 32, 12
MORE_MEMORY = 12 * 2**20  # bytes that the gateway and its splitter may have gained
DEADLINE = 60.0  # seconds that a request may take; the gateway is told less
SAID = {"failed-twice", "no-replica", "vlm-down", "deadline"}


def padding(kind: int) -> int:
    """Bytes: every sixth document is one that lies in a file."""
    return 3 * 2**19 if kind % 6 == 5 else 0


@pytest.fixture
def stand(api_python: Path, tmp_path: Path) -> Iterator[Bench]:
    with bench(api_python, tmp_path) as made:
        made.fake_vlm()
        for _ in range(4):
            made.fake(seconds=0.002)
        yield made


def test_chaos(stand: Bench) -> None:
    door = stand.gateway(
        range_seconds="10", page_seconds="0", request_seconds="50", pages_per_range="2", outage_seconds="5", probe_seconds="0.3"
    )
    wait_for(lambda: sum(door.figure(f'gateway_replica_up{{replica="{one.url[7:]}"}}') for one in stand.replicas) == 4, 20, "all")
    # Each with pages of its own: what belongs to another document, or is missing or doubled, shows.
    expected = [[f"document {kind} page {page}" for page in range(1 + kind % 5)] for kind in range(KINDS)]
    bodies = [{"file": encoded(make_pdf(lines, padding=padding(kind))), "fileType": 0} for kind, lines in enumerate(expected)]
    results: collections.Counter[str] = collections.Counter()
    longest, lock, done = 0.0, threading.Lock(), threading.Semaphore(0)
    numbers = iter(range(REQUESTS))

    def client() -> None:
        nonlocal longest
        with httpx.Client(trust_env=False, timeout=DEADLINE, base_url=door.url) as http:
            while (number := next_number()) is not None:
                begun = time.monotonic()
                reply = http.post("/layout-parsing", json=bodies[number % KINDS] | {"logId": f"request-{number}"})
                seconds, body = time.monotonic() - begun, reply.json()
                assert body["logId"] == f"request-{number}"
                if reply.status_code == 200:
                    pages = [page["markdown"]["text"] for page in body["result"]["layoutParsingResults"]]
                    outcome = "right" if pages == expected[number % KINDS] else "wrong"
                    if body["result"]["dataInfo"]["numPages"] != len(pages):
                        outcome = "wrong"
                else:
                    outcome = reply.headers["X-Gateway-Cause"]
                    assert body["errorCode"] == reply.status_code and body["errorMsg"]
                with lock:
                    results[outcome] += 1
                    longest = max(longest, seconds)
                done.release()

    def next_number() -> int | None:
        with lock:
            return next(numbers, None)

    def after(count: int) -> None:
        """Wait until so many more requests have ended."""
        for _ in range(count):
            assert done.acquire(timeout=DEADLINE)

    def processes() -> list[psutil.Process]:
        assert door.process is not None
        own = psutil.Process(door.process.pid)
        return [own, *own.children(recursive=True)]

    def memory() -> int:
        return sum(one.memory_info().rss for one in processes())

    def files() -> int:
        return sum(one.num_fds() for one in processes())

    files_before = files()
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        clients = [pool.submit(client) for _ in range(CONNECTIONS)]
        after(150)
        warm = memory()
        for replica in stand.replicas[:3]:
            replica.kill()
            after(60)
            replica.start()
            after(40)
        stand.replicas[3].send(signal.SIGSTOP)
        after(80)
        assert stand.vlm is not None
        stand.vlm.kill()
        wait_for(lambda: door.figure("gateway_vlm_up") == 0, 20, "the gateway to see it")
        stand.vlm.start()
        after(80)
        stand.replicas[3].kill()
        stand.replicas[3].start()
        for one in clients:
            one.result()
    figures = f"{dict(results)}, longest {longest:.1f} s, memory {warm / 2**20:.0f} → {memory() / 2**20:.0f} MiB"
    print(figures)
    assert results["wrong"] == 0, figures
    assert sum(results.values()) == REQUESTS and set(results) <= SAID | {"right"}, figures
    assert results["right"] >= 0.9 * REQUESTS, figures
    assert memory() < warm + MORE_MEMORY, figures
    wait_for(
        lambda: sum(door.figure(f'gateway_replica_up{{replica="{one.url[7:]}"}}') for one in stand.replicas) == 4, 20, "all back"
    )
    gauges = ["requests_open", "queue_pages", "spool_bytes"]
    gauges += [f'replica_busy{{replica="{one.url[7:]}"}}' for one in stand.replicas]
    wait_for(lambda: not any(door.figure(f"gateway_{name}") for name in gauges), 20, "all places to be free again")
    wait_for(lambda: files() <= files_before + 2, 20, "all files and connections to be closed")
