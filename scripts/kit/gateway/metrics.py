"""Counters, gauges and histograms, and their text for Prometheus (exposition format 0.0.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.005, 0.02, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 1200.0)  # seconds

Labels = tuple[str, ...]


class Counter:
    """A number by labels that only grows."""

    def __init__(self, name: str, meaning: str, labels: Labels = ()) -> None:
        self.name, self.meaning, self.labels = name, meaning, labels
        self.values: dict[Labels, float] = {}

    def add(self, *labels: str, by: float = 1) -> None:
        self.values[labels] = self.values.get(labels, 0) + by

    def lines(self) -> Iterable[str]:
        yield from _head(self.name, self.meaning, "counter")
        for labels, value in sorted(self.values.items()) or ([((), 0.0)] if not self.labels else []):
            yield f"{self.name}{_labels(self.labels, labels)} {value:g}"


class Gauge:
    """What is so now. read: gives the value for each set of labels."""

    def __init__(self, name: str, meaning: str, labels: Labels, read: Callable[[], Iterable[tuple[Labels, float]]]) -> None:
        self.name, self.meaning, self.labels, self.read = name, meaning, labels, read

    def lines(self) -> Iterable[str]:
        yield from _head(self.name, self.meaning, "gauge")
        for labels, value in self.read():
            yield f"{self.name}{_labels(self.labels, labels)} {value:g}"


class Histogram:
    """Seconds by one label."""

    def __init__(self, name: str, meaning: str, label: str) -> None:
        self.name, self.meaning, self.label = name, meaning, label
        self.counts: dict[str, list[int]] = {}
        self.sums: dict[str, float] = {}

    def observe(self, label: str, seconds: float) -> None:
        counts = self.counts.setdefault(label, [0] * (len(BUCKETS) + 1))
        counts[next((i for i, bound in enumerate(BUCKETS) if seconds <= bound), len(BUCKETS))] += 1
        self.sums[label] = self.sums.get(label, 0.0) + seconds

    def lines(self) -> Iterable[str]:
        yield from _head(self.name, self.meaning, "histogram")
        for label, counts in sorted(self.counts.items()):
            total = 0
            for bound, count in zip((*map(str, BUCKETS), "+Inf"), counts, strict=True):
                total += count
                yield f"{self.name}_bucket{_labels((self.label, 'le'), (label, bound))} {total}"
            yield f"{self.name}_sum{_labels((self.label,), (label,))} {self.sums[label]:.6f}"
            yield f"{self.name}_count{_labels((self.label,), (label,))} {total}"


# What is so now: name → meaning, labels. The gateway gives the readers.
GAUGES: dict[str, tuple[str, Labels]] = {
    "gateway_queue_pages": ("Pages waiting for a replica", ()),
    "gateway_requests_open": ("Requests being received, parsed or answered", ()),
    "gateway_spool_bytes": ("Bytes of open requests that lie on disk", ()),
    "gateway_replica_up": ("1 for a replica in service", ("replica",)),
    "gateway_replica_busy": ("Calls that occupy a replica", ("replica",)),
    "gateway_vlm_up": ("1 where the VLM server answers, or is not watched", ()),
    "gateway_last_page_seconds": ("Since a page with text was read; -1 before the first", ()),
}


class Metrics:
    """All that is counted. readers: of GAUGES, by name."""

    def __init__(self) -> None:
        self.requests = Counter("gateway_requests_total", "Requests by path and HTTP status", ("path", "status"))
        self.errors = Counter("gateway_errors_total", "Refused or failed requests by cause (docs/gateway.md)", ("cause",))
        self.pages = Counter("gateway_pages_total", "Pages in good replies")
        self.left = Counter("gateway_clients_left_total", "Requests whose client went away")
        self.calls = Counter("gateway_replica_calls_total", "Calls to replicas by outcome", ("replica", "outcome"))
        steps = "Seconds by step: receive a body, wait for a replica, call it, total (of a whole request)"
        self.seconds = Histogram("gateway_seconds", steps, "step")
        self.readers: dict[str, Callable[[], Iterable[tuple[Labels, float]]]] = {}

    def text(self) -> str:
        parts: list[Counter | Gauge | Histogram] = [self.requests, self.errors, self.pages, self.left, self.calls, self.seconds]
        parts += [Gauge(name, *GAUGES[name], read) for name, read in self.readers.items()]
        return "\n".join(line for part in parts for line in part.lines()) + "\n"


def markdown_table() -> str:
    """The table for docs/gateway.md."""
    made = Metrics()
    rows = [
        (one.name, "counter", one.labels, one.meaning) for one in (made.requests, made.errors, made.pages, made.left, made.calls)
    ]
    rows.append((made.seconds.name, "histogram", (made.seconds.label,), made.seconds.meaning))
    rows += [(name, "gauge", labels, meaning) for name, (meaning, labels) in GAUGES.items()]
    lines = ["| figure | kind | labels | meaning |", "| --- | --- | --- | --- |"]
    lines += [f"| `{name}` | {kind} | {', '.join(labels)} | {meaning} |" for name, kind, labels, meaning in rows]
    return "\n".join(lines) + "\n"


def _head(name: str, meaning: str, kind: str) -> tuple[str, str]:
    return f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"


def _labels(names: Labels, values: Labels) -> str:
    pairs = ",".join(f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True))
    return f"{{{pairs}}}" if pairs else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
