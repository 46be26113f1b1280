"""What the linter says: rules, what a rule hits, and the findings that come of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from kit.lint.project import Project


class Severity(str, Enum):
    """error: it will not start, or not do what was asked. warning: it bites later. info: worth knowing."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True)
class Place:
    """line: from 1. start, end: characters of the file that hold the text; equal where nothing could be replaced."""

    file: Path
    line: int
    start: int = 0
    end: int = 0


@dataclass(frozen=True)
class Edit:
    """Put `text` in place of the characters start to end of a file."""

    file: Path
    start: int
    end: int
    text: str


@dataclass(frozen=True)
class Hit:
    """One place where a rule is broken. edits: the mend, where it is certain. mend, severity: when the rule's own do not fit."""

    place: Place
    message: str
    edits: tuple[Edit, ...] = ()
    mend: str = ""
    severity: Severity | None = None


Check: TypeAlias = "Callable[[Project], Iterator[Hit]]"


@dataclass(frozen=True)
class Rule:
    """id: never reused. what: the fault, for the table of rules. why: what happens, with its source. mend: the way out."""

    id: str
    severity: Severity
    what: str
    why: str
    mend: str
    check: Check = field(compare=False)


@dataclass(frozen=True)
class Finding:
    """A rule broken at a place."""

    rule: Rule
    severity: Severity
    place: Place
    message: str
    mend: str
    edits: tuple[Edit, ...] = ()

    def as_dict(self, file: str) -> dict[str, object]:
        """For --json; file: the path as it is to be shown."""
        return {
            "id": self.rule.id,
            "severity": self.severity.value,
            "file": file,
            "line": self.place.line,
            "message": self.message,
            "why": self.rule.why,
            "mend": self.mend,
            "fixable": bool(self.edits),
        }


class Rules:
    """A table of rules that grows by decorating their checks."""

    def __init__(self) -> None:
        self.all: list[Rule] = []

    def __call__(self, id: str, severity: Severity, what: str, *, why: str, mend: str) -> Callable[[Check], Check]:
        def add(check: Check) -> Check:
            self.all.append(Rule(id, severity, what, why, mend, check))
            return check

        return add
