"""The preview's pipeline config differs from the official one in the listed keys, and in nothing else."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from kit.preview.overlay import overlay

ROOT = Path(__file__).resolve().parents[2]
ABSENT = "absent"


@pytest.fixture
def official() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "pipeline_config_vllm.yaml").read_text())


def previewed(config: dict[str, Any]) -> dict[str, Any]:
    return overlay(config, layout_dir=Path("/models/PP-DocLayoutV2"), vlm_url="http://127.0.0.1:8118/v1")


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves by their dotted path."""
    leaves = {}
    for key, value in config.items():
        if isinstance(value, dict):
            leaves |= flat(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def test_nothing_but_the_listed_keys_differs(official):
    before, after = flat(official), flat(previewed(official))
    different = {
        key: after.get(key, ABSENT) for key in before.keys() | after.keys() if before.get(key, ABSENT) != after.get(key, ABSENT)
    }
    assert different == {
        "SubModules.LayoutDetection.model_dir": "/models/PP-DocLayoutV2",
        "SubModules.LayoutDetection.engine": "onnxruntime",
        "SubModules.LayoutDetection.engine_config.intra_op_num_threads": 2,
        "SubModules.LayoutDetection.batch_size": 1,
        "SubModules.VLRecognition.genai_config.server_url": "http://127.0.0.1:8118/v1",
        "use_ocr_for_image_block": True,
    }


def test_newer_generations_and_the_native_backend_are_stood_in_for_too(official):
    official["pipeline_name"] = "PaddleOCR-VL-1.6"
    official["SubModules"]["LayoutDetection"].update(model_name="PP-DocLayoutV3", threshold=0.3)
    official["SubModules"]["VLRecognition"].update(model_name="PaddleOCR-VL-1.6-0.9B", genai_config={"backend": "native"})
    result = previewed(official)
    assert result["pipeline_name"] == "PaddleOCR-VL-1.6"
    assert result["SubModules"]["LayoutDetection"]["model_name"] == "PP-DocLayoutV2"
    assert result["SubModules"]["LayoutDetection"]["threshold"] == 0.4
    assert result["SubModules"]["VLRecognition"]["model_name"] == "PaddleOCR-VL-1.6-0.9B"
    genai = {"backend": "vllm-server", "server_url": "http://127.0.0.1:8118/v1"}
    assert result["SubModules"]["VLRecognition"]["genai_config"] == genai


def test_the_official_config_is_left_alone(official):
    untouched = copy.deepcopy(official)
    previewed(official)
    assert official == untouched


@pytest.mark.parametrize(
    "path", [("SubModules",), ("SubModules", "LayoutDetection"), ("SubModules", "VLRecognition", "genai_config")]
)
def test_a_config_without_a_needed_section_is_an_error_that_names_it(official, path):
    section = official
    for key in path[:-1]:
        section = section[key]
    del section[path[-1]]
    with pytest.raises(ValueError, match=r"no section " + r"\.".join(path)):
        previewed(official)
