"""./kit view: the page to look at a document with, for a service that does not serve it itself."""

from __future__ import annotations

import argparse
import os

from kit import api, console
from kit.catalog.settings import Settings
from kit.errors import ExitCode, KitError
from kit.paths import ROOT
from kit.stack.choose import active
from kit.verbs.arguments import Verbs
from kit.view import Viewer


def port(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 65535:
        raise ValueError
    return value


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser("view", help="a page in the browser: drop a document, see what is read")
    parser.add_argument(
        "url", nargs="?", metavar="URL", help="address of any /layout-parsing service (default: the one that runs here)"
    )
    parser.add_argument("--port", type=port, default=0, metavar="PORT", help="of the page, on 127.0.0.1 (default: a free one)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    with Viewer(_service(arguments.url), arguments.port) as viewer:
        console.say(f"documents go to {viewer.service}; open this in a browser, Ctrl-C ends it:")
        console.data(viewer.url)
        viewer.serve_forever()


def _service(url: str | None) -> str:
    """Raises KitError: USAGE for an address that is none, START where none is named and none runs here."""
    if url:
        return api.address(url)
    stack = active(Settings(ROOT, os.environ))
    if not stack:
        raise KitError("no service runs here", "./kit up starts it; ./kit view URL looks at another", ExitCode.START)
    return stack.url
