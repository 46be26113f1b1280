"""compose.gateway.yaml as the real Compose binary reads it, and what the kit makes of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from kit import access
from kit.catalog.settings import SETTINGS, Settings
from kit.gateway import pages
from kit.gateway import settings as gateway_settings
from kit.preview import overlay
from kit.stack import API, GATEWAY, VLM, Service, files, rolling, together
from kit.stack.compose import ComposeStack
from kit.stack.rolling import REPLACE, START, STOP, Step, steps
from support import ROOT
from test_stack_files import ONLINE, composed, files_of, lay

GPU = ("compose.yaml", files.GATEWAY)
PREVIEW = tuple(files.of_preview(True))
both = pytest.mark.parametrize("names", [GPU, PREVIEW], ids=["gpu", "preview"])


def seconds(text: str) -> int:
    minutes, _, rest = text.rpartition("m")
    return int(minutes or 0) * 60 + int(rest.removesuffix("s") or 0)


# --- the files


@both
def test_the_gateway_alone_is_published_and_the_others_have_no_way_out(names: tuple[str, ...]) -> None:
    config = composed(*names, API_BIND="0.0.0.0", API_PORT="9000")
    services = config["services"]
    assert set(services) == {API, VLM, GATEWAY}
    assert "ports" not in services[API] and "ports" not in services[VLM]
    (port,) = services[GATEWAY]["ports"]
    assert (port["host_ip"], port["published"], port["target"]) == ("0.0.0.0", "9000", 8080)
    assert {name: list(services[name]["networks"]) for name in services} == {
        API: ["back"],
        VLM: ["back"],
        GATEWAY: ["back", "front"],
    }
    assert config["networks"]["back"]["internal"] is True and "internal" not in config["networks"]["front"]


def test_online_images_can_be_given_a_way_out_for_their_models() -> None:
    assert "internal" not in composed(*GPU, VLM_NETWORK_INTERNAL="false")["networks"]["back"]
    assert composed(*PREVIEW, VLM_NETWORK_INTERNAL="false")["networks"]["back"]["internal"] is True, "it fetches nothing"


@both
def test_the_gateway_is_the_apis_image_with_our_code_read_only_and_no_gpu(names: tuple[str, ...]) -> None:
    services = composed(*names)["services"]
    gateway = services[GATEWAY]
    assert gateway["image"] == services[API]["image"] and "build" not in gateway and "deploy" not in gateway
    assert all(mount["read_only"] is True and mount["type"] == "bind" for mount in gateway["volumes"])
    assert (gateway["read_only"], gateway["cap_drop"], gateway["user"]) == (True, ["ALL"], "1000:1000")
    assert gateway["security_opt"] == ["no-new-privileges:true"] and gateway["init"] is True and gateway["restart"] == "always"
    assert seconds(gateway["stop_grace_period"]) >= float(gateway["environment"]["GATEWAY_STOP_SECONDS"]) + 5
    assert "start_interval" not in gateway["healthcheck"], "engines older than 25 refuse it"


def test_what_is_mounted_is_all_that_the_gateway_imports(tmp_path: Path) -> None:
    """Its modules are found from a folder with nothing else of the kit in it."""
    mounts = composed(*GPU)["services"][GATEWAY]["volumes"]
    code = {mount["target"]: Path(mount["source"]) for mount in mounts if mount["target"].startswith("/opt/gateway/")}
    imported = set()
    for file in [path for source in code.values() for path in (source.rglob("*.py") if source.is_dir() else [source])]:
        imported |= set(re.findall(r"^\s*from kit\.(\w+)", file.read_text(), re.MULTILINE))
        for names in re.findall(r"^\s*from kit import (.*)$", file.read_text(), re.MULTILINE):
            imported |= set(re.split(r",\s*", names))
    mounted = {Path(target).stem for target in code} - {"__init__"}
    assert imported | {pages.FOLDER.name} == mounted
    assert code["/opt/gateway/kit/viewer"] == pages.FOLDER


@both
def test_apis_are_as_many_as_wanted_and_run_without_queues(names: tuple[str, ...]) -> None:
    assert composed(*names)["services"][API]["deploy"]["replicas"] == int(SETTINGS["API_REPLICAS"].default)
    assert composed(*names, API_REPLICAS="5")["services"][API]["deploy"]["replicas"] == 5
    assert "container_name" not in composed(*names)["services"][API]


def test_the_config_behind_the_gateway_has_no_queues_and_fewer_blocks_at_once() -> None:
    source = next(
        mount["source"]
        for mount in composed(*GPU)["services"][API]["volumes"]
        if mount["target"].endswith("pipeline_config.yaml")
    )
    usual, behind = (yaml.safe_load(Path(path).read_text()) for path in (ROOT / "pipeline_config_vllm.yaml", source))
    assert (usual.pop("use_queues"), behind.pop("use_queues")) == (True, False)
    servers = [config["SubModules"]["VLRecognition"]["genai_config"] for config in (usual, behind)]
    assert [server.pop("max_concurrency", None) for server in servers] == [None, overlay.REPLICA_CONCURRENCY]
    assert usual == behind
    mine = composed(*GPU, PIPELINE_CONFIG="/etc/mine.yaml")["services"][API]["volumes"]
    assert [mount["source"] for mount in mine if mount["target"].endswith("pipeline_config.yaml")] == ["/etc/mine.yaml"]


def test_without_the_gateway_nothing_of_it_is_there() -> None:
    assert set(composed("compose.yaml")["services"]) == {API, VLM}
    assert "GATEWAY" not in (ROOT / "compose.yaml").read_text() + (ROOT / "compose.preview.yaml").read_text()


@pytest.mark.parametrize("more", [files.ENGINE_20, files.OFFLINE, files.MODELS])
def test_it_goes_with_the_other_overlays(more: str) -> None:
    chosen = files.with_(list(GPU), more)
    services = composed(*chosen)["services"]
    assert services[GATEWAY] == composed(*GPU)["services"][GATEWAY]
    assert services[API]["deploy"]["replicas"] == 2 and "ports" not in services[API]


def test_an_api_alone_can_stand_behind_it() -> None:
    chosen = files.with_(list(GPU), files.API_ONLY)
    config = composed(*chosen, VLM_URL="http://10.0.0.5:8118/v1", GATEWAY_VLM="", VLM_NETWORK_INTERNAL="false")
    assert set(config["services"]) == {API, GATEWAY}
    assert config["services"][GATEWAY]["environment"]["GATEWAY_VLM"] == "", "there is none to watch"


# --- its settings


def test_every_setting_of_the_gateway_is_fixed_or_passed_on() -> None:
    environment = composed(*GPU)["services"][GATEWAY]["environment"]
    passed = {name for name, value in environment.items() if value is None}
    known = {setting.environment for setting in gateway_settings.TABLE}
    not_for_a_container = {"GATEWAY_HANDOVER", "GATEWAY_REPLICAS", "GATEWAY_SPOOL_DIR", "GATEWAY_API_KEYS"}
    assert {name for name in environment if name.startswith("GATEWAY_")} == known - not_for_a_container
    assert (
        composed(*GPU, **dict.fromkeys(passed, "7"))["services"][GATEWAY]["environment"].items()
        >= dict.fromkeys(passed, "7").items()
    )


def test_the_overlay_has_the_defaults_of_the_table() -> None:
    """Two are other ones, and the table says so: behind the gateway nothing has a way out, and a config of its own is taken."""
    used = dict(re.findall(r"\$\{(\w+):?-([^}]*)\}", (ROOT / files.GATEWAY).read_text()))
    other = {"VLM_NETWORK_INTERNAL": "true", "PIPELINE_CONFIG": "./pipeline_config_gateway.yaml"}
    secrets = {name: "/dev/null" for name in ("GATEWAY_API_KEYS_FILE", "GATEWAY_TLS_CERTIFICATE", "GATEWAY_TLS_KEY")}
    assert used == {name: SETTINGS[name].default for name in used} | other | secrets
    wanted = {name for name, setting in SETTINGS.items() if setting.used_by == "gateway"}
    assert wanted <= used.keys()


def test_an_api_in_a_container_has_the_environment_of_one_as_a_process() -> None:
    environment = composed(*GPU)["services"][API]["environment"]
    threads = {"OMP_NUM_THREADS"}  # of the preview's layout model, which runs on the CPU
    assert overlay.REPLICA_ENVIRONMENT.keys() - environment.keys() == threads
    assert all(environment[name] == overlay.REPLICA_ENVIRONMENT[name] for name in overlay.REPLICA_ENVIRONMENT.keys() - threads)


def test_keys_and_certificates_are_mounted_only_where_they_are_named() -> None:
    def of(**given: str) -> tuple[dict[str, Any], dict[str, str]]:
        service = composed(*GPU, **given)["services"][GATEWAY]
        return service["environment"], {mount["target"]: mount["source"] for mount in service["volumes"]}

    environment, mounts = of()
    assert environment["GATEWAY_API_KEYS_FILE"] == environment["GATEWAY_TLS_KEY"] == environment["GATEWAY_TLS_CERTIFICATE"] == ""
    environment, mounts = of(
        GATEWAY_API_KEYS_FILE="/etc/keys", GATEWAY_TLS_KEY="/etc/k.pem", GATEWAY_TLS_CERTIFICATE="/etc/c.pem"
    )
    assert mounts[environment["GATEWAY_API_KEYS_FILE"]] == "/etc/keys"
    assert mounts[environment["GATEWAY_TLS_KEY"]] == "/etc/k.pem"
    assert mounts[environment["GATEWAY_TLS_CERTIFICATE"]] == "/etc/c.pem"
    checks = composed(*GPU, GATEWAY_TLS_KEY="/etc/k.pem")["services"][GATEWAY]["healthcheck"]["test"]
    assert checks[3] == "https://127.0.0.1:8080/health" and checks[5] == "https://127.0.0.1:8080/ready"


def test_the_kit_has_the_key_and_the_certificate_for_its_own_gateway_alone(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("# ours\n\nme:0123456789abcdef, you:fedcba9876543210\n")
    settings = Settings(tmp_path, {"GATEWAY_API_KEYS_FILE": "keys", "API_PORT": "8099"})
    access.remember(settings)
    assert access.of("http://127.0.0.1:8099/layout-parsing").headers == {"Authorization": "Bearer 0123456789abcdef"}
    for other in ("http://127.0.0.1:80990/health", "https://127.0.0.1:8099/health", "http://127.0.0.1:8098"):
        assert access.of(other).headers == {} and access.of(other).verify is True
    assert Settings(tmp_path, {"GATEWAY_TLS_KEY": "k.pem"}).gateway_url == "https://127.0.0.1:8080"


# --- which files are in force


def test_a_number_of_replicas_turns_the_gateway_on_unless_the_files_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay(tmp_path, "compose.yaml", "compose.override.yaml")
    assert files.in_force(tmp_path, None, ONLINE, gateway=True) == [
        "compose.yaml", files.MODELS, files.GATEWAY, "compose.override.yaml",
    ]  # fmt: skip
    told = files_of(tmp_path, {"API_REPLICAS": "2"}, monkeypatch)
    assert files.GATEWAY in told
    assert files_of(tmp_path, {"API_REPLICAS": "2", "COMPOSE_FILE": "compose.yaml"}, monkeypatch) == []
    assert files_of(tmp_path, {}, monkeypatch) == ["compose.yaml", files.MODELS, "compose.override.yaml"]


def test_there_is_no_image_more_to_pull_or_to_carry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wanted(*names: str, **environ: str) -> dict[str, str]:
        stack = ComposeStack(tmp_path, Settings(tmp_path, environ))
        monkeypatch.setitem(stack.__dict__, "config", composed(*names))
        return stack.wanted_images()

    without = wanted("compose.yaml")
    assert set(without) == {API, VLM} and wanted(*GPU) == without


# --- the way to a changed configuration


def run(there: dict[str, list[str]], way: list[Step]) -> tuple[list[int], list[str]]:
    """How many APIs there are after each step, and which in the end; a new one is called `new`."""
    apis, counts = list(there[API]), []
    for step in way:
        if step.do == START:
            apis.append("new")
        elif step.do == STOP:
            apis.remove(step.container)
        counts.append(len(apis))
    return counts, apis


@pytest.mark.parametrize("before", range(1, 5))
@pytest.mark.parametrize("wanted", range(1, 5))
def test_there_are_never_fewer_apis_than_before_or_than_wanted(before: int, wanted: int) -> None:
    there = {API: [f"api-{number}" for number in range(before)]}
    for old in range(before + 1):
        outdated = {API: there[API][:old]}
        counts, left = run(there, steps(there, outdated, wanted))
        assert len(left) == wanted and not set(left) & set(outdated[API])
        assert min(counts, default=before) >= min(before, wanted)
        assert max(counts, default=before) <= max(before, wanted + 1)


def test_each_old_one_goes_when_its_successor_is_there_and_single_ones_frame_it() -> None:
    there = {VLM: ["v"], API: ["a", "b"], GATEWAY: ["g"]}
    assert steps(there, there, 2) == [
        Step(REPLACE, VLM, "v"), Step(START, API), Step(STOP, API, "a"), Step(START, API), Step(STOP, API, "b"),
        Step(REPLACE, GATEWAY, "g"),
    ]  # fmt: skip
    assert steps(there, {}, 2) == []


def test_an_api_is_given_the_time_of_a_range_to_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = {"GATEWAY_RANGE_SECONDS": "10", "GATEWAY_PAGE_SECONDS": "2.5", "API_REPLICAS": "1"}
    stack = ComposeStack(tmp_path, Settings(tmp_path, given))
    there = {API: [{"Id": "new"}, {"Id": "old"}]}
    monkeypatch.setattr(ComposeStack, "containers", lambda _: there)
    monkeypatch.setattr(ComposeStack, "outdated", lambda _: {API: [{"Id": "old"}]})
    monkeypatch.setattr(ComposeStack, "wanted_counts", lambda _: {API: 1})
    done: list[list[str]] = []
    monkeypatch.setattr(rolling, "_change", lambda _, argv: done.append(argv))
    rolling.roll(stack, 1)
    assert done == [["docker", "stop", "-t", "50", "old"], ["docker", "rm", "--volumes", "old"]], "16 pages"


# --- several containers, one service


@pytest.mark.parametrize(
    ("states", "state", "dead"),
    [
        (["ready", "ready"], "ready", 0),
        (["ready", "starting"], "starting", 0),
        (["ready", "absent"], "starting", 0),
        (["ready", "exited"], "unhealthy", 1),
        (["starting", "unhealthy"], "unhealthy", 0),
        (["exited", "exited"], "exited", 2),
    ],
)
def test_replicas_together_are_ready_when_all_are(states: list[str], state: str, dead: int) -> None:
    made = together([Service(API, one, 5.0 + number, f"container {number}", restarts=1) for number, one in enumerate(states)])
    assert (made.name, made.state, made.dead, made.restarts, made.seconds) == (API, state, dead, 2, 5.0)
    assert made.detail.startswith("2 replicas: ")
    assert all(f" {one}" in made.detail for one in states)


def test_one_container_is_shown_as_it_is() -> None:
    alone = Service(API, "ready", 5.0, "container 0123")
    assert together([alone]) is alone
