"""The gateway in front of fake replicas: documents in parts, replicas that fail, a full queue, clients that leave."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from gateway_stack import Bench, Process, bench, cause, encoded, make_pdf, make_picture, make_tiff, post, texts
from kit.errors import ExitCode
from support import free_port, wait_for


@pytest.fixture
def stand(api_python: Path, tmp_path: Path) -> Iterator[Bench]:
    with bench(api_python, tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def shared(api_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Three replicas and one gateway, for tests that leave them as they were."""
    with bench(api_python, tmp_path_factory.mktemp("shared")) as made:
        for _ in range(3):
            made.fake()
        made.gateway(pages_per_range="4")
        yield made


def lines(count: int, name: str = "page") -> list[str]:
    return [f"{name} {number} of {count}" for number in range(1, count + 1)]


def test_a_long_pdf_goes_to_all_replicas_and_comes_back_in_order(shared: Bench) -> None:
    (door,) = shared.doors
    reply = post(door.url, make_pdf(lines(61)), logId="long-1", temperature=0.5)
    assert texts(reply) == lines(61)
    body = reply.json()
    assert (body["logId"], body["errorCode"], body["errorMsg"]) == ("long-1", 0, "Success")
    assert body["result"]["dataInfo"] == {"numPages": 61, "pages": [{"width": 500, "height": 200}] * 61, "type": "pdf"}
    seen = [replica.seen() for replica in shared.replicas]
    assert all(len(one) >= 3 for one in seen)
    for fields in (fields for one in seen for fields in one if fields["logId"] == "long-1"):
        assert (fields["logId"], fields["temperature"], fields["visualize"]) == ("long-1", 0.5, False)


def test_a_short_document_comes_back_byte_for_byte(shared: Bench) -> None:
    (door,) = shared.doors
    data = make_pdf(["only page"])
    direct, through = post(shared.replicas[0].url, data, logId="x"), post(door.url, data, logId="x")
    assert through.content == direct.content and texts(through) == ["only page"]


def test_pages_to_put_together_are_bounded(stand: Bench) -> None:
    replica = stand.fake()
    door = stand.gateway(max_body_mib="2", spool_mib="64", pages_per_range="1")
    replica.set(padding=2**20)
    for given in ({}, {"outputFormats": ["docx"]}):
        reply = post(door.url, make_pdf(lines(4)), restructurePages=True, **given)
        if given:  # which are drawn from the pictures
            assert cause(reply) == (413, "too-large") and "`outputFormats`" in reply.json()["errorMsg"]
        else:
            assert texts(reply) == [f"[{number} of 4] {line}" for number, line in enumerate(lines(4), 1)]
    assert texts(post(door.url, make_picture())) == ["picture (1, 2, 3)"]
    wait_for(lambda: door.figure("gateway_spool_bytes") == 0, 10, "the room to be free")


def test_pages_that_take_much_memory_go_one_by_one(stand: Bench) -> None:
    replica = stand.fake()
    door = stand.gateway()
    for size, calls in (((500, 200), 1), ((14400, 14400), 8)):
        assert texts(post(door.url, make_pdf(lines(8), size), logId=f"of-{size[0]}")) == lines(8)
        assert sum(fields["logId"] == f"of-{size[0]}" for fields in replica.seen()) == calls


def test_every_page_of_a_tiff_is_read(shared: Bench) -> None:
    (door,) = shared.doors
    colours = [(9, 8, 7), (200, 100, 50), (0, 0, 0)]
    reply = post(door.url, make_tiff(colours))
    assert texts(reply) == [f"picture {colour}" for colour in colours]
    sizes = [{"width": 40, "height": 30 + number} for number in range(3)]
    assert reply.json()["result"]["dataInfo"] == {"numPages": 3, "pages": sizes, "type": "tiff"}


def test_what_needs_all_pages_gets_them_at_once(shared: Bench) -> None:
    (door,) = shared.doors
    reply = post(door.url, make_pdf(lines(7)), restructurePages=True, mergeTables=False, logId="r")
    assert texts(reply) == [f"[{number} of 7] {line}" for number, line in enumerate(lines(7), 1)]
    assert reply.json()["result"]["dataInfo"]["numPages"] == 7
    seen = [fields for replica in shared.replicas for fields in replica.seen() if fields["logId"] == "r"]
    (whole,) = [fields for fields in seen if "pages" in fields]
    assert (whole["pages"], whole["mergeTables"], whole["concatenatePages"], whole["logId"]) == (7, False, False, "r")
    assert all(fields["restructurePages"] is False for fields in seen if "pages" not in fields)


@pytest.mark.parametrize("mode", ["500", "drop", "cut", "html", "empty"])
def test_a_replica_that_fails_once_is_not_noticed(shared: Bench, mode: str) -> None:
    (door,), (bad, *_) = shared.doors, shared.replicas
    wait_for(lambda: len(door.in_service()) == 3, 10, "all replicas")
    bad.set(mode=mode, times=1)
    assert texts(post(door.url, make_pdf(lines(9)))) == lines(9)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("500", (502, "failed-twice")),
        ("drop", (502, "failed-twice")),
        ("cut", (502, "bad-reply")),
        ("html", (502, "bad-reply")),
        ("empty", (502, "all-empty")),
    ],
)
def test_what_fails_everywhere_is_an_error_with_its_cause(shared: Bench, mode: str, expected: tuple[int, str]) -> None:
    (door,) = shared.doors
    wait_for(lambda: len(door.in_service()) == 3, 10, "all replicas")
    for replica in shared.replicas:
        replica.set(mode=mode, times=-1)
    assert cause(post(door.url, make_pdf(lines(5)))) == expected
    for replica in shared.replicas:
        replica.set(mode="")
    wait_for(lambda: door.answers("/ready"), 20, "the replicas to be back")
    assert texts(post(door.url, make_pdf(lines(5)))) == lines(5)


def test_one_bad_replica_costs_no_request_while_the_others_are_busy(stand: Bench) -> None:
    bad = stand.fake()
    for _ in range(3):
        stand.fake(seconds=0.1)
    door = stand.gateway()
    bad.set(mode="html")
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: post(door.url, make_picture()).status_code, range(40)))
    assert replies == [200] * 40
    assert bad.url[7:] not in door.in_service(), "what the others can read it cannot"


def test_what_a_client_does_wrong_takes_no_replica_out_of_service(stand: Bench) -> None:
    replica = stand.fake()
    door = stand.gateway()
    page = {"block_label": "text", "block_content": "x", "block_bbox": [0, 0, 1, 1]}
    settings = {"use_doc_preprocessor": False, "use_layout_detection": False}
    pruned = {"parsing_res_list": [page], "model_settings": settings, "width": 1, "height": 1, "page_count": None}
    for mode, expected in (("not-loaded", (422, "refused-by-api")), ("500", (422, "bad-field"))):
        replica.set(mode=mode)
        for _ in range(4):
            reply = post(door.url, make_picture()) if mode == "not-loaded" else post(
                door.url, path="/restructure-pages", pages=[{"prunedResult": pruned}]
            )  # fmt: skip
            assert cause(reply) == expected
    assert "out of service" not in door.log.read_text()
    replica.set(mode="500")
    assert {cause(post(door.url, make_picture())) for _ in range(2)} <= {(502, "failed-twice"), (503, "no-replica")}
    assert "3 failures in a row" in door.log.read_text(), "what is its own is counted"


def test_ready_tells_whether_text_is_read_not_whether_something_is_answered(stand: Bench) -> None:
    replica = stand.fake(seconds=0.05)
    door = stand.gateway(proof_seconds="1", range_seconds="1", page_seconds="0", probe_seconds="60")
    wait_for(lambda: door.figure("gateway_last_page_seconds") >= 0, 10, "a page")
    replica.set(mode="empty")
    end = time.monotonic() + 20
    while door.answers("/ready"):
        assert time.monotonic() < end, "it says that a page was read"
        assert cause(post(door.url, make_picture())) == (502, "all-empty")
    assert httpx.get(f"{door.url}/ready", trust_env=False).json()["lastPageSeconds"] > 3


def test_a_replica_that_is_being_stopped_ends_what_it_has_begun(stand: Bench) -> None:
    """Like uvicorn after SIGTERM: it takes no connection any more, and its calls come to their end."""
    leaving = stand.fake(seconds=3)
    door = stand.gateway(probe_seconds="0.2", probe_tries="2", outage_seconds="10", range_seconds="30")
    with ThreadPoolExecutor() as pool:
        reply = pool.submit(post, door.url, make_picture())
        wait_for(lambda: len(leaving.seen()) == 1, 10, "its call")
        leaving.send(signal.SIGTERM)
        wait_for(lambda: not door.in_service(), 10, "it to be out of service")
        assert texts(reply.result()) == ["picture (1, 2, 3)"]
    assert "connection broke" not in door.log.read_text()


def test_a_hung_replica_is_out_until_its_call_has_ended(stand: Bench) -> None:
    hung = stand.fake()
    door = stand.gateway(range_seconds="0.5", page_seconds="0")
    hung.set(mode="hang", times=1)
    begun = time.monotonic()
    reply = post(door.url, make_picture())
    assert cause(reply)[0] == 503 and "no answer to a call in 0.5 s" in reply.json()["errorMsg"]
    assert time.monotonic() - begun < 8
    # It is well again for others, and its call has not ended: it gets no second page to hang on.
    state = httpx.get(f"{door.url}/ready", trust_env=False).json()
    assert state["errorCode"] == 503 and state["replicas"][0]["busy"] == 1
    assert len(hung.seen()) == 1
    hung.kill()
    hung.start()
    wait_for(lambda: door.answers("/ready"), 20, "the restarted replica to prove itself")
    assert texts(post(door.url, make_picture((4, 5, 6)))) == ["picture (4, 5, 6)"]


def test_a_stopped_replica_is_left_and_its_range_goes_elsewhere(stand: Bench) -> None:
    stopped, _ = stand.fake(seconds=0.3), stand.fake()
    door = stand.gateway(pages_per_range="1", range_seconds="60", probe_seconds="0.3")
    with ThreadPoolExecutor() as pool:
        reply = pool.submit(post, door.url, make_pdf(lines(8)))
        wait_for(lambda: len(stopped.seen()) > 0, 10, "a range at the first replica")
        stopped.send(signal.SIGSTOP)
        assert texts(reply.result()) == lines(8)
    stopped.send(signal.SIGCONT)

    wait_for(lambda: len(door.in_service()) == 2, 20, "the replica to be back")


def test_vlm_down_is_said_at_once_and_a_short_outage_is_waited_out(stand: Bench) -> None:
    vlm = stand.fake_vlm()
    stand.fake()
    patient, door = stand.gateway(outage_seconds="60"), stand.gateway(outage_seconds="0")
    vlm.kill()
    with ThreadPoolExecutor() as pool:
        waits = pool.submit(post, patient.url, make_picture())
        wait_for(lambda: patient.figure("gateway_vlm_up") == 0, 10, "it to be seen")
        vlm.start()
        assert texts(waits.result()) == ["picture (1, 2, 3)"]
    vlm.kill()
    wait_for(lambda: door.figure("gateway_vlm_up") == 0, 10, "it to be seen")
    reply = post(door.url, make_picture())
    assert cause(reply) == (503, "vlm-down") and int(reply.headers["Retry-After"]) > 0
    ready = httpx.get(f"{door.url}/ready", trust_env=False)
    assert ready.status_code == 503 and int(ready.headers["Retry-After"]) > 0
    assert httpx.get(f"{door.url}/health", trust_env=False).status_code == 200


def test_a_full_queue_refuses_at_once_and_says_when_to_come_again(stand: Bench) -> None:
    replica = stand.fake()
    door = stand.gateway(max_requests="3", pages_per_range="1")
    replica.set(seconds=2)
    with ThreadPoolExecutor() as pool:
        running = [pool.submit(post, door.url, make_picture()) for _ in range(3)]
        wait_for(lambda: door.figure("gateway_requests_open") == 3, 10, "three requests")
        reply = post(door.url, make_picture())
        assert cause(reply) == (429, "queue-full") and int(reply.headers["Retry-After"]) >= 1
        assert [one.result().status_code for one in running] == [200] * 3
    assert post(door.url, make_picture()).status_code == 200


def test_many_waiting_pages_are_a_full_queue_too(stand: Bench) -> None:
    stand.fake(seconds=0.3)
    door = stand.gateway(queue_pages="3", pages_per_range="1")
    with ThreadPoolExecutor() as pool:
        long = pool.submit(post, door.url, make_pdf(lines(8)))
        wait_for(lambda: door.figure("gateway_queue_pages") >= 3, 10, "pages to wait")
        assert cause(post(door.url, make_picture())) == (429, "queue-full")
        assert texts(long.result()) == lines(8)


def test_a_client_that_leaves_frees_its_places(stand: Bench) -> None:
    replica = stand.fake(seconds=0.1)
    door = stand.gateway(pages_per_range="1")
    url = httpx.URL(door.url)
    body = json.dumps({"file": encoded(make_pdf(lines(200))), "fileType": 0}).encode()
    with socket.create_connection((url.host, url.port)) as client:
        client.sendall(b"POST /layout-parsing HTTP/1.1\r\nHost: gateway\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        wait_for(lambda: len(replica.seen()) > 1, 20, "its first pages")
    wait_for(lambda: door.figure("gateway_clients_left_total") == 1, 10, "its end")
    assert (door.figure("gateway_requests_open"), door.figure("gateway_queue_pages")) == (0, 0)
    assert texts(post(door.url, make_picture())) == ["picture (1, 2, 3)"]
    assert len(replica.seen()) < 100


def test_ten_short_documents_do_not_wait_for_a_long_one(stand: Bench) -> None:
    stand.fake(seconds=0.04)
    door = stand.gateway(pages_per_range="1")
    ended: list[str] = []
    lock = threading.Lock()

    def parse(name: str, data: bytes) -> None:
        assert post(door.url, data).status_code == 200
        with lock:
            ended.append(name)

    with ThreadPoolExecutor(12) as pool:
        jobs = [pool.submit(parse, "long", make_pdf(lines(100)))]
        wait_for(lambda: door.figure("gateway_queue_pages") > 0, 10, "the long one to wait")
        jobs += [pool.submit(parse, f"short {number}", make_picture()) for number in range(10)]
        for job in jobs:
            job.result()
    assert ended[-1] == "long" and len(ended) == 11


def test_sigterm_finishes_what_runs_and_refuses_what_comes(stand: Bench) -> None:
    stand.fake(seconds=0.15)
    door = stand.gateway(pages_per_range="1")
    with ThreadPoolExecutor() as pool:
        running = pool.submit(post, door.url, make_pdf(lines(12)))
        wait_for(lambda: door.figure("gateway_requests_open") == 1, 10, "it to run")
        door.send(signal.SIGTERM)
        wait_for(lambda: not door.answers("/ready"), 5, "it to be stopping")
        reply = post(door.url, make_picture())
        assert cause(reply) == (503, "stopping") and reply.headers["connection"] == "close"
        assert texts(running.result()) == lines(12)
    assert door.wait(10) == 0


def test_sigterm_gives_503_to_what_does_not_end_in_time(stand: Bench) -> None:
    replica = stand.fake()
    door = stand.gateway(stop_seconds="0.5")
    replica.set(mode="hang")
    with ThreadPoolExecutor() as pool:
        running = pool.submit(post, door.url, make_picture())
        wait_for(lambda: len(replica.seen()) == 1, 10, "it to run")
        door.send(signal.SIGTERM)
        assert cause(running.result()) == (503, "stopping")
    assert door.wait(10) == 0


def test_a_new_gateway_takes_over_without_losing_a_request(stand: Bench) -> None:
    for _ in range(2):
        stand.fake(seconds=0.02)
    handover = str(stand.folder / "handover")
    old = stand.gateway(handover=handover)
    wait_for(Path(handover).exists, 10, "the old one to offer its port")
    port = int(old.url.rpartition(":")[2])
    stop = threading.Event()
    answers: list[int | str] = []

    def ask() -> None:
        while not stop.is_set():
            try:
                answers.append(post(old.url, make_pdf(lines(3))).status_code)
            except httpx.HTTPError as error:
                answers.append(repr(error))

    with ThreadPoolExecutor() as pool:
        clients = [pool.submit(ask) for _ in range(4)]
        stand.gateway(port=port, handover=handover, pages_per_range="2", wait=False)
        assert old.wait(60) == 0
        before = len(answers)
        wait_for(lambda: len(answers) > before + 20, 30, "answers of the new one")
        stop.set()
        for client in clients:
            client.result()
    assert {answer for answer in answers if answer != 200} == set()


def offering(stand: Bench, **flags: str) -> tuple[Process, dict[str, Any]]:
    """A gateway that offers its port, and what another one needs to take it over."""
    handover = str(stand.folder / "handover")
    old = stand.gateway(handover=handover, **flags)
    wait_for(Path(handover).exists, 10, "the old one to offer its port")
    return old, {"handover": handover, "port": int(old.url.rpartition(":")[2]), "wait": False}


def test_a_new_gateway_that_cannot_read_pages_takes_nothing_over(stand: Bench) -> None:
    stand.fake()
    old, place = offering(stand)
    new = stand.gateway(f"http://127.0.0.1:{free_port()}", range_seconds="1", page_seconds="0.5", **place)
    while new.running:
        assert texts(post(old.url, make_picture())) == ["picture (1, 2, 3)"]
    assert new.wait(1) == ExitCode.START
    said = new.log.read_text()
    assert "no API replica is in service" in said and "Traceback" not in said
    assert "another gateway has taken over" not in old.log.read_text()
    assert texts(post(old.url, make_picture())) == ["picture (1, 2, 3)"]


def test_a_connection_that_is_kept_open_outlives_the_gateway(stand: Bench) -> None:
    stand.fake()
    old, place = offering(stand)
    options: dict[str, Any] = {"base_url": old.url, "trust_env": False, "timeout": 30}
    with httpx.Client(**options) as busy, httpx.Client(**options) as idle:
        assert idle.get("/health").status_code == 200
        stand.gateway(**place)
        statuses = []
        while old.running:
            statuses.append(busy.get("/health").status_code)
        assert old.wait(1) == 0
        assert set(statuses) == {200} and idle.get("/health").status_code == busy.get("/health").status_code == 200


def test_sigterm_during_a_handover_lets_what_runs_come_to_its_end(stand: Bench) -> None:
    stand.fake(seconds=0.4)
    old, place = offering(stand, pages_per_range="1")
    with ThreadPoolExecutor() as pool:
        reply = pool.submit(post, old.url, make_pdf(lines(20)))
        wait_for(lambda: old.figure("gateway_requests_open") == 1, 10, "it to run")
        stand.gateway(**place)
        wait_for(lambda: "another gateway has taken over" in old.log.read_text(), 20, "it to be on its way out")
        old.send(signal.SIGTERM)
        assert texts(reply.result()) == lines(20)
    assert old.wait(10) == 0


def test_slow_clients_are_given_up(stand: Bench) -> None:
    stand.fake()
    door = stand.gateway(stall_seconds="0.5", header_seconds="0.5")
    port = int(door.url.rpartition(":")[2])
    head = b"POST /layout-parsing HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n"
    for start, expected in ((b"", b""), (head, b""), (head + b'\r\n{"file": "', b"408")):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(start)
            got = client.recv(65536)
            assert expected in got[:20] and (got or not expected)
    assert post(door.url, make_picture()).status_code == 200


def test_metrics_are_in_the_format_of_prometheus(stand: Bench) -> None:
    stand.fake()
    door = stand.gateway()
    post(door.url, make_pdf(lines(3)))
    post(door.url, b"no picture")
    wait_for(lambda: door.figure('gateway_seconds_count{step="total"}') == 2, 10, "both to be counted")
    text = httpx.get(f"{door.url}/metrics", trust_env=False).text
    figures = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert figures["gateway_pages_total"] == "3"
    assert figures['gateway_errors_total{cause="unreadable"}'] == "1"
    assert figures['gateway_requests_total{path="/layout-parsing",status="200"}'] == "1"
    assert figures['gateway_seconds_count{step="total"}'] == "2"
    assert all(float(value) >= -1 for value in figures.values())
    assert encoded(b"no picture") not in door.log.read_text()
