"""A private engine of each flavour, with stubs under the official names of the images."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from base_image import make_base_image
from engine import FLAVOURS, Engine, EngineUnavailable, private_engine
from project import CUT_OFF, GPUS, OVERRIDE, Project, tag_stubs
from support import skip

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


@pytest.fixture(scope="session")
def preview_base(engine: Engine) -> str:
    """The base image of the preview's images, which are built on it when a test gets this."""
    base = make_base_image(engine)
    Project(engine, "compose.preview.yaml", settings={"PREVIEW_BASE_IMAGE": base}).ask("build", timeout=BUILD_SECONDS)
    return base
