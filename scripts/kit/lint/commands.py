"""What a container runs: command lines, the options in them, and where each word was written."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from collections.abc import Sequence as AnySequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from kit.lint.findings import Place
from kit.lint.tree import Node, Scalar, Sequence

SHELLS = {"sh", "bash", "dash", "ash", "zsh"}
LAUNCHERS = {"exec", "nohup", "tini", "--", "sudo", "dumb-init"}
# Servers of the VLM, by the words that start them; the engine is named by an option where it is "".
VLM_SERVERS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (("paddleocr", "genai_server"), "genai", ""),
    (("paddlex_genai_server",), "genai", ""),
    (("vllm", "serve"), "plain", "vllm"),
    (("vllm.entrypoints.openai.api_server",), "plain", "vllm"),
    (("sglang.launch_server",), "plain", "sglang"),
    (("fastdeploy.entrypoints.openai.api_server",), "plain", "fastdeploy"),
    (("llama-server",), "plain", "llama-cpp"),
)


@dataclass(frozen=True)
class Word:
    """One word of a command line. scalar: the value that it is written in; item: it is that whole value."""

    text: str
    scalar: Scalar
    item: bool

    @property
    def place(self) -> Place:
        return self.scalar.place if self.item and not self.scalar.expansion.used else self.scalar.where(self.text)


@dataclass(frozen=True)
class Command:
    """One process: its words, the program first."""

    words: tuple[Word, ...]

    @property
    def texts(self) -> list[str]:
        return [word.text for word in self.words]

    @property
    def place(self) -> Place:
        return self.words[0].place

    def option(self, *names: str) -> Word | None:
        """The value of an option; `--a_b`, `--a-b`, `--a b` and `--a=b` are alike. The last one wins, as in argparse."""
        wanted = {_plain(name) for name in names}
        found = None
        for index, word in enumerate(self.words):
            name, equals, value = word.text.partition("=")
            if name.startswith("-") and _plain(name) in wanted:
                if equals:
                    found = Word(value, word.scalar, False)
                elif index + 1 < len(self.words):
                    found = self.words[index + 1]
        return found

    def has(self, *run: str) -> Word | None:
        """The first word of a run of words, by their file names."""
        names = [PurePosixPath(text).name if "/" in text else text for text in self.texts]
        for start in range(len(names) - len(run) + 1):
            if tuple(names[start : start + len(run)]) == run:
                return self.words[start]
        return None

    def vlm_server(self) -> tuple[str, str, Word] | None:
        """(how it is started: "genai" or "plain", its engine or "", the word that says so), or None."""
        for run, kind, engine in VLM_SERVERS:
            if word := self.has(*run):
                return kind, engine, word
        return None

    def serves_pipeline(self) -> bool:
        return self.has("paddlex") is not None and "--serve" in self.texts

    def python_file(self) -> str:
        """The Python file that is run: by python FILE, python -m MODULE, or uvicorn MODULE:APP; else empty."""
        names = [PurePosixPath(text).name for text in self.texts]
        if names and names[0] in ("uvicorn", "gunicorn", "hypercorn"):
            module = next((text.partition(":")[0] for text in self.texts[1:] if ":" in text and not text.startswith("-")), "")
            return module.replace(".", "/") + ".py" if module else ""
        if names and re.fullmatch(r"python[\d.]*", names[0]):
            return next((text for text in self.texts[1:] if text.endswith(".py")), "")
        return ""


def _plain(option: str) -> str:
    return option.lstrip("-").replace("_", "-")


def commands(*nodes: Node | None) -> list[Command]:
    """The processes of an entrypoint followed by a command; a script behind `sh -c` counts process by process."""
    words: list[Word] = []
    for node in nodes:
        if isinstance(node, Sequence):
            words += [Word(item.text, item, True) for item in node.items if isinstance(item, Scalar)]
        elif isinstance(node, Scalar):
            words += [Word(text, node, False) for text in _split(node.text)]
    return _processes(words)


def script(node: Scalar) -> list[Command]:
    """The processes of a shell script."""
    return [Command(tuple(_without_launchers(words))) for words in _shell(node) if words]


def _processes(words: list[Word]) -> list[Command]:
    words = _without_launchers(words)
    if not words:
        return []
    if PurePosixPath(words[0].text).name in SHELLS and len(words) > 2 and re.fullmatch(r"-\w*c", words[1].text):
        inner = words[2]
        inner_scalar = Scalar(inner.text, inner.scalar.place, inner.scalar.source, "", inner.scalar.expansion)
        return [command for command in script(inner_scalar) if command.words]
    return [Command(tuple(words))]


def _without_launchers(words: AnySequence[Word]) -> list[Word]:
    rest = list(words)
    while rest and (PurePosixPath(rest[0].text).name in LAUNCHERS or re.fullmatch(r"\w+=.*", rest[0].text, re.DOTALL)):
        rest.pop(0)
    return rest


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # a quote that is never closed: Compose refuses it too
        return text.split()


def _shell(node: Scalar) -> Iterator[list[Word]]:
    text = re.sub(r"(?m)^\s*#.*$", "", node.text).replace("\\\n", " ").replace("\n", " ; ")
    lexer = shlex.shlex(text, posix=True, punctuation_chars=";&|()<>")
    lexer.whitespace_split, lexer.commenters = True, ""
    words: list[Word] = []
    try:
        for token in lexer:
            if token and set(token) <= set(";&|()"):
                yield words
                words = []
            else:
                words.append(Word(token, node, False))
    except ValueError:
        pass
    yield words
