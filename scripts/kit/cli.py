"""The verbs of ./kit: parse arguments, call one function, print, choose the exit code."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

from kit import client, console, documents, envs, health, testing
from kit.catalog.settings import Settings
from kit.errors import EXIT_MEANING, ExitCode, KitError
from kit.facts.docker import docker
from kit.facts.gpus import gpus
from kit.stack import SERVICES, Stack, start
from kit.stack.compose import ComposeStack
from kit.stack.local import LocalStack

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "samples" / "invoice.png"
LOCAL_TIMEOUT, COMPOSE_TIMEOUT = 300.0, 3600.0  # seconds; Compose may pull 23 GB, or build

PREVIEW_NOTE = (
    "CPU preview: the real paddlex --serve in front of small stand-in models (PicoDet, PP-OCRv6 small, SLANet). "
    "Real text, but not PaddleOCR-VL and not its accuracy."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns its exit code. The only place that catches KitError."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        arguments = _parser().parse_args(argv)
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


# --- verbs


def _up(arguments: argparse.Namespace) -> None:
    settings = Settings(ROOT, os.environ)
    (ROOT / ".kit").mkdir(exist_ok=True)
    with envs.locked(ROOT / ".kit" / "up.lock", waiting=lambda: console.say("another ./kit up is under way; waiting for it")):
        stack = _chosen(settings, arguments)
        if _serves(stack):
            console.say("already up: nothing to do")
            _where(stack)
            return
        if stack.down():
            console.say("what ran was incomplete or of another configuration: it was stopped")
        limit = LOCAL_TIMEOUT if isinstance(stack, LocalStack) else COMPOSE_TIMEOUT
        page = start.bring_up(stack, SAMPLE, arguments.timeout or limit)
    console.say(f"✔ serving: {SAMPLE.relative_to(ROOT)} was parsed in {page.seconds:.1f} s", "green")
    _where(stack)
    console.data(page.markdown)


def _down(arguments: argparse.Namespace) -> None:
    settings = Settings(ROOT, os.environ)
    stopped = [name for stack in _possible(settings) for name in stack.down()]
    console.say(f"stopped: {', '.join(stopped)}" if stopped else "nothing was running")


def _status(arguments: argparse.Namespace) -> ExitCode:
    stack = _active(Settings(ROOT, os.environ))
    services = stack.ps() if stack else []
    serving = bool(services) and all(service.state == "ready" for service in services)
    page = health.deep(stack.url, SAMPLE) if stack and serving and arguments.deep else None
    if arguments.json:
        report = {
            "stack": stack.label if stack else None,
            "url": stack.url if stack else None,
            "ready": serving,
            "services": [asdict(service) for service in services],
            "page_seconds": round(page.seconds, 3) if page else None,
        }
        console.data(json.dumps(report, indent=1))
    elif not stack:
        console.data("not running; ./kit up starts it")
    else:
        console.data(f"{stack.label}  {stack.url}")
        for service in services:
            seconds = f"{service.seconds:.0f} s" if service.seconds is not None else ""
            console.data(f"{service.name:22}{service.state:10}{seconds:>8}  {service.detail}".rstrip())
        if page:
            console.data(f"a page was parsed in {page.seconds:.1f} s")
    return ExitCode.OK if serving else ExitCode.START


def _logs(arguments: argparse.Namespace) -> None:
    stack = _active(Settings(ROOT, os.environ))
    if not stack:
        stack = LocalStack(ROOT, Settings(ROOT, os.environ))  # what died has left its logs
        if not any(stack.tail(name, 1) for name in SERVICES):
            raise KitError("no service is running, and none has left a log", "./kit up", ExitCode.START)
    names = [arguments.service] if arguments.service else list(SERVICES)
    prefix = (lambda name: f"{name} | ") if len(names) > 1 else (lambda name: "")
    for name in names:
        for line in stack.tail(name, arguments.lines):
            console.data(prefix(name) + line)
    if arguments.follow:
        threads = [threading.Thread(target=_follow, args=(stack, name, prefix(name)), daemon=True) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _parse(arguments: argparse.Namespace) -> None:
    url = (arguments.url or LocalStack(ROOT, Settings(ROOT, os.environ)).url).rstrip("/")
    # Everything is looked at before anything is sent: a bad ninth file costs no eight parses.
    inputs = [documents.read(path) for path in arguments.files]
    names: dict[str, Path] = {}
    for document in inputs:
        if arguments.output and document.name in names:
            raise KitError(
                f"{document.path} and {names[document.name]} would both be written to {document.name}.md",
                "parse them into two folders",
                ExitCode.INPUT,
            )
        names[document.name] = document.path
    for document in inputs:
        try:
            parsed = client.parse(document, url, arguments.timeout)
        except KitError as error:
            stack = _active(Settings(ROOT, os.environ)) if not arguments.url else None
            raise (start.explained(stack, error) if stack else error) from error
        if arguments.output:
            path = client.write(parsed, arguments.output)
            console.say(f"{path}  {document.pages} page{'s' if document.pages > 1 else ''}")
        else:
            console.data(parsed.markdown)
            pictures = sum(len(page.pictures) for page in parsed.pages)
            if pictures:
                console.say(f"not written: {pictures} picture{'s' if pictures > 1 else ''}; -o DIR keeps them")


def _test(arguments: argparse.Namespace) -> int:
    return testing.run(ROOT, arguments.pytest_arguments)


# --- which stack


def _possible(settings: Settings) -> list[Stack]:
    """Every stack that could be running here."""
    stacks: list[Stack] = [LocalStack(ROOT, settings)]
    if docker().usable:
        stacks += [ComposeStack(ROOT, settings, preview=preview) for preview in (False, True)]
    return stacks


def _active(settings: Settings) -> Stack | None:
    """The stack of which anything runs or has died, if any."""
    return next((s for s in _possible(settings) if any(service.state != "absent" for service in s.ps())), None)


def _chosen(settings: Settings, arguments: argparse.Namespace) -> Stack:
    """The GPU stack where Docker and an NVIDIA GPU are, else the preview: containers where Docker is, else processes."""
    engine = docker()
    if arguments.docker and not engine.usable:
        raise KitError(f"--docker: {engine.problem}", "./kit up --local needs no Docker", ExitCode.ENVIRONMENT)
    if not arguments.preview and not arguments.local:
        cards = gpus()
        if cards and engine.usable:
            console.say(f"{len(cards)} × {cards[0].name}, Docker {engine.engine}: starting the GPU stack")
            return ComposeStack(ROOT, settings)
        console.say("no NVIDIA GPU here" if not cards else f"an NVIDIA GPU, but no usable Docker: {engine.problem}")
    console.say(PREVIEW_NOTE)
    if engine.usable and not arguments.local:
        return ComposeStack(ROOT, settings, preview=True)
    return LocalStack(ROOT, settings)


def _serves(stack: Stack) -> bool:
    services = stack.ps()
    if not all(service.state == "ready" for service in services) or not stack.is_current():
        return False
    try:
        health.deep(stack.url, SAMPLE)
    except KitError as error:
        console.say(f"it runs, but does not work: {error.message}")
        return False
    return True


def _where(stack: Stack) -> None:
    body = f"""(printf '{{"fileType":1,"file":"'; base64 < '{SAMPLE}' | tr -d '\\n'; printf '"}}')"""
    post = f"curl -sS -H 'Content-Type: application/json' --data-binary @- {stack.url}/layout-parsing"
    console.say(
        f"\nAPI     POST {stack.url}/layout-parsing\n"
        f"health  GET  {stack.url}/health\n\n"
        f"try it  {body} | {post}\n"
        f"or      ./kit parse {SAMPLE.relative_to(ROOT)}\n"
        f"stop    ./kit down\n"
    )


def _follow(stack: Stack, name: str, prefix: str) -> None:
    for line in stack.follow(name):
        console.data(prefix + line)


# --- command line


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise KitError(message, f"{self.prog} --help", ExitCode.USAGE)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise ValueError
    return value


_seconds.__name__ = "seconds"


def _lines(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError
    return value


_lines.__name__ = "number of lines"


def _parser() -> argparse.ArgumentParser:
    codes = "\n".join(f"  {int(code):3}  {meaning}" for code, meaning in EXIT_MEANING.items())
    parser = _Parser(
        prog="./kit",
        description="PaddleOCR-VL as a service on your own machine: documents in, Markdown and JSON out.",
        epilog=f"exit codes:\n{codes}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=_Parser)

    up = verbs.add_parser("up", help="start the service and wait until it has parsed a page")
    up.add_argument("--preview", action="store_true", help="the CPU preview, also where there is a GPU")
    how = up.add_mutually_exclusive_group()
    how.add_argument("--local", action="store_true", help="the CPU preview as processes, also where Docker is")
    how.add_argument("--docker", action="store_true", help="containers or nothing")
    up.add_argument("--timeout", type=_seconds, metavar="SECONDS", help="give up after so long (processes 300, containers 3600)")
    up.set_defaults(run=_up)

    down = verbs.add_parser("down", help="stop the service; leaves no process and no port")
    down.set_defaults(run=_down)

    status = verbs.add_parser("status", help="what runs, and whether it is ready")
    status.add_argument("--json", action="store_true", help="for programs")
    status.add_argument("--deep", action="store_true", help="also parse a page")
    status.set_defaults(run=_status)

    logs = verbs.add_parser("logs", help="what the services wrote")
    logs.add_argument("service", nargs="?", choices=SERVICES, metavar="SERVICE", help=" or ".join(SERVICES))
    logs.add_argument("-f", "--follow", action="store_true", help="go on as lines come")
    logs.add_argument("-n", "--lines", type=_lines, default=50, metavar="N", help="so many last lines (50)")
    logs.set_defaults(run=_logs)

    parse = verbs.add_parser("parse", help="PDFs and pictures to Markdown")
    parse.add_argument("files", nargs="+", type=Path, metavar="FILE", help="PDF, PNG, JPEG, TIFF, BMP or WebP")
    parse.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="DIR",
        help="write NAME.md, NAME.json and pictures there (else Markdown goes to stdout)",
    )
    parse.add_argument("--url", help="address of the service (default: the one of ./kit up)")
    parse.add_argument("--timeout", type=_seconds, metavar="SECONDS", help="limit for a document (60, and 30 a page)")
    parse.set_defaults(run=_parse)

    test = verbs.add_parser("test", help="run the tests that this machine can run")
    test.add_argument("pytest_arguments", nargs=argparse.REMAINDER, metavar="…", help="passed on to pytest")
    test.set_defaults(run=_test)
    return parser


def _terminated(number: int, frame: object) -> NoReturn:
    """SIGTERM cleans up as Ctrl-C does, and ends with the shell's own 128 + 15."""
    raise SystemExit(128 + number)
