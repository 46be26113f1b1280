"""benchmarks/: what must hold is judged from the figures, each line by itself; the tables say what was measured."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest
from support import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import topologies
from verdicts import FOUR, PLAIN, UPSTREAM, GatewayCost, Point, Verdict, judge, tables


def point(topology: str, clients: int, speed: float, *, document: str = "1 page", limit: str = "vlm", **others: float) -> Point:
    figures = {"p50": 1.0, "p95": 2.0, "received_per_page": 50_000.0, "vlm_share": 0.9, "cpu_share": 0.4, "cpu_per_page": 0.3,
               "gateway_cpu_per_page": 0.0, "errors": 0} | others  # fmt: skip
    return Point(topology, limit, document, clients, speed, **figures)


PDF = "PDF of 60 pages"
COST = GatewayCost(0.015, 0.02, 24)
# Each at its very bound.
POINTS = [
    point(UPSTREAM, 1, 0.5, received_per_page=500_000.0),
    point(UPSTREAM, 16, 0.5),
    point(UPSTREAM, 1, 1.0, document=PDF, limit="api"),
    point(PLAIN, 1, 0.6),
    point(FOUR, 1, 0.5),
    point(FOUR, 16, 1.5, vlm_share=0.8, cpu_per_page=0.38, gateway_cpu_per_page=0.02),
    point(FOUR, 1, 3.0, document=PDF, limit="api"),
]


def failing(points: list[Point], cost: GatewayCost = COST, same: bool = True) -> list[str]:
    return [verdict.must for verdict in judge(points, cost, same_markdown=same) if not verdict.holds]


def changed(index: int, **values: float) -> list[Point]:
    return [replace(p, **values) if i == index else p for i, p in enumerate(POINTS)]


def test_all_hold_at_their_bounds() -> None:
    assert failing(POINTS) == []


@pytest.mark.parametrize(
    ("points", "cost", "same", "must"),
    [
        (changed(5, pages_per_second=1.49), COST, True, "≥ 3 × upstream's pages/s with 4 APIs"),
        (changed(5, vlm_share=0.79), COST, True, "≥ 80 %"),
        (changed(4, p50=1.01), COST, True, "one client's latency"),
        (changed(6, pages_per_second=2.9), COST, True, PDF),
        (POINTS, GatewayCost(0.016, 0.02, 24), True, "15 ms"),
        (POINTS, GatewayCost(-0.001, 0.02, 24), True, "15 ms"),  # all noise
        (changed(5, gateway_cpu_per_page=0.03), COST, True, "5 % of a page's CPU"),
        (changed(4, received_per_page=50_001.0), COST, True, "≤ 10 %"),
        (POINTS, COST, False, "same Markdown"),
        (changed(3, errors=1), COST, True, "every reply whole"),
    ],
)
def test_each_fails_by_itself(points: list[Point], cost: GatewayCost, same: bool, must: str) -> None:
    (only,) = failing(points, cost, same)
    assert must in only


def test_nothing_is_judged_that_was_not_measured() -> None:
    with pytest.raises(LookupError):
        judge(POINTS[1:], COST, same_markdown=True)


def test_the_tables_show_ratios_to_upstream_under_the_same_load() -> None:
    points = [*POINTS, point(UPSTREAM, 16, 2.0, limit="cpu"), point(FOUR, 16, 3.0, limit="cpu")]
    text = tables(points, [Verdict("this", "2 ×", True), Verdict("that", "1 ×", False)])
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    by_vlm = {(row[0], row[1]): row for row in rows[:7]}
    assert by_vlm[FOUR, "16"][2:5] == ["1.50", "3.00", "80%"]
    assert [row[2:4] for row in rows if row[0] == f"{FOUR}, {PDF}"] == [["3.00", "3.00"]], "the API being the limit"
    assert by_vlm[UPSTREAM, "1"][3] == "1.00"
    assert [row[3] for row in rows if row[2] == "3.00" and row[4] == "-"] == ["1.50"], "the CPU being the limit"
    assert "| this | 2 × | holds |" in text and "| that | 1 × | **does not hold** |" in text


def test_the_plot_has_a_line_for_each_topology_and_the_vlm() -> None:
    points = [point(name, clients, 1.0) for name in (UPSTREAM, FOUR) for clients in (1, 16)]
    words = [node.text for node in ElementTree.fromstring(topologies.drawing(points)).iter("{http://www.w3.org/2000/svg}text")]
    assert {UPSTREAM, FOUR, "the VLM alone", "16"} <= set(words)


def test_the_page_has_a_place_for_what_is_measured() -> None:
    page = (ROOT / "docs" / "performance.md").read_text()
    assert page.count(topologies.BEGIN) == page.count(topologies.END) == 1
    assert page.index(topologies.BEGIN) < page.index("| ---") < page.index(topologies.END)
    assert "](performance.svg)" in page
    ElementTree.parse(ROOT / "docs" / "performance.svg")
    speed = topologies.VLM_LIMITS
    assert f"{speed['crop_ms'] / 1000:g} s and {speed['token_ms']} ms" in page and f"{speed['batch']} blocks" in page
