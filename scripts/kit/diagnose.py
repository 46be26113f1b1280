"""Log lines in, cause and fix out. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from kit.catalog.failures import FAILURES, Failure


def explain(lines: Iterable[str]) -> Failure | None:
    """The known failure that these lines show, or None. Causes win over consequences."""
    text = list(lines)
    for failure in FAILURES:
        if any(re.search(failure.pattern, line) for line in text):
            return failure
    return None
