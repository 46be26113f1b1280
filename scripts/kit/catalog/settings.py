"""Every variable of .env: one table, from which .env.example and docs/settings.md are made.

compose.yaml repeats the defaults, because it must work without this package;
tests/unit/test_settings.py holds the two together.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dotenv import dotenv_values

from kit.errors import ExitCode, KitError

ENV_FILE = ".env"


def _text(value: str) -> str:
    return value


def _port(value: str) -> str:
    if not value.isdigit() or not 0 < int(value) < 65536:
        raise ValueError("a port is a whole number from 1 to 65535")
    return value


def _tries(value: str) -> str:
    if not value.isdigit() or not 0 <= int(value) <= 50:
        raise ValueError("a whole number from 0 to 50 is needed")
    return value


def _replicas(value: str) -> str:
    if not value.isdigit() or not 1 <= int(value) <= 64:
        raise ValueError("a whole number from 1 to 64 is needed")
    return value


def _boolean(value: str) -> str:
    if value not in ("true", "false"):
        raise ValueError("true or false is needed")
    return value


def _address(value: str) -> str:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        raise ValueError("an IP address is needed, such as 127.0.0.1 or 0.0.0.0") from None
    return value


@dataclass(frozen=True)
class Setting:
    """One variable: its default, its meaning with its unit, and which stacks read it."""

    name: str
    default: str
    meaning: str
    used_by: str = "compose"  # "compose", "preview", "both", "api-only", "gateway" or "Docker Compose itself"
    check: Callable[[str], str] = _text


SECTIONS: tuple[tuple[str, tuple[Setting, ...]], ...] = (
    (
        "Where the API listens",
        (
            Setting(
                "API_BIND",
                "127.0.0.1",
                "IP address on which the API is published; it has no authentication, so 0.0.0.0 opens it to everybody who "
                "reaches this machine",
                "both",
                _address,
            ),
            Setting("API_PORT", "8080", "port of the API on this machine", "both", _port),
        ),
    ),
    (
        "Images",
        (
            Setting(
                "IMAGE_REGISTRY",
                "ccr-2vdh3abv-pub.cnc.bj.baidubce.com/paddlepaddle",
                "registry and namespace of the official images, or of your mirror of them",
            ),
            Setting(
                "API_IMAGE_TAG_SUFFIX",
                "paddleocr3.6-nvidia-gpu",
                "tag of paddleocr-vl; take both tags from one family: `latest-nvidia-gpu-sm120` for Blackwell cards, "
                "`…-offline` for images with the models inside",
            ),
            Setting(
                "VLM_IMAGE_TAG_SUFFIX",
                "paddleocr3.6-nvidia-gpu",
                "tag of paddleocr-genai-VLM_BACKEND-server",
            ),
        ),
    ),
    (
        "Model",
        (
            Setting("VLM_BACKEND", "vllm", "inference engine of the VLM server: vllm or fastdeploy"),
            Setting(
                "VLM_MODEL_NAME",
                "PaddleOCR-VL-0.9B",
                "model that the VLM server loads; must equal VLRecognition.model_name in PIPELINE_CONFIG",
            ),
        ),
    ),
    (
        "GPU and memory",
        (
            Setting("VLM_GPU", "0", "index or UUID of the GPU for the VLM server (see nvidia-smi -L)"),
            Setting("API_GPU", "0", "index or UUID of the GPU for the layout model of the API"),
            Setting("VLM_SHM_SIZE", "16g", "upper limit of /dev/shm in the VLM container"),
            Setting("API_SHM_SIZE", "4g", "upper limit of /dev/shm in the API container"),
        ),
    ),
    (
        "Files and rights",
        (
            Setting("PIPELINE_CONFIG", "./pipeline_config_vllm.yaml", "PaddleX pipeline config that the API loads", "both"),
            Setting("VLM_CONFIG", "./vlm_server_config.yaml", "settings of the VLM server's engine"),
            Setting(
                "CONTAINER_USER",
                "1000:1000",
                "uid:gid inside the containers; 1000 is the images' own user, paddleocr",
            ),
            Setting(
                "VLM_START_PERIOD",
                "1800s",
                "how long the VLM may take to start before failing health checks count",
            ),
            Setting(
                "HANG_TRIES",
                "6",
                "tries, of 5 s each and 5 s apart, after which a service that has answered before and no longer does is killed, "
                "to be restarted; 0 leaves it alone (docs/reliability.md)",
                "both",
                _tries,
            ),
            Setting(
                "VLM_NETWORK_INTERNAL",
                "false",
                "true cuts the VLM server off from everything but the API; for images with the model inside (`…-offline`). "
                "Behind the gateway it holds for the API too, and true is the default",
                check=_boolean,
            ),
        ),
    ),
    (
        "Compose files",
        (
            Setting(
                "COMPOSE_FILE",
                "compose.yaml",
                "Compose files in force, `:` between them, and no others. Where it is not set, compose.override.yaml counts too, "
                "and `./kit up` adds compose.models.yaml unless the models are inside the images. compose.models.yaml keeps what "
                "is downloaded; compose.offline.yaml is for a host without network (docs/offline.md); compose.gateway.yaml puts "
                "the gateway in front (docs/gateway.md); compose.api-only.yaml, as the last one, starts the API alone",
                "Docker Compose itself",
            ),
        ),
    ),
    (
        "Gateway (compose.gateway.yaml; docs/gateway.md has more GATEWAY_ variables)",
        (
            Setting(
                "API_REPLICAS",
                "2",
                "how many APIs stand behind the gateway. Setting it turns the gateway on for `./kit up`, unless COMPOSE_FILE "
                "says which files are in force",
                "gateway",
                _replicas,
            ),
            Setting(
                "GATEWAY_API_KEYS_FILE",
                "",
                "file with the keys that are let in, one a line, `NAME:KEY` or `KEY`; readable for CONTAINER_USER. Empty: "
                "everybody is let in",
                "gateway",
            ),
            Setting(
                "GATEWAY_TLS_CERTIFICATE",
                "",
                "PEM file with the certificate and its chain: HTTPS instead of HTTP",
                "gateway",
            ),
            Setting("GATEWAY_TLS_KEY", "", "PEM file with its private key; readable for CONTAINER_USER", "gateway"),
            Setting(
                "GATEWAY_VLM",
                "http://paddleocr-vlm-server:8118",
                "VLM server that the gateway watches; with compose.api-only.yaml your own one, or empty for none",
                "gateway",
            ),
            Setting(
                "GATEWAY_SPOOL_MIB",
                "2048",
                "MiB of memory for documents over 1 MiB while they are parsed, in the gateway's container",
                "gateway",
            ),
        ),
    ),
    (
        "Without a VLM server of this project (./kit configure --backend native, or --vlm-url)",
        (
            Setting(
                "VLM_URL",
                "",
                "your own VLM server, for the API's health check; PIPELINE_CONFIG says where the API calls",
                "api-only",
            ),
            Setting("VLM_HOST", "", "host name in VLM_URL, kept away from proxies", "api-only"),
        ),
    ),
    (
        "CPU preview",
        (
            Setting(
                "PREVIEW_VLM_PORT",
                "8118",
                "port of the stand-in VLM server, on 127.0.0.1; for the preview as processes, containers need none",
                "preview",
                _port,
            ),
            Setting("PREVIEW_BASE_IMAGE", "python:3.11-slim", "image on which the preview's images are built", "preview"),
        ),
    ),
)  # fmt: skip

SETTINGS: dict[str, Setting] = {setting.name: setting for _, group in SECTIONS for setting in group}


class Settings:
    """The values in force: environment before .env before default, as Compose has it.

    An empty value counts as not set. gateway: what is set of GATEWAY_…, in the table or not.
    Raises KitError (USAGE) at once when a value is not of its kind, naming where it came from.
    """

    def __init__(self, root: Path, environ: Mapping[str, str]) -> None:
        self.root = root
        env_file = root / ENV_FILE
        from_file = dotenv_values(env_file) if env_file.exists() else {}
        self._values: dict[str, str] = {}
        self._given: set[str] = set()
        both = {**from_file, **{name: value for name, value in environ.items() if value}}
        self.gateway = {name: value for name, value in both.items() if name.startswith("GATEWAY_") and value}
        for name, setting in SETTINGS.items():
            source, value = "the default", setting.default
            if from_file.get(name):
                source, value = str(env_file), from_file[name] or ""
            if environ.get(name):
                source, value = "the environment", environ[name]
            if source != "the default":
                self._given.add(name)
            try:
                self._values[name] = setting.check(value)
            except ValueError as error:
                raise KitError(
                    f"{name}={value} in {source}: {error}", f"the default is {setting.default}", ExitCode.USAGE
                ) from None

    def __getitem__(self, name: str) -> str:
        return self._values[name]

    def given(self, name: str) -> str | None:
        """The value where somebody set it, be it to the default; None where nobody did."""
        return self._values[name] if name in self._given else None

    def path(self, name: str) -> Path:
        """A setting that is a path, relative to the project's root."""
        return (self.root / self._values[name]).resolve()

    @property
    def api_url(self) -> str:
        """Where this machine reaches the API: no path, no slash at the end."""
        return f"http://{reachable_host(self['API_BIND'])}:{self['API_PORT']}"

    @property
    def gateway_url(self) -> str:
        """Where this machine reaches the gateway, which has taken over the API's port."""
        return self.api_url.replace("http:", "https:", 1) if self.given("GATEWAY_TLS_KEY") else self.api_url


def reachable_host(bind: str) -> str:
    """The address to call for a server bound to `bind`; IPv6 comes in brackets."""
    address = ipaddress.ip_address(bind)
    if address.is_unspecified:
        return "127.0.0.1" if address.version == 4 else "[::1]"
    return bind if address.version == 4 else f"[{bind}]"


def env_example() -> str:
    """The text of .env.example."""
    lines = ["# Copy to .env and change what you need; every line here shows the default.", ""]
    for title, group in SECTIONS:
        lines.append(f"# --- {title}")
        for setting in group:
            lines += [f"# {setting.meaning}", f"#{setting.name}={setting.default}", ""]
    return "\n".join(lines)


_READERS = {"both": "compose, preview", "api-only": "compose.api-only.yaml", "gateway": "compose.gateway.yaml"}


def markdown_table() -> str:
    """The table of docs/settings.md."""
    lines = ["| variable | default | meaning | read by |", "| --- | --- | --- | --- |"]
    for name, setting in SETTINGS.items():
        reader = _READERS.get(setting.used_by, setting.used_by)
        default = f"`{setting.default}`" if setting.default else "empty"
        lines.append(f"| `{name}` | {default} | {setting.meaning} | {reader} |")
    return "\n".join(lines) + "\n"
