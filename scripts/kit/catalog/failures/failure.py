"""What an entry of the catalog of failures is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Failure:
    """One known trouble: how it shows in a log, what it means, what to do, where it was seen.

    pattern: regular expression, searched in one line. near: another one that one of the
    NEAR lines before must match too, for a line that says too little alone.
    vague: the line says that something failed and not what, so it counts only where
    nothing else is known. source: OCR# and PDX# are issues of PaddlePaddle/PaddleOCR and
    PaddlePaddle/PaddleX; "measured" means provoked with the program named.
    """

    name: str
    pattern: str
    cause: str
    fix: str
    source: str
    near: str = ""
    vague: bool = False


NEAR = 12  # lines
