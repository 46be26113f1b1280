"""What to do after a failed request (pure): again after a pause, in halves, given up, or stop everything.

A page that is poison fails in the same way each time; a server that fails at random does not. So a page is given up when it
has failed SAME times running in one way, or MOST times in all: a page that kills its request costs six, and at a server that
drops, refuses, hangs or garbles half of all requests, one page in some 100,000 is lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from kit.client.failures import ParseError, Standing

# Of one page; of several there is a cheaper way than trying on, and it loses nothing: halves.
SAME, MOST = 6, 20
SAME_OF_SEVERAL, MOST_OF_SEVERAL = 2, 4
MOST_PASSING = 60  # refusals of a busy service, for one request; with the longest pause, half an hour
LONGEST_RETRY_AFTER = 600.0  # seconds; no server holds us longer than this


class Verdict(Enum):
    AGAIN = "again"
    HALVE = "halve"
    GIVE_UP = "give up"
    STOP = "stop"


@dataclass(frozen=True)
class Backoff:
    """Pauses in seconds: first, then doubled up to longest; each is shortened at random by up to a half.

    never: the first failure is the last word.
    """

    first: float = 1.0
    longest: float = 30.0
    never: bool = False

    def pause(self, failures: int, chance: float, asked: float | None = None) -> float:
        """After so many failures, at least 1. chance: from 0 to 1, at random, so that clients do not come back all at once.

        asked: seconds of Retry-After, which are heeded up to LONGEST_RETRY_AFTER.
        """
        pause = min(self.first * 2.0 ** min(failures - 1, 30), self.longest) * (0.5 + chance / 2)
        return max(pause, min(asked or 0.0, LONGEST_RETRY_AFTER))


@dataclass
class Tries:
    """The failures of one request so far."""

    doubtful: int = 0
    passing: int = 0
    kind: str = ""
    running: int = 0  # failures of this kind, one after the other

    def after(self, error: ParseError, pages: int, backoff: Backoff, chance: float) -> tuple[Verdict, float]:
        """Count `error` of a request with so many pages; what to do, and the pause in seconds before it."""
        several = pages > 1
        if error.standing is Standing.FATAL:
            return Verdict.STOP, 0.0
        if backoff.never:
            return Verdict.GIVE_UP, 0.0
        if error.standing is Standing.FINAL:
            return (Verdict.HALVE if several else Verdict.GIVE_UP), 0.0
        if error.standing is Standing.PASSING:
            self.passing += 1
            if self.passing >= MOST_PASSING:
                return Verdict.GIVE_UP, 0.0
            return Verdict.AGAIN, backoff.pause(self.passing, chance, error.retry_after)
        self.doubtful += 1
        self.running = self.running + 1 if error.kind == self.kind else 1
        self.kind = error.kind
        same, most = (SAME_OF_SEVERAL, MOST_OF_SEVERAL) if several else (SAME, MOST)
        if self.running >= same or self.doubtful >= most:
            return (Verdict.HALVE if several else Verdict.GIVE_UP), 0.0
        return Verdict.AGAIN, backoff.pause(self.doubtful, chance)
