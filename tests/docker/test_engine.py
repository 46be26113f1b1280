"""The harness itself: however a test run ends, nothing of its engine stays on the machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import isolation
import pytest
from base_image import make_tiny_image
from debian import EngineUnavailable, Flavour, require
from engine import FLAVOURS, leftovers, private_engine
from support import heed_ctrl_c, skip

HERE = Path(__file__).resolve().parent
HOLDER = """
from base_image import make_tiny_image
from engine import private_engine
import time
with private_engine("current") as engine:
    name = make_tiny_image(engine)
    engine.docker("run", "--detach", "--restart", "always", "--publish", "8080:8080", name, "sleep", "3600")
    print(engine.tag, flush=True)
    time.sleep(3600)
"""


@pytest.fixture(autouse=True)
def machine() -> None:
    try:
        require(FLAVOURS["current"])
    except EngineUnavailable as error:
        skip(str(error))


def test_what_cannot_be_had_is_said_with_the_way_out() -> None:
    with pytest.raises(EngineUnavailable, match=r"engine\.py install"):
        require(Flavour("never-unpacked", None, ()))


def test_nothing_stays_after_a_failure_inside() -> None:
    with pytest.raises(ZeroDivisionError), private_engine("current") as engine:
        tag = engine.tag
        engine.docker("run", "--detach", make_tiny_image(engine), "sleep", "3600")
        assert len(leftovers(tag)) > 5
        raise ZeroDivisionError
    assert leftovers(tag) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_nothing_stays_after_a_signal(number: signal.Signals) -> None:
    holder, tag = _holder()
    assert leftovers(tag)
    holder.send_signal(number)
    holder.wait(60)
    assert leftovers(tag) == []


def test_what_a_killed_run_left_is_removed_by_the_next() -> None:
    holder, tag = _holder()
    holder.kill()
    holder.wait()
    assert leftovers(tag)
    assert tag in isolation.remove_orphans()
    assert leftovers(tag) == []


@pytest.mark.parametrize("first", [0, 1])
def test_the_machines_own_state_is_restored_by_the_last_of_overlapping_engines(
    first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, stray = tmp_path / "ip_forward", tmp_path / "stray"
    forward.write_text("0\n")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(isolation, "FORWARD", forward)
    monkeypatch.setattr(isolation, "STRAYS", (str(stray),))
    tags = [isolation.claim()]
    forward.write_text("1\n")
    stray.touch()
    tags.append(isolation.claim())
    isolation.remove(tags[first])
    assert (forward.read_text(), stray.exists()) == ("1\n", True)
    isolation.work_folder(tags[first]).mkdir()  # as while its images are still being deleted
    isolation.remove(tags[1 - first])
    assert (forward.read_text(), stray.exists()) == ("0\n", False)


def test_an_engine_in_use_is_no_orphan() -> None:
    tag = isolation.claim()
    try:
        assert tag not in isolation.remove_orphans()
        assert leftovers(tag) == [f"folder {isolation.work_folder(tag)}"]
    finally:
        isolation.remove(tag)


def test_engines_that_start_at_once_have_networks_of_their_own() -> None:
    tags = [isolation.claim() for _ in range(6)]
    try:
        with ThreadPoolExecutor(len(tags)) as at_once:
            list(at_once.map(isolation.make_network, tags))
        show = ("ip", "-4", "-o", "addr", "show", "dev")
        addresses = [subprocess.run([*show, isolation.namespace(tag)], capture_output=True, text=True).stdout for tag in tags]
        assert len({address.split()[3] for address in addresses}) == len(tags), addresses
    finally:
        for tag in tags:
            isolation.remove(tag)


def _holder() -> tuple[subprocess.Popen[str], str]:
    """Another process that holds an engine with a running container, and the engine's tag."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER],
        cwd=HERE,
        env=os.environ | {"PYTHONPATH": str(HERE)},
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=heed_ctrl_c,
    )
    assert holder.stdout
    tag = holder.stdout.readline().strip()
    assert tag, "the engine did not start"
    time.sleep(0.2)
    return holder, tag
