"""The very texts in which each failure was seen: what the tests hold against the patterns, and what the docs show.

A text of several lines is one whose last line says too little alone. Paths and ids are shortened. Where an entry's
source is a program's source or wording, the text is that program's own, with figures filled in.
"""

from __future__ import annotations

SEEN: dict[str, tuple[str, ...]] = {
    # --- the machine
    "shm-too-small": (
        "paddleocr-vlm-server: container 4f2d9c81e0ab, restarted 2 times, exit status 135",
        "ERROR: Unexpected bus error encountered in worker. This might be caused by insufficient shared memory (shm).",
    ),
    "disk-full": (
        "OSError: [Errno 28] No space left on device",
        "write /usr/share/fonts/wqy.ttc: no space left on device",
    ),
    "killed": (
        "paddleocr-vl-api: container 0c1f2e3d4a5b, exit status 137",
        "[4711.5] Out of memory: Killed process 812 (python3) total-vm:98304000kB, anon-rss:62914560kB",
    ),
    "port-taken": (
        "[Errno 98] error while attempting to bind on address ('127.0.0.1', 8080): address already in use",
        "OSError: [Errno 98] Address already in use",
        "Bind for 127.0.0.1:8080 failed: port is already allocated",
        "driver failed programming external connectivity on endpoint X (..): Error starting userland proxy: listen tcp4 "
        "127.0.0.1:8080: bind: address already in use",
        "failed to set up container networking: driver failed programming external connectivity on endpoint X (..): failed to "
        "bind host port for 127.0.0.1:8080:172.38.0.2:8080/tcp: address already in use",
    ),
    "no-libgl": ("ImportError: libGL.so.1: cannot open shared object file: No such file or directory",),
    "home-not-writable": ("PermissionError: [Errno 13] Permission denied: '/root/.paddlex/temp'",),
    "file-not-readable": ("PermissionError: [Errno 13] Permission denied: '/home/paddleocr/pipeline_config.yaml'",),
    "tls-intercepted": (
        "ssl.SSLCertVerificationError: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate in "
        "certificate chain (_ssl.c:1006)",
        "tls: failed to verify certificate: x509: certificate signed by unknown authority",
    ),
    # --- Docker
    "docker-permission": (
        "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock: Get ...",
    ),
    "docker-down": ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",),
    "docker-stale-pid": ("failed to start daemon, ensure docker is not running or delete /var/run/docker.pid",),
    "engine-too-old": ("can't set healthcheck.start_interval as feature require Docker Engine v25 or later",),
    "no-cdi": ('Error response from daemon: could not select device driver "cdi" with capabilities: [[gpu]]',),
    "cdi-unknown-device": ("CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=7",),
    "no-nvidia-runtime": (
        'Error response from daemon: could not select device driver "nvidia" with capabilities: [[gpu]]',
        'docker: Error response from daemon: could not select device driver "" with capabilities: [[gpu]].',
    ),
    "limits-refused": (
        "runc create failed: unable to start container process: error during container init: error setting rlimits for ready "
        "process: error setting rlimit type 8: operation not permitted",
        "unable to start container process: unable to apply caps: operation not permitted",
    ),
    "name-conflict": (
        'Conflict. The container name "/paddleocr-vl-api" is already in use by container "8d1c0a". You have to remove (or '
        "rename) "
        "that container to be able to reuse that name.",
    ),
    "mount-source-missing": (
        'Error response from daemon: invalid mount config for type "bind": bind source path does not exist: /srv/mine.yaml',
    ),
    "probe-missing": (
        'OCI runtime exec failed: exec failed: unable to start container process: exec: "curl": executable file not found in '
        "$PATH",
    ),
    "wrong-image": (
        'exec: "paddleocr": executable file not found in $PATH: unknown',
        "paddleocr: error: argument COMMAND: invalid choice: 'genai_server' (choose from ...)",
        "RuntimeError: The generative AI engine plugins are not available. Please install it properly.",
        "The 'vllm-server' plugin is not available. Please install it first.",
        "ModuleNotFoundError: No module named 'paddle'",
    ),
    "image-not-here": (
        "Error response from daemon: No such image: registry.invalid/paddlepaddle/paddleocr-vl:paddleocr3.6-nvidia-gpu",
        "Error: No such image: paddleocr-vl:none",
    ),
    "image-missing": (
        "Error response from daemon: manifest unknown: manifest unknown",
        "Error response from daemon: pull access denied for paddlepaddle/paddleocr-genai-vlm-server, repository does not exist "
        "or may "
        "require 'docker login': denied: requested access to the resource is denied",
    ),
    "registry-forbidden": (
        'failed to resolve reference "ccr-2vdh3abv-pub.cnc.bj.baidubce.com/paddlepaddle/paddleocr-vl:latest": unexpected status '
        "from "
        "HEAD request to https://ccr-2vdh3abv-pub.cnc.bj.baidubce.com/v2/paddlepaddle/paddleocr-vl/manifests/latest: 403 "
        "Forbidden",
    ),
    "registry-unreachable": ("dial tcp: lookup ccr-2vdh3abv-pub.cnc.bj.baidubce.com on 127.0.0.11:53: no such host",),
    "bundle-damaged": (
        "Error processing tar file(exit status 1): unexpected EOF",
        "Error processing tar file(exit status 1): archive/tar: invalid tar header",
        'invalid diffID for layer 2: expected "sha256:0a", got "sha256:0b"',
        "/*stdin*\\ : Decoding error (36) : Restored data doesn't match checksum",
        "/*stdin*\\ : Read error (39) : premature end",
        "Error unpacking image paddleocr-vl: wrong diff id calculated on extraction",
    ),
    "no-buildx": ("ERROR: BuildKit is enabled but the buildx component is missing or broken.",),
    # --- the card
    "driver-too-old": (
        "nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.9, please update your driver to a newer "
        "version",
        "RuntimeError: CUDA driver version is insufficient for CUDA runtime version",
    ),
    "no-nvidia-driver": (
        "error running hook #0: error running hook: exit status 1, stdout: , stderr: nvidia-container-cli: initialization error: "
        "nvml error: driver not loaded: unknown",
    ),
    "mig-by-uuid": (
        "ValueError: invalid literal for int() with base 10: 'MIG-3f1c5b9e-1d2a-5b7c-8e9f-0a1b2c3d4e5f'",
        "ValueError: CUDA_VISIBLE_DEVICES ID must be an integer. Invalid device ID: GPU-3f1c5b9e",
    ),
    "no-driver-in-container": (
        "Failed to import from vllm._C with ImportError('libcuda.so.1: cannot open shared object file: No such "
        "file or directory')",
        "INFO [__init__.py:220] No platform detected, vLLM is running on UnspecifiedPlatform",
        "RuntimeError: Failed to infer device type, please set the environment variable `VLLM_LOGGING_LEVEL=DEBUG` to turn on "
        "verbose logging to help debug the issue.",
    ),
    "gpu-too-old": (
        "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your Tesla T4 GPU has compute "
        "capability 7.5. You can use float16 instead by explicitly setting the `dtype` flag in CLI, for example: --dtype=half.",
    ),
    "gpu-image-mismatch": (
        "RuntimeError: CUDA error: no kernel image is available for execution on the device",
        "NVIDIA GeForce RTX 5090 with CUDA capability sm_120 is not compatible with the current PyTorch installation.",
    ),
    "crash": ("paddleocr-vlm-server: container 4f2d9c81e0ab, exit status 139", "Fatal Python error: Segmentation fault"),
    "gpu-memory-below-utilization": (
        "ERROR 12-01 02:12:09 [core.py:718] ValueError: Free memory on device (6.77/7.96 GiB) on startup is less than desired "
        "GPU "
        "memory utilization (0.99, 7.88 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes.",
    ),
    "no-kv-cache": (
        "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the "
        "engine.",
    ),
    "kv-cache-too-small": (
        "ValueError: To serve at least one request with the model's max seq len (16384), (0.28 GiB KV cache is needed, which is "
        "larger than the available KV cache memory (0.14 GiB). Based on the available memory, the estimated maximum model length "
        "is 8192.",
    ),
    "gpu-out-of-memory": (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB.",
        "Out of memory error on GPU 0. Cannot allocate 1.000000GB memory on GPU 0",
    ),
    # --- models and versions
    "model-hub-unreachable": (
        "No available model hosting platforms detected. Please check your network connection.",
        "No model hoster is available! Please check your network connection to one of the following model hoster: HuggingFace",
        "Exception: Encounter exception when download model from bos. No model source is available! Please check network or use "
        "local model files!",
    ),
    "unknown-model": (
        "ValueError: Unknown model: PaddleOCR-VL-1.6-0.9B",
        "UnknownModelError: Model 'PaddleOCR-VL-9.9-0.9B' is not registered. Known models: ['STFPM', 'PP-DocBee-2B']",
        "ValueError: No engine bindings registered for model 'PaddleOCR-VL-9.9-0.9B'.",
    ),
    "unknown-pipeline": (
        "paddlex.utils.errors.others.ClassNotFoundException: `PaddleOCR-VL-1.6` is not registered on BasePipeline.",
    ),
    "layout-of-another-generation": (
        "ValueError: Model name mismatch: expected 'PP-DocLayoutV3' but config has 'PP-DocLayoutV2'. Please input the correct "
        "model dir.",
    ),
    "model-dir-missing": (
        "FileNotFoundError: [Errno 2] No such file or directory: '/models/layout/inference.yml'",
        "FileNotFoundError: /models/layout does not exist!",
    ),
    "vlm-dir-missing": (
        "huggingface_hub.errors.HFValidationError: Repo id must use alphanumeric chars, '-', '_' or '.'. The name cannot start "
        "or end "
        "with '-' or '.' and the maximum length is 96: '/nope'.",
        "huggingface_hub.errors.HFValidationError: Repo id must be in the form 'repo_name' or 'namespace/repo_name': "
        "'/models/PaddleOCR-VL'. Use `repo_type` argument if needed.",
    ),
    "transformers-too-old": (
        "ValueError: The checkpoint you are trying to load has model type `paddleocr_vl` but Transformers does not recognize "
        "this "
        "architecture.",
    ),
    "vllm-too-new": ("ImportError: cannot import name 'FlexibleArgumentParser'",),
    "torchvision-mismatch": ("RuntimeError: operator torchvision::nms does not exist",),
    "fastdeploy-regression": ("image_features is None",),
    "llama-cpp-template": ("number of bitmaps (1) does not match number of markers (0)",),
    "font-download": (
        "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='paddle-model-ecology.bj.bcebos.com', port=443): Max "
        "retries "
        'exceeded with url: /paddlex/PaddleX3.0/fonts/PingFang-SC-Regular.ttf (Caused by NameResolutionError("Failed to '
        'resolve"))',
    ),
    # --- config files
    "vlm-config-empty": (
        '  File ".../paddlex/inference/genai/configs/utils.py", line 25, in update_backend_config\n'
        "    for k, v in overrides.items():\n"
        "                ^^^^^^^^^^^^^^^\n"
        "AttributeError: 'NoneType' object has no attribute 'items'",
    ),
    "vlm-config-unreadable": ("Failed to load backend configuration from file: /home/paddleocr/vlm_server_config.yaml",),
    "vlm-option-unknown": ("paddleocr: error: unrecognized arguments: --no-such-key",),
    "vlm-option-value": (
        "paddleocr: error: argument --gpu-memory-utilization: invalid float value: 'abc'",
        "paddleocr: error: argument --max-num-seqs: invalid int value: 'None'",
        "paddleocr: error: argument --limit-mm-per-prompt: Value {'image': 1} cannot be converted to <function loads at 0x7f>.",
    ),
    "utilization-out-of-range": ("Value error, GPU memory utilization must be less than 1.0. Got 1.5.",),
    "vlm-value-out-of-range": (
        "(APIServer pid=7) pydantic_core._pydantic_core.ValidationError: 1 validation error for CacheConfig\n"
        "(APIServer pid=7) gpu_memory_utilization\n"
        "(APIServer pid=7)   Input should be less than or equal to 1 [type=less_than_equal, input_value=1.5, input_type=float]",
    ),
    "context-too-long": (
        "Value error, User-specified max_model_len (200000) is greater than the derived max_model_len "
        "(max_position_embeddings=131072.0 or model_max_length=None in model's config.json).",
    ),
    "batched-tokens-too-few": (
        "Value error, max_num_batched_tokens (64) must be greater than or equal to max_num_seqs (256).",
        "max_num_batched_tokens (2048) is smaller than max_model_len (16384). This effectively limits the maximum sequence "
        "length",
    ),
    "backend-name": (
        "Input should be 'native', 'fastdeploy-server', 'vllm-server', 'sglang-server', 'mlx-vlm-server' or 'llama-cpp-server' "
        "[type=literal_error, input_value='vllm', input_type=str]",
        "Invalid backend llama-cpp-server",
    ),
    "no-server-url": ("Value error, `server_url` must not be `None` for the 'vllm-server' backend.",),
    "pipeline-part-missing": ("ValueError: config error for vl_rec_model!",),
    "pipeline-file-missing": (
        "Exception: The pipeline (/home/paddleocr/mine.yaml) does not exist! Please use a pipeline name or a config file path!",
    ),
    "urls-need-bos": (
        "TypeError: `FileSystemStorage` does not support getting URLs.",
        "ValueError: The file storage must be properly configured when URLs need to be returned.",
    ),
    "init-param-ignored": ('Invalid init param "vl_rec_max_concurrency"',),
    # --- between the API and the VLM
    "engine-died": (
        "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the root cause.",
        "RuntimeError: Exception from the 'vlm' worker: Error code: 500 - EngineCore encountered an issue. See stack trace "
        "(above) for "
        "the root cause.",
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
    ),
    "model-name-mismatch": (
        "RuntimeError: Exception from the 'vlm' worker: Error code: 404 - The model `PaddleOCR-VL-0.9B` does not exist.",
        "The model PaddleOCR-VL-1.6-0.9B does not exist.",
        "`PaddleOCR-VL-0.9B` does not exist",
        "ERROR 11-21 08:54:35 [serving.py:214] Error with model error=ErrorInfo(message='The model `PaddleOCR-VL-1.6-0.9B` does "
        "not "
        "exist.', type='NotFoundError', param='model', code=404)",
    ),
    "server-url-without-v1": (
        "RuntimeError: Exception from the 'vlm' worker: Error code: 404",
        '(APIServer pid=7) INFO:     172.18.0.3:45718 - "POST /chat/completions HTTP/1.1" 404 Not Found',
    ),
    "api-key": ("RuntimeError: Exception from the 'vlm' worker: Error code: 401",),
    "answer-longer-than-context": (
        "RuntimeError: Exception from the 'vlm' worker: Error code: 400 - max_completion_tokens=4096 cannot be greater than "
        "max_model_len=max_total_tokens=2048.",
        "This model's maximum context length is 2048 tokens. However, you requested 4096 output tokens and your prompt contains "
        "at least 96",
    ),
    "strip-too-narrow": (
        "RuntimeError: Exception from the 'vlm' worker: Error code: 400 - absolute aspect ratio must be smaller than 200, got "
        "400.0",
    ),
    "proxy-in-the-way": ("RuntimeError: Exception from the 'vlm' worker: Error code: 502",),
    "vlm-failed": ("RuntimeError: Exception from the 'vlm' worker: Error code: 500",),
    "not-a-vlm": ("RuntimeError: Exception from the 'vlm' worker: 'str' object has no attribute 'choices'",),
    "vlm-stuck": (
        "RuntimeError: Exception from the 'vlm' worker: Request timed out.",
        "openai.APITimeoutError: Request timed out.",
    ),
    "vlm-port-not-published": (
        "curl: (28) Failed to connect to host.docker.internal port 8118 after 21032 ms: Could not connect to server",
    ),
    "vlm-unreachable": (
        "RuntimeError: Exception from the 'vlm' worker: Connection error.",
        "openai.APIConnectionError: Connection error.",
    ),
    # --- requests
    "pipeline-shared": ("PreconditionNotMetError: Tensor holds no memory",),
    "preprocessor-not-loaded": (
        "Set use_doc_preprocessor, but the models for doc preprocessor are not initialized.",
        "the input params for model settings are invalid!",
    ),
    "pixel-limit": (
        "Input image or document page exceeds pixel limit: Image pixel count 182000000 (width=14000, height=13000) exceeds "
        "maximum "
        "allowed 178956970.",
    ),
    "file-url-unreachable": (
        "Failed to read input file: Cannot connect to host 127.0.0.1:1 ssl:default [Connect call failed ('127.0.0.1', 1)]",
    ),
    "file-unreadable": (
        "Failed to read input file: Failed to decode image bytes",
        "Failed to read input file: Failed to load document (PDFium: Data format error).",
        '{"logId":"f8a870d8","errorCode":422,"errorMsg":"Invalid input file"}',
    ),
    "file-type-missing": (
        '{"logId":"b9cf584b","errorCode":422,"errorMsg":"File type cannot be determined"}',
        '{"logId":"b9cf584c","errorCode":422,"errorMsg":"Unsupported file type"}',
    ),
    "client-timeout": (
        "requests.exceptions.ReadTimeout: HTTPConnectionPool(host='localhost', port=8080): Read timed out. (read timeout=600)",
    ),
    # --- lines that hide their cause
    "model-not-inspected": (
        "ValueError: Model architectures ['PaddleOCRVLForConditionalGeneration'] failed to be inspected. Please check the logs "
        "for "
        "more details.",
    ),
    "model-not-prepared": (
        "Failed to get model directory",
        "RuntimeError: Could not prepare the official model for the 'PaddleOCR-VL-1.6-0.9B' model with the 'vllm' backend.",
    ),
    "dependency-unhealthy": (
        "dependency failed to start: container paddleocr-vl-paddleocr-vlm-server-1 is unhealthy",
        "timeout waiting for dependencies",
    ),
    "cause-hidden": ('{"logId":"4378e7e2","errorCode":500,"errorMsg":"Internal server error"}',),
}
