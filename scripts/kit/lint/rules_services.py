"""KIT2xx: the services as containers: processes, ports, health checks, mounts, rights."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from kit.lint import mend
from kit.lint.compose_file import as_mapping
from kit.lint.findings import Edit, Hit, Rules, Severity
from kit.lint.project import Api, Project, Vlm
from kit.lint.services import IMAGE_HOME, OWN_CONFIG, Service
from kit.lint.tree import Mapping, Scalar, Sequence, find, scalar

rules = Rules()
ERROR, WARNING, INFO = Severity.ERROR, Severity.WARNING, Severity.INFO
USUAL_PORTS = {"8080": "API", "8118": "VLM"}  # PaddleOCR-VL documentation, sections 3.1 and 4
LEAST_START = 600.0  # seconds; cold starts of 3 to 20 minutes are reported (OCR#17359)


def parts(project: Project) -> Iterator[Api | Vlm]:
    yield from (api for api in project.apis if api.service)
    yield from project.vlms


def used(project: Project) -> Iterator[Service]:
    """Services with a role, each once."""
    seen: set[str] = set()
    for part in parts(project):
        if part.service and part.service.name not in seen:
            seen.add(part.service.name)
            yield part.service


@rules(
    "KIT201",
    WARNING,
    "one container runs the API and the VLM server",
    why="Docker watches the first process alone: when the other dies, nothing restarts it and no health check sees it",
    mend="two services: paddleocr-vl for the API, paddleocr-genai-vllm-server for the VLM",
)
def two_in_one(project: Project) -> Iterator[Hit]:
    for service in used(project):
        apis = [api for api in project.apis if api.service is service]
        vlms = [vlm for vlm in project.vlms if vlm.service is service]
        if apis and vlms:
            yield Hit(vlms[0].place, f"{service.name} runs both the API and the VLM server")


@rules(
    "KIT202",
    WARNING,
    "the VLM server is published on every address of the machine",
    why="it has no authentication, and only the API needs it, over the Compose network",
    mend="remove the port, or bind it to this machine: 127.0.0.1:8118:8118",
)
def vlm_published(project: Project) -> Iterator[Hit]:
    for vlm in project.vlms:
        for port in vlm.service.ports:
            if port.to_the_world and port.container == vlm.port:
                yield Hit(
                    port.place, f"port {port.container} of {vlm.service.name} is open to everybody who reaches this machine"
                )


@rules(
    "KIT203",
    WARNING,
    "the API is published on every address of the machine",
    why="paddlex --serve has no authentication and fetches any URL that a request names (paddlex 3.7.2 source, "
    "serving/infra/utils.py)",
    mend="bind it to this machine, 127.0.0.1:8080:8080, and put a proxy with authentication in front",
)
def api_published(project: Project) -> Iterator[Hit]:
    for api in project.apis:
        for port in api.service.ports if api.service else ():
            if port.to_the_world and port.container == api.port:
                yield Hit(
                    port.place, f"port {port.container} of {api.service.name} is open to everybody who reaches this machine"
                )


@rules(
    "KIT204",
    ERROR,
    "container_name with more than one replica",
    why="a name can be given once: Compose refuses, `can't set container_name … as container name must be unique`",
    mend="remove container_name",
)
def named_replicas(project: Project) -> Iterator[Hit]:
    for service in project.services:
        name = service.scalar("container_name")
        if name and service.replicas > 1:
            edits = ()
            for file, tree in project.compose.trees.items() if project.compose else ():
                owner = find(tree, "services", service.name)
                if isinstance(owner, Mapping) and owner.items.get("container_name") is name:
                    edits = mend.drop(project.text(file), owner, "container_name")
            yield Hit(
                service.key("container_name"), f"{service.name} has a container_name and {service.replicas} replicas", edits
            )


@rules(
    "KIT205",
    WARNING,
    "a service runs as root",
    why="whoever gets into the process owns the container; the official images have a user of their own, 1000:1000 (upstream's "
    "compose.yaml: `TODO: Allow using a regular user`)",
    mend="user: 1000:1000",
)
def root(project: Project) -> Iterator[Hit]:
    for service in used(project):
        user = service.scalar("user")
        if user and user.text.partition(":")[0] in ("root", "0"):
            yield Hit(user.where(user.text), f"{service.name} runs as root")


@rules(
    "KIT206",
    WARNING,
    "no health check",
    why="Compose cannot hold the API back until the VLM serves, and `docker compose ps` calls a dead VLM running",
    mend="healthcheck: test: [CMD-SHELL, curl -fsS http://127.0.0.1:PORT/health]",
)
def no_health_check(project: Project) -> Iterator[Hit]:
    for service in used(project):
        check = service.get("healthcheck")
        if check is None or ((disabled := scalar(check, "disable")) and disabled.value is True):
            yield Hit(service.key("healthcheck"), f"{service.name} has no health check")


def duration(text: str) -> float | None:
    """Seconds of a Compose duration such as 1m30s; None when it is none."""
    units = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
    pieces = re.findall(r"(\d+(?:\.\d+)?)(us|ms|s|m|h)", text)
    if not pieces or "".join(number + unit for number, unit in pieces) != text:
        return None
    return sum(float(number) * units[unit] for number, unit in pieces)


@rules(
    "KIT207",
    WARNING,
    "the VLM server has too little time to start",
    why="the first start downloads, loads and compiles for 3 to 20 minutes (OCR#17359); once it counts as unhealthy, a "
    "service that "
    "waits for it is never started",
    mend="start_period: 1800s",
)
def short_start(project: Project) -> Iterator[Hit]:
    for vlm in project.vlms:
        check = vlm.service.get("healthcheck")
        if not isinstance(check, Mapping) or ((disabled := scalar(check, "disable")) and disabled.value is True):
            continue
        period = scalar(check, "start_period")
        allowed = duration(period.text) if period else 0.0
        if allowed is not None and allowed < LEAST_START:
            place = period.where(period.text) if period else vlm.service.key("healthcheck")
            edits = (
                mend.put(period, "1800s") if period else mend.add(project.text(check.place.file), check, "start_period: 1800s")
            )
            yield Hit(
                place, f"{vlm.service.name}: start_period is {period.text if period else 'not set, which means 0 s'}", edits
            )


@rules(
    "KIT208",
    WARNING,
    "no restart policy",
    why="a VLM server that dies, as on a picture that it cannot take (OCR#17378), stays dead, and nothing comes up after a "
    "reboot",
    mend="restart: unless-stopped",
)
def no_restart(project: Project) -> Iterator[Hit]:
    for service in used(project):
        policy = service.scalar("restart")
        if service.get("deploy", "restart_policy") is None and (policy is None or policy.text == "no"):
            anchor = service.node.keys.get("image") or service.node.keys.get("build")
            value = service.get("image") or service.get("build")
            plain = anchor and isinstance(value, Scalar) and value.place.line == anchor.line and not service.node.flow
            edits = mend.after(project.text(anchor.file), anchor, "restart: unless-stopped") if plain and policy is None else ()
            yield Hit(policy.place if policy else service.place, f"{service.name} is not restarted", edits)


@rules(
    "KIT209",
    ERROR,
    "the health check asks a port on which the service does not listen",
    why="the service never becomes healthy; the official page overrides the port of the command and leaves the check at 8080 "
    "(PaddleOCR-VL documentation, section 4.1; OCR#17015)",
    mend="ask the port of the command",
)
def health_port(project: Project) -> Iterator[Hit]:
    for service in used(project):
        ports = {part.port for part in parts(project) if part.service is service and part.port}
        test = service.get("healthcheck", "test")
        for text in test.items if isinstance(test, Sequence) else [test]:
            for match in re.finditer(r"(?:localhost|127\.0\.0\.1|\[::1\]):(\d+)", text.text if isinstance(text, Scalar) else ""):
                if ports and match[1] not in ports and isinstance(text, Scalar):
                    edits = (
                        mend.put_part(text, match[0], match[0].replace(match[1], next(iter(ports)))) if len(ports) == 1 else ()
                    )
                    wanted = " and ".join(sorted(ports))
                    yield Hit(
                        text.where(match[0]), f"the check of {service.name} asks port {match[1]}; it listens on {wanted}", edits
                    )


@rules(
    "KIT210",
    ERROR,
    "a published port leads to one on which nothing listens",
    why="clients get `connection reset`, while the container looks healthy",
    mend="HOST:CONTAINER, where CONTAINER is the port of the command",
)
def dead_port(project: Project) -> Iterator[Hit]:
    for service in used(project):
        ports = {part.port for part in parts(project) if part.service is service}
        for port in service.ports:
            if "" not in ports and port.container.isdigit() and port.container not in ports and not service.build:
                wanted = " and ".join(sorted(ports))
                yield Hit(port.place, f"{port.container} is published; {service.name} listens on {wanted}")


@rules(
    "KIT211",
    ERROR,
    "two services want the same port of the machine",
    why="the second does not start: `Bind for 0.0.0.0:8080 failed: port is already allocated`",
    mend="give one of them another port",
)
def same_port(project: Project) -> Iterator[Hit]:
    taken: dict[str, tuple[str, str]] = {}
    for service in project.services:
        for port in service.ports:
            address, owner = taken.get(port.host, ("", ""))
            if port.host and owner and (port.address == address or not port.address or not address):
                yield Hit(port.place, f"port {port.host} is wanted by {owner} and {service.name}")
            elif port.host:
                taken[port.host] = (port.address, service.name)


@rules(
    "KIT212",
    ERROR,
    "a port is no number from 1 to 65535",
    why="Compose answers `invalid containerPort` or `invalid hostPort`; the servers end with a usage error",
    mend="write a whole number from 1 to 65535",
)
def no_port(project: Project) -> Iterator[Hit]:
    def wrong(text: str) -> bool:
        return any(not end.isdigit() or not 0 < int(end) < 65536 for end in text.split("-"))

    for service in project.services:
        for port in service.ports:
            for text in (port.host, port.container):
                if text and wrong(text):
                    yield Hit(port.place, f"{text} is no port")
    for part in parts(project):
        word = part.command.option("--port") if part.command else None
        if word and wrong(word.text):
            yield Hit(word.place, f"--port {word.text}: no port")


@rules(
    "KIT213",
    ERROR,
    "the VLM server gets no GPU",
    why="vLLM ends with `Failed to infer device type` or `No platform detected` (OCR#17689)",
    mend="deploy: resources: reservations: devices: [{driver: nvidia, device_ids: ['0'], capabilities: [gpu]}]",
)
def no_gpu(project: Project) -> Iterator[Hit]:
    for vlm in project.vlms:
        service = vlm.service
        asked = service.get("gpus") or service.get("deploy", "resources", "reservations", "devices") or service.get("devices")
        if (
            vlm.engine in ("vllm", "sglang", "fastdeploy")
            and not asked
            and not service.scalar("runtime")
            and service.scalar("privileged") is None
        ):
            yield Hit(service.key("deploy"), f"{service.name} runs {vlm.engine} and reserves no GPU")


@rules(
    "KIT214",
    WARNING,
    "the API does not wait for the VLM server",
    why="vLLM measures the free memory of its card while it starts, and a layout model that loads meanwhile disturbs that "
    "(vllm#20305); requests before the VLM serves fail with `Connection error.` (OCR#17015)",
    mend="depends_on: {VLM-SERVICE: {condition: service_healthy}}",
)
def no_wait(project: Project) -> Iterator[Hit]:
    for api, vlm in project.pairs():
        if api.service and api.service is not vlm.service and api.wiring_to(vlm):
            waits = as_mapping(api.service.get("depends_on")) if api.service.get("depends_on") else None
            entry = waits.get(vlm.service.name) if waits else None
            condition = scalar(entry, "condition")
            if not (condition and condition.text == "service_healthy"):
                yield Hit(api.service.key("depends_on"), f"{api.service.name} does not wait until {vlm.service.name} is healthy")


@rules(
    "KIT215",
    ERROR,
    "a proxy catches the calls from the API to the VLM server",
    why="`Error code: 502`: HTTP_PROXY holds inside the container too, and no proxy knows the service's name (OCR#17384)",
    mend="NO_PROXY: VLM-SERVICE,localhost,127.0.0.1 (and no_proxy)",
)
def proxied(project: Project) -> Iterator[Hit]:
    for api, vlm in project.pairs():
        if not api.service or api.service is vlm.service or not api.service.get("environment"):
            continue
        environment = as_mapping(api.service.get("environment"))
        exempt = ",".join(
            node.text for key, node in environment.items.items() if key.lower() == "no_proxy" and isinstance(node, Scalar)
        )
        hosts = [host.strip() for host in exempt.split(",")]
        for name, node in environment.items.items():
            caught = name.lower() in ("http_proxy", "all_proxy") and isinstance(node, Scalar) and node.text
            if caught and vlm.service.name not in hosts and "*" not in hosts:
                yield Hit(
                    environment.keys[name], f"{name} is set for {api.service.name}, and NO_PROXY leaves out {vlm.service.name}"
                )


def size(text: str) -> float | None:
    """Bytes of a Compose size such as 4g; None when it is none."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([bkmgt]?)b?", text.lower())
    return float(match[1]) * 1024 ** "bkmgt".index(match[2] or "b") if match else None


@rules(
    "KIT216",
    WARNING,
    "too little shared memory for FastDeploy",
    why="it wants 4 GB of /dev/shm at least (FastDeploy best practice for PaddleOCR-VL); Docker gives 64 MB",
    mend="shm_size: 16g",
)
def shared_memory(project: Project) -> Iterator[Hit]:
    for vlm in project.vlms:
        ipc, given = vlm.service.scalar("ipc"), vlm.service.scalar("shm_size")
        amount = size(given.text) if given else 64 * 2**20
        if vlm.engine == "fastdeploy" and not (ipc and ipc.text == "host") and amount is not None and amount < 4 * 10**9:
            yield Hit(
                given.where(given.text) if given else vlm.service.place,
                f"{vlm.service.name}: /dev/shm of {given.text if given else '64m'}",
            )


@rules(
    "KIT217",
    ERROR,
    "a MIG slice is chosen by CUDA_VISIBLE_DEVICES",
    why="vLLM takes its value for a number: `ValueError: invalid literal for int() with base 10: 'MIG-…'` (vllm#41848)",
    mend="name the slice in device_ids and leave CUDA_VISIBLE_DEVICES out",
)
def mig(project: Project) -> Iterator[Hit]:
    for vlm in project.vlms:
        value = (
            scalar(as_mapping(vlm.service.get("environment")), "CUDA_VISIBLE_DEVICES") if vlm.service.get("environment") else None
        )
        if value and "MIG-" in value.text:
            yield Hit(value.where("MIG-"), f"{vlm.service.name}: CUDA_VISIBLE_DEVICES={value.text}")


@rules(
    "KIT218",
    WARNING,
    "the network of the host, where Compose has one of its own",
    why="published ports are ignored, both servers need ports of the machine, and under Docker Desktop the API is not reached "
    "at all "
    "(OCR#16715)",
    mend="remove network_mode: host and publish the API's port",
)
def host_network(project: Project) -> Iterator[Hit]:
    for service in used(project):
        if service.host_network:
            yield Hit(service.key("network_mode"), f"{service.name} uses the network of the host")


@rules(
    "KIT219",
    ERROR,
    "a config file is mounted as a named volume",
    why="a source without ./ is the name of a volume: `refers to undefined volume pipeline_config_vllm.yaml` (Compose "
    "specification, volumes)",
    mend="put ./ before the file's name",
)
def named_volume(project: Project) -> Iterator[Hit]:
    for service in project.services:
        for mount in service.mounts:
            if mount.named and mount.source.endswith((".yaml", ".yml", ".json", ".jinja")):
                at = mount.source_place
                edits = (Edit(at.file, at.start, at.end, f"./{mount.source}"),) if at.end - at.start == len(mount.source) else ()
                yield Hit(at, f"{mount.source} names a volume, no file", edits)


@rules(
    "KIT220",
    ERROR,
    "a config is mounted, and the command loads another one",
    why="the mounted file does nothing, and the server runs with its own defaults (OCR#18035, OCR#16972)",
    mend="mount it to the path that --pipeline or --backend_config names",
)
def loads_another(project: Project) -> Iterator[Hit]:
    for part in parts(project):
        service = part.service
        option, looks, own = (
            ("--pipeline", "pipeline", OWN_CONFIG) if isinstance(part, Api) else ("--backend_config", "config", None)
        )
        word = part.command.option(option) if part.command else None
        loaded = IMAGE_HOME / word.text if word else None if part.command else own
        there = service is not None and any(mount.target == loaded for mount in service.mounts)
        if service is None or service.build or there or (loaded and service.mounted(loaded)):
            continue
        loose = [
            mount
            for mount in service.mounts
            if mount.target.suffix in (".yaml", ".yml") and looks in mount.target.name + PurePosixPath(mount.source).name
        ]
        for mount in loose:
            at = mount.target_place
            sure = loaded and loaded.suffix and len(loose) == 1 and at.end - at.start == len(str(mount.target))
            edits = (Edit(at.file, at.start, at.end, str(loaded)),) if sure else ()
            said = f"{option} {word.text}" if word else f"no {option}"
            yield Hit(at, f"{mount.target} is mounted; the command says {said}", edits)


@rules(
    "KIT221",
    INFO,
    "ports other than the usual ones",
    why="clients, proxies and documents expect the API on 8080 and the VLM server on 8118 (PaddleOCR-VL documentation, "
    "sections 3.1 and 4)",
    mend="VLM server: --port 8118; API: --port 8080; another port of the machine needs no other port in the container",
)
def unusual_ports(project: Project) -> Iterator[Hit]:
    for api in project.apis:
        word = api.command.option("--port") if api.command else None
        if word and api.port != "8080" and word.text.isdigit():
            yield Hit(word.place, f"the API listens on {api.port}")
    for vlm in project.vlms:
        word = vlm.option("--port")
        if word and vlm.kind == "genai" and vlm.port == "8080" and any(api.service is vlm.service for api in project.apis):
            yield Hit(word.place, "the VLM server listens on 8080, the usual port of the API")


@rules(
    "KIT222",
    WARNING,
    "a user of another number without a home to write in",
    why="`PermissionError: … '/root/.paddlex/temp'`: the images are made for the user 1000 (OCR#18175)",
    mend="user: 1000:1000, or set HOME and PADDLE_PDX_CACHE_HOME to a folder that the user may write",
)
def homeless(project: Project) -> Iterator[Hit]:
    for service in used(project):
        user = service.scalar("user")
        number = user.text.partition(":")[0] if user else ""
        homes = as_mapping(service.get("environment")).items if service.get("environment") else {}
        if user and number.isdigit() and number not in ("0", "1000") and not {"HOME", "PADDLE_PDX_CACHE_HOME"} & set(homes):
            yield Hit(user.where(user.text), f"{service.name} runs as {user.text}, whose home is nobody's")
