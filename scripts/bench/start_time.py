"""From `up` to the first good page: the kit against upstream's published layout, with the very same images.

    .kit/test-venv/bin/python scripts/bench/start_time.py [--engine current|debian] [--rounds N]

Runs as root on a private engine of the tests' own (tests/docker/engine.py install), with the CPU preview's images: the real
PaddleX API and the stand-in VLM server. Each round measures, in seconds to the first page that was read:

own       the services' own start: the VLM until its /health answers, then the API until it reads a page; asked every 0.1 s
kit       compose.yaml, as ./kit up starts it and waits for it
upstream  upstream's order and health checks (upstream_layout.yaml), `docker compose up --detach`, then asked every 0.1 s

The overhead is what a layout takes beyond `own`. Medians of all rounds are printed.
"""

from __future__ import annotations

import argparse
import base64
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests"), str(ROOT / "tests" / "docker")]

from base_image import make_base_image  # noqa: E402
from engine import FLAVOURS, Engine, private_engine  # noqa: E402
from kit.stack import API, VLM  # noqa: E402
from project import Project  # noqa: E402
from support import SAMPLES, Workspace, make_workspace  # noqa: E402

IMAGES = {API: "paddleocr-vl-kit/preview-api:local", VLM: "paddleocr-vl-kit/preview-vlm:local"}
URL = "http://127.0.0.1:8080"
GIVE_UP = 300.0
PAGE = {"file": base64.b64encode((SAMPLES / "invoice.png").read_bytes()).decode(), "fileType": 1}
# What ./kit up does on a machine with a GPU, and no more.
KIT_UP = """
import os
from kit import paths
from kit.catalog.settings import Settings
from kit.stack import start
from kit.stack.compose import ComposeStack
start.bring_up(ComposeStack(paths.ROOT, Settings(paths.ROOT, os.environ)), paths.SAMPLE, 300)
"""


def until(answers: Callable[[], bool]) -> None:
    end = time.monotonic() + GIVE_UP
    while not answers():
        if time.monotonic() > end:
            raise SystemExit("error: no answer within 300 s")
        time.sleep(0.1)


def reads_a_page(engine: Engine, url: str) -> bool:
    status, body = engine.get(f"{url}/layout-parsing", PAGE, timeout=120)
    return status == 200 and "Invoice 2026-0117" in json.loads(body)["result"]["layoutParsingResults"][0]["markdown"]["text"]


def own(engine: Engine) -> float:
    """The services one after the other, with nothing around them."""
    engine.docker("network", "create", "own")
    try:
        began = time.monotonic()
        _run(engine, VLM)
        until(lambda: engine.get(f"http://{_address(engine, VLM)}:8118/health")[0] == 200)
        _run(engine, API)
        until(lambda: engine.get(f"http://{_address(engine, API)}:8080/health")[0] == 200)
        until(lambda: reads_a_page(engine, f"http://{_address(engine, API)}:8080"))
        return time.monotonic() - began
    finally:
        engine.docker("rm", "--force", *IMAGES, check=False)
        engine.docker("network", "rm", "own")


def _run(engine: Engine, service: str) -> None:
    engine.docker("run", "--detach", "--name", service, "--network", "own", IMAGES[service])


def _address(engine: Engine, service: str) -> str:
    return engine.inspect(service)["NetworkSettings"]["Networks"]["own"]["IPAddress"]


def kit(engine: Engine, space: Workspace) -> float:
    python = str(space.path / ".kit" / "venv" / "bin" / "python")
    began = time.monotonic()
    done = engine.call_inside([python, "-c", KIT_UP], env=space.environment, cwd=space.path, timeout=GIVE_UP + 30)
    seconds = time.monotonic() - began
    if done.returncode:
        raise SystemExit(done.stderr)
    engine.call_inside([str(space.path / "kit"), "down"], env=space.environment, cwd=space.path)
    return seconds


def upstream(engine: Engine) -> float:
    names = engine.environment | {"API_IMAGE": IMAGES[API], "VLM_IMAGE": IMAGES[VLM]}
    argv = ["docker", "compose", "--file", str(ROOT / "scripts" / "bench" / "upstream_layout.yaml")]
    began = time.monotonic()
    done = engine.call([*argv, "up", "--detach"], env=names, timeout=GIVE_UP)
    if done.returncode:
        raise SystemExit(done.stderr)
    until(lambda: engine.get(f"{URL}/health")[0] == 200)
    until(lambda: reads_a_page(engine, URL))
    seconds = time.monotonic() - began
    engine.call([*argv, "down"], env=names)
    return seconds


def prepare(engine: Engine, folder: Path) -> Workspace:
    """A clone whose compose.yaml runs the preview's images."""
    base = make_base_image(engine)
    Project(engine, "compose.preview.yaml", settings={"PREVIEW_BASE_IMAGE": base}).ask("build", timeout=900)
    config = folder / "pipeline_config.yaml"
    config.write_text(engine.docker("run", "--rm", "--network", "none", IMAGES[API], "cat", "/opt/kit/pipeline_config.yaml"))
    (folder / "clone").mkdir()
    space = make_workspace(folder / "clone")
    # The stand-in has a command of its own: the image's.
    command = json.loads(engine.docker("image", "inspect", "--format", "{{json .Config.Cmd}}", IMAGES[VLM]))
    services = {API: {"image": IMAGES[API]}, VLM: {"image": IMAGES[VLM], "command": command}}
    (space.path / "compose.override.yaml").write_text(json.dumps({"services": services}))  # JSON is YAML
    space.environment |= engine.environment | {
        "API_PORT": "8080",
        "PIPELINE_CONFIG": str(config),
        "PYTHONPATH": str(space.path / "scripts"),
    }
    return space


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", choices=FLAVOURS, default="current", help="Debian's own, or one of 25 or newer (current)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    options = parser.parse_args()
    with private_engine(options.engine) as engine, tempfile.TemporaryDirectory() as folder:
        space = prepare(engine, Path(folder))
        own(engine)  # once for the page cache
        ways = {"own": lambda: own(engine), "kit": lambda: kit(engine, space), "upstream": lambda: upstream(engine)}
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.rounds):
            for name, measure in ways.items():
                seconds[name].append(measure())
        print(f"Docker {engine.version}, {options.rounds} rounds, seconds to the first good page")
        median = {name: statistics.median(values) for name, values in seconds.items()}
        for name, values in seconds.items():
            overhead = median[name] - median["own"]
            every = " ".join(f"{value:.1f}" for value in values)
            print(f"{name:9} {median[name]:6.1f}   overhead {overhead:5.1f}   ({every})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
