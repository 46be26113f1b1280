"""Calls of PaddleOCRVL(…) in a Python file: the same wiring as in a pipeline config, written as arguments."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

from kit.lint.findings import Place
from kit.lint.tree import Scalar


@dataclass
class Call:
    """arguments: those given as constants. open: it has others, whose values cannot be read here."""

    place: Place
    arguments: dict[str, Scalar]
    open: bool


def calls(file: Path) -> list[Call]:
    """Every call of PaddleOCRVL in a file; none where it cannot be read."""
    try:
        text = file.read_text(encoding="utf-8")
        tree = ast.parse(text)
    except (OSError, ValueError, SyntaxError):
        return []
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))

    def place(node: ast.expr) -> Place:
        def offset(line: int, column: int) -> int:  # ast counts UTF-8 bytes
            row = text[starts[line - 1] : starts[line]]
            return starts[line - 1] + len(row.encode()[:column].decode())

        end_line, end_column = node.end_lineno or node.lineno, node.end_col_offset or 0
        return Place(file, node.lineno, offset(node.lineno, node.col_offset), offset(end_line, end_column))

    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "PaddleOCRVL":
            constants = {
                keyword.arg: Scalar(
                    keyword.value.value, at := place(keyword.value), text[at.start : at.end]
                )
                for keyword in node.keywords
                if keyword.arg and isinstance(keyword.value, ast.Constant)
            }  # fmt: skip
            found.append(Call(place(node), constants, len(constants) < len(node.keywords) or bool(node.args)))
    return found
