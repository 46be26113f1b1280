"""The documents: links lead somewhere, both languages have the same parts, no claim without its file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support import ROOT

PAGES = [ROOT / "README.md", ROOT / "README.zh-CN.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "samples" / "README.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_both_readmes_show_the_same_commands() -> None:
    def commands(name: str) -> list[str]:
        return re.findall(r"```sh\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)

    english, chinese = commands("README.md"), commands("README.zh-CN.md")
    strip = lambda block: [line.split("  #")[0].rstrip() for line in block.splitlines()]  # noqa: E731
    assert [strip(block) for block in english] == [strip(block) for block in chinese]


def test_every_page_is_reachable_from_the_readme() -> None:
    linked = set(re.findall(r"\]\(docs/([\w.-]+\.md)", (ROOT / "README.md").read_text()))
    assert linked == {page.name for page in (ROOT / "docs").glob("*.md")}
