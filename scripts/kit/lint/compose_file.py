"""Compose files as Compose takes them together: chosen, interpolated, extended, merged; every value keeps its place."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping as AnyMapping
from dataclasses import dataclass, field
from pathlib import Path

from kit.lint.findings import Place
from kit.lint.interpolate import Environment
from kit.lint.tree import Mapping, Node, Scalar, Sequence, Unreadable, find, parse, scalar
from kit.stack.files import SEPARATOR, read_by_compose

REPLACED = {"command", "entrypoint", "test"}  # lists that an override replaces; all others grow
NAMED = {"environment", "labels", "args", "depends_on", "networks", "extra_hosts", "sysctls"}  # also written as lists
KEYED = {"volumes": "target", "configs": "target", "secrets": "target"}


@dataclass
class Missing:
    """A file that is named and not there. place: where it is named; None by the environment."""

    path: Path
    place: Place | None
    by: str


@dataclass
class ComposeFiles:
    """root: all files merged. trees: each by itself, as written. missing, unreadable: what stood in the way."""

    root: Mapping
    files: list[Path] = field(default_factory=list)
    texts: dict[Path, str] = field(default_factory=dict)
    trees: dict[Path, Node | None] = field(default_factory=dict)
    missing: list[Missing] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)


def choose(folder: Path, environment: Environment, environ: AnyMapping[str, str]) -> tuple[list[Path], Place | None]:
    """The files that `docker compose` would read in `folder`, and where COMPOSE_FILE stands if `.env` says it."""
    named = environment.get("COMPOSE_FILE")
    setting = named.value if named else None
    separator = environment["COMPOSE_PATH_SEPARATOR"].value if "COMPOSE_PATH_SEPARATOR" in environment else ""
    files = [folder / name for name in read_by_compose(folder, setting, separator or SEPARATOR)]
    return files, named.place if named and setting else None


def load(files: list[Path], environment: Environment, named: Place | None = None) -> ComposeFiles:
    """Read and merge. Never raises for what the files say."""
    result = ComposeFiles(Mapping({}, {}, Place(files[0] if files else Path(), 1)))
    for file in files:
        _add(result, file, environment, named, depth=0)
    services = find(result.root, "services")
    if isinstance(services, Mapping):
        for name in list(services.items):
            services.items[name] = _extended(result, services, name, environment, seen=())
    return result


def _add(result: ComposeFiles, file: Path, environment: Environment, named: Place | None, depth: int) -> None:
    tree = _read(result, file, environment, named, "COMPOSE_FILE" if depth == 0 else "include")
    if not isinstance(tree, Mapping):
        return
    for path in _included(tree) if depth < 10 else ():
        included = file.parent / path.text
        if included not in result.trees:
            _add(result, included, environment, path.place, depth + 1)
    result.files.append(file)
    merged = _merge(result.root, tree)
    assert isinstance(merged, Mapping)
    result.root = merged


def _read(result: ComposeFiles, file: Path, environment: Environment, named: Place | None, by: str) -> Node | None:
    if file in result.trees:
        return result.trees[file]
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        result.missing.append(Missing(file, named, by))
        return None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        result.unreadable.append(Unreadable(reason or str(error), Place(file, 1)))
        return None
    result.texts[file] = text
    try:
        result.trees[file] = parse(text, file, environment)
    except Unreadable as error:
        result.trees[file] = None
        result.unreadable.append(error)
    return result.trees[file]


def _included(tree: Mapping) -> Iterator[Scalar]:
    include = tree.get("include")
    for entry in include.items if isinstance(include, Sequence) else ():
        path = entry.get("path") if isinstance(entry, Mapping) else entry
        yield from (p for p in (path.items if isinstance(path, Sequence) else [path]) if isinstance(p, Scalar))


def _extended(result: ComposeFiles, services: Mapping, name: str, environment: Environment, seen: tuple[str, ...]) -> Node:
    service = services.items[name]
    extends = find(service, "extends")
    if extends is None or not isinstance(service, Mapping) or name in seen:
        return service
    other = extends.text if isinstance(extends, Scalar) else (scalar(extends, "service") or Scalar(None, extends.place)).text
    file = scalar(extends, "file")
    if file is not None:
        tree = _read(result, service.place.file.parent / file.text, environment, file.place, "extends")
        base = find(tree, "services", other)
    else:
        base = _extended(result, services, other, environment, (*seen, name)) if other in services.items else None
    return service if base is None else _merge(base, service)


def _merge(base: Node | None, over: Node, key: str = "") -> Node:
    """`over` on `base`, by the rules of the Compose specification ("Merge")."""
    if over.tag == "!override" or base is None:
        return _without_resets(over)
    if key in NAMED:
        base, over = as_mapping(base), as_mapping(over)
    if isinstance(base, Mapping) and isinstance(over, Mapping):
        result = Mapping(dict(base.items), dict(base.keys), over.place, "", over.flow)
        for name, value in over.items.items():
            if value.tag == "!reset":
                result.items.pop(name, None)
                continue
            result.items[name] = _merge(base.items.get(name), value, name)
            result.keys[name] = over.keys[name]
        return result
    if isinstance(base, Sequence) and isinstance(over, Sequence) and key not in REPLACED:
        items = list(base.items)
        for item in over.items:
            same = [index for index, old in enumerate(items) if _same(old, item, key)]
            if same:
                items[same[0]] = item
            else:
                items.append(item)
        return Sequence(items, over.place)
    return over


def _without_resets(node: Node) -> Node:
    if isinstance(node, Mapping):
        kept = {name: _without_resets(value) for name, value in node.items.items() if value.tag != "!reset"}
        return Mapping(kept, node.keys, node.place, "", node.flow, node.doubled)
    return node


def _same(old: Node, new: Node, key: str) -> bool:
    """Whether an entry of an override stands for an entry of the base: the same mount, or the same text."""
    if key in KEYED:
        return _target(old) == _target(new) != ""
    return isinstance(old, Scalar) and isinstance(new, Scalar) and old.value == new.value


def _target(node: Node) -> str:
    if isinstance(node, Mapping):
        found = scalar(node, "target") or scalar(node, "source")
        return found.text if found else ""
    text = node.text if isinstance(node, Scalar) else ""
    return text.split(":")[1] if text.count(":") else text


def as_mapping(node: Node | None) -> Mapping:
    """A mapping that Compose also takes as a list of `NAME=value` or of names."""
    if isinstance(node, Mapping):
        return node
    result = Mapping({}, {}, node.place if node else Place(Path(), 1))
    for item in node.items if isinstance(node, Sequence) else ():
        if isinstance(item, Scalar):
            name, equals, value = item.text.partition("=")
            entry = Scalar(value if equals else None, item.place, item.source, "", item.expansion)
            result.items[name], result.keys[name] = entry, item.place
    return result
