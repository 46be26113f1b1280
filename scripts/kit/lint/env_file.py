"""`.env` as Compose reads it, with the line of every variable."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dotenv.parser import parse_stream

from kit.lint.findings import Place
from kit.lint.interpolate import Expansion, Variable, expand


@dataclass
class EnvFile:
    """values: place is the value's. names: every place of a name. expansions: what became of values with variables in them.

    refused: lines at which Compose stops. odd: lines that Compose passes over, or reads and ./kit does not.
    """

    path: Path
    values: dict[str, Variable] = field(default_factory=dict)
    names: dict[str, list[Place]] = field(default_factory=dict)
    expansions: list[tuple[Place, Expansion]] = field(default_factory=list)
    refused: list[Place] = field(default_factory=list)
    odd: list[Place] = field(default_factory=list)


def read(path: Path, text: str, environ: Mapping[str, str]) -> EnvFile:
    """`environ` serves the variables that values of the file refer to; the environment wins over the file."""
    result = EnvFile(path)
    outer = {name: Variable(name, value) for name, value in environ.items()}
    position = 0
    for binding in parse_stream(io.StringIO(text, newline="")):
        original = binding.original.string
        blank = original[: len(original) - len(original.lstrip())]  # the parser counts blank lines to what follows them
        line, start = binding.original.line + blank.count("\n"), position
        position += len(original)
        if binding.error:
            # Measured with Compose 2.40: a line without a name, and words behind a closing quote, are passed over.
            passed = original.lstrip().startswith("=") or re.match(r"\s*[\w.-]+=(['\"]).*\1", original)
            colon = re.match(r"\s*([\w.-]+):\s+(\S*)\s*$", original)  # `NAME: value`, which Compose takes
            (result.odd if passed or colon else result.refused).append(Place(path, line))
            if colon:
                result.values[colon[1]] = Variable(colon[1], colon[2], Place(path, line))
            continue
        if binding.key is None:
            continue
        name_at = start + original.index(binding.key)
        result.names.setdefault(binding.key, []).append(Place(path, line, name_at, name_at + len(binding.key)))
        if binding.value is None:  # `NAME` alone: taken from the environment
            continue
        before, _, written = original.partition("=")
        value_at = start + len(before) + 1
        place = Place(path, line, value_at, value_at + len(written.rstrip("\r\n")))
        value = binding.value
        if not written.lstrip().startswith("'"):  # single quotes keep dollars as they are
            expansion = expand(value, result.values | outer)
            result.expansions.append((place, expansion))
            value = expansion.text
        result.values[binding.key] = Variable(binding.key, value, place)
    return result
