"""What the work on a bundle tells while it goes on. Sizes are bytes."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """A bar, or plain lines: kit.console.Bytes."""

    def start(self, what: str, total: int) -> None: ...

    def advance(self, count: int) -> None: ...
