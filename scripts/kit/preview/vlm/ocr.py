"""Reads the text of a crop with PP-OCRv6 small, as the rapidocr wheel carries it.

Pictures are BGR uint8 arrays [height, width, 3]; all lengths are pixels of the
crop.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from rapidocr import RapidOCR

# Below this the recogniser guesses at specks.
MIN_SCORE = 0.3
# A single line read without detection must be surer than this, or it is detected after all.
SURE = 0.8
SETTINGS = {
    "Global.log_level": "error",
    "Global.text_score": MIN_SCORE,
    "Global.max_side_len": 4000,
    # The default (shorter side at least 736) blows small crops up: six times
    # slower, and words come apart.
    "Det.limit_type": "max",
    "Det.limit_side_len": 1920,
    # One engine a worker: more threads in each would only compete.
    "EngineConfig.onnxruntime.intra_op_num_threads": 1,
    "EngineConfig.onnxruntime.inter_op_num_threads": 1,
}


@dataclass(frozen=True)
class Line:
    """A piece of text on one line, and its upright box."""

    left: float
    top: float
    right: float
    bottom: float
    text: str

    @property
    def height(self) -> float:
        return self.bottom - self.top

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def middle(self) -> float:
        return (self.top + self.bottom) / 2


class Reader:
    """One engine. A call changes its state: never share one between threads."""

    def __init__(self) -> None:
        self._engine = RapidOCR(params=SETTINGS)

    def warm_up(self) -> None:
        """Load the models, which rapidocr does on first use."""
        picture = np.full((64, 320, 3), 255, np.uint8)
        cv2.putText(picture, "Ready 1", (20, 45), cv2.FONT_HERSHEY_SIMPLEX, 1.2, (0, 0, 0), 2)
        self._engine(picture, use_det=True, use_rec=True, use_cls=False)

    def single_line(self, picture: np.ndarray) -> str | None:
        """The text of a crop that holds one line; None where it holds more, or is not read surely.

        Such crops (titles, captions, cells) need no detection, which costs most
        of the time and may cut their ends.
        """
        if not looks_like_one_line(picture):
            return None
        result = self._engine(picture, use_det=False, use_rec=True, use_cls=False)
        if not result.txts or result.scores[0] < SURE:
            return None
        return result.txts[0].strip()

    def lines(self, picture: np.ndarray) -> list[Line]:
        """Every piece of text, in no order."""
        margin = max(16, 48 - min(picture.shape[:2]))  # the detector misses text that touches the border
        framed = cv2.copyMakeBorder(picture, *[margin] * 4, cv2.BORDER_CONSTANT, value=_paper(picture))
        result = self._engine(framed, use_det=True, use_rec=True, use_cls=False)
        boxes = getattr(result, "boxes", None)
        if boxes is None:
            return []
        found = []
        for corners, text in zip(boxes, result.txts, strict=True):
            left, top = (float(value) - margin for value in np.min(corners, axis=0))
            right, bottom = (float(value) - margin for value in np.max(corners, axis=0))
            if text.strip():
                found.append(Line(left, top, right, bottom, text.strip()))
        return found


def looks_like_one_line(picture: np.ndarray) -> bool:
    """True when the crop's ink lies in a single run of rows that fills it."""
    height, width = picture.shape[:2]
    if height > 120 or width < 2 * height:
        return False
    rows = _ink(picture).any(axis=1)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], rows.view(np.int8), [0]])))
    runs = [int(end - start) for start, end in zip(edges[::2], edges[1::2], strict=True)]
    tall = [run for run in runs if run > 0.12 * height]
    return len(tall) == 1 and tall[0] > 0.3 * height


def rows_of(lines: list[Line]) -> list[list[Line]]:
    """Lines grouped into rows from top to bottom, each from left to right."""
    rows: list[list[Line]] = []
    for line in sorted(lines, key=lambda line: line.middle):
        if rows and _same_row(rows[-1], line):
            rows[-1].append(line)
        else:
            rows.append([line])
    return [sorted(row, key=lambda line: line.left) for row in rows]


def _same_row(row: list[Line], line: Line) -> bool:
    middle = sum(other.middle for other in row) / len(row)
    height = sum(other.height for other in row) / len(row)
    return abs(line.middle - middle) < 0.45 * min(line.height, height)


def _ink(picture: np.ndarray) -> np.ndarray:
    """[height, width] bool: the minority of light and dark pixels."""
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    _, binary = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY_INV + cv2.THRESH_OTSU)
    dark = binary > 0
    return ~dark if dark.mean() > 0.5 else dark


def _paper(picture: np.ndarray) -> tuple[int, int, int]:
    """The colour of the crop's border, so that a frame around it makes no edge."""
    border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    blue, green, red = (int(value) for value in np.median(border, axis=0))
    return blue, green, red
