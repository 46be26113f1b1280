"""The machine: disk, memory, ports, rights, libraries, network."""

from __future__ import annotations

from kit.catalog.failures.failure import Failure

MACHINE: tuple[Failure, ...] = (
    Failure(
        "shm-too-small",
        r"exit status 135\b|[Bb]us error",
        "/dev/shm of the container is full (signal 7)",
        "raise VLM_SHM_SIZE or API_SHM_SIZE in .env",
        "Docker Engine 28 measured: writing past shm_size ends with exit status 135; PyTorch's wording",
    ),
    Failure(
        "disk-full",
        r"No space left on device|no space left on device",
        "the disk is full",
        "free some space: docker system df, df -h",
        "Linux ENOSPC; Docker Engine's wording is the same in lower case",
    ),
    Failure(
        "killed",
        r"exit status 137\b|Out of memory: Killed process",
        "the process was killed (signal 9): most often because the memory of the machine or container was full",
        "send long PDFs in parts, give the machine more memory; docker stats and dmesg show who took it",
        "OCR#16971, OCR#17113; Docker Engine 28 measured: out of memory ends with exit status 137",
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
        "home-not-writable",
        r"PermissionError: .*\.(paddlex|cache|triton)\b",
        "the user that the service runs as cannot write into its home folder, where models and caches go",
        "leave CONTAINER_USER=1000:1000, or set HOME and PADDLE_PDX_CACHE_HOME to a folder which that user owns",
        "OCR#18175",
    ),
    Failure(
        "file-not-readable",
        r"PermissionError: \[Errno 13\] Permission denied: '[^']*(pipeline_config|vlm_server_config)",
        "the user inside the container may not read a config file that is mounted into it",
        "chmod a+r pipeline_config_vllm.yaml vlm_server_config.yaml, and a+rx on the folders above them",
        "Docker Engine 28 measured with user 1000 and files of root",
    ),
    Failure(
        "tls-intercepted",
        r"CERTIFICATE_VERIFY_FAILED|certificate signed by unknown authority",
        "something on the way to the network, such as a company's proxy, shows a certificate that is not trusted here",
        "give the host (and images that you build) that authority's certificate, or use the -offline images",
        "measured: pip in a build behind such a proxy; Go's wording for docker pull",
    ),
)
