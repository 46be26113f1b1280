"""Gives lines back the blanks between words that the recogniser lost.

PP-OCRv6 small drops a blank in one to four lines of a hundred ("full ofpeople";
390 lines, by how they were scaled). The picture still shows it: gaps as wide as
the line's other word gaps. Where there are more of these than blanks, the words
are read one by one, and the places of their ends are carried over to the text
of the whole line.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise

import numpy as np

from kit.preview.vlm.pictures import ink, runs

_SPACED = re.compile(r"[0-9A-Za-z\u00c0-\u052f.,;:!?)\]%'\"’”]")
# A gap is a word gap from this share of the line's usual one.
_LIKE_A_WORD_GAP = 0.75
# In a line without any blank: from this share of its height, and this many usual letter gaps.
_LEAST_OF_HEIGHT, _LEAST_OF_LETTER_GAPS = 0.22, 3.0
_PAPER_BESIDE_WORD = 2  # pixels kept on each side of a word that is cut out


def mend(picture: np.ndarray, text: str, read_all: Callable[[list[np.ndarray]], Sequence[str]]) -> str:
    """`text` with the blanks that `picture`, the line it was read from, shows.

    read_all: reads upright one-line pictures. Only blanks are ever added.
    """
    if len(_SPACED.findall(text)) < 0.9 * len(text.replace(" ", "")) or len(text) < 4:
        return text
    cuts = word_gaps(picture, text.count(" "))
    if len(cuts) <= text.count(" "):
        return text
    edges = [0, *cuts, picture.shape[1]]
    words = [picture[:, max(0, start - _PAPER_BESIDE_WORD) : end + _PAPER_BESIDE_WORD] for start, end in pairwise(edges)]
    return with_blanks(text, [word.strip() for word in read_all(words)])


def word_gaps(picture: np.ndarray, blanks: int) -> list[int]:
    """Middles of the gaps between words, in pixels from the left; blanks: how many the recogniser saw."""
    marks = ink(picture)
    rows = np.flatnonzero(marks.any(axis=1))
    if not rows.size:
        return []
    height = int(rows[-1] - rows[0] + 1)
    gaps = [(start, end) for start, end in runs(~marks.any(axis=0)) if start > 0 and end < picture.shape[1]]
    widths = sorted((end - start for start, end in gaps), reverse=True)
    if not widths:
        return []
    if blanks:
        least = _LIKE_A_WORD_GAP * float(np.median(widths[:blanks]))
    else:
        least = max(_LEAST_OF_HEIGHT * height, _LEAST_OF_LETTER_GAPS * float(np.median(widths)))
    return [(start + end) // 2 for start, end in gaps if end - start >= least]


def with_blanks(text: str, words: Sequence[str]) -> str:
    """`text` with a blank wherever one of `words`, the same text read in pieces, ends.

    A place is taken over only where both readings agree on the letters around it.
    """
    letters = "".join(words)
    ends = set(accumulate(len(word) for word in words if word))
    ends.discard(len(letters))
    # Where each letter of the pieces stands in the text.
    places: dict[int, int] = {}
    for block in difflib.SequenceMatcher(None, letters, text, autojunk=False).get_matching_blocks():
        places.update((block.a + step, block.b + step) for step in range(block.size))
    at = {places[end] for end in ends if end - 1 in places and places.get(end) == places[end - 1] + 1}
    return "".join(f" {letter}" if place in at else letter for place, letter in enumerate(text))
