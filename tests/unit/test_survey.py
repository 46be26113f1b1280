"""What ./kit doctor asks, and that no answer is waited for for ever."""

from __future__ import annotations

import http.server
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import nvml
import psutil
import pytest
from kit.catalog.requirements import MODEL_HUBS
from kit.facts import docker, network, ports, survey
from kit.facts.command import ask
from kit.facts.disk import space
from kit.facts.docker import Engine
from kit.facts.machine import machine
from kit.facts.network import Proxies
from kit.facts.within import side_by_side
from support import ROOT, free_port, wait_for


def test_a_question_that_hangs_holds_up_nothing() -> None:
    never = threading.Event()
    told = side_by_side({"late": (never.wait, "no answer"), "soon": (lambda: "here", "no answer")}, 0.2)
    assert told == {"late": "no answer", "soon": "here"}
    never.set()


def test_a_question_that_hangs_does_not_keep_the_program_alive() -> None:
    hangs = "from kit.facts.within import side_by_side; import threading; side_by_side({'x': (threading.Event().wait, 0)}, 0.1)"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "scripts")}
    assert subprocess.run([sys.executable, "-c", hangs], env=environment, timeout=60).returncode == 0


def test_what_a_question_raises_is_not_lost() -> None:
    with pytest.raises(ZeroDivisionError):
        side_by_side({"broken": (lambda: 1 // 0, None)}, 5)


def test_a_name_that_is_looked_up_for_ever(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    never = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: never.wait())
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in nvml.nvml_environment("no-driver").items():
        monkeypatch.setenv(name, value)
    facts = survey.survey(tmp_path, {}, (), registry="https://registry.example/v2/", hubs=MODEL_HUBS[:1], timeout=3)
    assert facts.registry and facts.registry.status is None and "DNS" in facts.registry.problem
    assert facts.hubs and "DNS" in facts.hubs[0].problem
    assert facts.nvidia.cause == "no-library" and facts.project_space
    never.set()


@contextmanager
def server(status: int, headers: dict[str, str] | None = None) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.mark.usefixtures("no_proxy")
def test_reach() -> None:
    with server(401) as url:
        assert network.reach(url, 5).status == 401
    assert "refused" in network.reach(f"http://127.0.0.1:{free_port()}", 5).problem
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the call, says nothing
        found = network.reach(f"http://127.0.0.1:{silent.getsockname()[1]}", 0.3)
        assert (found.status, found.problem) == (None, "no answer within 0.3 s")
    assert network.reach("http://[broken", 5).problem


@pytest.mark.usefixtures("no_proxy")
def test_a_name_that_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert network.reach("http://registry.example", 5).problem == "its name is not known (DNS)"


def test_a_certificate_that_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        cause = ssl.SSLCertVerificationError("certificate verify failed")
        cause.verify_message = "self-signed certificate"
        raise httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED]") from cause

    monkeypatch.setattr(httpx.Client, "request", refuse)
    found = network.reach("https://registry.example", 5)
    assert found.problem == "its certificate is not trusted here: self-signed certificate"


@pytest.mark.usefixtures("no_proxy")
def test_a_registry_without_tls_is_found(tmp_path: Path) -> None:
    with server(200) as url:
        facts = survey.survey(tmp_path, {}, (), registry=url.replace("http://", "https://") + "/v2/", timeout=5)
    assert facts.registry == replace(facts.registry, url=f"{url}/v2/", status=200)


def test_proxies_are_read_without_their_passwords(tmp_path: Path) -> None:
    (tmp_path / ".docker").mkdir()
    config = {"proxies": {"default": {"httpProxy": "http://me:secret@proxy:3128", "noProxy": "x"}}}
    (tmp_path / ".docker" / "config.json").write_text(json.dumps(config))
    environment = {"HTTP_PROXY": "http://me:secret@proxy:3128", "https_proxy": "me:secret@proxy", "NO_PROXY": "a, b"}
    found = network.proxies(environment, tmp_path)
    assert found.here == {"http": "http://…@proxy:3128", "https": "…@proxy"} and found.bypass == ("a", "b")
    assert found.client == {"http": "http://…@proxy:3128"} and found.client_file.endswith("/.docker/config.json")
    for text in ("", "[]", '{"proxies": 1}', '{"proxies": {"default": []}}'):
        (tmp_path / ".docker" / "config.json").write_text(text)
        assert network.proxies({}, tmp_path) == Proxies()


INFO = {
    "ServerVersion": "28.5.2", "OperatingSystem": "Debian", "Architecture": "x86_64", "DockerRootDir": "/var/lib/docker",
    "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]], "Runtimes": {"runc": {}, "nvidia": {}},
    "DiscoveredDevices": [{"Source": "cdi", "ID": "nvidia.com/gpu=0"}], "HttpProxy": "http://proxy",
    "RegistryConfig": {"IndexConfigs": {"lan:5000": {"Secure": False}, "docker.io": {"Secure": True}}},
}  # fmt: skip


def fake_docker(folder: Path, monkeypatch: pytest.MonkeyPatch, **answers: str) -> None:
    (folder / "docker").symlink_to(ROOT / "tests" / "fakes" / "fake-docker")
    for name, text in {"error": "no\n", **answers}.items():
        (folder / name).write_text(text)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("FAKE_DOCKER", str(folder))
    monkeypatch.delenv("DOCKER_HOST", raising=False)


def test_what_an_engine_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_docker(tmp_path, monkeypatch, info=json.dumps(INFO), context="unix:///run/docker.sock\n", images="a:1\nb:2\n")
    engine = docker.engine()
    assert engine == Engine(
        "28.5.2", "Debian", "x86_64", "unix:///run/docker.sock", "/var/lib/docker", containerd=True,
        runtimes=("nvidia", "runc"), cdi=("nvidia.com/gpu=0",), proxy=True, insecure=("lan:5000",),
    )  # fmt: skip
    assert engine.here and not engine.desktop and docker.images() == ("a:1", "b:2")
    desktop = replace(engine, system="Docker Desktop")
    assert desktop.desktop and not desktop.here
    monkeypatch.setenv("DOCKER_HOST", "tcp://elsewhere:2375")
    elsewhere = docker.engine()
    assert elsewhere and not elsewhere.here


def test_the_engines_disk_and_the_wanted_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def look() -> survey.Facts:
        return survey.survey(tmp_path, {}, ("reg.example/a:1", "docker.io/b/c:2", "d:3"), timeout=5)

    info = {"ServerVersion": "28", "DockerRootDir": str(tmp_path)}
    fake_docker(tmp_path, monkeypatch, info=json.dumps(info), context="unix:///x", images="reg.example/a:1\nb/c:2\nother:9\n")
    facts = look()
    assert facts.images == ("reg.example/a:1", "docker.io/b/c:2")
    assert facts.image_space and facts.image_space.folder == str(tmp_path)
    (tmp_path / "context").write_text("ssh://elsewhere")
    assert look().image_space is None
    (tmp_path / "context").write_text("unix:///x")
    (tmp_path / "info").write_text(json.dumps(info | {"DockerRootDir": "/not/on/this/machine"}))
    facts = look()
    assert facts.engine and facts.image_space is None


@pytest.mark.parametrize("info", ["", "not json", "[]", '{"ServerVersion": ""}', '{"ServerErrors": ["down"]}'])
def test_an_engine_that_tells_nothing(info: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_docker(tmp_path, monkeypatch, info=info)
    assert docker.engine() is None


def test_an_old_engine_tells_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_docker(tmp_path, monkeypatch, info='{"ServerVersion": "20.10.24"}', context="")
    engine = docker.engine()
    assert engine and engine.cdi is None and engine.runtimes == () and not engine.containerd


def test_the_container_that_publishes_a_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_docker(tmp_path, monkeypatch, ps="web\t/srv/clone\n")
    assert docker.publisher(8080) == ("web", "/srv/clone")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports = {"API_PORT": ("127.0.0.1", port)}
        (ours,) = survey.survey(Path("/srv/clone"), ports, (), timeout=5).ports
        (others,) = survey.survey(Path("/srv/other"), ports, (), timeout=5).ports
        (tmp_path / "ps").write_text("")
        (process,) = survey.survey(Path("/srv/clone"), ports, (), timeout=5).ports
    assert ours.ours and ours.holder == "the container web" and not others.ours
    assert not process.ours and f"pid {os.getpid()}" in process.holder


def test_toolkit_is_found_by_its_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ctk = "#!/bin/sh\n# FAKE of nvidia-ctk\necho 'NVIDIA Container Toolkit CLI version 1.17.8'\necho 'commit: f202b80'\n"
    for name in ("nvidia-ctk", "nvidia-container-runtime-hook"):
        (tmp_path / name).write_text(ctk)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path) + ":/bin")
    found = docker.toolkit()
    assert (found.hook, found.ctk) == (str(tmp_path / "nvidia-container-runtime-hook"), "1.17.8")
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    assert docker.toolkit().hook == docker.toolkit().ctk == ""


def test_space_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    found = space(tmp_path / "not" / "yet")
    assert found and found.folder.endswith("not/yet") and 0 < found.free <= found.total


def test_the_machine_is_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    found = machine()
    assert found.system == os.uname().sysname and found.arch == os.uname().machine
    assert 0 < found.memory_available <= found.memory_total and found.cores >= 1
    monkeypatch.setattr("platform.release", lambda: "5.15.167.4-microsoft-standard-WSL2")
    assert machine().wsl == (found.system == "Linux")


def test_port_obstacles(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ports.obstacle("127.0.0.1", free_port()) == ""
    assert ports.obstacle("192.0.2.1", 8080) == "no-address"  # TEST-NET-1 of RFC 5737
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert ports.obstacle("127.0.0.1", taken.getsockname()[1]) == "taken"

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    assert ports.obstacle("127.0.0.1", 80) == "no-permission"


def test_a_program_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    script = tmp_path / "hangs"
    script.write_text(f"#!/bin/sh\nsleep 600 & echo $! > {tmp_path}/child; wait\n")
    script.chmod(0o755)
    answer, problem = ask([str(script)], 1)
    assert answer == "" and problem.endswith("did not answer within 1 s")
    child = int((tmp_path / "child").read_text())
    wait_for(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == "zombie", 10, "the child to end")
    assert ask([str(tmp_path / "none")], 1)[1] and ask(["/bin/false"], 1) == ("", "no output")
