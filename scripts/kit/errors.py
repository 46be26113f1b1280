"""The one error that users see, and the exit codes that scripts may rely on."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit status of ./kit; EXIT_MEANING says each in words, for the help and the docs."""

    OK = 0
    FAILED = 1
    USAGE = 2
    INPUT = 3
    UNREACHABLE = 4
    START = 5
    ENVIRONMENT = 6
    PORT = 7
    INCOMPLETE = 8
    PREVIEW_ONLY = 9
    BUSY = 10
    VLM = 11
    SOME_FAILED = 12
    INTERRUPTED = 130


EXIT_MEANING: dict[ExitCode, str] = {
    ExitCode.OK: "done",
    ExitCode.FAILED: "the service answered with an error, or a check failed",
    ExitCode.USAGE: "the command line or a setting is wrong",
    ExitCode.INPUT: "an input file cannot be used",
    ExitCode.UNREACHABLE: "no service answers at that address",
    ExitCode.START: "the service did not start, or is not up",
    ExitCode.ENVIRONMENT: "this machine lacks something: Python, disk, network, Docker, a fitting GPU",
    ExitCode.PORT: "a port is held by another program",
    ExitCode.INCOMPLETE: "the reply has another number of pages than the document; nothing was written",
    ExitCode.PREVIEW_ONLY: "doctor: this machine is ready for the CPU preview, not for the GPU stack",
    ExitCode.BUSY: "health: the service lives, but does not get to a small page; nothing is known to be broken",
    ExitCode.VLM: "health: the API does not reach its VLM, or asks it for a model that it does not serve",
    ExitCode.SOME_FAILED: "parse: some documents or pages failed; report.json names each, the others are written",
    ExitCode.INTERRUPTED: "interrupted (Ctrl-C)",
}


class KitError(Exception):
    """What went wrong, where, and what to do about it; caught once, in cli.main.

    message: one line, no full stop. hint: the way out, one line, or empty.
    detail: lines to show above the message (the end of a log), oldest first.
    """

    def __init__(
        self,
        message: str,
        hint: str = "",
        code: ExitCode = ExitCode.FAILED,
        detail: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code
        self.detail = detail
