"""What the verbs share on the command line: the table of verbs, and kinds of values that options take."""

from __future__ import annotations

import argparse
from typing import TypeAlias

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

# argparse names the kind of a wrong value by the function's name.


def seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise ValueError
    return value


def lines(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError
    return value


lines.__name__ = "number of lines"
