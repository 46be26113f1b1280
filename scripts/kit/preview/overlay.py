"""What turns the official pipeline config into the preview's: the smallest difference that works."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# More threads than this gain nothing on an 8 MB layout model and take cores
# from the recognition that runs beside it.
LAYOUT_THREADS = 2

# Blocks on their way to the VLM at once, of one API behind a gateway. For each, PaddleX's HTTP client looks through all the
# others (httpcore, connection_pool.py): with PaddleX's 200 that costs more than the request itself. Four APIs fill 128 places.
REPLICA_CONCURRENCY = 32
# Of the same. Several processes share the cores: one thread each. The rest keeps the memory of a page's pictures for the next
# one, instead of giving it back and asking for it again (compose.gateway.yaml says the same).
REPLICA_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
    "MALLOC_MMAP_THRESHOLD_": "67108864",
    "MALLOC_TRIM_THRESHOLD_": "268435456",
}

# The composed layout model has the classes and outputs of this one; it stands in for PP-DocLayoutV3 too.
LAYOUT_MODEL = "PP-DocLayoutV2"
LAYOUT_THRESHOLD = 0.4  # in place of thresholds that were meant for another model


def overlay(config: Mapping[str, Any], *, layout_dir: Path, vlm_url: str, behind_gateway: bool = False) -> dict[str, Any]:
    """The preview's pipeline config; `config`, as read from pipeline_config_vllm.yaml, is left alone.

    layout_dir: folder that `kit.preview.layout` wrote. vlm_url: base URL of the
    VLM stand-in, ending in /v1. behind_gateway: of one of several replicas. Raises ValueError when `config` has no section
    SubModules.LayoutDetection or SubModules.VLRecognition.genai_config.
    """
    result = copy.deepcopy(dict(config))
    layout = _section(result, "SubModules", "LayoutDetection")
    genai = _section(result, "SubModules", "VLRecognition", "genai_config")
    if layout.get("model_name") != LAYOUT_MODEL:
        layout.update(model_name=LAYOUT_MODEL, threshold=LAYOUT_THRESHOLD)
    layout.update(
        model_dir=str(layout_dir),
        # PaddleX 3.5 and later; without it PaddlePaddle would be needed (700 MB more).
        engine="onnxruntime",
        engine_config={"intra_op_num_threads": LAYOUT_THREADS},
        batch_size=1,  # the composed model takes one page
    )
    if genai.get("backend", "native") == "native":  # PaddlePaddle, which the preview does without, would run the VLM
        genai["backend"] = "vllm-server"
    genai["server_url"] = vlm_url
    # PicoDet takes many forms and screenshots for figures: read them all the same.
    result["use_ocr_for_image_block"] = True
    if behind_gateway:
        # The queues cost 0.5 s a request; a second thread mostly spins where replicas share the cores (docs/performance.md).
        result["use_queues"] = False
        layout["engine_config"]["intra_op_num_threads"] = 1
        genai.setdefault("max_concurrency", REPLICA_CONCURRENCY)
    return result


def _section(config: dict[str, Any], *path: str) -> dict[str, Any]:
    section: Any = config
    for depth, key in enumerate(path, start=1):
        section = section.get(key)
        if not isinstance(section, dict):
            raise ValueError(f"the pipeline config has no section {'.'.join(path[:depth])}")
    return section
