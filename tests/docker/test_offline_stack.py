"""compose.offline.yaml and compose.models.yaml on a real engine; the images are stubs of the official names."""

from __future__ import annotations

import json
import re
import shutil
import struct
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from bundles import copy, flip, parts, read_manifest, sha256
from engine import Engine
from kit.bundle import models
from kit.catalog.settings import Settings
from kit.errors import ExitCode, KitError
from kit.stack import API, VLM, files
from kit.stack.compose import ComposeStack
from project import GPUS, ROOT, Project
from support import Workspace, check_error

STARTED = ("up", "--detach", "--no-deps")  # nobody waits for a VLM here

MakeProject = Callable[..., Project]
MakeStack = Callable[[str], ComposeStack]


@pytest.fixture
def project(engine: Engine, files: tuple[str, ...]) -> Iterator[MakeProject]:
    """Compose files on top of compose.yaml, in a project of their own, of which nothing stays."""
    made: list[Project] = []

    def make(name: str, *more: str, **settings: str) -> Project:
        made.append(Project(engine, *files, *more, settings=GPUS | {"COMPOSE_PROJECT_NAME": name, "API_PORT": "8086"} | settings))
        return made[-1]

    yield make
    for one in made:
        one.ask("down", "--volumes", "--timeout", "1", timeout=60)


# --- compose.offline.yaml


def test_a_missing_image_is_an_error_and_no_registry_is_asked(project: MakeProject) -> None:
    registry = {"IMAGE_REGISTRY": "registry.invalid/paddlepaddle"}
    done = project("missing", files.OFFLINE, **registry).run("create")
    assert done.returncode != 0
    assert "No such image: registry.invalid/paddlepaddle/" in done.stderr
    assert "Pulling" not in done.stderr and "lookup" not in done.stderr
    asked = project("asked", **registry).run("create")
    assert asked.returncode != 0 and "lookup registry.invalid" in asked.stderr, "as it is without the overlay"


def test_both_services_are_told_that_there_is_no_network_and_the_vlm_has_none(project: MakeProject, engine: Engine) -> None:
    offline = project("offline", files.OFFLINE)
    offline.ask(*STARTED, VLM, API)
    told = {name: dict(line.split("=", 1) for line in offline.execute(name, "env").stdout.splitlines()) for name in (API, VLM)}
    for name in (API, VLM):
        assert (told[name]["PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK"], told[name]["HF_HUB_OFFLINE"]) == ("True", "1")
        assert VLM in told[name]["NO_PROXY"], "what compose.yaml says still holds"
    assert told[API]["PADDLE_PDX_LOCAL_FONT_FILE_PATH"].startswith("/usr/share/fonts/")
    assert (told[VLM]["VLLM_NO_USAGE_STATS"], told[VLM]["DO_NOT_TRACK"]) == ("1", "1")

    outside = engine.call_inside(["ip", "-4", "route", "show", "default"]).stdout.split()[2]
    server = ThreadingHTTPServer((outside, 0), BaseHTTPRequestHandler)  # answers 501, which is an answer
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        ask = f"curl -sS --noproxy '*' -o /dev/null -w '%{{http_code}}' http://{outside}:{server.server_port}/ --max-time"
        assert offline.execute(API, f"{ask} 10").stdout == "501", "its published port needs such a network"
        assert offline.execute(VLM, f"{ask} 1").stdout == "000"
    finally:
        server.shutdown()
        server.server_close()


# --- compose.models.yaml


def test_what_a_service_downloads_outlives_its_container_and_both_see_it(project: MakeProject) -> None:
    kept = project("kept", files.MODELS)
    kept.ask(*STARTED, VLM)
    wrote = kept.execute(VLM, "mkdir -p ~/.paddlex/official_models/m && echo weights > ~/.paddlex/official_models/m/w && id -u")
    assert wrote.stdout == "1000\n", wrote.stderr
    kept.ask("down")
    kept.ask(*STARTED, API)
    look = "cat ~/.paddlex/official_models/m/w; stat -c %u:%g ~ ~/.paddlex/official_models/m/w; touch ~/.paddlex/mine && echo may"
    seen = kept.execute(API, f"{look}; head -c 7 /home/paddleocr/pipeline_config.yaml")
    config = (ROOT / "pipeline_config_vllm.yaml").read_text()[:7]
    assert seen.stdout == f"weights\n1000:1000\n1000:1000\nmay\n{config}", seen.stderr


def test_a_volume_on_a_folder_that_the_image_lacks_is_roots(engine: Engine, project: MakeProject) -> None:
    """Why compose.models.yaml mounts the home folder, and what KIT116 warns of."""
    image = project("roots").config()["services"][API]["image"]
    for target, writable in (("/home/paddleocr", True), ("/home/paddleocr/.paddlex", False)):
        words = ("run", "--rm", "--network", "none", "--volume", target, "--entrypoint", "touch", image, f"{target}/x")
        done = engine.call(["docker", *words])
        assert (done.returncode == 0) is writable, done.stderr
        assert writable or "Permission denied" in done.stderr


# --- models out of the volume and into it


@pytest.fixture
def stack(engine: Engine, project: MakeProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeStack:
    """./kit's stack in a clone of its own, on the private engine."""
    for name in ("DOCKER_HOST", "DOCKER_CONFIG", "PATH"):
        monkeypatch.setenv(name, engine.environment[name])
    for file in [*ROOT.glob("*.yaml"), ROOT / "healthcheck.sh"]:
        shutil.copy(file, tmp_path)

    def make(name: str) -> ComposeStack:
        project(name, files.MODELS)  # takes the volume away in the end
        monkeypatch.setenv("COMPOSE_PROJECT_NAME", name)
        return ComposeStack(tmp_path, Settings(tmp_path, {}))

    return make


@pytest.fixture
def paddlex(tmp_path: Path) -> Path:
    """Two model folders and a font, with 5 MB of weights."""
    root = tmp_path / "source" / ".paddlex"
    layout, vlm, fonts = root / "official_models/PP-DocLayoutV3", root / "official_models/PaddleOCR-VL", root / "fonts"
    for folder in (layout, vlm, fonts):
        folder.mkdir(parents=True)
    (layout / "inference.yml").write_text("Global: {}\n")
    (layout / "inference.pdiparams").write_bytes(bytes(range(256)) * 20000)
    (vlm / "config.json").write_text("{}")
    header = json.dumps({"t": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]}}).encode()
    (vlm / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"abc")
    (fonts / "PingFang-SC-Regular.ttf").write_bytes(b"font")
    return root


def helpers(engine: Engine) -> str:
    return engine.docker("ps", "--all", "--quiet", "--filter", "name=paddleocr-vl-kit-models")


def test_models_go_from_a_folder_to_a_volume_to_another_volume(
    engine: Engine, stack: MakeStack, project: MakeProject, paddlex: Path
) -> None:
    first = stack("carried-1")
    source = models.sources(paddlex, first)
    data = b"".join(source.chunks())
    models.fill(first, iter([data[:1000], data[1000:]]))
    inside = models.sources(None, first)
    assert inside.folders == source.folders
    second = stack("carried-2")
    models.fill(second, inside.chunks())
    assert b"".join(models.sources(None, second).chunks()) == data

    running = project("carried-2", files.MODELS)
    started = running.run(*STARTED, API)
    assert started.returncode == 0 and "not created by Docker Compose" not in started.stderr, started.stderr
    owners = running.execute(API, "cd ~ && find . -path './.paddlex*' -exec stat -c '%u:%g %a' {} + | sort -u")
    assert owners.stdout.splitlines() == ["1000:1000 644", "1000:1000 755"], owners.stderr
    weights = "~/.paddlex/official_models/PP-DocLayoutV3/inference.pdiparams"
    assert running.execute(API, f"wc -c < {weights} && echo >> {weights}").stdout.strip() == "5120000"
    assert helpers(engine) == ""


@pytest.mark.parametrize("engine", ["current"], indirect=True)
def test_a_bundle_carries_models_into_the_volume_and_a_damaged_one_none(
    engine: Engine, space: Workspace, project: MakeProject, paddlex: Path, tmp_path: Path
) -> None:
    """./kit export --models, ./kit load; the images are there already. Then the same by the README's own line."""
    bundle = tmp_path / "bundle"
    exported = space.kit("export", bundle, "--no-kit", "--models", paddlex, "--part-size", "64MiB")
    assert exported.returncode == 0, exported.stderr
    assert [folder["name"] for folder in read_manifest(bundle)["models"]] == ["PP-DocLayoutV3", "PaddleOCR-VL", "fonts"]
    image = project("kit-up", files.MODELS).config()["services"][API]["image"]  # what space's volume is of

    def sums(volume: str) -> str:
        look = "cd /home/paddleocr && find .paddlex -type f ! -path '*/.incoming*' -exec sha256sum {} + | sort"
        return engine.docker("run", "--rm", "--volume", f"{volume}:/home/paddleocr", "--entrypoint", "sh", image, "-c", look)

    damaged = copy(bundle, tmp_path / "damaged")
    (part,) = parts(damaged, "models")
    flip(part, part.stat().st_size - 20)  # near the end: almost all of it has gone into the volume by then
    project("carried-4", files.MODELS)
    check_error(space.kit("load", damaged, COMPOSE_PROJECT_NAME="carried-4"), ExitCode.INPUT, part.name)
    assert sums("carried-4_models") == ""

    loaded = space.kit("load", bundle, COMPOSE_PROJECT_NAME="carried-4")
    assert loaded.returncode == 0, loaded.stderr
    assert "COMPOSE_FILE=compose.yaml:compose.models.yaml:compose.offline.yaml" in (space.path / ".env").read_text()
    expected = sorted(
        f"{sha256(path)}  {path.relative_to(paddlex.parent)}" for path in paddlex.rglob("*") if path.is_file()
    )
    assert sums("carried-4_models").splitlines() == expected
    assert helpers(engine) == ""

    line = re.search(r"^  cat models.*\n.*$", (bundle / "README.txt").read_text(), re.MULTILINE)
    done = engine.call(["bash", "-euo", "pipefail", "-c", line[0]], cwd=bundle)
    assert done.returncode == 0, done.stderr
    assert sums("kit-up_models").splitlines() == expected


@pytest.mark.parametrize("engine", ["current"], indirect=True)
def test_what_breaks_off_leaves_no_model_and_no_container(engine: Engine, stack: MakeStack, paddlex: Path) -> None:
    there = stack("broken-off")
    data = b"".join(models.sources(paddlex, there).chunks())

    def chunks() -> Iterator[bytes]:
        yield data  # all of it, and only then is something found to be wrong, or Ctrl-C pressed
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        models.fill(there, chunks())
    assert helpers(engine) == ""
    with pytest.raises(KitError, match="no models yet"):
        models.sources(None, there)
    models.fill(there, iter([data]))
    pieces = models.sources(None, there).chunks()
    assert next(pieces)
    pieces.close()
    assert helpers(engine) == ""


@pytest.mark.parametrize("engine", ["current"], indirect=True)
def test_what_cannot_be_done_is_said(engine: Engine, stack: MakeStack, paddlex: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = stack("said")
    with pytest.raises(KitError, match="no volume said_models") as caught:
        models.sources(None, there)
    assert caught.value.code == ExitCode.ENVIRONMENT
    assert "said_models" not in engine.docker("volume", "ls", "--quiet"), "what inspects makes nothing"
    with pytest.raises(KitError, match="no whole archive") as caught:
        models.fill(there, iter([b"x" * 2048]))
    assert caught.value.code == ExitCode.INPUT

    offline = {name: "paddleocr3.6-nvidia-gpu-offline" for name in ("API_IMAGE_TAG_SUFFIX", "VLM_IMAGE_TAG_SUFFIX")}
    for name, value in offline.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(KitError, match="no volume for models") as caught:
        models.sources(None, ComposeStack(there.root, Settings(there.root, offline)))
    assert caught.value.code == ExitCode.USAGE
