"""The tables of docs/catalog.md, from the catalog and the memory model."""

from __future__ import annotations

from collections.abc import Iterable

from kit.catalog import backends, images, models
from kit.plan import memory
from kit.plan.memory import GIB

IDLE = 0.97  # of a card's memory is free where nobody uses it; the driver keeps the rest
SIZES = (6, 8, 12, 16, 24, 32, 48, 80, 141)  # GiB
ESTIMATE = "estimate, not measured on a card"


def markdown() -> str:
    """Everything below the page's title."""
    return "\n".join(
        [
            "## Models\n",
            "`--model` takes the first column. The four that follow belong together.\n",
            _table("model | pipeline_name | layout model | threshold | VLM_MODEL_NAME | least paddleocr | source", _models()),
            "## Images\n",
            "Both services take their tag from one family. The first that fits the card and `--offline` is taken.\n",
            _table("tag | for | driver's CUDA | paddleocr | model inside | tag moves | source", _images()),
            "A tag `paddleocr3.7-…` does not exist: the registry ends at 3.6 (list of 2026-09-03).\n",
            "## Backends\n",
            _table("--backend | genai_config.backend | compute capability | started by the kit | source", _backends()),
            "## Memory\n",
            "What a plan counts with. Weights and KV cache follow from the sizes of the published model.\n",
            _table("part | size | where from", _constants()),
            "What comes of it on a card that nobody else uses, with API and VLM on it:\n",
            _table(
                "card | gpu-memory-utilization | max-num-batched-tokens | max-model-len | max-num-seqs | layout batch "
                "| KV cache | longest requests at once",
                _cards(),
            ),
        ]
    )


def _models() -> Iterable[tuple[str, ...]]:
    for model in models.MODELS:
        threshold = f"{model.threshold}" if isinstance(model.threshold, float) else "0.4 to 0.5, by class"
        named = (f"`{name}`" for name in (model.name, model.pipeline_name, model.layout))
        yield (*named, threshold, f"`{model.vlm}`", "{}.{}".format(*model.paddleocr), model.source)


def _images() -> Iterable[tuple[str, ...]]:
    for family in images.FAMILIES:
        cards = "12.x (Blackwell)" if family.build == images.BLACKWELL else "below 10.0"
        cuda = "{}.{}".format(*images.LEAST_CUDA[family.build])
        source = family.source + (f"; {family.note}" if family.note else "")
        version = "{}.{}".format(*family.paddleocr)
        yield f"`{family.tag}`", cards, cuda, version, family.carries or "-", "yes" if family.moving else "no", source


def _backends() -> Iterable[tuple[str, ...]]:
    for backend in backends.BACKENDS:
        cards = ", ".join("{}.{}".format(*c) for c in backend.only)
        if backend.least:
            cards = "{}.{} and above".format(*backend.least) + (", below {}.{}".format(*backend.below) if backend.below else "")
        started = "yes" if backend.image else "the API alone" if not backend.own_server else "no: `--vlm-url`"
        yield f"`{backend.name}`", f"`{backend.client}`", cards or "its own", started, f"{backend.about}. {backend.source}"


def _constants() -> Iterable[tuple[str, ...]]:
    kv = models.KV_BYTES_PER_TOKEN
    yield "weights of the VLM", _gib(models.WEIGHTS_FILE), "model.safetensors of 1.6, 1,917,255,968 bytes, bfloat16"
    yield (
        "KV cache, a token",
        f"{kv // 1024} KiB",
        f"2 × {models.LAYERS} layers × {models.KEY_VALUE_HEADS} heads × {models.HEAD_SIZE} × 2 bytes",
    )
    yield "longest request", f"{memory.REQUEST_TOKENS} tokens", "picture 2048, answer 4096 (paddlex 3.7.2 source), prompt"
    for step in sorted({step.batched_tokens for step in memory.STEPS}):
        yield (
            f"profile peak at {step} batched tokens",
            _gib(memory.profile_peak(step, 256)),
            f"{memory.profile_images(step)} pictures (OCR#17359: 131072 tokens are 668), "
            f"{memory.PATCH_PEAK // 1000} kB a patch: {ESTIMATE}",
        )
    for name, size in (
        ("CUDA context of a process", memory.CONTEXT),
        ("NCCL, cuBLAS workspaces of vLLM", memory.RUNTIME),
        ("CUDA graphs of vLLM", memory.GRAPHS),
        ("layout model", memory.LAYOUT_WEIGHTS),
        ("layout model, each page at once", memory.LAYOUT_PAGE),
        ("VLM inside PaddlePaddle (`native`), beside its weights", memory.NATIVE_PEAK),
    ):
        yield name, _gib(size), ESTIMATE
    yield "left free", f"{memory.RESERVE_PART:.0%}, at least {_gib(memory.RESERVE_LEAST)}", "a choice"


def _cards() -> Iterable[tuple[str, ...]]:
    for size in SIZES:
        total = size * GIB
        budget = memory.vlm_budget(total, int(total * IDLE), None, base=total, with_api=True)
        assert budget, "the smallest card of the table has room"
        step = budget.step
        figures = (step.batched_tokens, step.model_len, budget.seqs, step.layout_batch)
        yield f"{size} GiB", f"{budget.utilization:.2f}", *map(str, figures), _gib(budget.kv), str(budget.requests)


def _gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB"


def _table(head: str, rows: Iterable[tuple[str, ...]]) -> str:
    lines = [f"| {head} |", "|" + " --- |" * (head.count("|") + 1)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"
