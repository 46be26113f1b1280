"""What hangs is back without a person: the health check of compose.yaml, on a real engine with stubs of the official images."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator

import pytest
from engine import Engine
from kit.stack import API, SERVICES, VLM
from project import GPUS, Project
from support import wait_for

PORT = "8095"
URL = f"http://127.0.0.1:{PORT}"
UP = ("up", "--detach", "--wait", "--wait-timeout", "120", "--pull", "never")
PATIENCE = 120.0  # seconds, many times what it takes
OTHER = {API: VLM, VLM: API}


@pytest.fixture(scope="module")
def impatient(engine: Engine, files: tuple[str, ...]) -> Iterator[Project]:
    """One failing check and no more; the VLM takes longer to start: 8 s of failing checks, one or two seconds apart."""
    settings = GPUS | {"API_PORT": PORT, "COMPOSE_PROJECT_NAME": "impatient", "HANG_TRIES": "1"}
    project = Project(engine, *files, "tests/docker/stubs/slow-start.yaml", settings=settings)
    try:
        project.ask(*UP, timeout=150)
        yield project
    finally:
        project.run("down")


def stop_processes(project: Project, service: str) -> None:
    """SIGSTOP to all but the init: the kernel still accepts connections, and nobody answers."""
    for pid in project.pids(service):
        os.kill(pid, signal.SIGSTOP)


def answer_503(project: Project, service: str) -> None:
    assert project.execute(service, "touch /dev/shm/stub-unwell").returncode == 0


def restarts(project: Project, service: str) -> int:
    return project.container(service)["RestartCount"]


def serves(engine: Engine, url: str = URL) -> bool:
    status, body = engine.get(f"{url}/layout-parsing", {"file": "", "fileType": 1})
    return status == 200 and "A stub's answer" in json.loads(body)["result"]["layoutParsingResults"][0]["markdown"]["text"]


def is_healthy(project: Project, service: str) -> bool:
    return project.container(service)["State"]["Health"]["Status"] == "healthy"


def test_a_slow_start_is_not_mistaken_for_a_hang(impatient: Project) -> None:
    assert {service: restarts(impatient, service) for service in SERVICES} == {API: 0, VLM: 0}
    assert all(is_healthy(impatient, service) for service in SERVICES)


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("hang", [stop_processes, answer_503])
def test_what_hangs_is_restarted_and_nothing_else(
    impatient: Project, engine: Engine, service: str, hang: Callable[[Project, str], None]
) -> None:
    before = {name: restarts(impatient, name) for name in SERVICES}
    hang(impatient, service)
    wait_for(lambda: restarts(impatient, service) > before[service], PATIENCE, f"{service} to be killed")
    wait_for(lambda: all(is_healthy(impatient, name) for name in SERVICES), PATIENCE, "both to be healthy")
    assert serves(engine)
    # Once: the mark of the last life is gone, so the slow start is again taken for one.
    assert restarts(impatient, service) == before[service] + 1
    assert restarts(impatient, OTHER[service]) == before[OTHER[service]]
    assert "killing the service, to be restarted" in impatient.logs(service)


def test_a_short_silence_is_none_and_zero_tries_never_kill(stack: Project, engine: Engine) -> None:
    before = restarts(stack, VLM)
    stop_processes(stack, VLM)
    try:
        check = "HANG_TRIES=0 sh /usr/local/bin/healthcheck.sh http://127.0.0.1:8118/health"
        assert stack.execute(VLM, check).returncode == 1  # after the 5 s of one try
        assert stack.execute(VLM, check).returncode == 1
    finally:
        for pid in stack.pids(VLM):
            os.kill(pid, signal.SIGCONT)
    wait_for(lambda: serves(engine, "http://127.0.0.1:8080"), PATIENCE, "the stub to answer")
    assert restarts(stack, VLM) == before
