"""Documents to Markdown and JSON through POST /layout-parsing."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from kit import api
from kit.documents import Document
from kit.errors import ExitCode, KitError

# Time limit of a document where the user gives none: a slow CPU reads a page in 30 s.
BASE_SECONDS, SECONDS_PER_PAGE = 60.0, 30.0


@dataclass(frozen=True)
class Picture:
    """A picture that the Markdown shows. key: its path as the service wrote it there. data: JPEG or PNG."""

    key: str
    data: bytes


@dataclass(frozen=True)
class Page:
    """One page. markdown: as the service wrote it. pruned: the blocks with boxes and labels (`prunedResult`)."""

    markdown: str
    pictures: tuple[Picture, ...]
    pruned: dict[str, Any]


@dataclass(frozen=True)
class Parsed:
    """A parsed document, as many pages as it has. data_info: the service's `dataInfo`."""

    document: Document
    pages: tuple[Page, ...]
    data_info: dict[str, Any]

    @property
    def markdown(self) -> str:
        """All pages, a blank line between them."""
        return "\n\n".join(page.markdown for page in self.pages)


def parse(document: Document, url: str, timeout: float | None = None, options: dict[str, Any] | None = None) -> Parsed:
    """Send `document` to the service at `url` and check that every page came back.

    timeout: seconds for the whole document; by default 60 and 30 more a page.
    Raises KitError: see api.layout_parsing; INCOMPLETE when the reply has
    another number of pages than the document, as PaddleX's own limit of 10
    pages would make it, without a word.
    """
    limit = timeout if timeout is not None else BASE_SECONDS + SECONDS_PER_PAGE * document.pages
    result = api.layout_parsing(url, document.data, document.file_type, timeout=limit, options=options)
    replies = result["layoutParsingResults"]
    if len(replies) != document.pages:
        raise KitError(
            f"{document.path}: the reply has {len(replies)} of {document.pages} pages; nothing was written",
            "set max_num_input_imgs: null under Serving.extra in the service's pipeline config, as ours has it",
            ExitCode.INCOMPLETE,
        )
    try:
        pages = tuple(_page(reply) for reply in replies)
    except (KeyError, TypeError, AttributeError, binascii.Error) as error:
        raise KitError(
            f"{document.path}: the reply is not of this contract ({error!r})", "is the service's version supported?"
        ) from error
    return Parsed(document, pages, result.get("dataInfo", {}))


def write(parsed: Parsed, folder: Path) -> Path:
    """Write NAME.md, NAME.json and, where there are any, pictures in NAME_images/; the path of the .md.

    Everything is written aside first and renamed at the end, the .md last, so
    that no half-written result is ever seen. Raises KitError (ENVIRONMENT).
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _write(parsed, folder)
    except OSError as error:
        raise KitError(
            f"cannot write {error.filename or folder}: {error.strerror}", "name another folder with -o", ExitCode.ENVIRONMENT
        ) from error


def _write(parsed: Parsed, folder: Path) -> Path:
    name = parsed.document.name
    aside = folder / f".{name}.partial-{os.getpid()}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        images = aside / "images"
        markdown, pages = [], []
        for number, page in enumerate(parsed.pages, 1):
            text, pictures = page.markdown, {}
            for picture in page.pictures:
                images.mkdir(exist_ok=True)
                file = f"p{number:04d}_{_safe(picture.key)}"
                (images / file).write_bytes(picture.data)
                pictures[picture.key] = f"{name}_images/{file}"
                text = text.replace(picture.key, quote(pictures[picture.key]))
            markdown.append(text)
            pages.append({"prunedResult": page.pruned, "markdown": {"text": text, "images": pictures}})
        report = {"source": parsed.document.path.name, "layoutParsingResults": pages, "dataInfo": parsed.data_info}
        (aside / "json").write_text(json.dumps(report, ensure_ascii=False, indent=1), encoding="utf-8")
        (aside / "md").write_text("\n\n".join(markdown) + "\n", encoding="utf-8")
        final = folder / f"{name}_images"
        if final.exists():
            final.rename(aside / "images-before")
        if images.exists():
            images.rename(final)
        (aside / "json").replace(folder / f"{name}.json")
        return (aside / "md").replace(folder / f"{name}.md")
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _page(reply: dict[str, Any]) -> Page:
    markdown = reply["markdown"]
    pictures = tuple(
        Picture(key, base64.b64decode(value, validate=True)) for key, value in (markdown.get("images") or {}).items()
    )
    return Page(markdown["text"], pictures, reply["prunedResult"])


def _safe(key: str) -> str:
    """A file name from a path that the service sent: never a folder, never hidden, nothing odd."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", PurePosixPath(key).name).lstrip(".") or "picture"
