"""What is known of models, images and backends: it agrees with itself, with the shipped files and with published figures."""

from __future__ import annotations

import re

import pytest
import yaml
from kit.catalog import backends, images, models
from kit.catalog.settings import SETTINGS
from support import ROOT


def shipped() -> dict:
    return yaml.safe_load((ROOT / "pipeline_config_vllm.yaml").read_text())


# --- models


def test_the_sizes_of_the_vlm_add_up_to_its_published_file() -> None:
    """Every parameter counted; what remains is the header of a safetensors file, some ten kB."""
    h, q, kv = models.HIDDEN, models.HEADS * models.HEAD_SIZE, models.KEY_VALUE_HEADS * models.HEAD_SIZE
    decoder = 2 * h * q + 2 * h * kv + 3 * h * models.INNER + 2 * h
    language = 2 * models.VOCABULARY * h + models.LAYERS * decoder + h
    v, inner = models.VISION_HIDDEN, models.VISION_INNER
    attention, mlp, norm = 4 * (v * v + v), v * inner + inner + inner * v + v, 2 * v
    patches = 3 * models.PATCH**2 * v + v + models.VISION_POSITIONS * v + models.PACKED_POSITIONS * v
    pooling = v + attention + norm + mlp  # trained, published, not used for reading
    vision = patches + models.VISION_LAYERS * (attention + mlp + 2 * norm) + norm + pooling
    merged = models.PATCHES_PER_TOKEN * v
    projector = norm + merged * merged + merged + merged * h + h
    size = (language + vision + projector) * models.BYTES_PER_WEIGHT
    assert 0 < models.WEIGHTS_FILE - size < 200_000


def test_a_token_takes_18_kib_of_the_kv_cache() -> None:
    assert models.KV_BYTES_PER_TOKEN == 18 * 1024


@pytest.mark.parametrize(
    ("name", "vlm"),
    [
        ("PaddleOCR-VL-1.6", "PaddleOCR-VL-1.6-0.9B"), ("1.6", "PaddleOCR-VL-1.6-0.9B"), ("1.5", "PaddleOCR-VL-1.5-0.9B"),
        ("paddleocr-vl-1.5-0.9b", "PaddleOCR-VL-1.5-0.9B"), ("0.9B", "PaddleOCR-VL-0.9B"), ("PaddleOCR-VL", "PaddleOCR-VL-0.9B"),
    ],
)  # fmt: skip
def test_a_model_is_found_by_each_of_its_names(name: str, vlm: str) -> None:
    assert models.find(name).vlm == vlm


@pytest.mark.parametrize("name", ["", "2.0", "PaddleOCR", "VL-1.6-0.9"])
def test_other_names_are_no_model(name: str) -> None:
    assert models.find(name) is None


def test_the_shipped_files_are_of_one_generation() -> None:
    config = shipped()
    model = models.find(SETTINGS["VLM_MODEL_NAME"].default)
    layout = config["SubModules"]["LayoutDetection"]
    assert (config["pipeline_name"], layout["model_name"]) == (model.pipeline_name, model.layout)
    assert layout["threshold"] == model.threshold
    assert config["SubModules"]["VLRecognition"]["model_name"] == model.vlm


def test_the_classes_are_those_that_the_shipped_file_comments() -> None:
    text = (ROOT / "pipeline_config_vllm.yaml").read_text()
    commented = re.findall(r"^      (\d+): [\d.]+  # (\w+)$", text, re.MULTILINE)
    assert commented == [(str(number), name) for number, name in enumerate(models.LAYOUT_CLASSES)]


# --- images


@pytest.mark.parametrize(
    ("tag", "era", "accelerator", "build", "offline"),
    [
        ("paddleocr3.6-nvidia-gpu", "3.6", "nvidia-gpu", "cu126", False),
        ("paddleocr3.6-nvidia-gpu-offline", "3.6", "nvidia-gpu", "cu126", True),
        ("paddleocr3.4-iluvatar-gpu-offline", "3.4", "iluvatar-gpu", "cu126", True),
        ("latest-nvidia-gpu-sm120", "latest", "nvidia-gpu", "sm120", False),
        ("latest-nvidia-gpu-sm120-offline", "latest", "nvidia-gpu", "sm120", True),
        ("latest-gpu-sm120-offline", "2025", "gpu", "sm120", True),
        ("latest-offline", "2025", "gpu", "cu126", True),
        ("latest", "2025", "gpu", "cu126", False),
        ("latest-xpu", "2025", "xpu", "cu126", False),
    ],
)
def test_a_tag_is_read(tag: str, era: str, accelerator: str, build: str, offline: bool) -> None:
    assert images.read(tag) == images.Tag(era, accelerator, build, offline)


@pytest.mark.parametrize("tag", ["mine", "latest-gpu-sm121", "paddleocr3.6", "paddleocr3.6-gpu", "3.4.0-3.4.0-84dde7f6d5ce", ""])
def test_a_tag_of_another_scheme_says_nothing(tag: str) -> None:
    assert images.read(tag) is None


@pytest.mark.parametrize(
    ("api", "vlm", "same"),
    [
        ("paddleocr3.6-nvidia-gpu", "paddleocr3.6-nvidia-gpu-offline", True),
        ("latest-nvidia-gpu-sm120", "latest-gpu-sm120", False),
        ("latest-nvidia-gpu-sm120", "latest-nvidia-gpu", False),
        ("paddleocr3.6-nvidia-gpu", "paddleocr3.4-nvidia-gpu", False),
        ("paddleocr3.6-nvidia-gpu", "latest-offline", False),
        ("mine", "mine", True),
        ("mine", "paddleocr3.6-nvidia-gpu", None),
    ],
)
def test_tags_of_two_families_are_told_apart(api: str, vlm: str, same: bool | None) -> None:
    assert images.same_family(api, vlm) is same
    assert images.same_family(vlm, api) is same


def test_there_is_no_image_of_paddleocr_3_7() -> None:
    assert not images.published("paddleocr3.7-nvidia-gpu-offline")
    assert images.published("paddleocr3.6-nvidia-gpu") and images.published("latest-nvidia-gpu") and images.published("mine")


@pytest.mark.parametrize("family", images.FAMILIES, ids=lambda family: family.tag)
def test_a_family_is_what_its_tag_says(family: images.Family) -> None:
    tag = images.read(family.tag)
    assert (tag.build, tag.offline) == (family.build, family.offline)
    assert images.published(family.tag)
    assert family.moving == (tag.era == "latest")
    if family.carries:
        assert family.paddleocr >= models.find(family.carries).paddleocr


def test_every_tag_in_the_documents_is_known() -> None:
    known = {family.tag for family in images.FAMILIES}
    assert SETTINGS["API_IMAGE_TAG_SUFFIX"].default == SETTINGS["VLM_IMAGE_TAG_SUFFIX"].default
    assert SETTINGS["API_IMAGE_TAG_SUFFIX"].default in known
    for page in ("README.md", "README.zh-CN.md", ".env.example", "docs/configure.md"):
        text = (ROOT / page).read_text()
        named = {tag for tag in re.findall(r"[\w.-]+", text) if "gpu" in tag and images.read(tag)}
        assert named <= known, page


@pytest.mark.parametrize(
    ("capability", "build"),
    [
        ((7, 5), "cu126"), ((8, 9), "cu126"), ((9, 0), "cu126"), ((10, 0), None), ((10, 3), None), ((12, 0), "sm120"),
        ((12, 1), "sm120"), ((13, 0), None),
    ],
)  # fmt: skip
def test_the_build_for_a_card(capability: tuple[int, int], build: str | None) -> None:
    assert images.build_for(capability) == build


# --- backends


@pytest.mark.parametrize(
    ("name", "runs", "does_not"),
    [
        ("vllm", [(8, 0), (8, 9), (9, 0), (12, 0)], [(7, 0), (7, 5)]),
        ("fastdeploy", [(8, 0), (8, 6), (8, 9), (9, 0)], [(7, 5), (8, 7), (10, 0), (12, 0)]),
        ("sglang", [(8, 0), (9, 0), (10, 0)], [(7, 5), (12, 0)]),
        ("native", [(7, 0), (7, 5), (12, 0)], [(6, 1)]),
    ],
)
def test_the_cards_of_a_backend(name: str, runs: list, does_not: list) -> None:
    backend = backends.find(name)
    assert [c for c in runs + does_not if backend.runs_on(c)] == runs


def test_the_engines_that_compose_can_start_are_those_with_an_image() -> None:
    named = re.findall(r"vllm|fastdeploy|sglang", SETTINGS["VLM_BACKEND"].meaning)
    assert named == [backend.name for backend in backends.BACKENDS if backend.image]
