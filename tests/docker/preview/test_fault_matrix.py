"""The fault matrix: what a client sees, and how long until the next good page, without a person's help.

The stack is the CPU preview in containers: the real `paddlex --serve` in front of the stand-in VLM server, here behind a
door that breaks on command (faults/faulty_vlm.py). The client is `./kit parse`. Whatever it reports as success must be the
whole page, word for word. The figures are printed at the end of the run; docs/reliability.md quotes them.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from engine import Engine
from kit.stack import API, SERVICES, VLM
from PIL import Image
from project import ROOT, Project
from support import FAULT, SAMPLES, interrupt, wait_for

PORT = "8096"
URL = f"http://127.0.0.1:{PORT}"
PATIENCE = 120.0  # seconds until the next good page; many times what it takes
GIVE_UP = 8.0  # seconds after which the client gives up
GIVE_UP_UNDER_LOAD = 60.0  # its page waits for those of the three clients, and the API reads on for a client that has gone
TRIES = "2"  # of the health check, instead of 6: a hang is over after 15 s instead of 55

pytestmark = pytest.mark.parametrize("engine", ["current"], indirect=True)


class Stack(Project):
    """The stack with its client and what it reads when all is well."""

    def __init__(self, engine: Engine, page: Path, base: str) -> None:
        settings = {"PREVIEW_BASE_IMAGE": base, "API_PORT": PORT, "COMPOSE_PROJECT_NAME": "faults", "HANG_TRIES": TRIES}
        super().__init__(engine, "compose.preview.yaml", "tests/docker/faults/faulty.yaml", settings=settings)
        self.page = page
        self.sound = ""
        self.seen: list[str] = []  # of the present fault

    def parse(self, give_up: float = GIVE_UP) -> str:
        """`./kit parse` on the engine's host: the Markdown, or "" after an error, which goes to `seen`."""
        argv = [ROOT / "kit", "parse", self.page, "--url", URL, "--no-retry", "--timeout", f"{give_up}"]
        done = self.engine.call_inside([str(word) for word in argv], timeout=give_up + 30)
        if done.returncode == 0:
            assert done.stdout == self.sound or not self.sound, f"reported as success:\n{done.stdout}"
            return done.stdout
        (error,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
        assert not done.stdout and "Traceback" not in done.stderr
        self.seen.append(error.removeprefix("error: ").replace(URL, "the API"))
        return ""

    def break_vlm(self, fault: str) -> None:
        assert self.execute(VLM, f"echo {fault} >/dev/shm/fault").returncode == 0

    def mend_vlm(self) -> None:
        assert self.execute(VLM, "rm /dev/shm/fault").returncode == 0

    def signal(self, service: str, number: signal.Signals) -> None:
        for pid in self.pids(service):
            os.kill(pid, number)

    def restarts(self) -> dict[str, int]:
        return {service: self.container(service)["RestartCount"] for service in SERVICES}


@pytest.fixture(scope="module")
def faults(engine: Engine, preview_base: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    page = tmp_path_factory.mktemp("faults") / "page.png"
    with Image.open(SAMPLES / "invoice.png") as whole:
        whole.crop((0, 0, whole.width, 400)).save(page)
    stack = Stack(engine, page, preview_base)
    try:
        stack.ask("up", "--detach", "--no-build", "--wait", "--wait-timeout", "120", timeout=150)
        stack.sound = stack.parse(60)
        assert "nvoice 2026-0117" in stack.sound
        yield stack
    finally:
        stack.run("down", "--volumes")


Record = Callable[[str, object], None]


@contextmanager
def fault(stack: Stack, name: str, record: Record, give_up: float = GIVE_UP) -> Iterator[Callable[[], None]]:
    """Yields `mended`, to be called when the fault itself is over; times from there (or from the start) to the next good page."""
    stack.seen.clear()
    began = [time.monotonic()]
    yield lambda: began.__setitem__(0, time.monotonic())
    end = time.monotonic() + PATIENCE
    while not stack.parse(give_up):
        assert time.monotonic() < end, f"no good page within {PATIENCE} s; the client saw {stack.seen}"
    seen = "; ".join(dict.fromkeys(stack.seen)) or "nothing: its page came late"
    record(FAULT, [name, seen, time.monotonic() - began[0]])


class Load:
    """Three clients that send the page again and again, and what became of each request."""

    def __init__(self, stack: Stack) -> None:
        self.stack, self.good, self.failed = stack, 0, 0
        self.wrong: list[str] = []
        self._over = threading.Event()
        self._body = {"file": base64.b64encode(stack.page.read_bytes()).decode(), "fileType": 1}
        self._threads = [threading.Thread(target=self._run) for _ in range(3)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        wait_for(lambda: self.good, 60, "the first page under load")
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            status, body = self.stack.engine.get(f"{URL}/layout-parsing", self._body, timeout=GIVE_UP_UNDER_LOAD)
            if status != 200:
                self.failed += 1
                time.sleep(0.2)
                continue
            text = json.loads(body)["result"]["layoutParsingResults"][0]["markdown"]["text"]
            if text.strip() == self.stack.sound.strip():
                self.good += 1
            else:
                self.wrong.append(text)


# --- a process dies


def test_vlm_killed_idle(faults: Stack, record_property: Record) -> None:
    before = faults.restarts()
    with fault(faults, "VLM killed, idle", record_property):
        faults.signal(VLM, signal.SIGKILL)
    assert faults.restarts() == before | {VLM: before[VLM] + 1}


@pytest.mark.parametrize("service", SERVICES)
def test_killed_under_load(faults: Stack, record_property: Record, service: str) -> None:
    before = faults.restarts()
    with Load(faults) as load:
        with fault(faults, f"{service} killed under load of 3 clients", record_property, GIVE_UP_UNDER_LOAD):
            faults.signal(service, signal.SIGKILL)
        good = load.good
        wait_for(lambda: load.good > good, PATIENCE, "the load to be served again")
    assert load.failed and not load.wrong
    assert faults.restarts() == before | {service: before[service] + 1}


def test_api_killed_idle(faults: Stack, record_property: Record) -> None:
    before = faults.restarts()
    with fault(faults, "API killed, idle", record_property):
        faults.signal(API, signal.SIGKILL)
    assert faults.restarts() == before | {API: before[API] + 1}


# --- a process hangs


@pytest.mark.parametrize("service", SERVICES)
def test_hung(faults: Stack, record_property: Record, service: str) -> None:
    before = faults.restarts()
    with fault(faults, f"{service} hung (SIGSTOP), HANG_TRIES={TRIES}", record_property):
        faults.signal(service, signal.SIGSTOP)
    assert faults.restarts() == before | {service: before[service] + 1}


def test_vlm_refuses_connections(faults: Stack, record_property: Record) -> None:
    before = faults.restarts()
    with fault(faults, f"VLM lives and refuses connections, HANG_TRIES={TRIES}", record_property):
        faults.break_vlm("refuse")
        refused = f"! curl -sS --noproxy '*' --max-time 2 http://{VLM}:8118/health"
        wait_for(lambda: faults.execute(API, refused).returncode == 0, 10, "the VLM's port to be closed")
    assert faults.restarts() == before | {VLM: before[VLM] + 1}


# --- the VLM answers wrongly


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("500", "VLM answers 500, until it no longer does"),
        ("garbage", "VLM answers 200 and no JSON, until it no longer does"),
        ("half", "VLM breaks off in the middle of its answers, until it no longer does"),
        ("empty", "VLM answers without text, until it no longer does"),
        ("silence", "VLM accepts and does not answer, until it no longer does"),
    ],
)
def test_vlm_answers_wrongly(faults: Stack, record_property: Record, word: str, name: str) -> None:
    before = faults.restarts()
    with fault(faults, name, record_property) as mended:
        faults.break_vlm(word)
        assert faults.parse() == ""
        faults.mend_vlm()
        mended()
    assert faults.restarts() == before


# --- around them


def test_network_between_them_cut(faults: Stack, record_property: Record) -> None:
    container, network = faults.container(VLM)["Id"], "faults_back"
    with fault(faults, "network between API and VLM cut, then restored", record_property) as mended:
        faults.engine.docker("network", "disconnect", network, container)
        assert faults.parse() == ""
        faults.engine.docker("network", "connect", "--alias", VLM, network, container)
        mended()


def test_packets_between_them_dropped(faults: Stack, record_property: Record) -> None:
    """A request in flight waits and is answered in full: TCP sends again what was lost."""
    argv = [str(word) for word in (ROOT / "kit", "parse", faults.page, "--url", URL, "--no-retry", "--timeout", "120")]
    inside = ["nsenter", f"--target={faults.container(VLM)['State']['Pid']}", "--net", "iptables"]
    rule = ["INPUT", "!", "--in-interface", "lo", "--jump", "DROP"]
    with fault(faults, "packets between API and VLM dropped for 5 s, a request in flight", record_property) as mended:
        subprocess.run([*inside, "--insert", *rule], check=True)
        waiting = subprocess.Popen(
            ["nsenter", f"--net={faults.engine.network}", *argv], stdout=subprocess.PIPE, text=True, env=faults.engine.environment
        )
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(5)
        subprocess.run([*inside, "--delete", *rule], check=True)
        mended()
        assert waiting.communicate(timeout=PATIENCE)[0] == faults.sound


def test_disk_full_in_the_containers(faults: Stack, record_property: Record) -> None:
    fill = "for d in /tmp /home/paddleocr; do dd if=/dev/zero of=$d/fill bs=1M; done 2>&1; df -k /tmp | tail -n 1"
    with fault(faults, "every place that the containers may write to is full", record_property):
        for service in SERVICES:
            assert "No space left on device" in faults.execute(service, fill).stdout
        assert faults.parse(60) or faults.seen
    for service in SERVICES:
        assert faults.execute(service, "rm /tmp/fill /home/paddleocr/fill").returncode == 0


def test_log_flood(faults: Stack, record_property: Record) -> None:
    line = "x" * 1000
    flood = f"yes {line} | head -n 70000 >/proc/1/fd/1"
    with fault(faults, "a service writes 70 MB of log", record_property):
        assert faults.execute(VLM, flood).returncode == 0
    log = Path(faults.container(VLM)["LogPath"])
    kept = sum(file.stat().st_size for file in log.parent.glob(f"{log.name}*"))
    assert 10e6 < kept < 55e6, f"{kept} bytes are kept"


@pytest.mark.parametrize(
    ("number", "name"), [(signal.SIGTERM, "engine restarted"), (signal.SIGKILL, "engine killed (kill -9 dockerd), then started")]
)
def test_engine_restarted(faults: Stack, record_property: Record, number: signal.Signals, name: str) -> None:
    with fault(faults, name, record_property):
        faults.engine.stop(number)
        assert faults.parse() == ""
        faults.engine.start()


# --- people


def test_two_up_at_once(faults: Stack, preview_base: str) -> None:
    """Both end well, and there is one stack."""
    names = {"API_PORT": "8097", "COMPOSE_PROJECT_NAME": "twice", "PREVIEW_BASE_IMAGE": preview_base}
    argv = ["nsenter", f"--net={faults.engine.network}", str(ROOT / "kit"), "up", "--preview", "--docker"]
    environment = faults.engine.environment | names
    both = [
        subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True)
        for _ in range(2)
    ]
    try:
        said = [process.communicate(timeout=300) for process in both]
        assert [process.returncode for process in both] == [0, 0], said
        assert sum("already up" in talk for _, talk in said) == 1
        listed = faults.engine.docker("ps", "--quiet", "--filter", "label=com.docker.compose.project=twice").split()
        assert len(listed) == len(SERVICES)
    finally:
        for process in both:
            if process.poll() is None:
                interrupt(process)
        faults.engine.call_inside([str(ROOT / "kit"), "down"], env=environment)
