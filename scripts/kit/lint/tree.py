"""A YAML file as a tree in which every value knows where it was written.

PyYAML parses, because PaddleX reads its configs with it: `no` is a boolean there. Compose's own parser (Go, YAML 1.2)
takes `no` for a text, so Compose files are resolved by a dialect of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from kit.lint.findings import Place
from kit.lint.interpolate import Environment, Expansion, expand

LARGEST = 100_000  # values; a file of aliases of aliases would otherwise fill the memory


@dataclass
class Scalar:
    """value: as its reader types it, after interpolation. source: as it was written, quotes included."""

    value: Any
    place: Place
    source: str = ""
    tag: str = ""
    expansion: Expansion = field(default_factory=Expansion)

    @property
    def text(self) -> str:
        return "" if self.value is None else str(self.value)

    @property
    def quoted(self) -> bool:
        return self.source[:1] in ("'", '"')

    def where(self, fragment: str) -> Place:
        """The place of a part of this text: in `.env` where a variable brought it, else in the file itself."""
        for variable in self.expansion.used:
            if variable.place and variable.value and (fragment in variable.value or variable.value in fragment):
                return variable.place
        at = self.source.find(fragment) if fragment else -1
        if at < 0:
            return self.place
        start = self.place.start + at
        return Place(self.place.file, self.place.line + self.source.count("\n", 0, at), start, start + len(fragment))


@dataclass
class Sequence:
    items: list[Node]
    place: Place
    tag: str = ""


@dataclass
class Mapping:
    """keys: where each key stands. flow: written as {a: 1}."""

    items: dict[str, Node]
    keys: dict[str, Place]
    place: Place
    tag: str = ""
    flow: bool = False
    doubled: list[tuple[str, Place]] = field(default_factory=list)

    def get(self, key: str) -> Node | None:
        return self.items.get(key)


Node: TypeAlias = "Scalar | Sequence | Mapping"


class Unreadable(Exception):
    """A file that is no YAML. place: where the parser gave up; the message is one line."""

    def __init__(self, message: str, place: Place) -> None:
        super().__init__(message)
        self.place = place


class _ComposeLoader(yaml.SafeLoader):
    """YAML 1.2's core schema, as Compose reads it."""


_TYPES = {
    "bool": re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"),
    "int": re.compile(r"^[-+]?(?:0|[1-9][0-9]*|0x[0-9a-fA-F]+)$"),
    "float": re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?$"),
}
_ComposeLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in entries if tag.endswith((":null", ":merge"))]
    for first, entries in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _name, _pattern in _TYPES.items():
    _ComposeLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", _pattern, list("-+.0123456789tTfF"))


def parse(text: str, file: Path, environment: Environment | None = None) -> Node | None:
    """The one document of `text`; None when it holds no value.

    environment: given for Compose files alone: values are then interpolated and typed as Compose does.
    Raises Unreadable.
    """
    loader = None
    try:
        loader = (yaml.SafeLoader if environment is None else _ComposeLoader)(text)
        root = loader.get_single_node()
        return None if root is None else _Builder(loader, text, file, environment).build(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(part for part in (error.problem, error.context) if part)
        raise Unreadable(problem, Place(file, mark.line + 1 if mark else 1)) from None
    except yaml.YAMLError as error:  # a character that YAML forbids
        raise Unreadable(
            str(error).splitlines()[0], Place(file, 1 + text.count("\n", 0, getattr(error, "position", 0)))
        ) from None
    except (RecursionError, ValueError) as error:
        raise Unreadable("nested too deeply" if isinstance(error, RecursionError) else str(error), Place(file, 1)) from None
    finally:
        if loader:
            loader.dispose()


class _Builder:
    def __init__(self, loader: Any, text: str, file: Path, environment: Environment | None) -> None:
        self.loader, self.text, self.file, self.environment = loader, text, file, environment
        self.count = 0

    def build(self, node: yaml.Node) -> Node:
        self.count += 1
        if self.count > LARGEST:
            raise ValueError(f"more than {LARGEST} values")
        place = self._place(node)
        tag = node.tag if node.tag.startswith("!") else ""
        if isinstance(node, yaml.SequenceNode):
            return Sequence([self.build(item) for item in node.value], place, tag)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, place, tag)
        return self._scalar(node, place, tag)

    def _place(self, node: yaml.Node) -> Place:
        return Place(self.file, node.start_mark.line + 1, node.start_mark.index, node.end_mark.index)

    def _mapping(self, node: yaml.MappingNode, place: Place, tag: str) -> Mapping:
        result = Mapping({}, {}, place, tag, flow=bool(node.flow_style))
        merged: list[Node] = []
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                value = self.build(value_node)
                merged += value.items if isinstance(value, Sequence) else [value]
                continue
            key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "?"
            if key in result.items:
                result.doubled.append((key, self._place(key_node)))
            result.items[key] = self.build(value_node)
            result.keys[key] = self._place(key_node)
        for other in merged:  # YAML merge keys: what is written here wins, then the first of a list
            if isinstance(other, Mapping):
                for key, value in other.items.items():
                    if key not in result.items:
                        result.items[key], result.keys[key] = value, other.keys[key]
        return result

    def _scalar(self, node: yaml.ScalarNode, place: Place, tag: str) -> Scalar:
        source = self.text[place.start : place.end]
        if self.environment is None or "$" not in node.value:
            return Scalar(self._value(node, tag), place, source, tag)
        expansion = expand(node.value, self.environment)
        plain = node.style is None
        kind = self.loader.resolve(yaml.ScalarNode, expansion.text, (plain, not plain))
        return Scalar(self._value(yaml.ScalarNode(kind, expansion.text), tag), place, source, tag, expansion)

    def _value(self, node: yaml.ScalarNode, tag: str) -> Any:
        if tag:
            node = yaml.ScalarNode(self.loader.resolve(yaml.ScalarNode, node.value, (True, False)), node.value)
        if node.tag in ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:binary"):
            return node.value
        return self.loader.construct_object(node)


def find(node: Node | None, *path: str) -> Node | None:
    """The value at a path of keys, or None."""
    for key in path:
        if not isinstance(node, Mapping):
            return None
        node = node.get(key)
    return node


def scalar(node: Node | None, *path: str) -> Scalar | None:
    """As find, for a value that is no mapping, no list and not null."""
    found = find(node, *path)
    return found if isinstance(found, Scalar) and found.value is not None else None


def scalars(node: Node | None) -> Iterator[Scalar]:
    """Every scalar below."""
    if isinstance(node, Scalar):
        yield node
    elif isinstance(node, Sequence):
        for item in node.items:
            yield from scalars(item)
    elif isinstance(node, Mapping):
        for item in node.items.values():
            yield from scalars(item)


def mappings(node: Node | None) -> Iterator[Mapping]:
    """Every mapping below, itself included."""
    if isinstance(node, Mapping):
        yield node
    if isinstance(node, (Mapping, Sequence)):
        for item in node.items.values() if isinstance(node, Mapping) else node.items:
            yield from mappings(item)
