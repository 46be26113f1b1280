"""What the verbs share on the command line: the table of verbs, and kinds of values that options take."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TypeAlias

from kit.errors import ExitCode, KitError

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

# argparse names the kind of a wrong value by the function's name.


def seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise ValueError
    return value


def lines(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError
    return value


lines.__name__ = "number of lines"


def api_key(file: Path) -> str:
    """The key that `file` holds. Raises KitError (INPUT), which never shows the key."""
    try:
        key = file.read_text(encoding="ascii").strip()
    except OSError as error:
        raise KitError(f"{file}: {error.strerror}", "--api-key-file names a file with the key", ExitCode.INPUT) from None
    except UnicodeDecodeError:
        key = ""
    if not key or len(key.split()) != 1 or not key.isprintable():
        raise KitError(f"{file}: not one key alone", "one line, as the server's operator gave it to you", ExitCode.INPUT)
    return key
