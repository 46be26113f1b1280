"""What a person sees. stdout is data, stderr is talk; readable without colour."""

from __future__ import annotations

import shlex
import sys
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
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


def say(line: str, style: str = "") -> None:
    """One line of talk."""
    _err.print(Text(line, style=style))


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
    _err.print(Text.assemble(("error: ", "bold red"), failure.message))
    if failure.hint:
        hint(failure.hint)


def known_cause(failure: Failure) -> None:
    """A failure that was recognised in a log, and the way out."""
    say(f"known cause: {failure.cause}", "yellow")
    hint(failure.fix)


def hint(line: str) -> None:
    """The way out of what was just said."""
    _err.print(Text.assemble(("hint: ", "bold cyan"), line))


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


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else line[: width - 1] + "…"
