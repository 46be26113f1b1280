"""./kit doctor as a user runs it: the real command on recorded machines, with a fake of the docker command."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nvml
import pytest
from kit.errors import ExitCode
from support import ROOT, Workspace, make_workspace, skip

READY = ("ready", ExitCode.OK)
PREVIEW_ONLY = ("preview-only", ExitCode.PREVIEW_ONLY)
NOT_READY = ("not-ready", ExitCode.ENVIRONMENT)
TAG = "paddleocr3.6-nvidia-gpu"
REGISTRY = "ccr-2vdh3abv-pub.cnc.bj.baidubce.com/paddlepaddle"
QUESTIONS = ("version ", "compose version ", "info ", "context inspect ", "image ls ", "ps ")
HUNG = {"init": "hang"}


@dataclass
class Host:
    """A clone, and an engine that answers from the files of a folder; `doctor` runs the real ./kit there."""

    workspace: Workspace
    engine: Path

    def doctor(
        self, *options: str, machine: str | dict[str, Any] = "rtx4090", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        fakes = {"PATH": f"{self.engine / 'bin'}:{os.environ['PATH']}", "FAKE_DOCKER": str(self.engine)}
        everything = fakes | nvml.nvml_environment(machine) | environment
        return self.workspace.kit("doctor", *options, timeout=120, **everything)

    def told(self, *options: str, machine: str | dict[str, Any] = "rtx4090", **environment: str) -> dict[str, Any]:
        """The JSON, with the checks by their names."""
        done = self.doctor("--json", *options, machine=machine, **environment)
        assert done.stderr == "", done.stderr
        told = json.loads(done.stdout)
        assert told["exit_code"] == done.returncode
        return told | {"checks": {check["name"]: check for check in told["checks"]}}

    def answer(self, question: str, text: str) -> None:
        (self.engine / question).write_text(text)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("doctor"))


@pytest.fixture
def host(clone: Workspace, tmp_path: Path) -> Host:
    return make_host(clone, tmp_path)


def make_host(clone: Workspace, folder: Path) -> Host:
    """Docker as it should be: a current engine, NVIDIA's hook, both images pulled."""
    (folder / "bin").mkdir()
    (folder / "bin" / "docker").symlink_to(ROOT / "tests" / "fakes" / "fake-docker")
    hook = folder / "bin" / "nvidia-container-runtime-hook"
    hook.write_text("#!/bin/sh\n# FAKE of NVIDIA's container hook: it is looked for and never run.\nexit 97\n")
    hook.chmod(0o755)
    host = Host(clone, folder)
    info = {"ServerVersion": "28.5.2", "OperatingSystem": "Debian", "DockerRootDir": str(folder), "Runtimes": {"runc": {}}}
    host.answer("version", '"28.5.2"\n')
    host.answer("compose", "2.40.3\n")
    host.answer("info", json.dumps(info))
    host.answer("context", "unix:///var/run/docker.sock\n")
    host.answer("images", f"{REGISTRY}/paddleocr-vl:{TAG}\n{REGISTRY}/paddleocr-genai-vllm-server:{TAG}\n")
    host.answer("ps", "")
    host.answer("error", "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?\n")
    return host


# machine → verdict, then check: (status, part of what was found)
EXPECTED: dict[str, tuple[tuple[str, ExitCode], dict[str, tuple[str, str]]]] = {
    "rtx5060-8gb": (READY, {"gpu-0": ("ok", "RTX 5060, compute capability 12.0, 7.5 GiB of 8.0 GiB free"),
                            "plan": ("ok", "images: latest-nvidia-gpu-sm120")}),
    "rtx3060-12gb": (READY, {"driver": ("ok", "560.35.03, CUDA 12.6"), "plan": ("ok", f"images: {TAG}")}),
    "rtx4090": (READY, {"gpu-0": ("ok", "GPU-00004090-0000-4000-8000-000000004090; held by")}),
    "rtx5090": (READY, {"driver": ("ok", "575.57.08, CUDA 12.9"), "plan": ("ok", "images: latest-nvidia-gpu-sm120")}),
    "rtx5090-cuda12.8": (PREVIEW_ONLY, {"driver": ("failed", "CUDA 12.8"), "gpu-0": ("failed", "need CUDA 12.9")}),
    "2xa100-80": (READY, {"gpu-0": ("ok", "A100-SXM4-80GB"), "gpu-1": ("ok", "A100-SXM4-80GB")}),
    "h100-mig": (READY, {"gpu-0": ("ok", "3g.40gb (39.5 GiB free, MIG-00000001-"), "plan": ("ok", "3g.40gb of GPU 0")}),
    "h100-mig-container": (READY, {"gpu-0": ("ok", "MIG is on: 3g.40gb (39.5 GiB free")}),
    "h200": (READY, {"gpu-0": ("ok", "NVIDIA H200, compute capability 9.0, 139.8 GiB of 140.4 GiB free")}),
    "b200": (PREVIEW_ONLY, {"driver": ("ok", "CUDA 13.0"), "gpu-0": ("failed", "no official image runs on")}),
    "t4": (PREVIEW_ONLY, {"gpu-0": ("failed", "capability 7.5 is not served by vllm"), "driver": ("failed", "CUDA 12.4")}),
    "v100": (PREVIEW_ONLY, {"gpu-0": ("failed", "compute capability 7.0 is not served by vllm"), "driver": ("ok", "CUDA 12.8")}),
    "wsl2-rtx4070-laptop": (READY, {"gpu-0": ("ok", "6.8 GiB of 8.0 GiB free"), "driver": ("ok", "566.36, CUDA 12.7")}),
    "no-gpu": (PREVIEW_ONLY, {"driver": ("ok", "570.133.20"), "gpu": ("failed", "the driver shows no card")}),
    "no-driver": (PREVIEW_ONLY, {"driver": ("failed", "no NVIDIA driver is installed"), "toolkit": ("neutral", "no card")}),
    "driver-not-loaded": (PREVIEW_ONLY, {"driver": ("failed", "kernel module is not loaded")}),
    "driver-too-old": (PREVIEW_ONLY, {"driver": ("failed", "535.183.01, CUDA 12.2"), "gpu-0": ("failed", "need CUDA 12.6")}),
    "driver-r470": (PREVIEW_ONLY, {"driver": ("failed", "CUDA 11.4"), "gpu-0": ("failed", "pid 4194420, 2,998 MiB")}),
    "gpu-full": (PREVIEW_ONLY, {"gpu-0": ("failed", "(pid 4194430, 44,300 MiB): only 1.1 GiB of 45.0 GiB are free"),
                                "plan": ("failed", "1.1 GiB of 45.0 GiB are free")}),
    "nvml-mismatch": (PREVIEW_ONLY, {"driver": ("failed", "driver/library version mismatch")}),
    "no-permission": (PREVIEW_ONLY, {"driver": ("failed", "may not talk to the NVIDIA driver")}),
    "card-lost": (READY, {"gpu-0": ("ok", "NVIDIA A10"), "gpu-1": ("warning", "GPU is lost")}),
    "8-mixed": (READY, {"gpu-0": ("ok", "A100-PCIE-40GB"), "gpu-1": ("warning", "only 1.3 GiB of 40.0 GiB are free"),
                        "gpu-4": ("warning", "not served by vllm"), "gpu-7": ("ok", "RTX 5060 Ti")}),
    "dgx-spark-gb10": (PREVIEW_ONLY, {"gpu-0": ("failed", "does not tell its memory")}),
}  # fmt: skip


def test_every_machine_has_its_expected_verdict() -> None:
    assert set(EXPECTED) <= set(nvml.NAMES)
    composed = {name for name in nvml.NAMES if nvml.read(name)["about"].startswith("Composed")}
    assert composed <= set(EXPECTED)


@pytest.fixture(scope="module")
def told_on(clone: Workspace, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What ./kit doctor tells on each machine; all cores at work."""
    host = make_host(clone, tmp_path_factory.mktemp("machines"))
    for machine in EXPECTED:
        nvml.nvml_environment(machine)  # compiles once, before threads would
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(EXPECTED, pool.map(lambda name: host.told("--offline", machine=name), EXPECTED), strict=True))


@pytest.mark.parametrize("machine", EXPECTED)
def test_a_machine(told_on: dict[str, dict[str, Any]], machine: str) -> None:
    (verdict, code), checks = EXPECTED[machine]
    told = told_on[machine]
    assert (told["verdict"], told["exit_code"]) == (verdict, code)
    for name, (status, part) in checks.items():
        check = told["checks"][name]
        assert check["status"] == status and part in check["found"], check
        assert check["hint"] if status in ("failed", "warning") else True
    shown = [f"gpu-{gpu['index']}" for gpu in told["facts"]["nvidia"]["gpus"]]
    assert [name for name in told["checks"] if name.startswith("gpu-")] == shown


def test_text_says_the_same_and_ends_with_the_next_command(host: Host) -> None:
    done = host.doctor("--offline")
    assert done.returncode == 0 and done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[-1] == "ready; next: ./kit configure"
    assert "✔ Docker: engine 28.5.2, Compose 2.40.3" in lines
    assert "– Image registry: not asked (--offline, or compose.offline.yaml in COMPOSE_FILE)" in lines
    checks = [number for number, line in enumerate(lines) if line[:1] in ("✔", "!", "✖", "–")]
    assert len(checks) > 10
    assert all(lines[number + 1].startswith("    needed: ") and "; why: " in lines[number + 1] for number in checks)
    done = host.doctor("--offline", machine="t4")
    assert done.stdout.splitlines()[-1] == "ready for the CPU preview only; next: ./kit up --preview"
    assert "    hint: ./kit configure --backend native" in done.stdout


def test_an_engine_that_is_down(host: Host) -> None:
    for name in ("version", "info", "images", "ps"):
        (host.engine / name).unlink()
    told = host.told("--offline")
    assert (told["verdict"], told["facts"]["engine"]) == ("preview-only", None)
    assert "Cannot connect to the Docker daemon" in told["checks"]["docker"]["found"]
    assert "systemctl start docker" in told["checks"]["docker"]["hint"]


def test_the_port_of_another_program(host: Host) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        told = host.told("--offline", API_PORT=port)
        assert (told["verdict"], told["exit_code"]) == NOT_READY
        assert f"pid {os.getpid()}" in told["checks"]["port-API_PORT"]["found"]
        done = host.doctor("--offline", API_PORT=port)
        assert done.stdout.splitlines()[-1] == "not ready; next: mend what is marked ✖, then ./kit doctor"
        host.answer("ps", f"paddleocr-vl-api-1\t{host.workspace.path}\n")
        assert host.told("--offline", API_PORT=port)["checks"]["port-API_PORT"]["status"] == "ok"


def test_nothing_is_changed_and_only_questions_are_asked(host: Host) -> None:
    before = state_of(host.workspace.path)
    host.doctor("--offline")
    assert state_of(host.workspace.path) == before
    calls = (host.engine / "calls").read_text().splitlines()
    assert calls and all(call.startswith(QUESTIONS) for call in calls), calls


def test_an_engine_that_hangs(host: Host) -> None:
    host.answer("hang", "")
    told = host.told("--offline", "--timeout", "1")
    assert told["verdict"] == "preview-only"
    assert told["checks"]["docker"]["found"] == "`docker version` did not answer within 1 s"
    assert "restart docker" in told["checks"]["docker"]["hint"]
    assert told["checks"]["gpu-0"]["status"] == "ok"  # what does not hang is told all the same


def test_a_driver_that_hangs(host: Host) -> None:
    told = host.told("--offline", "--timeout", "1", machine=HUNG)
    assert told["verdict"] == "preview-only"
    assert told["checks"]["driver"]["found"] == "the NVIDIA driver did not answer within 1 s"
    assert told["checks"]["docker"]["status"] == "ok"


def test_the_real_docker_command_on_a_socket_that_hangs(host: Host, tmp_path: Path) -> None:
    unpacked = (ROOT / ".kit" / "test-engines").glob("*/tree/usr/bin/docker")  # by tests/docker/engine.py
    if not (real := shutil.which("docker") or next(unpacked, None)):
        skip("needs the docker command: python3 tests/docker/engine.py install")
    (host.engine / "bin" / "docker").unlink()
    (host.engine / "bin" / "docker").symlink_to(real)
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as silent:  # takes every call, never answers
        silent.bind(str(path))
        silent.listen(50)
        told = host.told("--offline", "--timeout", "1", DOCKER_HOST=f"unix://{path}")
    assert "`docker version` did not answer within 1 s" in told["checks"]["docker"]["found"]


class Registry(http.server.BaseHTTPRequestHandler):
    """As registries greet a caller without a token."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_the_registry_of_the_settings_is_asked_and_not_with_offline(host: Host) -> None:
    Registry.asked = []
    host.answer("images", "")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        settings = {
            "IMAGE_REGISTRY": f"127.0.0.1:{server.server_port}/mirror", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1",
            "API_IMAGE_TAG_SUFFIX": f"{TAG}-offline", "VLM_IMAGE_TAG_SUFFIX": f"{TAG}-offline",
        }  # fmt: skip
        offline = host.told("--offline", **settings)
        assert Registry.asked == [] and offline["checks"]["registry"]["status"] == "neutral"
        told = host.told(**settings)
        server.shutdown()
    assert Registry.asked == ["/v2/"]
    assert told["checks"]["registry"]["status"] == "ok" and "HTTP 401" in told["checks"]["registry"]["found"]
    assert told["checks"]["model-hubs"]["status"] == "neutral" and told["facts"]["hubs"] is None
    gone = host.told("--timeout", "2", **settings)
    assert gone["checks"]["registry"]["status"] == "failed" and gone["verdict"] == "preview-only"


def state_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file with its size and time of change; Python's own caches do not count."""
    files = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}
