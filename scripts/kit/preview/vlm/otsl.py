"""Tables as OTSL: from SLANet's tokens, or from the alignment of the text alone.

OTSL is what PaddleOCR-VL answers and PaddleX turns into HTML: <fcel> a cell
with text, <ecel> an empty one, <lcel> part of the cell to the left, <ucel> of
the cell above, <xcel> of both, <nl> the end of a row. All lengths are pixels of
the crop.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kit.preview.vlm.lines import Line, rows_of
from kit.preview.vlm.paragraphs import joined, row_text

MIN_OVERLAP = 0.1  # share of a line that must lie in a cell's box
MAX_ASTRAY = 0.4  # share of lines outside all cells at which the structure is not believed


@dataclass(frozen=True)
class Cell:
    """A cell at (row, column) with its spans; box: x1, y1, x2, y2 in pixels of the crop."""

    row: int
    column: int
    row_span: int
    column_span: int
    box: tuple[float, float, float, float]


def cells_of(tokens: Sequence[str], boxes: np.ndarray) -> list[Cell]:
    """Cells from SLANet's HTML tokens, of which each has a box [len(tokens),4]; reading ends at "eos"."""
    rows: list[list[list[int]]] = []  # of each cell: row span, column span, index of its token
    for index, token in enumerate(tokens):
        if token == "eos":
            break
        if token == "<tr>":
            rows.append([])
        elif token in ("<td></td>", "<td"):
            if not rows:
                rows.append([])
            rows[-1].append([1, 1, index])
        elif "span=" in token and rows and rows[-1]:
            rows[-1][-1][0 if "row" in token else 1] = int(re.findall(r"\d+", token)[0])
    cells: list[Cell] = []
    taken: set[tuple[int, int]] = set()
    for row, entries in enumerate(rows):
        column = 0
        for row_span, column_span, index in entries:
            while (row, column) in taken:
                column += 1
            row_span = min(row_span, len(rows) - row)
            taken |= {(row + down, column + right) for down in range(row_span) for right in range(column_span)}
            left, top, right_side, bottom = (float(value) for value in boxes[index])
            cells.append(Cell(row, column, row_span, column_span, (left, top, right_side, bottom)))
            column += column_span
    return cells


def otsl(cells: Sequence[Cell], texts: Sequence[str]) -> str:
    """OTSL of cells with their texts; places that no cell covers are empty."""
    height = max((cell.row + cell.row_span for cell in cells), default=0)
    width = max((cell.column + cell.column_span for cell in cells), default=0)
    grid = [["<ecel>"] * width for _ in range(height)]
    for cell, text in zip(cells, texts, strict=True):
        for down in range(cell.row_span):
            for right in range(cell.column_span):
                grid[cell.row + down][cell.column + right] = _token(down, right, text)
    return "".join("".join(row) + "<nl>" for row in grid)


def _token(down: int, right: int, text: str) -> str:
    """What stands `down` and `right` of the first place of a cell."""
    if down or right:
        return "<xcel>" if down and right else "<ucel>" if down else "<lcel>"
    return f"<fcel>{text}" if text else "<ecel>"


def cell_texts(cells: Sequence[Cell], lines: Sequence[Line]) -> list[str] | None:
    """The text of each cell; None when too many lines lie outside all cells for these to be believed."""
    if not cells:
        return None
    boxes = np.array([cell.box for cell in cells])
    contents: list[list[Line]] = [[] for _ in cells]
    astray = 0
    for line in lines:
        shares = _shares(boxes, line)
        if shares.max() < MIN_OVERLAP:
            astray += 1
            contents[int(_distances(boxes, line).argmin())].append(line)
        else:
            contents[int(shares.argmax())].append(line)
    if astray > MAX_ASTRAY * len(lines):
        return None
    return [_content(content) for content in contents]


def _shares(boxes: np.ndarray, line: Line) -> np.ndarray:
    """[N]: how much of the line lies in each of boxes [N,4], 0 to 1."""
    wide = np.minimum(boxes[:, 2], line.right) - np.maximum(boxes[:, 0], line.left)
    high = np.minimum(boxes[:, 3], line.bottom) - np.maximum(boxes[:, 1], line.top)
    return wide.clip(0) * high.clip(0) / max(line.width * line.height, 1.0)


def _distances(boxes: np.ndarray, line: Line) -> np.ndarray:
    """[N]: from the line's middle to each of boxes [N,4]; rows count double, being closer than columns."""
    x, y = (line.left + line.right) / 2, line.middle
    across = np.maximum(boxes[:, 0] - x, x - boxes[:, 2]).clip(0)
    down = np.maximum(boxes[:, 1] - y, y - boxes[:, 3]).clip(0)
    return np.hypot(across, 2 * down)


def aligned_otsl(lines: list[Line]) -> str:
    """OTSL from the lines alone: columns are parted by gaps that run through the whole table."""
    if not lines:
        return ""
    columns = _columns(lines)
    result = ""
    for row in rows_of(lines):
        contents: list[list[Line]] = [[] for _ in columns]
        for line in row:
            shared = [min(line.right, right) - max(line.left, left) for left, right in columns]
            contents[int(np.argmax(shared))].append(line)
        texts = [_content(content) for content in contents]
        result += "".join(_token(0, 0, text) for text in texts) + "<nl>"
    return result


def _columns(lines: Sequence[Line]) -> list[tuple[float, float]]:
    """Left and right of each column; a line wider than half the table is a heading and says nothing."""
    left, right = min(line.left for line in lines), max(line.right for line in lines)
    narrow = [line for line in lines if line.width < 0.5 * (right - left)] or list(lines)
    columns: list[tuple[float, float]] = []
    for line in sorted(narrow, key=lambda line: line.left):
        if columns and line.left <= columns[-1][1]:
            columns[-1] = (columns[-1][0], max(columns[-1][1], line.right))
        else:
            columns.append((line.left, line.right))
    return columns


def _content(lines: list[Line]) -> str:
    text = ""
    for row in rows_of(lines):
        text = joined(text, row_text(row))
    return text
