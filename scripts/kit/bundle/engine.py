"""What a bundle needs of the Docker engine: which images are there, their archive out and in, names on and off."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from kit import console
from kit.diagnose import explain
from kit.errors import ExitCode, KitError
from kit.facts.command import ask

ANSWER = 60.0  # seconds, for a question to the engine
CHUNK = 2**20  # bytes
PIPE = 2**20  # bytes: what Linux gives at most without a setting; the usual 64 KiB make the two sides wait for each other
# What of an image's configuration says how it runs; engines differ in what else they show of it.
RUNS_BY = ("Cmd", "Entrypoint", "Env", "User", "WorkingDir")


@dataclass(frozen=True)
class Local:
    """An image that the engine has.

    id: as it calls it. platform: such as linux/amd64. size: bytes, unpacked. layers: digests, lowest first. config: how it runs.
    """

    id: str
    platform: str
    size: int
    layers: tuple[str, ...]
    digests: tuple[str, ...]
    config: dict[str, Any]

    def runs_as(self, layers: Sequence[str], config: dict[str, Any]) -> bool:
        """Has it these layers, and is it run like this? For containerd's store, which has ids of its own."""
        alike = all((self.config.get(key) or None) == (config.get(key) or None) for key in RUNS_BY)
        return self.layers == tuple(layers) and alike


def find(reference: str) -> Local | None:
    """The image of that name or id; None where there is none. Raises KitError (ENVIRONMENT) when the engine does not answer."""
    return next(iter(_inspected([reference])), None)


def everything() -> list[Local]:
    """Each image that the engine has."""
    text, problem = ask(["docker", "image", "ls", "--all", "--quiet", "--no-trunc"], ANSWER)
    if problem:
        raise KitError(f"docker image ls: {problem}", "./kit doctor looks at the engine", ExitCode.ENVIRONMENT)
    return _inspected(sorted(set(text.split())))


def _inspected(names: Sequence[str]) -> list[Local]:
    if not names:
        return []
    argv = ["docker", "image", "inspect", "--format", "{{json .}}", *names]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=ANSWER, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise KitError(
            f"docker gave no answer within {ANSWER:.0f} s", "sudo systemctl restart docker", ExitCode.ENVIRONMENT
        ) from None
    if done.returncode and "No such image" not in done.stderr:
        raise failed("docker image inspect", done.stderr)
    found = []
    for line in filter(None, done.stdout.splitlines()):
        image = json.loads(line)
        variant = f"/{image['Variant']}" if image.get("Variant") else ""
        found.append(
            Local(
                image["Id"],
                f"{image['Os']}/{image['Architecture']}{variant}",
                image["Size"],
                tuple(image["RootFS"].get("Layers") or ()),
                tuple(image.get("RepoDigests") or ()),
                image.get("Config") or {},
            )
        )
    return found


def shared_size(references: Sequence[str]) -> int:
    """Bytes that these images have in common at their lowest layers, counted once less for each image that shares them.

    An engine does not tell the sizes of layers; its history does, in the same order, and is equal where layers are shared.
    """
    histories = []
    for reference in references:
        # As JSON: a step of a build may have line breaks.
        text, _ = ask(["docker", "history", "--no-trunc", "--human=false", "--format", "{{json .}}", reference], ANSWER)
        steps = [json.loads(line) for line in reversed(text.splitlines())]
        histories.append([(int(step["Size"]), step["CreatedAt"], step["CreatedBy"]) for step in steps])
    shared = 0
    for number, history in enumerate(histories[1:], 1):
        common = max((_common(history, other) for other in histories[:number]), default=0)
        shared += sum(size for size, *_ in history[:common])
    return shared


def _common(one: Sequence[object], other: Sequence[object]) -> int:
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


@contextlib.contextmanager
def saving(references: Sequence[str]) -> Iterator[BinaryIO]:
    """The archive that `docker save` writes, as it comes.

    Raises KitError (ENVIRONMENT) when it fails, or what comes is no archive.
    """
    argv = ["docker", "save", *references]
    console.echo(argv)
    with tempfile.TemporaryFile() as said, _running(argv, bufsize=0, stdout=subprocess.PIPE, stderr=said) as process:
        assert process.stdout
        cut = ""
        try:
            yield process.stdout  # type: ignore[misc]
            while process.stdout.read(CHUNK):
                pass
        except (tarfile.TarError, ValueError) as error:
            cut = str(error)
        process.stdout.close()
        status = process.wait()
        said.seek(0)
        if status or cut:
            raise failed("docker save", said.read().decode(errors="replace") or cut)


class Together:
    """Programs that run side by side, each for a thread; `end` ends all of them, and those that come later."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: list[subprocess.Popen[bytes]] = []
        self._ended = False

    def add(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            self._running.append(process)
            if self._ended:
                _kill(process)

    def end(self) -> None:
        with self._lock:
            self._ended = True
            for process in self._running:
                if process.poll() is None:
                    _kill(process)


def load(chunks: Iterable[bytes], together: Together) -> None:
    """Give an archive to `docker load`. What `chunks` raises ends it before the engine has registered anything.

    Raises KitError (ENVIRONMENT) with the engine's reason when it refuses.
    """
    argv = ["docker", "load", "--quiet"]
    console.echo(argv)
    with tempfile.TemporaryFile() as said, _running(argv, stdin=subprocess.PIPE, stdout=said, stderr=said) as process:
        together.add(process)
        assert process.stdin
        with contextlib.suppress(BrokenPipeError):  # it has refused, and says why
            for chunk in chunks:
                process.stdin.write(chunk)
            process.stdin.close()
        status = process.wait()
        said.seek(0)
        text = said.read().decode(errors="replace")
        # containerd's store ends with 0 when it could not unpack (measured with 28.5.2).
        if status or "Error unpacking" in text:
            raise failed("docker load", text)


def tag(image: str, name: str) -> None:
    _act("tag", image, name)


def untag(name: str) -> None:
    """Take a name away; the image stays where it has another."""
    _act("image", "rm", "--no-prune", name)


def names(repository: str) -> list[str]:
    """NAME:TAG of each image of a repository."""
    text, _ = ask(["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", repository], ANSWER)
    return text.split()


def _act(*words: str) -> None:
    console.echo(["docker", *words])
    done = subprocess.run(["docker", *words], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise failed(f"docker {words[0]}", done.stderr)


def failed(command: str, said: str) -> KitError:
    lines = [line for line in said.splitlines() if line.strip()]
    known = explain(lines)
    if "no space left on device" in said:
        return KitError(
            f"{command}: the disk of the engine's folder is full",
            "docker system df shows what takes the room; then run it again",
            ExitCode.ENVIRONMENT,
        )
    return KitError(
        f"{command} failed: {known.cause if known else (lines or ['no output'])[-1]}",
        known.fix if known else "./kit doctor looks at the engine",
        ExitCode.ENVIRONMENT,
        detail=tuple(lines[-5:-1]),
    )


@contextlib.contextmanager
def _running(argv: Sequence[str], **streams: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A program that ends with us: whatever ends the block ends it too, before its input could look complete."""
    options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "start_new_session": True, "bufsize": CHUNK, "pipesize": PIPE}
    process = subprocess.Popen(argv, **options | streams)
    try:
        yield process
    except BaseException:
        _kill(process)
        process.wait()
        raise
    finally:
        for stream in (process.stdin, process.stdout):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
