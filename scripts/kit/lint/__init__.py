"""What is wrong with a folder of Compose files and configs, before anything is started. Pure: it reads, and writes only in `fix`.

Rules stand in rules_*.py, each beside its check; docs/lint.md is rendered from them.
"""

from __future__ import annotations

from pathlib import Path

from kit.lint import mend, rules_engine, rules_files, rules_gateway, rules_images, rules_pipeline, rules_services, rules_wiring
from kit.lint.findings import Finding, Hit, Place, Rule, Severity
from kit.lint.project import Project, load

MODULES = (rules_files, rules_images, rules_services, rules_wiring, rules_pipeline, rules_engine, rules_gateway)
RULES: tuple[Rule, ...] = tuple(rule for module in MODULES for rule in module.rules.all)
ROUNDS = 8  # of mending: one mend can uncover the next

__all__ = ["RULES", "Finding", "Hit", "Place", "Project", "Rule", "Severity", "fix", "lint", "load", "markdown_table"]


def lint(project: Project) -> list[Finding]:
    """Every finding once, by file and line."""
    found: dict[tuple[str, Place, str], Finding] = {}
    for rule in RULES:
        for hit in rule.check(project):
            finding = Finding(rule, hit.severity or rule.severity, hit.place, hit.message, hit.mend or rule.mend, hit.edits)
            found.setdefault((rule.id, hit.place, hit.message), finding)
    return sorted(found.values(), key=lambda finding: (str(finding.place.file), finding.place.line, finding.rule.id))


def fix(findings: list[Finding]) -> dict[Path, tuple[str, str]]:
    """Make the certain mends; (before, after) of each changed file. Lint again afterwards: one mend can uncover the next."""
    return mend.apply_all(finding.edits for finding in findings if finding.edits)


def markdown_table() -> str:
    """The table of docs/lint.md. Whether a rule can be mended is told by its findings, so it is not said here."""
    lines = ["| rule | severity | what | why | mend |", "| --- | --- | --- | --- | --- |"]
    for rule in RULES:
        cells = (rule.id, rule.severity.value, rule.what, rule.why, rule.mend)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"
