"""What became of each document: report.json, and the exit code. Nothing in it depends on time, order or interruptions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kit.batch.inputs import Input
from kit.batch.journal import Known
from kit.batch.wish import RESTRUCTURE
from kit.client.ranges import count
from kit.errors import ExitCode


@dataclass(frozen=True)
class Totals:
    """whole: documents with every page, in every format; partly: with some; failed: with none. read, lost: pages."""

    whole: int
    partly: int
    failed: int
    read: int
    lost: int

    @property
    def documents(self) -> int:
        return self.whole + self.partly + self.failed

    @property
    def code(self) -> ExitCode:
        if self.partly == self.failed == 0:
            return ExitCode.OK
        return ExitCode.SOME_FAILED if self.whole + self.partly else ExitCode.FAILED


def status_of(known: Known) -> str:
    if known.failed is not None or not known.read:
        return "failed"
    return "partly" if known.lost or known.lacks else "whole"


def totals(inputs: Sequence[Input], known: dict[str, Known]) -> Totals:
    states = [known.get(one.key, Known()) for one in inputs]
    by = [status_of(state) for state in states]
    return Totals(
        *(by.count(status) for status in ("whole", "partly", "failed")),
        read=sum(count(list(state.read)) for state, status in zip(states, by, strict=True) if status != "failed"),
        lost=sum(count([one.span for one in state.lost]) for state in states),
    )


def report(inputs: Sequence[Input], known: dict[str, Known], settings: dict[str, Any]) -> dict[str, Any]:
    """In the order of the inputs. settings: of the run."""
    total = totals(inputs, known)
    return {
        "documents": {"all": total.documents, "whole": total.whole, "partly": total.partly, "failed": total.failed},
        "pages": {"read": total.read, "failed": total.lost},
        "settings": settings,
        "inputs": [_entry(one, known.get(one.key, Known())) for one in inputs],
    }


def _entry(one: Input, known: Known) -> dict[str, Any]:
    status = status_of(known)
    entry: dict[str, Any] = {"input": one.shown, "status": status, "output": known.name if status != "failed" else None}
    if known.failed is not None:
        return entry | {"kind": known.failed[0], "cause": known.failed[1]}
    entry |= {"pages": known.pages, "read": count(list(known.read))}
    for what, (kind, cause) in known.lacks.items():
        why = {"kind": kind, "cause": cause}
        entry |= {"failed_restructure": why} if what == RESTRUCTURE else {"failed_format": {"format": what, **why}}
    if known.lost:
        entry["failed_pages"] = [
            {"page": page, "kind": one.kind, "cause": one.cause, "log_id": one.log_id}
            for one in sorted(known.lost, key=lambda lost: lost.span)
            for page in range(one.span[0], one.span[1] + 1)
        ]
    return entry
