"""A private engine of each flavour, with stubs under the official names of the images."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from base_image import make_base_image
from engine import FLAVOURS, Engine, EngineUnavailable, private_engine
from project import CUT_OFF, GPUS, OVERRIDE, PREVIEW_IMAGES, Project, tag_stubs
from support import Workspace, make_workspace, skip
from witness import Sealed, sealed_engine

BUILD_SECONDS = 900.0


@pytest.fixture(scope="session", params=FLAVOURS)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    try:
        context = private_engine(request.param)
        running = context.__enter__()
    except EngineUnavailable as error:
        skip(str(error))
    try:
        tag_stubs(running)
        yield running
    finally:
        context.__exit__(None, None, None)


@pytest.fixture(scope="session")
def preview_base(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base image of the preview's images, which are in `engine` when a test gets this.

    Built once in a test run: the engine of another worker loads what the first one has saved.
    """
    base = make_base_image(engine)
    alone = tmp_path_factory.getbasetemp()
    shared = alone.parent if (worker := os.environ.get("PYTEST_XDIST_WORKER")) else alone
    archive = shared / "preview-images.tar"
    with (shared / "preview-images.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if found := archive.exists():
            engine.docker("load", "--input", str(archive), timeout=BUILD_SECONDS)
        else:
            project = Project(engine, "compose.preview.yaml", settings={"PREVIEW_BASE_IMAGE": base})
            project.ask("build", timeout=BUILD_SECONDS)
            if worker:
                engine.docker("save", "--output", f"{archive}.partial", *PREVIEW_IMAGES.values(), timeout=BUILD_SECONDS)
                Path(f"{archive}.partial").rename(archive)
    yield base
    if not found:
        archive.unlink(missing_ok=True)


@pytest.fixture(scope="session")
def files(engine: Engine) -> tuple[str, ...]:
    """compose.yaml unchanged; an engine older than 25 needs the override beside it."""
    return ("compose.yaml",) if int(engine.version.split(".")[0]) >= 25 else ("compose.yaml", OVERRIDE)


@pytest.fixture(scope="session")
def stack(engine: Engine, files: tuple[str, ...]) -> Iterator[Project]:
    """Both services, up and healthy; the VLM cut off from the outside, as for images with the model inside."""
    project = Project(engine, *files, settings=GPUS | CUT_OFF)
    project.ask("up", "--detach", "--wait", "--wait-timeout", "90", "--pull", "never", timeout=120)
    yield project
    project.ask("down", "--volumes")


@pytest.fixture
def space(engine: Engine, tmp_path: Path) -> Iterator[Workspace]:
    """A clone whose ./kit reaches the private engine; everything of it is taken down afterwards."""
    (tmp_path / "clone").mkdir()
    space = make_workspace(tmp_path / "clone")
    space.environment |= engine.environment | {"API_PORT": "8085", "COMPOSE_PROJECT_NAME": "kit-up"} | GPUS
    yield space
    engine.call_inside([str(space.path / "kit"), "down"], env=space.environment, cwd=space.path)
    assert engine.docker("ps", "--all", "--quiet", "--filter", "label=com.docker.compose.project=kit-up") == ""
    assert engine.docker("network", "ls", "--quiet", "--filter", "label=com.docker.compose.project=kit-up") == ""


@pytest.fixture
def target(request: pytest.FixtureRequest) -> Iterator[Sealed]:
    """A machine without network. Parametrized with a flavour and options of engine.Options."""
    flavour, options = request.param
    try:
        context = sealed_engine(flavour, **options)
        sealed = context.__enter__()
    except EngineUnavailable as error:
        skip(str(error))
    try:
        assert sealed.engine.docker("images", "--quiet", "--all") == ""
        yield sealed
    finally:
        context.__exit__(None, None, None)
