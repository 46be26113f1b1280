"""Pipeline configs by ./kit configure: real PaddleX takes each of them, and reads a page where the preview can stand in.

With PaddleX 3.7.2 as installed for the preview. Not tested here: official weights, so neither PP-DocLayoutV3 nor any of the
VLMs, nor PaddlePaddle (`native`). For 1.5 and 1.6 the preview's layout model stands in, as PP-DocLayoutV2.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from kit import configure, health
from kit.catalog import backends, models
from kit.catalog.settings import Settings
from kit.facts.gpus import Gpu, Nvidia
from kit.facts.machine import Machine
from kit.plan import Wishes, plan
from kit.plan.memory import GIB
from kit.preview.install import Installation
from kit.preview.overlay import overlay
from PIL import Image
from support import ROOT, SAMPLES, Running, free_port, wait_for

CARD = Nvidia("580", (13, 0), (Gpu(0, "a card", "GPU-1", 24 * GIB, 23 * GIB, (8, 9)),))
HOST = Machine("Linux", "x86_64", False, 16, 64 * GIB, 60 * GIB)
SHIPPED = "configs/pipelines"
URL = "http://h.example:1/v1"

# Every generation, and every backend on the first of them.
WISHES = {
    **{model.name: {"model": model.name} for model in models.MODELS},
    **{b.name: {"backend": b.name, "vlm_url": URL if b.own_server else ""} for b in backends.BACKENDS if b.name != "vllm"},
}

# Those that differ in what the preview sees of them.
READ = [name for name in WISHES if name not in ("native", "openai")]


def config_of(folder: Path, wishes: dict[str, Any]) -> Path:
    """The file that ./kit configure would write."""
    folder.mkdir()
    for name in (configure.SHIPPED_PIPELINE, configure.SHIPPED_VLM):
        (folder / name).write_text((ROOT / name).read_text())
    made = plan(CARD, HOST, Wishes(**wishes))
    configure.write(configure.changes(made, folder, Settings(folder, {})))
    return folder / configure.PIPELINE_FILE


@contextlib.contextmanager
def standing_in(install: Installation, names: list[str]) -> Iterator[dict[str, str]]:
    """A VLM stand-in for each of these models; their base URLs by name."""
    urls = {name: f"http://127.0.0.1:{free_port()}" for name in names}
    processes = [
        subprocess.Popen(
            [install.vlm_python, "-m", "kit.preview.vlm.server", "--port", url.rpartition(":")[2], "--model-name", name,
             "--workers", "1"],
            env=os.environ | {"PYTHONPATH": str(ROOT / "scripts")}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for name, url in urls.items()
    ]  # fmt: skip
    try:
        for url in urls.values():
            wait_for(partial(health.answers, f"{url}/health"), 120, f"the stand-in at {url}")
        yield {name: f"{url}/v1" for name, url in urls.items()}
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def probed(
    preview: Running, preview_install: Installation, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """What PaddleX makes of each config, by its name in WISHES; all in one process, whose start takes the longest."""
    folder = tmp_path_factory.mktemp("configs")
    page = folder / "page.png"
    Image.open(SAMPLES / "invoice.png").crop((0, 0, 1323, 420)).save(page)
    with standing_in(preview_install, [model.vlm for model in models.MODELS[1:]]) as urls:
        urls[models.MODELS[0].vlm] = f"{preview.vlm_url}/v1"
        jobs = [job(folder / name, name, preview_install, urls) for name in WISHES]
        (folder / "jobs.json").write_text(json.dumps(jobs))
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PADDLE_PDX_"))}
        done = subprocess.run(
            [preview_install.api_python, Path(__file__).with_name("probe_pipeline.py"), folder / "jobs.json", page],
            env=environment | {"PADDLE_PDX_CACHE_HOME": str(folder), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"},
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(zip(WISHES, json.loads(done.stdout.splitlines()[-1]), strict=True))


def job(folder: Path, name: str, install: Installation, urls: dict[str, str]) -> dict[str, str | None]:
    """For probe_pipeline.py: the config of WISHES[name], and the same with the preview's overlay."""
    config = config_of(folder, WISHES[name])
    if name not in READ:
        return {"config": str(config), "preview": None}
    content = yaml.safe_load(config.read_text())
    url = urls[content["SubModules"]["VLRecognition"]["model_name"]]
    shown = folder / "preview.yaml"
    shown.write_text(yaml.safe_dump(overlay(content, layout_dir=install.layout_dir, vlm_url=url)))
    return {"config": str(config), "preview": str(shown)}


@pytest.mark.parametrize("name", WISHES)
def test_paddlex_takes_the_config_and_loads_what_was_planned(probed: dict[str, dict[str, Any]], name: str) -> None:
    made = plan(CARD, HOST, Wishes(**WISHES[name]))
    layout, recognition = probed[name]["models"]
    version = made.model.pipeline_name.removeprefix("PaddleOCR-VL").replace("-", "").replace(".", "")
    assert probed[name]["pipeline"] == f"PaddleOCRVL{version}Pipeline"
    assert probed[name]["known"]
    assert (layout["model"], recognition["model"]) == (made.model.layout, made.model.vlm)
    threshold = layout["threshold"]
    by_class = {int(number): score for number, score in threshold.items()} if isinstance(threshold, dict) else threshold
    assert by_class == made.model.threshold
    assert recognition["genai"]["backend"] == made.backend.client


@pytest.mark.parametrize("name", READ)
def test_a_page_is_read(probed: dict[str, dict[str, Any]], name: str) -> None:
    assert "Brightwater Office Supplies" in probed[name]["markdown"]


def test_the_catalog_is_what_paddlex_ships(preview_install: Installation) -> None:
    (package,) = preview_install.api_venv.glob("lib/python*/site-packages/paddlex")
    for model in models.MODELS:
        agrees_with(model, (package / SHIPPED / f"{model.pipeline_name}.yaml").read_text())
    assert set(clients((package / "inference/models/common/genai.py").read_text())) >= {b.client for b in backends.BACKENDS}


@pytest.mark.parametrize("version", ["3.3.12", "3.4.3", "3.6.1"])
def test_least_versions(version: str, tmp_path: Path) -> None:
    """The wheel of each least version ships the generations and knows the clients that the catalog says, and no more."""
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", tmp_path]
    subprocess.run([*argv, f"paddlex=={version}"], check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    of = tuple(map(int, version.split(".")[:2]))
    with zipfile.ZipFile(wheel) as content:
        names = set(content.namelist())
        for model in models.MODELS:
            file = f"paddlex/{SHIPPED}/{model.pipeline_name}.yaml"
            assert (file in names) == (model.paddleocr <= of)
            if file in names:
                agrees_with(model, content.read(file).decode())
        genai = content.read("paddlex/inference/models/common/genai.py").decode()
    for backend in backends.BACKENDS:
        assert (backend.client in clients(genai)) == (backend.paddleocr <= of), backend.name
    assert "max_concurrency" in genai and "server_url" in genai


def agrees_with(model: models.Model, text: str) -> None:
    config = yaml.safe_load(text)
    layout = config["SubModules"]["LayoutDetection"]
    vlm = config["SubModules"]["VLRecognition"]["model_name"]
    assert (config["pipeline_name"], layout["model_name"], vlm) == (model.pipeline_name, model.layout, model.vlm)
    assert layout["threshold"] == model.threshold


def clients(source: str) -> list[str]:
    """The values that GenAIConfig.backend may have, from PaddleX's source."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "backend":
            return [item.value for item in ast.walk(node.annotation) if isinstance(item, ast.Constant)]
    raise AssertionError("PaddleX has no GenAIConfig.backend")
