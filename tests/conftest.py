"""Fixtures shared by all tests."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from kit.preview.install import Installation
from support import FAULT, ROOT, Running, Workspace, make_encrypted_pdf, make_workspace
from xdist.scheduler import LoadScopeScheduling


class ByFolder(LoadScopeScheduling):
    """With several workers: what shares engines, or a preview, is one worker's; unit tests go file by file."""

    def _split_scope(self, nodeid: str) -> str:
        folder = next((name for name in ("tests/docker", "tests/stack") if nodeid.startswith(f"{name}/")), None)
        return folder or nodeid.partition("::")[0]


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
def http(preview: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=preview.url, timeout=180, trust_env=False) as client:
        yield client


@pytest.fixture(scope="session")
def encrypted_pdf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A one-page PDF that opens only with the password `secret` (RC4, 40 bit, as old scanners write it)."""
    path = tmp_path_factory.mktemp("encrypted") / "secret.pdf"
    path.write_bytes(make_encrypted_pdf(b"secret"))
    return path
