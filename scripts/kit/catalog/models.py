"""The model generations: what belongs together, and what the language model weighs.

A VLM, a layout model, a pipeline name and a least version make one generation; taking parts
of two is a failure that users meet (OCR#17849, OCR#17571). Read from the pipeline configs
that paddlex 3.3.12, 3.4.3, 3.6.1 and 3.7.2 ship (configs/pipelines/PaddleOCR-VL*.yaml).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# The classes of both layout models, by id (configs/pipelines/PaddleOCR-VL.yaml, comments and
# layout_merge_bboxes_mode; inference.yml of the models).
LAYOUT_CLASSES = (
    "abstract", "algorithm", "aside_text", "chart", "content", "display_formula", "doc_title", "figure_title", "footer",
    "footer_image", "footnote", "formula_number", "header", "header_image", "image", "inline_formula", "number",
    "paragraph_title", "reference", "reference_content", "seal", "table", "text", "vertical_text", "vision_footnote",
)  # fmt: skip

_V2_LOWER = {
    "display_formula": 0.4, "doc_title": 0.4, "inline_formula": 0.4, "paragraph_title": 0.4, "seal": 0.45, "text": 0.4,
    "vertical_text": 0.4,
}  # fmt: skip
_V2_THRESHOLD = {number: _V2_LOWER.get(name, 0.5) for number, name in enumerate(LAYOUT_CLASSES)}


@dataclass(frozen=True)
class Model:
    """One generation.

    name: what --model takes. pipeline_name: of the pipeline config. vlm: the name that the VLM
    server loads and serves, and that the API asks for. threshold: least score of a block, one
    number or by class id. paddleocr: least version that knows it, of paddleocr, paddlex and images alike.
    """

    name: str
    pipeline_name: str
    vlm: str
    layout: str
    threshold: float | Mapping[int, float]
    paddleocr: tuple[int, int]
    source: str


MODELS: tuple[Model, ...] = (
    Model(
        "PaddleOCR-VL-0.9B",
        "PaddleOCR-VL",
        "PaddleOCR-VL-0.9B",
        "PP-DocLayoutV2",
        _V2_THRESHOLD,
        (3, 3),
        "paddlex 3.3.12 source, configs/pipelines/PaddleOCR-VL.yaml; released 2025-10-16",
    ),
    Model(
        "PaddleOCR-VL-1.5",
        "PaddleOCR-VL-1.5",
        "PaddleOCR-VL-1.5-0.9B",
        "PP-DocLayoutV3",
        0.3,
        (3, 4),
        "paddlex 3.4.3 source, configs/pipelines/PaddleOCR-VL-1.5.yaml; released 2026-01-29",
    ),
    Model(
        "PaddleOCR-VL-1.6",
        "PaddleOCR-VL-1.6",
        "PaddleOCR-VL-1.6-0.9B",
        "PP-DocLayoutV3",
        0.3,
        (3, 6),
        "paddlex 3.6.1 source, configs/pipelines/PaddleOCR-VL-1.6.yaml; released 2026-05-28",
    ),
)


def find(name: str) -> Model | None:
    """The generation of that name, by any of the names it goes by: 1.6, PaddleOCR-VL-1.6, PaddleOCR-VL-1.6-0.9B."""
    wanted = name.strip().lower()
    for model in MODELS:
        if wanted in {n.lower() for n in (model.name, model.vlm, model.pipeline_name, model.name.rsplit("-", 1)[1])}:
            return model
    return None


# --- what the VLM is made of; the same for all three generations

# Weights of 1.6 as published, bytes. The parameters counted from the sizes below come to 78,496 bytes
# less, the header of the file: so the sizes are right (tests/unit/test_catalog.py counts them).
WEIGHTS_FILE = 1_917_255_968

# Language part, ERNIE-4.5-0.3B (config.json of PaddlePaddle/PaddleOCR-VL).
VOCABULARY = 103_424
HIDDEN = 1024
LAYERS = 18
HEADS = 16
KEY_VALUE_HEADS = 2
HEAD_SIZE = 128
INNER = 3072

# Vision part, NaViT by SigLIP (the same file; paddlex 3.7.2 source, doc_vlm/modeling/paddleocr_vl/_siglip.py).
VISION_HIDDEN = 1152
VISION_INNER = 4304
VISION_LAYERS = 27
PATCH = 14  # pixels a side
PATCHES_PER_TOKEN = 4  # spatial_merge_size 2, squared
VISION_POSITIONS = 27 * 27  # image_size 384 // 14, squared
PACKED_POSITIONS = 32_768

BYTES_PER_WEIGHT = 2  # bfloat16; float32 on cards below compute capability 8.0 (paddlex 3.7.2 source, is_bfloat16_available)

# One key and one value of each layer, for every token that is kept: 18 KiB.
KV_BYTES_PER_TOKEN = 2 * LAYERS * KEY_VALUE_HEADS * HEAD_SIZE * BYTES_PER_WEIGHT

# Longest picture and answer. max_pixels 1,003,520 are 1280 tokens for text, 2048 with the spotting prompt;
# PaddleX asks for at most 4096 new tokens (paddlex 3.7.2 source, pipelines/paddleocr_vl/pipeline.py).
IMAGE_TOKENS = 2048
ANSWER_TOKENS = 4096

# vLLM profiles with pictures of vision_config.image_size: 384 pixels become 392, that is 14 × 14 tokens
# (paddlex 3.7.2 source, genai/models/paddleocr_vl_09b/_vllm.py, get_image_size_with_most_features). OCR#17359
# shows the outcome: 131072 batched tokens, "profiled with 668 image items".
PROFILE_IMAGE_TOKENS = 196
