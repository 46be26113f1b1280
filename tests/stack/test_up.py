"""./kit up, status, logs, down on the CPU preview: what a newcomer sees."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time

import httpx
import pytest
from kit.errors import ExitCode
from support import API, ROOT, SAMPLES, VLM, Running, Workspace, make_workspace, wait_for


def test_up_shows_the_sample_page_on_stdout_and_talk_on_stderr(preview: Running) -> None:
    page = preview.first.stdout
    assert page.startswith("# Invoice 2026-0117")
    for cell in ("Toner cartridge, black", "122.40", "241.37"):
        assert cell in page
    talk = preview.first.stderr
    assert "✔ serving: samples/invoice.png was parsed" in talk
    assert f"POST {preview.url}/layout-parsing" in talk and "./kit view" in talk
    assert "not PaddleOCR-VL" in talk, "the preview says what it is"
    assert "Traceback" not in talk


def shell(command: str, preview: Running) -> dict:
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_printed_curl_line_works_when_pasted(preview: Running) -> None:
    (line,) = re.findall(r"^try it  (.*)$", preview.first.stderr, re.MULTILINE)
    reply = shell(line, preview)
    assert reply["errorCode"] == 0
    assert "Invoice 2026-0117" in reply["result"]["layoutParsingResults"][0]["markdown"]["text"]


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_the_readmes_curl_works_when_pasted(preview: Running, readme: str) -> None:
    (block,) = re.findall(r"```sh\n(\(printf.*?)```", (ROOT / readme).read_text(), re.DOTALL)
    assert shell(block.replace("http://127.0.0.1:8080", preview.url), preview)["errorCode"] == 0


def test_the_readmes_python_works_when_pasted(preview: Running) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    done = subprocess.run(
        ["python3", "-c", block.replace("http://127.0.0.1:8080", preview.url)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.startswith("# Invoice 2026-0117"), done.stderr


def test_a_second_up_is_a_no_op_that_says_so(preview: Running) -> None:
    before = json.loads(preview.workspace.kit("status", "--json").stdout)
    again = preview.workspace.kit("up", "--local")
    assert again.returncode == 0 and "already up: nothing to do" in again.stderr
    after = json.loads(preview.workspace.kit("status", "--json").stdout)
    assert [s["detail"] for s in after["services"]] == [s["detail"] for s in before["services"]]


def test_status(preview: Running) -> None:
    status = preview.workspace.kit("status", "--deep")
    assert status.returncode == 0
    assert re.search(rf"^{VLM} +ready .*pid \d+$", status.stdout, re.MULTILINE)
    assert re.search(rf"^{API} +ready .*pid \d+$", status.stdout, re.MULTILINE)
    assert "a page was parsed in" in status.stdout
    report = json.loads(preview.workspace.kit("status", "--json").stdout)
    assert report["ready"] is True and report["url"] == preview.url
    assert {service["name"]: service["state"] for service in report["services"]} == {API: "ready", VLM: "ready"}


def test_later_commands_find_a_service_that_was_started_on_another_port(preview: Running) -> None:
    status = preview.workspace.kit("status", "--json", API_PORT="")
    assert json.loads(status.stdout)["url"] == preview.url
    assert preview.workspace.kit("parse", SAMPLES / "invoice.png", API_PORT="").stdout.startswith("# Invoice 2026-0117")


def test_logs(preview: Running) -> None:
    assert "Uvicorn running on" in preview.workspace.kit("logs", API, "-n", "500").stdout
    both = preview.workspace.kit("logs", "-n", "3").stdout.splitlines()
    assert {line.split(" | ")[0] for line in both} == {API, VLM} and len(both) == 6


def test_logs_follow_shows_lines_as_they_come(preview: Running) -> None:
    following = preview.workspace.start("logs", "-f", "-n", "0", API)
    seen: list[str] = []
    reader = threading.Thread(target=lambda: seen.extend(iter(following.stdout.readline, "")))
    reader.start()

    def a_new_request_is_shown() -> bool:
        httpx.post(f"{preview.url}/layout-parsing", json={"no": "file"}, trust_env=False)
        return any("POST /layout-parsing" in line for line in seen)

    try:
        wait_for(a_new_request_is_shown, 20, "the line of a request")
    finally:
        os.killpg(following.pid, signal.SIGINT)
        reader.join()
    assert following.wait() == ExitCode.INTERRUPTED


def test_down_leaves_no_process_and_no_port_and_the_next_up_is_quick(tmp_path) -> None:
    space = make_workspace(tmp_path / "")
    try:
        start = time.monotonic()
        up = space.kit("up", "--local")
        seconds = time.monotonic() - start
        assert up.returncode == 0, up.stderr
        # The bound is the promise of the README, five times what it takes on two idle cores.
        assert seconds < 45, up.stderr
        assert len(space.processes()) == 2 and len(space.listening()) == 2
    finally:
        down = space.kit("down")
    assert f"stopped: {VLM}, {API}" in down.stderr
    assert space.processes() == [] and space.listening() == []
    assert "nothing was running" in space.kit("down").stderr


def test_a_changed_configuration_is_taken_up(workspace: Workspace) -> None:
    assert workspace.kit("up", "--local").returncode == 0
    config = workspace.path / "pipeline_config_vllm.yaml"
    config.write_text(config.read_text().replace("use_chart_recognition: False", "use_chart_recognition: True"))
    again = workspace.kit("up", "--local")
    assert again.returncode == 0
    assert "of another configuration" in again.stderr and "already up" not in again.stderr
    assert "already up" in workspace.kit("up", "--local").stderr


def test_two_ups_at_once_start_one_service(workspace: Workspace) -> None:
    both = [workspace.start("up", "--local") for _ in range(2)]
    talk = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], talk
    assert sum("already up" in text for text in talk) == 1
    assert len(workspace.processes()) == 2


def test_it_writes_nowhere_but_below_its_own_folder(workspace: Workspace, tmp_path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    assert workspace.kit("up", "--local", HOME=str(home)).returncode == 0
    changed = [str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()]
    assert changed == []
