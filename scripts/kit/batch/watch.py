"""What a run tells while it runs. The silent one; ./kit parse shows it (kit.batch.progress)."""

from __future__ import annotations

from kit.batch.inputs import Input
from kit.batch.journal import Known


class Watch:
    def settled(self, one: Input, known: Known) -> None:
        """Nothing is to be done: an earlier run has."""

    def begun(self, one: Input, pages: int, done: int) -> None:
        """It was looked at; so many of its pages are asked for, and so many are there from an earlier run."""

    def advanced(self, one: Input, pages: int, lost: int) -> None:
        """So many more pages are behind it, of which some were lost."""

    def finished(self, one: Input, known: Known) -> None:
        """Its output is written, or it has failed."""
