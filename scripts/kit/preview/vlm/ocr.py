"""Reads the text of a crop with PP-OCRv6 small, as the rapidocr wheel carries it.

Pictures are BGR uint8 arrays [height, width, 3]; all lengths are pixels of the
crop.
"""

from __future__ import annotations

import cv2
import numpy as np
from rapidocr import RapidOCR
from rapidocr.ch_ppocr_rec.typings import TextRecInput
from rapidocr.utils.process_img import get_rotate_crop_image

from kit.preview.vlm.lines import Line
from kit.preview.vlm.pictures import looks_like_one_line, paper
from kit.preview.vlm.spaces import mend

# Below this the recogniser guesses at specks and at edges in photographs.
MIN_SCORE = 0.5
# A single line read without detection must be surer than this, or it is detected after all.
SURE = 0.8
SETTINGS = {
    "Global.log_level": "error",
    "Global.max_side_len": 4000,
    # The default (shorter side at least 736) blows small crops up: six times
    # slower, and words come apart.
    "Det.limit_type": "max",
    "Det.limit_side_len": 1920,
    # Batches are padded to their longest line and hold 18 000 scores for every
    # step of it: one line at a time takes 27 % less time and half the memory.
    "Rec.rec_batch_num": 1,
    # One engine a worker: more threads in each would only compete.
    "EngineConfig.onnxruntime.intra_op_num_threads": 1,
    "EngineConfig.onnxruntime.inter_op_num_threads": 1,
}


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
        (text,), (score,) = self._recognized([picture])
        return mend(picture, text, self._texts) if score >= SURE else None

    def lines(self, picture: np.ndarray) -> list[Line]:
        """Every piece of text, in no order."""
        margin = max(16, 48 - min(picture.shape[:2]))  # the detector misses text that touches the border
        framed = cv2.copyMakeBorder(picture, *[margin] * 4, cv2.BORDER_CONSTANT, value=paper(picture))
        found = self._engine(framed, use_det=True, use_rec=False, use_cls=False)
        if getattr(found, "boxes", None) is None:
            return []
        corners = [np.asarray(box, np.float32) for box in found.boxes]
        # Turned upright, which a slightly turned scan needs.
        crops = [get_rotate_crop_image(framed, box) for box in corners]
        texts, scores = self._recognized(crops)
        lines = []
        for box, crop, text, score in zip(corners, crops, texts, scores, strict=True):
            if text and score >= MIN_SCORE:
                left, top, right, bottom = (float(value) - margin for value in (*box.min(axis=0), *box.max(axis=0)))
                lines.append(Line(left, top, right, bottom, mend(crop, text, self._texts)))
        return lines

    def _texts(self, pictures: list[np.ndarray]) -> list[str]:
        return self._recognized(pictures)[0]

    def _recognized(self, pictures: list[np.ndarray]) -> tuple[list[str], list[float]]:
        """Text and score, 0 to 1, of each one-line picture. Needs warm models: the engine's own call loads them."""
        result = self._engine.text_rec(TextRecInput(img=pictures))
        return [text.strip() for text in result.txts], list(result.scores)
