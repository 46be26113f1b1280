"""The ways in which the VLM can be run: by one of two official images, inside the API, or by a server of your own."""

from __future__ import annotations

from dataclasses import dataclass

Capability = tuple[int, int]


@dataclass(frozen=True)
class Backend:
    """One way.

    name: what --backend takes. client: genai_config.backend of the pipeline config.
    image: an official image exists, paddleocr-genai-NAME-server. least, below: compute capabilities from
    `least` on and below `below`; only: those alone, where the list is not a range. Empty for servers of your own.
    keys: the server's own names for (share of memory, longest request, tokens a step, requests at once).
    paddleocr: least version whose client knows it. at_once: requests that the API keeps open with a server
    whose size the kit does not know.
    """

    name: str
    client: str
    about: str
    source: str
    image: bool = False
    least: Capability | None = None
    below: Capability | None = None
    only: tuple[Capability, ...] = ()
    keys: tuple[str, str, str, str] | None = None
    paddleocr: tuple[int, int] = (3, 3)
    at_once: int = 16

    @property
    def own_server(self) -> bool:
        """True where the VLM can only be a server of your own, given by its URL."""
        return not self.image and self.client != NATIVE

    def runs_on(self, capability: Capability) -> bool:
        if self.only:
            return capability in self.only
        return (self.least is None or capability >= self.least) and (self.below is None or capability < self.below)


NATIVE = "native"

BACKENDS: tuple[Backend, ...] = (
    Backend(
        "vllm",
        "vllm-server",
        "vLLM, official image",
        "PaddleOCR-VL documentation: 8.0 and above, CUDA 12.6; 7.x may start, with timeouts (OCR#16823, OCR#17014). "
        "No official path for 10.x, B200 (OCR#17077). paddlex 3.7.2 source, genai/configs/paddleocr_vl_09b.py",
        image=True,
        least=(8, 0),
        keys=("gpu-memory-utilization", "max-model-len", "max-num-batched-tokens", "max-num-seqs"),
        at_once=64,
    ),
    Backend(
        "fastdeploy",
        "fastdeploy-server",
        "FastDeploy, official image",
        "paddlex 3.7.2 source: its installer accepts 8.0, 8.6, 8.9 and 9.0 alone; defaults of genai/configs/paddleocr_vl_09b.py",
        image=True,
        only=((8, 0), (8, 6), (8, 9), (9, 0)),
        keys=("gpu-memory-utilization", "max-model-len", "max-num-batched-tokens", "max-num-seqs"),
        at_once=64,
    ),
    Backend(
        "sglang",
        "sglang-server",
        "SGLang, a server of your own (no official image)",
        "PaddleOCR-VL documentation: 8.0 to below 12.0; images are published for vLLM and FastDeploy alone",
        least=(8, 0),
        below=(12, 0),
        keys=("mem-fraction-static", "context-length", "max-prefill-tokens", "max-running-requests"),
        at_once=64,
    ),
    Backend(
        NATIVE,
        NATIVE,
        "no VLM server: PaddlePaddle runs the VLM inside the API; slow (OCR#18164: 20 to 32 s a page on an RTX 4060 Ti)",
        "PaddleOCR-VL documentation: 7.0 and above",
        least=(7, 0),
    ),
    Backend(
        "llama-cpp",
        "llama-cpp-server",
        "llama.cpp, a server of your own; also on cards older than 8.0 and on CPUs",
        "paddlex 3.4.3 source, models/common/genai.py; refused by 3.3 (OCR#17815). Sends PNG and max_tokens",
        paddleocr=(3, 4),
        at_once=8,
    ),
    Backend(
        "mlx-vlm",
        "mlx-vlm-server",
        "MLX-VLM on a Mac, a server of your own",
        "paddlex 3.4.3 source, models/common/genai.py",
        paddleocr=(3, 4),
        at_once=8,
    ),
    Backend(
        "openai",
        "llama-cpp-server",
        "any other server of the OpenAI protocol",
        "paddlex 3.7.2 source, doc_vlm/predictor.py: of all clients, llama-cpp-server's keeps to the oldest part of the protocol "
        "(max_tokens, a PNG picture, nothing of vLLM's own)",
        paddleocr=(3, 4),
        at_once=8,
    ),
)  # fmt: skip


def find(name: str) -> Backend | None:
    """The backend of that name; also by the name of its client, such as vllm-server."""
    return next((b for b in BACKENDS if name in (b.name, b.client)), None)
