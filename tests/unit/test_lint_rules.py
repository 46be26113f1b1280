"""Every rule of `./kit lint` has a case that breaks it and one that comes close and does not: tests/lint/rules/KITnnn.txt.

A case lays its files over tests/lint/base, which has no finding. A line with `#!` behind it is where the finding belongs;
the mark itself is taken out before the linter reads the file.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from kit.facts.gpus import Gpu, Nvidia
from kit.lint import RULES, Severity, fix, lint, load
from support import ROOT

FIXTURES = ROOT / "tests" / "lint"
MARK = re.compile(r" *#!(?=$| #)")


@dataclass(frozen=True)
class Case:
    rule: str
    fails: bool
    title: str
    files: tuple[tuple[str, str], ...]
    nvidia: Nvidia | None

    def lay(self, folder: Path) -> set[tuple[str, int]]:
        """Write the files into `folder`; gives the marked places."""
        shutil.copytree(FIXTURES / "base", folder, dirs_exist_ok=True)
        marked = set()
        for name, text in self.files:
            if text == "(absent)\n":
                (folder / name).unlink()
                continue
            lines = text.split("\n")
            marked |= {(name, number) for number, line in enumerate(lines, 1) if MARK.search(line)}
            (folder / name).write_text("\n".join(MARK.sub("", line) for line in lines))
        return marked


def read_cases() -> list[Case]:
    cases = []
    for file in sorted((FIXTURES / "rules").glob("*.txt")):
        for block in re.split(r"(?m)^== ", file.read_text())[1:]:
            head, _, body = block.partition("\n")
            verdict, _, title = head.partition(": ")
            gpu = re.search(r"\[gpu (\d+) (\d+)\.(\d+)\]", title)
            parts = re.split(r"(?m)^-- (\S+) --\n", body)[1:]
            files = tuple(zip(parts[::2], parts[1::2], strict=True))
            cases.append(Case(file.stem, verdict == "fails", title, files, gpu and one_card(*map(int, gpu.groups()))))
    return cases


def one_card(gib: int, major: int, minor: int) -> Nvidia:
    return Nvidia("575.1", (12, 9), (Gpu(0, "a card", "GPU-1", gib * 2**30, gib * 2**30, (major, minor)),))


CASES = read_cases()
by_name = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.rule} {case.title}")


@by_name
def test_the_rule_speaks_where_it_should_and_nowhere_else(case: Case, tmp_path: Path) -> None:
    marked = case.lay(tmp_path)
    assert bool(marked) == case.fails, "a failing case marks its lines, a passing one has none"
    found = lint(load(tmp_path, {}, nvidia=case.nvidia))
    places = [(f.place.file.name, f.place.line) for f in found if f.rule.id == case.rule]
    assert sorted(places) == sorted(marked), "\n".join(
        f"{f.place.file.name}:{f.place.line} {f.rule.id} {f.message}" for f in found
    )


@by_name
def test_what_is_mended_is_clean_afterwards_and_keeps_its_comments(case: Case, tmp_path: Path) -> None:
    case.lay(tmp_path)
    before = {file: file.read_text() for file in tmp_path.iterdir()}
    project = load(tmp_path, {}, nvidia=case.nvidia)
    found = [f for f in lint(project) if f.rule.id == case.rule and f.edits]
    changed = fix(found)
    assert bool(changed) == bool(found)
    mended = load(tmp_path, {}, nvidia=case.nvidia)
    assert not [f for f in lint(mended) if f.rule.id == case.rule and f.edits]
    assert (len(mended.apis), len(mended.vlms)) == (len(project.apis), len(project.vlms)), "both servers are still started"
    for file, text in before.items():
        now = file.read_text()
        assert (file in changed) == (now != text)
        assert re.findall(r"#.*", now) == re.findall(r"#.*", text), "comments stay as they are"
        if file in changed and file.suffix == ".yaml":
            yaml.compose(now)
    assert {file.name for file in tmp_path.iterdir()} == {file.name for file in before}, "nothing is left aside"


def test_every_rule_has_a_case_that_breaks_it_and_one_that_does_not() -> None:
    for verdict in (True, False):
        assert {case.rule for case in CASES if case.fails is verdict} == {rule.id for rule in RULES}


def test_ids_are_unique_and_every_rule_says_what_why_and_how() -> None:
    assert len({rule.id for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert re.fullmatch(r"KIT\d{3}", rule.id)
        assert isinstance(rule.severity, Severity) and rule.what and rule.mend
        assert len(rule.why) > 30, "the consequence, with its source"


def test_the_base_of_the_cases_has_no_finding(tmp_path: Path) -> None:
    assert lint(load(FIXTURES / "base", {})) == []


@pytest.mark.parametrize("file", sorted((FIXTURES / "seeds").glob("*.txt")), ids=lambda file: file.stem)
def test_what_users_tried_first_has_exactly_its_known_findings(file: Path, tmp_path: Path) -> None:
    """Marks name the rules here: `#! KIT101,KIT102`."""
    expected = set()
    parts = re.split(r"(?m)^-- (\S+) --\n", file.read_text())[1:]
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        lines = []
        for number, line in enumerate(text.split("\n"), 1):
            plain, _, rules = line.partition("  #! ")
            expected |= {(name, number, rule) for rule in rules.split(",") if rule}
            lines.append(plain)
        (tmp_path / name).write_text("\n".join(lines))
    found = lint(load(tmp_path, {}))
    assert expected
    assert {(f.place.file.name, f.place.line, f.rule.id) for f in found} == expected
