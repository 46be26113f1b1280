"""Families of tags of the official images. Both services take their tag from one family.

The registry was not asked: these are the tags of the official documents, of issues and of two lists that
others have published. It ends at paddleocr3.6: a tag `paddleocr3.7-…` does not exist (seen 2026-09-03).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

DEFAULT, BLACKWELL = "cu126", "sm120"  # what an image is built for

# Driver: least CUDA version that `nvidia-smi` must show (PaddleOCR-VL documentation, environment and Blackwell pages).
LEAST_CUDA = {DEFAULT: (12, 6), BLACKWELL: (12, 9)}


@dataclass(frozen=True)
class Family:
    """Images that were built together.

    tag: of paddleocr-vl and of paddleocr-genai-…-server alike. build: DEFAULT or BLACKWELL.
    paddleocr: version inside. carries: name of the model inside an offline image, "" where it
    comes from a hub. moving: True where a later image may take the tag over. note: what is not certain.
    """

    tag: str
    build: str
    paddleocr: tuple[int, int]
    carries: str = ""
    moving: bool = False
    note: str = ""
    source: str = ""

    @property
    def offline(self) -> bool:
        return bool(self.carries)


# In the order of preference: the first that fits is taken.
FAMILIES: tuple[Family, ...] = (
    Family(
        "paddleocr3.6-nvidia-gpu",
        DEFAULT,
        (3, 6),
        source="PaddleOCR-VL documentation (tag pattern); registry list of 2026-09-03",
    ),
    Family(
        "paddleocr3.6-nvidia-gpu-offline",
        DEFAULT,
        (3, 6),
        carries="PaddleOCR-VL-1.6",
        source="registry list of 2026-09-03; PaddleOCR commit 19142f1 (Dockerfile: which models are inside)",
    ),
    Family(
        "latest-nvidia-gpu-sm120",
        BLACKWELL,
        (3, 6),
        moving=True,
        note="official on an RTX 5070 alone; its version is that of the newest image",
        source="PaddleOCR-VL documentation, NVIDIA Blackwell page; .env of PaddleOCR commit 76ea445",
    ),
    Family(
        "latest-gpu-sm120-offline",
        BLACKWELL,
        (3, 3),
        carries="PaddleOCR-VL-0.9B",
        note="of 2025, not renewed since",
        source="PaddleOCR-VL documentation of 2025-12; seen at work on an RTX 50xx",
    ),
    Family(
        "latest-nvidia-gpu-sm120-offline",
        BLACKWELL,
        (3, 6),
        carries="PaddleOCR-VL-1.6",
        moving=True,
        note="what it carries is read from the Dockerfile, the image was not opened",
        source=".env of PaddleOCR commit 76ea445; PaddleOCR commit 19142f1",
    ),
)


@dataclass(frozen=True)
class Tag:
    """What a tag says. era: "2025" (latest-gpu-…, no longer renewed), "latest" or a version such as "3.6"."""

    era: str
    accelerator: str
    build: str
    offline: bool


_PATTERN = re.compile(r"(?P<era>latest|paddleocr(?P<version>\d+\.\d+))(?P<rest>(?:-[a-z0-9]+)*)")
_ACCELERATORS = (
    "nvidia-gpu", "kunlunxin-xpu", "hygon-dcu", "metax-gpu", "iluvatar-gpu", "huawei-npu", "amd-gpu", "intel-gpu",
)  # fmt: skip
_OLD_ACCELERATORS = ("gpu", "dcu", "xpu", "npu", "iluvatar")  # of 2025: latest-gpu-sm120, latest-xpu


def read(tag: str) -> Tag | None:
    """What the parts of a tag mean; None for a tag of another scheme, such as one of your own mirror."""
    found = _PATTERN.fullmatch(tag)
    if not found:
        return None
    parts = [part for part in found["rest"].split("-") if part]
    offline = bool(parts) and parts[-1] == "offline"
    if offline:
        parts.pop()
    build = BLACKWELL if parts and parts[-1] == "sm120" else DEFAULT
    if build == BLACKWELL:
        parts.pop()
    accelerator = "-".join(parts)
    if accelerator in _ACCELERATORS:
        return Tag(found["version"] or "latest", accelerator, build, offline)
    if not found["version"] and accelerator in ("", *_OLD_ACCELERATORS):
        return Tag("2025", accelerator or "gpu", build, offline)
    return None


def same_family(api_tag: str, vlm_tag: str) -> bool | None:
    """Were both images built together? None where a tag does not tell."""
    if api_tag == vlm_tag:
        return True
    api, vlm = read(api_tag), read(vlm_tag)
    if api is None or vlm is None:
        return None
    return (api.era, api.accelerator, api.build) == (vlm.era, vlm.accelerator, vlm.build)


def published(tag: str) -> bool:
    """False for versions that were never published: the registry ends at paddleocr3.6."""
    known = read(tag)
    if known is None or not known.era[0].isdigit() or known.era == "2025":
        return True
    return tuple(map(int, known.era.split("."))) <= (3, 6)


def build_for(capability: tuple[int, int]) -> str | None:
    """Which build a card needs; None where no official image has its kernels (10.x: OCR#17077)."""
    if capability < (10, 0):
        return DEFAULT
    return BLACKWELL if (12, 0) <= capability < (13, 0) else None
