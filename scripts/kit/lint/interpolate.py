"""Variables of a Compose file, put in as Compose does (the Compose specification, "Interpolation"), without Compose.

tests/unit/test_lint_interpolate.py compares with the real Compose binary.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from kit.lint.findings import Place

NAME = re.compile(r"[_a-zA-Z][_a-zA-Z0-9]*")
OPERATORS = (":-", ":?", ":+", "-", "?", "+")


@dataclass(frozen=True)
class Variable:
    """place: its value in `.env`; None when the environment has it."""

    name: str
    value: str
    place: Place | None = None


Environment: TypeAlias = Mapping[str, Variable]


@dataclass
class Expansion:
    """text: with the variables put in. used: those that had a value. unset: asked for, not set, no default.

    required: those that `${X:?message}` demands and that are not set, with their message.
    problem: why Compose refuses the text, or empty.
    """

    text: str = ""
    used: list[Variable] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)
    unset: list[str] = field(default_factory=list)
    required: list[tuple[str, str]] = field(default_factory=list)
    problem: str = ""


def expand(text: str, environment: Environment) -> Expansion:
    """Put variables in; never raises, what is wrong stands in the result."""
    result = Expansion()
    try:
        result.text = _expand(text, environment, result)
    except ValueError as error:
        result.text, result.problem = text, str(error)
    return result


def _expand(text: str, environment: Environment, result: Expansion) -> str:
    parts, position = [], 0
    while (dollar := text.find("$", position)) >= 0:
        parts.append(text[position:dollar])
        rest = text[dollar + 1 :]
        if rest.startswith("$"):
            parts.append("$")
            position = dollar + 2
        elif rest.startswith("{"):
            end = _closing(text, dollar + 2)
            parts.append(_braced(text[dollar + 2 : end], environment, result))
            position = end + 1
        elif name := NAME.match(rest):
            parts.append(_value(name[0], environment, result))
            position = dollar + 1 + name.end()
        else:  # a dollar sign before anything else stays one
            parts.append("$")
            position = dollar + 1
    return "".join(parts) + text[position:]


def _closing(text: str, start: int) -> int:
    """Where the `}` of a `${` stands; those of nested variables are passed over."""
    depth, at = 1, start
    while at < len(text):
        if text.startswith("${", at):
            depth += 1
            at += 1
        elif text[at] == "}":
            depth -= 1
            if not depth:
                return at
        at += 1
    raise ValueError(f"`${{{text[start:]}` is never closed")


def _braced(body: str, environment: Environment, result: Expansion) -> str:
    name = NAME.match(body)
    if not name:
        raise ValueError(f"`${{{body}}}` names no variable")
    rest = body[name.end() :]
    if not rest:
        return _value(name[0], environment, result)
    operator = next((operator for operator in OPERATORS if rest.startswith(operator)), None)
    if operator is None:
        raise ValueError(f"`${{{body}}}`: what follows {name[0]} is none of {', '.join(OPERATORS)}")
    word = rest[len(operator) :]
    found = environment.get(name[0])
    is_set = found is not None and (found.value != "" or not operator.startswith(":"))
    result.asked.add(name[0])
    if operator.endswith("+"):
        return _expand(word, environment, result) if is_set else ""
    if is_set:
        return _value(name[0], environment, result)
    if operator.endswith("?"):
        result.required.append((name[0], _expand(word, environment, result)))
        return ""
    return _expand(word, environment, result)


def _value(name: str, environment: Environment, result: Expansion) -> str:
    result.asked.add(name)
    found = environment.get(name)
    if found is None:
        result.unset.append(name)
        return ""
    result.used.append(found)
    return found.value
