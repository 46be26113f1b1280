"""The viewer's files: libraries as they were fetched, both languages whole, nothing that asks elsewhere."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from kit.gateway import contract, pages
from support import ROOT

VIEWER = ROOT / "scripts" / "kit" / "viewer"
OWN = sorted(file for file in VIEWER.rglob("*") if file.is_file() and "vendor" not in file.parts)
WORDS = {name: json.loads((VIEWER / "locales" / f"{name}.json").read_text()) for name in ("en", "zh")}


def _vendor() -> ModuleType:
    spec = importlib.util.spec_from_file_location("vendor", ROOT / "scripts" / "vendor.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["vendor"] = module
    spec.loader.exec_module(module)
    return module


LIBRARIES = _vendor().LIBRARIES


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.name)
def test_libraries_are_as_they_were_fetched(library: object) -> None:
    folder: Path = library.folder  # type: ignore[attr-defined]
    listed = dict(reversed(line.split("  ")) for line in (folder / "SHA256SUMS").read_text().splitlines())
    held = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    held.pop("SHA256SUMS")
    assert listed == {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in held.items()}
    assert "LICENSE" in listed


def test_no_library_is_held_that_is_not_listed() -> None:
    held = {folder for parent in {library.folder.parent for library in LIBRARIES} for folder in parent.iterdir()}
    assert held == {library.folder for library in LIBRARIES}
    told = (ROOT / "docs" / "viewer.md").read_text()
    for library in LIBRARIES:
        assert f"| {library.name} | {library.version} |" in told, library.name


def test_both_languages_say_the_same() -> None:
    english = set(WORDS["en"])
    chinese = {name for name in WORDS["zh"] if not name.startswith(("label.", "option."))}
    assert english == chinese
    for name in english:
        places = [set(re.findall(r"\{\w+\}", WORDS[language][name])) for language in ("en", "zh")]
        assert places[0] == places[1], name
    own = {"file", "fileType", "logId", "visualize", "outputFormats"}  # what the page sets itself
    options = {f"option.{field.name}" for field in contract.LAYOUT_PARSING if field.name not in own}
    assert options == {name for name in WORDS["zh"] if name.startswith("option.")}


def test_every_word_is_used_and_there() -> None:
    sources = "".join(file.read_text() for file in OWN if file.suffix in (".js", ".html"))
    used = set(re.findall(r'data-word="(\w+)"', sources)) | set(re.findall(r'"(\w+)"', sources))
    assert set(WORDS["en"]) <= used
    said = set(re.findall(r'data-word="(\w+)"', sources)) | set(re.findall(r'\bsay\(\s*"(\w+)"', sources))
    assert said <= set(WORDS["en"])


def test_no_file_asks_elsewhere_or_holds_inline_code() -> None:
    for file in OWN:
        text = file.read_text()
        namespaces = text.replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://\w", namespaces), file.name
        assert "innerHTML" not in text and "eval(" not in text and "insertAdjacentHTML" not in text, file.name
    html = (VIEWER / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", html)


def test_every_file_is_served_with_its_kind() -> None:
    for file in VIEWER.rglob("*"):
        if file.is_file() and not file.name.startswith("LICENSE") and file.name != "SHA256SUMS":
            name = file.relative_to(VIEWER).as_posix()
            asset = pages.find("/" if name == "index.html" else f"/viewer/{name}")
            assert asset is not None and asset.body == file.read_bytes(), name
    assert pages.find("/viewer/index.html") is pages.find("/viewer/") is pages.find("/index.html") is None
    assert sum(file.stat().st_size for file in VIEWER.rglob("*") if file.is_file()) < 5 * 2**20
