"""The API's side of a Compose stack, with a `docker` that runs what it is given here instead of in a container."""

from __future__ import annotations

import http.server
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.catalog.settings import Settings
from kit.errors import ExitCode
from kit.health import Wiring
from kit.stack import API, VLM, Service, inside
from kit.stack.checkup import of_stack
from kit.stack.compose import ComposeStack
from support import ROOT, free_port

# Stands for `docker compose … exec --no-TTY paddleocr-vl-api python3 -c SCRIPT`; PID 1 is another program here.
FAKE = """#!{python}
import os, sys
words = sys.argv[1:]
assert words[:2] == ["compose", "--project-directory"] or words[0] == "version", words
if words[0] == "version":
    print("28.5.2")
elif os.environ.get("FAKE_REFUSES"):
    sys.exit('service "paddleocr-vl-api" is not running')
elif "exec" in words:
    at = words.index("exec")
    assert words[at : at + 5] == ["exec", "--no-TTY", "paddleocr-vl-api", "python3", "-c"], words
    os.execv({python!r}, [{python!r}, "-c", words[-1].replace("/proc/1/cmdline", os.environ["FAKE_CMDLINE"])])
"""


class Vlm(http.server.BaseHTTPRequestHandler):
    """Lists one model to whoever has the key."""

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        allowed = self.headers["authorization"] == "Bearer the-key"
        status = 401 if not allowed else 200 if self.path in ("/v1/models", "/health") else 404
        body = json.dumps({"data": [{"id": "PaddleOCR-VL-0.9B"}]}).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def vlm() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Vlm)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ComposeStack:
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(FAKE.format(python=sys.executable))
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{docker.parent}:/usr/bin:/bin")
    monkeypatch.setenv("FAKE_CMDLINE", str(tmp_path / "cmdline"))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "API_PORT"):
        monkeypatch.delenv(name, raising=False)
    return ComposeStack(ROOT, Settings(ROOT, {"API_PORT": str(free_port())}))


def config(folder: Path, url: str, model: str = "PaddleOCR-VL-0.9B", key: str = "the-key") -> None:
    """A pipeline config, and the command line of an API that was started with it under an init."""
    path = folder / "pipeline.yaml"
    path.write_text(
        f"SubModules:\n  VLRecognition:\n    model_name: {model}\n    genai_config:\n"
        f"      backend: vllm-server\n      server_url: {url}\n      client_kwargs: {{api_key: {key}}}\n"
    )
    words = ["/sbin/docker-init", "--", "paddlex", "--serve", "--pipeline", str(path), "--port", "8080"]
    (folder / "cmdline").write_text("\0".join(words) + "\0")


def test_the_config_and_the_vlm_are_seen_from_inside(stack: ComposeStack, vlm: str, tmp_path: Path) -> None:
    config(tmp_path, vlm)
    wired = inside.wiring_of(stack)
    assert wired == Wiring("vllm-server", vlm, "PaddleOCR-VL-0.9B", "the-key")
    found = inside.reach(stack, wired)
    assert (found.status, found.served, found.problem) == (200, ("PaddleOCR-VL-0.9B",), "")


def test_answers_of_a_vlm_that_is_not_as_it_should_be(stack: ComposeStack, vlm: str) -> None:
    assert inside.reach(stack, Wiring("vllm-server", vlm, "x", "wrong")).status == 401
    assert inside.reach(stack, Wiring("vllm-server", vlm.removesuffix("/v1"), "x", "the-key")).status == 404
    nobody = inside.reach(stack, Wiring("vllm-server", f"http://127.0.0.1:{free_port()}/v1", "x"))
    assert nobody.status == 0 and "refused" in nobody.problem
    nowhere = inside.reach(stack, Wiring("vllm-server", "no address", "x"))
    assert nowhere.status == 0 and nowhere.problem


def test_a_container_that_cannot_be_entered(stack: ComposeStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_REFUSES", "1")
    with pytest.raises(inside.NotSeen, match="is not running"):
        inside.wiring_of(stack)


def states(stack: ComposeStack, monkeypatch: pytest.MonkeyPatch, vlm: str, api: str, vlm_log: str = "") -> None:
    monkeypatch.setattr(stack, "ps", lambda: [Service(VLM, vlm, 60), Service(API, api, 60)])
    monkeypatch.setattr(stack, "tail", lambda name, lines: vlm_log.splitlines() if name == VLM else [])


@pytest.mark.parametrize(
    ("vlm_state", "api_state", "log", "verdict", "code"),
    [
        ("exited", "absent", "ValueError: No available memory for the cache blocks.", "down", ExitCode.START),
        ("unhealthy", "absent", "", "down", ExitCode.START),
        ("starting", "absent", "", "starting", ExitCode.START),
        ("ready", "exited", "", "down", ExitCode.START),
        ("ready", "starting", "", "starting", ExitCode.START),
        ("ready", "ready", "", "api-dead", ExitCode.UNREACHABLE),
    ],
)
def test_what_does_not_answer(stack, monkeypatch, tmp_path, vlm_state, api_state, log, verdict, code) -> None:
    states(stack, monkeypatch, vlm=vlm_state, api=api_state, vlm_log=log)
    found = of_stack(stack, tmp_path, deep=True, timeout=1)
    assert (found.health.verdict, found.health.code) == (verdict, code)
    assert found.probe is None
    if log:
        assert VLM in found.health.summary and "nothing of the VLM's memory share is left" in found.health.summary
        assert "raise gpu-memory-utilization" in found.health.hint


def test_an_unhealthy_api_is_asked_all_the_same(stack, vlm, monkeypatch, tmp_path) -> None:
    """Its container's check asks the VLM too, so this is what a VLM of another name looks like."""
    config(tmp_path, vlm, model="PaddleOCR-VL-1.6-0.9B")
    states(stack, monkeypatch, vlm="ready", api="unhealthy")
    monkeypatch.setattr("kit.health.answers", lambda url, timeout=2.0: True)
    found = of_stack(stack, tmp_path, deep=True, timeout=1)
    assert found.health.verdict == "wrong-model" and found.probe is None
    report = found.as_json(0.0)
    assert report["vlm"]["served"] == ["PaddleOCR-VL-0.9B"] and "the-key" not in json.dumps(report)
