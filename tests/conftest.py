"""Fixtures shared by all tests."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from kit import envs
from kit.preview.install import HERE, Installation
from support import FAULT, ROOT, Running, Workspace, make_encrypted_pdf, make_workspace
from xdist.scheduler import LoadScopeScheduling

# What shares engines, or a preview, is one worker's. Three workers start with the first three of these folders; the third is
# the shortest by far, so that worker takes the fourth as well. All end at about the same time, with what goes file by file.
WHOLE = ("tests/stack", "tests/docker/preview", "tests/docker/tiny_vlm", "tests/docker")
# Of real processes, but none that are shared: fake APIs, a stub of the service, the viewer in a browser.
APART = tuple(f"tests/stack/test_{name}" for name in ("gateway_", "viewer", "parse_at_scale"))
SHARING = tuple(f"tests/stack/test_{name}.py" for name in ("gateway_contract", "gateway_local", "viewer_served"))


def whole(nodeid: str) -> str | None:
    """The innermost of those folders that holds the test; None for what may go file by file."""
    if nodeid.startswith(APART) and not nodeid.startswith(SHARING):
        return None
    return max((name for name in WHOLE if nodeid.startswith(f"{name}/")), key=len, default=None)


class ByFolder(LoadScopeScheduling):
    """Hands a worker one folder of WHOLE, or one file, after another."""

    def _split_scope(self, nodeid: str) -> str:
        return whole(nodeid) or nodeid.partition("::")[0]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: place for place, name in enumerate(WHOLE)}
    items.sort(key=lambda item: order.get(whole(item.nodeid) or "", len(WHOLE)))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFolder:
    return ByFolder(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = terminalreporter.getreports("passed")
    faults = [value for report in reports for name, value in report.user_properties if name == FAULT]
    if faults:
        terminalreporter.section("fault matrix: seconds to the next good page, and what the client saw until then")
        for name, seen, seconds in faults:
            terminalreporter.line(f"{seconds:6.1f} s  {name}  →  {seen}")


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    """A clone of its own for a test that changes state; stopped afterwards."""
    (tmp_path / "clone").mkdir()
    space = make_workspace(tmp_path / "clone")
    yield space
    space.kit("down")


@pytest.fixture(scope="session")
def preview(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The CPU preview, started once by the documented command; installs it when it is not there."""
    space = make_workspace(tmp_path_factory.mktemp("preview") / "")
    start = time.monotonic()
    first = space.kit("up", "--local", timeout=1800)
    seconds = time.monotonic() - start
    try:
        assert first.returncode == 0, first.stderr
        vlm_url = f"http://127.0.0.1:{space.environment['PREVIEW_VLM_PORT']}"
        yield Running(space, space.url, vlm_url, first, seconds)
    finally:
        space.kit("down")


@pytest.fixture(scope="session")
def preview_install(preview: Running) -> Installation:
    """Where the preview's parts lie; they are installed when a test gets this."""
    return Installation(ROOT)


@pytest.fixture(scope="session")
def api_python(request: pytest.FixtureRequest) -> Path:
    """The interpreter of the API's environment, which has what the official API image has; installed when it is not there."""
    installation = Installation(ROOT)
    if not envs.is_current(installation.api_venv, HERE / "requirements-api.txt"):
        installation = request.getfixturevalue("preview_install")
    return installation.api_python


@pytest.fixture(scope="session")
def http(preview: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=preview.url, timeout=180, trust_env=False) as client:
        yield client


@pytest.fixture(scope="session")
def encrypted_pdf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A one-page PDF that opens only with the password `secret` (RC4, 40 bit, as old scanners write it)."""
    path = tmp_path_factory.mktemp("encrypted") / "secret.pdf"
    path.write_bytes(make_encrypted_pdf(b"secret"))
    return path
