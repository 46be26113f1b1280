"""What a single request brings with it."""

from __future__ import annotations

from kit.catalog.failures.failure import Failure

REQUESTS: tuple[Failure, ...] = (
    Failure(
        "pipeline-shared",
        r"Tensor holds no memory",
        "several threads use one PaddleX pipeline at once, which it does not bear",
        "one pipeline a process: send requests to /layout-parsing instead, which puts them in a queue",
        "OCR#16826, OCR#17487",
    ),
    Failure(
        "preprocessor-not-loaded",
        r"the input params for model settings are invalid|Set use_doc_preprocessor",
        "useDocOrientationClassify and useDocUnwarping need models that were not loaded at the start",
        "set use_doc_preprocessor: True in the pipeline config and start again, or leave both options out",
        "measured with PaddleX 3.7.2",
    ),
    Failure(
        "pixel-limit",
        r"exceeds maximum allowed \d+",
        "the picture has more pixels than PaddleX accepts (178,956,970)",
        "scale it down, or cut it in parts",
        "measured with PaddleX 3.7.2",
    ),
    Failure(
        "file-url-unreachable",
        r"Failed to read input file: (Cannot connect to host|.*Name or service not known)",
        "the address in a request's `file` is fetched by the server, not by the client, and the server does not reach it",
        "send the file itself as base64, or an address which the API container reaches",
        "paddlex 3.7.2 measured; dify-official-plugins#2506",
    ),
    Failure(
        "file-unreadable",
        r"Failed to read input file: |Invalid input file",
        "the file of a request is no picture or PDF that PaddleX can open: damaged, encrypted, or of the other fileType",
        "fileType is 0 for PDF and 1 for pictures, `file` bare base64 without data:; ./kit parse FILE checks it before sending",
        "paddlex 3.7.2 measured",
    ),
    Failure(
        "file-type-missing",
        r"File type cannot be determined|\"Unsupported file type\"",
        "a request names no fileType",
        'add "fileType": 0 for PDF, 1 for a picture',
        "paddlex 3.7.2 measured",
    ),
    Failure(
        "client-timeout",
        r"Read timed out\. \(read timeout=\d+\)",
        "the client gave up before the document was done; the service goes on working at it",
        "send long PDFs in parts of some pages and wait longer: ./kit parse does both by itself",
        "OCR#17905, OCR#17014",
    ),
)

VAGUE: tuple[Failure, ...] = (
    Failure(
        "model-not-inspected",
        r"Model architectures \[.*\] failed to be inspected",
        "vLLM could not look at the model, and this line hides why: often the GPU's name is meant (MIG), or the driver is "
        "missing",
        "read the lines above it; ./kit doctor",
        "OCR#17689",
        vague=True,
    ),
    Failure(
        "model-not-prepared",
        r"Failed to get model directory|Could not prepare the official model",
        "PaddleX did not get the model's files; the lines above say why",
        "use the -offline image tags with the model that they carry, or give the host a network",
        "OCR#18171, OCR#17349",
        vague=True,
    ),
    Failure(
        "dependency-unhealthy",
        r"dependency failed to start: container \S+ (is unhealthy|exited)|timeout waiting for dependencies",
        "the VLM server did not become healthy, so the API was never started",
        "./kit logs paddleocr-vlm-server says why; ./kit up starts both again",
        "Docker Engine 20.10, 26 and 28 measured",
        vague=True,
    ),
    Failure(
        "cause-hidden",
        r"\"errorMsg\": ?\"Internal server error\"",
        "PaddleX hides from the client why a request failed",
        "the cause is in the log of that moment: ./kit logs paddleocr-vl-api, ./kit diagnose",
        "OCR#16928, OCR#17263",
        vague=True,
    ),
)
