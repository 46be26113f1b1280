"""What a person sees. stdout is data, stderr is talk; readable without colour."""

from __future__ import annotations

import re
import shlex
import sys
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

from kit.errors import KitError

if TYPE_CHECKING:
    from kit.catalog.failures import Failure
    from kit.stack import Service

# soft_wrap: never breaks a line that someone may want to copy. NO_COLOR is respected by rich.
_err = Console(stderr=True, highlight=False, soft_wrap=True)

_STYLE = {"ready": "green", "starting": "yellow", "absent": "dim", "unhealthy": "red", "exited": "red"}
PLAIN_EVERY = 15.0  # seconds between signs of life where there is no terminal
# What a file's name could do to a terminal: control characters, and those that turn the direction of writing.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def harmless(text: str) -> str:
    """Text from elsewhere, such as a name, as it may go to a terminal."""
    return _UNSEEN.sub("\N{REPLACEMENT CHARACTER}", text)


def terminal() -> Console | None:
    """Where talk goes, if that is a terminal."""
    return _err if _err.is_terminal else None


def say(line: str, style: str = "") -> None:
    """One line of talk."""
    _err.print(Text(harmless(line), style=style))


def data(text: str) -> None:
    """Output that a program may read."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")
    sys.stdout.flush()


def echo(argv: Sequence[str]) -> None:
    """Show a command before it runs, ready to be pasted."""
    say("$ " + shlex.join(argv), "dim")


def error(failure: KitError) -> None:
    """The one way in which a failure is shown."""
    for line in failure.detail:
        say(f"  {line}", "dim")
    _err.print(Text.assemble(("error: ", "bold red"), harmless(failure.message)))
    if failure.hint:
        hint(failure.hint)


def known_cause(failure: Failure) -> None:
    """A failure that was recognised in a log, and the way out."""
    say(f"known cause: {failure.cause}", "yellow")
    hint(failure.fix)


def hint(line: str) -> None:
    """The way out of what was just said."""
    _err.print(Text.assemble(("hint: ", "bold cyan"), harmless(line)))


class Board:
    """The state of services while they start: a table on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        self._live = Live(console=_err, auto_refresh=False, transient=True) if _err.is_terminal else None
        self._services: list[Service] = []
        self._note = ""
        self._shown: tuple[object, ...] = ()
        self._start = self._said = time.monotonic()
        self._lock = threading.Lock()

    def __enter__(self) -> Board:
        if self._live:
            self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.__exit__(None, None, None)

    def note(self, line: str) -> None:
        """What is going on beside the services, such as an installation."""
        with self._lock:
            self._note = line
            self._draw()

    def show(self, services: list[Service]) -> None:
        """The services as they are now."""
        with self._lock:
            self._services = services
            if services and all(service.state != "absent" for service in services):
                self._note = ""
            self._draw()

    def _draw(self) -> None:
        if self._live:
            self._live.update(self._table(), refresh=True)
            return
        # Plain: a line when a state or the kind of work changes, and a sign of life now and then.
        # Digits are left out: BuildKit numbers its lines (#12), and each number is no new kind of work.
        work = self._note.split(maxsplit=1)[0].strip("0123456789") if self._note else ""
        key = (work, *((service.name, service.state) for service in self._services))
        now = time.monotonic()
        if key == self._shown and now - self._said < PLAIN_EVERY:
            return
        before, self._shown, self._said = self._shown, key, now
        nothing_changed = before == key
        if self._note:
            say(f"{now - self._start:4.0f} s  {self._note}")
        for service in self._services:
            if service.runs and (nothing_changed or (service.name, service.state) not in before):
                say(f"{now - self._start:4.0f} s  {service.name}: {service.state}  {_cut(service.last_line, 90)}".rstrip())

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for service in self._services:
            table.add_row(
                Text(service.name),
                Text(service.state, style=_STYLE.get(service.state, "")),
                Text(f"{service.seconds:.0f} s" if service.seconds is not None else "", justify="right"),
                Text(_cut(service.last_line or service.detail, 100), style="dim", no_wrap=True, overflow="ellipsis"),
            )
        if self._note:
            seconds = time.monotonic() - self._start
            table.add_row(Text("…"), Text(""), Text(f"{seconds:.0f} s"), Text(_cut(self._note, 100), no_wrap=True))
        return table


class Bytes:
    """How far work on bytes has come, its rate and the time left: a bar on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        figures = (DownloadColumn(binary_units=True), TransferSpeedColumn(), TimeRemainingColumn())
        columns = (TextColumn("{task.description}"), BarColumn(), *figures)
        self._bar = Progress(*columns, console=_err, transient=True) if _err.is_terminal else None
        self._task = TaskID(0)
        self._what, self._total, self._done = "", 0, 0
        self._began = self._said = time.monotonic()

    def __enter__(self) -> Bytes:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def start(self, what: str, total: int) -> None:
        """A new piece of work of `total` bytes."""
        self._what, self._total, self._done = what, total, 0
        self._began = self._said = time.monotonic()
        if self._bar:
            for task in self._bar.task_ids:
                self._bar.remove_task(task)
            self._task = self._bar.add_task(what, total=total)
        else:
            say(f"{what}: {size(total)}")

    def advance(self, count: int) -> None:
        """`count` bytes more are done."""
        self._done += count
        if self._bar:
            self._bar.advance(self._task, count)
            return
        now = time.monotonic()
        if now - self._said >= PLAIN_EVERY:
            self._said = now
            rate = self._done / (now - self._began)
            left = max(self._total - self._done, 0) / rate
            say(f"{self._what}: {size(self._done)} of {size(self._total)}, {rate / 2**20:,.0f} MiB/s, {left:,.0f} s left")


def size(count: int) -> str:
    """Bytes in words."""
    unit, name = (2**30, "GiB") if count >= 2**30 else (2**20, "MiB")
    return f"{max(count, 0) / unit:,.1f} {name}"


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else line[: width - 1] + "…"
