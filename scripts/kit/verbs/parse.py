"""./kit parse: documents to Markdown."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from kit import client, console, documents
from kit.catalog.settings import Settings
from kit.errors import ExitCode, KitError
from kit.paths import ROOT
from kit.stack import start
from kit.stack.choose import active
from kit.stack.local import LocalStack
from kit.verbs.arguments import Verbs, seconds


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser("parse", help="PDFs and pictures to Markdown")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="PDF, PNG, JPEG, TIFF, BMP or WebP")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="DIR",
        help="write NAME.md, NAME.json and pictures there (else Markdown goes to stdout)",
    )
    parser.add_argument("--url", help="address of the service (default: the one of ./kit up)")
    parser.add_argument("--timeout", type=seconds, metavar="SECONDS", help="limit for a document (60, and 30 a page)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
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
            stack = active(Settings(ROOT, os.environ)) if not arguments.url else None
            raise (start.explained(stack, error) if stack else error) from error
        if arguments.output:
            path = client.write(parsed, arguments.output)
            console.say(f"{path}  {document.pages} page{'s' if document.pages > 1 else ''}")
        else:
            console.data(parsed.markdown)
            pictures = sum(len(page.pictures) for page in parsed.pages)
            if pictures:
                console.say(f"not written: {pictures} picture{'s' if pictures > 1 else ''}; -o DIR keeps them")
