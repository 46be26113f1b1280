"""Options of vLLM 0.10.2's server, which become keys of the VLM config: PaddleX turns `key: value` into `--key value`.

Names: asked of the real argument parser of vLLM 0.10.2, the version that paddlex 3.7.2 pins (extra genai-vllm-server):
vllm.entrypoints.openai.api_server.make_arg_parser(FlexibleArgumentParser()). Ranges: from the errors of the real parser
and of vLLM's configuration classes.
"""

from __future__ import annotations

from dataclasses import dataclass

# Switches: --NAME and --no-NAME.
SWITCHES = frozenset(
    """
    allow-credentials async-scheduling calculate-kv-scales data-parallel-hybrid-lb disable-cascade-attn
    disable-chunked-mm-input disable-custom-all-reduce disable-fastapi-docs disable-frontend-multiprocessing
    disable-hybrid-kv-cache-manager disable-log-requests disable-sliding-window disable-uvicorn-access-log
    enable-auto-tool-choice enable-chunked-prefill enable-eplb enable-expert-parallel enable-force-include-usage
    enable-log-outputs enable-log-requests enable-lora enable-lora-bias enable-prefix-caching enable-prompt-embeds
    enable-prompt-tokens-details enable-request-id-headers enable-server-load-tracking enable-sleep-mode
    enable-ssl-refresh enable-tokenizer-info-endpoint enforce-eager eplb-log-balancedness
    exclude-tools-when-tool-choice-none fully-sharded-loras guided-decoding-disable-additional-properties
    guided-decoding-disable-any-whitespace guided-decoding-disable-fallback interleave-mm-strings
    kv-sharing-fast-prefill log-error-stack ray-workers-use-nsight return-tokens-as-token-ids skip-mm-profiling
    skip-tokenizer-init trust-remote-code use-tqdm-on-load
    """.split()
)

# Switches that can only be switched on.
ONLY_ON = frozenset(
    """
    disable-async-output-proc disable-log-stats disable-mm-preprocessor-cache enable-multimodal-encoder-data-parallel headless
    """.split()
)

# Options with a value.
VALUED = frozenset(
    """
    additional-config allowed-headers allowed-local-media-path allowed-methods allowed-origins api-key
    api-server-count block-size chat-template chat-template-content-format code-revision collect-detailed-traces
    compilation-config config config-format convert cpu-offload-gb cuda-graph-sizes data-parallel-address
    data-parallel-backend data-parallel-rank data-parallel-rpc-port data-parallel-size data-parallel-size-local
    data-parallel-start-rank decode-context-parallel-size default-mm-loras distributed-executor-backend download-dir
    dtype eplb-config eplb-step-interval eplb-window-size generation-config gpu-memory-utilization
    guided-decoding-backend h11-max-header-count h11-max-incomplete-event-size hf-config-path hf-overrides hf-token
    host ignore-patterns io-processor-plugin kv-cache-dtype kv-cache-memory-bytes kv-events-config kv-transfer-config
    limit-mm-per-prompt load-format log-config-file logits-processor-pattern logits-processors logprobs-mode
    long-prefill-token-threshold lora-dtype lora-extra-vocab-size lora-modules mamba-cache-dtype mamba-ssm-cache-dtype
    max-cpu-loras max-log-len max-logprobs max-long-partial-prefills max-lora-rank max-loras max-model-len
    max-num-batched-tokens max-num-partial-prefills max-num-seqs max-parallel-loading-workers max-seq-len-to-capture
    media-io-kwargs middleware mm-encoder-tp-mode mm-processor-cache-gb mm-processor-kwargs model model-impl
    model-loader-extra-config num-gpu-blocks-override num-lookahead-slots num-redundant-experts otlp-traces-endpoint
    override-attention-dtype override-generation-config override-pooler-config pipeline-parallel-size port
    preemption-mode prefix-caching-hash-algo pt-load-map-location quantization reasoning-parser response-role revision
    root-path rope-scaling rope-theta runner safetensors-load-strategy scheduler-cls scheduler-delay-factor
    scheduling-policy seed served-model-name show-hidden-metrics-for-version speculative-config ssl-ca-certs
    ssl-cert-reqs ssl-certfile ssl-keyfile swap-space task tensor-parallel-size tokenizer tokenizer-mode
    tokenizer-revision tool-call-parser tool-parser-plugin tool-server uds uvicorn-log-level worker-cls
    worker-extension-cls
    """.split()
)

OPTIONS = frozenset(SWITCHES | ONLY_ON | VALUED | {f"no-{name}" for name in SWITCHES})

# What PaddleX sets itself, after the config: a value here is never used (paddlex 3.7.2 source, genai/backends/vllm.py).
OVERRULED = frozenset({"host", "port", "model"})

# Values where the config says nothing: PaddleX's own (paddlex 3.7.2 source, genai/configs/paddleocr_vl_09b.py), and
# for max-num-seqs vLLM's, of a server on a card below 70 GiB (vLLM 0.10.2 source, engine/arg_utils.py).
DEFAULTS: dict[str, float] = {
    "gpu-memory-utilization": 0.5,
    "max-model-len": 16384,
    "max-num-batched-tokens": 131072,
    "max-num-seqs": 256,
}

# Names that other engines have for the same thing.
FOREIGN: dict[str, str] = {
    "mem-fraction-static": "gpu-memory-utilization",
    "context-length": "max-model-len",
    "max-prefill-tokens": "max-num-batched-tokens",
    "max-running-requests": "max-num-seqs",
    "max-concurrency": "max-num-seqs",
    "workers": "api-server-count",
}


@dataclass(frozen=True)
class Range:
    """Least and greatest value. whole: no fraction. above: `least` itself is refused. below: `greatest` itself is."""

    least: float
    greatest: float | None = None
    whole: bool = True
    above: bool = False
    below: bool = False

    def holds(self, value: float) -> bool:
        if self.whole and value != int(value):
            return False
        if value < self.least or (self.above and value == self.least):
            return False
        return self.greatest is None or value < self.greatest or (value == self.greatest and not self.below)

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        least = f"above {self.least:g}" if self.above else f"from {self.least:g}"
        greatest = "" if self.greatest is None else f"{' and below' if self.below else ' to'} {self.greatest:g}"
        return f"{kind} {least}{greatest}"


RANGES: dict[str, Range] = {
    # 1.0 passes the parser, and never the start: a card that is all free does not exist (vllm#20305).
    "gpu-memory-utilization": Range(0, 1, whole=False, above=True, below=True),
    # max_position_embeddings of the model (vLLM: "greater than the derived max_model_len").
    "max-model-len": Range(1, 131072),
    "max-num-batched-tokens": Range(1),
    "max-num-seqs": Range(1),
    "api-server-count": Range(1),
    "tensor-parallel-size": Range(1),
    "pipeline-parallel-size": Range(1),
    "data-parallel-size": Range(1),
    "swap-space": Range(0, whole=False),
    "cpu-offload-gb": Range(0, whole=False),
    "mm-processor-cache-gb": Range(0, whole=False),
}
