"""Lists of pages, ranges and halves of them."""

from __future__ import annotations

import pytest
from kit.client.ranges import PER_RANGE, count, cut, halves, page_list, wanted, without


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("3", [(3, 3)]),
        ("3-7,9", [(3, 7), (9, 9)]),
        ("9, 3-7", [(3, 7), (9, 9)]),
        ("-3", [(1, 3)]),
        ("1-3,4,2-6", [(1, 6)]),
    ],
)
def test_page_lists(text: str, spans: list[tuple[int, int]]) -> None:
    assert list(page_list(text)) == spans


@pytest.mark.parametrize("text", ["", "0", "7-3", "-", "3--5", "a", "1,,2", "1.5", "３-", "9" * 9])
def test_what_is_no_page_list(text: str) -> None:
    with pytest.raises(ValueError):
        page_list(text)


def test_what_is_wanted_of_a_document() -> None:
    assert wanted(5) == [(1, 5)]
    assert wanted(5, page_list("4-")) == [(4, 5)]
    assert wanted(5, page_list("2,4-9")) == [(2, 2), (4, 5)]
    assert wanted(5, page_list("6-9")) == []
    assert wanted(9, page_list("2-3,5-9"), 4) == [(2, 3), (5, 6)]
    assert wanted(9, (), 100) == [(1, 9)]


@pytest.mark.parametrize("pages", [1, 7, 8, 9, 16, 500])
def test_ranges_have_every_page_once_and_in_order(pages: int) -> None:
    spans = list(cut([(1, pages)]))
    assert [page for first, last in spans for page in range(first, last + 1)] == list(range(1, pages + 1))
    assert all(last - first < PER_RANGE for first, last in spans) and count(spans) == pages


def test_a_resumed_run_cuts_where_the_first_one_did() -> None:
    done = [(1, 8), (13, 16), (18, 18)]
    left = list(cut([(1, 24)], done))
    assert left == [(9, 12), (17, 17), (19, 24)]
    assert without([(1, 24)], left) == [(1, 8), (13, 16), (18, 18)]
    assert list(cut([(1, 24)], [(1, 24)])) == []


@pytest.mark.parametrize("span", [(1, 2), (3, 5), (9, 16)])
def test_halves(span: tuple[int, int]) -> None:
    first, second = halves(span)
    assert first[0] == span[0] and second == (first[1] + 1, span[1])
    assert 0 <= count([first]) - count([second]) <= 1
