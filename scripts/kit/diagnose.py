"""Log lines in, causes with their evidence out. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from kit.catalog.failures import FAILURES, NEAR, Failure

WIDTH = 4000  # characters of a line that are looked at; a payload in base64 can have millions

_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_ANY = re.compile("|".join(f"(?:{failure.pattern})" for failure in FAILURES))
# What begins a serving life: whatever stands before it did not keep the service from serving.
_SERVING = re.compile(r"Application startup complete|POST /layout-parsing HTTP/[\d.]+\" 200")
# Who wrote a line stands before it: Compose's service, vLLM's process.
_WRITER = r"^(?:[\w.-]+\s+\| )?(?:\(\w+ pid=\d+\) )?"
_TROUBLE = re.compile(
    _WRITER + r"(?:(?:ERROR|CRITICAL|FATAL)\b|error: |Error response from daemon|[\w.]*(?:Error|Exception)(?:: |$))"
)


@dataclass(frozen=True)
class Finding:
    """A known failure and where it shows. log: name of the log; line: 1 is its first; times: lines that show it."""

    failure: Failure
    log: str
    line: int
    text: str
    times: int = 1


@dataclass(frozen=True)
class Unknown:
    """A line that tells of trouble of which nothing is known."""

    log: str
    line: int
    text: str


def explain(lines: Iterable[str]) -> Failure | None:
    """The most fundamental known failure that these lines show, or None. A vague one is none."""
    found = diagnose({"": list(lines)})
    return found[0].failure if found and not found[0].failure.vague else None


def diagnose(logs: Mapping[str, Sequence[str]]) -> list[Finding]:
    """Every known failure in these logs (name → lines), once, the most fundamental first, shown by its last line.

    A line counts for one failure, the most fundamental that fits. Vague ones are
    left out where a log shows any that is not, or another vague one before it.
    """
    found: dict[str, Finding] = {}
    for log, lines in logs.items():
        for number, text, failure in _hits(lines):
            before = found.get(failure.name)
            found[failure.name] = Finding(failure, log, number, text, before.times + 1 if before else 1)
    ordered = [found[failure.name] for failure in FAILURES if failure.name in found]
    clear = [finding for finding in ordered if not finding.failure.vague]
    return clear or ordered[:1]


def unknown_trouble(logs: Mapping[str, Sequence[str]]) -> Unknown | None:
    """The last line that tells of an error, for logs of which diagnose() knows nothing; None when there is none."""
    last = None
    for log, lines in logs.items():
        for number, line in enumerate(lines, 1):
            text = _plain(line)
            if _TROUBLE.search(text):
                last = Unknown(log, number, text.strip())
    return last


def since_serving(lines: Sequence[str]) -> list[str]:
    """The lines after the last sign that the service serves: what stands before is another time's trouble."""
    good = [number for number, line in enumerate(lines) if _SERVING.search(line)]
    return list(lines[good[-1] + 1 :]) if good else list(lines)


def _hits(lines: Sequence[str]) -> Iterator[tuple[int, str, Failure]]:
    for number, line in enumerate(lines, 1):
        text = _plain(line)
        if not _ANY.search(text):
            continue
        before = [_plain(other) for other in lines[max(0, number - 1 - NEAR) : number - 1]]
        for failure in FAILURES:
            if _compiled(failure.pattern).search(text) and (
                not failure.near or any(_compiled(failure.near).search(other) for other in before)
            ):
                yield number, text.strip(), failure
                break


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _plain(line: str) -> str:
    return _COLOUR.sub("", line[:WIDTH])
