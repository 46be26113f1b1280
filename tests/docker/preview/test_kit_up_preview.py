"""./kit up --preview on a real Docker engine: what it starts, sees and says."""

from __future__ import annotations

import json
import os
import zipfile

import pytest
from engine import Engine
from kit.errors import ExitCode
from support import API, VLM, Workspace
from test_kit_up import inside, status


@pytest.mark.parametrize("engine", ["current"], indirect=True)
def test_the_preview_in_containers(engine: Engine, preview_base: str, space: Workspace) -> None:
    space.environment["PREVIEW_BASE_IMAGE"] = preview_base
    up = inside(engine, space, space.path / "kit", "up", "--preview", timeout=900)
    assert up.returncode == 0, up.stderr
    assert up.stdout.startswith("# Invoice 2026-0117")
    for service, name in ((VLM, "preview-vlm"), (API, "preview-api")):
        image = engine.docker("image", "inspect", "--format", "{{.Id}}", f"paddleocr-vl-kit/{name}:local").strip()
        line = f"{service}  paddleocr-vl-kit/{name}:local  {image[:19]}  CPU preview, stand-in models"
        assert line in up.stderr
    assert "not PaddleOCR-VL" in up.stderr
    again = inside(engine, space, space.path / "kit", "up", "--preview")
    assert again.returncode == 0 and "already up" in again.stderr
    assert status(engine, space)["stack"] == "CPU preview (Docker Compose)"

    health = inside(engine, space, space.path / "kit", "health", "--deep", "--json")
    assert health.returncode == 0, health.stderr
    seen = json.loads(health.stdout)
    assert seen["vlm"]["server_url"] == f"http://{VLM}:8118/v1" and seen["vlm"]["served"] == ["PaddleOCR-VL-0.9B"]
    assert seen["page"]["word_read"] is True

    os.kill(process_of(engine, VLM), 9)
    lost = inside(engine, space, space.path / "kit", "health")
    assert lost.returncode in (ExitCode.VLM, ExitCode.OK), lost.stdout  # it may be back already

    bundle = inside(engine, space, space.path / "kit", "diagnose", "--bundle")
    (file,) = (space.path / ".kit" / "support").glob("*.zip")
    with zipfile.ZipFile(file) as whole:
        names = set(whole.namelist())
        services = json.loads(whole.read("services.json"))
        composed = whole.read("config/compose.yaml").decode()
    assert {f"logs/{VLM}.log", f"logs/{API}.log", "doctor.json", "lint.json", "versions.json"} <= names, bundle.stderr
    assert "${" not in composed and "paddleocr-vl-api:" in composed, "resolved by Compose itself"
    assert [image["kind"] for image in services["images"]] == ["CPU preview, stand-in models"] * 2


def process_of(engine: Engine, service: str) -> int:
    """On this machine, the init of the service's container."""
    return engine.inspect(f"kit-up-{service}-1")["State"]["Pid"]
