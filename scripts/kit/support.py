"""The support bundle: what someone who helps needs to see, in one file, secrets removed.

A .zip, because a person can look into it by a double click on every system before
sending it, and GitHub takes it as an attachment. It is made even where much is broken:
a part that cannot be had says so in its place.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from dotenv import dotenv_values

from kit.catalog.settings import ENV_FILE, Settings
from kit.diagnose import diagnose, unknown_trouble
from kit.errors import ExitCode, KitError
from kit.facts.docker import docker
from kit.facts.gpus import nvidia
from kit.redact import redact, secret_values, secrets_in_tree
from kit.stack import logs
from kit.stack.choose import active

SECONDS = 60.0  # for each program that is asked
README = """\
Support bundle of PaddleOCR-VL Kit, made {when}.

    versions.json         the kit, Docker, Compose, Python, the NVIDIA driver, this system
    services.json         what runs, since when, how often it was restarted
    diagnosis.json        known causes found in the logs
    doctor.json           ./kit doctor --json --offline
    lint.json             ./kit lint --json
    config/compose.yaml   docker compose config: with every variable filled in
    config/...            the files as they are
    logs/...              the last {lines} lines of each service that runs or has died
    logs/before/...       what an earlier run has left in .kit/logs

Removed: values of names with key, token, secret, password and the like, wherever they
stand; passwords in addresses; Authorization headers; tokens of known form; documents in
base64. What remains are names of files, folders, machines and models, and your settings.
Look through it before you send it.
"""


@dataclass(frozen=True)
class Bundle:
    """A file that was written. size: bytes. names: of what is in it."""

    path: Path
    size: int
    names: tuple[str, ...]


def write(settings: Settings, path: Path | None = None) -> Bundle:
    """Gather everything and write it to `path`, or into .kit/support.

    Written aside, then renamed. Raises KitError: INPUT when `path` cannot be written.
    """
    if path is None:
        path = settings.root / ".kit" / "support" / f"kit-support-{time.strftime('%Y%m%d-%H%M%S')}.zip"
        path.parent.mkdir(parents=True, exist_ok=True)
    elif path.is_dir():
        path = path / f"kit-support-{time.strftime('%Y%m%d-%H%M%S')}.zip"
    aside = path.with_name(f".{path.name}.partial")
    try:
        aside.touch()  # says at once what would be said after a minute's gathering
        files = pack(gather(settings), secrets_here(settings))
        with zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in files.items():
                archive.writestr(name, text)
        size = aside.stat().st_size
        aside.replace(path)
    except OSError as error:
        raise KitError(f"cannot write {path}: {error.strerror}", "--bundle PATH names another place", ExitCode.INPUT) from None
    finally:
        aside.unlink(missing_ok=True)
    return Bundle(path, size, tuple(files))


def pack(parts: Mapping[str, str], secrets: set[str]) -> dict[str, str]:
    """The parts with every secret taken out of names and texts, the table of contents first. Pure."""
    texts = {redact(name, secrets): redact(text, secrets) for name, text in parts.items()}
    return {"README.txt": README.format(when=time.strftime("%Y-%m-%d %H:%M:%S %z"), lines=logs.LINES)} | texts


def secrets_here(settings: Settings) -> set[str]:
    """Every secret that can be known by its value: of the environment, .env and all YAML files of the project."""
    found = secret_values(dict(os.environ))
    env_file = settings.root / ENV_FILE
    if env_file.exists():
        found |= secret_values({name: value or "" for name, value in dotenv_values(env_file).items()})
    for text in _config_files(settings).values():
        try:
            found |= secrets_in_tree(yaml.safe_load(text))
        except yaml.YAMLError:
            continue  # the shape of what it holds still gives it away
    return found


def gather(settings: Settings) -> dict[str, str]:
    """Every part, not yet safe to show. What fails becomes the text of its part."""
    stack = _try(lambda: active(settings), None)
    now = {name: stack.tail(name, logs.LINES) for name in stack.services} if stack else {}
    left = {name: lines for name, lines in _try(lambda: logs.left_behind(settings), {}).items() if lines != now.get(name)}
    resolved = _try(lambda: _compose_config(settings), "")
    parts = {
        "versions.json": _json(lambda: versions(settings.root)),
        "services.json": _json(lambda: _services(settings)),
        "diagnosis.json": _json(lambda: _diagnosis(logs.of_services(settings))),
        "doctor.json": _kit(settings, "doctor", "--json", "--offline"),
        "lint.json": _kit(settings, "lint", "--json"),
        **({"config/compose.yaml": resolved} if resolved else {}),
        **{f"config/{name}": text for name, text in _config_files(settings).items() if not (resolved and name == "compose.yaml")},
        **{f"logs/{name}.log": "\n".join(lines) for name, lines in now.items()},
        **{f"logs/before/{name}.log": "\n".join(lines) for name, lines in left.items() if lines},
    }
    return {name: text if text.endswith("\n") else text + "\n" for name, text in parts.items()}


def versions(root: Path) -> dict[str, Any]:
    """Of everything that has one; None where it is not there."""
    engine, cards = docker(), nvidia()
    return {
        "kit": _ask(["git", "-C", str(root), "describe", "--always", "--dirty"]) or None,
        "docker": engine.engine,
        "compose": engine.compose,
        "docker_problem": engine.problem or None,
        "nvidia_driver": getattr(cards, "driver", None),
        "gpus": [gpu.name for gpu in cards.gpus],
        "python": sys.version.split()[0],
        "system": platform.platform(),
    }


def _services(settings: Settings) -> dict[str, Any]:
    stack = active(settings)
    return {
        "stack": stack.label if stack else None,
        "services": [asdict(service) for service in stack.ps()] if stack else [],
        "images": [asdict(image) for image in stack.images()] if stack else [],
    }


def _diagnosis(service_logs: Mapping[str, list[str]]) -> dict[str, Any]:
    found = diagnose(service_logs)
    unknown = None if found else unknown_trouble(service_logs)
    return {
        "findings": [
            {"name": finding.failure.name, "cause": finding.failure.cause, "log": finding.log, "line": finding.line}
            for finding in found
        ],
        "unknown": asdict(unknown) if unknown else None,
    }


def _config_files(settings: Settings) -> dict[str, str]:
    """Name → text of the Compose files, .env and both config files; those that can be read."""
    root = settings.root
    paths = [*sorted(root.glob("compose*.y*ml")), *sorted(root.glob("docker-compose*.y*ml")), root / ENV_FILE]
    paths += [settings.path(name) for name in ("PIPELINE_CONFIG", "VLM_CONFIG")]
    texts = {}
    for path in paths:
        try:
            texts[path.name] = path.read_text(errors="replace")
        except OSError:
            continue
    return texts


def _compose_config(settings: Settings) -> str:
    """`docker compose config` needs no engine, only the plugin."""
    return _ask(["docker", "compose", "--project-directory", str(settings.root), "config"])


def _kit(settings: Settings, *words: str) -> str:
    """What another verb prints, in a process of its own: what breaks there must not break the bundle."""
    try:
        done = subprocess.run(
            [settings.root / "kit", *words], capture_output=True, text=True, errors="replace", timeout=SECONDS,
            stdin=subprocess.DEVNULL, cwd=settings.root,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return json.dumps({"problem": str(error)})
    return done.stdout if done.stdout.strip() else json.dumps({"problem": done.stderr.strip()[-2000:]})


def _ask(argv: list[str]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=SECONDS, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _json(make: Callable[[], Any]) -> str:
    try:
        return json.dumps(make(), indent=1, default=str)
    except Exception as error:  # a bundle is asked for where things are broken
        return json.dumps({"problem": f"{type(error).__name__}: {error}"})


def _try(make: Callable[[], Any], otherwise: Any) -> Any:
    try:
        return make()
    except Exception:
        return otherwise
