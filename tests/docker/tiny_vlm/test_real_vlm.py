"""The VLM service of compose.yaml, unchanged, with the real `paddleocr genai_server` and the real vLLM; on a CPU.

The image is tiny_vlm/: its model has random weights and always answers the same
text, so the wiring is tested and no reading. vLLM is 0.28.0 for CPUs; PaddleX
installs 0.10.2 on a GPU host, which cannot serve on a CPU.
"""

from __future__ import annotations

import ast
import base64
import io
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from base_image import make_base_image
from engine import Engine
from kit.stack import API, VLM
from PIL import Image
from project import PREVIEW_IMAGES, ROOT, Project
from support import skip, wait_for
from tiny_vlm.image import PackagesUnavailable, build_image

ANSWER = "tiny random model says OK"
MODEL = "PaddleOCR-VL-0.9B"
VLM_TAG, API_TAG = "test-tiny-random-model", "test-cpu-preview"
VLM_URL = "http://127.0.0.1:8118"
PORT = "8091"
# Each some three times what two busy cores took.
START_SECONDS, ARGUMENTS_SECONDS, PAGE_SECONDS, STALL_SECONDS = 300.0, 180.0, 120.0, 180.0
TRIES = 3  # of the health check, 10 s each

pytestmark = pytest.mark.parametrize("engine", ["current"], indirect=True)


@pytest.fixture(scope="module")
def image(engine: Engine) -> str:
    """The test image, under the name that compose.yaml asks for when the tag is VLM_TAG."""
    name = _config(engine)["services"][VLM]["image"]
    try:
        build_image(engine, make_base_image(engine), name)
    except PackagesUnavailable as error:
        skip(str(error))
    return name


@pytest.fixture(scope="module")
def served(engine: Engine, image: str) -> Iterator[Project]:
    """The service as compose.yaml has it, healthy. The tests that share it only ask."""
    project = _project(engine, "real-vlm", HANG_TRIES=str(TRIES))
    try:
        yield _start(project)
    finally:
        project.run("down", "--volumes")


# --- it serves, and as what it was told


def test_health_and_model_list(served: Project) -> None:
    assert _ask(served, "/health")[0] == 200
    status, models = _ask(served, "/v1/models")
    assert status == 200
    assert [(model["id"], model["max_model_len"]) for model in models["data"]] == [(MODEL, 16384)]


def test_the_command_is_the_one_of_compose_yaml(served: Project) -> None:
    words = _config(served.engine)["services"][VLM]["command"]
    assert words[:2] == ["paddleocr", "genai_server"]
    init = served.execute(VLM, "tr '\\0' '\\n' < /proc/1/cmdline").stdout.splitlines()
    assert init[init.index("--") + 1 :] == words


def test_the_model_was_found_without_a_download(served: Project) -> None:
    log = served.logs(VLM)
    assert "Model files already exist. Using cached files." in log
    assert "/home/paddleocr/.paddlex/official_models/PaddleOCR-VL" in log


def test_vllm_got_every_setting_of_the_config_file(served: Project) -> None:
    settings = yaml.safe_load((ROOT / "vlm_server_config.yaml").read_text())
    assert settings == {"gpu-memory-utilization": 0.7, "max-model-len": 16384, "max-num-batched-tokens": 16384}
    arguments = _arguments(served)
    assert {name: arguments.get(name.replace("-", "_")) for name in settings} == settings
    assert "enforce_eager" not in arguments


def test_the_engine_works_with_these_settings(served: Project) -> None:
    """What the engine itself reports after parsing, not what it was told."""
    log = served.logs(VLM)
    assert "Initializing a V1 LLM engine (v0.28.0)" in log
    assert "max_seq_len=16384" in log
    assert "enforce_eager=False" in log
    assert "max_num_batched_tokens=16384" in log
    metrics = served.execute(VLM, f"curl -sS --noproxy '*' {VLM_URL}/metrics").stdout
    assert re.search(r'vllm:cache_config_info\{.*gpu_memory_utilization="0\.7"', metrics)


def test_a_picture_is_answered(served: Project) -> None:
    status, answer = _ask(served, "/v1/chat/completions", _request(_picture(600, 100)))
    assert status == 200, answer
    assert answer["model"] == MODEL
    assert answer["choices"][0]["message"]["content"] == ANSWER
    assert answer["choices"][0]["finish_reason"] == "stop"


def test_the_picture_is_truly_looked_at(served: Project) -> None:
    """The text says nothing of the picture; the number of its tokens does: one for 28 x 28 pixels, after scaling."""
    counts = []
    for width, height in ((600, 600), (1200, 600)):
        _, answer = _ask(served, "/v1/chat/completions", _request(_picture(width, height)))
        counts.append(answer["usage"]["prompt_tokens"])
    assert counts[1] - counts[0] == (1204 * 588 - 588 * 588) // 28**2


def test_a_broken_picture_is_refused(served: Project) -> None:
    status, answer = _ask(served, "/v1/chat/completions", _request(b"no picture"))
    assert status == 400, answer


def test_another_model_is_unknown(served: Project) -> None:
    status, answer = _ask(served, "/v1/chat/completions", _request(_picture(64, 64)) | {"model": "PaddleOCR-VL-1.5-0.9B"})
    assert status == 404
    assert "PaddleOCR-VL-1.5-0.9B" in json.dumps(answer)


def test_the_image_says_what_it_is(served: Project) -> None:
    labels = served.container(VLM)["Config"]["Labels"]
    assert "TEST" in labels["org.opencontainers.image.title"]
    assert "tiny random model" in labels["org.opencontainers.image.title"]
    assert "Not the official image" in labels["org.opencontainers.image.description"]


# --- the real API in front of it


@pytest.mark.usefixtures("preview_base")
def test_a_page_goes_through_the_real_api_and_the_real_vllm(served: Project, engine: Engine, tmp_path: Path) -> None:
    config = _tag_preview_api(engine, tmp_path)
    project = _project(
        engine, "real-vlm", HANG_TRIES=str(TRIES), PIPELINE_CONFIG=str(config), API_PORT=PORT, API_IMAGE_TAG_SUFFIX=API_TAG
    )
    project.ask("up", "--detach", "--wait", "--wait-timeout", "120", "--pull", "never", API, timeout=150)
    picture = base64.b64encode((ROOT / "samples" / "invoice.png").read_bytes()).decode()
    before = _answers_given(served)
    status, body = engine.get(f"http://127.0.0.1:{PORT}/layout-parsing", {"file": picture, "fileType": 1}, timeout=PAGE_SECONDS)
    assert status == 200, f"{body[:2000]}\n{project.logs(API)[-4000:]}"
    page = json.loads(body)["result"]["layoutParsingResults"][0]
    blocks = [(block["block_label"], block["block_content"]) for block in page["prunedResult"]["parsing_res_list"]]
    # A block that PaddleX reads together with the one before it has no text of its own.
    assert {text for _, text in blocks} <= {ANSWER, ""}, blocks
    read = sum(text == ANSWER for _, text in blocks)
    assert read >= 5, blocks
    assert _answers_given(served) - before == read, blocks
    assert ANSWER in page["markdown"]["text"]


# --- it heals


def test_an_engine_that_stands_still_behind_a_healthy_port_is_restarted(served: Project) -> None:
    """As after a hang in the GPU driver: /health goes on answering 200, and no token ever comes."""
    before = served.container(VLM)["RestartCount"]
    lines = served.engine.docker("top", served.container(VLM)["Id"], "-eo", "pid,args").splitlines()
    (pid,) = (int(line.split()[0]) for line in lines if "EngineCore" in line)
    os.kill(pid, signal.SIGSTOP)
    assert _ask(served, "/health")[0] == 200
    served.execute(VLM, "rm -f /dev/shm/life-*.asked")  # ask at the next check, and not only once a minute
    wait_for(lambda: served.container(VLM)["RestartCount"] > before, STALL_SECONDS, "the health check to kill the service")
    assert f"no token in {10 * TRIES} s; killing the service" in served.logs(VLM)
    wait_for(lambda: served.container(VLM)["State"]["Health"]["Status"] == "healthy", START_SECONDS, "the VLM to be back")
    assert _ask(served, "/v1/chat/completions", _request(_picture(64, 64)))[0] == 200


# --- what the config file can do wrong


def test_a_misspelt_key_ends_the_start_with_vllms_own_words(engine: Engine, image: str, tmp_path: Path) -> None:
    project = _project(engine, "misspelt", VLM_CONFIG=_config_file(tmp_path, "max-model-length: 16384\n"))
    try:
        done = project.run("run", "--rm", "--no-deps", "--no-TTY", "--pull", "never", VLM, timeout=ARGUMENTS_SECONDS)
        said = done.stdout + done.stderr
        assert done.returncode == 2, said[-4000:]
        assert "error: unrecognized arguments: --max-model-length" in said
    finally:
        project.run("down", "--volumes")


def test_false_switches_eager_mode_on(engine: Engine, image: str, tmp_path: Path) -> None:
    """The trap that vlm_server_config.yaml warns of: PaddleX passes any boolean as a bare flag."""
    project = _project(engine, "eager", VLM_CONFIG=_config_file(tmp_path, "enforce-eager: false\n"))
    try:
        project.ask("up", "--detach", "--no-deps", "--pull", "never", VLM)
        assert _wait_for_arguments(project)["enforce_eager"] is True
    finally:
        project.run("down", "--volumes", "--timeout", "1")


# --- helpers


def _project(engine: Engine, name: str, **settings: str) -> Project:
    return Project(engine, "compose.yaml", settings={"COMPOSE_PROJECT_NAME": name, "VLM_IMAGE_TAG_SUFFIX": VLM_TAG, **settings})


def _config(engine: Engine) -> dict[str, Any]:
    return _project(engine, "config").config()


def _start(project: Project) -> Project:
    """Start the VLM service alone and wait until it is healthy."""
    wait = ("--wait", "--wait-timeout", f"{START_SECONDS:.0f}")
    done = project.run("up", "--detach", "--no-deps", "--pull", "never", *wait, VLM, timeout=START_SECONDS + 30)
    assert done.returncode == 0, f"{done.stderr[-1000:]}\n{project.logs(VLM)[-6000:]}"
    return project


def _ask(project: Project, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
    """Status and JSON of the VLM, asked from inside its container: it is published nowhere."""
    words = ["curl", "-sS", "--noproxy", "*", "--max-time", "60", "-w", "\n%{http_code}", f"{VLM_URL}{path}"]
    if body is not None:
        words += ["-H", "Content-Type: application/json", "--data-binary", "@-"]
    container = project.container(VLM)["Id"]
    answer = project.engine.docker("exec", "--interactive", container, *words, input=json.dumps(body or {}))
    text, _, status = answer.rpartition("\n")
    return int(status), json.loads(text) if text.strip() else None


def _answers_given(project: Project) -> int:
    """Requests that vLLM has answered to the end since its start."""
    metrics = project.execute(VLM, f"curl -sS --noproxy '*' {VLM_URL}/metrics").stdout
    counts = re.findall(r'^vllm:request_success_total\{.*"stop".*\} (\S+)$', metrics, re.MULTILINE)
    return round(sum(map(float, counts)))


def _request(picture: bytes) -> dict[str, Any]:
    """The body that PaddleX 3.7.2 sends for a block of text, as recorded from it."""
    url = f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "OCR:"}]
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": content}],
        "max_completion_tokens": 4096,
        "temperature": 0,
        "skip_special_tokens": True,
        "mm_processor_kwargs": {"min_pixels": 112896, "max_pixels": 1003520},
    }


def _picture(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert("RGB").save(file, "JPEG")
    return file.getvalue()


def _arguments(project: Project) -> dict[str, Any]:
    """vLLM's settings that differ from its defaults, as it prints them after parsing; empty until it has."""
    found = re.search(r"non-default args: (\{.*\})", project.logs(VLM))
    return ast.literal_eval(found[1]) if found else {}


def _wait_for_arguments(project: Project) -> dict[str, Any]:
    until = time.monotonic() + ARGUMENTS_SECONDS
    while not (arguments := _arguments(project)):
        assert time.monotonic() < until, f"vLLM printed no settings within {ARGUMENTS_SECONDS} s:\n{project.logs(VLM)[-4000:]}"
        time.sleep(0.5)
    return arguments


def _config_file(folder: Path, text: str) -> str:
    path = folder / "vlm_server_config.yaml"
    path.write_text(text)
    return str(path)


def _tag_preview_api(engine: Engine, folder: Path) -> Path:
    """Give the CPU preview's API image, which is the real PaddleX, the official name; its pipeline config.

    The official config asks for the official layout model, which needs PaddlePaddle and a download.
    """
    official = _project(engine, "config", API_IMAGE_TAG_SUFFIX=API_TAG).config()["services"][API]["image"]
    engine.docker("tag", PREVIEW_IMAGES[API], official)
    config = folder / "pipeline_config.yaml"
    config.write_text(engine.docker("run", "--rm", "--network", "none", official, "cat", "/opt/kit/pipeline_config.yaml"))
    return config
