"""Moments of the gateway that no client can bring about at will, played with its own classes in the API's environment."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from support import ROOT

LATE = """
import asyncio
from kit.gateway.exchange import Exchange
from kit.gateway.parse import Answer

closed = []

async def work():
    return Answer(iter(()), 0, 0, lambda: closed.append("closed"))

async def main():
    exchange = Exchange("/", "POST", {}, asyncio.Event().wait, "-")
    asking = asyncio.create_task(exchange.unless_left(work()))
    for _ in range(2):  # until the work has ended, and nobody has been told
        await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)

asyncio.run(main())
print(closed)
"""

OUT = """
import asyncio
from types import SimpleNamespace
from kit.gateway.dispatch import Pool
from kit.gateway.join import ReadPage, Reading
from kit.gateway.metrics import Metrics
from kit.gateway.replica import PARSE
from kit.gateway.settings import load

calls = []

class Replica:
    is_up, busy, last_given, last_page = True, 0, 0.0, None

    def __init__(self, name):
        self.name = name

    @property
    def has_room(self):
        return self.is_up and not self.busy

    def occupy(self):
        self.busy += 1

    def free(self):
        self.busy -= 1

    def is_sound(self):
        pass

    async def call(self, path, payload, seconds):
        self.free()
        calls.append(self.name)
        return 200, b""

async def main():
    pool = Pool(load(["--replica", "http://x"], {}), SimpleNamespace(is_down=False), Metrics())
    pool.replicas += [Replica("first"), Replica("second")]

    async def make():
        pool.replicas[0].is_up = False  # while the body is made
        return b""

    await pool.run("client", "document", PARSE, 1, make, lambda body, last: Reading((ReadPage("", 1, True),), None))
    assert not any(replica.busy for replica in pool.replicas)

asyncio.run(main())
print(calls)
"""


def inside(python: Path, code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "scripts")}
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_an_answer_that_comes_as_it_is_broken_off_gives_its_room_back(api_python: Path) -> None:
    assert inside(api_python, LATE) == "['closed']"


def test_a_replica_that_went_out_while_the_body_was_made_is_not_called(api_python: Path) -> None:
    assert inside(api_python, OUT) == "['second']"
