"""The output folder: one run at a time, its journal, and whether what is asked for fits what was begun there."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from kit.batch import store
from kit.batch.inputs import Input
from kit.batch.journal import VERSION, Journal, past_of
from kit.batch.names import IMAGES, REPORT, STATE, Names
from kit.batch.wish import Wish
from kit.errors import ExitCode, KitError

JOURNAL = "journal.jsonl"


@contextlib.contextmanager
def opened(folder: Path, wish: Wish, inputs: Sequence[Input], *, resume: bool) -> Iterator[Journal]:
    """The journal of `folder`, in which every input has a name; the state's folder is `folder`/STATE.

    resume: go on where an earlier run has ended or was ended. False forgets what it did, but for the names that it gave: what
    it has written is written over.
    Raises KitError: USAGE where the earlier run was asked for something else, or a report lies there which no run has
    written; ENVIRONMENT where another one is running, or the folder cannot be used.
    """
    state = folder / STATE
    if os.path.lexists(folder / REPORT) and not (state / JOURNAL).exists():
        why = f"{folder / REPORT} is there already, and not from ./kit parse"
        raise KitError(why, "name another folder with -o, or move it away", ExitCode.USAGE)
    try:
        state.mkdir(parents=True, exist_ok=True)
        with (state / "lock").open("w") as lock:
            _take(lock.fileno(), folder)
            if not resume:
                _forget(folder)
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


def _forget(folder: Path) -> None:
    """All but the names: without them, what an earlier run has written would be taken for somebody else's."""
    state = folder / STATE
    store.write(state / JOURNAL, b"".join(_named(state / JOURNAL)))
    for one in state.iterdir():
        if one.name not in ("lock", JOURNAL):
            shutil.rmtree(one) if one.is_dir() else one.unlink()


def pictures(folder: Path) -> set[Path]:
    """The folders of pictures that runs into `folder` have written, or are to write: what lies there is no input."""
    return {folder / f"{name}{IMAGES}" for name in _named(folder / STATE / JOURNAL).values()}


def _named(path: Path) -> dict[bytes, str]:
    """The lines of a journal that give names, and these, as far as it can be read."""
    found: dict[bytes, str] = {}
    with contextlib.suppress(OSError):
        for line in path.read_bytes().splitlines(keepends=True):
            if line.startswith(b'{"what":"named"'):
                with contextlib.suppress(ValueError, KeyError):
                    past_of([record := json.loads(line)])
                    found[line] = record["name"]
    return found


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
    names = Names(folder)
    for known in past.known.values():
        if known.name:
            names.keep(known.name)
    for one in inputs:
        known = past.known.get(one.key)
        if known is None or not known.name:
            journal.add("named", key=one.key, name=names.give(one.folder, one.stem))
        elif past.ended and known.done and not known.is_whole:
            journal.add("again", key=one.key)
