"""A run as a person sees it: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.text import Text

from kit import console
from kit.batch.inputs import Input
from kit.batch.journal import Known
from kit.batch.report import status_of
from kit.batch.watch import Watch
from kit.batch.wish import RESTRUCTURE
from kit.client.ranges import count

MOST_BARS, LONGEST_NAME = 8, 40
Finished = Callable[[Input, Known], None]


class Figures:
    """How far a run has come (pure). documents: all of the run. now: seconds on any clock."""

    def __init__(self, documents: int, now: float) -> None:
        self.documents, self.began = documents, now
        self.finished = 0  # documents
        self.seen = self.pages = 0  # documents that were looked at, and their pages
        self.earlier = self.now = 0  # pages behind us: from earlier runs, from this one
        self.lost = 0

    def rate(self, now: float) -> float:
        """Pages a second, in this run."""
        return self.now / (now - self.began) if now > self.began else 0.0

    def expected(self) -> int:
        """Pages in all: those that are known, and as many for each document that was not looked at yet."""
        return round(self.pages / self.seen * self.documents) if self.seen else self.documents

    def left(self, now: float) -> float | None:
        """Seconds to the end; None while nothing can be said."""
        rate = self.rate(now)
        return max(self.expected() - self.earlier - self.now, 0) / rate if rate else None

    def line(self, now: float) -> str:
        left = self.left(now)
        about = "" if self.seen == self.documents else "about "
        parts = [
            f"{self.finished:,} of {self.documents:,} documents",
            f"{self.earlier + self.now:,} of {about}{self.expected():,} pages",
            f"{self.rate(now):.1f} pages/s",
        ]
        parts += [f"{self.lost:,} failed"] if self.lost else []
        return ", ".join(parts) + (f", {_duration(left)} left" if left is not None else "")


class Show(Watch):
    """A line for the run and a bar for each document at hand. finished: called for each document that comes to its end."""

    def __init__(self, inputs: Sequence[Input], finished: Finished) -> None:
        self.figures = Figures(len(inputs), time.monotonic())
        self._finished = finished
        self._said = time.monotonic()
        self._bars = Progress(TextColumn("{task.description}", markup=False), BarColumn(20), MofNCompleteColumn())
        self._tasks: dict[str, TaskID] = {}
        where = console.terminal()
        self._live = Live(console=where, get_renderable=self._drawn, transient=True, refresh_per_second=4) if where else None

    def __enter__(self) -> Show:
        if self._live:
            self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.__exit__(None, None, None)

    def _drawn(self) -> Group:
        line = Text(self.figures.line(time.monotonic()), no_wrap=True, overflow="ellipsis")
        return Group(self._bars, line) if self._tasks else Group(line)

    def settled(self, one: Input, known: Known) -> None:
        pages = count(known.asked)
        self._seen(pages)
        self.figures.earlier += pages
        self.figures.finished += 1
        self._finished(one, known)
        self._draw()

    def begun(self, one: Input, pages: int, done: int) -> None:
        self._seen(pages)
        self.figures.earlier += done
        if pages > 1 and len(self._tasks) < MOST_BARS:  # those of one page come and go too quickly to be read
            name = one.shown if len(one.shown) <= LONGEST_NAME else "…" + one.shown[1 - LONGEST_NAME :]
            self._tasks[one.key] = self._bars.add_task(console.harmless(name), total=pages, completed=done)
        self._draw()

    def advanced(self, one: Input, pages: int, lost: int) -> None:
        self.figures.now += pages
        self.figures.lost += lost
        if one.key in self._tasks:
            self._bars.advance(self._tasks[one.key], pages)
        self._draw()

    def finished(self, one: Input, known: Known) -> None:
        if not known.pages:  # it was never begun
            self._seen(0)
        self.figures.finished += 1
        if one.key in self._tasks:
            self._bars.remove_task(self._tasks.pop(one.key))
        self._finished(one, known)
        self._draw()

    def _seen(self, pages: int) -> None:
        self.figures.seen += 1
        self.figures.pages += pages

    def _draw(self) -> None:
        now = time.monotonic()
        if not self._live and now - self._said >= console.PLAIN_EVERY:
            self._said = now
            console.say(self.figures.line(now))


def said(known: Known) -> str:
    """What became of a document, in words."""
    asked = count(known.asked)
    if known.failed is not None:
        return known.failed[1]
    if status_of(known) == "whole":
        return f"{asked} page{'s' if asked > 1 else ''}"
    if known.lacks and not known.lost:
        what, (_, cause) = next(iter(known.lacks.items()))
        lack = "not put together" if what == RESTRUCTURE else f"no {what}"
        return f"{asked} page{'s' if asked > 1 else ''}; {lack}: {cause}"
    numbers = [page for one in known.lost for page in range(one.span[0], one.span[1] + 1)]
    which = ", ".join(map(str, sorted(numbers)[:10])) + ("…" if len(numbers) > 10 else "")
    return f"{asked - len(numbers)} of {asked} pages; page {which}: {known.lost[0].cause}" if asked > 1 else known.lost[0].cause


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
