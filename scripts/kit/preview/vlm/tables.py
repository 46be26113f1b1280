"""Reads a table: structure from SLANet, text from the OCR, together as OTSL."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnxruntime

from kit.preview.vlm.lines import Line
from kit.preview.vlm.otsl import Cell, aligned_otsl, cell_texts, cells_of, otsl

SIDE = 488  # of SLANet's square input, pixels
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class TableStructure:
    """SLANet. Safe to call from several threads."""

    def __init__(self, model: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        # As PaddleOCR does with merge_no_span_structure: "<td></td>" stands for "<td>".
        tokens = self._session.get_modelmeta().custom_metadata_map["character"].splitlines()
        tokens = [token for token in tokens if token != "<td>"]
        if "<td></td>" not in tokens:
            tokens.append("<td></td>")
        self._tokens = ["sos", *tokens, "eos"]

    def cells(self, picture: np.ndarray) -> list[Cell]:
        """The cells of a BGR picture, row by row; empty when it shows no table."""
        height, width = picture.shape[:2]
        boxes, scores = self._session.run(None, {self._input: _prepared(picture)})
        tokens = [self._tokens[index] for index in scores[0].argmax(1)]
        return cells_of(tokens, boxes[0] * [width, height, width, height])


def _prepared(picture: np.ndarray) -> np.ndarray:
    """[1,3,SIDE,SIDE]: scaled to the longer side, normalised, in the upper left corner."""
    height, width = picture.shape[:2]
    ratio = SIDE / max(height, width)
    size = (max(1, int(width * ratio)), max(1, int(height * ratio)))
    scaled = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR)
    canvas = np.zeros((SIDE, SIDE, 3), np.float32)
    canvas[: size[1], : size[0]] = (scaled.astype(np.float32) / 255 - MEAN) / DEVIATION
    return canvas.transpose(2, 0, 1)[None]


def table_otsl(picture: np.ndarray, lines: list[Line], structure: TableStructure | None) -> str:
    """The table on a crop; lines: its text. Without a structure that fits the text, by the lines' alignment."""
    cells = structure.cells(picture) if structure and lines else []
    texts = cell_texts(cells, lines)
    return otsl(cells, texts) if texts else aligned_otsl(lines)
