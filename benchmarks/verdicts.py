"""What the topologies must hold against each other, judged from their figures. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

UPSTREAM, PLAIN = "upstream: 1 API, its defaults", "kit: 1 API"


def gateway(replicas: int) -> str:
    """The name of that topology."""
    return f"kit: gateway, {replicas} API{'s' if replicas > 1 else ''}"


FOUR = gateway(4)


@dataclass(frozen=True)
class Point:
    """One topology under one load.

    limit: "vlm", "api" or "cpu", what the speeds of VLM and layout model were chosen to make the limit. document: "1 page" or
    "PDF of N pages".
    vlm_share: of the pages a second that the VLM alone could do. cpu_share: of all cores of the machine.
    received_per_page: bytes. cpu_per_page, gateway_cpu_per_page: seconds of all API processes and of the gateway.
    """

    topology: str
    limit: str
    document: str
    clients: int
    pages_per_second: float
    p50: float
    p95: float
    received_per_page: float
    vlm_share: float
    cpu_share: float
    cpu_per_page: float
    gateway_cpu_per_page: float
    errors: int


@dataclass(frozen=True)
class GatewayCost:
    """What a page takes longer through the gateway than straight to the same API: median, and all but the slowest tenth; seconds."""

    median: float
    p90: float
    pairs: int


@dataclass(frozen=True)
class Verdict:
    """One line that must hold. value: as measured, in words."""

    must: str
    value: str
    holds: bool

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def find(points: Sequence[Point], topology: str, limit: str, clients: int, *, single: bool = True) -> Point:
    """Raises LookupError when it was not measured."""
    for point in points:
        if (point.topology, point.limit, point.clients, point.document == "1 page") == (topology, limit, clients, single):
            return point
    raise LookupError(f"not measured: {topology}, {limit}, {clients} clients")


def judge(points: Sequence[Point], cost: GatewayCost, *, same_markdown: bool) -> list[Verdict]:
    """The lines of docs/performance.md. Raises LookupError when a point is missing."""
    many, upstream_many = find(points, FOUR, "vlm", 16), find(points, UPSTREAM, "vlm", 16)
    one, upstream_one = find(points, FOUR, "vlm", 1), find(points, UPSTREAM, "vlm", 1)
    long, upstream_long = (find(points, name, "api", 1, single=False) for name in (FOUR, UPSTREAM))
    faster = many.pages_per_second / upstream_many.pages_per_second
    faster_pdf = long.pages_per_second / upstream_long.pages_per_second
    bytes_share = one.received_per_page / upstream_one.received_per_page
    cpu_share = many.gateway_cpu_per_page / (many.cpu_per_page + many.gateway_cpu_per_page)
    errors = sum(point.errors for point in points)
    return [
        Verdict("16 clients, one page each: ≥ 3 × upstream's pages/s with 4 APIs", f"{faster:.1f} ×", faster >= 3),
        Verdict("the same: ≥ 80 % of what the VLM alone could do", f"{many.vlm_share:.0%}", many.vlm_share >= 0.8),
        Verdict(
            "one client's latency ≤ upstream's (p50)",
            f"{one.p50:.2f} s against {upstream_one.p50:.2f} s",
            one.p50 <= upstream_one.p50,
        ),
        Verdict(f"one client, one {long.document}: ≥ 3 × upstream's pages/s", f"{faster_pdf:.1f} ×", faster_pdf >= 3),
        Verdict(
            "the gateway adds ≤ 15 ms to a page (median)",
            f"{cost.median * 1000:.1f} ms; nine of ten pages: ≤ {cost.p90 * 1000:.1f} ms",
            0 < cost.median <= 0.015,
        ),
        Verdict(
            "and takes ≤ 5 % of a page's CPU time",
            f"{cpu_share:.1%} ({many.gateway_cpu_per_page * 1000:.0f} ms)",
            cpu_share <= 0.05,
        ),
        Verdict("bytes received a page ≤ 10 % of upstream's", f"{bytes_share:.1%}", bytes_share <= 0.1),
        Verdict("for the same Markdown", "the same" if same_markdown else "it differs", same_markdown),
        Verdict("every reply whole", f"{errors} errors", errors == 0),
    ]


HEADINGS = ("", "clients", "pages/s", "× upstream", "of the VLM", "p50 s", "p95 s", "kB a page", "CPU s a page", "CPU used")


def tables(points: Sequence[Point], verdicts: Sequence[Verdict]) -> str:
    """Markdown: one table of all loads, with ratios to upstream's under the same load, and one of what must hold."""
    text = []
    for limit, title in (("vlm", "The VLM is the limit"), ("api", "The API is the limit"), ("cpu", "The CPU is the limit")):
        rows = [point for point in points if point.limit == limit]
        if rows:
            text += [f"**{title}**", "", *_table(HEADINGS, [_row(point, points) for point in rows]), ""]
    if verdicts:
        lines = [(verdict.must, verdict.value, "holds" if verdict.holds else "**does not hold**") for verdict in verdicts]
        text += ["**What must hold**", "", *_table(("", "measured", ""), lines), ""]
    return "\n".join(text)


def _row(point: Point, points: Sequence[Point]) -> tuple[str, ...]:
    single = point.document == "1 page"
    try:
        upstream = find(points, UPSTREAM, point.limit, point.clients, single=single).pages_per_second
        ratio = f"{point.pages_per_second / upstream:.2f}" if upstream else "-"
    except LookupError:
        ratio = "-"
    share = "-" if point.limit == "cpu" else f"{point.vlm_share:.0%}"
    return (
        point.topology + ("" if single else f", {point.document}"),
        *(str(point.clients), f"{point.pages_per_second:.2f}", ratio, share, f"{point.p50:.2f}", f"{point.p95:.2f}"),
        *(f"{point.received_per_page / 1000:.1f}", f"{point.cpu_per_page + point.gateway_cpu_per_page:.2f}"),
        f"{point.cpu_share:.0%}",
    )


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---"] + ["---:"] * (len(headings) - 1)
    return [f"| {' | '.join(cells)} |" for cells in (headings, rule, *rows)]
