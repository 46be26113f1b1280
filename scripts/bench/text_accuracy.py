#!/usr/bin/env python3
"""How well a running service reads the samples: sends each one to POST /layout-parsing and compares with the truth.

    python scripts/bench/text_accuracy.py [--url http://127.0.0.1:8080] [--json] [SAMPLE...]

What is measured, for each sample:

prose     The truth's blocks of kind title, heading and text, in reading order. Headers and footers are left out, as
          the service leaves them out of its Markdown. Captions are measured on their own, because a caption may
          rightly stand before or after its figure: each one found is cut out of what was read, wherever it stands.
plain     Markdown without tables, pictures, heading marks and HTML tags, entities resolved. Both sides are
          NFKC-normalised, so that full-width punctuation is not counted as wrong; white space is collapsed to one
          blank, and to none beside a Chinese character, where a line break means nothing.
CER       Character error rate: Levenshtein distance between the prose and the plain text, divided by the length of
          the prose. It is above 1 if a lot of text was invented.
in order  A paragraph (kind text) is found if a stretch of the plain text is at least 90 % like it. It is found once if,
          with that stretch cut out, no other is 85 % like it. Counted are the paragraphs found once that stand in the
          right order: the longest chain with rising positions, so one misplaced paragraph costs one, not all after it.
captions  Those that are found: 90 %, as for paragraphs.
cells     A table cell counts if the same text (NFKC, no white space) stands in the same row and column of the HTML
          table, with colspan and rowspan spread out. Each true table is compared with that table of the same page,
          not yet taken, that agrees with it most. An empty cell counts only if the table has that place, empty.

Needs rapidfuzz. Exit code: 0 when every sample was measured, 1 when the service could not be asked, 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import base64
import html
import http.client
import json
import re
import sys
import time
import unicodedata
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from rapidfuzz import fuzz
from rapidfuzz.distance import Levenshtein

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
PROSE_KINDS = ("title", "heading", "text")
FOUND, FOUND_AGAIN = 90.0, 85.0
# ideographs, kana, hangul, and CJK punctuation: no blank is written between these and their neighbours
CJK = r"\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"

Table = dict[tuple[int, int], str]  # (row, column) → text


class BenchError(Exception):
    """What stops the measuring: one line, and one line on what to do about it."""

    def __init__(self, message: str, hint: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.hint = hint
        self.exit_code = exit_code


@dataclass(frozen=True)
class Count:
    """So many of so many."""

    found: int
    total: int

    def __str__(self) -> str:
        return f"{self.found}/{self.total}" if self.total else "-"


@dataclass(frozen=True)
class SampleScore:
    pages: Count
    characters: int  # of the plain text that was read
    character_error_rate: float
    paragraphs: Count
    captions: Count
    cells: Count


# ----------------------------------------------------------------------------------------------------------- the truth


def load_truth(path: Path) -> dict[str, Any]:
    """truth.json: file name → {"pages": [{"blocks": [...]}]}."""
    try:
        truth: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BenchError(f"cannot read {path}: {error}", "make it with: python scripts/make_samples.py") from error
    return truth


def texts(pages: Iterable[Mapping[str, Any]], kinds: Sequence[str]) -> list[str]:
    """The texts of these kinds over all pages, normalised."""
    return [normalised(block["text"]) for page in pages for block in page["blocks"] if block["kind"] in kinds]


# ------------------------------------------------------------------------------------------------------- to plain text


def normalised(text: str) -> str:
    # Blanks go first beside the characters as written: NFKC turns a full-width comma into one that looks Latin.
    wide = r"\uff01-\uff65" + CJK
    text = re.sub(rf"(?<=[{wide}])\s+|\s+(?=[{wide}])", "", text)
    return " ".join(unicodedata.normalize("NFKC", text).split())


def plain_text(markdown: str) -> str:
    """Only the words of the Markdown that are running text, normalised."""
    text = re.sub(r"<table\b.*?</table\s*>", " ", markdown, flags=re.DOTALL | re.IGNORECASE)
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)", " ", text)
    text = re.sub(r"^\s{0,3}#{1,6}\s+", "", text, flags=re.MULTILINE)
    text = re.sub(r"</?[A-Za-z][^>]*>", " ", text)  # a bare `<`, as in "a < b", is no tag
    return normalised(html.unescape(text))


# --------------------------------------------------------------------------------------------------------- the measures


def character_error_rate(truth: str, read: str) -> float:
    """Edits that turn what was read into the truth, for each character of the truth."""
    if not truth:
        return float(bool(read))
    return Levenshtein.distance(truth, read) / len(truth)


def find(words: str, text: str) -> tuple[float, int, int]:
    """The stretch of the text most like the words: its likeness in per cent, where it starts, where it ends."""
    if len(text) < len(words):
        # rapidfuzz would slide the text over the words instead, and a fragment would count as the whole
        return fuzz.ratio(words, text), 0, len(text)
    best = fuzz.partial_ratio_alignment(words, text)
    return (best.score, best.dest_start, best.dest_end) if best else (0.0, 0, 0)


def cut(text: str, start: int, end: int) -> str:
    """The text without that stretch. A mark stays in its place, so that what it parted is not read as one."""
    return f"{text[:start]}\n{text[end:]}"


def paragraphs_in_order(paragraphs: Sequence[str], read: str) -> Count:
    """How many paragraphs stand in the text exactly once, and in this order. Both sides normalised."""
    places = []
    for paragraph in paragraphs:
        likeness, start, end = find(paragraph, read)
        if likeness >= FOUND and find(paragraph, cut(read, start, end))[0] < FOUND_AGAIN:
            places.append(start)
    return Count(longest_rise(places), len(paragraphs))


def longest_rise(places: Sequence[int]) -> int:
    """The length of the longest strictly rising chain."""
    chains: list[int] = []  # the longest chain that ends at each place
    for index, place in enumerate(places):
        chains.append(1 + max((chains[i] for i in range(index) if places[i] < place), default=0))
    return max(chains, default=0)


def take_captions(captions: Sequence[str], read: str) -> tuple[Count, str]:
    """How many captions are found, and the text without them."""
    found = 0
    for caption in captions:
        likeness, start, end = find(caption, read)
        if likeness >= FOUND:
            found += 1
            read = " ".join(cut(read, start, end).split())
    return Count(found, len(captions)), normalised(read)


# ----------------------------------------------------------------------------------------------------------- the tables


class TableReader(HTMLParser):
    """Collects the tables of a text as grids; a spanning cell stands in every place that it covers."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[Table] = []
        self._row = -1
        self._places: list[tuple[int, int]] | None = None  # of the cell being read
        self._words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.tables.append({})
            self._row = -1
        elif tag == "tr" and self.tables:
            self._end_cell()
            self._row += 1
        elif tag in ("td", "th") and self.tables:
            self._end_cell()
            self._start_cell(dict(attrs))

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th", "tr", "table"):
            self._end_cell()

    def handle_data(self, data: str) -> None:
        if self._places is not None:
            self._words.append(data)

    def _start_cell(self, attributes: Mapping[str, str | None]) -> None:
        row, column, taken = max(self._row, 0), 0, self.tables[-1]
        while (row, column) in taken:
            column += 1
        self._places = [(row + down, column + right)
                        for down in range(span(attributes.get("rowspan")))
                        for right in range(span(attributes.get("colspan")))]
        self._words = []
        for place in self._places:
            taken.setdefault(place, "")

    def _end_cell(self) -> None:
        for place in self._places or ():
            self.tables[-1][place] = "".join(self._words).strip()
        self._places = None


def span(value: str | None) -> int:
    """A colspan or rowspan. Models write nonsense at times; a span of a million cells must not fill the memory."""
    return min(max(int(value[:4]), 1), 100) if value and value.isdecimal() else 1


def read_tables(markdown: str) -> list[Table]:
    reader = TableReader()
    reader.feed(markdown)
    reader.close()
    return reader.tables


def cell_text(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).split())


def agreeing_cells(rows: Sequence[Sequence[str]], table: Table) -> int:
    return sum(
        (y, x) in table and cell_text(table[y, x]) == cell_text(cell)
        for y, row in enumerate(rows) for x, cell in enumerate(row)
    )


def table_cells_found(true_tables: Sequence[Sequence[Sequence[str]]], markdown: str) -> Count:
    """How many cells of one page's tables stand in their place in the page's HTML tables."""
    left = read_tables(markdown)
    found = 0
    for rows in true_tables:
        if left:
            best = max(left, key=lambda table: agreeing_cells(rows, table))
            found += agreeing_cells(rows, best)
            left.remove(best)
    return Count(found, sum(len(row) for rows in true_tables for row in rows))


# ------------------------------------------------------------------------------------------------------- a whole sample


def measure(sample_truth: Mapping[str, Any], layout_parsing_results: Sequence[Mapping[str, Any]]) -> SampleScore:
    """Compare one sample's truth with `result.layoutParsingResults` of the answer."""
    pages = sample_truth["pages"]
    markdowns = [result["markdown"]["text"] for result in layout_parsing_results]
    read = normalised("\n".join(plain_text(markdown) for markdown in markdowns))
    captions, prose_read = take_captions(texts(pages, ("caption",)), read)
    prose = normalised("\n".join(texts(pages, PROSE_KINDS)))
    cells = [
        table_cells_found([block["rows"] for block in page["blocks"] if block["kind"] == "table"], markdown)
        # a page that is missing from the answer has no tables, and its cells still count as not found
        for page, markdown in zip(pages, [*markdowns, *[""] * len(pages)], strict=False)
    ]
    return SampleScore(
        pages=Count(len(markdowns), len(pages)),
        characters=len(read),
        character_error_rate=character_error_rate(prose, prose_read),
        paragraphs=paragraphs_in_order(texts(pages, ("text",)), prose_read),
        captions=captions,
        cells=Count(sum(count.found for count in cells), sum(count.total for count in cells)),
    )


# ---------------------------------------------------------------------------------------------------------- the command


def ask(url: str, sample: Path, timeout: float) -> list[dict[str, Any]]:
    """Send the document; returns `result.layoutParsingResults`."""
    address = f"{url.rstrip('/')}/layout-parsing"
    body = request_body(sample)
    try:
        request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=timeout) as response:
            answer = json.load(response)
    except urllib.error.HTTPError as error:
        raise BenchError(f"{sample.name}: {address} answered {error.code}: {error_text(error.read())}",
                         "look at the service's log for the cause") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise BenchError(f"{sample.name}: no usable answer from {address}: {getattr(error, 'reason', error)}",
                         "start the service, or give its address with --url") from error
    try:
        results: list[dict[str, Any]] = answer["result"]["layoutParsingResults"]
    except (KeyError, TypeError) as error:
        raise BenchError(f"{sample.name}: the answer of {address} has no result.layoutParsingResults",
                         "is this really the address of the layout-parsing service?") from error
    return results


def request_body(sample: Path) -> bytes:
    try:
        content = sample.read_bytes()
    except OSError as error:
        raise BenchError(f"cannot read {sample}: {error.strerror}",
                         "make it with: python scripts/make_samples.py") from error
    return json.dumps({
        "file": base64.b64encode(content).decode("ascii"),
        "fileType": 0 if sample.suffix.lower() == ".pdf" else 1,
        "visualize": False,
    }).encode("utf-8")


def error_text(body: bytes) -> str:
    """The service's own words, if it sent JSON with `errorMsg`; else the start of what it sent."""
    try:
        return str(json.loads(body)["errorMsg"])
    except (ValueError, KeyError, TypeError):
        return " ".join(body.decode("utf-8", "replace").split())[:200]


def chosen(names: Sequence[str], truth: Mapping[str, Any]) -> list[str]:
    """The samples to send: all, or those that are named (a path will do)."""
    wanted = [Path(name).name for name in names] or list(truth)
    for name in wanted:
        if name not in truth:
            raise BenchError(f"{name} is not a sample", f"the samples are: {', '.join(truth)}", exit_code=2)
    return wanted


HEADINGS = ("sample", "pages", "seconds", "characters", "CER", "in order", "captions", "cells")


def row(name: str, seconds: float, score: SampleScore) -> tuple[str, ...]:
    return (name, str(score.pages), f"{seconds:.1f}", str(score.characters), f"{score.character_error_rate:.2%}",
            str(score.paragraphs), str(score.captions), str(score.cells))


def print_row(cells: Sequence[str]) -> None:
    print(f"{cells[0]:<18}" + "".join(f"{cell:>12}" for cell in cells[1:]), flush=True)


def run(options: argparse.Namespace) -> None:
    truth = load_truth(options.samples / "truth.json")
    names = chosen(options.sample, truth)
    records: list[dict[str, Any]] = []
    for name in names:
        started = time.monotonic()
        results = ask(options.url, options.samples / name, options.timeout)
        seconds = time.monotonic() - started
        score = measure(truth[name], results)
        if not options.json:
            if not records:  # only now: an unreachable service leaves no lonely heading
                print_row(HEADINGS)
            print_row(row(name, seconds, score))
        records.append({"sample": name, "seconds": round(seconds, 3), **asdict(score)})
    if options.json:
        print(json.dumps(records, indent=2))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure how well a running service reads the samples.")
    parser.add_argument("sample", nargs="*", metavar="SAMPLE", help="name of a sample (default: all)")
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="the service (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--samples", type=Path, default=SAMPLES, help="folder with the samples and truth.json")
    parser.add_argument("--timeout", type=float, default=600, help="seconds to wait for one answer (default: 600)")
    try:
        run(parser.parse_args(arguments))
    except BenchError as error:
        print(f"error: {error}\nhint: {error.hint}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
