"""Known failures: what a log or a reply says, what it means, what to do.

Data alone; diagnose.py matches it. Order matters: the first that fits wins, so
causes come before their consequences. Each entry names where it was seen
(OCR# and PDX# are issues of PaddlePaddle/PaddleOCR and PaddlePaddle/PaddleX).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Failure:
    """pattern: regular expression, searched in one line. source: where it was seen."""

    name: str
    pattern: str
    cause: str
    fix: str
    source: str


FAILURES: tuple[Failure, ...] = (
    Failure(
        "disk-full",
        r"No space left on device|no space left on device",
        "the disk is full",
        "free some space: docker system df, df -h",
        "Linux ENOSPC; Docker Engine's wording is the same in lower case",
    ),
    Failure(
        "port-taken",
        r"[Aa]ddress already in use|port is already allocated|failed to bind host port",
        "a port is held by another program",
        "stop that program, or set another API_PORT in .env",
        "Linux EADDRINUSE; Docker Engine 20.10 and 28 measured",
    ),
    Failure(
        "no-libgl",
        r"lib(GL|gthread-2\.0)\.so\S*: cannot open shared object file",
        "OpenCV, which PaddleX needs, finds no libGL on this machine",
        "Debian and Ubuntu: sudo apt-get install libgl1 libglib2.0-0; Fedora: sudo dnf install mesa-libGL glib2",
        "PaddleOCR-VL documentation, common problems; ldd of opencv-contrib-python 4.10",
    ),
    Failure(
        "gpu-memory-below-utilization",
        r"Free memory on device .* is less than desired GPU memory utilization",
        "the card has less free memory than the VLM's share asks for",
        "lower gpu-memory-utilization in vlm_server_config.yaml, or free the card (nvidia-smi shows who holds it)",
        "vllm#20305, vllm#23192",
    ),
    Failure(
        "no-kv-cache",
        r"No available memory for the cache blocks",
        "nothing of the VLM's memory share is left for its KV cache",
        "raise gpu-memory-utilization, or lower max-num-batched-tokens in vlm_server_config.yaml",
        "vllm#31372, OCR#17359",
    ),
    Failure(
        "gpu-out-of-memory",
        r"CUDA out of memory|Out of memory error on GPU|OutOfMemoryError",
        "the GPU ran out of memory",
        "lower gpu-memory-utilization in vlm_server_config.yaml, or give API and VLM a card each (API_GPU, VLM_GPU)",
        "OCR#16788, OCR#17064",
    ),
    Failure(
        "no-nvidia-runtime",
        r"could not select device driver \"?nvidia",
        "Docker cannot hand GPUs to containers: the NVIDIA Container Toolkit is missing",
        "install nvidia-container-toolkit, then: sudo nvidia-ctk runtime configure && sudo systemctl restart docker",
        "Docker Engine 20.10, 26 and 28 measured",
    ),
    Failure(
        "no-nvidia-driver",
        r"nvidia-container-cli: .*(nvml error|driver)|error running hook.*nvidia",
        "Docker found the NVIDIA Container Toolkit, but no working NVIDIA driver",
        "nvidia-smi must work on the host first: install or reload the driver",
        "Docker Engine 26 measured with a failing hook",
    ),
    Failure(
        "engine-too-old",
        r"start_interval as feature require Docker Engine v25",
        "this Docker engine is older than 25",
        "add the override: docker compose -f compose.yaml -f compose.engine-20.yaml up -d (./kit up does it by itself)",
        "Docker Engine 20.10 measured",
    ),
    Failure(
        "gpu-image-mismatch",
        r"no kernel image is available for execution on the device|sm_120 is not compatible",
        "the image was built for another GPU generation",
        "Blackwell cards (RTX 50xx) need the sm120 tags: API_IMAGE_TAG_SUFFIX and VLM_IMAGE_TAG_SUFFIX in .env",
        "OCR#17507, OCR#17893",
    ),
    Failure(
        "model-hub-unreachable",
        r"No model hoster is available|No available model hosting platforms|Could not prepare the official model",
        "the models are not inside the image, and no model hub was reached",
        "use the -offline image tags with the model that they carry, or give the host a network",
        "OCR#16908, OCR#17349",
    ),
    Failure(
        "unknown-model",
        r"Unknown model|Failed to get model directory",
        "this image is older than the model that is asked for",
        "PaddleOCR-VL-1.5 needs images of paddleocr3.4 or newer, 1.6 of paddleocr3.6 or newer",
        "OCR#18171, OCR#17571",
    ),
    Failure(
        "model-name-mismatch",
        r"The model `[^`]*` does not exist|Error code: 404.*NotFoundError",
        "the API asks the VLM for a model of another name than it serves",
        "make VLRecognition.model_name in the pipeline config equal to VLM_MODEL_NAME in .env",
        "OCR#17603",
    ),
    Failure(
        "server-url-without-v1",
        r"Error code: 404",
        "the VLM's address in the pipeline config is wrong",
        "genai_config.server_url must end in /v1",
        "OCR#16897",
    ),
    Failure(
        "proxy-in-the-way",
        r"Error code: 50[234]",
        "something between the API and the VLM answers in its place, such as a proxy",
        "add paddleocr-vlm-server to NO_PROXY of the API container",
        "OCR#17384",
    ),
    Failure(
        "vlm-unreachable",
        r"Connection error\.|APIConnectionError",
        "the API does not reach the VLM server",
        "./kit status shows whether it runs; ./kit logs paddleocr-vlm-server says why not",
        "OCR#17015, OCR#16742",
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
        "image-missing",
        r"manifest unknown|pull access denied|No such image|repository does not exist",
        "the registry has no image of that name and tag",
        "check API_IMAGE_TAG_SUFFIX, VLM_IMAGE_TAG_SUFFIX and VLM_BACKEND in .env (README.md, section GPU host)",
        "OCR#17607, OCR#17310",
    ),
    Failure(
        "registry-unreachable",
        r"(lookup|dial tcp|Client\.Timeout).*(no such host|i/o timeout|connection refused|exceeded|network is unreachable)",
        "the image registry was not reached",
        "check the network, or carry the images over (README.md, section Air-gapped host)",
        "Docker Engine 28 measured",
    ),
    Failure(
        "docker-permission",
        r"permission denied while trying to connect to the Docker daemon",
        "this user may not talk to Docker",
        "sudo usermod -aG docker $USER, then log in again",
        "Docker Engine 28 measured",
    ),
    Failure(
        "docker-down",
        r"Cannot connect to the Docker daemon",
        "the Docker engine does not run",
        "sudo systemctl start docker; on Windows and macOS start Docker Desktop",
        "Docker Engine 28 measured",
    ),
)
