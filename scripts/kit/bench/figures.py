"""Replies counted: pages a second, latency, bytes, errors. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Reply:
    """What became of one request.

    began, ended: seconds on one clock, from before the request was sent until its reply was there as a whole.
    sent, received: bytes of the bodies. error: its kind; "" for a whole reply, whose pages alone count.
    """

    began: float
    ended: float
    pages: int
    sent: int
    received: int
    error: str = ""

    @property
    def seconds(self) -> float:
        return self.ended - self.began


@dataclass(frozen=True)
class Figures:
    """What a level of the load has shown.

    document: what was sent. clients: requests in flight. seconds: from the first request to the last reply.
    Latency in seconds and bytes are those of whole replies; None where there was none. errors: kind → how many.
    """

    document: str
    clients: int
    requests: int
    pages: int
    seconds: float
    pages_per_second: float
    p50: float | None
    p95: float | None
    p99: float | None
    sent_per_page: float | None
    received_per_page: float | None
    errors: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {key: round(value, 4) if isinstance(value, float) else value for key, value in asdict(self).items()}


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of all do not exceed (nearest rank). Raises ValueError when there is none."""
    if not values:
        raise ValueError("no values")
    return sorted(values)[max(math.ceil(percent / 100 * len(values)), 1) - 1]


def count(document: str, clients: int, replies: Sequence[Reply]) -> Figures:
    """The figures of one level; at least one reply, whole or not."""
    whole = [reply for reply in replies if not reply.error]
    pages = sum(reply.pages for reply in whole)
    seconds = max(reply.ended for reply in replies) - min(reply.began for reply in replies)
    latency = [reply.seconds for reply in whole]
    return Figures(
        document=document,
        clients=clients,
        requests=len(replies),
        pages=pages,
        seconds=seconds,
        pages_per_second=pages / seconds if seconds else 0.0,
        p50=percentile(latency, 50) if latency else None,
        p95=percentile(latency, 95) if latency else None,
        p99=percentile(latency, 99) if latency else None,
        sent_per_page=sum(reply.sent for reply in whole) / pages if pages else None,
        received_per_page=sum(reply.received for reply in whole) / pages if pages else None,
        errors=dict(Counter(reply.error for reply in replies if reply.error).most_common()),
    )
