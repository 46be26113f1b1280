"""What the service takes of a card, part by part. Pure arithmetic; docs/configure.md explains it.

vLLM computes its share as gpu-memory-utilization × the card's total, refuses to start when less than that is free,
and takes weights, profile peak and KV cache from it; its CUDA context was made before it looks, and its CUDA graphs
come after it has divided the share (vLLM 0.10.2 source, v1/worker/gpu_worker.py). The API's layout model
loads later, into what is left.
"""

from __future__ import annotations

from dataclasses import dataclass

from kit.catalog import models

GIB = 2**30

# --- Estimates, not measured on a card. Rounded up; all in bytes.

CONTEXT = round(0.5 * GIB)  # CUDA context and libraries of one process
RUNTIME = round(0.3 * GIB)  # NCCL, cuBLAS workspaces, allocator: inside vLLM's share, beside the weights
GRAPHS = round(0.5 * GIB)  # CUDA graphs, captured after the share is divided
LAYOUT_WEIGHTS = round(0.25 * GIB)  # both layout models are about 130 to 210 MB on disk
LAYOUT_PAGE = round(0.2 * GIB)  # activations for a page of 800 × 800 in the layout model's batch
NATIVE_PEAK = round(3 * GIB)  # activations of the VLM inside PaddlePaddle; HF PaddleOCR-VL discussion 59: 3.3 GB in all
API_RAM = round(2.5 * GIB)  # of the host, for an API: 0.9 GB without PaddlePaddle (measured on 63 pages), its libraries beside
RESERVE_LEAST, RESERVE_PART = round(0.25 * GIB), 0.03  # left free: a desktop, an allocator's rounding

# What one patch takes in the vision tower at its widest: residual, norm, q, k, v and two float32 copies
# for the rotation come to 23 kB (paddlex 3.7.2 source, _vllm.py, SiglipAttention); the rest is for what
# this count overlooks.
PATCH_PEAK = 40_000
TOKEN_PEAK = 32_000  # the language part: gate and up 24 kB, hidden states
SAMPLER_COPIES = 4  # of the float32 logits of each request, while vLLM warms its sampler up

# --- Derived

REQUEST_TOKENS = models.IMAGE_TOKENS + models.ANSWER_TOKENS + 64  # the longest: picture, answer, prompt
USUAL_TOKENS = 1024  # a paragraph's picture and text; estimate, used for how many requests run at once
UTILIZATION_MOST = 0.95  # above it vLLM's own bookkeeping has no air


@dataclass(frozen=True)
class Step:
    """One size of the service. layout_batch: pages that the layout model takes at once. requests: least that
    the KV cache must hold at full length for this step to be chosen."""

    batched_tokens: int
    model_len: int
    seqs: int
    layout_batch: int
    requests: int


# From the largest to the smallest; the first that fits is taken. 16384 batched tokens is what vLLM's recipe for
# PaddleOCR-VL uses; no step goes below 4096, because a picture of 2048 tokens must fit into one step.
STEPS = (
    Step(16384, 16384, 512, 8, requests=16),
    Step(8192, 16384, 256, 4, requests=16),
    Step(4096, 8192, 128, 2, requests=8),
    Step(4096, 8192, 64, 1, requests=4),
)


@dataclass(frozen=True)
class Part:
    """Something that takes memory of a card. size: bytes. service: "vlm" or "api". share: inside vLLM's share."""

    name: str
    size: int
    service: str
    share: bool = False


@dataclass(frozen=True)
class Budget:
    """The memory of one card. total, free, reserve: bytes. limit: what the plan may use of it, bytes.

    step: the size chosen. share: what the VLM server may take, bytes; 0 on a card without it.
    utilization: `share` as a fraction of `base`, the total as vLLM sees it. seqs: requests at once.
    """

    total: int
    free: int
    reserve: int
    limit: int
    parts: tuple[Part, ...]
    step: Step
    base: int = 0
    share: int = 0
    utilization: float = 0.0
    seqs: int = 0

    @property
    def planned(self) -> int:
        return sum(part.size for part in self.parts)

    @property
    def around(self) -> int:
        """Bytes of what lies outside of vLLM's share."""
        return sum(part.size for part in self.parts if not part.share)

    @property
    def kv(self) -> int:
        """Bytes of the KV cache."""
        return next((part.size for part in self.parts if part.name == KV), 0)

    @property
    def kv_tokens(self) -> int:
        return self.kv // models.KV_BYTES_PER_TOKEN

    @property
    def requests(self) -> int:
        """Requests of the greatest length that the KV cache holds at once."""
        return self.kv_tokens // REQUEST_TOKENS


KV = "KV cache"


def profile_images(batched_tokens: int) -> int:
    """Pictures with which vLLM measures its peak; 668 at PaddleX's default of 131072 (OCR#17359)."""
    return batched_tokens // models.PROFILE_IMAGE_TOKENS


def profile_peak(batched_tokens: int, seqs: int) -> int:
    """Bytes that vLLM sets aside for activations: the vision tower or the language part, whichever takes more."""
    patches = profile_images(batched_tokens) * models.PROFILE_IMAGE_TOKENS * models.PATCHES_PER_TOKEN
    language = batched_tokens * TOKEN_PEAK + seqs * models.VOCABULARY * 4 * SAMPLER_COPIES
    return max(patches * PATCH_PEAK, language)


def layout_parts(batch: int, apis: int = 1) -> tuple[Part, ...]:
    """The API processes: of each PaddlePaddle's context, the layout model, a batch of pages."""
    pages, times = f"{batch} page{'s' if batch > 1 else ''} at once", f", {apis} times" if apis > 1 else ""
    return (
        Part(f"CUDA context of the API{times}", apis * CONTEXT, "api"),
        Part(f"layout model, {pages}{times}", apis * (LAYOUT_WEIGHTS + batch * LAYOUT_PAGE), "api"),
    )


def native_parts(half: bool) -> tuple[Part, ...]:
    """The VLM inside the API. half: the card knows bfloat16 (8.0 and above); else all takes twice the room."""
    factor, kind = (1, "bfloat16") if half else (2, "float32")
    return (
        Part(f"weights, {kind}", models.WEIGHTS_FILE * factor, "api"),
        Part("activations of the VLM", NATIVE_PEAK * factor, "api"),
    )


def limit_of(total: int, free: int, budget: int | None) -> tuple[int, int]:
    """Bytes that the plan may use of a card, and bytes that it leaves free. budget: the user's own limit, bytes."""
    reserve = max(RESERVE_LEAST, round(total * RESERVE_PART))
    limit = max(0, free - reserve)
    return (min(limit, budget) if budget is not None else limit), reserve


def api_budget(
    total: int, free: int, budget: int | None, native: bool = False, half: bool = True, apis: int = 1
) -> Budget | None:
    """A card that holds so many APIs alone; native: with the VLM inside it. None when not even the smallest step fits."""
    limit, reserve = limit_of(total, free, budget)
    for step in STEPS:
        parts = (*(native_parts(half) if native else ()), *layout_parts(step.layout_batch, apis))
        if sum(part.size for part in parts) <= limit:
            return Budget(total, free, reserve, limit, parts, step)
    return None


def vlm_budget(
    total: int, free: int, budget: int | None, *, base: int, with_api: bool, whole_steps: bool = False, apis: int = 1
) -> Budget | None:
    """A card that holds the VLM server, and the APIs too if `with_api`. None when not even the smallest step fits.

    base: the total of which vLLM computes its share; the card's own but for MIG. whole_steps: the
    longest request must fit into one step, as FastDeploy wants it without chunked prefill.
    """
    limit, reserve = limit_of(total, free, budget)
    for step in STEPS:
        if whole_steps:
            step = Step(
                step.batched_tokens, min(step.model_len, step.batched_tokens), step.seqs, step.layout_batch, step.requests
            )
            if step.model_len < REQUEST_TOKENS:
                continue
        around = (
            Part("CUDA context of the VLM", CONTEXT, "vlm"),
            Part("CUDA graphs", GRAPHS, "vlm"),
            *(layout_parts(step.layout_batch, apis) if with_api else ()),
        )
        utilization = _utilization(limit - sum(part.size for part in around), base)
        share = int(utilization * base)
        peak = profile_peak(step.batched_tokens, step.seqs)
        kv = share - models.WEIGHTS_FILE - RUNTIME - peak
        if kv < step.requests * REQUEST_TOKENS * models.KV_BYTES_PER_TOKEN:
            continue
        inside = (
            Part("weights, bfloat16", models.WEIGHTS_FILE, "vlm", share=True),
            Part("NCCL, cuBLAS", RUNTIME, "vlm", share=True),
            Part(f"profile peak, {profile_images(step.batched_tokens)} pictures at once", peak, "vlm", share=True),
            Part(KV, kv, "vlm", share=True),
        )
        seqs = min(step.seqs, _power_of_two(kv // models.KV_BYTES_PER_TOKEN // USUAL_TOKENS))
        return Budget(total, free, reserve, limit, (*inside, *around), step, base, share, utilization, seqs)
    return None


def least_free(total: int, *, with_api: bool, whole_steps: bool = False, apis: int = 1) -> int:
    """Free bytes from which a card of that size can hold the VLM server (and the API), to 0.1 GiB."""
    tenth = GIB // 10
    return next(
        (
            free
            for free in range(0, max(total, 16 * GIB), tenth)
            if vlm_budget(total, free, None, base=total, with_api=with_api, whole_steps=whole_steps, apis=apis)
        ),
        total,
    )


def _utilization(share: int, base: int) -> float:
    """A share as vLLM wants it: a fraction of the total, here in hundredths, rounded down."""
    if share <= 0 or base <= 0:
        return 0.0
    return min(UTILIZATION_MOST, share * 100 // base / 100)


def _power_of_two(number: int) -> int:
    return 1 << max(0, number.bit_length() - 1)
