"""A new gateway beside the old one: back where it cannot serve, forward once it has the port."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from kit.errors import ExitCode, KitError
from kit.stack import API, GATEWAY, VLM, start, takeover


@dataclass
class FakeStack:
    """Processes by name. begins: what the new gateway does when it is started."""

    handover: Path
    begins: Callable[[FakeStack], None]
    processes: dict[str, str] = field(default_factory=lambda: {VLM: "vlm", GATEWAY: "old", API: "old-api"})
    dead: set[str] = field(default_factory=set)
    taken: bool = False

    def recorded(self) -> dict[str, Any]:
        return {name: {"pid": 1, "port": 1} for name in self.processes}

    def runs(self, name: str) -> bool:
        return name in self.processes and self.processes[name] not in self.dead

    def prepare(self, _: Any) -> Path:
        return Path("config")

    def start_replicas(self, _: Path) -> list[str]:
        self.processes[f"{API}-1"] = "new-api"
        return [f"{API}-1"]

    def start_gateway(self, _: list[str]) -> None:
        self.processes[GATEWAY] = "new"
        self.begins(self)

    def stop(self, names: Iterable[str], _: float) -> None:
        for name in names:
            self.processes.pop(name, None)

    def rename(self, names: Mapping[str, str]) -> None:
        self.processes = {names.get(name, name): process for name, process in self.processes.items()}

    def take(self) -> None:
        self.taken = True


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(takeover, "POLL", 0.01)
    monkeypatch.setattr(takeover, "_answers", lambda *_: True)
    monkeypatch.setattr(start, "died", lambda *_: KitError("it died", "", ExitCode.START))


def taking_over(folder: Path, begins: Callable[[FakeStack], None], timeout: float = 0.2) -> tuple[FakeStack, KitError | None]:
    stack = FakeStack(folder / "socket", begins)
    stack.handover.write_text("old")
    try:
        takeover.take_over(stack, lambda _: None, timeout)  # type: ignore[arg-type]
    except KitError as error:
        return stack, error
    return stack, None


def changes_hands(stack: FakeStack) -> None:
    new = stack.handover.with_name("new")
    new.write_text("new")
    new.replace(stack.handover)


OLD = {VLM: "vlm", GATEWAY: "old", API: "old-api"}
NEW = {VLM: "vlm", GATEWAY: "new", f"{API}-1": "new-api"}


def test_a_new_gateway_that_ends_leaves_all_as_it_was(tmp_path: Path) -> None:
    stack, error = taking_over(tmp_path, lambda stack: stack.dead.add("new"), timeout=60)
    assert error is not None and error.code == ExitCode.START
    assert (stack.processes, stack.taken) == (OLD, False)


def test_one_that_never_serves_is_stopped_and_the_old_one_goes_on(tmp_path: Path) -> None:
    stack, error = taking_over(tmp_path, lambda _: None)
    assert error is not None and (error.code, error.hint) == (ExitCode.START, "./kit up --timeout SECONDS")
    assert (stack.processes, stack.taken) == (OLD, False)


def test_an_old_one_that_does_not_end_in_time_is_ended_and_nothing_is_taken_back(tmp_path: Path) -> None:
    stack, error = taking_over(tmp_path, changes_hands)
    assert error is None
    assert (stack.processes, stack.taken) == (NEW, True)


def test_one_that_breaks_off_after_the_handover_goes_forward(tmp_path: Path) -> None:
    def interrupted(stack: FakeStack) -> None:
        changes_hands(stack)
        raise KitError("broken off", "", ExitCode.START)

    stack, error = taking_over(tmp_path, interrupted)
    assert error is not None
    assert (stack.processes, stack.taken) == (NEW, True)
