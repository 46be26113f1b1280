"""The six tasks of PaddleOCR-VL: for each prompt, what the stand-in answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from kit.preview.vlm.lines import rows_of
from kit.preview.vlm.ocr import Reader
from kit.preview.vlm.paragraphs import flowing_text
from kit.preview.vlm.tables import TableStructure, table_otsl

LOCATIONS = 1000  # <|LOC_0|> to <|LOC_1000|> span the picture's width, and its height


class Recognizer:
    """Answers one prompt about one picture at a time: an engine of its own, the table model shared.

    Pictures are BGR uint8 arrays. Not safe to share between threads.
    """

    def __init__(self, structure: TableStructure | None) -> None:
        self._reader = Reader()
        self._structure = structure

    def warm_up(self) -> None:
        """Load every model and run each once, so that the first request is not slower."""
        self._reader.warm_up()
        if self._structure:
            self._structure.cells(np.full((64, 64, 3), 255, np.uint8))

    def answer(self, prompt: str, picture: np.ndarray) -> str:
        """The text that PaddleOCR-VL would put in its place. prompt: one of PROMPTS."""
        return PROMPTS[prompt](self, picture)

    def _text(self, picture: np.ndarray) -> str:
        line = self._reader.single_line(picture)
        return flowing_text(self._reader.lines(picture)) if line is None else line

    def _table(self, picture: np.ndarray) -> str:
        return table_otsl(picture, self._reader.lines(picture), self._structure)

    def _formula(self, picture: np.ndarray) -> str:
        """The characters, not the mathematics: neither fractions nor roots are understood."""
        text = self._text(picture).replace("\n", " ")
        return rf"\[ {text} \]" if text else ""

    def _chart(self, picture: np.ndarray) -> str:
        """The chart's words in rows, in the form in which PaddleX expects a table of values."""
        rows = rows_of(self._reader.lines(picture))
        return "\n".join(" | ".join(line.text for line in row) for row in rows)

    def _spotting(self, picture: np.ndarray) -> str:
        """Each line's text and its four corners, clockwise from the upper left."""
        height, width = picture.shape[:2]
        spotted = []
        for row in rows_of(self._reader.lines(picture)):
            for line in row:
                corners = ((line.left, line.top), (line.right, line.top), (line.right, line.bottom), (line.left, line.bottom))
                places = "".join(f"{_location(x / width)}{_location(y / height)}" for x, y in corners)
                spotted.append(line.text + places)
        return "\n".join(spotted)


def _location(share: float) -> str:
    return f"<|LOC_{int(min(max(share, 0.0), 1.0) * LOCATIONS)}|>"


# As PaddleX 3.7.2 sends them (paddlex/inference/pipelines/paddleocr_vl/pipeline.py).
PROMPTS: dict[str, Callable[[Recognizer, np.ndarray], str]] = {
    "OCR:": Recognizer._text,
    "Table Recognition:": Recognizer._table,
    "Formula Recognition:": Recognizer._formula,
    "Chart Recognition:": Recognizer._chart,
    "Seal Recognition:": Recognizer._text,
    "Spotting:": Recognizer._spotting,
}


def recognizers(count: int, table_model: Path | None) -> list[Recognizer]:
    """`count` warm recognizers, one for each worker. Raises what onnxruntime raises for a bad model file."""
    structure = TableStructure(table_model) if table_model else None
    made = [Recognizer(structure) for _ in range(count)]
    for recognizer in made:
        recognizer.warm_up()
    return made
