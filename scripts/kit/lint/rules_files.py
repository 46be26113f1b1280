"""KIT0xx: whether the files can be read, and whether every variable has a value."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from pathlib import Path

from kit.gateway import settings as gateway_settings
from kit.lint import mend
from kit.lint.findings import Edit, Hit, Place, Rules, Severity
from kit.lint.project import Config, Project
from kit.lint.tree import Mapping, Node, Scalar, Sequence, find, mappings, scalar, scalars
from kit.stack.files import read_by_compose

rules = Rules()
ERROR, WARNING = Severity.ERROR, Severity.WARNING


def _trees(project: Project) -> Iterator[tuple[Path, Node]]:
    for file, tree in (project.compose.trees if project.compose else {}).items():
        if tree is not None:
            yield file, tree


def _configs(project: Project) -> Iterator[tuple[str, Config]]:
    for config in project.pipelines:
        yield "pipeline config", config
    for _, config in project.engines:
        yield "VLM config", config


@rules(
    "KIT001",
    ERROR,
    "a file is no valid YAML",
    why="Compose, PaddleX and the VLM server end at once: `yaml.parser.ParserError` (paddlex 3.7.2, measured)",
    mend="mend the line; spaces, not tabs, and the same depth for what belongs together",
)
def unreadable(project: Project) -> Iterator[Hit]:
    for error in project.compose.unreadable if project.compose else ():
        yield Hit(error.place, f"not readable as YAML: {error}")
    for kind, config in _configs(project):
        if config.unreadable:
            yield Hit(config.unreadable.place, f"{config.file.name} is not a {kind}: {config.unreadable}")


def has_parts(tree: Node | None) -> bool:
    """Whether a file is a pipeline config at all."""
    parts = find(tree, "SubModules")
    return isinstance(parts, Mapping) and bool(parts.items)


@rules(
    "KIT002",
    ERROR,
    "a file is empty, or holds no `key: value`",
    why="PaddleX calls `.items()` on it: `AttributeError: 'NoneType' object has no attribute 'items'` (paddlex 3.7.2, measured)",
    mend="write the settings in; a VLM config without any is `{}`",
)
def empty(project: Project) -> Iterator[Hit]:
    if compose := project.compose:
        broken = {error.place.file for error in compose.unreadable}
        for file in compose.texts:
            tree = compose.trees.get(file)
            services = find(tree, "services")
            if file not in broken and not isinstance(tree, Mapping):
                yield Hit(Place(file, 1), "no Compose file: it holds no `key: value`")
            elif isinstance(services, (Sequence, Scalar)) and not services.tag:
                yield Hit(services.place, "`services` is no mapping of names to services")
        if not broken and not project.services and all(isinstance(compose.trees[file], Mapping) for file in compose.texts):
            yield Hit(Place(next(iter(compose.texts), Path()), 1), "no services")
    for kind, config in _configs(project):
        if config.unreadable or (kind == "VLM config" and isinstance(config.tree, Mapping)) or has_parts(config.tree):
            continue
        if isinstance(config.tree, Mapping):
            yield Hit(Place(config.file, 1), f"{config.file.name} is not a pipeline config: it has no section SubModules")
            continue
        nothing = config.tree is None or (isinstance(config.tree, Scalar) and config.tree.value is None)
        edits = mend.append(config.file, config.text, "{}") if kind == "VLM config" and config.tree is None else ()
        state = "it is empty" if nothing else "it holds no `key: value`"
        yield Hit(Place(config.file, 1), f"{config.file.name} is not a {kind}: {state}", edits)


@rules(
    "KIT003",
    ERROR,
    "a variable has neither a value nor a default",
    why="Compose puts an empty text in its place, so that `image: name:${TAG}` is `name:`, an invalid reference; "
    "with `${X:?…}` it refuses to start (Compose specification, Interpolation)",
    mend="set it in .env, or give it a default: ${NAME:-value}",
)
def unset(project: Project) -> Iterator[Hit]:
    for place, expansion in project.env_file.expansions if project.env_file else ():
        for name, message in expansion.required:
            yield Hit(place, f"{name} must be set{': ' + message if message else ''}", mend=f"set {name}")
    seen: set[tuple[Path, str]] = set()
    for file, tree in _trees(project):
        for value in scalars(tree):
            for name, message in value.expansion.required:
                yield Hit(value.where(name), f"{name} must be set{': ' + message if message else ''}", mend=f"set {name} in .env")
            for name in dict.fromkeys(value.expansion.unset):
                if (file, name) not in seen:
                    seen.add((file, name))
                    yield Hit(
                        value.where(name),
                        f"{name} is not set and has no default",
                        mend=f"set {name} in .env, or write ${{{name}:-value}}",
                    )


@rules(
    "KIT004",
    ERROR,
    "a variable is written wrongly",
    why="Compose refuses the file: `invalid interpolation format` (Compose specification, Interpolation)",
    mend="write ${NAME} or ${NAME:-default}; a dollar sign itself is $$",
)
def malformed(project: Project) -> Iterator[Hit]:
    for place, expansion in project.env_file.expansions if project.env_file else ():
        if expansion.problem:
            yield Hit(place, expansion.problem)
    for _, tree in _trees(project):
        for value in scalars(tree):
            if value.expansion.problem:
                yield Hit(value.place, value.expansion.problem)


@rules(
    "KIT005",
    ERROR,
    "a line of .env is no assignment",
    why="Compose stops at it: `key cannot contain a space`, `unterminated quoted value` (Compose 2.40, measured)",
    mend="write NAME=value, or begin the line with #",
)
def env_unreadable(project: Project) -> Iterator[Hit]:
    for place in project.env_file.refused if project.env_file else ():
        yield Hit(place, "no NAME=value", severity=None if project.compose else WARNING)  # without Compose it is passed over
    for place in project.env_file.odd if project.env_file else ():
        yield Hit(place, "no NAME=value: Compose and ./kit do not read it alike", severity=WARNING)


@rules(
    "KIT006",
    WARNING,
    "a variable of .env is read by nothing, and is spelt almost like one that is",
    why="Compose ignores names that it does not know, and the default stays in force",
    mend="correct the name",
)
def env_misspelt(project: Project) -> Iterator[Hit]:
    if not project.env_file or not project.compose:
        return
    read = {name for _, tree in _trees(project) for value in scalars(tree) for name in value.expansion.asked}
    values = "".join(variable.value for variable in project.env_file.values.values())
    for name, places in project.env_file.names.items():
        known = name.startswith("COMPOSE_") or any(name == setting.environment for setting in gateway_settings.TABLE)
        if name in read or known or f"${{{name}" in values:
            continue
        near = difflib.get_close_matches(name, read - set(project.env_file.names), n=2, cutoff=0.86)
        if near:
            edits = tuple(Edit(at.file, at.start, at.end, near[0]) for at in places) if len(near) == 1 else ()
            yield Hit(places[-1], f"{name} is read by nothing; {near[0]} is", edits, f"write {near[0]}")


@rules(
    "KIT007",
    WARNING,
    "a variable stands twice in .env",
    why="the last one counts, and a change of the first does nothing",
    mend="keep one",
)
def env_twice(project: Project) -> Iterator[Hit]:
    for name, places in (project.env_file.names if project.env_file else {}).items():
        if len(places) > 1:
            yield Hit(places[0], f"{name} stands again in line {places[-1].line}, which counts")


@rules(
    "KIT008",
    ERROR,
    "a file that is named is not there",
    why="Compose stops; for the source of a mount Docker makes an empty folder of that name instead, and the "
    "server then cannot read its config (Docker documentation, Bind mounts)",
    mend="correct the path; it is relative to the folder of the Compose file",
)
def missing(project: Project) -> Iterator[Hit]:
    for file in project.compose.missing if project.compose else ():
        place = file.place or Place(file.path, 1)
        yield Hit(place, f"{_short(project, file.path)}: no such file, named by {file.by}")
    for absent in project.absent:
        made = absent.mount and absent.mount.makes_folder
        text = f"{_short(project, absent.path)}: No such file" + ("; Docker would make a folder of that name" if made else "")
        yield Hit(absent.place, text)
    for service in project.services:
        files = service.get("env_file")
        for entry in files.items if isinstance(files, Sequence) else [files]:
            path = scalar(entry, "path") if isinstance(entry, Mapping) else entry
            required = scalar(entry, "required")
            optional = required is not None and required.value is False
            if isinstance(path, Scalar) and path.text and not optional and not service.path(path).exists():
                yield Hit(path.place, f"{path.text}: no such file, named by env_file")


@rules(
    "KIT009",
    ERROR,
    "a key stands twice",
    why="Compose refuses such a file (`mapping key … already defined`); PaddleX takes the last one in silence (PyYAML)",
    mend="keep one",
)
def doubled(project: Project) -> Iterator[Hit]:
    for _, tree in _trees(project):
        for mapping in mappings(tree):
            for key, place in mapping.doubled:
                yield Hit(place, f"{key} stands twice in one mapping")
    for _, config in _configs(project):
        for mapping in mappings(config.tree):
            for key, place in mapping.doubled:
                yield Hit(place, f"{key} stands twice in one mapping; the last one counts", severity=WARNING)


# What Compose takes for each key; the words of its own refusal.
SHAPES: dict[str, tuple[type, ...]] = {
    "volumes": (Sequence,), "ports": (Sequence,), "deploy": (Mapping,), "healthcheck": (Mapping,),
    "environment": (Mapping, Sequence), "depends_on": (Mapping, Sequence), "networks": (Mapping, Sequence),
}  # fmt: skip
WORDS = {Sequence: "a list", Mapping: "a mapping"}


@rules(
    "KIT010",
    ERROR,
    "a key of a service has a value of another kind",
    why="Compose refuses it: `services.NAME.volumes must be a array`. The official page for Blackwell cards shows "
    "`volumes:` with a text (PaddleOCR-VL documentation)",
    mend="write a list: each entry on its own line, after a dash",
)
def wrong_kind(project: Project) -> Iterator[Hit]:
    for service in project.services:
        for key, kinds in SHAPES.items():
            value = service.get(key)
            if value is None or isinstance(value, kinds):
                continue
            edits: tuple[Edit, ...] = ()
            if (
                kinds == (Sequence,)
                and isinstance(value, Scalar)
                and value.value is not None
                and not re.search(r"[\n#\[\]{},]", value.source)
            ):
                edits = (Edit(value.place.file, value.place.start, value.place.end, f"[{value.source}]"),)
            wanted = " or ".join(WORDS[kind] for kind in kinds)
            yield Hit(value.place, f"{key} of {service.name} must be {wanted}", edits, f"write {wanted}")


# Keys of the Compose specification that are in use for such services; x-… are the user's own.
KEYS: dict[str, frozenset[str]] = {
    "service": frozenset(
        """
        annotations attach build cap_add cap_drop cgroup cgroup_parent command configs container_name cpu_shares cpus cpuset
        depends_on deploy develop device_cgroup_rules devices dns dns_opt dns_search domainname entrypoint env_file environment
        expose extends external_links extra_hosts gpus group_add healthcheck hostname image init ipc isolation label_file labels
        links logging mac_address mem_limit mem_reservation mem_swappiness memswap_limit models network_mode networks
        oom_kill_disable oom_score_adj pid pids_limit platform ports post_start pre_stop privileged profiles provider pull_policy
        read_only restart runtime scale secrets security_opt shm_size stdin_open stop_grace_period stop_signal storage_opt
        sysctls tmpfs tty ulimits user userns_mode uts volumes volumes_from working_dir
        """.split()
    ),
    "healthcheck": frozenset({"test", "interval", "timeout", "retries", "start_period", "start_interval", "disable"}),
    "file": frozenset({"name", "version", "services", "networks", "volumes", "configs", "secrets", "include", "models"}),
}


@rules(
    "KIT011",
    ERROR,
    "a key that Compose does not know, spelt almost like one that it does",
    why="Compose refuses the file: `additional properties 'enviroment' not allowed` (Compose 2.40, measured)",
    mend="correct the key",
)
def misspelt_key(project: Project) -> Iterator[Hit]:
    for _, tree in _trees(project):
        services = find(tree, "services")
        nodes = list(services.items.values()) if isinstance(services, Mapping) else []
        sections = [("file", tree), *(("service", node) for node in nodes)]
        sections += [("healthcheck", node) for node in (find(node, "healthcheck") for node in nodes) if node]
        for kind, node in sections:
            for key in node.items if isinstance(node, Mapping) else ():
                near = difflib.get_close_matches(key, KEYS[kind] - set(node.items), n=1, cutoff=0.8)
                if near and key not in KEYS[kind] and not key.startswith("x-"):
                    at = node.keys[key]
                    yield Hit(at, f"Compose knows no {key} here", (Edit(at.file, at.start, at.end, near[0]),), f"write {near[0]}")


@rules(
    "KIT012",
    WARNING,
    "an override beside compose.yaml that COMPOSE_FILE leaves out",
    why="where COMPOSE_FILE is set, Compose reads the files that it names and no other (Compose documentation, COMPOSE_FILE)",
    mend="add it to COMPOSE_FILE, behind compose.yaml",
)
def override_left_out(project: Project) -> Iterator[Hit]:
    named = project.environment.get("COMPOSE_FILE")
    if not named or not named.value or not project.compose or not project.compose.files:
        return
    read = {file.resolve() for file in project.compose.files}
    by_itself = [(project.folder / name).resolve() for name in read_by_compose(project.folder, None)]
    if by_itself and by_itself[0] in read:
        for left in set(by_itself[1:]) - read:
            yield Hit(named.place or Place(left, 1), f"{left.name} is not read")


def _short(project: Project, path: Path) -> str:
    try:
        return str(path.relative_to(project.folder))
    except ValueError:
        return str(path)
