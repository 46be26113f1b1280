"""The two config files: what vLLM and PaddleX refuse at their start."""

from __future__ import annotations

from kit.catalog.failures.failure import Failure

OPTIONS: tuple[Failure, ...] = (
    Failure(
        "vlm-config-empty",
        r"'(NoneType|list|str)' object has no attribute 'items'",
        "vlm_server_config.yaml is empty, or is no list of `key: value`",
        "write at least one setting into it, such as gpu-memory-utilization: 0.7; ./kit lint",
        "paddlex 3.7.2 measured",
        near=r"update_backend_config|overrides\.items\(\)",
    ),
    Failure(
        "vlm-config-unreadable",
        r"Failed to load backend configuration from file",
        "vlm_server_config.yaml is no YAML, or is not mounted into the container",
        "./kit lint shows the line; VLM_CONFIG in .env names the file",
        "paddlex 3.7.2 measured",
    ),
    Failure(
        "vlm-option-unknown",
        r"error: unrecognized arguments:",
        "vlm_server_config.yaml has a key that this vLLM does not know: misspelt, or of another version",
        "./kit lint names it; take it out or mend it",
        "vLLM 0.28 and 0.10.2 measured (swap-space and disable-log-requests: 0.10.2 only)",
    ),
    Failure(
        "vlm-option-value",
        r"error: argument --[\w-]+(/[\w-]+)?: (invalid \w+ value|Value .* cannot be converted)",
        "vlm_server_config.yaml has a value that vLLM cannot read: no number, empty, or a nested list where JSON is needed",
        "./kit lint names it; an empty `key:` becomes the word None",
        "vLLM 0.28 and 0.10.2 measured",
    ),
    Failure(
        "utilization-out-of-range",
        r"GPU memory utilization must be less than 1",
        "gpu-memory-utilization in vlm_server_config.yaml is above 1: it is a share of the card, not a percentage",
        "set it between 0.1 and 0.95",
        "vLLM 0.28 and 0.10.2 measured",
    ),
    Failure(
        "vlm-value-out-of-range",
        r"Input should be (less|greater) than( or equal to)? [\d.]+ \[type=",
        "vlm_server_config.yaml has a value out of its range: the lines above name it",
        "gpu-memory-utilization lies between 0.1 and 0.95; ./kit lint",
        "vLLM 0.28 measured",
        near=r"validation error for \w*Config",
    ),
    Failure(
        "context-too-long",
        r"max_model_len \(\d+\) is greater than the derived max_model_len",
        "max-model-len in vlm_server_config.yaml is more than the model can take (131072)",
        "16384 is enough for any page: at most 2048 tokens for the picture and 4096 for the answer",
        "vLLM 0.28 measured",
    ),
    Failure(
        "batched-tokens-too-few",
        r"max_num_batched_tokens \(\d+\) (must be greater than or equal to max_num_seqs|is smaller than max_model_len)",
        "max-num-batched-tokens in vlm_server_config.yaml is smaller than max-num-seqs or max-model-len",
        "set max-num-batched-tokens: 16384, or lower the other",
        "vLLM 0.28 measured",
    ),
    Failure(
        "backend-name",
        r"Input should be 'native', |Invalid backend ",
        "genai_config.backend in the pipeline config is a name that this PaddleX does not know",
        "write vllm-server, sglang-server or fastdeploy-server, with -server; llama-cpp-server needs an image newer than "
        "paddleocr3.4",
        "OCR#16897, OCR#17815; paddlex 3.7.2 measured",
    ),
    Failure(
        "no-server-url",
        r"`server_url` must not be `None`",
        "the pipeline config names a VLM server and not where it is",
        "set genai_config.server_url: http://paddleocr-vlm-server:8118/v1",
        "paddlex 3.7.2 measured",
    ),
    Failure(
        "pipeline-part-missing",
        r"config error for \w+!",
        "the pipeline config lacks a part that the pipeline needs, such as SubModules.VLRecognition",
        "compare it with pipeline_config_vllm.yaml: git diff; ./kit lint",
        "paddlex 3.7.2 measured",
    ),
    Failure(
        "pipeline-file-missing",
        r"The pipeline \(.*\) does not exist! Please use a pipeline name or a config file path",
        "the file behind --pipeline is not in the container",
        "PIPELINE_CONFIG in .env names the file on this machine; the command of compose.yaml names where it is mounted",
        "paddlex 3.7.2 source",
    ),
    Failure(
        "urls-need-bos",
        r"does not support getting URLs|file storage must be properly configured when URLs",
        "the pipeline config asks PaddleX to return URLs, which only its BOS storage can do",
        "set Serving.return_urls: False, or configure Serving.extra.file_storage of type bos",
        "paddlex 3.7.2 measured",
    ),
    Failure(
        "init-param-ignored",
        r"Invalid init param",
        "this version ignores a parameter of the pipeline, such as vl_rec_max_concurrency",
        "set genai_config.max_concurrency in the pipeline config, or use paddleocr 3.6 or newer",
        "OCR#17017",
    ),
)
