"""Which pages: "3-7,9", the ranges that are sent, halves of them (pure). Pages are counted from 1."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

PER_RANGE = 8  # pages of one request: the fixed costs of a request are spread, a failed one costs little
Span = tuple[int, int]  # first and last page, last included

_ITEM = re.compile(r"([0-9]{1,7})?(-)?([0-9]{1,7})?")


def page_list(text: str) -> tuple[Span, ...]:
    """ "3-7,9", "5-", "-3" as spans in rising order, overlaps joined; an open end is a very large page.

    Raises ValueError when it is no such list.
    """
    spans: list[Span] = []
    for item in text.split(","):
        match = _ITEM.fullmatch(item.strip())
        if match is None or not (match[1] or match[3]):
            raise ValueError(f"{item.strip()!r} is no page and no range of pages")
        first = int(match[1] or 1)
        last = int(match[3]) if match[3] else (10**7 if match[2] else first)
        if not 1 <= first <= last:
            raise ValueError(f"{item.strip()!r} is no range of pages")
        spans.append((first, last))
    joined: list[Span] = []
    for first, last in sorted(spans):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return tuple(joined)


def wanted(pages: int, spans: Sequence[Span] = (), most: int | None = None) -> list[Span]:
    """Those pages of a document of so many that are in `spans` (all, where there are none), the first `most` of them."""
    left = pages if most is None else most
    chosen: list[Span] = []
    for first, last in spans or ((1, pages),):
        last = min(last, pages, first + left - 1)
        if first <= last:
            chosen.append((first, last))
            left -= last - first + 1
    return chosen


def count(spans: Sequence[Span]) -> int:
    """How many pages these are."""
    return sum(last - first + 1 for first, last in spans)


def cut(spans: Sequence[Span], done: Sequence[Span] = (), most: int = PER_RANGE) -> Iterator[Span]:
    """The ranges that are sent, none longer than `most`, without the pages that are `done`.

    Where they begin hangs on `spans` alone: a resumed run sends what an undisturbed one would have sent.
    """
    for first, last in spans:
        for start in range(first, last + 1, most):
            yield from without([(start, min(start + most - 1, last))], done)


def halves(span: Span) -> tuple[Span, Span]:
    """Of at least two pages; the first half is the longer one."""
    first, last = span
    middle = (first + last) // 2
    return (first, middle), (middle + 1, last)


def without(spans: Sequence[Span], done: Sequence[Span]) -> list[Span]:
    """Pages of `spans` that are in none of `done`."""
    left = list(spans)
    for first, last in done:
        left = [
            piece
            for one in left
            for piece in ((one[0], min(one[1], first - 1)), (max(one[0], last + 1), one[1]))
            if piece[0] <= piece[1]
        ]
    return left
