"""KIT6xx: the gateway in front of the APIs."""

from __future__ import annotations

from collections.abc import Iterator

from kit.lint.compose_file import as_mapping
from kit.lint.findings import Hit, Rules, Severity
from kit.lint.project import Project
from kit.lint.services import Service
from kit.lint.tree import Scalar

rules = Rules()
ERROR, WARNING = Severity.ERROR, Severity.WARNING


def gateways(project: Project) -> Iterator[Service]:
    """Services that run kit.gateway."""
    yield from (service for service in project.services if any(command.has("kit.gateway") for command in service.processes))


def _given(service: Service, name: str) -> str:
    node = as_mapping(service.get("environment")).items.get(name)
    return node.text if isinstance(node, Scalar) else ""


@rules(
    "KIT601",
    WARNING,
    "the gateway is open to everybody who reaches this machine, without API keys",
    why="whoever reaches the port is let in, and takes the cards' time",
    mend="GATEWAY_API_KEYS_FILE in .env names a file with keys; or bind the port to this machine: API_BIND=127.0.0.1",
)
def no_keys(project: Project) -> Iterator[Hit]:
    for service in gateways(project):
        for port in service.ports:
            if port.to_the_world and not _given(service, "GATEWAY_API_KEYS_FILE"):
                yield Hit(port.place, f"port {port.container} of {service.name} asks nobody for a key")


@rules(
    "KIT602",
    ERROR,
    "a TLS certificate without its key, or a key without its certificate",
    why="the gateway ends at its start: `TLS needs both`",
    mend="set both GATEWAY_TLS_CERTIFICATE and GATEWAY_TLS_KEY, or neither",
)
def half_tls(project: Project) -> Iterator[Hit]:
    for service in gateways(project):
        given = [name for name in ("GATEWAY_TLS_CERTIFICATE", "GATEWAY_TLS_KEY") if _given(service, name)]
        if len(given) == 1:
            yield Hit(service.key("environment"), f"{service.name} has {given[0]} alone")


@rules(
    "KIT603",
    WARNING,
    "an API behind the gateway is published too",
    why="there it has no keys, no limits and fetches any URL (paddlex 3.7.2 source, serving/infra/utils.py); and of several "
    "replicas only one can have the port",
    mend="remove its ports: compose.gateway.yaml does, with `ports: !reset []`",
)
def way_around(project: Project) -> Iterator[Hit]:
    told = [_given(service, "GATEWAY_DISCOVER") + _given(service, "GATEWAY_REPLICAS") for service in gateways(project)]
    for api in project.apis:
        if api.service and any(f"//{api.service.name}:" in text for text in told):
            for port in api.service.ports:
                yield Hit(port.place, f"port {port.container} of {api.service.name} leads around the gateway")


@rules(
    "KIT604",
    ERROR,
    "GATEWAY_API_KEYS in .env, which a container does not get",
    why="the gateway would run without keys and let everybody in; keys in the environment are seen by `docker inspect`",
    mend="put the keys into a file, one a line, and name that: GATEWAY_API_KEYS_FILE=./gateway-keys",
)
def keys_in_env(project: Project) -> Iterator[Hit]:
    places = project.env_file.names.get("GATEWAY_API_KEYS", []) if project.env_file else []
    for service in gateways(project):
        if places and not _given(service, "GATEWAY_API_KEYS"):
            yield Hit(places[-1], f"{service.name} does not get these keys")
