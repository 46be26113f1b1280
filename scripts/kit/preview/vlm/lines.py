"""Pieces of text with their places on a crop, and the rows that they form. All lengths are pixels of the crop."""

from __future__ import annotations

from dataclasses import dataclass


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
