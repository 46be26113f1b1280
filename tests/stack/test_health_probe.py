"""./kit health, diagnose and status on the running preview: what a monitor sees, through the real PaddleX."""

from __future__ import annotations

import json
import os
import signal

from kit.errors import ExitCode
from kit.probe import WORD
from support import API, SAMPLES, VLM, Running, Workspace, wait_for


def pids(space: Workspace) -> dict[str, int]:
    state = json.loads((space.path / ".kit" / "run" / "services.json").read_text())
    return {name: service["pid"] for name, service in state["services"].items()}


def test_a_healthy_service(preview: Running) -> None:
    shallow = preview.workspace.kit("health")
    assert (shallow.returncode, shallow.stderr) == (0, "")
    assert shallow.stdout == "healthy: the API answers, reaches its VLM (PaddleOCR-VL-0.9B)\n"
    deep = preview.workspace.kit("health", "--deep", "--json")
    report = json.loads(deep.stdout)
    assert deep.returncode == 0 and report["healthy"]
    assert report["page"]["outcome"] == "read" and report["page"]["word_read"], f"the preview reads {WORD!r}"
    assert report["vlm"] == {
        "backend": "vllm-server", "server_url": f"{preview.vlm_url}/v1", "requested": "PaddleOCR-VL-0.9B",
        "seen_from": "the API", "served": ["PaddleOCR-VL-0.9B"],
    }  # fmt: skip


def test_a_healthy_services_logs_show_no_trouble(preview: Running) -> None:
    assert preview.workspace.kit("parse", SAMPLES / "invoice.png").returncode == 0
    done = preview.workspace.kit("diagnose")
    assert done.returncode == 0 and done.stdout == f"no trouble in {VLM}, {API}\n"
    assert "known cause" not in preview.workspace.kit("logs", "-n", "1").stderr


def test_a_hung_vlm_is_told_from_a_busy_service(preview: Running) -> None:
    vlm = pids(preview.workspace)[VLM]
    os.kill(vlm, signal.SIGSTOP)
    try:
        hung = preview.workspace.kit("health", "--deep")
        assert hung.returncode == ExitCode.VLM and "does not reach its VLM" in hung.stdout
    finally:
        os.kill(vlm, signal.SIGCONT)
    assert preview.workspace.kit("health", "--deep").returncode == 0


def test_a_model_of_another_name(preview: Running) -> None:
    """The file that the API has read is changed, and not the API: what counts here is what the kit concludes."""
    config = preview.workspace.path / ".kit" / "run" / "pipeline_config_preview.yaml"
    text = config.read_text()
    config.write_text(text.replace("model_name: PaddleOCR-VL-0.9B", "model_name: PaddleOCR-VL-1.6-0.9B"))
    try:
        done = preview.workspace.kit("health")
    finally:
        config.write_text(text)
    assert done.returncode == ExitCode.VLM
    assert "asks for PaddleOCR-VL-1.6-0.9B, the VLM serves PaddleOCR-VL-0.9B" in done.stdout and "hint: " in done.stderr


def test_deep_probes_do_not_pile_up_on_a_busy_service(preview: Running) -> None:
    """Twelve pages are in front of it. That PaddleX works at them while the probes come is what `parse` shows at the end."""
    space = preview.workspace
    work = space.start("parse", str(SAMPLES / "twelve-pages.pdf"), str(SAMPLES / "paper.pdf"))
    try:
        first = space.kit("health", "--deep", "--timeout", "0.2")
        assert first.returncode == ExitCode.BUSY and first.stdout.startswith("busy: the API lives"), first
        second = space.kit("health", "--deep", "--json")
        assert second.returncode == ExitCode.BUSY and json.loads(second.stdout)["page"]["sent"] is False
        assert space.kit("status", "--deep").returncode == ExitCode.BUSY
        assert space.kit("health").returncode == 0, "the shallow check goes on"
    finally:
        talk = work.communicate(timeout=180)[0]
        for record in (space.path / ".kit" / "run").glob("deep-*.json"):
            record.unlink()  # the preview is shared: the next test's probe is no second one
    assert work.returncode == 0, talk
    assert space.kit("health", "--deep").returncode == 0


def test_a_dead_vlm(preview: Running, workspace: Workspace) -> None:
    """From the API's side, in its log, and in the log that the VLM has left."""
    assert workspace.kit("up", "--local").returncode == 0
    os.kill(pids(workspace)[VLM], signal.SIGKILL)
    wait_for(lambda: len(workspace.processes()) == 1, 10, "the death")
    health = workspace.kit("health", "--deep", "--json")
    report = json.loads(health.stdout)
    assert health.returncode == ExitCode.VLM and report["verdict"] == "vlm-unreached"
    assert report["page"] is None, "no page is sent where it cannot be read"

    workspace.kit("parse", SAMPLES / "invoice.png")
    (finding,) = json.loads(workspace.kit("diagnose", "--json").stdout)["findings"]
    assert finding["name"] == "vlm-unreachable" and finding["log"] == API
    shown = workspace.kit("logs", API, "-n", "2000")
    assert "'vlm' worker: Connection error." in shown.stdout.splitlines()[finding["line"] - 1]
    assert "known cause: the API does not reach the VLM server" in shown.stderr

    with (workspace.path / ".kit" / "logs" / f"{VLM}.log").open("a") as file:
        file.write("RuntimeError: CUDA error: no kernel image is available for execution on the device\n")
    status = workspace.kit("status")
    assert status.returncode == ExitCode.START
    assert f"{VLM}: the image was built for another GPU generation" in status.stdout
    causes = {service["name"]: service["cause"] for service in json.loads(workspace.kit("status", "--json").stdout)["services"]}
    assert causes[API] is None and "sm120" in causes[VLM]["fix"]
    names = [entry["name"] for entry in json.loads(workspace.kit("diagnose", "--json").stdout)["findings"]]
    assert names == ["gpu-image-mismatch", "vlm-unreachable"]
    health = workspace.kit("health")
    assert "another GPU generation" in health.stdout and "sm120" in health.stderr
