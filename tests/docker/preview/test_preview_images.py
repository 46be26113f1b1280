"""The CPU preview as two containers: both images built from the repository, and a page read by them.

Built on the base image made here, so without a registry; the packages and
weights come from PyPI, as they do for a user. Takes some minutes.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest
from engine import Engine
from kit.stack import API, SERVICES, VLM
from project import ROOT, Project, assert_without_rights, every_process

PORT = "8090"  # the stack of stubs may hold 8080
URL = f"http://127.0.0.1:{PORT}"
SIZE_LIMITS = {API: 900 * 10**6, VLM: 500 * 10**6}  # bytes on a 90 MB base; 862 and 483 MB when written

# One engine is enough for images.
pytestmark = pytest.mark.parametrize("engine", ["current"], indirect=True)
both = pytest.mark.parametrize("service", SERVICES)


@pytest.fixture(scope="module")
def preview(engine: Engine, preview_base: str) -> Iterator[Project]:
    """Both services healthy."""
    project = Project(engine, "compose.preview.yaml", settings={"PREVIEW_BASE_IMAGE": preview_base, "API_PORT": PORT})
    try:
        project.ask("up", "--detach", "--no-build", "--wait", "--wait-timeout", "120", timeout=150)
        yield project
    finally:
        project.run("down", "--volumes")


def test_a_page_is_read(preview: Project, engine: Engine) -> None:
    picture = base64.b64encode((ROOT / "samples" / "invoice.png").read_bytes()).decode()
    status, body = engine.get(f"{URL}/layout-parsing", {"file": picture, "fileType": 1}, timeout=120)
    assert status == 200, body
    text = json.loads(body)["result"]["layoutParsingResults"][0]["markdown"]["text"]
    assert "Invoice 2026-0117" in text
    assert "<table" in text


def test_block_labels_are_drawn_without_a_network(preview: Project, engine: Engine) -> None:
    picture = base64.b64encode((ROOT / "samples" / "invoice.png").read_bytes()).decode()
    status, body = engine.get(f"{URL}/layout-parsing", {"file": picture, "fileType": 1, "visualize": True}, timeout=120)
    assert status == 200, body
    assert "layout_det_res" in json.loads(body)["result"]["layoutParsingResults"][0]["outputImages"]


def test_the_server_says_that_it_is_a_preview(preview: Project) -> None:
    models = json.loads(preview.execute(API, "curl -sS http://paddleocr-vlm-server:8118/v1/models").stdout)
    assert all(model["owned_by"].startswith("cpu-preview") for model in models["data"])
    assert "not PaddleOCR-VL's accuracy" in preview.logs(VLM)


@both
def test_the_image_says_what_it_is(preview: Project, engine: Engine, service: str) -> None:
    labels = preview.container(service)["Config"]["Labels"]
    assert "CPU preview" in labels["org.opencontainers.image.title"]
    assert "stand-in models" in labels["org.opencontainers.image.title"]
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"


@both
def test_the_image_is_small(preview: Project, engine: Engine, service: str) -> None:
    image = preview.container(service)["Image"]
    assert int(engine.docker("image", "inspect", "--format", "{{.Size}}", image)) < SIZE_LIMITS[service]


@both
def test_a_start_finds_everything_compiled(preview: Project, service: str) -> None:
    """Its user may not write the compiled files: what the image lacks is compiled at each start."""
    imports = {API: "paddlex.__main__, paddlex.inference.serving.basic_serving", VLM: "kit.preview.vlm.server"}[service]
    files = "[module.__cached__ for module in list(sys.modules.values()) if getattr(module, '__cached__', None)]"
    code = f"import os, sys, {imports}; files = {files}; print(len(files), *[f for f in files if not os.path.exists(f)])"
    done = preview.execute(service, f'python -c "{code}"')
    count, *missing = done.stdout.splitlines()[-1].split()
    assert int(count) > 500 and missing == [], done.stderr


@both
def test_every_process_runs_without_rights(preview: Project, service: str) -> None:
    processes = every_process(preview, service)
    assert len(processes) >= 3
    assert_without_rights(processes)


@both
def test_nothing_of_the_image_can_be_changed(preview: Project, service: str) -> None:
    done = preview.execute(service, "touch /opt/kit/x", user="0")
    assert "Read-only file system" in done.stderr
    assert preview.execute(service, "touch /tmp/x /home/paddleocr/x").returncode == 0


def test_only_the_api_is_published_and_on_this_host_alone(preview: Project) -> None:
    assert preview.container(API)["NetworkSettings"]["Ports"] == {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": PORT}]}
    assert not any(preview.container(VLM)["NetworkSettings"]["Ports"].values())


def test_the_vlm_has_no_way_out(preview: Project) -> None:
    routes = preview.execute(VLM, "cat /proc/net/route").stdout.splitlines()[1:]
    assert routes
    assert "00000000" not in [line.split()[1] for line in routes], "there is a default route"
