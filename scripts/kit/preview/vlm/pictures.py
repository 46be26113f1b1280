"""What can be seen in a crop without reading it. Pictures are BGR uint8 arrays [height, width, 3]."""

from __future__ import annotations

import numpy as np

GREY_OF_BGR = np.array([0.114, 0.587, 0.299], np.float32)  # ITU-R BT.601


def ink(picture: np.ndarray) -> np.ndarray:
    """[height, width] bool: the rarer of light and dark."""
    grey = (picture @ GREY_OF_BGR).astype(np.uint8)
    dark = grey <= _otsu_threshold(grey)
    return ~dark if dark.mean() > 0.5 else dark


def _otsu_threshold(grey: np.ndarray) -> int:
    """The level that parts [height, width] uint8 into two most distinct halves (Otsu, 1979)."""
    counts = np.bincount(grey.ravel(), minlength=256).astype(np.float64)
    below = counts.cumsum()
    above = below[-1] - below
    weighted = (counts * np.arange(256)).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = weighted / below - (weighted[-1] - weighted) / above
    return int(np.nan_to_num(below * above * distance**2).argmax())


def runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """Start and end (exclusive) of each stretch of true values in a bool vector."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.view(np.int8), [0]])))
    return [(int(start), int(end)) for start, end in zip(edges[::2], edges[1::2], strict=True)]


def looks_like_one_line(picture: np.ndarray) -> bool:
    """True when the ink lies in a single run of rows that fills the crop."""
    height, width = picture.shape[:2]
    if height > 120 or width < 2 * height:
        return False
    tall = [end - start for start, end in runs(ink(picture).any(axis=1)) if end - start > 0.12 * height]
    return len(tall) == 1 and tall[0] > 0.3 * height


def paper(picture: np.ndarray) -> tuple[int, int, int]:
    """The colour of the crop's border, so that a frame around it makes no edge."""
    border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    blue, green, red = (int(value) for value in np.median(border, axis=0))
    return blue, green, red
