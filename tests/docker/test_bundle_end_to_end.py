"""The GPU stack, with stubs: exported on one engine, carried to another that has no way out, verified, loaded, started.

The second machine is a private engine with an empty data folder in a network of its own. ways_out() proves that nothing
leads out of it; strace watches every process of ./kit, and a recording proxy what the engine itself would ask.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from bundles import parts, read_manifest
from engine import Engine
from kit.stack import SERVICES, VLM
from project import GPUS
from support import Workspace, make_workspace
from test_kit_up import GPU_UP
from witness import Sealed, Traced, ways_out

PROJECT = "carried"
PORT = "8087"
NOBODY = "http://127.0.0.1:9"  # the discard port: refused at once


def bare_environment(sealed: Sealed, folder: Path) -> dict[str, str]:
    """Of a user who has just logged in there: no cache, no index, none of this machine's settings for pip or Python."""
    home = folder / "home"
    home.mkdir()
    kept = {name: sealed.engine.environment[name] for name in ("PATH", "DOCKER_HOST", "DOCKER_CONFIG")}
    index = {"PIP_INDEX_URL": f"{NOBODY}/simple", "PIP_EXTRA_INDEX_URL": "", "PIP_RETRIES": "0"}
    return kept | index | GPUS | {"HOME": str(home), "API_PORT": PORT, "COMPOSE_PROJECT_NAME": PROJECT}


def went_well(step: Traced, sealed: Sealed) -> str:
    """What it printed. Raises AssertionError when it failed, or when it or the engine tried to reach anybody."""
    assert step.done.returncode == 0, step.done.stderr
    assert step.peers == []
    assert sealed.asked() == []
    return step.done.stdout + step.done.stderr


def ids(engine: Engine, references: list[str]) -> list[str]:
    return [engine.docker("image", "inspect", "--format", "{{.Id}}", reference).strip() for reference in references]


def layers(engine: Engine, references: list[str]) -> list[str]:
    """Of each image, and its configuration: what every kind of store keeps as it is."""
    return [
        engine.docker("image", "inspect", "--format", "{{json .RootFS.Layers}} {{json .Config.Cmd}}", name) for name in references
    ]


@pytest.mark.parametrize(
    ("engine", "target"),
    [("debian", ("current", {})), ("current", ("debian", {})), ("current", ("current", {"containerd_store": True}))],
    indirect=True,
    ids=["old-to-new", "new-to-old", "to-containerd-store"],
)
def test_the_gpu_stack_is_carried_and_comes_up_from_the_loaded_images(engine: Engine, target: Sealed, tmp_path: Path) -> None:
    """Stubs under the official names, which no registry could give: a pull would fail, and be recorded."""
    here = workspace(tmp_path / "here", engine.environment)
    bundle = tmp_path / "bundle"
    exported = here.kit("export", bundle, "--no-kit", "--part-size", "8MiB")
    assert exported.returncode == 0, exported.stderr
    manifest = read_manifest(bundle)
    references = [image["reference"] for image in manifest["images"]]
    assert len(references) == 2 and len(parts(bundle)) > 2

    there = workspace(tmp_path / "there", {})
    there.environment = bare_environment(target, tmp_path) | {"PYTHONPATH": str(there.path / "scripts")}

    def run(*words: str | Path, log: str) -> str:
        step = target.run(*words, log=tmp_path / log, environment=there.environment, cwd=there.path)
        return went_well(step, target)

    run(there.path / "kit", "verify", bundle, log="verify")
    assert "./kit up" in run(there.path / "kit", "load", bundle, log="load")
    assert layers(target.engine, references) == layers(engine, references)
    if not target.engine.options.containerd_store:  # it has ids of its own
        assert ids(target.engine, references) == ids(engine, references) == [image["config"] for image in manifest["images"]]
    else:  # it tells the layers of an archive last: an export from it, based on what it was loaded from
        exported = there.kit("export", tmp_path / "second", "--no-kit", "--base", bundle)
        assert exported.returncode == 0, exported.stderr
        second = read_manifest(tmp_path / "second")
        assert [image["layers"] for image in second["images"]] == [image["layers"] for image in manifest["images"]]
        assert [frame for frame in second["frames"] if frame["kind"] == "layer"] == []
    assert ways_out(target.engine, references[0]) == []

    python = there.path / ".kit" / "venv" / "bin" / "python"
    try:
        assert "A stub's answer" in run(python, "-c", GPU_UP, log="up")
        for service in SERVICES:
            container = target.engine.inspect(f"{PROJECT}-{service}-1")
            assert container["Config"]["Image"] in references
            assert target.engine.gpus_of(container["Id"]) == GPUS["VLM_GPU" if service == VLM else "API_GPU"]
    finally:
        target.run(there.path / "kit", "down", log=tmp_path / "down", environment=there.environment, cwd=there.path)
    again = run(there.path / "kit", "load", bundle, log="again")
    assert "already" in again


def workspace(path: Path, environment: dict[str, str]) -> Workspace:
    path.mkdir()
    space = make_workspace(path)
    space.environment = {**{k: v for k, v in os.environ.items() if k != "PYTHONPATH"}, **environment}
    return space
