"""A plan as files: what is the user's stays, what is written is whole, and Compose reads it as planned."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from kit import cli, configure, lint
from kit.catalog.settings import SETTINGS, Settings
from kit.errors import ExitCode, KitError
from kit.facts.machine import Machine
from kit.plan import Wishes, plan
from kit.plan.memory import GIB
from kit.verbs import configure as verb
from nvml import load, nvml_environment
from support import API, ROOT, VLM, Workspace, check_error, make_workspace

COMPOSE = Path(find_spec("compose").origin).with_name("docker-compose")
HOST = Machine("Linux", "x86_64", False, 16, 64 * GIB, 60 * GIB)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The files that a plan starts from, without the rest of a clone."""
    composed = ("compose.yaml", "compose.models.yaml", "compose.api-only.yaml")
    for name in (*composed, "healthcheck.sh", configure.SHIPPED_PIPELINE, configure.SHIPPED_VLM):
        (tmp_path / name).write_text((ROOT / name).read_text())
    return tmp_path


def put(root: Path, machine: str, **wishes: Any) -> list[configure.Change]:
    """Plan for that machine and write; what was written."""
    settings = Settings(root, {})
    made = plan(load(machine), HOST, Wishes(usual_model=settings["VLM_MODEL_NAME"], **wishes))
    files = configure.changes(made, root, settings)
    configure.write(files)
    return files


def pipeline(root: Path) -> dict[str, Any]:
    return yaml.safe_load((root / configure.PIPELINE_FILE).read_text())


def vlm(root: Path) -> dict[str, Any]:
    return yaml.safe_load((root / configure.VLM_FILE).read_text())


def composed(root: Path, *env_files: str) -> dict[str, Any]:
    """What `docker compose config` makes of the files in `root`."""
    options = [word for name in env_files for word in ("--env-file", name)]
    done = subprocess.run(
        [COMPOSE, "--project-directory", root, *options, "config", "--format", "json"],
        cwd=root, env={"PATH": os.environ["PATH"], "HOME": os.devnull}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def mounted(service: dict[str, Any]) -> Path:
    """The config that the service gets."""
    (source,) = [mount["source"] for mount in service["volumes"] if mount["target"].endswith("_config.yaml")]
    return Path(source)


# --- the plan as files


@pytest.mark.parametrize("model", ["0.9B", "1.5", "1.6"])
def test_all_that_names_the_model_changes_together(clone: Path, model: str) -> None:
    put(clone, "rtx4090", model=model)
    services = composed(clone)["services"]
    config = pipeline(clone)
    served = services[VLM]["command"][services[VLM]["command"].index("--model_name") + 1]
    assert config["SubModules"]["VLRecognition"]["model_name"] == served
    version = "" if model == "0.9B" else f"-{model}"
    assert (config["pipeline_name"], served) == (f"PaddleOCR-VL{version}", f"PaddleOCR-VL{version}-0.9B")
    layout = config["SubModules"]["LayoutDetection"]
    assert layout["model_name"] == ("PP-DocLayoutV3" if version else "PP-DocLayoutV2")
    assert layout["threshold"] == 0.3 if version else len(layout["threshold"]) == 25


def test_compose_starts_what_was_planned(clone: Path) -> None:
    put(clone, "2xa100-80", model="1.6")
    services = composed(clone)["services"]
    uuids = [card.uuid for card in load("2xa100-80").gpus]
    for name, uuid, config in ((VLM, uuids[0], configure.VLM_FILE), (API, uuids[1], configure.PIPELINE_FILE)):
        (device,) = services[name]["deploy"]["resources"]["reservations"]["devices"]
        assert device["device_ids"] == [uuid]
        assert mounted(services[name]) == clone / config
        assert services[name]["image"].endswith(":paddleocr3.6-nvidia-gpu")
    assert vlm(clone)["gpu-memory-utilization"] >= 0.9
    assert vlm(clone)["max-num-seqs"] == 512
    assert pipeline(clone)["SubModules"]["VLRecognition"]["genai_config"] == {
        "backend": "vllm-server", "server_url": f"http://{VLM}:8118/v1", "max_concurrency": 200,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("wishes", "client", "url"),
    [
        ({"backend": "native"}, "native", ""),
        ({"vlm_url": "http://h.example:9/v1"}, "vllm-server", "http://h.example:9/v1"),
        ({"backend": "sglang", "vlm_url": "http://h.example:9/v1"}, "sglang-server", "http://h.example:9/v1"),
        ({"backend": "llama-cpp", "vlm_url": "http://h.example:9/v1"}, "llama-cpp-server", "http://h.example:9/v1"),
        ({"backend": "openai", "vlm_url": "http://h.example:9/v1"}, "llama-cpp-server", "http://h.example:9/v1"),
    ],
)
def test_without_a_vlm_server_the_api_alone_is_started(clone: Path, wishes: dict, client: str, url: str) -> None:
    put(clone, "rtx4090", **wishes)
    service = composed(clone)["services"]
    assert list(service) == [API]
    assert "depends_on" not in service[API]
    check = service[API]["healthcheck"]["test"][1]
    assert VLM not in check and "http://127.0.0.1:8080/health" in check
    assert service[API]["environment"]["VLM_URL"] == url
    assert ("h.example" in service[API]["environment"]["NO_PROXY"].split(",")) == bool(url)
    genai = pipeline(clone)["SubModules"]["VLRecognition"]["genai_config"]
    assert genai["backend"] == client
    assert not url or genai["server_url"] == url
    assert not (clone / configure.VLM_FILE).exists()


def test_the_health_check_without_a_vlm_server_is_a_shell_command_that_runs(clone: Path) -> None:
    put(clone, "rtx4090", backend="native")
    check = composed(clone)["services"][API]["healthcheck"]["test"][1].replace("$$", "$")
    check = check.replace("sh /usr/local/bin/healthcheck.sh", "curl")  # which is for containers alone
    curl = 'curl() { echo "$@" | grep -q 127.0.0.1; };'  # your own server is down, the API is up
    for url, status in (("", 0), ("http://h.example:9/v1", 1)):
        assert subprocess.run(["sh", "-c", curl + check], env={"VLM_URL": url, "PATH": os.environ["PATH"]}).returncode == status


def test_back_to_a_vlm_server_of_the_kit(clone: Path) -> None:
    (clone / "compose.override.yaml").write_text("services: {paddleocr-vl-api: {hostname: mine}}\n")
    put(clone, "rtx4090", backend="llama-cpp", vlm_url="http://h.example:9/v1")
    assert composed(clone)["services"][API]["hostname"] == "mine"
    put(clone, "rtx4090")
    services = composed(clone)["services"]
    assert set(services) == {API, VLM} and services[API]["hostname"] == "mine"
    assert f"http://{VLM}:8118/health" in services[API]["healthcheck"]["test"]
    assert pipeline(clone)["SubModules"]["VLRecognition"]["genai_config"]["server_url"] == f"http://{VLM}:8118/v1"


def test_offline_cuts_the_vlm_server_off_and_online_joins_it_again(clone: Path) -> None:
    put(clone, "rtx4090")
    assert "internal" not in composed(clone)["networks"]["back"]
    put(clone, "rtx4090", offline=True)
    networks = composed(clone)["networks"]
    assert networks["back"]["internal"] is True and "internal" not in networks["front"]
    put(clone, "rtx4090")
    assert "internal" not in composed(clone)["networks"]["back"]


def test_plain_compose_starts_the_same_files_as_the_kit(clone: Path) -> None:
    """Images that download get the volume, those with the models inside do not; your own files stay, in their place."""
    (clone / "compose.override.yaml").write_text("services: {paddleocr-vl-api: {hostname: mine}}\n")
    steps: list[tuple[dict[str, Any], list[str]]] = [
        ({}, ["compose.yaml", "compose.models.yaml", "compose.override.yaml"]),
        ({"offline": True}, ["compose.yaml", "compose.override.yaml"]),
        ({"backend": "native"}, ["compose.yaml", "compose.models.yaml", "compose.override.yaml", "compose.api-only.yaml"]),
        ({}, ["compose.yaml", "compose.models.yaml", "compose.override.yaml"]),
    ]
    for wishes, expected in steps:
        put(clone, "rtx4090", **wishes)
        assert Settings(clone, {}).given("COMPOSE_FILE").split(":") == expected
        config = composed(clone)
        assert config["services"][API]["hostname"] == "mine"
        assert ("models" in config.get("volumes", {})) is ("compose.models.yaml" in expected)


def test_without_a_need_compose_file_is_not_written_and_a_host_without_network_stays_one(clone: Path) -> None:
    put(clone, "rtx4090", offline=True)
    assert Settings(clone, {}).given("COMPOSE_FILE") is None
    (clone / ".env").write_text("COMPOSE_FILE=compose.yaml:compose.offline.yaml\n")
    put(clone, "rtx4090", offline=True)
    assert Settings(clone, {}).given("COMPOSE_FILE") == "compose.yaml:compose.offline.yaml"


def test_native_and_back_leaves_no_trace(clone: Path) -> None:
    put(clone, "rtx4090")
    before = pipeline(clone)
    put(clone, "rtx4090", backend="native")
    assert pipeline(clone)["SubModules"]["VLRecognition"]["batch_size"] == 1
    put(clone, "rtx4090")
    assert pipeline(clone) == before


def test_one_generation_and_back_leaves_no_trace(clone: Path) -> None:
    put(clone, "rtx4090")
    before = (clone / configure.PIPELINE_FILE).read_text()
    put(clone, "rtx4090", model="1.6")
    put(clone, "rtx4090", model="0.9B")
    assert (clone / configure.PIPELINE_FILE).read_text() == before


def test_pairs_are_projects_of_their_own(clone: Path) -> None:
    put(clone, "8-mixed", gpus=("0", "2", "6"))
    projects = [composed(clone, ".env", *more) for more in ((), (".env.gpu1",), (".env.gpu2",))]
    assert [project["name"] for project in projects] == ["paddleocr-vl", "paddleocr-vl-gpu1", "paddleocr-vl-gpu2"]
    assert [project["services"][API]["ports"][0]["published"] for project in projects] == ["8080", "8081", "8082"]
    devices, shares = [], []
    for project in projects:
        services = project["services"]
        ids = [services[name]["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"] for name in (API, VLM)]
        assert ids[0] == ids[1]
        devices += ids[0]
        shares.append(yaml.safe_load(mounted(services[VLM]).read_text())["gpu-memory-utilization"])
    assert devices == [load("8-mixed").gpus[n].uuid for n in (0, 2, 6)]
    assert len(set(shares)) == 3, "cards of three sizes"
    made = plan(load("8-mixed"), HOST, Wishes(gpus=("0", "2", "6")))
    assert configure.start_commands(made) == [
        "./kit up",
        "docker compose --env-file .env --env-file .env.gpu1 up -d",
        "docker compose --env-file .env --env-file .env.gpu2 up -d",
    ]


def test_a_slice_of_a_gpu(clone: Path) -> None:
    put(clone, "h100-mig", gpus=("MIG-00000003",))
    assert vlm(clone)["kv-cache-memory-bytes"] > GIB
    put(clone, "rtx4090")
    assert "kv-cache-memory-bytes" not in vlm(clone)


def test_your_own_keys_and_comments_stay(clone: Path) -> None:
    (clone / "mine.yaml").write_text(
        "# how I like it\nswap-space: 2\ngpu_memory_utilization: 0.3  # small\nno-enable-prefix-caching: true\n"
    )
    shipped = (clone / configure.SHIPPED_PIPELINE).read_text()
    own = shipped.replace("      21: 0.5  # table", "      21: 0.35  # faint tables").replace(
        "visualize: False", "visualize: True"
    )
    own = own.replace(
        "      backend: vllm-server\n", "      backend: vllm-server\n      client_kwargs: {timeout: 9, model_name: other}\n"
    )
    (clone / "pipeline.yaml").write_text(own)
    (clone / ".env").write_text("VLM_CONFIG=mine.yaml\nPIPELINE_CONFIG=pipeline.yaml\n")
    put(clone, "rtx4090")
    text = (clone / configure.VLM_FILE).read_text()
    assert "# how I like it" in text and "# small" in text
    config = vlm(clone)
    assert config["swap-space"] == 2 and config["no-enable-prefix-caching"] is True
    assert config["gpu_memory_utilization"] == 0.78 and "gpu-memory-utilization" not in config
    assert "21: 0.35  # faint tables" in (clone / configure.PIPELINE_FILE).read_text()
    assert pipeline(clone)["Serving"]["visualize"] is True
    assert pipeline(clone)["SubModules"]["VLRecognition"]["genai_config"]["client_kwargs"] == {"timeout": 9}
    assert (clone / "mine.yaml").read_text().startswith("# how I like it\nswap-space: 2\ngpu_memory_utilization: 0.3")
    assert (clone / "pipeline.yaml").read_text() == own


def test_a_copy_differs_from_the_shipped_file_in_the_decided_keys_alone(clone: Path) -> None:
    files = {change.path.name: change for change in put(clone, "rtx4090")}
    assert files[configure.PIPELINE_FILE].lines() == [f"+ {configure.HEADER.strip()}", "+       max_concurrency: 200"]
    assert "max_concurrency: 200\n\n# Loaded only when use_doc_preprocessor" in files[configure.PIPELINE_FILE].after
    shipped, written = (yaml.safe_load((clone / name).read_text()) for name in (configure.SHIPPED_VLM, configure.VLM_FILE))
    assert written == shipped | {"gpu-memory-utilization": 0.78, "max-num-seqs": 512}


def test_the_settings_of_another_engine_are_not_carried_over(clone: Path) -> None:
    put(clone, "rtx4090")
    with (clone / configure.VLM_FILE).open("a") as file:
        file.write("api-server-count: 2\n")
    put(clone, "rtx4090", backend="fastdeploy")
    assert "api-server-count" not in vlm(clone)
    assert composed(clone)["services"][VLM]["image"].split("/")[-1].startswith("paddleocr-genai-fastdeploy-server:")


@pytest.mark.parametrize("content", ["", "- a\n- b\n", "a: [1,\n", "just text\n"])
def test_a_config_that_is_none_is_an_error_and_nothing_is_written(clone: Path, content: str) -> None:
    (clone / "mine.yaml").write_text(content)
    (clone / ".env").write_text("VLM_CONFIG=mine.yaml\n")
    with pytest.raises(KitError) as caught:
        put(clone, "rtx4090")
    assert caught.value.code == ExitCode.USAGE and "mine.yaml" in caught.value.message and "\n" not in caught.value.message
    assert (clone / ".env").read_text() == "VLM_CONFIG=mine.yaml\n"
    assert not (clone / configure.PIPELINE_FILE).exists()


def test_every_key_of_a_plan_is_a_setting(clone: Path) -> None:
    for wishes in ({}, {"backend": "native"}, {"vlm_url": "http://h.example/v1"}):
        made = plan(load("rtx4090"), HOST, Wishes(**wishes))
        assert set(configure.env_values(made, clone)) <= set(SETTINGS)


@pytest.mark.parametrize(
    ("machine", "wishes"),
    [
        ("rtx4090", {}),
        ("rtx4090", {"model": "1.6"}),
        ("rtx4090", {"backend": "fastdeploy"}),
        ("rtx4090", {"backend": "native"}),
        ("rtx4090", {"backend": "llama-cpp", "vlm_url": "http://h.example:9/v1"}),
        ("rtx5060-8gb", {"offline": True}),
        ("h100-mig", {}),
        ("8-mixed", {"topology": "pairs"}),
    ],
)
def test_lint_finds_nothing_in_what_is_written(clone: Path, machine: str, wishes: dict) -> None:
    put(clone, machine, **wishes)
    found = lint.lint(lint.load(clone, {}, nvidia=load(machine)))
    assert [f"{finding.rule.id} {finding.message}" for finding in found] == []


def test_env_is_written_last_so_that_it_never_names_a_missing_file(clone: Path) -> None:
    names = [change.path.name for change in put(clone, "8-mixed", gpus=("0", "2", "6"))]
    assert names[-1] == ".env" and configure.VLM_FILE in names and ".env.gpu2" in names


# --- ./kit configure


def written(space: Workspace) -> dict[str, bytes]:
    paths = [*space.path.glob("*.local.yaml"), *space.path.glob(".env*")]
    return {path.name: path.read_bytes() for path in paths if path.name != ".env.example"}


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("configure"))


@pytest.fixture(autouse=True)
def _unconfigured(request: pytest.FixtureRequest) -> None:
    if "space" in request.fixturenames:
        space = request.getfixturevalue("space")
        for name in written(space):
            (space.path / name).unlink()


def test_the_plan_is_shown_and_written_and_the_second_run_changes_nothing(space: Workspace) -> None:
    (space.path / ".env").write_text("# mine\nVLM_SHM_SIZE=8g  # enough\n")
    first = space.kit("configure", "--model", "1.6", **nvml_environment("rtx5060-8gb"))
    assert first.returncode == 0, first.stderr
    for part in (
        "latest-nvidia-gpu-sm120",
        "PP-DocLayoutV3",
        "KV cache",
        "planned, of",
        "+ VLM_MODEL_NAME=PaddleOCR-VL-1.6-0.9B",
    ):
        assert part in first.stdout
    assert "next: ./kit up" in first.stderr
    files = written(space)
    assert set(files) == {".env", configure.PIPELINE_FILE, configure.VLM_FILE}
    assert files[".env"].startswith(b"# mine\nVLM_SHM_SIZE=8g  # enough\n")
    second = space.kit("configure", **nvml_environment("rtx5060-8gb"))
    assert second.returncode == 0 and "nothing changes" in second.stderr and "PaddleOCR-VL-1.6" in second.stdout
    assert written(space) == files
    status = subprocess.run(["git", "check-ignore", *files], cwd=ROOT, capture_output=True, text=True)
    assert set(status.stdout.split()) == set(files), "none of it may be committed by accident"


@pytest.mark.parametrize(
    ("machine", "says"), [("no-driver", "no NVIDIA driver is installed"), ("t4", "vllm needs compute capability 8.0")]
)
def test_hardware_that_is_not_enough_is_an_error_and_nothing_is_written(space: Workspace, machine: str, says: str) -> None:
    done = space.kit("configure", "--yes", **nvml_environment(machine))
    check_error(done, ExitCode.ENVIRONMENT, says)
    assert written(space) == {}


def test_a_dry_run_writes_nothing(space: Workspace) -> None:
    done = space.kit("configure", "--dry-run", **nvml_environment("rtx4090"))
    assert done.returncode == 0 and "+ VLM_GPU=0" in done.stdout and "nothing was written" in done.stderr
    assert written(space) == {}


@pytest.mark.parametrize(
    ("url", "says", "hint"),
    [
        ("http://10.0.0.5:8080", "does not end in /v1", "http://10.0.0.5:8080/v1"),
        ("http://localhost:8080/v1", "the API's own container", "http://host.docker.internal:8080/v1"),
        ("http://[::1]/v1", "the API's own container", "http://host.docker.internal/v1"),
        ("10.0.0.5:8080/v1", "no HTTP address", "such as"),
        ("http://h:eighty/v1", "no HTTP address", "such as"),
    ],
)
def test_an_address_that_the_api_could_not_use(url: str, says: str, hint: str) -> None:
    with pytest.raises(KitError) as caught:
        verb._url(url)
    assert says in caught.value.message and hint in caught.value.hint and caught.value.code == ExitCode.USAGE


def test_on_a_terminal_it_asks(space: Workspace) -> None:
    for answer, files in ((b"n\n", 0), (b"\n", 3)):
        ours, theirs = pty.openpty()
        os.write(ours, answer)
        done = subprocess.run(
            [space.path / "kit", "configure"], stdin=theirs, capture_output=True, text=True, cwd=space.path, timeout=60,
            env=space.environment | nvml_environment("rtx4090"),
        )  # fmt: skip
        os.close(ours)
        os.close(theirs)
        assert done.returncode == 0 and "write these 3 files?" in done.stderr
        assert len(written(space)) == files


@pytest.mark.parametrize(
    ("label", "options", "planned"),
    [
        ("GPU stack (Docker Compose)", ["--yes"], False),
        ("GPU stack (Docker Compose)", ["--dry-run"], False),
        ("CPU preview (processes)", ["--yes"], True),
    ],
)
def test_what_runs_is_not_planned_around(
    clone: Path, monkeypatch: pytest.MonkeyPatch, label: str, options: list[str], planned: bool
) -> None:
    monkeypatch.setattr(verb, "ROOT", clone)
    monkeypatch.setattr(verb, "nvidia", lambda: load("rtx4090"))
    monkeypatch.setattr(verb, "machine", lambda: HOST)
    monkeypatch.setattr(verb, "active", lambda settings: SimpleNamespace(label=label))
    arguments = cli.parser().parse_args(["configure", *options])
    if planned or "--dry-run" in options:
        assert verb.run(arguments) == ExitCode.OK
    else:
        with pytest.raises(KitError, match="memory that it holds counts as used"):
            verb.run(arguments)
    assert (clone / ".env").exists() == planned


def test_a_variable_of_the_environment_that_wins_is_named(space: Workspace) -> None:
    done = space.kit("configure", "--dry-run", **nvml_environment("rtx4090"), VLM_GPU="5")
    assert "VLM_GPU=5 in your environment wins over .env" in done.stderr
