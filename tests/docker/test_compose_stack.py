"""compose.yaml, unchanged, on a real Docker engine: what the running containers are, not what the file says.

The images are stubs of the official names (see stubs/); the engine, Compose, the
networks, the health checks and the hardening are real. The GPU is a fake that
records which ids the engine was asked for.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from engine import Engine
from kit.stack import API, SERVICES, VLM
from project import GPUS, OVERRIDE, ROOT, Project, assert_without_rights, every_process

URL = "http://127.0.0.1:8080"
CONFIGS = {
    API: (ROOT / "pipeline_config_vllm.yaml", "/home/paddleocr/pipeline_config.yaml"),
    VLM: (ROOT / "vlm_server_config.yaml", "/home/paddleocr/vlm_server_config.yaml"),
}
both = pytest.mark.parametrize("service", SERVICES)


# --- it comes up and works


@both
def test_becomes_healthy_without_a_restart(stack: Project, service: str) -> None:
    container = stack.container(service)
    assert container["State"]["Health"]["Status"] == "healthy"
    assert container["RestartCount"] == 0


def test_the_api_is_started_only_when_the_vlm_is_healthy(stack: Project) -> None:
    checks = stack.container(VLM)["State"]["Health"]["Log"]
    first_success = min(_time(check["End"]) for check in checks if check["ExitCode"] == 0)
    assert _time(stack.container(API)["State"]["StartedAt"]) >= first_success


def test_a_request_goes_through_both_services(stack: Project, engine: Engine) -> None:
    status, body = engine.get(f"{URL}/layout-parsing", {"file": "", "fileType": 1})
    assert status == 200, body
    assert "A stub's answer" in json.loads(body)["result"]["layoutParsingResults"][0]["markdown"]["text"]


def test_each_service_gets_the_gpu_that_its_variable_names(stack: Project, engine: Engine) -> None:
    given = {service: engine.gpus_of(stack.container(service)["Id"]) for service in SERVICES}
    assert given == {API: GPUS["API_GPU"], VLM: GPUS["VLM_GPU"]}


# --- what can be reached


def test_only_the_api_listens_and_on_this_host_alone(stack: Project, engine: Engine) -> None:
    sockets = engine.call_inside(["ss", "--listening", "--tcp", "--udp", "--numeric", "--no-header"]).stdout.splitlines()
    assert [line.split()[4] for line in sockets] == ["127.0.0.1:8080"]


def test_the_api_answers_on_the_loopback_address_and_on_no_other(stack: Project, engine: Engine) -> None:
    assert engine.get(f"{URL}/health")[0] == 200
    status, why = engine.get(f"http://{_address_of(engine)}:8080/health")
    assert status == 0
    assert "refused" in why or "Failed to connect" in why


def test_the_vlm_is_published_nowhere(stack: Project, engine: Engine) -> None:
    assert not any(stack.container(VLM)["NetworkSettings"]["Ports"].values())
    for host in ("127.0.0.1", _address_of(engine)):
        status, why = engine.get(f"http://{host}:8118/health")
        assert status == 0, f"{host}:8118 answers"
        assert "refused" in why or "Failed to connect" in why


def test_the_vlm_can_be_cut_off_and_then_reaches_nothing_outside(stack: Project, engine: Engine) -> None:
    outside = engine.call_inside(["ip", "-4", "route", "show", "default"]).stdout.split()[2]
    server = ThreadingHTTPServer((outside, 0), BaseHTTPRequestHandler)  # answers 501, which is an answer
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        ask = f"curl -sS --noproxy '*' --max-time 3 -o /dev/null -w '%{{http_code}}' http://{outside}:{server.server_port}/"
        assert stack.execute(API, ask).stdout == "501"  # the API fetches documents that are given by URL
        assert stack.execute(VLM, ask).stdout == "000"
    finally:
        server.shutdown()
        server.server_close()


# --- hardening


@both
def test_every_process_runs_without_rights(stack: Project, service: str) -> None:
    processes = every_process(stack, service)
    assert len(processes) >= 3  # docker-init, the service, this shell
    assert_without_rights(processes)


@both
def test_not_even_root_inside_has_capabilities(stack: Project, service: str) -> None:
    done = stack.execute(service, "grep CapBnd /proc/self/status; chown 0 /home/paddleocr", user="0")
    assert done.stdout.split() == ["CapBnd:", "0" * 16]
    assert "not permitted" in done.stderr


@pytest.mark.parametrize(("service", "limit"), [(API, 4096), (VLM, 16384)])
def test_the_number_of_processes_is_limited(stack: Project, service: str, limit: int) -> None:
    shell = "cat /sys/fs/cgroup/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids/pids.max"
    assert stack.execute(service, shell).stdout.strip() == str(limit)


@both
def test_logs_are_rotated(stack: Project, service: str) -> None:
    assert stack.container(service)["HostConfig"]["LogConfig"] == {
        "Type": "json-file",
        "Config": {"max-size": "10m", "max-file": "5"},
    }


@both
def test_an_init_reaps_and_the_service_restarts(stack: Project, service: str) -> None:
    host = stack.container(service)["HostConfig"]
    assert host["Init"] is True
    assert host["RestartPolicy"]["Name"] == "always"
    assert "init" in stack.execute(service, "cat /proc/1/comm").stdout


# --- configuration


@both
def test_the_config_file_is_the_repositorys_and_was_loaded(stack: Project, service: str) -> None:
    source, inside = CONFIGS[service]
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    assert stack.execute(service, f"sha256sum {inside}").stdout.split()[0] == digest
    assert digest in stack.logs(service)  # the stub says what it read at its start


@both
def test_the_config_file_cannot_be_changed_from_inside(stack: Project, service: str) -> None:
    source, inside = CONFIGS[service]
    before = source.read_bytes()
    done = stack.execute(service, f"echo x >> {inside}", user="0")
    assert done.returncode != 0
    assert "Read-only file system" in done.stderr
    assert source.read_bytes() == before


def test_a_missing_config_file_is_refused_instead_of_made_a_folder(
    engine: Engine, files: tuple[str, ...], tmp_path: Path
) -> None:
    absent = tmp_path / "absent.yaml"
    project = Project(engine, *files, settings={"PIPELINE_CONFIG": str(absent), "COMPOSE_PROJECT_NAME": "absent-config"})
    try:
        done = project.run("create", "--pull", "never")
        assert done.returncode != 0
        assert str(absent) in done.stderr
        assert not absent.exists()
    finally:
        project.run("down")


# --- engines older than 25


def test_start_interval_is_what_an_old_engine_refuses(engine: Engine) -> None:
    project = Project(engine, "compose.yaml", settings={"COMPOSE_PROJECT_NAME": "plain"})
    try:
        done = project.run("create", "--pull", "never")
        if int(engine.version.split(".")[0]) >= 25:
            assert done.returncode == 0, done.stderr
        else:
            assert done.returncode != 0
            assert "start_interval" in done.stderr
            assert "v25" in done.stderr
    finally:
        project.run("down")


def test_the_override_for_old_engines_changes_the_pace_of_health_checks_alone(engine: Engine) -> None:
    plain = Project(engine, "compose.yaml").config()
    old = Project(engine, "compose.yaml", OVERRIDE).config()
    for service in SERVICES:
        ours, theirs = (config["services"][service].pop("healthcheck") for config in (plain, old))
        pace = {"interval", "retries", "start_interval"}
        assert {k: v for k, v in ours.items() if k not in pace} == {k: v for k, v in theirs.items() if k not in pace}
        assert "start_interval" in ours
        assert "start_interval" not in theirs
        assert _seconds(ours["interval"]) * ours["retries"] == _seconds(theirs["interval"]) * theirs["retries"]
    assert old == plain


def _time(text: str) -> datetime:
    """Docker writes nanoseconds, and `Z` or an offset."""
    head, _, rest = text.partition(".")
    digits = rest.rstrip("Z").split("+")[0]
    return datetime.fromisoformat(f"{head}.{digits[:6]:0<6}")


def _seconds(text: str) -> int:
    return int(text.removesuffix("s"))


def _address_of(engine: Engine) -> str:
    """The engine host's own address, which other machines would call."""
    return engine.call_inside(["ip", "-4", "-brief", "addr", "show", "eth0"]).stdout.split()[2].split("/")[0]
