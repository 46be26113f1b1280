"""Fixtures of tests with real processes: the browser, and the viewer in it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from kit.testing import chromium
from playwright.sync_api import Browser, BrowserContext, sync_playwright
from support import skip
from viewer_stack import Service, Watched, opened, profile, served


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real Chromium without a screen.

    One for a module, not for all: while playwright runs, no other test in this process could use asyncio.
    """
    program = chromium()
    if program is None:
        skip("needs Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        # root has no sandbox of Chromium's; a container has a small /dev/shm.
        arguments = ["--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
        started = playwright.chromium.launch(executable_path=program, args=arguments)
        yield started
        started.close()


@pytest.fixture(scope="module")
def stand() -> Iterator[tuple[Service, str]]:
    with served() as pair:
        yield pair


@pytest.fixture
def service(stand: tuple[Service, str]) -> Iterator[tuple[Service, str]]:
    """A service whose replies the test sets, and the viewer's address in front of it."""
    yield stand
    stand[0].forget()


@pytest.fixture(scope="module")
def user(browser: Browser) -> Iterator[BrowserContext]:
    with profile(browser, permissions=["clipboard-read", "clipboard-write"]) as context:
        yield context


@pytest.fixture
def seen(user: BrowserContext, service: tuple[Service, str]) -> Iterator[Watched]:
    """The viewer, opened."""
    with opened(user, service[1]) as found:
        yield found
