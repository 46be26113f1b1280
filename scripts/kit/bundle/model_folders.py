"""Model folders as a tar archive: out of a `.paddlex`, and into one.

Standard library only, Python 3.8: it also runs inside the API image, where the volume of compose.models.yaml can be reached.

    python3 -c THIS list HOME    the folders and their sizes, JSON on stdout
    python3 -c THIS pack HOME    the archive on stdout
    python3 -c THIS fill HOME    the archive on stdin, and WHOLE behind it
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import stat
import sys
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

ROOT, MODELS, FONTS = ".paddlex", "official_models", "fonts"  # where PaddleX looks (paddlex 3.7.2 source, cache.py, fonts.py)
OWNER = 1000  # uid and gid of the images' own user
WHOLE = b"whole\n"  # follows an archive that came to its end, and to which nobody objected
CONFIGS = ("config.json", "inference.yml")
WEIGHTS = (".safetensors", ".pdiparams", ".onnx", ".bin")
UNFINISHED = (".incomplete", ".part", ".partial", ".tmp")  # huggingface_hub and others, while they download
SHAPE = "a model folder holds config.json or inference.yml, and weights beside it"
INCOMING = ".incoming"  # in .paddlex, until all of it has come
CHUNK = 2**20  # bytes
REFUSED, FAILED = 3, 4  # exit status


class Refused(Exception):
    """What cannot be carried, or is no such archive. hint: the way out."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


class Found(NamedTuple):
    """models: name → folder. fonts: name → file."""

    models: dict[str, Path]
    fonts: dict[str, Path]

    @property
    def folders(self) -> list[tuple[str, int]]:
        """Name and bytes of each model folder, then of the fonts, if there are any."""
        sizes = [(name, sum(path.stat().st_size for _, path in files(folder))) for name, folder in self.models.items()]
        fonts = sum(path.stat().st_size for path in self.fonts.values())
        return [*sizes, (FONTS, fonts)] if fonts else sizes


# --- what is there


def find(folder: Path) -> Found:
    """The models of a `.paddlex`, an `official_models`, or any folder of model folders. Raises Refused."""
    if not folder.is_dir():
        raise Refused(f"{folder}: {'no folder' if folder.exists() else 'no such folder'}", "give a folder of model folders")
    base, fonts = (folder / MODELS, folder / FONTS) if (folder / MODELS).is_dir() else (folder, None)
    if any((base / name).is_file() for name in CONFIGS):
        raise Refused(f"{folder} is a model folder itself", f"give the one above it: {folder.resolve().parent}")
    models = {path.name: path for path in sorted(base.iterdir()) if not path.name.startswith(".") and path.is_dir()}
    if not models:
        raise Refused(f"{base} holds no model folder", SHAPE)
    for path in models.values():
        _require_whole(path)
    font_files = dict(files(fonts)) if fonts and fonts.is_dir() else {}
    return Found(models, {name: path for name, path in font_files.items() if "/" not in name and path.stat().st_size})


def _require_whole(model: Path) -> None:
    """PaddleX takes a folder of the right name for the model, whatever is in it (paddlex 3.7.2 source, official_models.py)."""
    anew = f"{SHAPE}; remove {model} and let it be fetched anew"
    if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", model.name, re.ASCII):
        raise Refused(f"{model} has no name of a model", "letters, digits, and . _ + - between them")
    for folder, _, names in os.walk(model):
        for name in names:
            if name.endswith(UNFINISHED):
                raise Refused(f"{model.name} is half downloaded: {Path(folder, name).relative_to(model)}", anew)
    by_folder: dict[str, dict[str, Path]] = {}
    for name, path in files(model):
        above, _, last = name.rpartition("/")
        by_folder.setdefault(above, {})[last] = path
    configured = {above: inside for above, inside in by_folder.items() if set(CONFIGS) & set(inside)}
    if not configured:
        raise Refused(f"{model} is no model folder, or half of one: no {' and no '.join(CONFIGS)}", anew)
    for above, inside in configured.items():
        where = f"{model.name}/{above}".rstrip("/")
        weights = {name: path for name, path in inside.items() if name.endswith(WEIGHTS)}
        if not weights:
            raise Refused(f"{where} has no weights ({', '.join(WEIGHTS)})", anew)
        for name, path in weights.items():
            if not _is_whole(path):
                raise Refused(f"{where}/{name} is half downloaded: {path.stat().st_size} bytes", anew)
        for name, path in inside.items():
            if name.endswith(".safetensors.index.json"):
                missing = set(json.loads(path.read_text())["weight_map"].values()) - set(inside)
                if missing:
                    raise Refused(f"{where} is half downloaded: no {min(missing)}", anew)


def _is_whole(weights: Path) -> bool:
    """A .safetensors file tells where its last tensor ends (huggingface/safetensors, Format); others tell nothing."""
    size = weights.stat().st_size
    if weights.suffix != ".safetensors":
        return size > 0
    try:
        with weights.open("rb") as file:
            header = int.from_bytes(file.read(8), "little")
            tensors = json.loads(file.read(header)) if header < size else {}
        ends = [entry["data_offsets"][1] for name, entry in tensors.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
    return bool(ends) and size == 8 + header + max(ends)


def files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Name below `folder` and path of each file, sorted; without what is hidden, such as a downloader's own notes.

    Raises Refused for links that lead out of it, and for what is neither file nor folder.
    """
    home = folder.resolve()

    def walk(path: Path, name: str) -> Iterator[tuple[str, Path]]:
        for entry in sorted(path.iterdir()):
            inner = f"{name}{entry.name}"
            if entry.name.startswith("."):
                continue
            if entry.is_symlink() and not (entry.is_file() and home in entry.resolve().parents):
                raise Refused(f"{entry} is a link to a folder, or out of {folder}", f"cp -rL {folder} ELSEWHERE")
            kind = entry.stat().st_mode
            if stat.S_ISDIR(kind):
                yield from walk(entry, inner + "/")
            elif stat.S_ISREG(kind):
                yield inner, entry
            else:
                raise Refused(f"{entry} is neither file nor folder", "remove it")

    if folder.is_symlink():
        raise Refused(f"{folder} is a link", f"cp -rL {folder} ELSEWHERE")
    return walk(folder, "")


# --- out


def pack(found: Found) -> Iterator[bytes]:
    """The archive, in pieces; the same folders give the same bytes. Raises Refused when a file changes meanwhile."""
    yield _header(ROOT)
    if found.fonts:
        yield _header(f"{ROOT}/{FONTS}")
        for name, path in found.fonts.items():
            yield from _file(f"{ROOT}/{FONTS}/{name}", path)
    yield _header(f"{ROOT}/{MODELS}")
    for model, folder in found.models.items():
        yield _header(f"{ROOT}/{MODELS}/{model}")
        above = {"."}
        for name, path in files(folder):
            for parent in [str(p) for p in reversed(PurePosixPath(name).parents)]:
                if parent not in above:
                    above.add(parent)
                    yield _header(f"{ROOT}/{MODELS}/{model}/{parent}")
            yield from _file(f"{ROOT}/{MODELS}/{model}/{name}", path)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _header(name: str, size: int | None = None) -> bytes:
    """Of a file of `size` bytes; without, of a folder."""
    member = tarfile.TarInfo(name)
    member.uid = member.gid = OWNER
    member.size = size or 0
    member.type = tarfile.DIRTYPE if size is None else tarfile.REGTYPE
    member.mode = 0o755 if size is None else 0o644
    return member.tobuf(tarfile.PAX_FORMAT)


def _file(name: str, path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        left = os.fstat(file.fileno()).st_size
        yield _header(name, left)
        padding = -left % tarfile.BLOCKSIZE
        while left:
            piece = file.read(min(CHUNK, left))
            if not piece:
                raise Refused(f"{path} became shorter while it was read", "stop what writes it: ./kit down")
            left -= len(piece)
            yield piece
    yield bytes(padding)


# --- in


class _Stream:
    """What comes, and the last bytes of it."""

    def __init__(self, source: BinaryIO) -> None:
        self.source, self.last = source, b""

    def read(self, size: int) -> bytes:
        piece = self.source.read(size)
        self.last = (self.last + piece)[-len(WHOLE) :]
        return piece


def fill(home: Path, source: BinaryIO) -> None:
    """Put what `pack` wrote into the `.paddlex` of `home`, each folder whole or not at all.

    All of it is written aside first, and gets its place by renaming after WHOLE has come. A folder of the same content is
    kept, another of the same name is replaced. Raises Refused when the archive is cut or holds anything else.
    """
    root = home / ROOT
    root.mkdir(exist_ok=True)
    with (root / ".incoming.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        incoming = root / INCOMING
        shutil.rmtree(incoming, ignore_errors=True)  # of one that was interrupted
        incoming.mkdir()
        try:
            stream = _Stream(source)
            _unpack(stream, incoming)
            while stream.read(CHUNK):
                pass
            if stream.last != WHOLE:
                raise Refused("the models were cut off on their way", "run it again")
            for kind in (MODELS, FONTS):
                if (incoming / kind).is_dir():
                    _place_all(incoming / kind, root / kind, incoming)
        finally:
            shutil.rmtree(incoming, ignore_errors=True)


def _unpack(stream: _Stream, target: Path) -> None:
    try:
        with tarfile.open(fileobj=stream, mode="r|", bufsize=CHUNK) as archive:  # type: ignore[call-overload]
            for member in archive:
                path = target / _inside(member)
                if member.isdir():
                    path.mkdir(parents=True, exist_ok=True)
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                content = archive.extractfile(member)
                assert content
                with path.open("xb") as file:
                    shutil.copyfileobj(content, file, CHUNK)
                    file.flush()
                    os.fsync(file.fileno())
    except (tarfile.TarError, EOFError, FileExistsError) as error:
        raise Refused(f"the models are no whole archive: {error}", "./kit verify looks at the bundle") from None


def _inside(member: tarfile.TarInfo) -> PurePosixPath:
    """Where a member belongs below .paddlex; nothing else is let in."""
    path = PurePosixPath(member.name)
    kinds = path.parts[1:2]
    fits = path.parts[:1] == (ROOT,) and ".." not in path.parts and kinds in ((), (MODELS,), (FONTS,))
    if not fits or not (member.isdir() or (member.isreg() and len(path.parts) > (3 if kinds == (MODELS,) else 2))):
        raise Refused(f"the models hold {member.name!r}, which is no part of a model", "./kit verify looks at the bundle")
    return PurePosixPath(*path.parts[1:])


def _place_all(new: Path, place: Path, aside: Path) -> None:
    place.mkdir(exist_ok=True)
    for path in sorted(new.iterdir()):
        there = place / path.name
        if there.exists() and _same(path, there):
            continue
        if os.path.lexists(there):
            there.rename(aside / f"replaced-{new.name}-{path.name}")
        path.rename(there)
    handle = os.open(place, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def _same(one: Path, other: Path) -> bool:
    if one.is_file() or other.is_file():
        return one.is_file() and other.is_file() and _same_bytes(one, other)
    try:
        ours, theirs = dict(files(one)), dict(files(other))
    except Refused:
        return False
    return list(ours) == list(theirs) and all(_same_bytes(path, theirs[name]) for name, path in ours.items())


def _same_bytes(one: Path, other: Path) -> bool:
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as ours, other.open("rb") as theirs:
        while piece := ours.read(CHUNK):
            if piece != theirs.read(CHUNK):
                return False
    return True


# --- inside the image


def main(words: Iterable[str]) -> int:
    """One line of JSON on stderr says what went wrong."""
    verb, home = words
    try:
        if verb == "fill":
            fill(Path(home), sys.stdin.buffer)
            return 0
        if not Path(home, ROOT, MODELS).is_dir():
            raise Refused("the volume holds no models yet", "./kit up fetches them; --models FOLDER takes those of a folder")
        found = find(Path(home) / ROOT)
        if verb == "list":
            json.dump(found.folders, sys.stdout)
            return 0
        for piece in pack(found):
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return 0
    except Refused as error:
        print(json.dumps([error.message, error.hint]), file=sys.stderr)
        return REFUSED
    except OSError as error:
        full = error.errno == errno.ENOSPC
        hint = "docker system df shows what takes the room" if full else ""
        print(json.dumps([f"{error.filename or home}: {error.strerror}", hint]), file=sys.stderr)
        return FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
