"""Puts lines of text together: which line goes on in the next one, and where a paragraph ends."""

from __future__ import annotations

import re
import statistics
from itertools import pairwise

from kit.preview.vlm.lines import Line, rows_of

# Scripts that are written without spaces, their punctuation included.
_UNSPACED = re.compile(r"[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef]")
_LIST_ITEM = re.compile(
    r"(?:\d{1,2}[.)]|\([a-z0-9]{1,2}\)|[a-z]\)|[•·▪◦●○■*–—-])\s?(?=\S)"
    r"|[一二三四五六七八九十]+、|（[一二三四五六七八九十\d]+）"
)
_SENTENCE_END = ".;:!?。；：！？"
# Lines further apart than this, in usual line pitches, are two paragraphs.
_PARAGRAPH_PITCH = 1.22
_HEIGHT_CHANGE = 0.4  # of a line's height; more is another font size
_INDENT = 0.8  # of a line's height


def joined(first: str, second: str) -> str:
    """Two pieces of one text. A hyphen at the end of the line goes when a small letter follows."""
    if not first or not second:
        return first or second
    if _UNSPACED.match(first[-1]) or _UNSPACED.match(second[0]):
        return first + second
    if first.endswith("-") and len(first) > 1 and first[-2].isalpha() and second[0].islower():
        return first[:-1] + second
    return f"{first} {second}"


def row_text(row: list[Line]) -> str:
    text = ""
    for line in row:
        text = joined(text, line.text)
    return text


def flowing_text(lines: list[Line]) -> str:
    """The text of one block: a line of output for each paragraph, list item or short line of it."""
    rows = [_merged(row) for row in rows_of(lines)]
    if not rows:
        return ""
    left, right = min(row.left for row in rows), max(row.right for row in rows)
    pitch = _usual_pitch(rows)
    paragraphs = [rows[0].text]
    for previous, row in pairwise(rows):
        if _goes_on(previous, row, left=left, right=right, pitch=pitch):
            paragraphs[-1] = joined(paragraphs[-1], row.text)
        else:
            paragraphs.append(row.text)
    return "\n".join(paragraphs)


def _merged(row: list[Line]) -> Line:
    return Line(
        row[0].left,
        min(line.top for line in row),
        max(line.right for line in row),
        max(line.bottom for line in row),
        row_text(row),
    )


def _usual_pitch(rows: list[Line]) -> float:
    """Distance from a line to the next within a paragraph; 0 when there are too few lines to tell."""
    steps = [after.middle - before.middle for before, after in pairwise(rows)]
    return statistics.median_low(steps) if len(steps) >= 2 else 0.0


def _goes_on(previous: Line, row: Line, *, left: float, right: float, pitch: float) -> bool:
    """Whether `row` continues the paragraph of `previous`."""
    height = min(previous.height, row.height)
    if abs(row.height - previous.height) > _HEIGHT_CHANGE * max(row.height, previous.height):
        return False
    if row.top - previous.bottom > 1.2 * height:
        return False
    if pitch and row.middle - previous.middle > _PARAGRAPH_PITCH * pitch:
        return False
    if _LIST_ITEM.match(row.text) and (previous.text[-1] in _SENTENCE_END or _LIST_ITEM.match(previous.text)):
        return False
    if _is_centred(previous, left=left, right=right):
        return False
    indented = row.left - left > _INDENT * height and previous.left - left < 0.5 * _INDENT * height
    if indented and previous.text[-1] in _SENTENCE_END:
        return False
    return right - previous.right < _first_word_width(row) + 0.6 * height


def _is_centred(row: Line, *, left: float, right: float) -> bool:
    """True for a line with the same room on both sides: its end says nothing about a margin."""
    before, after = row.left - left, right - row.right
    return before > 0.5 * row.height and abs(before - after) < 0.35 * row.height


def _first_word_width(row: Line) -> float:
    """Room that the row's first word would have needed on the line above, in pixels."""
    # Where there are no words: punctuation may not start a line and takes the letter before it along.
    letters = 3 if _UNSPACED.match(row.text[0]) else len(row.text.split(maxsplit=1)[0])
    return row.width * letters / len(row.text)
