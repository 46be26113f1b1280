"""OTSL of tables: from SLANet's tokens with the text of the OCR, and from the text's alignment alone."""

from __future__ import annotations

import numpy as np
from kit.preview.vlm.lines import Line
from kit.preview.vlm.otsl import Cell, aligned_otsl, cell_texts, cells_of, otsl


def line(text: str, left: float, top: float, width: float = 60, height: float = 20) -> Line:
    return Line(left, top, left + width, top + height, text)


def test_spans_are_marked_at_every_place_that_they_cover():
    cells = [Cell(0, 0, 2, 2, (0, 0, 0, 0)), Cell(0, 2, 1, 1, (0, 0, 0, 0)), Cell(1, 2, 1, 1, (0, 0, 0, 0))]
    assert otsl(cells, ["both", "up", "down"]) == "<fcel>both<lcel><fcel>up<nl><ucel><xcel><fcel>down<nl>"


def test_a_cell_without_text_is_empty():
    cells = [Cell(0, 0, 1, 1, (0, 0, 0, 0)), Cell(0, 1, 1, 1, (0, 0, 0, 0))]
    assert otsl(cells, ["", "7"]) == "<ecel><fcel>7<nl>"


def test_places_that_no_cell_covers_are_empty():
    cells = [Cell(0, 0, 1, 1, (0, 0, 0, 0)), Cell(0, 1, 1, 1, (0, 0, 0, 0)), Cell(1, 0, 1, 1, (0, 0, 0, 0))]
    assert otsl(cells, ["a", "b", "c"]) == "<fcel>a<fcel>b<nl><fcel>c<ecel><nl>"


def test_tokens_become_cells_and_a_row_span_pushes_the_next_row_to_the_right():
    tokens = [
        *("sos", "<tbody>", "<tr>", "<td", ' rowspan="2"', ">", "</td>", "<td></td>", "</tr>"),
        *("<tr>", "<td></td>", "</tr>", "</tbody>", "eos", "<td></td>"),
    ]
    boxes = np.arange(len(tokens))[:, None].repeat(4, axis=1)
    assert [(cell.row, cell.column, cell.row_span, cell.column_span) for cell in cells_of(tokens, boxes)] == [
        (0, 0, 2, 1), (0, 1, 1, 1), (1, 1, 1, 1),
    ]  # fmt: skip
    assert cells_of(tokens, boxes)[0].box == (3, 3, 3, 3)


def test_a_span_never_reaches_below_the_last_row():
    tokens = ["<tr>", "<td", ' rowspan="9"', ">", "</td>", "<td></td>", "</tr>", "eos"]
    cells = cells_of(tokens, np.zeros((len(tokens), 4)))
    assert otsl(cells, ["a", "b"]) == "<fcel>a<fcel>b<nl>"


GRID = [
    Cell(0, 0, 1, 1, (0, 0, 100, 50)), Cell(0, 1, 1, 1, (100, 0, 200, 50)),
    Cell(1, 0, 1, 1, (0, 50, 100, 100)), Cell(1, 1, 1, 1, (100, 50, 200, 100)),
]  # fmt: skip


def test_the_lines_of_a_cell_are_joined_from_top_to_bottom():
    lines = [line("second", 110, 28), line("8080", 10, 60), line("first", 110, 4)]
    assert cell_texts(GRID, lines) == ["", "first second", "8080", ""]


def test_chinese_lines_of_a_cell_are_joined_without_a_blank():
    assert cell_texts(GRID, [line("入职", 10, 4), line("日期", 10, 28)])[0] == "入职日期"


def test_a_line_beside_all_cells_goes_to_the_nearest():
    lines = [line("a", 10, 10), line("b", 110, 10), line("c", 10, 60), line("far", 210, 70)]
    assert cell_texts(GRID, lines) == ["a", "b", "c", "far"]


def test_a_structure_that_misses_most_of_the_text_is_not_believed():
    assert cell_texts(GRID, [line("a", 10, 10), line("x", 300, 10), line("y", 300, 60)]) is None
    assert cell_texts([], [line("a", 10, 10)]) is None


def test_alignment_finds_columns_and_empty_cells():
    lines = [
        line("Office", 0, 0), line("Shelf", 100, 0), line("Sheets", 200, 0),
        line("Northgate", 0, 30), line("318", 215, 30, width=30),
    ]  # fmt: skip
    assert aligned_otsl(lines) == "<fcel>Office<fcel>Shelf<fcel>Sheets<nl><fcel>Northgate<ecel><fcel>318<nl>"


def test_a_heading_across_the_table_does_not_join_its_columns():
    lines = [line("A heading across the table", 0, 0, width=260), line("1", 0, 30), line("2", 200, 30)]
    assert aligned_otsl(lines).endswith("<fcel>1<fcel>2<nl>")


def test_no_text_is_no_table():
    assert aligned_otsl([]) == ""
