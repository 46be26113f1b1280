"""What `build:` of a service tells: the image beneath, its commands, and the files of the build folder that they run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from kit.lint.commands import Command, script
from kit.lint.compose_file import as_mapping
from kit.lint.findings import Place
from kit.lint.interpolate import Environment, Variable, expand
from kit.lint.tree import Node, Scalar, Sequence, find, scalar

INSTRUCTION = re.compile(r"\s*(\w+)\s+(.*)", re.DOTALL)


@dataclass
class Build:
    """Of the last stage of a Dockerfile. folder: the build context."""

    folder: Path
    image: Scalar | None = None
    entrypoint: Node | None = None
    command: Node | None = None
    stages: dict[str, Scalar] = field(default_factory=dict)


def read(node: Node, folder: Path, environment: Environment) -> Build | None:
    """The build of a service whose `build:` is `node`; None where no Dockerfile can be read."""
    context = node if isinstance(node, Scalar) else scalar(node, "context")
    base = folder / (context.text if context else ".")
    name = scalar(node, "dockerfile")
    file = base / (name.text if name else "Dockerfile")
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, ValueError):
        return None
    result = Build(base)
    arguments: dict[str, Variable] = dict(environment)
    args = find(node, "args")
    for argument, value in as_mapping(args).items.items() if args else ():
        if isinstance(value, Scalar):
            arguments[argument] = Variable(argument, value.text)
    for line in logical_lines(text, file):
        _instruction(result, line, arguments)
    return result


def _instruction(result: Build, line: Scalar, arguments: dict[str, Variable]) -> None:
    match = INSTRUCTION.match(line.text)
    if not match:
        return
    word, rest = match[1].upper(), match[2].strip()
    if word == "ARG" and "=" in rest:
        name, _, value = rest.partition("=")
        arguments.setdefault(name, Variable(name, value.strip("\"'")))
    elif word == "FROM":
        words = [part for part in rest.split() if not part.startswith("--")]
        expansion = expand(words[0], arguments)
        image = result.stages.get(words[0]) or Scalar(expansion.text, line.place, line.source)
        if len(words) > 2:
            result.stages[words[2]] = image
        result.image, result.entrypoint, result.command = image, None, None
    elif word in ("CMD", "ENTRYPOINT"):
        value = _exec_form(rest, line)
        if word == "CMD":
            result.command = value
        else:
            result.entrypoint, result.command = value, None


def _exec_form(rest: str, line: Scalar) -> Node:
    try:
        parts = json.loads(rest)
        assert isinstance(parts, list)
    except (ValueError, AssertionError):  # the shell form
        parts = ["sh", "-c", rest]
    return Sequence([Scalar(str(part), line.place, line.source) for part in parts], line.place)


def logical_lines(text: str, file: Path) -> Iterator[Scalar]:
    """Lines of a Dockerfile or a shell script, continued ones joined, comments left out; each with its place."""
    position = 0
    pending: list[str] = []
    start = line_number = 0
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        begin, position = position, position + len(line)
        if line.lstrip().startswith("#") or (not line.strip() and not pending):
            continue
        if not pending:
            start, line_number = begin, number
        pending.append(line)
        if not line.rstrip().endswith("\\"):
            source = text[start:position].rstrip("\r\n")
            joined = re.sub(r"\\\s*\n", " ", "".join(pending)).strip()
            yield Scalar(joined, Place(file, line_number, start, start + len(source)), source)
            pending = []


def scripts(command: Command, build: Build) -> list[Command]:
    """The processes of the shell script that a command runs, where the build folder has a file of its name."""
    for text in command.texts[:2]:
        file = build.folder / PurePosixPath(text).name
        if text.endswith(".sh") and file.is_file():
            lines = logical_lines(file.read_text(encoding="utf-8", errors="replace"), file)
            return [command for line in lines for command in script(line) if command.words]
    return []
