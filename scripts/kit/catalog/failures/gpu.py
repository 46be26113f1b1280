"""The card: driver, generation, memory."""

from __future__ import annotations

from kit.catalog.failures.failure import Failure

GPU: tuple[Failure, ...] = (
    Failure(
        "driver-too-old",
        r"unsatisfied condition: cuda|CUDA driver version is insufficient",
        "the NVIDIA driver is too old for the CUDA version of this image",
        "update the driver: CUDA 12.6 for the usual images, 12.9 for the sm120 images (nvidia-smi shows what it offers)",
        "PaddleOCR-VL documentation; wording of the NVIDIA Container Toolkit and of CUDA",
    ),
    Failure(
        "no-nvidia-driver",
        r"nvidia-container-cli: .*(nvml error|driver)|error running hook.*nvidia",
        "Docker found the NVIDIA Container Toolkit, but no working NVIDIA driver",
        "nvidia-smi must work on the host first: install or reload the driver",
        "Docker Engine 26 measured with a failing hook",
    ),
    Failure(
        "mig-by-uuid",
        r"invalid literal for int\(\) with base 10: '(MIG|GPU)-|CUDA_VISIBLE_DEVICES ID must be an integer",
        "CUDA_VISIBLE_DEVICES names a GPU or MIG slice by UUID inside the container, and the program expects a number",
        "leave CUDA_VISIBLE_DEVICES unset; name the slice in VLM_GPU / API_GPU, so that Docker shows the container that one "
        "alone",
        "vllm#41848, OCR#17689; paddlex 3.7.2 source",
    ),
    Failure(
        "no-driver-in-container",
        r"libcuda\.so\.1: cannot open shared object file|No platform detected|Failed to infer device type",
        "the container sees no NVIDIA driver: it was started without a GPU",
        "./kit doctor; on Kubernetes give the pod nvidia.com/gpu, with plain Docker --gpus",
        "OCR#17689; vLLM 0.28 source",
    ),
    Failure(
        "gpu-too-old",
        r"Bfloat16 is only supported on GPUs",
        "vLLM needs a card of compute capability 8.0 (RTX 30xx, A10, A100) or newer; this one is older",
        "use another card, or the native backend: ./kit configure says what works here",
        "OCR#16823; vLLM 0.28 source",
    ),
    Failure(
        "gpu-image-mismatch",
        r"no kernel image is available for execution on the device|sm_120 is not compatible",
        "the image was built for another GPU generation",
        "Blackwell cards (RTX 50xx) need the sm120 tags: API_IMAGE_TAG_SUFFIX and VLM_IMAGE_TAG_SUFFIX in .env",
        "OCR#17507, OCR#17893",
    ),
    Failure(
        "crash",
        r"exit status 139\b|Segmentation fault|Fatal Python error: Segmentation fault",
        "the process crashed in native code (signal 11); on a Blackwell card (RTX 50xx) mostly because of an image without sm120",
        "./kit doctor names the card and the tags that fit it",
        "OCR#17507, OCR#16717",
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
        "kv-cache-too-small",
        r"larger than the available KV cache memory",
        "what is left of the VLM's memory share cannot hold one request of max-model-len tokens",
        "lower max-model-len (not below 8192) or raise gpu-memory-utilization in vlm_server_config.yaml",
        "vLLM 0.28 source (v1/core/kv_cache_utils.py)",
    ),
    Failure(
        "gpu-out-of-memory",
        r"CUDA out of memory|Out of memory error on GPU|OutOfMemoryError",
        "the GPU ran out of memory",
        "lower gpu-memory-utilization in vlm_server_config.yaml, or give API and VLM a card each (API_GPU, VLM_GPU)",
        "OCR#16788, OCR#17064",
    ),
)
