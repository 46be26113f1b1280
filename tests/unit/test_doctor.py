"""What ./kit doctor makes of facts: every check passes and fails, and the verdict follows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nvml
import pytest
import yaml
from kit import doctor
from kit.catalog.requirements import MODEL_HUBS
from kit.catalog.settings import Settings
from kit.doctor import check as marks
from kit.doctor.look import look
from kit.doctor.network import NO_PROXY, bypasses, registry_url
from kit.errors import ExitCode
from kit.facts.disk import Space
from kit.facts.docker import Docker, Engine, Toolkit
from kit.facts.gpus import Gpu, Nvidia
from kit.facts.machine import Machine
from kit.facts.network import Proxies, Reach
from kit.facts.survey import Facts, Port
from kit.plan import memory
from support import ROOT

GB, GIB, MIB = 10**9, 2**30, 2**20
REGISTRY = "https://registry.example/v2/"
WANTED = doctor.Wanted("registry.example/ocr", "paddleocr3.6-nvidia-gpu", "paddleocr3.6-nvidia-gpu", "vllm", preview_bytes=2 * GB)
CARD = Gpu(0, "NVIDIA GeForce RTX 4090", "GPU-1", 24564 * MIB, 24118 * MIB, (8, 9))
T4 = Gpu(1, "Tesla T4", "GPU-2", 15360 * MIB, 14911 * MIB, (7, 5))
BLACKWELL = Gpu(0, "NVIDIA GeForce RTX 5090", "GPU-3", 32607 * MIB, 32089 * MIB, (12, 0))
RTX5060 = Gpu(1, "NVIDIA GeForce RTX 5060", "GPU-4", 8151 * MIB, 7730 * MIB, (12, 0))
ENGINE = Engine(
    "28.5.2", "Debian GNU/Linux 12 (bookworm)", "x86_64", "unix:///var/run/docker.sock", "/var/lib/docker",
    containerd=False, runtimes=("nvidia", "runc"), cdi=(), proxy=False, insecure=(),
)  # fmt: skip
DESKTOP = replace(ENGINE, system="Docker Desktop", runtimes=("nvidia", "runc"))
API_PORT = Port("API_PORT", "127.0.0.1", 8080)
VLM_PORT = Port("PREVIEW_VLM_PORT", "127.0.0.1", 8118)
VLM_TAKEN = {"ports": (API_PORT, replace(VLM_PORT, obstacle="taken", holder="x"))}
PROXY = {"http": "http://proxy:3128"}
TOOLKIT = Toolkit("/usr/bin/nvidia-container-runtime-hook", "1.17.8")
HUBS = tuple(Reach(url, 200, seconds=0.3) for url in MODEL_HUBS)
LINUX = Machine("Linux", "x86_64", wsl=False, cores=16, memory_total=64 * GB, memory_available=60 * GB)

# A GPU host on which nothing is amiss and nothing is installed yet.
GOOD = Facts(
    machine=LINUX,
    nvidia=Nvidia("570.133.20", (12, 8), (CARD,)),
    docker=Docker("28.5.2", "2.40.3"),
    engine=ENGINE,
    images=(),
    image_space=Space("/var/lib/docker", 200 * GB, 400 * GB),
    toolkit=TOOLKIT,
    project_space=Space("/opt/kit", 100 * GB, 400 * GB),
    ports=(API_PORT, VLM_PORT),
    proxies=Proxies(),
    registry=Reach(REGISTRY, 401, seconds=0.4),
    hubs=HUBS,
)
WSL = {"machine": replace(LINUX, wsl=True)}
NO_DOCKER = {"docker": Docker(None, None, "the command docker is not installed"), "engine": None, "image_space": None}
PULLED = {"images": WANTED.image_names}
READY, PREVIEW_ONLY, NOT_READY = doctor.READY, doctor.PREVIEW_ONLY, doctor.NOT_READY


def engine_with(**changes: Any) -> dict[str, Any]:
    return {"engine": replace(ENGINE, **changes)}


def card_with(**changes: Any) -> dict[str, Any]:
    return {"nvidia": replace(GOOD.nvidia, gpus=(replace(CARD, **changes),))}


def api_port(obstacle: str, **changes: Any) -> dict[str, Any]:
    return {"ports": (replace(API_PORT, obstacle=obstacle, **changes), VLM_PORT)}


# (what differs from GOOD, check, its status, part of what it says, verdict)
CASES: list[tuple[dict[str, Any], str, str, str, str]] = [
    ({}, "system", "ok", "Linux, x86_64, 16 cores", READY),
    (WSL, "system", "ok", "Linux in WSL2", READY),
    ({"machine": replace(LINUX, arch="aarch64")}, "system", "failed", "aarch64", PREVIEW_ONLY),
    ({"machine": replace(LINUX, system="Darwin", arch="arm64")}, "system", "failed", "macOS, arm64", PREVIEW_ONLY),
    ({"engine": DESKTOP}, "system", "failed", "in WSL2 alone", PREVIEW_ONLY),
    ({"engine": DESKTOP, **WSL}, "system", "ok", "Docker Desktop", READY),
    ({}, "ram", "ok", "60.0 GB of 64.0 GB", READY),
    ({"machine": replace(LINUX, memory_available=6 * GB)}, "ram", "warning", "hint: send long PDFs in parts", READY),
    ({"machine": replace(LINUX, memory_available=GB, memory_total=GB)}, "ram", "failed", "more memory", NOT_READY),
    ({}, "driver", "ok", "570.133.20, CUDA 12.8", READY),
    ({"nvidia": replace(GOOD.nvidia, cuda=(12, 6))}, "driver", "ok", "CUDA 12.6", READY),
    ({"nvidia": replace(GOOD.nvidia, cuda=(12, 5))}, "driver", "failed", "version 560 or newer", PREVIEW_ONLY),
    ({"nvidia": replace(GOOD.nvidia, cuda=None)}, "driver", "warning", "CUDA unknown", READY),
    ({"nvidia": Nvidia("575.57.08", (12, 9), (BLACKWELL,))}, "driver", "ok", "CUDA 12.9 or newer, for the sm120", READY),
    ({"nvidia": Nvidia("570.1", (12, 8), (BLACKWELL,))}, "driver", "failed", "version 575 or newer", PREVIEW_ONLY),
    ({"nvidia": Nvidia("570.1", (12, 8), (CARD, RTX5060))}, "driver", "ok", "CUDA 12.6 or newer", READY),
    ({"nvidia": Nvidia("570.1", (12, 8), (CARD, RTX5060))}, "gpu-1", "warning", "images need CUDA 12.9", READY),
    ({"nvidia": Nvidia(problem="no library", cause="no-library")}, "driver", "failed", "install its driver", PREVIEW_ONLY),
    ({"nvidia": Nvidia(problem="no library", cause="no-library"), **WSL}, "driver", "failed", "in Windows", PREVIEW_ONLY),
    ({"nvidia": Nvidia(problem="differs", cause="mismatch")}, "driver", "failed", "restart the machine", PREVIEW_ONLY),
    ({"nvidia": Nvidia(problem="no answer", cause="no-answer")}, "driver", "failed", "the driver hangs", PREVIEW_ONLY),
    ({"nvidia": Nvidia(problem="x", cause="error")}, "driver", "failed", "nvidia-smi should show the same", PREVIEW_ONLY),
    ({}, "gpu-0", "ok", "RTX 4090, compute capability 8.9, 23.6 GiB of 24.0 GiB free, GPU-1", READY),
    ({"nvidia": replace(GOOD.nvidia, gpus=())}, "gpu", "failed", "the driver shows no card", PREVIEW_ONLY),
    ({"nvidia": replace(GOOD.nvidia, gpus=(T4,))}, "gpu-1", "failed", "7.5 is not served by vllm", PREVIEW_ONLY),
    ({"nvidia": replace(GOOD.nvidia, gpus=(CARD, T4))}, "gpu-1", "warning", "7.5 is not served by vllm", READY),
    ({"nvidia": Nvidia("570.1", (12, 8), (BLACKWELL,))}, "gpu-0", "failed", "images need CUDA 12.9", PREVIEW_ONLY),
    (card_with(memory_free=3 * GIB), "gpu-0", "failed", "only 3.0 GiB of 24.0 GiB are free", PREVIEW_ONLY),
    (card_with(memory_total=4 * GIB, memory_free=4 * GIB), "gpu-0", "failed", "only 4.0 GiB", PREVIEW_ONLY),
    (card_with(capability=(10, 0)), "gpu-0", "failed", "no official image runs on compute capability 10.0", PREVIEW_ONLY),
    (card_with(mig_enabled=True), "gpu-0", "failed", "nvidia-smi -mig 0", PREVIEW_ONLY),
    (card_with(problem="GPU is lost", memory_total=0, capability=(0, 0)), "gpu-0", "failed", "xid", PREVIEW_ONLY),
    (card_with(memory_total=0, memory_free=0), "gpu-0", "failed", "does not tell its memory", PREVIEW_ONLY),
    ({"nvidia": replace(GOOD.nvidia, gpus=(CARD, replace(CARD, index=1))), **WSL}, "gpu-1", "warning", "first card", READY),
    ({}, "plan", "ok", "images: paddleocr3.6-nvidia-gpu", READY),
    ({"nvidia": Nvidia(problem="x", cause="error")}, "plan", "neutral", "no card to plan with", PREVIEW_ONLY),
    (card_with(memory_free=3 * GIB), "plan", "failed", "3.0 GiB of 24.0 GiB are free", PREVIEW_ONLY),
    (card_with(memory_free=3 * GIB) | api_port("taken", ours=True), "plan", "warning", "./kit down", READY),
    ({}, "docker", "ok", "engine 28.5.2, Compose 2.40.3", READY),
    ({"docker": Docker("20.10.24+dfsg1", "2.26.1")}, "docker", "ok", "./kit adds compose.engine-20.yaml", READY),
    ({"docker": Docker("19.03.15", "2.26.1")}, "docker", "failed", "update Docker", PREVIEW_ONLY),
    ({"docker": Docker("28.5.2", "2.20.1")}, "docker", "failed", "start_interval", PREVIEW_ONLY),
    ({"docker": Docker("28.5.2", "2.20.2")}, "docker", "ok", "Compose 2.20.2", READY),
    ({"docker": Docker("library-import", "dev")}, "docker", "ok", "engine library-import", READY),
    (NO_DOCKER, "docker", "failed", "docs.docker.com", PREVIEW_ONLY),
    ({"docker": Docker(None, "2.40.3", "permission denied while trying")}, "docker", "failed", "usermod", PREVIEW_ONLY),
    ({"docker": Docker(None, None, "`docker version` did not answer")}, "docker", "failed", "restart docker", PREVIEW_ONLY),
    ({"docker": Docker(None, "2.40.3", "Cannot connect")}, "docker", "failed", "systemctl start docker", PREVIEW_ONLY),
    ({"docker": Docker(None, "2.40.3", "Cannot connect"), **WSL}, "docker", "failed", "WSL integration", PREVIEW_ONLY),
    ({"docker": Docker("28.5.2", None, "no compose")}, "docker", "failed", "install the Compose plugin", PREVIEW_ONLY),
    ({}, "toolkit", "ok", "hook /usr/bin/nvidia-container-runtime-hook, nvidia-ctk 1.17.8", READY),
    ({"toolkit": Toolkit(), **engine_with(runtimes=("runc",))}, "toolkit", "failed", "nothing of it; no hook", PREVIEW_ONLY),
    ({"toolkit": Toolkit(), **engine_with(runtimes=("runc",), cdi=("nvidia.com/gpu=0",))},
     "toolkit", "failed", "CDI nvidia.com/gpu=0; no hook", PREVIEW_ONLY),
    ({"toolkit": Toolkit(), **engine_with(runtimes=("runc",), cdi=("nvidia.com/gpu=0",), version="29.0.1")},
     "toolkit", "warning", "CDI nvidia.com/gpu=0", READY),
    ({"toolkit": Toolkit(ctk="1.17.8")}, "toolkit", "warning", 'runtime "nvidia", but no hook', READY),
    ({"nvidia": replace(GOOD.nvidia, gpus=())}, "toolkit", "neutral", "no card to hand on", PREVIEW_ONLY),
    (NO_DOCKER, "toolkit", "neutral", "no engine answers", PREVIEW_ONLY),
    ({"engine": DESKTOP, **WSL, "toolkit": Toolkit()}, "toolkit", "ok", "Docker Desktop", READY),
    ({"engine": DESKTOP}, "toolkit", "neutral", "not visible here", PREVIEW_ONLY),
    ({"engine": replace(DESKTOP, runtimes=("runc",)), **WSL}, "toolkit", "neutral", "not visible here", READY),
    (engine_with(endpoint="ssh://gpu.example"), "toolkit", "neutral", "elsewhere (ssh://gpu.example)", READY),
    ({"toolkit": replace(TOOLKIT, ctk="1.13.5"), **WSL}, "toolkit", "failed", "OCR#17893", PREVIEW_ONLY),
    ({"toolkit": replace(TOOLKIT, ctk="1.14.4"), **WSL}, "toolkit", "ok", "1.14.4", READY),
    ({}, "image-disk", "ok", "200.0 GB of 400.0 GB free in /var/lib/docker", READY),
    ({"image_space": Space("/var/lib/docker", 20 * GB, 400 * GB)}, "image-disk", "failed", "needed: 21.0 GB", PREVIEW_ONLY),
    ({"image_space": Space("/x", 39 * GB, 400 * GB), **engine_with(containerd=True)},
     "image-disk", "failed", "needed: 39.9 GB", PREVIEW_ONLY),
    ({"image_space": Space("/x", 5 * GB, 400 * GB), **PULLED}, "image-disk", "ok", "both images are here", READY),
    ({"image_space": None}, "image-disk", "neutral", "not on a disk that is visible here", READY),
    (NO_DOCKER, "image-disk", "neutral", "no engine answers", PREVIEW_ONLY),
    ({}, "preview-disk", "ok", "100.0 GB of 400.0 GB free in /opt/kit", READY),
    ({"project_space": Space("/opt/kit", GB, 400 * GB)}, "preview-disk", "failed", "larger disk", READY),
    ({"project_space": Space("/opt/kit", GB, 400 * GB), **NO_DOCKER}, "preview-disk", "failed", "2.0 GB free", NOT_READY),
    ({"project_space": None}, "preview-disk", "warning", "did not answer", READY),
    ({}, "port-API_PORT", "ok", "Port 8080: free", READY),
    (api_port("taken", holder="nginx (pid 7)"), "port-API_PORT", "failed", "API_PORT=8081 in .env", NOT_READY),
    (api_port("taken", holder="the container x", ours=True), "port-API_PORT", "ok", "held by this service", READY),
    (api_port("no-address"), "port-API_PORT", "failed", "API_BIND", NOT_READY),
    (api_port("no-permission"), "port-API_PORT", "ok", "the engine may", READY),
    (api_port("no-permission") | NO_DOCKER, "port-API_PORT", "failed", "above 1023", NOT_READY),
    (api_port("no-answer"), "port-API_PORT", "warning", "ss -ltnp", READY),
    ({}, "port-PREVIEW_VLM_PORT", "ok", "free", READY),
    (VLM_TAKEN, "port-PREVIEW_VLM_PORT", "neutral", "do not need", READY),
    (VLM_TAKEN | NO_DOCKER, "port-PREVIEW_VLM_PORT", "failed", "PREVIEW_VLM_PORT=8119", NOT_READY),
    ({}, "proxies", "ok", "none is set", READY),
    ({"proxies": Proxies(PROXY)}, "proxies", "warning", "sends http://127.0.0.1 to http://proxy:3128", READY),
    ({"proxies": Proxies({"all": "socks5://proxy"})}, "proxies", "warning", "export NO_PROXY=127.0.0.1", READY),
    ({"proxies": Proxies(PROXY, ("10.0.0.0/8", "127.0.0.0/8"))}, "proxies", "ok", "not for http://127", READY),
    ({"proxies": Proxies({"https": "http://proxy:3128"})}, "proxies", "ok", "hands it to no container", READY),
    ({"proxies": Proxies(client=PROXY, client_file="/c.json")}, "proxies", "ok", "into every container", READY),
    (engine_with(proxy=True), "proxies", "ok", "through a proxy of its own", READY),
    ({}, "registry", "ok", "registry.example: HTTP 401 in 0.4 s", READY),
    ({"registry": None}, "registry", "neutral", "--offline", READY),
    ({"registry": Reach(REGISTRY, problem="its name is not known (DNS)")}, "registry", "failed", "Air-gapped", PREVIEW_ONLY),
    ({"registry": Reach(REGISTRY, problem="its name is not known (DNS)"), **PULLED}, "registry", "neutral", "not needed", READY),
    ({"registry": Reach(REGISTRY, problem="x"), **engine_with(proxy=True)}, "registry", "warning", "proxy of its own", READY),
    ({"registry": Reach(REGISTRY, 503)}, "registry", "failed", "a proxy answers for it", PREVIEW_ONLY),
    ({"registry": Reach("http://registry.example/v2/", 200)}, "registry", "failed", "insecure-registries", PREVIEW_ONLY),
    ({"registry": Reach("http://registry.example/v2/", 200), **engine_with(insecure=("registry.example",))},
     "registry", "ok", "HTTP 200", READY),
    ({"registry": Reach("http://127.0.0.1:5000/v2/", 200)}, "registry", "ok", "HTTP 200", READY),
    ({}, "model-hubs", "ok", "huggingface.co: HTTP 200 in 0.3 s", READY),
    ({"hubs": None}, "model-hubs", "neutral", "--offline", READY),
    ({"hubs": (Reach(MODEL_HUBS[0], problem="no answer"), *HUBS[1:])}, "model-hubs", "ok", "no answer", READY),
    ({"hubs": (Reach(MODEL_HUBS[0], 200, seconds=1.4), *HUBS[1:])}, "model-hubs", "ok", "in 1.4 s", READY),
    ({"hubs": tuple(Reach(url, 403) for url in MODEL_HUBS)}, "model-hubs", "failed", "configure --offline", PREVIEW_ONLY),
    ({"hubs": tuple(Reach(url, problem="x") for url in MODEL_HUBS), "proxies": Proxies(client=PROXY, client_file="/c.json")},
     "model-hubs", "warning", "given a proxy of their own", READY),
    ({"hubs": tuple(Reach(url, 200, seconds=1.4) for url in MODEL_HUBS)}, "model-hubs", "warning", "too slow for PaddleX", READY),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "name", "status", "part", "verdict"), CASES)
def test_a_check(changes: dict[str, Any], name: str, status: str, part: str, verdict: str) -> None:
    checks = doctor.examine(replace(GOOD, **changes), WANTED)
    (check,) = [check for check in checks if check.name == name]
    text = doctor.as_text([check], WANTED)
    assert check.status == status and part in text, text
    assert doctor.verdict(checks) == verdict, [c for c in checks if c.status == "failed"]
    assert check.needed and check.why and (check.hint or status not in ("failed", "warning"))


def test_every_check_has_a_passing_and_a_failing_case() -> None:
    names = {check.name for check in doctor.examine(GOOD, WANTED)}
    passing = {name for _, name, status, _, _ in CASES if status == "ok"}
    failing = {name for _, name, status, _, _ in CASES if status in ("failed", "warning")}
    assert names <= passing and names <= failing


def test_on_a_good_machine_nothing_is_marked() -> None:
    checks = doctor.examine(GOOD, WANTED)
    assert {check.status for check in checks} == {"ok"} and not any(check.hint for check in checks)
    lines = doctor.as_text(checks, WANTED).splitlines()
    assert lines[-1] == "ready; next: ./kit configure"
    assert doctor.as_text(checks, replace(WANTED, configured=True)).splitlines()[-1] == "ready; next: ./kit up"


def test_offline_images_need_no_hub() -> None:
    tags = replace(WANTED, api_tag="paddleocr3.6-nvidia-gpu-offline", vlm_tag="paddleocr3.6-nvidia-gpu-offline")
    nothing = replace(GOOD, hubs=tuple(Reach(url, problem="x") for url in MODEL_HUBS))
    (hubs,) = [check for check in doctor.examine(nothing, tags) if check.name == "model-hubs"]
    assert hubs.status == "neutral"
    half = replace(tags, api_tag="paddleocr3.6-nvidia-gpu")
    (hubs,) = [check for check in doctor.examine(nothing, half) if check.name == "model-hubs"]
    assert hubs.status == "failed"


@pytest.mark.parametrize(
    ("api", "vlm", "backend", "needed"),
    [
        ("paddleocr3.6-nvidia-gpu", "paddleocr3.6-nvidia-gpu", "vllm", "21.0 GB"),
        ("paddleocr3.6-nvidia-gpu-offline", "paddleocr3.6-nvidia-gpu-offline", "vllm", "25.0 GB"),
        ("latest-nvidia-gpu-sm120", "latest-nvidia-gpu-sm120", "vllm", "23.0 GB"),
        ("paddleocr3.6-nvidia-gpu", "paddleocr3.6-nvidia-gpu", "fastdeploy", "51.0 GB"),
        ("of-our-own", "of-our-own", "vllm", "room for both images"),
    ],
)
def test_the_room_that_images_need(api: str, vlm: str, backend: str, needed: str) -> None:
    wanted = replace(WANTED, api_tag=api, vlm_tag=vlm, backend=backend)
    (disk,) = [check for check in doctor.examine(GOOD, wanted) if check.name == "image-disk"]
    assert disk.needed.startswith(needed)


def test_a_card_must_hold_both_services() -> None:
    least = memory.least_free(CARD.memory_total, with_api=True)
    for free, status in ((least, "ok"), (least - GIB // 10, "failed")):
        checks = doctor.examine(replace(GOOD, **card_with(memory_free=free)), WANTED)
        assert {check.name: check.status for check in checks}["gpu-0"] == status


def test_who_holds_a_card_is_told() -> None:
    nvidia = nvml.load("rtx4090")
    checks = {check.name: check for check in doctor.examine(replace(GOOD, nvidia=nvidia), WANTED)}
    assert "held by a program that is not visible here (pid 4194401, 410 MiB)" in checks["gpu-0"].found


def test_json_keeps_its_shape() -> None:
    told = json.loads(json.dumps(doctor.as_json(GOOD, doctor.examine(GOOD, WANTED), WANTED)))
    assert list(told) == ["verdict", "exit_code", "next", "checks", "facts"]
    assert all(list(check) == ["name", "title", "status", "found", "needed", "why", "hint", "blocks"] for check in told["checks"])
    assert [check["name"] for check in told["checks"]] == [
        *("system", "ram", "driver", "gpu-0", "plan", "docker", "toolkit", "image-disk", "preview-disk"),
        *("port-API_PORT", "port-PREVIEW_VLM_PORT", "proxies", "registry", "model-hubs"),
    ]
    assert list(told["facts"]) == [
        *("machine", "nvidia", "docker", "engine", "images", "image_space", "toolkit", "project_space", "ports", "proxies"),
        *("registry", "hubs"),
    ]
    assert told["facts"]["nvidia"]["gpus"][0]["memory_total"] == CARD.memory_total


def test_each_verdict_has_its_exit_code_and_each_mark_its_status() -> None:
    assert [int(doctor.EXIT[v]) for v in (READY, PREVIEW_ONLY, NOT_READY)] == [0, ExitCode.PREVIEW_ONLY, ExitCode.ENVIRONMENT]
    assert len(set(doctor.EXIT.values())) == 3
    assert {status for _, _, status, _, _ in CASES} == set(marks.MARKS)


def test_the_page_names_every_check_and_exit_code() -> None:
    page = (ROOT / "docs" / "doctor.md").read_text()
    for check in doctor.examine(GOOD, WANTED):
        assert f"| `{check.name}`" in page
    for verdict, code in doctor.EXIT.items():
        assert f"| `{verdict}` | {int(code)} |" in page


def test_no_proxy_is_what_compose_yaml_says() -> None:
    for file in ("compose.yaml", "compose.preview.yaml"):
        for service in yaml.safe_load((ROOT / file).read_text())["services"].values():
            assert service["environment"]["NO_PROXY"] == service["environment"]["no_proxy"] == ",".join(NO_PROXY)


def test_image_names_are_those_of_compose_yaml() -> None:
    text = (ROOT / "compose.yaml").read_text()
    for name in doctor.Wanted("REG", "APITAG", "VLMTAG", "BACKEND", 0).image_names:
        repository = name.split("/")[1].split(":")[0]
        assert f"/{repository.replace('BACKEND', '${VLM_BACKEND:-vllm}')}:" in text


@pytest.mark.parametrize(
    ("setting", "url"),
    [
        ("ccr-2vdh3abv-pub.cnc.bj.baidubce.com/paddlepaddle", "https://ccr-2vdh3abv-pub.cnc.bj.baidubce.com/v2/"),
        ("harbor.example:5000/mirror/paddle", "https://harbor.example:5000/v2/"),
        ("localhost/paddle", "https://localhost/v2/"),
        ("harbor:5000", "https://harbor:5000/v2/"),
        ("paddlepaddle", "https://registry-1.docker.io/v2/"),
        ("someone/else", "https://registry-1.docker.io/v2/"),
    ],
)
def test_where_a_registry_answers(setting: str, url: str) -> None:
    assert registry_url(setting) == url


def test_what_no_proxy_covers() -> None:
    assert bypasses("127.0.0.1", ["127.0.0.1"]) and bypasses("127.0.0.1", ["*"]) and bypasses("127.0.0.1", ["127.0.0.0/8"])
    assert bypasses("a.example.com", [".example.com"]) and bypasses("a.example.com", ["example.com"])
    assert not bypasses("127.0.0.1", ["localhost", "10.0.0.0/8", "nonsense/99"])
    assert not bypasses("example.com", ["a.example.com"])


def test_versions() -> None:
    assert marks.numbers("28.5.2+dfsg1") == (28, 5, 2) and marks.numbers("v2.40.3-desktop.1") == (2, 40, 3)
    assert marks.numbers("dev") == ()


def test_on_a_host_without_network_nobody_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict] = []

    def note(*_: object, **told: object) -> Facts:
        asked.append(told)
        return GOOD

    monkeypatch.setattr("kit.doctor.look.survey", note)
    for file in ("compose.yaml", "compose.yaml:compose.offline.yaml"):
        look(Settings(tmp_path, {"COMPOSE_FILE": file}), offline=False)
    assert asked[0]["registry"].startswith("https://") and asked[0]["hubs"]
    assert (asked[1]["registry"], asked[1]["hubs"]) == ("", ())
