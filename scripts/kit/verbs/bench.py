"""./kit bench: how many pages a second a service reads, how long each takes, how large the replies are."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
from collections.abc import Sequence
from pathlib import Path

from kit import api, console
from kit.bench import plot
from kit.bench import run as bench
from kit.bench.figures import Figures
from kit.bench.run import Plan
from kit.catalog.settings import Settings
from kit.errors import ExitCode, KitError
from kit.paths import ROOT, SAMPLE
from kit.stack.choose import active
from kit.verbs.arguments import Verbs, api_key, seconds

STDOUT = "-"
MOST_CLIENTS, MOST_REQUESTS, MOST_PAGES = 1024, 100_000, 1000


def levels(text: str) -> tuple[int, ...]:
    values = tuple(int(part) for part in text.split(","))
    if not all(1 <= value <= MOST_CLIENTS for value in values):
        raise ValueError
    return values


levels.__name__ = "list of numbers of clients, such as 1,4,16"


def requests(text: str) -> int:
    return _between(1, int(text), MOST_REQUESTS)


requests.__name__ = "number of requests"


def pages(text: str) -> int:
    return _between(0, int(text), MOST_PAGES)


pages.__name__ = f"number of pages up to {MOST_PAGES}"


def whole(text: str) -> int:
    return int(text)


whole.__name__ = "whole number"


def _between(least: int, value: int, most: int) -> int:
    if not least <= value <= most:
        raise ValueError
    return value


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser("bench", help="measure a service: pages a second, latency, bytes, by number of clients")
    parser.add_argument("url", nargs="?", metavar="URL", help="address of any /layout-parsing service")
    parser.add_argument("--local", action="store_true", help="the service that runs here")
    parser.add_argument(
        "--clients", type=levels, default=Plan.clients, metavar="N,N,…", help="requests in flight, a level each (1,4,16)"
    )
    parser.add_argument("--requests", type=requests, metavar="N", help="pages of each level (4 a client, at least 8)")
    parser.add_argument(
        "--pdf-pages", type=pages, default=Plan.pdf_pages, metavar="N", help="of the one long PDF, 0 for none (%(default)s)"
    )
    parser.add_argument("--seed", type=whole, help="the same seed sends the same pages (default: pages never sent before)")
    parser.add_argument("--api-key-file", type=Path, metavar="FILE", help="a key, sent as Authorization: Bearer")
    parser.add_argument("--timeout", type=seconds, metavar="SECONDS", help="limit for a reply (60, and 30 a page)")
    parser.add_argument("--json", nargs="?", const=STDOUT, metavar="FILE", help="for programs: into FILE, else alone on stdout")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw pages a second and latency")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> ExitCode:
    url = _url(arguments)
    for file in (arguments.svg, _json_file(arguments)):
        _require_writable(file)
    headers = {"Authorization": f"Bearer {api_key(arguments.api_key_file)}"} if arguments.api_key_file else {}
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(2**32)
    plan = Plan(url, arguments.clients, arguments.requests, arguments.pdf_pages, seed, arguments.timeout, headers)
    measured: list[Figures] = []
    console.say(f"{url}, seed {seed}")
    complete = False
    try:
        asyncio.run(bench.measure(plan, SAMPLE.parent, measured, console.say))
        complete = True
    finally:  # after Ctrl-C, what was measured so far
        if measured:
            _show(arguments, plan, measured, complete)
    return ExitCode.FAILED if any(level.errors for level in measured) else ExitCode.OK


def _url(arguments: argparse.Namespace) -> str:
    """Raises KitError: USAGE unless exactly one service is named, START where none runs here."""
    if bool(arguments.url) == arguments.local:
        told = str(arguments.json or "")
        if told.startswith(("http://", "https://")):
            raise KitError(f"--json {told}: that is an address, not a file", f"./kit bench {told} --json", ExitCode.USAGE)
        raise KitError("name one service to measure", "./kit bench URL, or ./kit bench --local", ExitCode.USAGE)
    if arguments.url:
        return api.address(arguments.url)
    stack = active(Settings(ROOT, os.environ))
    if not stack:
        raise KitError("no service runs here", "./kit up starts it", ExitCode.START)
    return stack.url


def _json_file(arguments: argparse.Namespace) -> Path | None:
    return Path(arguments.json) if arguments.json not in (None, STDOUT) else None


def _require_writable(file: Path | None) -> None:
    """Before minutes of measuring, not after."""
    if file is not None and (file.is_dir() or not os.access(file.absolute().parent, os.W_OK)):
        raise KitError(f"cannot write {file}", "name a file in a folder that exists and is yours", ExitCode.ENVIRONMENT)


def _show(arguments: argparse.Namespace, plan: Plan, measured: Sequence[Figures], complete: bool) -> None:
    report = json.dumps(bench.as_json(plan, measured, complete=complete), indent=1)
    table = bench.table(measured)
    if arguments.json == STDOUT:
        console.say(table)
        console.data(report)
    else:
        console.data(table)
    if file := _json_file(arguments):
        _write(file, report + "\n")
    if arguments.svg:
        _write(arguments.svg, drawing(plan, measured))


def drawing(plan: Plan, measured: Sequence[Figures]) -> str:
    """The levels as SVG; the long PDF is a note below."""
    single = [level for level in measured if level.document == bench.SINGLE]
    places = [str(level.clients) for level in single]
    notes = [f"{level.document}, 1 client: {level.pages_per_second:.2f} pages/s" for level in measured if level not in single]
    errors = sum(sum(level.errors.values()) for level in measured)
    notes.append(f"{errors} of {sum(level.requests for level in measured)} requests without a whole reply")
    return plot.svg(
        plan.url,
        notes,
        [
            plot.Panel("pages a second", "clients", "pages/s", places,
                       [plot.Series("pages a second", [level.pages_per_second for level in single])]),
            plot.Panel("latency of a page", "clients", "seconds", places,
                       [plot.Series(name, [getattr(level, name) for level in single]) for name in ("p50", "p95", "p99")]),
        ],
    )  # fmt: skip


def _write(file: Path, text: str) -> None:
    aside = file.with_name(f".{file.name}.partial-{os.getpid()}")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(file)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise KitError(f"cannot write {file}: {error.strerror}", "name another file", ExitCode.ENVIRONMENT) from None
    console.say(f"written: {file}")
