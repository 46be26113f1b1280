"""./kit parse: documents to Markdown, one or ten thousand."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kit import console
from kit.api import ServiceError, check
from kit.batch import folder, inputs
from kit.batch.inputs import Input
from kit.batch.journal import Known
from kit.batch.names import REPORT, STATE
from kit.batch.progress import Show, said
from kit.batch.report import Totals, status_of
from kit.batch.run import Run, Service
from kit.batch.wish import DEFAULT_FORMATS, FORMATS, MD, Wish
from kit.catalog.settings import Settings
from kit.client import Backoff
from kit.client.client import CONCURRENCY
from kit.client.failures import WrongPages
from kit.client.flight import PATIENCE
from kit.client.ranges import Span, page_list
from kit.errors import ExitCode, KitError
from kit.gateway.contract import LAYOUT_PARSING, problems
from kit.paths import ROOT
from kit.stack import start
from kit.stack.choose import active
from kit.stack.local import LocalStack
from kit.verbs.arguments import Verbs, api_key, seconds

MOST_CONCURRENCY = 256
# What the client itself sets.
_OWN = ("file", "fileType", "logId", "outputFormats", "restructurePages", "visualize")


def pages(text: str) -> tuple[Span, ...]:
    return page_list(text)


def concurrency(text: str) -> int:
    value = int(text)
    if not 1 <= value <= MOST_CONCURRENCY:
        raise ValueError
    return value


def most(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def formats(text: str) -> tuple[str, ...]:
    values = tuple(dict.fromkeys(part.strip().lower() for part in text.split(",")))
    if not set(values) <= set(FORMATS):
        raise ValueError
    return values


def option(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise ValueError
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


pages.__name__ = "list of pages, such as 3-7,9"
concurrency.__name__ = f"number from 1 to {MOST_CONCURRENCY}"
most.__name__ = "number of pages"
formats.__name__ = f"list of formats ({', '.join(FORMATS)})"
option.__name__ = "setting NAME=VALUE"


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser("parse", help="PDFs and pictures to Markdown, one or ten thousand")
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="PDF, PNG, JPEG, TIFF, BMP, WebP; a folder, a glob, a URL; - reads a list from stdin",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="DIR",
        help="write the results there, and report.json (else Markdown goes to stdout)",
    )
    parser.add_argument(
        "--format",
        type=formats,
        metavar="F,F",
        help=f"of {', '.join(FORMATS)} ({','.join(DEFAULT_FORMATS)}); pictures lie beside",
    )
    parser.add_argument("--pages", type=pages, default=(), metavar="3-7,9", help="only these pages of each document")
    parser.add_argument("--max-pages", type=most, metavar="N", help="only the first N pages of each document")
    parser.add_argument("--restructure", action="store_true", help="put tables and titles together that go over page breaks")
    parser.add_argument(
        "--set",
        type=option,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a field of the API, such as useChartRecognition=true",
    )
    parser.add_argument("--url", help="address of any /layout-parsing service (default: the one of ./kit up)")
    parser.add_argument("--api-key-file", type=Path, metavar="FILE", help="a key, sent as Authorization: Bearer")
    parser.add_argument(
        "--concurrency",
        type=concurrency,
        default=CONCURRENCY,
        metavar="N",
        help="requests in flight, of up to 8 pages each (%(default)s)",
    )
    parser.add_argument(
        "--timeout", type=seconds, metavar="SECONDS", help="limit for an answer (60, and 30 for each page in flight)"
    )
    parser.add_argument(
        "--backoff",
        type=seconds,
        default=1.0,
        metavar="SECONDS",
        help="first pause before a failed request is sent again (%(default)g)",
    )
    parser.add_argument("--no-retry", action="store_true", help="take the first failure of a request for the last word")
    parser.add_argument(
        "--patience", type=seconds, default=PATIENCE, metavar="SECONDS",
        help="end the run when the service has refused everything for so long (%(default)g)",
    )  # fmt: skip
    parser.add_argument(
        "--resume", action=argparse.BooleanOptionalAction, default=True,
        help="go on where an earlier run into DIR has stopped; what has failed in a run that came to its end is tried once more",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> ExitCode:
    url = (arguments.url or LocalStack(ROOT, Settings(ROOT, os.environ)).url).rstrip("/")
    check(url)
    key = api_key(arguments.api_key_file) if arguments.api_key_file else ""
    wish = _wish(arguments)
    listed = inputs.names_on(os.fsdecode(sys.stdin.buffer.read())) if inputs.STDIN in arguments.files else []
    written = folder.pictures(arguments.output) if arguments.output else ()
    found = inputs.collect(arguments.files, listed, arguments.output, written)
    # So many pauses as double the first up to half a minute.
    backoff = Backoff(arguments.backoff, 30 * arguments.backoff, arguments.no_retry)
    service = Service(url, key, arguments.concurrency, arguments.timeout, backoff, arguments.patience)
    try:
        if arguments.output is None:
            return _to_stdout(service, found, wish)
        return _to_folder(service, found, arguments.output, wish, arguments.resume)
    except ServiceError as error:
        stack = active(Settings(ROOT, os.environ)) if not arguments.url else None
        raise (start.explained(stack, error) if stack else error) from error


def _wish(arguments: argparse.Namespace) -> Wish:
    options = dict(arguments.set)
    if mine := sorted(set(options) & set(_OWN)):
        raise KitError(f"--set {mine[0]}: ./kit parse sets that itself", "--format docx, --restructure", ExitCode.USAGE)
    if wrong := problems(options | {"file": "x"}, LAYOUT_PARSING):
        raise KitError(f"--set: {wrong[0][1]}", "the fields are those of POST /layout-parsing", ExitCode.USAGE)
    if arguments.output is None and arguments.format not in (None, (MD,)):
        raise KitError("--format needs a folder for its files", "name one with -o", ExitCode.USAGE)
    chosen = arguments.format or DEFAULT_FORMATS if arguments.output else (MD,)
    return Wish(chosen, arguments.pages, arguments.max_pages, arguments.restructure, options)


def _to_folder(service: Service, found: Sequence[Input], output: Path, wish: Wish, resume: bool) -> ExitCode:
    """Into files; the journal stays, for the next run."""
    began = time.monotonic()

    def finished(one: Input, known: Known) -> None:
        status = status_of(known)
        name = output / known.name
        place = f"{name}.{MD if MD in wish.formats else wish.formats[0]}" if status != "failed" else one.shown
        if status != "whole":
            console.say(f"{place}  {said(known)}", "yellow" if status == "partly" else "red")
        elif one.key not in settled:
            console.say(f"{place}  {said(known)}")

    with folder.opened(output, wish, found, resume=resume) as journal:
        settled = {one.key for one in found if journal.past.known[one.key].is_whole}
        with Show(found, finished) as show:
            run = Run(service, found, output, output / STATE, wish, journal, show)
            try:
                totals = asyncio.run(run.run())
            except (KitError, KeyboardInterrupt):
                console.say(f"{show.figures.line(time.monotonic())}; the same command goes on from here")
                raise
        known = journal.past.known
    if len(found) == 1 and totals.code == ExitCode.FAILED:
        raise _error_of(found[0], known[found[0].key], run.first_error)
    console.say(_summary(totals, output, show, time.monotonic() - began))
    return totals.code


def _to_stdout(service: Service, found: Sequence[Input], wish: Wish) -> ExitCode:
    """Through a folder that goes away, and from there in the order of the inputs."""
    waiting = {one.key: one for one in found}
    ended: dict[str, Known] = {}

    with tempfile.TemporaryDirectory(prefix="kit-parse-") as name:
        temporary = Path(name)

        def finished(one: Input, known: Known) -> None:
            ended[one.key] = known
            for key in [*waiting]:
                if key not in ended:
                    break
                _print(temporary, waiting.pop(key), ended.pop(key), len(found))

        with folder.opened(temporary, wish, found, resume=True) as journal, Show(found, finished) as show:
            run = Run(service, found, temporary, temporary / STATE, wish, journal, show)
            totals = asyncio.run(run.run())
            known = journal.past.known
        if len(found) == 1 and totals.code == ExitCode.FAILED:
            raise _error_of(found[0], known[found[0].key], run.first_error)
    return totals.code


def _print(place: Path, one: Input, known: Known, documents: int) -> None:
    status = status_of(known)
    if status != "failed":
        file = place / f"{known.name}.md"
        console.data(file.read_text(encoding="utf-8"))
        images = file.with_name(f"{file.stem}_images")
        pictures = len(list(images.iterdir())) if images.exists() else 0
        if pictures:
            console.say(f"not written: {pictures} picture{'s' if pictures > 1 else ''}; -o DIR keeps them")
    if status != "whole" and (documents > 1 or status == "partly"):
        console.say(f"{one.shown}: {said(known)}", "yellow" if status == "partly" else "red")


def _error_of(one: Input, known: Known, error: KitError | None) -> KitError:
    """One document and no page of it: its cause is the whole news. error: of this run, None where an earlier one has failed."""
    if error is not None:
        return error
    kind, cause = known.failed or (known.lost[0].kind, known.lost[0].cause)
    code = ExitCode.INCOMPLETE if kind == WrongPages.kind else ExitCode.FAILED
    return KitError(f"{one.shown}: {cause}", "--no-resume tries it once more", code)


def _summary(totals: Totals, output: Path, show: Show, took: float) -> str:
    parts = [f"{totals.whole:,} of {totals.documents:,} documents whole"]
    parts += [f"{totals.partly:,} in part"] if totals.partly else []
    parts += [f"{totals.failed:,} failed"] if totals.failed else []
    rate = f", {show.figures.now / took:.1f} pages/s" if show.figures.now and took else ""
    pages = f"{totals.read:,} page{'s' if totals.read != 1 else ''}" + (f" and {totals.lost:,} failed" if totals.lost else "")
    return f"{', '.join(parts)}; {pages}{rate}; {output / REPORT}"
