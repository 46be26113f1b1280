"""The CPU preview behind the gateway, as processes: started by ./kit up, and changed while requests run."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import signal
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from kit import testpage
from kit.errors import ExitCode
from support import API, ROOT, SAMPLES, VLM, Workspace, make_workspace, wait_for

GATEWAY = "paddleocr-vl-gateway"
KEY = "client:key-of-the-local-gateway-4f1d"
HEADERS = {"Authorization": f"Bearer {KEY.partition(':')[2]}"}


@pytest.fixture(scope="module")
def space(preview_install: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """Two APIs behind a gateway that wants a key and speaks TLS, with a certificate of another name."""
    space = make_workspace(tmp_path_factory.mktemp("behind") / "")
    (space.path / "keys").write_text(KEY + "\n")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", "/CN=ocr.example.org", "-keyout", space.path / "key.pem", "-out", space.path / "certificate.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    space.environment |= {
        "API_REPLICAS": "2", "GATEWAY_API_KEYS_FILE": "keys", "GATEWAY_TLS_CERTIFICATE": "certificate.pem",
        "GATEWAY_TLS_KEY": "key.pem", "GATEWAY_PROBE_SECONDS": "0.5",
    }  # fmt: skip
    yield space
    space.kit("down")


@pytest.fixture(scope="module")
def first(space: Workspace) -> str:
    """What the first ./kit up says."""
    up = space.kit("up", "--local")
    assert up.returncode == 0, up.stderr
    assert up.stdout.startswith("# Invoice 2026-0117")
    return up.stderr


def parse(space: Workspace) -> httpx.Response:
    body = {"file": base64.b64encode(testpage.page()).decode(), "fileType": 1}
    return call(space, "POST", "/layout-parsing", json=body, headers=HEADERS)


def call(space: Workspace, method: str, path: str, **options: Any) -> httpx.Response:
    url = space.url.replace("http:", "https:") + path
    context = ssl.create_default_context(cafile=str(space.path / "certificate.pem"))
    context.check_hostname = False
    return httpx.request(method, url, timeout=120, trust_env=False, verify=context, **options)


def charts(reply: httpx.Response) -> bool:
    """By the settings under which the page was read."""
    return reply.json()["result"]["layoutParsingResults"][0]["prunedResult"]["model_settings"]["use_chart_recognition"]


def replicas(space: Workspace) -> list[str]:
    ready = call(space, "GET", "/ready", headers=HEADERS).json()
    return [one["name"] for one in ready["replicas"] if one["state"] == "up"]


def test_two_apis_stand_behind_a_gateway_that_wants_the_key(space: Workspace, first: str) -> None:
    assert len(replicas(space)) == 2
    assert call(space, "POST", "/layout-parsing", json={}).status_code == 401
    assert "POST https://127.0.0.1:" in first and "Bearer $KEY" in first
    (page,) = re.findall(r"^page +https://[^/]+(/) in a browser$", first, re.MULTILINE)
    assert "<title>PaddleOCR-VL</title>" in call(space, "GET", page).text
    assert testpage.HEADING in parse(space).json()["result"]["layoutParsingResults"][0]["markdown"]["text"]
    config = yaml.safe_load((space.path / ".kit/run/pipeline_config_preview.yaml").read_text())
    assert config["use_queues"] is False
    assert KEY.partition(":")[2] not in first
    assert not any(KEY.partition(":")[2] in process for process in commands()), "the key is seen by `ps`"


def commands() -> Iterator[str]:
    """Command line and environment of every process."""
    for file in (file for name in ("cmdline", "environ") for file in Path("/proc").glob(f"[0-9]*/{name}")):
        with contextlib.suppress(OSError):
            yield file.read_bytes().decode(errors="replace")


def test_the_other_verbs_know_all_of_it(space: Workspace, first: str) -> None:
    report = json.loads(space.kit("status", "--json").stdout)
    assert [service["name"] for service in report["services"]] == [VLM, API, GATEWAY] and report["ready"]
    assert "2 replicas: 2 ready" in report["services"][1]["detail"]
    assert space.kit("health", "--deep").returncode == 0
    assert "in service" in space.kit("logs", GATEWAY, "-n", "100").stdout
    assert {line.split(" | ")[0] for line in space.kit("logs", "-n", "4").stdout.splitlines()} == {VLM, API, GATEWAY}
    assert space.kit("parse", SAMPLES / "invoice.png").stdout.startswith("# Invoice 2026-0117")
    assert space.kit("diagnose").returncode == 0


def test_an_api_that_died_is_said_and_the_gateway_serves_on(space: Workspace, first: str) -> None:
    state = json.loads((space.path / ".kit/run/services.json").read_text())
    os.kill(state["services"][API]["pid"], signal.SIGKILL)
    wait_for(lambda: "1 exited" in space.kit("status").stdout, 20, "status to see it")
    assert space.kit("status").returncode == ExitCode.START
    assert parse(space).status_code == 200


def test_a_changed_configuration_is_taken_over_and_no_request_is_lost(space: Workspace, first: str) -> None:
    """Runs last: it also mends what the test before has killed."""
    before = set(replicas(space))
    config = (
        (ROOT / "pipeline_config_vllm.yaml").read_text().replace("use_chart_recognition: False", "use_chart_recognition: True")
    )
    (space.path / "pipeline_config_vllm.yaml").write_text(config)
    replies: list[httpx.Response | Exception] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            try:
                replies.append(parse(space))
            except httpx.HTTPError as error:
                replies.append(error)
            done.wait(0.2)  # the machine has other tests to run

    client = threading.Thread(target=ask)
    client.start()
    try:
        again = space.kit("up", "--local")
        so_far = len(replies)
        wait_for(lambda: len(replies) > so_far + 1, 60, "a reply of the new configuration")
    finally:
        done.set()
        client.join()
    assert again.returncode == 0, again.stderr
    assert "takes the port over" in again.stderr and "it was stopped" not in again.stderr
    assert [getattr(reply, "status_code", reply) for reply in replies] == [200] * len(replies)
    assert [charts(replies[0]), charts(replies[-1])] == [False, True]
    after = set(replicas(space))
    assert len(after) == 2 and not after & before
    assert len(space.processes()) == 3, "VLM and two APIs; nothing of the old ones is left"
    assert "already up" in space.kit("up", "--local").stderr


def test_down_ends_all_of_it(space: Workspace, first: str) -> None:
    assert f"stopped: {VLM}, {API}, {GATEWAY}" in space.kit("down").stderr
    assert space.processes() == [] and space.listening() == []
