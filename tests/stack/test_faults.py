"""What goes wrong while starting or serving: one clear line, the right exit code, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from kit.errors import ExitCode
from support import API, SAMPLES, VLM, Running, Workspace, check_error, interrupt, small_disk, wait_for


def pids(space: Workspace) -> dict[str, int]:
    state = json.loads((space.path / ".kit" / "run" / "services.json").read_text())
    return {name: service["pid"] for name, service in state["services"].items()}


def started(space: Workspace, name: str) -> bool:
    try:
        return name in pids(space)
    except (OSError, ValueError, KeyError):
        return False


def test_ctrl_c_in_the_middle_of_up_leaves_nothing(preview: Running, workspace: Workspace) -> None:
    up = workspace.start("up", "--local")
    wait_for(lambda: len(workspace.processes()) == 2, 60, "both services to be started")
    interrupt(up)
    talk, _ = up.communicate(timeout=60)
    assert up.returncode == ExitCode.INTERRUPTED, talk
    assert "interrupted" in talk and "Traceback" not in talk
    assert workspace.processes() == [] and workspace.listening() == []
    assert not (workspace.path / ".kit" / "run" / "services.json").exists()


def test_sigterm_in_the_middle_of_up_leaves_nothing(preview: Running, workspace: Workspace) -> None:
    up = workspace.start("up", "--local")
    wait_for(lambda: len(workspace.processes()) == 2, 60, "both services to be started")
    up.terminate()
    talk, _ = up.communicate(timeout=60)
    assert up.returncode == 128 + signal.SIGTERM, talk
    assert workspace.processes() == [] and workspace.listening() == []


def test_up_after_a_killed_up_takes_over(preview: Running, workspace: Workspace) -> None:
    up = workspace.start("up", "--local")
    wait_for(lambda: started(workspace, API), 60, "the API to be started")
    up.kill()
    up.wait()
    again = workspace.kit("up", "--local")
    assert again.returncode == 0, again.stderr
    assert len(workspace.processes()) == 2


@pytest.mark.parametrize("name", [VLM, API])
def test_a_service_that_dies_ends_the_wait_at_once(preview: Running, workspace: Workspace, name: str) -> None:
    up = workspace.start("up", "--local")
    wait_for(lambda: started(workspace, API), 60, "the services to be started")
    os.kill(pids(workspace)[name], signal.SIGKILL)
    talk, _ = up.communicate(timeout=30)
    assert up.returncode == ExitCode.START, talk
    assert f"error: {name} died" in talk and "hint: " in talk and "Traceback" not in talk
    assert workspace.processes() == [] and workspace.listening() == []


def test_a_config_that_paddlex_refuses_is_shown_with_its_last_lines(preview: Running, workspace: Workspace) -> None:
    config = workspace.path / "pipeline_config_vllm.yaml"
    # Of a kind that the check of the files knows nothing of.
    text = config.read_text().replace("backend: vllm-server", "backend: vllm-server\n      client_kwargs: {no_such_option: 1}")
    config.write_text(text)
    check_error(workspace.kit("up", "--local"), ExitCode.START, f"{API} died", "no_such_option")
    assert workspace.processes() == []
    assert "no_such_option" in workspace.kit("logs", API).stdout, "the log is still there to be read"


def test_a_config_that_cannot_work_is_refused_before_anything_starts(workspace: Workspace) -> None:
    config = workspace.path / "pipeline_config_vllm.yaml"
    config.write_text(config.read_text().replace("backend: vllm-server", "backend: vllm"))
    check_error(workspace.kit("up", "--local"), ExitCode.USAGE, "pipeline_config_vllm.yaml:", "KIT302", "vllm-server")
    assert workspace.processes() == []


@pytest.mark.parametrize("name", [VLM, API])
def test_status_after_a_death(preview: Running, workspace: Workspace, name: str) -> None:
    assert workspace.kit("up", "--local").returncode == 0
    os.kill(pids(workspace)[name], signal.SIGKILL)
    wait_for(lambda: len(workspace.processes()) == 1, 10, "the death")
    status = workspace.kit("status", "--json")
    assert status.returncode == ExitCode.START
    states = {service["name"]: service["state"] for service in json.loads(status.stdout)["services"]}
    assert states == {name: "exited", ({API, VLM} - {name}).pop(): "ready"}
    if name == VLM:
        done = workspace.kit("parse", SAMPLES / "invoice.png", "--no-retry")
        check_error(done, ExitCode.FAILED, "the API does not reach the VLM server")
    again = workspace.kit("up", "--local")
    assert again.returncode == 0 and "it was stopped" in again.stderr
    assert workspace.kit("parse", SAMPLES / "invoice.png").returncode == 0


def test_an_encrypted_pdf_is_refused_before_it_is_sent(preview: Running, encrypted_pdf: Path) -> None:
    check_error(preview.workspace.kit("parse", encrypted_pdf), ExitCode.INPUT, "encrypted")


def test_no_disk_for_the_preview(workspace: Workspace) -> None:
    home = workspace.path / ".kit" / "preview"
    home.unlink()
    home.mkdir()
    with small_disk(home, 50):
        done = workspace.kit("up", "--local")
        check_error(done, ExitCode.ENVIRONMENT, "not enough disk space", "50 MiB are free")
        assert [path.name for path in home.iterdir() if path.is_dir()] == []


def test_ctrl_c_in_the_middle_of_the_installation_leaves_nothing(workspace: Workspace) -> None:
    home = workspace.path / ".kit" / "preview"
    home.unlink()
    home.mkdir()
    up = workspace.start("up", "--local")
    wait_for(lambda: any(home.glob("*-venv/bin/pip")), 60, "the installation to begin")
    interrupt(up)
    talk, _ = up.communicate(timeout=60)
    assert up.returncode == ExitCode.INTERRUPTED, talk
    assert "Traceback" not in talk
    assert [path.name for path in home.iterdir() if path.is_dir()] == []
    assert workspace.processes() == []
