"""From the command line to one verb, and from whatever goes wrong to one line and an exit code."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from kit import console
from kit.errors import EXIT_MEANING, ExitCode, KitError
from kit.verbs import VERBS


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns its exit code. The only place that catches KitError."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        words = sys.argv[1:] if argv is None else list(argv)
        arguments = parser(words[:1]).parse_args(words)
        return int(arguments.run(arguments) or ExitCode.OK)
    except KitError as error:
        console.error(error)
        return int(error.code)
    except KeyboardInterrupt:
        console.say("interrupted")
        return int(ExitCode.INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(ExitCode.OK)


def parser(wanted: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Every verb with its options; only the wanted one where there is such a verb, so that ./kit loads no other's modules."""
    codes = "\n".join(f"  {int(code):3}  {meaning}" for code, meaning in EXIT_MEANING.items())
    top = _Parser(
        prog="./kit",
        description="PaddleOCR-VL as a service on your own machine: documents in, Markdown and JSON out.",
        epilog=f"exit codes:\n{codes}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=_Parser)
    for verb in [name for name in VERBS if name in wanted] or VERBS:
        import_module(f"kit.verbs.{verb}").add(verbs)
    return top


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise KitError(message, f"{self.prog} --help", ExitCode.USAGE)


def _terminated(number: int, frame: object) -> NoReturn:
    """SIGTERM cleans up as Ctrl-C does, and ends with the shell's own 128 + 15."""
    raise SystemExit(128 + number)
