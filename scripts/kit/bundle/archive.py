"""The tar archives that `docker save` writes and `docker load` reads. Pure: streams in, members out.

An engine registers an image only once it has read the archive's manifest.json; whatever ends before it leaves nothing.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol

import zstandard

CHUNK = 2**18  # bytes: a core's own cache holds it on its way through hashes and packing
DOCUMENT = 32 * 2**20  # bytes: no configuration of an image is as long
END = bytes(2 * tarfile.BLOCKSIZE)
_GZIP_MAGIC, _ZSTD_MAGIC = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


class Reader(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Digester:
    """The digest by which an image knows a layer: that of its unpacked bytes, of which a CHUNK at a time is in memory.

    containerd's store gives layers out packed, as they were pulled; some come in many gzip members (eStargz) or zstd frames.
    head: the layer's first bytes, which tell. `update` raises ValueError for what was packed and is damaged.
    """

    def __init__(self, head: bytes) -> None:
        self._hash = hashlib.sha256()
        self.update: Callable[[bytes], None] = self._hash.update
        if head.startswith(_GZIP_MAGIC):
            self._member = zlib.decompressobj(wbits=31)
            self.update = self._gzip
        elif head.startswith(_ZSTD_MAGIC):
            self._frames = zstandard.ZstdDecompressor().stream_writer(_Written(self._hash.update), write_size=CHUNK)
            self.update = self._zstd

    def _gzip(self, piece: bytes) -> None:
        try:
            while piece:
                if self._member.eof:
                    self._member = zlib.decompressobj(wbits=31)
                self._hash.update(self._member.decompress(piece, CHUNK))
                piece = self._member.unused_data or self._member.unconsumed_tail
        except zlib.error as error:
            raise ValueError(f"a layer is damaged: {error}") from error

    def _zstd(self, piece: bytes) -> None:
        try:
            self._frames.write(piece)
        except zstandard.ZstdError as error:
            raise ValueError(f"a layer is damaged: {error}") from error

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"


class _Written:
    """A function as a file to write to."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self.write = write


@dataclass(frozen=True)
class Layer:
    """A layer on its way: read `content` before going on. path: in the archive. size: bytes, as they come."""

    path: str
    size: int
    content: Reader
    digester: Digester


@dataclass
class Saved:
    """What an archive of `docker save` held beside its layers. layers: digest by path, put in by whoever reads them."""

    documents: dict[str, bytes] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    layers: dict[str, str] = field(default_factory=dict)

    def entries(self) -> list[dict[str, Any]]:
        """Docker's own manifest.json. Raises ValueError when there is none."""
        if "manifest.json" not in self.documents:
            raise ValueError("no manifest.json")
        return json.loads(self.documents["manifest.json"])

    def layers_of(self, entry: dict[str, Any]) -> tuple[str, ...]:
        """Digests of an image's layers, lowest first. Raises ValueError when the archive lacks one."""
        paths = [self.links.get(path, path) for path in entry["Layers"]]
        if missing := [path for path in paths if path not in self.layers]:
            raise ValueError(f"no {missing[0]}")
        return tuple(self.layers[path] for path in paths)


def layers(stream: BinaryIO, saved: Saved) -> Iterator[Layer]:
    """Each layer in an archive of `docker save`; all else goes into `saved`. Memory: documents alone.

    Engines before 25 name a layer by its place (ID/layer.tar) and link to it where it comes twice; later ones by its content
    (blobs/sha256/DIGEST, the digest of what containerd's store keeps packed). So it is told by what it is.
    Raises tarfile.TarError, ValueError when the archive is cut.
    """
    source = _Forward(stream)
    with tarfile.open(fileobj=source, mode="r:") as archive:  # type: ignore[call-overload]
        for member in archive:
            archive.members.clear()  # it remembers each, and needs none
            if member.issym() or member.islnk():
                folder = member.name.rpartition("/")[0]
                saved.links[member.name] = _joined(folder, member.linkname) if member.issym() else member.linkname
            elif member.isfile():
                content = _Content(source, member)
                head = content.read(tarfile.BLOCKSIZE)
                if head[:1] in (b"{", b"[") and head[257:262] != b"ustar" and member.size <= DOCUMENT:
                    saved.documents[member.name] = head + content.read(member.size)
                elif member.size > tarfile.BLOCKSIZE or head.startswith((_GZIP_MAGIC, _ZSTD_MAGIC)):
                    content.put_back(head)
                    yield Layer(member.name, member.size, content, Digester(head))


class _Forward:
    """What tarfile needs of a file, of one that can only be read on: it looks back at nothing.

    In tarfile's own mode for streams each byte is copied some seven times on its way, which took two of the seconds of a GB.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._position = stream, 0

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> None:
        while self._position < position:
            if not self.some(min(position - self._position, CHUNK)):
                return  # tarfile sees that nothing follows

    def read(self, size: int) -> bytes:
        found = self.some(size)
        while len(found) < size and (more := self.some(size - len(found))):
            found += more
        return found

    def some(self, size: int) -> bytes:
        """Up to `size` bytes, as they come; none at the end."""
        piece = self._stream.read(size)
        self._position += len(piece)
        return piece


class _Content:
    """The content of a member that tarfile has just come to."""

    def __init__(self, source: _Forward, member: tarfile.TarInfo) -> None:
        self._source, self._left, self._name = source, member.size, member.name
        self._head = b""
        source.seek(member.offset_data)

    def put_back(self, head: bytes) -> None:
        self._head = head

    def read(self, size: int) -> bytes:
        """`size` bytes, less at the end. Raises tarfile.ReadError when it is cut."""
        if self._head:
            piece, self._head = self._head, b""
            return piece
        wanted = min(size, self._left)
        piece = self._source.read(wanted)
        if len(piece) < wanted:
            raise tarfile.ReadError(f"{self._name} is cut")
        self._left -= wanted
        return piece


def _joined(folder: str, link: str) -> str:
    """Where a relative link in `folder` leads."""
    steps = folder.split("/") if folder else []
    for step in link.split("/"):
        if step == "..":
            steps = steps[:-1]
        elif step not in ("", "."):
            steps.append(step)
    return "/".join(steps)


# --- writing


def header(name: str, size: int) -> bytes:
    """Of a member. The same name and size give the same bytes, whoever writes when."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    return member.tobuf(tarfile.GNU_FORMAT)


def padding(size: int) -> bytes:
    """What follows `size` bytes of content."""
    return bytes(-size % tarfile.BLOCKSIZE)


def layer_path(digest: str) -> str:
    return f"{digest.partition(':')[2]}.tar"


def config_path(digest: str) -> str:
    return f"{digest.partition(':')[2]}.json"


def index(images: Iterable[tuple[str, str, Iterable[str]]]) -> bytes:
    """The last member of an archive and its end. images: name, path of the configuration, paths of the layers, lowest first."""
    text = json.dumps([{"Config": config, "RepoTags": [name], "Layers": list(paths)} for name, config, paths in images])
    return document("manifest.json", text.encode()) + END


def document(path: str, content: bytes) -> bytes:
    """A small member, whole."""
    return header(path, len(content)) + content + padding(len(content))


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
