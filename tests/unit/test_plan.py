"""The plan for every recorded machine, through the real NVML binding, and the memory arithmetic on cards of all sizes."""

from __future__ import annotations

import dataclasses
import functools

import pytest
from kit.catalog import images, models
from kit.errors import ExitCode, KitError
from kit.facts.gpus import Gpu, MigInstance, Nvidia, Process
from kit.facts.machine import Machine
from kit.plan import KV_BYTES, Plan, Wishes, memory, plan
from kit.plan.memory import GIB
from nvml import NAMES, load

HOST = Machine("Linux", "x86_64", False, 16, 64 * GIB, 60 * GIB)
UNITS = {"dgx-spark-gb10": {"arch": "aarch64"}, "wsl2-rtx4070-laptop": {"wsl": True}}
DEFAULT, BLACKWELL = "paddleocr3.6-nvidia-gpu", "latest-nvidia-gpu-sm120"

# topology, beginning of the labels of the cards (VLM, API), tag, least and most utilization
PLANNED = {
    "2xa100-80": ("split", "GPU 0", "GPU 1", DEFAULT, 0.90, 0.95),
    "8-mixed": ("split", "GPU 0", "GPU 2", DEFAULT, 0.90, 0.95),
    "card-lost": ("shared", "GPU 0", "GPU 0", DEFAULT, 0.75, 0.83),
    "h100-mig": ("split", "MIG-00000001", "MIG-00000003", DEFAULT, 0.44, 0.47),
    "h100-mig-container": ("shared", "MIG-00000004", "MIG-00000004", DEFAULT, 0.85, 0.90),
    "h200": ("shared", "GPU 0", "GPU 0", DEFAULT, 0.90, 0.95),
    "rtx3060-12gb": ("shared", "GPU 0", "GPU 0", DEFAULT, 0.60, 0.70),
    "rtx4090": ("shared", "GPU 0", "GPU 0", DEFAULT, 0.75, 0.82),
    "rtx5060-8gb": ("shared", "GPU 0", "GPU 0", BLACKWELL, 0.60, 0.68),
    "rtx5090": ("shared", "GPU 0", "GPU 0", BLACKWELL, 0.80, 0.87),
    "wsl2-rtx4070-laptop": ("shared", "GPU 0", "GPU 0", DEFAULT, 0.50, 0.58),
}

# what the message says, what the hint offers
REFUSED = {
    "b200": ("no official image runs on compute capability 10.0", "--vlm-url"),
    "dgx-spark-gb10": ("for x86_64 alone; this is aarch64", "./kit up --preview"),
    "driver-not-loaded": ("kernel module is not loaded", "./kit up --preview"),
    "driver-r470": ("serves CUDA 11.4; the images need 12.6", "version 560"),
    "driver-too-old": ("serves CUDA 12.2; the images need 12.6", "version 560"),
    "gpu-full": ("1.1 GiB of 45.0 GiB are free", "stop what holds the memory"),
    "no-driver": ("no NVIDIA driver is installed", "./kit up --preview"),
    "no-gpu": ("shows no GPU", "./kit up --preview"),
    "no-permission": ("may not talk to the NVIDIA driver", "./kit up --preview"),
    "nvml-mismatch": ("driver/library version mismatch", "./kit up --preview"),
    "rtx5090-cuda12.8": ("serves CUDA 12.8; the images need 12.9", "version 575"),
    "t4": ("vllm needs compute capability 8.0 or newer, this is 7.5", "--backend native"),
    "v100": ("vllm needs compute capability 8.0 or newer, this is 7.0", "--backend native"),
}


@functools.cache
def seen(machine: str) -> Nvidia:
    return load(machine)


def planned(machine: str, **wishes: object) -> Plan:
    return plan(seen(machine), dataclasses.replace(HOST, **UNITS.get(machine, {})), Wishes(**wishes))


def check(made: Plan) -> None:
    """What holds of every plan, on whatever card."""
    assert len({(p.api.device, p.vlm and p.vlm.device) for p in made.placed}) == len(made.placed)
    for placed in made.placed:
        for card, budget in placed.budgets:
            assert budget.planned + budget.reserve <= card.free
            assert budget.reserve >= 0.25 * GIB
        if placed.vlm is None:
            continue
        budget, step = placed.vlm_budget, placed.vlm_budget.step
        # vLLM refuses to start unless this much is free, and by then its own context is not.
        assert budget.utilization * placed.vlm.base <= placed.vlm.free - memory.CONTEXT
        assert 0 < budget.utilization <= 0.95
        inside = [part.size for part in budget.parts if part.share]
        assert sum(inside) == budget.share == int(budget.utilization * placed.vlm.base)
        assert min(inside) > 0
        # It refuses, too, a cache that does not hold the longest request, and fewer tokens a step than requests.
        assert budget.kv_tokens >= step.model_len >= memory.REQUEST_TOKENS
        assert step.batched_tokens > models.IMAGE_TOKENS and budget.seqs <= step.batched_tokens
        assert 8 <= budget.seqs <= 512 and made.at_once <= budget.seqs
    assert made.placed[0].api.build == made.family.build
    assert all(choice.value and choice.reason for choice in made.choices)


# --- the recorded machines


def test_every_recorded_machine_has_its_expectation() -> None:
    assert sorted(PLANNED | REFUSED) == NAMES
    assert len(NAMES) >= 12


@pytest.mark.parametrize("machine", PLANNED)
def test_the_plan_of_a_machine(machine: str) -> None:
    topology, vlm, api, tag, least, most = PLANNED[machine]
    made = planned(machine)
    check(made)
    (placed,) = made.placed
    assert (made.topology, made.family.tag) == (topology, tag)
    assert placed.vlm.label.startswith(vlm) and placed.api.label.startswith(api)
    assert (placed.api == placed.vlm) == (topology == "shared")
    assert least <= placed.vlm_budget.utilization <= most


@pytest.mark.parametrize("machine", REFUSED)
def test_what_cannot_be_planned_is_refused_with_what_works(machine: str) -> None:
    message, hint = REFUSED[machine]
    with pytest.raises(KitError) as caught:
        planned(machine)
    assert message in caught.value.message and hint in caught.value.hint
    assert caught.value.code == ExitCode.ENVIRONMENT


@pytest.mark.parametrize("machine", PLANNED)
@pytest.mark.parametrize("wish", [{"backend": "native"}, {"backend": "llama-cpp", "vlm_url": "http://h:1/v1"}, {"offline": True}])
def test_other_wishes_fit_too(machine: str, wish: dict) -> None:
    check(planned(machine, **wish))


def test_pairs_take_every_card_of_one_build() -> None:
    made = planned("8-mixed", topology="pairs")
    check(made)
    assert [p.api.label.split(" (")[0] for p in made.placed] == ["GPU 0", "GPU 2", "GPU 3", "GPU 6"]
    assert [p.number for p in made.placed] == [0, 1, 2, 3]
    assert made.at_once == min(p.vlm_budget.seqs for p in made.placed)


def test_more_than_two_named_cards_are_pairs_and_one_is_shared() -> None:
    assert len(planned("8-mixed", gpus=("0", "2", "6")).placed) == 3
    assert planned("2xa100-80", gpus=("1",)).topology == "shared"
    assert planned("2xa100-80", gpus=("0", "1"), topology="pairs").topology == "pairs"


def test_cards_are_named_by_index_when_alone_and_by_uuid_among_others() -> None:
    assert planned("rtx4090").placed[0].vlm.device == "0"
    made = planned("2xa100-80", gpus=("1",))
    assert made.placed[0].vlm.device == seen("2xa100-80").gpus[1].uuid


def test_a_card_is_found_by_index_uuid_and_the_beginning_of_one() -> None:
    uuid = seen("8-mixed").gpus[6].uuid
    for word in ("6", uuid, uuid[:-2]):
        assert planned("8-mixed", gpus=(word,)).placed[0].vlm.device == uuid


@pytest.mark.parametrize(
    ("gpus", "says"), [(("9",), "is not here"), (("0", "0"), "named twice"), (("GPU-0000",), "several cards")]
)
def test_cards_that_cannot_be_told_are_refused(gpus: tuple[str, ...], says: str) -> None:
    with pytest.raises(KitError, match=says) as caught:
        planned("8-mixed", gpus=gpus)
    assert caught.value.code == ExitCode.USAGE and "GPU 3 (NVIDIA L4)" in caught.value.hint


def test_a_card_whose_images_the_driver_does_not_serve_drops_out() -> None:
    old, new = seen("rtx4090"), seen("rtx5090-cuda12.8")
    both = dataclasses.replace(new, gpus=(dataclasses.replace(old.gpus[0], index=0), dataclasses.replace(new.gpus[0], index=1)))
    made = plan(both, HOST, Wishes())
    assert "RTX 4090" in made.placed[0].vlm.label and made.family.build == images.DEFAULT
    with pytest.raises(KitError) as caught:  # asked for alone, it is the driver that is in the way
        plan(both, HOST, Wishes(gpus=("1",)))
    assert "the images need 12.9" in caught.value.message and "update the driver" in caught.value.hint


def test_cards_of_two_builds_are_never_mixed() -> None:
    with pytest.raises(KitError, match="different builds"):
        planned("8-mixed", gpus=("0", "7"))
    for made in (planned("8-mixed"), planned("8-mixed", topology="pairs")):
        assert {p.build for placed in made.placed for p in (placed.api, placed.vlm)} == {images.DEFAULT}


def test_of_two_cards_that_need_different_builds_one_is_taken() -> None:
    cards = tuple(Gpu(n, "X", f"GPU-{n}", 24 * GIB, free * GIB, cc) for n, free, cc in ((0, 20, (8, 9)), (1, 23, (12, 0))))
    made = plan(Nvidia("580", (13, 0), cards), HOST, Wishes())
    assert (made.topology, made.placed[0].vlm.device, made.family.tag) == ("shared", "GPU-1", BLACKWELL)


def test_a_slice_of_a_gpu_gets_a_cache_of_a_size_of_its_own() -> None:
    """vLLM may count the whole GPU or the slice (vllm#41776); the start must pass both ways."""
    made = planned("h100-mig", gpus=("MIG-00000003",))
    check(made)
    (placed,) = made.placed
    assert placed.vlm.device.startswith("MIG-")
    assert placed.vlm_budget.utilization * placed.vlm.total <= placed.vlm.free - memory.CONTEXT
    assert str(placed.vlm_budget.kv) in [choice.value for choice in made.choices if choice.name == KV_BYTES]
    assert KV_BYTES not in [choice.name for choice in planned("rtx4090").choices]


def test_mig_without_an_instance_says_how_to_make_one() -> None:
    card = dataclasses.replace(seen("h100-mig").gpus[0], mig=())
    with pytest.raises(KitError, match="MIG on and no instance"):
        plan(Nvidia("580", (13, 0), (card,)), HOST, Wishes())


def test_wsl_hands_all_cards_over_so_the_first_is_taken() -> None:
    made = plan(seen("2xa100-80"), dataclasses.replace(HOST, wsl=True), Wishes())
    assert (made.topology, made.placed[0].vlm.device) == ("shared", "0")


def test_who_holds_the_memory_is_named() -> None:
    card = Gpu(0, "X", "GPU-x", 8 * GIB, 2 * GIB, (8, 9), (Process(42, "python", 5 * GIB), Process(43, "Xorg", GIB)))
    with pytest.raises(KitError, match=r"python \(pid 42\), Xorg \(pid 43\)"):
        plan(Nvidia("580", (13, 0), (card,)), HOST, Wishes())


@pytest.mark.parametrize("system", ["Darwin", "Windows"])
def test_other_systems_are_refused(system: str) -> None:
    with pytest.raises(KitError, match=f"this is {system}"):
        plan(seen("rtx4090"), dataclasses.replace(HOST, system=system), Wishes())


# --- model, images, backend


@pytest.mark.parametrize(
    ("machine", "wishes", "tag", "model"),
    [
        ("rtx4090", {}, DEFAULT, "PaddleOCR-VL-0.9B"),
        ("rtx4090", {"model": "1.6"}, DEFAULT, "PaddleOCR-VL-1.6"),
        ("rtx4090", {"usual_model": "PaddleOCR-VL-1.5-0.9B"}, DEFAULT, "PaddleOCR-VL-1.5"),
        ("rtx4090", {"offline": True}, f"{DEFAULT}-offline", "PaddleOCR-VL-1.6"),
        ("rtx5090", {"model": "1.6"}, BLACKWELL, "PaddleOCR-VL-1.6"),
        ("rtx5090", {"offline": True}, "latest-gpu-sm120-offline", "PaddleOCR-VL-0.9B"),
        ("rtx5090", {"offline": True, "model": "1.6"}, "latest-nvidia-gpu-sm120-offline", "PaddleOCR-VL-1.6"),
    ],
)
def test_images_and_model(machine: str, wishes: dict, tag: str, model: str) -> None:
    made = planned(machine, **wishes)
    assert (made.family.tag, made.model.name) == (tag, model)


@pytest.mark.parametrize(
    ("machine", "wishes", "message", "hint"),
    [
        ("rtx4090", {"offline": True, "model": "0.9B"}, "no offline image", "PaddleOCR-VL-1.6"),
        ("rtx5090", {"backend": "llama-cpp", "vlm_url": "http://h/v1", "offline": True}, "no offline image", "PaddleOCR-VL-1.6"),
        ("rtx5090", {"backend": "fastdeploy"}, "8.0, 8.6, 8.9, 9.0, this is 12.0", "--backend vllm"),
        ("rtx4090", {"backend": "sglang"}, "no official image for sglang", "--vlm-url"),
        ("rtx4090", {"backend": "native", "vlm_url": "http://h/v1"}, "native has no VLM server", "leave one"),
        ("rtx4090", {"backend": "native", "topology": "split"}, "--topology split", "leave --topology out"),
        ("rtx4090", {"topology": "split"}, "needs two cards", "--gpu"),
        ("2xa100-80", {"topology": "split", "gpus": ("1",)}, "needs two cards", "--gpu"),
        (
            "card-lost",
            {"topology": "split"},
            "GPU 0 (NVIDIA A10) can hold the service, but no other card",
            "leave --topology out",
        ),
        ("rtx4090", {"model": "2.0"}, "unknown model 2.0", "PaddleOCR-VL-1.5"),
        ("rtx4090", {"backend": "tgi"}, "unknown backend tgi", "llama-cpp"),
        ("rtx4090", {"budget": 3}, "--budget 3 GiB is too little", "raise --budget"),
    ],
)
def test_wishes_that_cannot_be_met(machine: str, wishes: dict, message: str, hint: str) -> None:
    with pytest.raises(KitError) as caught:
        planned(machine, **wishes)
    assert message in caught.value.message and hint in caught.value.hint


@pytest.mark.parametrize("machine", ["t4", "v100"])
def test_the_way_out_for_an_old_card_is_one(machine: str) -> None:
    newer_driver = dataclasses.replace(seen(machine), cuda=(13, 0))
    for wish in ({"backend": "native"}, {"backend": "llama-cpp", "vlm_url": "http://h:1/v1"}):
        check(plan(newer_driver, HOST, Wishes(**wish)))


def test_fastdeploy_takes_the_longest_request_in_one_step() -> None:
    for machine in ("rtx3060-12gb", "rtx4090", "2xa100-80"):
        step = planned(machine, backend="fastdeploy").placed[0].vlm_budget.step
        assert memory.REQUEST_TOKENS <= step.model_len <= step.batched_tokens


def test_a_small_host_starts_fewer_processes_before_the_engine() -> None:
    assert planned("rtx4090").api_servers is None
    assert plan(seen("rtx4090"), dataclasses.replace(HOST, cores=4), Wishes()).api_servers == 1


# --- memory, on cards of all sizes

TOTALS = [6, 8, 10, 12, 16, 24, 32, 48, 80, 96, 141, 192]
FREE = [part / 20 for part in range(4, 21)]


@pytest.mark.parametrize("with_api", [True, False])
@pytest.mark.parametrize("total", TOTALS)
def test_budgets_fit_and_grow_with_what_is_free(total: int, with_api: bool) -> None:
    before = None
    for part in FREE:
        free = int(total * GIB * part)
        card = Gpu(0, "synthetic", "GPU-s", total * GIB, free, (8, 9))
        budget = memory.vlm_budget(total * GIB, free, None, base=total * GIB, with_api=with_api)
        if budget is None:
            assert before is None, "more free memory must never end a plan"
            continue
        if with_api:
            check(plan(Nvidia("580", (13, 0), (card,)), HOST, Wishes()))
        if before:
            assert budget.step.batched_tokens >= before.step.batched_tokens
            assert budget.step.layout_batch >= before.step.layout_batch
            # A hundredth of the card is what utilization can express.
            assert budget.planned >= before.planned - total * GIB / 100
        # Nothing is wasted: what is neither planned nor reserved is less than that hundredth, or above vLLM's most.
        capped = budget.utilization == memory.UTILIZATION_MOST
        assert capped or budget.limit - budget.planned <= total * GIB / 100 + 1  # byte, by rounding
        before = budget
    assert before is not None, "an empty card of 6 GB and more can serve"


def test_the_card_of_the_known_failure_gets_a_plan_that_starts() -> None:
    """`Free memory on device (6.77/7.96 GiB) … is less than desired GPU memory utilization (0.99, 7.88 GiB)`."""
    total, free = int(7.96 * GIB), int(6.77 * GIB)
    budget = memory.vlm_budget(total, free, None, base=total, with_api=True)
    assert budget.utilization * 7.96 < 6.77 - 0.5
    assert budget.requests >= 8


def test_a_large_card_serves_hundreds_at_once_and_none_of_it_lies_idle() -> None:
    total = 80 * GIB
    budget = memory.vlm_budget(total, int(79.2 * GIB), None, base=total, with_api=True)
    assert budget.seqs == 512 and budget.requests > 500
    assert (budget.planned + budget.reserve) / budget.free > 0.98


@pytest.mark.parametrize(("tokens", "pictures"), [(131072, 668), (16384, 83), (4096, 20)])
def test_pictures_that_vllm_profiles_with(tokens: int, pictures: int) -> None:
    """OCR#17359: a budget of 131072 tokens is `profiled with 668 image items`."""
    assert memory.profile_images(tokens) == pictures


def test_the_default_of_paddlex_would_not_fit_a_card_of_16_gib() -> None:
    assert memory.profile_peak(131072, 256) > 16 * GIB > memory.profile_peak(16384, 512)


@pytest.mark.parametrize("limit", [6, 8, 12, 40])
def test_a_budget_is_kept(limit: int) -> None:
    made = planned("2xa100-80", budget=limit, topology="shared")
    check(made)
    assert sum(b.planned for _, b in made.placed[0].budgets) <= limit * GIB


def test_float32_takes_twice_the_room() -> None:
    half, whole = (sum(part.size for part in memory.native_parts(kind)) for kind in (True, False))
    assert whole == 2 * half


def test_least_free_is_the_least() -> None:
    total = 24 * GIB
    least = memory.least_free(total, with_api=True)
    fits = functools.partial(memory.vlm_budget, total, budget=None, base=total, with_api=True)
    assert fits(least) and not fits(least - GIB // 5)


def test_a_mig_instance_is_a_card() -> None:
    small = MigInstance("MIG-1", "1g.12gb", 11 * GIB, 11 * GIB)
    card = Gpu(0, "H200", "GPU-h", 141 * GIB, 100 * GIB, (9, 0), mig=(small,), mig_enabled=True)
    check(plan(Nvidia("580", (13, 0), (card,)), HOST, Wishes()))
