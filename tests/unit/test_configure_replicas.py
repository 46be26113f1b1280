"""./kit configure --replicas: how many APIs, what they take, and the files that say so."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
from kit import configure, lint
from kit.catalog.settings import ENV_FILE, SETTINGS, Settings
from kit.errors import ExitCode, KitError
from kit.facts.machine import Machine
from kit.plan import AUTO, Plan, Wishes, memory, plan
from kit.plan.memory import GIB
from kit.stack import API, GATEWAY, VLM, files
from nvml import load
from support import ROOT
from test_configure import clone, composed, pipeline, put, vlm

__all__ = ["clone"]
HOST = Machine("Linux", "x86_64", False, 16, 64 * GIB, 60 * GIB)


@pytest.fixture
def gateway_clone(clone: Path) -> Path:
    """With what the gateway's file mounts."""
    shutil.copy(ROOT / files.GATEWAY, clone)
    (clone / "scripts/kit/gateway").mkdir(parents=True)
    return clone


def planned(machine: str, host: Machine = HOST, **wishes: object) -> Plan:
    return plan(load(machine), host, Wishes(**wishes))


# --- how many


@pytest.mark.parametrize(
    ("cores", "gib", "replicas"), [(2, 60, 1), (4, 60, 2), (6, 60, 4), (16, 60, 8), (64, 500, 8), (16, 12, 4), (16, 3, 1)]
)
def test_cores_and_ram_bound_them(cores: int, gib: int, replicas: int) -> None:
    host = dataclasses.replace(HOST, cores=cores, memory_available=gib * GIB)
    made = planned("h200", host, replicas=AUTO)
    assert made.replicas == replicas
    (choice,) = [choice for choice in made.choices if choice.name == "API replicas"]
    assert choice.value == str(replicas) and f"{cores} cores" in choice.reason


@pytest.mark.parametrize("machine", ["rtx3060-12gb", "rtx4090", "rtx5060-8gb", "2xa100-80", "h100-mig-container"])
def test_on_a_card_they_cost_neither_the_vlm_nor_the_layout_its_size(machine: str) -> None:
    one, many = planned(machine, replicas=1), planned(machine, replicas=AUTO)
    assert many.layout_batch == one.layout_batch and many.topology == one.topology
    for before, after in zip(one.placed, many.placed, strict=True):
        assert after.vlm_budget.step == before.vlm_budget.step
        for _, budget in after.budgets:
            assert budget.planned <= budget.limit
    assert 1 <= many.replicas <= 8


def test_small_cards_take_fewer_than_large_ones() -> None:
    counts = [planned(machine, replicas=AUTO).replicas for machine in ("rtx5060-8gb", "rtx4090", "h200")]
    assert counts == sorted(counts) and counts[0] < counts[-1]


def test_each_takes_its_layout_model_from_what_the_vlm_could_have_had() -> None:
    one, four = (planned("rtx4090", replicas=count).placed[0].vlm_budget for count in (1, 4))
    assert sum(part.size for part in memory.layout_parts(four.step.layout_batch, 4)) == sum(
        part.size for part in four.parts if part.service == "api"
    )
    assert four.utilization < one.utilization and four.planned <= four.limit


def test_together_they_ask_no_more_of_the_vlm_than_it_runs_at_once() -> None:
    made = planned("h200", replicas=4)
    assert 4 * made.at_once <= made.placed[0].vlm_budget.seqs


def test_more_than_a_card_holds_is_refused() -> None:
    with pytest.raises(KitError) as caught:
        planned("rtx5060-8gb", replicas=20)
    assert caught.value.code == ExitCode.ENVIRONMENT and "are needed" in caught.value.message


def test_native_has_no_replicas() -> None:
    with pytest.raises(KitError) as caught:
        planned("h200", backend="native", replicas=2)
    assert caught.value.code == ExitCode.USAGE


# --- as files


def test_compose_starts_what_was_planned(gateway_clone: Path) -> None:
    put(gateway_clone, "h200", replicas=4)
    config = composed(gateway_clone)
    assert set(config["services"]) == {VLM, API, GATEWAY}
    assert config["services"][API]["deploy"]["replicas"] == 4
    assert "internal" not in config["networks"]["back"], "online images fetch their models"
    assert pipeline(gateway_clone)["use_queues"] is False
    served = vlm(gateway_clone)["max-num-seqs"]
    assert 4 * pipeline(gateway_clone)["SubModules"]["VLRecognition"]["genai_config"]["max_concurrency"] <= served
    found = [finding.rule.id for finding in lint.lint(lint.load(gateway_clone, {}))]
    assert found == []


def test_offline_images_have_no_way_out(gateway_clone: Path) -> None:
    put(gateway_clone, "h200", replicas=4, offline=True)
    assert composed(gateway_clone)["networks"]["back"]["internal"] is True


def test_an_own_vlm_server_is_reached_and_watched(gateway_clone: Path) -> None:
    put(gateway_clone, "h200", replicas=2, vlm_url="http://h.example:9/v1")
    config = composed(gateway_clone)
    assert set(config["services"]) == {API, GATEWAY} and "internal" not in config["networks"]["back"]
    assert config["services"][GATEWAY]["environment"]["GATEWAY_VLM"] == "http://h.example:9/v1"
    put(gateway_clone, "h200", replicas=2, vlm_url="https://h.example:9/v1")
    assert composed(gateway_clone)["services"][GATEWAY]["environment"]["GATEWAY_VLM"] == ""
    put(gateway_clone, "h200", replicas=2)
    assert composed(gateway_clone)["services"][GATEWAY]["environment"]["GATEWAY_VLM"] == SETTINGS["GATEWAY_VLM"].default


def test_without_it_the_two_containers_are_back(gateway_clone: Path) -> None:
    put(gateway_clone, "h200", replicas=4)
    put(gateway_clone, "h200")
    assert set(composed(gateway_clone)["services"]) == {VLM, API}
    assert pipeline(gateway_clone)["use_queues"] is True
    assert "API_REPLICAS=\n" in (gateway_clone / ENV_FILE).read_text()
    assert Settings(gateway_clone, {}).given("API_REPLICAS") is None


def test_a_plan_without_a_word_of_it_writes_no_word_of_it(gateway_clone: Path) -> None:
    put(gateway_clone, "h200")
    assert "REPLICAS" not in (gateway_clone / ENV_FILE).read_text()
    assert configure.PIPELINE_FILE in (gateway_clone / ENV_FILE).read_text() and pipeline(gateway_clone)["use_queues"] is True
