"""Known failures: what a log or a reply says, what it means, what to do.

Data alone; diagnose.py matches it. Order matters: the machine before the card, the
card before the model, the model before the settings, and so on to the single
request. Of several that fit, the first is the most fundamental.
"""

from __future__ import annotations

import re

from kit.catalog.failures.docker import DOCKER
from kit.catalog.failures.failure import NEAR, Failure
from kit.catalog.failures.gpu import GPU
from kit.catalog.failures.machine import MACHINE
from kit.catalog.failures.options import OPTIONS
from kit.catalog.failures.requests import REQUESTS, VAGUE
from kit.catalog.failures.seen import SEEN
from kit.catalog.failures.weights import WEIGHTS
from kit.catalog.failures.wiring import WIRING

THEMES: dict[str, tuple[Failure, ...]] = {
    "The machine": MACHINE,
    "Docker": DOCKER,
    "The card": GPU,
    "Models and versions": WEIGHTS,
    "Config files": OPTIONS,
    "Between the API and the VLM": WIRING,
    "Requests": REQUESTS,
    "Lines that hide their cause": VAGUE,
}

FAILURES: tuple[Failure, ...] = tuple(failure for theme in THEMES.values() for failure in theme)

__all__ = ["FAILURES", "NEAR", "SEEN", "THEMES", "Failure", "markdown_tables", "symptoms"]


def symptoms(failure: Failure) -> list[str]:
    """What to look for in a log: of each text in which it was seen, the words by which it is known."""
    shown = (re.search(failure.pattern, text.split("\n")[-1]) for text in SEEN[failure.name])
    return list(dict.fromkeys(match[0].strip() for match in shown if match))


def markdown_tables() -> str:
    """The tables of docs/troubleshooting.md."""
    text = ""
    for title, theme in THEMES.items():
        text += f"\n## {title}\n\n| a log says | cause | what to do | source |\n| --- | --- | --- | --- |\n"
        for failure in theme:
            says = "<br>".join(_code(symptom) for symptom in symptoms(failure))
            cells = (says, _cell(failure.cause), _cell(failure.fix), _cell(failure.source))
            text += f"| {' | '.join(cells)} |\n"
    return text


def _code(text: str) -> str:
    fence = "``" if "`" in text else "`"
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{_cell(text)}{pad}{fence}"


def _cell(text: str) -> str:
    """A `|` would end the cell, even inside code (GitHub's tables)."""
    return text.replace("|", "\\|")
