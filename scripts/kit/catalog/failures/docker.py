"""Docker itself: the engine, images and the registry, what it refuses to start."""

from __future__ import annotations

from kit.catalog.failures.failure import Failure

DOCKER: tuple[Failure, ...] = (
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
    Failure(
        "docker-stale-pid",
        r"failed to start daemon, ensure docker is not running or delete",
        "the Docker engine was killed and its pid file is in the way of a new one",
        "sudo rm /var/run/docker.pid, then sudo systemctl start docker",
        "Docker Engine 28 measured after kill -9 of dockerd",
    ),
    Failure(
        "engine-too-old",
        r"start_interval as feature require Docker Engine v25",
        "this Docker engine is older than 25",
        "add the override: docker compose -f compose.yaml -f compose.engine-20.yaml up -d (./kit up does it by itself)",
        "Docker Engine 20.10 measured",
    ),
    Failure(
        "no-cdi",
        r"could not select device driver \"?cdi",
        "the Compose file asks for a GPU by CDI, which this Docker engine does not offer",
        "use driver: nvidia as in compose.yaml, or Docker 28; 26 needs features.cdi in /etc/docker/daemon.json",
        "Docker Engine 20.10, 26 and 28 measured",
    ),
    Failure(
        "cdi-unknown-device",
        r"CDI device injection failed: unresolvable CDI devices",
        "no GPU of that CDI name is known on this host",
        "nvidia-ctk cdi list shows the names; write them anew: sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml",
        "Docker Engine 28 measured",
    ),
    Failure(
        "no-nvidia-runtime",
        r"could not select device driver \"(nvidia)?\" with capabilities: \[\[gpu\]\]",
        "Docker cannot hand GPUs to containers: the NVIDIA Container Toolkit is missing",
        "install nvidia-container-toolkit, then: sudo nvidia-ctk runtime configure && sudo systemctl restart docker",
        "Docker Engine 20.10, 26 and 28 measured",
    ),
    Failure(
        "limits-refused",
        r"error setting rlimits? |unable to apply caps: operation not permitted",
        "the host does not allow the limits or capabilities that the Compose file asks for",
        "take ulimits, cap_add and privileged out of your Compose override, or start Docker with CAP_SYS_RESOURCE",
        "Docker Engine 28 measured without CAP_SYS_RESOURCE",
    ),
    Failure(
        "name-conflict",
        r"Conflict\. The container name \S+ is already in use",
        "a container of that name is there already, from another project or an earlier docker run",
        "docker rm -f NAME removes it; leave container_name out of Compose files",
        "Docker Engine 28 measured",
    ),
    Failure(
        "mount-source-missing",
        r"bind source path does not exist",
        "a file that is to be mounted into the container is not there",
        "PIPELINE_CONFIG and VLM_CONFIG in .env must name files that exist",
        "Docker Engine's wording, for create_host_path: false as in compose.yaml",
    ),
    Failure(
        "probe-missing",
        r"exec: \"curl\": executable file not found",
        "the image has no curl, so the health check of compose.yaml can never succeed",
        "use the official images, or give your image curl",
        "Docker Engine 28 measured",
    ),
    Failure(
        "wrong-image",
        r"exec: \"[\w./-]+\": executable file not found"
        r"|invalid choice: 'genai_server'"
        r"|The generative AI engine plugins are not available"
        r"|The '[\w-]+-server' plugin is not available"
        r"|No module named 'paddle'",
        "this image is not the one for the job: it lacks the program or the package that it was told to run",
        "paddleocr-vl for the API, paddleocr-genai-vllm-server for the VLM (not paddlex-genai-vllm-server): ./kit lint",
        "OCR#16956; paddlex 3.7.2 measured without vLLM; Docker Engine's wording",
    ),
    Failure(
        "image-not-here",
        r"No such image",
        "an image is not on this machine, and is not to be pulled (compose.offline.yaml, or --pull never)",
        "./kit load brings it from a bundle; where there is a network, take compose.offline.yaml out of COMPOSE_FILE in .env",
        "Docker 20.10 and 26.1 measured",
    ),
    Failure(
        "image-missing",
        r"manifest unknown|pull access denied|repository does not exist",
        "the registry has no image of that name and tag",
        "check API_IMAGE_TAG_SUFFIX, VLM_IMAGE_TAG_SUFFIX and VLM_BACKEND in .env (README.md, section GPU host)",
        "OCR#17607, OCR#17310",
    ),
    Failure(
        "registry-forbidden",
        r"(pull|manifest|registry|HEAD request|resolve reference).*403 Forbidden",
        "the image registry refuses this host",
        "try again later, or set IMAGE_REGISTRY in .env to a mirror of the images",
        "OCR#16953; containerd's wording",
    ),
    Failure(
        "registry-unreachable",
        r"(lookup|dial tcp|Client\.Timeout).*(no such host|i/o timeout|connection refused|exceeded|network is unreachable)",
        "the image registry was not reached",
        "check the network, or carry the images over (README.md, section Air-gapped host)",
        "Docker Engine 28 measured",
    ),
    Failure(
        "bundle-damaged",
        r"Error processing tar file|invalid diffID for layer|archive/tar: invalid tar header"
        r"|Decoding error \(36\)|Read error \(39\)|wrong diff id calculated on extraction",
        "the file with the images is damaged, or packed in a way that this engine cannot read",
        "sha256sum -c paddleocr-vl.tar.zst.sha256; then zstd -dc paddleocr-vl.tar.zst | docker load (20.10 reads no zstd itself)",
        "Docker Engine 20.10 and 28 and zstd measured with truncated and changed files",
    ),
    Failure(
        "no-buildx",
        r"BuildKit is enabled but the buildx component is missing",
        "this Docker has no buildx plugin, which building the preview's images needs",
        "install docker-buildx (Debian, Ubuntu: docker-buildx-plugin or docker-buildx), or ./kit up --local",
        "Docker 28 client measured",
    ),
)
