"""What a machine must have beside a fitting card, with where each figure comes from. CUDA versions stand in images.py."""

from __future__ import annotations

from kit.catalog import images

GB = 10**9
GIB = 2**30

# Of the cards that PCs and servers on x86-64 have had since Volta (developer.nvidia.com/cuda-gpus).
CAPABILITIES = ((7, 0), (7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (10, 3), (12, 0))

# First drivers that serve a CUDA version (CUDA release notes, table "CUDA Toolkit and Corresponding Driver Versions").
DRIVER_OF_CUDA = {(12, 6): "560", (12, 9): "575"}

# Engine 20.10 and newer run compose.yaml in tests/docker. Below 25 only without `start_interval`, for which
# compose.engine-20.yaml is there ("requires Docker Engine v25 or later", measured).
LEAST_ENGINE = (20, 10)
ENGINE_WITH_START_INTERVAL = (25,)
# `start_interval` in a Compose file (Compose file reference, healthcheck).
LEAST_COMPOSE = (2, 20, 2)
# Older ones give no GPU inside WSL2 (OCR#17893).
LEAST_TOOLKIT_ON_WSL = (1, 14, 4)

# The official images are built for x86-64 alone (PaddleOCR-VL documentation; OCR#16823, OCR#17077).
IMAGE_ARCHITECTURES = ("x86_64", "amd64")

# What `docker image ls` shows, in GB: (online, offline). PaddleOCR-VL documentation; OCR#17050 measured 10.6 and 14.7 offline.
API_IMAGE_GB = {images.DEFAULT: (8, 10), images.BLACKWELL: (10, 12)}
VLM_IMAGE_GB = {"vllm": (13, 15), "fastdeploy": (43, 45)}
# A store of containerd keeps the packed layers too (measured with Docker Engine 28: 1.9 times the size).
CONTAINERD_STORE_FACTOR = 1.9

# Where PaddleX looks for models, in its order; one that answers is enough. It waits 1 s for each
# (paddlex 3.7.2 source, inference/utils/official_models.py; it sends HEAD and wants a status below 400).
MODEL_HUBS = (
    "https://huggingface.co",
    "https://aistudio.baidu.com",
    "https://modelscope.cn",
    "https://paddle-model-ecology.bj.bcebos.com",
)
MODEL_HUB_SECONDS = 1.0

# The API renders a whole PDF into RAM and keeps growing: 2 to 10 GB over 300 pictures (OCR#17113).
COMFORTABLE_RAM = 10 * GB
# The CPU preview: VLM 0.61 GB, API 0.58 GB (docs/preview.md), and room for a page.
PREVIEW_RAM = int(1.5 * GB)


def image_bytes(api_tag: str, vlm_tag: str, backend: str) -> int | None:
    """Disk that both official images take, in bytes; None where it is not known, as for tags of your own."""
    api, vlm = images.read(api_tag), images.read(vlm_tag)
    if api is None or vlm is None or backend not in VLM_IMAGE_GB:
        return None
    return (API_IMAGE_GB[api.build][api.offline] + VLM_IMAGE_GB[backend][vlm.offline]) * GB
