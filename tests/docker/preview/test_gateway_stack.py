"""The gateway as a third service: what the running containers are, and a change that no request notices."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine import Engine
from kit import testpage
from kit.gateway import pages
from kit.stack import API, GATEWAY, VLM
from project import ROOT, Project, assert_without_rights, every_process
from support import Workspace, make_workspace

PORT = "8087"
URL = f"http://127.0.0.1:{PORT}"
KEY = "0123456789abcdef0123456789abcdef"
FILES = ("compose.preview.yaml", "compose.gateway.yaml", "compose.preview-gateway.yaml")

# Asks until its stdin is closed, a small page each time; prints what it got, a line each.
CLIENT = """
import sys, threading
import httpx
done = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), done.set()), daemon=True).start()
headers = {"Authorization": "Bearer " + sys.argv[2], "Content-Type": "application/json"}
body = open(sys.argv[3], "rb").read()
while not done.is_set():
    try:
        reply = httpx.post(sys.argv[1], content=body, headers=headers, timeout=100, trust_env=False)
        pages = reply.json()["result"]["layoutParsingResults"] if reply.status_code == 200 else []
        print(reply.status_code, sum("Health" in page["markdown"]["text"] for page in pages), flush=True)
    except httpx.HTTPError as error:
        print(type(error).__name__, flush=True)
    done.wait(0.2)  # the machine has other tests to run
"""

current = pytest.mark.parametrize("engine", ["current"], indirect=True)  # its images are built once


@pytest.fixture(scope="module")
def space(engine: Engine, preview_base: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A clone whose CPU preview stands behind the gateway, with a key; started by ./kit up."""
    space = make_workspace(tmp_path_factory.mktemp("gateway") / "")
    keys = space.path / "keys"
    keys.write_text(f"client:{KEY}\n")
    space.environment |= engine.environment | {
        "API_PORT": PORT, "COMPOSE_PROJECT_NAME": "kit-gateway", "PREVIEW_BASE_IMAGE": preview_base, "API_REPLICAS": "2",
        "GATEWAY_API_KEYS_FILE": "./keys", "GATEWAY_PROBE_SECONDS": "0.5",
    }  # fmt: skip
    up = kit(engine, space, "up", "--preview")
    try:
        assert up.returncode == 0, up.stderr
        assert up.stdout.startswith("# Invoice 2026-0117") and KEY not in up.stderr
        yield space
    finally:
        down = kit(engine, space, "down")
        left = engine.docker("ps", "--all", "--quiet", "--filter", "label=com.docker.compose.project=kit-gateway")
    assert f"stopped: {VLM}, {API}, {GATEWAY}" in down.stderr and left == ""


@pytest.fixture(scope="module")
def project(engine: Engine, space: Workspace) -> Project:
    """The same by plain `docker compose`."""
    names = ("API_PORT", "COMPOSE_PROJECT_NAME", "PREVIEW_BASE_IMAGE", "API_REPLICAS", "GATEWAY_API_KEYS_FILE")
    return Project(engine, *FILES, settings={name: space.environment[name] for name in names})


def kit(engine: Engine, space: Workspace, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    argv = [str(space.path / "kit"), *words]
    return engine.call_inside(argv, env=space.environment | environment, cwd=space.path, timeout=600)


def containers(engine: Engine, service: str) -> list[dict[str, Any]]:
    label = ("label=com.docker.compose.project=kit-gateway", f"label=com.docker.compose.service={service}")
    ids = engine.docker("ps", "--quiet", "--filter", label[0], "--filter", label[1]).split()
    return [engine.inspect(one) for one in ids]


def replicas(engine: Engine) -> set[str]:
    """Those in service, as the gateway sees them."""
    argv = ["curl", "-sS", "--noproxy", "*", "-H", f"Authorization: Bearer {KEY}", f"{URL}/ready"]
    return {one["name"] for one in json.loads(engine.call_inside(argv).stdout)["replicas"] if one["state"] == "up"}


class Asking:
    """A client that asks all the time while a test changes something."""

    def __init__(self, engine: Engine, space: Workspace, tmp_path: Path) -> None:
        body = tmp_path / "body.json"
        body.write_text(json.dumps({"file": base64.b64encode(testpage.page()).decode(), "fileType": 1}))
        script = [sys.executable, "-c", CLIENT, f"{URL}/layout-parsing", KEY, str(body)]
        self.argv = ["nsenter", f"--net={engine.network}", *script]
        self.replies: list[str] = []

    def __enter__(self) -> Asking:
        self.process = subprocess.Popen(self.argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.reader = threading.Thread(target=lambda: self.replies.extend(line.strip() for line in self.process.stdout or ()))
        self.reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(150)
        self.reader.join()


@current
def test_two_apis_stand_behind_one_gateway_and_it_alone_is_published(engine: Engine, space: Workspace) -> None:
    apis = containers(engine, API)
    assert replicas(engine) == {f"{address}:8080" for one in apis for address in addresses(one)} and len(apis) == 2
    assert not any(ports for one in (*apis, *containers(engine, VLM)) for ports in one["NetworkSettings"]["Ports"].values())
    (gateway,) = containers(engine, GATEWAY)
    assert gateway["NetworkSettings"]["Ports"] == {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": PORT}]}
    assert gateway["Image"] == apis[0]["Image"], "nothing more to carry"
    status, body = engine.get(f"{URL}/layout-parsing", {"file": "", "fileType": 1})
    assert status == 401 and json.loads(body)["errorCode"] == 401
    assert engine.get(f"{URL}/viewer/icon.svg") == (200, (pages.FOLDER / "icon.svg").read_text()), "without a key"


@current
def test_api_and_vlm_have_no_way_out(engine: Engine, space: Workspace) -> None:
    for one in (*containers(engine, API), *containers(engine, VLM)):
        routes = engine.docker("exec", one["Id"], "cat", "/proc/net/route").splitlines()[1:]
        assert routes and "00000000" not in [line.split()[1] for line in routes], "there is a default route"
    (gateway,) = containers(engine, GATEWAY)
    routes = engine.docker("exec", gateway["Id"], "cat", "/proc/net/route").splitlines()[1:]
    assert "00000000" in [line.split()[1] for line in routes], "what cannot fail here could not fail above"


@current
def test_the_gateway_has_no_rights_and_shows_no_secret(engine: Engine, space: Workspace, project: Project) -> None:
    assert_without_rights(every_process(project, GATEWAY))
    for target in ("/opt/gateway/kit/gateway/x", "/run/gateway/api-keys", "/x"):
        assert "Read-only file system" in project.execute(GATEWAY, f"echo x > {target}", user="0").stderr
    assert project.execute(GATEWAY, "ls /opt/gateway/kit").stdout.split() == sorted(
        ["__init__.py", "documents.py", "errors.py", "reply.py", "testpage.py", "gateway", "viewer"]
    )
    (gateway,) = containers(engine, GATEWAY)
    assert KEY not in json.dumps(gateway)
    assert KEY not in engine.docker("top", gateway["Id"], "-eo", "pid,args")
    assert KEY not in project.logs(GATEWAY)


@current
def test_the_other_verbs_know_all_of_it(engine: Engine, space: Workspace) -> None:
    report = json.loads(kit(engine, space, "status", "--json").stdout)
    assert [service["name"] for service in report["services"]] == [VLM, API, GATEWAY] and report["ready"]
    assert "2 replicas: 2 ready" in report["services"][1]["detail"]
    assert kit(engine, space, "health", "--deep").returncode == 0
    assert "in service" in kit(engine, space, "logs", GATEWAY, "-n", "100").stdout
    assert "already up" in kit(engine, space, "up", "--preview").stderr


@current
def test_a_changed_configuration_replaces_api_after_api_and_no_request_is_lost(
    engine: Engine, space: Workspace, tmp_path: Path
) -> None:
    before = {name: {one["Id"] for one in containers(engine, name)} for name in (VLM, API, GATEWAY)}
    overlay = space.path / "compose.preview-gateway.yaml"
    overlay.write_text(overlay.read_text().replace('OMP_NUM_THREADS: "1"', 'OMP_NUM_THREADS: "2"'))
    with Asking(engine, space, tmp_path) as asking:
        up = kit(engine, space, "up", "--preview", API_REPLICAS="3")
    assert up.returncode == 0, up.stderr
    assert asking.replies and set(asking.replies) == {"200 1"}, asking.replies
    assert up.stderr.count("stopping API") == 2 and "replacing" not in up.stderr
    after = {name: {one["Id"] for one in containers(engine, name)} for name in (VLM, API, GATEWAY)}
    assert after[VLM] == before[VLM] and after[GATEWAY] == before[GATEWAY]
    assert len(after[API]) == 3 and not after[API] & before[API]
    assert len(replicas(engine)) == 3


@current
def test_an_api_that_cannot_start_is_taken_away_and_the_others_go_on(engine: Engine, space: Workspace) -> None:
    overlay = space.path / "compose.preview-gateway.yaml"
    sound = overlay.read_text()
    before = {one["Id"] for one in containers(engine, API)}
    overlay.write_text(sound.replace("pipeline_config_gateway.yaml", "no_such_config.yaml"))
    try:
        up = kit(engine, space, "up", "--preview", API_REPLICAS="3")
    finally:
        overlay.write_text(sound)
    assert up.returncode != 0 and "the others go on in the old configuration" in up.stderr
    assert {one["Id"] for one in containers(engine, API)} == before
    assert len(replicas(engine)) == 3


@current
def test_what_changes_the_gateway_itself_is_said_and_done(engine: Engine, space: Workspace) -> None:
    (before,) = containers(engine, GATEWAY)
    apis = {one["Id"] for one in containers(engine, API)}
    up = kit(engine, space, "up", "--preview", API_REPLICAS="3", GATEWAY_PAGES_PER_RANGE="4")
    assert up.returncode == 0, up.stderr
    assert "replacing the gateway" in up.stderr and "stopping API" not in up.stderr
    (after,) = containers(engine, GATEWAY)
    assert after["Id"] != before["Id"] and "GATEWAY_PAGES_PER_RANGE=4" in after["Config"]["Env"]
    assert {one["Id"] for one in containers(engine, API)} == apis


def test_every_engine_takes_the_gateway_beside_the_gpu_stack(engine: Engine, files: tuple[str, ...]) -> None:
    """The stub of the API's image cannot run it; what it would be is seen all the same."""
    project = Project(engine, *files, "compose.gateway.yaml", settings={"COMPOSE_PROJECT_NAME": "created", "API_REPLICAS": "3"})
    try:
        project.ask("create", "--pull", "never")
        made = engine.docker("ps", "--all", "--filter", "label=com.docker.compose.project=created", "--format", "{{.Names}}")
        assert len([name for name in made.split() if API in name]) == 3
        gateway = project.container(GATEWAY)
        assert gateway["HostConfig"]["DeviceRequests"] is None and gateway["HostConfig"]["ReadonlyRootfs"] is True
        assert gateway["HostConfig"]["CapDrop"] == ["ALL"] and gateway["Config"]["User"] == "1000:1000"
        code = {mount["Source"]: mount["RW"] for mount in gateway["Mounts"]}
        assert code[str(ROOT / "scripts/kit/gateway")] is False and not any(code.values())
    finally:
        project.run("down", "--volumes")


def addresses(container: dict[str, Any]) -> list[str]:
    return [network["IPAddress"] for network in container["NetworkSettings"]["Networks"].values()]
