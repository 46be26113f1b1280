"""The output folder: one run at a time, its journal, and whether what is asked for fits what was begun there."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from kit.batch.inputs import Input
from kit.batch.journal import VERSION, Journal
from kit.batch.names import STATE, Names
from kit.batch.wish import Wish
from kit.errors import ExitCode, KitError

JOURNAL = "journal.jsonl"


@contextlib.contextmanager
def opened(folder: Path, wish: Wish, inputs: Sequence[Input], *, resume: bool) -> Iterator[Journal]:
    """The journal of `folder`, in which every input has a name; the state's folder is `folder`/STATE.

    resume: go on where an earlier run has ended or was ended. False forgets what it did, and leaves what it has written.
    Raises KitError: USAGE where the earlier run was asked for something else, ENVIRONMENT where another one is
    running, or the folder cannot be used.
    """
    state = folder / STATE
    try:
        state.mkdir(parents=True, exist_ok=True)
        with (state / "lock").open("w") as lock:
            _take(lock.fileno(), folder)
            if not resume:
                _forget(state)
            journal = _journal(state / JOURNAL, folder)
            try:
                _prepare(journal, wish, inputs, folder)
                yield journal
            finally:
                journal.close()
    except BrokenPipeError:  # the reader of our output has left
        raise
    except OSError as error:
        raise KitError(
            f"cannot write {error.filename or folder}: {error.strerror}", "name another folder with -o, or make room",
            ExitCode.ENVIRONMENT,
        ) from error  # fmt: skip


def _take(lock: int, folder: Path) -> None:
    """The kernel frees it with the process, however it ends."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        why = f"another ./kit parse writes to {folder}"
        raise KitError(why, "wait for it, or name another folder", ExitCode.ENVIRONMENT) from None


def _forget(state: Path) -> None:
    for one in state.iterdir():
        if one.name != "lock":
            shutil.rmtree(one) if one.is_dir() else one.unlink()


def _journal(path: Path, folder: Path) -> Journal:
    try:
        return Journal.open(path)
    except ValueError as error:
        raise KitError(
            f"{path} is no journal of this version ({error})", f"--no-resume begins anew in {folder}", ExitCode.ENVIRONMENT
        ) from None


def _prepare(journal: Journal, wish: Wish, inputs: Sequence[Input], folder: Path) -> None:
    past, settings = journal.past, wish.settings
    if past.settings is None:
        journal.add("run", version=VERSION, settings=settings)
    elif past.settings != settings | {"version": VERSION}:
        other = [name for name, value in settings.items() if past.settings.get(name) != value]
        raise KitError(
            f"{folder} was begun with other settings ({', '.join(other) or 'an older ./kit'})",
            "name another folder with -o, or begin anew with --no-resume", ExitCode.USAGE,
        )  # fmt: skip
    names = Names()
    for known in past.known.values():
        if known.name:
            names.keep(known.name)
    for one in inputs:
        known = past.known.get(one.key)
        if known is None or not known.name:
            journal.add("named", key=one.key, name=names.give(one.folder, one.stem))
        elif past.ended and known.done and not known.is_whole:
            journal.add("again", key=one.key)
