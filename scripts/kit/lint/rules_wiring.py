"""KIT3xx: whether the API finds the VLM server, and asks it for the model that it serves."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from kit.catalog import backends, models
from kit.lint import mend
from kit.lint.findings import Edit, Hit, Place, Rules, Severity
from kit.lint.project import Api, Project, Vlm, Wiring
from kit.lint.rules_images import version
from kit.lint.tree import Mapping, Scalar, Sequence, find

rules = Rules()
ERROR, WARNING, INFO = Severity.ERROR, Severity.WARNING, Severity.INFO

CLIENTS = tuple(dict.fromkeys(backend.client for backend in backends.BACKENDS))
# The official image's own config (PaddleOCR deploy/paddleocr_vl_docker, commit a372f3b).
BUILTIN_HOST, BUILTIN_PORT = "paddleocr-vlm-server", "8080"
LOOPBACK = {"localhost", "127.0.0.1", "::1", "0.0.0.0"}


def _client(vlm: Vlm) -> str:
    found = backends.find(vlm.engine)
    return found.client if found else ""


def _url(vlm: Vlm) -> str:
    return f"http://{vlm.service.name}:{vlm.port}/v1"


def _wirings(project: Project) -> Iterator[tuple[Api, Wiring]]:
    seen: set[Place] = set()
    for api in project.apis:
        if api.wiring and api.wiring.place not in seen:
            seen.add(api.wiring.place)
            yield api, api.wiring


def _address(wiring: Wiring) -> tuple[str, str] | None:
    """Host and port of the address; None where there is none to read."""
    try:
        parts = urlsplit(wiring.url.text if wiring.url else "")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return (parts.hostname, str(port)) if parts.hostname else None
    except ValueError:
        return None


@rules(
    "KIT301",
    ERROR,
    "a VLM server runs, and the API does not use it",
    why="`native` is PaddleX's default: the API loads the model a second time and answers ten times slower, while the server "
    "idles on "
    "its share of the card (OCR#18129, OCR#18035, OCR#17263)",
    mend="genai_config: backend: vllm-server, server_url: http://VLM-SERVICE:PORT/v1; in Python PaddleOCRVL(vl_rec_backend=…, "
    "vl_rec_server_url=…)",
)
def idle_server(project: Project) -> Iterator[Hit]:
    for api in project.apis:
        vlm = next((vlm for other, vlm in project.pairs() if other is api), None)
        if vlm is None and not project.vlms:
            continue
        if api.builtin == "paddlex":
            name = api.pipeline.text if api.pipeline else ""
            yield Hit(api.place, f"--pipeline {name} takes PaddleX's own config, whose backend is native")
        wiring = api.wiring
        if wiring is None or (wiring.backend and wiring.backend.text != backends.NATIVE):
            continue
        said = "backend is native" if wiring.backend else "no backend is given, and the default is native"
        yield Hit(wiring.backend.place if wiring.backend else wiring.place, said, _wired(project, wiring, vlm))


def _wired(project: Project, wiring: Wiring, vlm: Vlm | None) -> tuple[Edit, ...]:
    if vlm is None or wiring.recognition is None:
        return ()
    text = project.text(wiring.recognition.place.file)
    url = f"server_url: {_url(vlm)}"
    if wiring.backend is None:
        section = wiring.section
        lines = f"backend: {_client(vlm)}" + ("" if wiring.url else f"\n{url}")
        if section is not None:
            return mend.add(text, section, lines)
        if "genai_config" in wiring.recognition.items:
            return ()
        return mend.add(text, wiring.recognition, "genai_config:\n" + "\n".join("  " + line for line in lines.splitlines()))
    edits = mend.put(wiring.backend, _client(vlm))
    if edits and not wiring.url and wiring.section is not None:
        if wiring.section.flow:
            edits = (Edit(edits[0].file, edits[0].start, edits[0].end, f"{_client(vlm)}, {url}"),)
        else:
            edits += mend.after(text, wiring.section.keys["backend"], url)
    return edits


@rules(
    "KIT302",
    ERROR,
    "a backend that PaddleX does not know, such as `vllm` instead of `vllm-server`",
    why="`Input should be 'native', 'fastdeploy-server', 'vllm-server', …` (paddlex 3.7.2 source, models/common/genai.py; "
    "OCR#16897)",
    mend=f"one of {', '.join(CLIENTS)}",
)
def unknown_backend(project: Project) -> Iterator[Hit]:
    for _, wiring in _wirings(project):
        if wiring.backend and wiring.backend.text not in CLIENTS:
            near = backends.find(wiring.backend.text.lower().replace("_", "-").removesuffix("-server"))
            edits = mend.put(wiring.backend, _quoted(wiring.backend, near.client)) if near else ()
            hint = f"write {near.client}" if near else ""
            yield Hit(wiring.backend.place, f"backend {wiring.backend.text} is unknown", edits, hint)


def _quoted(old: Scalar, text: str) -> str:
    return f"{old.source[0]}{text}{old.source[0]}" if old.quoted else text


@rules(
    "KIT303",
    ERROR,
    "no server_url",
    why="`` `server_url` must not be `None` for the 'vllm-server' backend `` (paddlex 3.7.2 source, models/common/genai.py)",
    mend="server_url: http://VLM-SERVICE:PORT/v1",
)
def no_url(project: Project) -> Iterator[Hit]:
    for api, wiring in _wirings(project):
        if wiring.backend and wiring.backend.text.endswith("-server") and not wiring.url and not project.preview:
            vlm = next((vlm for other, vlm in project.pairs() if other is api), None)
            edits: tuple[Edit, ...] = ()
            if vlm and wiring.section and not wiring.section.flow and "server_url" not in wiring.section.items:
                edits = mend.after(
                    project.text(wiring.section.place.file), wiring.section.keys["backend"], f"server_url: {_url(vlm)}"
                )
            yield Hit(wiring.backend.place, f"{wiring.backend.text} without a server_url", edits)


@rules(
    "KIT304",
    ERROR,
    "server_url does not end in /v1",
    why="the OpenAI client appends /chat/completions: every request gets `Error code: 404` (OCR#16897)",
    mend="end the address in /v1",
)
def no_v1(project: Project) -> Iterator[Hit]:
    for _, wiring in _wirings(project):
        if not wiring.url or wiring.url.text.rstrip("/").endswith("/v1") or project.preview:
            continue
        if not wiring.url.text.startswith(("http://", "https://")):
            yield Hit(wiring.url.place, f"{wiring.url.text} is no address", mend="begin it with http://")
            continue
        bare = not urlsplit(wiring.url.text).path.strip("/")
        edits = mend.put(wiring.url, _quoted(wiring.url, wiring.url.text.rstrip("/") + "/v1")) if bare else ()
        yield Hit(wiring.url.place, f"{wiring.url.text} does not end in /v1", edits)


@rules(
    "KIT305",
    ERROR,
    "server_url leads to a host where no VLM server is",
    why="`Connection error.` at the first request: inside a container localhost is that container, and a name must be that of "
    "a service "
    "in a common network (OCR#17015, OCR#17050)",
    mend="use the name of the VLM server's service",
)
def wrong_host(project: Project) -> Iterator[Hit]:
    for api, vlm in project.pairs():
        if not api.service:
            continue
        address = _address(api.wiring) if api.wiring else ((BUILTIN_HOST, BUILTIN_PORT) if api.builtin == "image" else None)
        if address is None or api.service is vlm.service:
            continue
        names = {service.name for service in project.services} | _aliases(vlm)
        place = api.wiring.url.place if api.wiring and api.wiring.url else api.place
        edits: tuple[Edit, ...] = ()
        if address[0] in LOOPBACK and not (api.service.host_network and vlm.service.host_network):
            if api.wiring and api.wiring.url:
                edits = mend.put_part(api.wiring.url, f"//{address[0]}", f"//{vlm.service.name}")
            yield Hit(place, f"{address[0]} is the API's own container; the VLM server is {vlm.service.name}", edits)
        elif api.builtin == "image" and BUILTIN_HOST not in names:
            yield Hit(place, f"the image's own config calls {BUILTIN_HOST}; the VLM server is {vlm.service.name}")
        elif address[0] in names and address[0] not in LOOPBACK and not _meet(api, vlm):
            yield Hit(place, f"{api.service.name} and {vlm.service.name} share no network")


def _aliases(vlm: Vlm) -> set[str]:
    named = {vlm.service.name}
    if container := vlm.service.scalar("container_name"):
        named.add(container.text)
    if hostname := vlm.service.scalar("hostname"):
        named.add(hostname.text)
    networks = vlm.service.get("networks")
    for network in networks.items.values() if isinstance(networks, Mapping) else ():
        aliases = find(network, "aliases")
        named |= {item.text for item in aliases.items if isinstance(item, Scalar)} if isinstance(aliases, Sequence) else set()
    return named


def _meet(api: Api, vlm: Vlm) -> bool:
    def networks(part: Api | Vlm) -> set[str]:
        found = part.service.get("networks") if part.service else None
        if isinstance(found, Mapping):
            return set(found.items)
        return {item.text for item in found.items if isinstance(item, Scalar)} if isinstance(found, Sequence) else {"default"}

    if api.service and (api.service.scalar("network_mode") or vlm.service.scalar("network_mode")):
        return api.service.host_network == vlm.service.host_network
    return bool(networks(api) & networks(vlm))


@rules(
    "KIT306",
    ERROR,
    "server_url names a port on which the VLM server does not listen",
    why="`Connection error.` at the first request; the official page mixes 8080 and 8118 (PaddleOCR-VL documentation, section "
    "4.1; "
    "OCR#17015, OCR#17050)",
    mend="one port in both places",
)
def wrong_port(project: Project) -> Iterator[Hit]:
    for api, vlm in project.pairs():
        if api.builtin == "image" and vlm.port != BUILTIN_PORT and vlm.port.isdigit() and BUILTIN_HOST in _aliases(vlm):
            yield Hit(
                vlm.port_place, f"{vlm.service.name} listens on {vlm.port}; the API image's own config calls {BUILTIN_PORT}",
                mend=f"--port {BUILTIN_PORT}, or mount a pipeline config whose server_url is {_url(vlm)}",
            )  # fmt: skip
        address = _address(api.wiring) if api.wiring else None
        if not address or address[1] == vlm.port or not vlm.port.isdigit() or api.wiring is None or api.wiring.url is None:
            continue
        if address[0] in LOOPBACK | _aliases(vlm):
            edits = mend.put_part(api.wiring.url, f":{address[1]}", f":{vlm.port}")
            yield Hit(api.wiring.url.place, f"{vlm.service.name} listens on {vlm.port}, not on {address[1]}", edits)


def served(vlm: Vlm) -> set[str]:
    """The names under which a VLM server offers its model; empty where they are not known, or where any name will do."""
    if vlm.engine == "llama-cpp":
        return set()
    if name := vlm.setting("served-model-name"):
        return set(name.text.split())
    if vlm.model:
        return {vlm.model.text}
    if vlm.kind == "image" and vlm.service.image and not vlm.service.image.digest:
        inside = version(vlm.service.image.tag or "latest")
        known = [model.vlm for model in models.MODELS if inside and model.paddleocr <= inside]
        return {known[-1]} if known else set()
    return set()


@rules(
    "KIT307",
    ERROR,
    "the API asks for a model of another name than the VLM server offers",
    why="`The model … does not exist`, Error code: 404, at the first request: neither side checks it earlier (OCR#17603)",
    mend="make VLRecognition.model_name equal to --model_name; for other names set genai_config.client_kwargs.model_name",
)
def wrong_name(project: Project) -> Iterator[Hit]:
    for api, vlm in project.pairs():
        wanted, offered = api.wiring.model if api.wiring else None, served(vlm)
        if wanted and offered and wanted.text not in offered:
            yield Hit(wanted.place, f"{wanted.text} is asked for; {vlm.service.name} serves {' and '.join(sorted(offered))}")


@rules(
    "KIT308",
    WARNING,
    "the client is made for another engine than the server runs",
    why="what PaddleX sends differs by backend: limits for the picture's size are sent to vLLM alone (paddlex 3.7.2 source, "
    "doc_vlm/predictor.py)",
    mend="vllm-server for vllm, fastdeploy-server for fastdeploy, sglang-server for sglang",
)
def other_engine(project: Project) -> Iterator[Hit]:
    for api, vlm in project.pairs():
        backend = api.wiring.backend if api.wiring else None
        if (
            backend
            and backend.text in CLIENTS
            and backend.text != backends.NATIVE
            and _client(vlm)
            and backend.text != _client(vlm)
        ):
            yield Hit(
                backend.place,
                f"{backend.text}, and {vlm.service.name} runs {vlm.engine}",
                mend.put(backend, _quoted(backend, _client(vlm))),
            )


@rules(
    "KIT309",
    ERROR,
    "the VLM server listens on localhost alone",
    why="genai_server's default is localhost: no other container reaches it, `Connection error.` (paddlex 3.7.2 source, "
    "genai/server.py)",
    mend="add --host 0.0.0.0",
)
def local_only(project: Project) -> Iterator[Hit]:
    for vlm in project.vlms:
        alone = any(api.service is vlm.service for api in project.apis)
        if vlm.host not in ("localhost", "127.0.0.1") or alone or vlm.service.host_network:
            continue
        word = vlm.option("--host")
        if word:
            edits = () if word.item else mend.put_part(word.scalar, word.text, "0.0.0.0")
            yield Hit(word.place, f"{vlm.service.name} listens on {word.text}", edits)
            continue
        yield Hit(vlm.place, f"{vlm.service.name} is started without --host", vlm.with_option("--host 0.0.0.0"))


@rules(
    "KIT310",
    ERROR,
    "API and VLM server listen on the same port of one container",
    why="the second one ends with `Address already in use`",
    mend="8080 for the API, 8118 for the VLM server",
)
def one_port(project: Project) -> Iterator[Hit]:
    for api in project.apis:
        for vlm in project.vlms:
            if api.service is vlm.service and api.port == vlm.port:
                yield Hit(vlm.port_place, f"both listen on {vlm.port} in {vlm.service.name}")
