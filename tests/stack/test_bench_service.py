"""./kit bench against the running preview, and the VLM of set speed that benchmarks/ puts in its place."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from kit import health
from kit.preview.install import Installation
from support import ROOT, Running, free_port, wait_for

BATCH = 3


def test_the_service_that_runs_here(preview: Running, tmp_path: Path) -> None:
    levels = ("--clients", "2", "--requests", "2", "--pdf-pages", "2")
    done = preview.workspace.kit("bench", "--local", *levels, "--json", tmp_path / "a.json")
    assert done.returncode == 0, done.stdout + done.stderr
    single, long = json.loads((tmp_path / "a.json").read_text())["levels"]
    assert (single["pages"], long["pages"]) == (2, 2)
    for level in (single, long):
        assert level["errors"] == {} and 0 < level["p50"] <= level["p99"]
        assert level["sent_per_page"] > 10_000 and level["received_per_page"] > 1000


@pytest.fixture(scope="module")
def model_of_speed(preview_install: Installation) -> Iterator[str]:
    port = free_port()
    program = ROOT / "benchmarks" / "vlm_of_set_speed.py"
    options = ["--port", str(port), "--crop-ms", "300", "--token-ms", "0", "--batch", str(BATCH), "--model-name", "a-model"]
    process = subprocess.Popen([preview_install.api_python, program, *options], stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(partial(health.answers, f"{url}/health"), 60, "the VLM of set speed")
        yield url
    finally:
        process.kill()
        process.wait()


def ask(url: str, picture: str = "data:image/jpeg;base64,AAAA", model: str = "a-model") -> httpx.Response:
    parts = [{"type": "image_url", "image_url": {"url": picture}}, {"type": "text", "text": "OCR:"}]
    body = {"model": model, "messages": [{"role": "user", "content": parts}]}
    return httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60, trust_env=False)


def get(url: str, path: str) -> dict[str, Any]:
    return httpx.get(url + path, trust_env=False).json()


def test_it_says_that_it_is_no_model_of_text(model_of_speed: str) -> None:
    (model,) = get(model_of_speed, "/v1/models")["data"]
    assert (model["id"], model["owned_by"]) == ("a-model", "model-of-speed-not-of-text")
    assert ask(model_of_speed).json()["model"] == "a-model-model-of-speed-not-of-text"


def test_no_more_crops_at_once_than_the_batch(model_of_speed: str) -> None:
    before = get(model_of_speed, "/counters")
    with ThreadPoolExecutor(3 * BATCH) as pool:
        replies = list(pool.map(lambda _: ask(model_of_speed), range(3 * BATCH)))
    after = get(model_of_speed, "/counters")
    assert all(reply.status_code == 200 for reply in replies)
    assert after["most_at_once"] == BATCH
    assert after["crops"] - before["crops"] == 3 * BATCH
    assert after["slot_seconds"] - before["slot_seconds"] == pytest.approx(3 * BATCH * 0.3)


def test_a_larger_picture_has_more_words(model_of_speed: str) -> None:
    small, large = (ask(model_of_speed, "data:image/jpeg;base64," + "A" * size).json() for size in (6_000, 60_000))
    words = [len(reply["choices"][0]["message"]["content"].split()) for reply in (small, large)]
    assert words == [reply["usage"]["completion_tokens"] for reply in (small, large)]
    assert 4 <= words[0] < words[1]


def test_it_refuses_as_vllm_does(model_of_speed: str) -> None:
    assert ask(model_of_speed, model="another").status_code == 404
    assert httpx.post(f"{model_of_speed}/v1/chat/completions", json={"messages": []}, trust_env=False).status_code == 400
