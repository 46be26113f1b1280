"""Known log lines lead to their cause; unknown ones to none."""

from __future__ import annotations

import re

import pytest
from kit.catalog.failures import FAILURES
from kit.diagnose import explain

# Lines as users and engines have written them.
SEEN = {
    "disk-full": "OSError: [Errno 28] No space left on device",
    "port-taken": "[Errno 98] error while attempting to bind on address ('127.0.0.1', 8080): address already in use",
    "no-libgl": "ImportError: libGL.so.1: cannot open shared object file: No such file or directory",
    "gpu-memory-below-utilization": "ValueError: Free memory on device (6.77/7.96 GiB) on startup is less than desired GPU "
    "memory utilization (0.99, 7.88 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes.",
    "no-kv-cache": "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`",
    "gpu-out-of-memory": "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB.",
    "no-nvidia-runtime": 'could not select device driver "nvidia" with capabilities: [[gpu]]',
    "no-nvidia-driver": "error running hook: exit status 1, stdout: , stderr: nvidia-container-cli: initialization error: nvml "
    "error: driver not loaded: unknown",
    "engine-too-old": "can't set healthcheck.start_interval as feature require Docker Engine v25 or later",
    "gpu-image-mismatch": "RuntimeError: CUDA error: no kernel image is available for execution on the device",
    "model-hub-unreachable": "Exception: No model hoster is available! Please check your network connection",
    "unknown-model": "ValueError: Unknown model: PaddleOCR-VL-1.6-0.9B",
    "model-name-mismatch": "openai.NotFoundError: Error code: 404 - The model `PaddleOCR-VL-0.9B` does not exist.",
    "server-url-without-v1": "RuntimeError: Exception from the 'vlm' worker: Error code: 404",
    "proxy-in-the-way": "RuntimeError: Exception from the 'vlm' worker: Error code: 502",
    "vlm-unreachable": "RuntimeError: Exception from the 'vlm' worker: Connection error.",
    "preprocessor-not-loaded": "the input params for model settings are invalid!",
    "pixel-limit": "Image pixel count 182000000 (14000x13000) exceeds maximum allowed 178956970.",
    "image-missing": "Error response from daemon: manifest unknown: manifest unknown",
    "registry-unreachable": "dial tcp: lookup ccr-2vdh3abv-pub.cnc.bj.baidubce.com on 127.0.0.11:53: no such host",
    "docker-permission": "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock",
    "docker-down": "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
}


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.name)
def test_each_failure_is_told_from_a_real_line(failure) -> None:
    found = explain(["INFO: started", SEEN[failure.name], "INFO: bye"])
    assert found is failure
    assert failure.cause and failure.fix and failure.source


def test_sound_logs_show_no_failure() -> None:
    assert explain(["INFO:     Uvicorn running on http://0.0.0.0:8080", 'INFO: "POST /layout-parsing HTTP/1.1" 200 OK']) is None


def test_a_cause_wins_over_its_consequence() -> None:
    lines = ["RuntimeError: Exception from the 'vlm' worker: Connection error.", "torch.OutOfMemoryError: CUDA out of memory."]
    assert explain(lines).name == "gpu-out-of-memory"


def test_files_that_fixes_name_exist() -> None:
    from support import ROOT

    for failure in FAILURES:
        for name in re.findall(r"docs/[\w.-]+", failure.fix):
            assert (ROOT / name).exists(), name
