"""Model folders to carry: from a folder of this machine or the volume of compose.models.yaml, and into that volume.

The volume is reached by a container of the API image, whose own Python runs model_folders.py: neither this machine nor the
image needs tar. Such a container has no network and no rights, nothing is pulled for it, and it is removed in the end.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit import console
from kit.bundle import engine, model_folders
from kit.bundle.export import Source
from kit.bundle.model_folders import CHUNK, Found, Refused
from kit.errors import ExitCode, KitError
from kit.stack import API, files
from kit.stack.compose import ComposeStack

VOLUME = "models"  # its key in compose.models.yaml; Compose gives it the name
HOME = "/home/paddleocr"  # of the official images
TRIES = 100  # of removing a container, which may be under way already


def sources(folder: Path | None, stack: ComposeStack) -> Source:
    """The models in `folder` (a `.paddlex`, an `official_models`, a folder of model folders); without one, in the stack's volume.

    Raises KitError: INPUT for what is no model folder or half of one; USAGE when the stack has no such volume;
    ENVIRONMENT when there is none yet, or the engine fails.
    """
    if folder is not None:
        with _told():
            found = model_folders.find(folder)
            return _Folder(found, found.folders)
    volume = _volume(stack)
    if not _exists(volume.name):
        raise KitError(
            f"there is no volume {volume.name}: the service has fetched no models yet",
            "./kit up fetches them; --models FOLDER takes those of a folder",
            ExitCode.ENVIRONMENT,
        )
    told = b"".join(volume.read("list"))
    return _Volume(volume, [(name, size) for name, size in json.loads(told)])


def fill(stack: ComposeStack, chunks: Iterator[bytes]) -> None:
    """Put an archive of `Source.chunks` into the stack's volume, which is made if need be.

    A model folder appears whole or not at all, and none before `chunks` has come to its end: what it raises leaves the volume as
    it was. One of the same content is kept, another of the same name replaced. Interrupted, run it again. Raises
    KitError: INPUT for another archive; USAGE when the stack has no such volume; ENVIRONMENT when the engine or its disk fails.
    """
    volume = _volume(stack)
    if not _exists(volume.name):
        volume.make()
    console.say(f"models into the volume {volume.name}", "dim")
    with volume.container("fill") as process:
        assert process.stdin
        with contextlib.suppress(BrokenPipeError):  # it has refused, and says why
            for chunk in chunks:
                process.stdin.write(chunk)
            process.stdin.write(model_folders.WHOLE)
            process.stdin.close()


@dataclass(frozen=True)
class _Folder:
    found: Found
    folders: list[tuple[str, int]]

    def chunks(self) -> Iterator[bytes]:
        with _told():
            yield from model_folders.pack(self.found)


@dataclass(frozen=True)
class _Volume:
    volume: Volume
    folders: list[tuple[str, int]]

    def chunks(self) -> Iterator[bytes]:
        return self.volume.read("pack")


@dataclass(frozen=True)
class Volume:
    """The volume of a stack. name: as the engine knows it. project: of Compose. image: whose Python reads and writes it."""

    name: str
    project: str
    image: str
    user: str

    def make(self) -> None:
        """With the labels of Compose, which else warns that the volume is not its own."""
        labels = {"com.docker.compose.project": self.project, "com.docker.compose.volume": VOLUME}
        words = [word for name, value in labels.items() for word in ("--label", f"{name}={value}")]
        argv = ["docker", "volume", "create", *words, self.name]
        console.echo(argv)
        done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise engine.failed("docker volume create", done.stderr)

    def read(self, verb: str) -> Iterator[bytes]:
        """What model_folders.py writes to stdout."""
        with self.container(verb) as process:
            assert process.stdout
            while piece := process.stdout.read(CHUNK):
                yield piece

    @contextlib.contextmanager
    def container(self, verb: str) -> Iterator[subprocess.Popen[bytes]]:
        """model_folders.py at work on the volume. Raises KitError with its reason; whatever ends the block ends the container."""
        name = f"paddleocr-vl-kit-models-{os.getpid()}-{verb}"
        filling = verb == "fill"
        argv = [
            *("docker", "run", "--rm", "--name", name, "--pull", "never", "--network", "none"),
            # The archive must not be written into the engine's log as well.
            *("--log-driver", "none", "--env", "NVIDIA_VISIBLE_DEVICES=void"),
            *("--user", self.user, "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--read-only"),
            *("--workdir", "/", "--volume", f"{self.name}:{HOME}{'' if filling else ':ro'}"),
            *(("--interactive",) if filling else ()),
            *("--entrypoint", "python3", self.image),
        ]
        program = Path(model_folders.__file__)
        console.echo([*argv, program.name, verb, HOME])  # short: it is given whole
        argv += ["-c", program.read_text(), verb, HOME]
        stdin, stdout = (subprocess.PIPE, None) if filling else (subprocess.DEVNULL, subprocess.PIPE)
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as said:
            made = Path(folder, "container")
            argv[2:2] = ["--cidfile", str(made)]
            process = subprocess.Popen(
                argv, stdin=stdin, stdout=stdout or said, stderr=said, bufsize=CHUNK, start_new_session=True
            )
            ended = False
            try:
                yield process
                status = process.wait()
                ended = True
            finally:
                if not ended:
                    _end(process, name, made)
                for stream in (process.stdin, process.stdout):
                    if stream:
                        with contextlib.suppress(OSError):
                            stream.close()
            if status:
                said.seek(0)
                raise _failed(status, said.read().decode(errors="replace"))


def _volume(stack: ComposeStack) -> Volume:
    config = stack.config
    name = (config.get("volumes") or {}).get(VOLUME, {}).get("name")
    if not name:
        raise KitError(
            f"this service has no volume for models: {files.MODELS} is not among its files",
            "add it to COMPOSE_FILE; with `…-offline` tags the models are inside the images: leave --models out",
            ExitCode.USAGE,
        )
    return Volume(name, config["name"], config["services"][API]["image"], stack.settings["CONTAINER_USER"])


def _exists(volume: str) -> bool:
    done = subprocess.run(["docker", "volume", "inspect", volume], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode and "no such volume" not in done.stderr.lower():
        raise engine.failed("docker volume inspect", done.stderr)
    return not done.returncode


def _end(process: subprocess.Popen[Any], name: str, made: Path) -> None:
    """Returns when the container is gone. made: the file into which docker writes its id."""
    while process.poll() is None and not (made.exists() and made.stat().st_size):
        time.sleep(0.05)  # it may still come to be
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for _ in range(TRIES):
        if subprocess.run(["docker", "container", "inspect", name], capture_output=True, stdin=subprocess.DEVNULL).returncode:
            return
        subprocess.run(["docker", "rm", "--force", name], capture_output=True, stdin=subprocess.DEVNULL)


def _failed(status: int, said: str) -> KitError:
    last = (said.strip().splitlines() or [""])[-1]
    try:
        message, hint = json.loads(last)
    except ValueError:
        return engine.failed("docker run", said)
    if status == model_folders.REFUSED:
        return KitError(message, hint, ExitCode.INPUT)
    return KitError(f"in the volume of the models: {message}", hint or "docker volume inspect", ExitCode.ENVIRONMENT)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """What model_folders.py refuses, as a user sees it."""
    try:
        yield
    except Refused as error:
        raise KitError(error.message, error.hint, ExitCode.INPUT) from None
    except OSError as error:
        raise KitError(f"{error.filename}: {error.strerror}", "make it readable", ExitCode.INPUT) from None
