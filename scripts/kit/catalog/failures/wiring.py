"""Between the API and the VLM server, and the VLM's own end."""

from __future__ import annotations

from kit.catalog.failures.failure import Failure

WIRING: tuple[Failure, ...] = (
    Failure(
        "engine-died",
        r"EngineCore encountered an issue|EngineDeadError|Engine core initialization failed",
        "vLLM's engine has died; what it died of stands further up in the VLM's log",
        "docker compose restart paddleocr-vlm-server; ./kit logs paddleocr-vlm-server -n 500 shows the lines before",
        "vLLM 0.28 source and measured",
        vague=True,
    ),
    Failure(
        "model-name-mismatch",
        r"[Tt]he model `?[^`\s]+`? does not exist|`[^`]*PaddleOCR-VL[^`]*` does not exist",
        "the API asks the VLM for a model of another name than it serves",
        "make VLRecognition.model_name in the pipeline config equal to VLM_MODEL_NAME in .env",
        "OCR#17603; paddlex 3.7.2 and vLLM 0.28 measured",
    ),
    Failure(
        "server-url-without-v1",
        r"Error code: 404|POST /chat/completions HTTP/1\.\d\" 404",
        "the VLM's address in the pipeline config is wrong",
        "genai_config.server_url must end in /v1",
        "OCR#16897; paddlex 3.7.2 measured",
    ),
    Failure(
        "api-key",
        r"Error code: 40[13]",
        "the VLM server wants an API key, and the one that the API sends is not it",
        "set genai_config.client_kwargs.api_key in the pipeline config",
        "paddlex 3.7.2 measured",
    ),
    Failure(
        "answer-longer-than-context",
        r"max_(completion_)?tokens=\d+ cannot be greater than max_model_len|maximum context length is \d+ tokens",
        "max-model-len of the VLM is smaller than the 4096 tokens of an answer that PaddleX asks for, and the page",
        "set max-model-len: 16384 in vlm_server_config.yaml",
        "paddlex 3.7.2 and vLLM 0.28 measured",
    ),
    Failure(
        "strip-too-narrow",
        r"absolute aspect ratio must be smaller than 200",
        "a block of the page is more than 200 times as long as it is wide, and the model takes none such",
        "crop the rule or the margin off the page, or raise the layout threshold for it",
        "vLLM 0.28 measured; OCR#17378",
    ),
    Failure(
        "proxy-in-the-way",
        r"Error code: 50[234]",
        "something between the API and the VLM answers in its place, such as a proxy",
        "add paddleocr-vlm-server to NO_PROXY of the API container",
        "OCR#17384; paddlex 3.7.2 measured",
    ),
    Failure(
        "vlm-failed",
        r"Error code: 500",
        "the VLM server failed at a request",
        "./kit logs paddleocr-vlm-server shows why",
        "paddlex 3.7.2 measured",
        vague=True,
    ),
    Failure(
        "not-a-vlm",
        r"'str' object has no attribute 'choices'",
        "what answers at the VLM's address is no OpenAI-compatible server: a web page, another service",
        "check genai_config.server_url: http://paddleocr-vlm-server:8118/v1",
        "paddlex 3.7.2 measured",
    ),
    Failure(
        "vlm-stuck",
        r"'vlm' worker: Request timed out|APITimeoutError",
        "the VLM took a request and did not answer within PaddleX's 600 s",
        "docker compose restart paddleocr-vlm-server, then paddleocr-vl-api: a stuck request holds up all others",
        "OCR#17693, OCR#17014; paddlex 3.7.2 source, openai's wording",
    ),
    Failure(
        "vlm-port-not-published",
        r"Failed to connect to \S+ port 8118",
        "the VLM server is not reached at that address: compose.yaml publishes its port to nobody",
        "containers of the same Compose project call http://paddleocr-vlm-server:8118/v1; for others publish the port",
        "a user's report for Docker on Windows (host.docker.internal)",
    ),
    Failure(
        "vlm-unreachable",
        r"Connection error\.|APIConnectionError",
        "the API does not reach the VLM server",
        "./kit status shows whether it runs; ./kit logs paddleocr-vlm-server says why not",
        "OCR#17015, OCR#16742; paddlex 3.7.2 measured",
    ),
)
