"""A folder as the linter sees it: Compose files, `.env`, both configs, and who is who among the services."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping as AnyMapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from kit.errors import ExitCode, KitError
from kit.facts.gpus import Nvidia
from kit.lint import compose_file, env_file, mend, python_sdk
from kit.lint.commands import Command, Word
from kit.lint.compose_file import ComposeFiles
from kit.lint.env_file import EnvFile
from kit.lint.findings import Edit, Place
from kit.lint.interpolate import Environment, Variable
from kit.lint.services import API_IMAGE, IMAGE_HOME, OWN_CONFIG, VLM_IMAGE, Mount, Service, services
from kit.lint.tree import Mapping, Node, Scalar, Unreadable, find, parse, scalar
from kit.stack.files import NAMES


@dataclass
class Config:
    """A config file. named: where the command names it. tree: None where the file is empty or unreadable."""

    file: Path
    named: Place
    text: str = ""
    tree: Node | None = None
    unreadable: Unreadable | None = None


@dataclass
class Absent:
    """A config file that is named and not there. mount: what should bring it into the container."""

    path: Path
    place: Place
    mount: Mount | None


@dataclass
class Wiring:
    """How an API is told of the VLM: by a pipeline config (section: genai_config) or by arguments in Python."""

    place: Place
    backend: Scalar | None = None
    url: Scalar | None = None
    model: Scalar | None = None
    concurrency: Scalar | None = None
    section: Mapping | None = None
    recognition: Mapping | None = None


@dataclass
class Api:
    """Who serves documents. service: None where a pipeline config is looked at alone.

    pipeline: the word of the command that names it. builtin: "image" when that is a config inside the official image,
    "paddlex" when it is a name that PaddleX resolves to its own config, else empty.
    """

    service: Service | None
    command: Command | None = None
    pipeline: Word | None = None
    builtin: str = ""
    config: Config | None = None
    wiring: Wiring | None = None
    port: str = "8080"

    @property
    def place(self) -> Place:
        if self.pipeline:
            return self.pipeline.place
        if self.command:
            return self.command.place
        if self.service:
            return self.service.place
        return Place(self.config.file, 1) if self.config else Place(Path(), 1)

    def wiring_to(self, vlm: Vlm) -> bool:
        """Whether it calls that VLM server by its service name."""
        return self.builtin == "image" or bool(self.wiring and self.wiring.url and vlm.service.name in self.wiring.url.text)


@dataclass
class Vlm:
    """Who serves the VLM. kind: "genai" (PaddleX's server), "plain" (the engine's own), "image" (the image's own command)."""

    service: Service
    kind: str
    engine: str
    command: Command | None = None
    word: Word | None = None
    host: str = "0.0.0.0"
    port: str = "8080"
    model: Word | None = None
    config: Config | None = None

    @property
    def place(self) -> Place:
        return self.word.place if self.word else (self.service.image.scalar.place if self.service.image else self.service.place)

    @property
    def port_place(self) -> Place:
        word = self.option("--port")
        return word.place if word else self.place

    def option(self, *names: str) -> Word | None:
        """The value of an option of its command."""
        return self.command.option(*names) if self.command else None

    def with_option(self, option: str) -> tuple[Edit, ...]:
        """Edits that add an option to its command; none where that is written as a list, or by a variable."""
        if self.word is None or self.word.item:
            return ()
        program = "genai_server" if self.word.text == "paddleocr" else self.word.text
        return mend.put_part(self.word.scalar, program, f"{program} {option}")

    def setting(self, key: str) -> Scalar | None:
        """A key of the engine's config, in either spelling; the later one wins."""
        tree = self.config.tree if self.config else None
        found = None
        for name, value in tree.items.items() if isinstance(tree, Mapping) else ():
            if name.replace("_", "-") == key and isinstance(value, Scalar):
                found = value
        return found


@dataclass
class Project:
    """preview: this is for the CPU preview, which brings its own layout model and VLM server. nvidia: None where unknown."""

    folder: Path
    environment: Environment
    environ: AnyMapping[str, str]
    env_file: EnvFile | None = None
    compose: ComposeFiles | None = None
    services: list[Service] = field(default_factory=list)
    apis: list[Api] = field(default_factory=list)
    vlms: list[Vlm] = field(default_factory=list)
    absent: list[Absent] = field(default_factory=list)
    nvidia: Nvidia | None = None
    preview: bool = False

    @property
    def pipelines(self) -> Iterator[Config]:
        """Pipeline configs, each file once."""
        yield from {api.config.file: api.config for api in self.apis if api.config}.values()

    @property
    def engines(self) -> Iterator[tuple[Vlm, Config]]:
        """Configs of VLM servers, each file once."""
        yield from {vlm.config.file: (vlm, vlm.config) for vlm in self.vlms if vlm.config}.values()

    def text(self, file: Path) -> str:
        """A file that was read, as it was then."""
        if self.compose and file in self.compose.texts:
            return self.compose.texts[file]
        configs = [*self.pipelines, *(config for _, config in self.engines)]
        found = next((config.text for config in configs if config.file == file), None)
        return file.read_bytes().decode("utf-8-sig") if found is None else found

    def pairs(self) -> Iterator[tuple[Api, Vlm]]:
        """Each API with the VLM that it calls: the one that its address names, or the only one."""
        for api in self.apis:
            named = [vlm for vlm in self.vlms if api.wiring and api.wiring.url and vlm.service.name in api.wiring.url.text]
            here = [vlm for vlm in self.vlms if vlm.service is api.service]
            chosen = named or here or (self.vlms if len(self.vlms) == 1 else [])
            if chosen:
                yield api, chosen[0]


def load(
    folder: Path,
    environ: AnyMapping[str, str],
    *,
    files: list[Path] | None = None,
    pipeline: Path | None = None,
    preview: bool = False,
    nvidia: Nvidia | None = None,
) -> Project:
    """Read everything that Compose would read in `folder`.

    files: these Compose files instead of Compose's own choice; an empty list for none. pipeline: a pipeline config
    to look at beside them. Raises KitError (INPUT) when there is no such folder, or no Compose file in it.
    """
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "no such folder"
        raise KitError(f"{folder}: {problem}", "give the folder in which compose.yaml lies", ExitCode.INPUT)
    env = _env_file(folder, environ)
    environment: dict[str, Variable] = dict(env.values) if env else {}
    environment |= {name: Variable(name, value) for name, value in environ.items()}
    named = None
    if files is None:
        files, named = compose_file.choose(folder, environment, environ)
        if not files:
            raise KitError(
                f"{folder}: no Compose file", f"looked for {', '.join(NAMES)}; give their folder: ./kit lint DIR",
                ExitCode.INPUT,
            )  # fmt: skip
    project = Project(folder, environment, environ, env, nvidia=nvidia, preview=preview)
    if files:
        project.compose = compose_file.load(files, environment, named)
        project.services = services(project.compose.root, files, environment)
    for service in project.services:
        _roles(project, service)
    if pipeline:
        config = read_config(pipeline, Place(pipeline, 1))
        if config:
            project.apis.append(Api(None, config=config, wiring=wiring(config)))
        else:
            project.absent.append(Absent(pipeline, Place(pipeline, 1), None))
    return project


def _env_file(folder: Path, environ: AnyMapping[str, str]) -> EnvFile | None:
    path = folder / ".env"
    try:
        return env_file.read(path, path.read_bytes().decode("utf-8-sig"), environ)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError):
        return EnvFile(path, refused=[Place(path, 1)])


def read_config(file: Path, named: Place) -> Config | None:
    """A config as PaddleX reads it; None when there is no such file."""
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is a folder" if isinstance(error, IsADirectoryError) else "it is not UTF-8 text"
        return Config(file, named, unreadable=Unreadable(reason, Place(file, 1)))
    try:
        return Config(file, named, text, parse(text, file))
    except Unreadable as error:
        return Config(file, named, text, unreadable=error)


def wiring(config: Config) -> Wiring | None:
    """The wiring in a pipeline config; None in a file that is none."""
    recognition = find(config.tree, "SubModules", "VLRecognition")
    if not isinstance(find(config.tree, "SubModules"), Mapping):
        return None
    section = find(recognition, "genai_config")
    place = Place(config.file, 1)
    for mapping, key in ((find(config.tree, "SubModules"), "VLRecognition"), (recognition, "genai_config")):
        if isinstance(mapping, Mapping):
            place = mapping.keys.get(key, place)
    return Wiring(
        place, scalar(section, "backend"), scalar(section, "server_url"),
        scalar(section, "client_kwargs", "model_name") or scalar(recognition, "model_name"),
        scalar(section, "max_concurrency"), section if isinstance(section, Mapping) else None,
        recognition if isinstance(recognition, Mapping) else None,
    )  # fmt: skip


def _roles(project: Project, service: Service) -> None:
    for command in service.processes:
        if server := command.vlm_server():
            _add_vlm(project, service, command, *server)
        elif command.serves_pipeline():
            _add_api(project, service, command)
        elif (file := command.python_file()) and service.build:
            for call in python_sdk.calls(service.build.folder / PurePosixPath(file).name):
                project.apis.append(_sdk(service, command, call))
    if not service.processes and service.image and not service.build:
        if service.image.name == API_IMAGE:
            _load_pipeline(project, service, Api(service), Word(str(OWN_CONFIG), service.image.scalar, False))
        elif match := VLM_IMAGE.fullmatch(service.image.name):
            project.vlms.append(Vlm(service, "image", match[1]))


def _sdk(service: Service, command: Command, call: python_sdk.Call) -> Api:
    port = command.option("--port")
    said = call.arguments
    model = said.get("vl_rec_api_model_name") or said.get("vl_rec_model_name")
    api = Api(service, command, port=port.text if port else "")
    # What is computed cannot be judged here: such a call counts as wired in a way of its own.
    if not call.open or "vl_rec_backend" in said:
        api.wiring = Wiring(
            call.place, said.get("vl_rec_backend"), said.get("vl_rec_server_url"), model, said.get("vl_rec_max_concurrency")
        )
    return api


def _add_vlm(project: Project, service: Service, command: Command, kind: str, engine: str, word: Word) -> None:
    host, port, named = command.option("--host"), command.option("--port", "-p"), command.option("--backend")
    if kind == "genai":
        # paddlex 3.7.2, inference/genai/server.py: localhost, 8000, fastdeploy.
        vlm = Vlm(service, kind, named.text if named else "fastdeploy", command, word, "localhost", "8000")
    else:
        vlm = Vlm(service, kind, engine, command, word, "0.0.0.0", {"sglang": "30000", "llama-cpp": "8080"}.get(engine, "8000"))
    vlm.host, vlm.port = host.text if host else vlm.host, port.text if port else vlm.port
    vlm.model = command.option("--served-model-name") or command.option("--model_name", "--model", "--model-path")
    if vlm.model is None and (serve := command.has("serve")):  # vllm serve MODEL
        following = command.words[command.words.index(serve) + 1 :][:1]
        vlm.model = next((first for first in following if not first.text.startswith("-")), None)
    if named_file := command.option("--backend_config", "--config"):
        vlm.config = _config(project, service, named_file)
    project.vlms.append(vlm)


def _add_api(project: Project, service: Service, command: Command) -> None:
    port = command.option("--port")
    api = Api(service, command, command.option("--pipeline"), port=port.text if port else "8080")
    if api.pipeline and api.pipeline.text.endswith((".yaml", ".yml")):
        _load_pipeline(project, service, api, api.pipeline)
        return
    api.builtin = "paddlex" if api.pipeline else ""
    project.apis.append(api)


def _load_pipeline(project: Project, service: Service, api: Api, named: Word) -> None:
    project.apis.append(api)
    api.config = _config(project, service, named)
    inside = service.image is not None and service.image.name == API_IMAGE and not service.build
    if api.config:
        api.wiring = wiring(api.config)
    elif inside and not service.mounted(IMAGE_HOME / named.text):
        api.builtin = "image"


def _config(project: Project, service: Service, word: Word) -> Config | None:
    """The file that a command loads: mounted, or copied by a build from its folder. What is inside an image stays unknown."""
    path = IMAGE_HOME / word.text
    if found := service.mounted(path):
        mount, file = found
        config = read_config(file, word.place)
        if config is None:
            project.absent.append(Absent(file, mount.source_place, mount))
        return config
    return read_config(service.build.folder / path.name, word.place) if service.build else None
