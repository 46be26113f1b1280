"""./kit on a real Docker engine: what it starts, sees, says and leaves."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from engine import Engine
from kit.errors import ExitCode
from support import API, VLM, Workspace, wait_for

Kit = Callable[..., "subprocess.CompletedProcess[str]"]

# Runs stack.start.bring_up on the GPU stack as ./kit up does; ./kit itself chooses that stack only where NVML shows a GPU.
GPU_UP = """
import os, sys
from pathlib import Path
from kit import console, errors, paths
from kit.catalog.settings import Settings
from kit.stack import start
from kit.stack.compose import ComposeStack
from kit.verbs import up
try:
    stack = ComposeStack(paths.ROOT, Settings(paths.ROOT, os.environ))
    page = start.bring_up(stack, paths.SAMPLE, 90)
    up.say_where(stack)
    console.data(page.markdown)
except errors.KitError as error:
    console.error(error)
    sys.exit(int(error.code))
"""

IS_CURRENT = """
import os
from kit import paths
from kit.catalog.settings import Settings
from kit.stack.compose import ComposeStack
print(ComposeStack(paths.ROOT, Settings(paths.ROOT, os.environ)).is_current())
"""


def inside(engine: Engine, space: Workspace, *argv: str | Path, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """Run a program on the engine's own network, where the published ports are."""
    return engine.call_inside([str(word) for word in argv], env=space.environment, cwd=space.path, timeout=timeout)


def run_python(engine: Engine, space: Workspace, code: str) -> subprocess.CompletedProcess[str]:
    """Python code with the kit's own package and environment."""
    python = space.path / ".kit" / "venv" / "bin" / "python"
    space.environment["PYTHONPATH"] = str(space.path / "scripts")
    return inside(engine, space, python, "-c", code)


def gpu_up(engine: Engine, space: Workspace) -> subprocess.CompletedProcess[str]:
    return run_python(engine, space, GPU_UP)


def status(engine: Engine, space: Workspace) -> dict:
    return json.loads(inside(engine, space, space.path / "kit", "status", "--json").stdout)


def test_the_gpu_stack_comes_up_is_seen_and_goes_down(engine: Engine, space: Workspace) -> None:
    up = gpu_up(engine, space)
    assert up.returncode == 0, up.stderr
    assert "A stub's answer" in up.stdout
    assert "$ docker compose" in up.stderr and " up --detach" in up.stderr, "what changes the machine is echoed"
    old = int(engine.version.split(".")[0]) < 25
    assert ("compose.engine-20.yaml" in up.stderr) is old
    # The names are the official ones; what is inside says what it is.
    assert up.stderr.count("STUB for tests, reads no document") == 2

    seen = status(engine, space)
    assert seen["ready"] is True and seen["stack"] == "GPU stack (Docker Compose)"
    assert {service["name"]: service["state"] for service in seen["services"]} == {VLM: "ready", API: "ready"}
    logs = inside(engine, space, space.path / "kit", "logs", VLM)
    assert logs.returncode == 0 and logs.stdout.strip()

    down = inside(engine, space, space.path / "kit", "down")
    assert f"stopped: {VLM}, {API}" in down.stderr
    assert status(engine, space)["ready"] is False


@pytest.mark.parametrize("engine", ["current"], indirect=True)
def test_a_changed_configuration_is_seen_and_taken_up(engine: Engine, space: Workspace) -> None:
    assert gpu_up(engine, space).returncode == 0
    assert run_python(engine, space, IS_CURRENT).stdout == "True\n"
    with (space.path / "vlm_server_config.yaml").open("a") as config:
        config.write("max-num-seqs: 7\n")
    assert run_python(engine, space, IS_CURRENT).stdout == "False\n", "a mounted file was changed"
    digest = hashlib.sha256((space.path / "vlm_server_config.yaml").read_bytes()).hexdigest()
    inside(engine, space, space.path / "kit", "down")
    assert gpu_up(engine, space).returncode == 0
    assert digest in inside(engine, space, space.path / "kit", "logs", VLM).stdout
    space.environment["VLM_GPU"] = "3"
    assert run_python(engine, space, IS_CURRENT).stdout == "False\n", "a setting was changed"


def test_a_vlm_that_was_killed_is_back_and_seen_as_ready(engine: Engine, space: Workspace) -> None:
    assert gpu_up(engine, space).returncode == 0
    container = json.loads(inside(engine, space, "docker", "inspect", f"kit-up-{VLM}-1").stdout)[0]
    os.kill(container["State"]["Pid"], 9)  # `docker kill` would count as a stop by hand
    wait_for(lambda: status(engine, space)["ready"], 60, "the VLM to be back")
    assert "restarted 1 time" in json.dumps(status(engine, space))


def test_a_gpu_that_docker_cannot_hand_over_is_explained_and_nothing_is_left(engine: Engine, space: Workspace) -> None:
    engine.gpu_failure.write_text("nvidia-container-cli: initialization error: nvml error: driver not loaded: unknown")
    try:
        up = gpu_up(engine, space)
    finally:
        engine.gpu_failure.unlink()
    assert up.returncode == ExitCode.ENVIRONMENT, up.stderr
    assert "no working NVIDIA driver" in up.stderr and "hint: nvidia-smi must work" in up.stderr


def test_the_api_alone_comes_up_without_waiting_for_a_vlm_server(engine: Engine, space: Workspace) -> None:
    """As ./kit configure --vlm-url sets it up. Nobody answers at that address, so no page is read, and that is said."""
    (space.path / ".env").write_text("COMPOSE_FILE=compose.yaml:compose.api-only.yaml\nVLM_URL=http://127.0.0.1:9/v1\n")
    config = space.path / "pipeline_config_vllm.yaml"
    config.write_text(config.read_text().replace("http://paddleocr-vlm-server:8118/v1", "http://127.0.0.1:9/v1"))
    up = gpu_up(engine, space)
    assert up.returncode == ExitCode.FAILED, up.stderr
    assert f"{API}: ready" in up.stderr and f"{VLM}:" not in up.stderr
    assert "HTTP 500" in up.stderr


def test_a_port_that_is_taken_is_named_before_anything_starts(engine: Engine, space: Workspace) -> None:
    listen = "import socket; s = socket.create_server(('127.0.0.1', 8085)); print('listening', flush=True); s.accept()"
    argv = ["nsenter", f"--net={engine.network}", "python3", "-c", listen]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout.readline() == "listening\n"
            up = gpu_up(engine, space)
        finally:
            other.kill()
    assert up.returncode == ExitCode.PORT, up.stderr
    assert f"port 8085 is held by python3 (pid {other.pid}" in up.stderr


def test_a_container_that_dies_at_its_start_ends_the_wait_and_leaves_its_log(engine: Engine, space: Workspace) -> None:
    override = space.path / "compose.override.yaml"
    override.write_text(
        f"services: {{{VLM}: {{command: [sh, -c, 'echo no kernel image is available for execution on the device; exit 3']}}}}\n"
    )
    up = gpu_up(engine, space)
    assert up.returncode in (ExitCode.START, ExitCode.ENVIRONMENT), up.stderr
    assert "the image was built for another GPU generation" in up.stderr and "sm120" in up.stderr
    assert "no kernel image" in (space.path / ".kit" / "logs" / f"{VLM}.log").read_text()


def test_doctor_knows_the_engine_and_its_lack_of_a_gpu(engine: Engine, space: Workspace) -> None:
    done = inside(engine, space, space.path / "kit", "doctor", "--offline", "--json")
    assert done.returncode == ExitCode.PREVIEW_ONLY, done.stderr
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["docker"]["status"] != "fail" and engine.version.split("+")[0] in checks["docker"]["found"]
    assert ("compose.engine-20.yaml" in json.dumps(checks["docker"])) is (int(engine.version.split(".")[0]) < 25)
    assert checks["image-disk"]["found"] and checks["preview-disk"]["found"]
