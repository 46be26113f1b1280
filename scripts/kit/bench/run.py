"""A whole measurement: warm up, pages at each number of clients, one long PDF."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kit.bench import figures
from kit.bench.drive import drive, warm_up
from kit.bench.figures import Figures, Reply
from kit.bench.workload import PAGES, Load, Workload

LEAST = 8  # requests of a level where the user gives no number, and a multiple of every page of the workload
PER_CLIENT = 4
BASE_SECONDS, SECONDS_PER_PAGE = 60.0, 30.0  # a reply's time limit, as that of ./kit parse
SINGLE = "1 page"


@dataclass(frozen=True)
class Plan:
    """What is measured. clients: levels of load, in this order. requests: of each level; None for 4 a client, at least 8.

    pdf_pages: of the one long PDF; 0 for none. timeout: seconds for a reply; None for 60 and 30 a page.
    """

    url: str
    clients: Sequence[int] = (1, 4, 16)
    requests: int | None = None
    pdf_pages: int = 60
    seed: int = 0
    timeout: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    names: Sequence[str] = PAGES

    def requests_of(self, clients: int) -> int:
        return self.requests or max(PER_CLIENT * clients, LEAST)

    def limit(self, pages: int) -> float:
        return self.timeout or BASE_SECONDS + SECONDS_PER_PAGE * pages

    @property
    def warm_ups(self) -> int:
        """As many at once as the highest level has, so that every worker behind the address has read a page; 4 at most."""
        return min(max(self.clients, default=1), 4)


Note = Callable[[str], None]


async def measure(plan: Plan, samples: Path, measured: list[Figures], note: Note) -> None:
    """Append the figures of one level after the other to `measured`; also those of a level that is cut short.

    samples: folder with the samples. note: gets a line a level, for people.
    Raises KitError when the service does not parse a page to begin with.
    """
    workload = Workload(samples, plan.seed, plan.names)
    note(f"warm-up: {plan.warm_ups} page{'s' if plan.warm_ups > 1 else ''}, not counted")
    await warm_up(plan.url, workload.page(), plan.warm_ups, plan.limit(1), plan.headers)
    for clients in plan.clients:
        loads = [workload.page() for _ in range(plan.requests_of(clients))]
        note(f"{len(loads)} pages, {clients} client{'s' if clients > 1 else ''}")
        await _level(plan, SINGLE, loads, clients, measured)
    if plan.pdf_pages:
        load = workload.long_pdf(plan.pdf_pages)
        note(load.name)
        await _level(plan, load.name, [load], 1, measured)


async def _level(plan: Plan, name: str, loads: Sequence[Load], clients: int, measured: list[Figures]) -> None:
    replies: list[Reply] = []
    try:
        await drive(plan.url, loads, clients, plan.limit(loads[0].pages), replies.append, plan.headers)
    finally:  # also when interrupted
        if replies:
            measured.append(figures.count(name, clients, replies))


def as_json(plan: Plan, measured: Sequence[Figures], *, complete: bool) -> dict[str, Any]:
    """For programs. complete: False when the measurement was cut short."""
    return {
        "url": plan.url,
        "seed": plan.seed,
        "warm_up_requests": plan.warm_ups,
        "complete": complete,
        "levels": [level.as_dict() for level in measured],
    }


HEADINGS = ("document", "clients", "requests", "pages/s", "p50 s", "p95 s", "p99 s", "sent kB/page", "received kB/page", "errors")


def table(measured: Sequence[Figures]) -> str:
    """A Markdown table, padded so that it reads well in a terminal."""
    rows = [HEADINGS, *map(_row, measured)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]

    def line(cells: Sequence[str]) -> str:
        # Words to the left, numbers to the right.
        words = (0, len(cells) - 1)
        padded = (c.ljust(w) if i in words else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True)))
        return f"| {' | '.join(padded)} |"

    rule = [("-" * width if i in (0, len(widths) - 1) else "-" * (width - 1) + ":") for i, width in enumerate(widths)]
    return "\n".join([line(rows[0]), line(rule), *map(line, rows[1:])])


def _row(level: Figures) -> tuple[str, ...]:
    errors = ", ".join(f"{count} × {kind}" for kind, count in level.errors.items())
    return (
        *(level.document, str(level.clients), str(level.requests), f"{level.pages_per_second:.2f}"),
        *(_number(value, 1, 2) for value in (level.p50, level.p95, level.p99)),
        *(_number(value, 1000, 1) for value in (level.sent_per_page, level.received_per_page)),
        errors.replace("|", "/") or "none",
    )


def _number(value: float | None, unit: float, places: int) -> str:
    return "-" if value is None else f"{value / unit:.{places}f}"
