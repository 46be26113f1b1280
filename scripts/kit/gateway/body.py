"""The body of a request, read as it comes: `file` is decoded on the way, so that its base64 is never held as a whole."""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import io
import json
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from kit.gateway.causes import Refusal

IN_MEMORY = 2**20  # bytes of a document that are held in memory; more goes to a file
MAX_REST = 2**20  # bytes of a request beside `file`
MAX_DEPTH = 100  # of lists and objects in one another; a request needs seven
MAX_URL = 8192  # characters
MAX_VALUES = 3_000_000  # of a JSON body: 100 MiB of `{},` would become 3 GiB of objects; 2,000 pages have fewer
_PREFIX = "kit-gateway-"
_NEW_SECONDS = 60
_PIECE = 3 * 2**16  # bytes that are encoded at once: a multiple of 3

_STOP_OUTSIDE = re.compile(rb'["{}\[\],:]')
_TEXT = re.compile(rb'[^"\\]*(?:\\(?:u[0-9a-fA-F]{4}|[^u])[^"\\]*)*', re.DOTALL)  # of a string, as far as its escapes are whole
_CUT_ESCAPE = re.compile(rb"\\(u[0-9a-fA-F]{0,3})?")
_CONTROLS = bytes(range(32))
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


class Room:
    """Where spools put what is not small, and how many bytes they may have there together."""

    def __init__(self, folder: Path | None, limit: int) -> None:
        """folder: None for the system's."""
        self.folder = folder
        self._limit = limit
        self.used = 0

    def sweep(self) -> None:
        """Delete what gateways have left here that were killed; the files of one that lives are locked."""
        for path in Path(self.folder or tempfile.gettempdir()).glob(f"{_PREFIX}*"):
            # A file that is new may be about to be locked.
            with contextlib.suppress(OSError), path.open("rb") as file:
                if time.time() - path.stat().st_mtime > _NEW_SECONDS:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()

    def take(self, count: int) -> None:
        """Raises Refusal (no-room) when that is more than there is."""
        if self.used + count > self._limit:
            raise _no_room()
        self.used += count

    def give_back(self, count: int) -> None:
        self.used -= count


class Spool:
    """Bytes in memory as long as they are few, else in a file that goes away with this object."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._file: IO[bytes] = io.BytesIO()
        self.path: Path | None = None  # of the file, where it is in one
        self.size = 0
        self._taken = 0

    def write(self, data: bytes) -> None:
        """Raises Refusal (no-room): all spools have too much together, or the disk is full."""
        if self.path is None and self.size + len(data) > IN_MEMORY:
            self._take(self.size)
            held = self._file.getvalue()  # type: ignore[attr-defined]
            try:
                file = tempfile.NamedTemporaryFile(prefix=_PREFIX, dir=self._room.folder)  # noqa: SIM115 (closed in close)
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError as error:
                raise _no_room() from error
            self._file, self.path = file, Path(file.name)
            self._put(held)
        if self.path is not None:
            self._take(len(data))
        self._put(data)
        self.size += len(data)

    def _take(self, count: int) -> None:
        self._room.take(count)
        self._taken += count

    def _put(self, data: bytes) -> None:
        try:
            self._file.write(data)
            self._file.flush()  # a full disk is told of here, nowhere else
        except OSError as error:
            raise _no_room() from error

    def read(self, offset: int, count: int) -> bytes:
        self._file.seek(offset)
        data = self._file.read(count)
        self._file.seek(0, io.SEEK_END)
        return data

    def source(self) -> bytes | str:
        """For another process: the bytes, or the path of the file that holds them."""
        if self.path is None:
            return self._file.getvalue()  # type: ignore[attr-defined]
        return str(self.path)

    def base64_pieces(self) -> Iterator[bytes]:
        """The content as base64, piece by piece."""
        for offset in range(0, self.size, _PIECE):
            yield base64.b64encode(self.read(offset, _PIECE))

    def close(self) -> None:
        with contextlib.suppress(OSError):  # what a full disk has not taken
            self._file.close()
        self._room.give_back(self._taken)
        self._taken = 0


def base64_pieces(data: bytes) -> Iterator[bytes]:
    """`data` as base64, piece by piece."""
    for offset in range(0, len(data), _PIECE):
        yield base64.b64encode(data[offset : offset + _PIECE])


def _no_room() -> Refusal:
    return Refusal("no-room", "the gateway has no room for a further document now; come again in 5 s", retry_after=5)


class FileValue:
    """The value of `file`, fed as it comes: base64, decoded into a spool, or a URL."""

    def __init__(self, spool: Spool, limit: int) -> None:
        """limit: bytes that the decoded document may have."""
        self.spool = spool
        self.url: str | None = None
        self._limit = limit
        self._start = b""
        self._mode = ""  # "url", "base64"; empty until enough has come to tell
        self._carry = b""
        self._padding = 0

    def feed(self, text: bytes) -> None:
        if not self._mode:
            self._start += text
            if len(self._start) < 8:
                return
            text = self._choose()
        if self._mode == "url":
            self._start += text
            if len(self._start) > MAX_URL:
                raise Refusal("bad-field", f"the URL in `file` is longer than {MAX_URL} characters")
        else:
            self._decode(text)

    def end(self) -> None:
        if not self._mode and (rest := self._choose()):
            self._decode(rest)
        if self._mode == "url":
            try:
                self.url = self._start.decode("ascii")
            except UnicodeDecodeError:
                raise Refusal("bad-field", "the URL in `file` is not ASCII; encode it (%C3%A4, xn--…)") from None
        elif self._carry:
            raise Refusal(
                "base64", "`file` is cut: its base64 is no multiple of 4 characters; send it whole, with its = at the end"
            )

    def _choose(self) -> bytes:
        if self._start[:8].lower().startswith((b"http://", b"https://")):
            self._mode = "url"
            return b""
        self._mode, text, self._start = "base64", self._start, b""
        if text.lower().startswith(b"data:"):
            raise Refusal("base64", "`file` is a data: URI; send only what stands behind its comma")
        return text

    def _decode(self, text: bytes) -> None:
        text = text.translate(None, b" \t\r\n")
        data = text.rstrip(b"=")
        padding = len(text) - len(data)
        if (self._padding and data) or self._padding + padding > 2:
            raise Refusal("base64", "`file` is not base64: something stands behind its =")
        if strange := data.translate(None, _ALPHABET):
            hint = "; that is the URL-safe alphabet, send + and /" if strange[:1] in b"-_" else ""
            raise Refusal("base64", f"`file` is not base64: it has {json.dumps(strange[:1].decode('latin-1'))}{hint}")
        self._padding += padding
        text = self._carry + text
        whole = len(text) - len(text) % 4
        self._carry = text[whole:]
        try:
            decoded = binascii.a2b_base64(text[:whole])
        except binascii.Error:
            raise Refusal("base64", "`file` is not base64: its = signs do not fit") from None
        if self.spool.size + len(decoded) > self._limit:
            raise Refusal("too-large", f"the file is larger than {self._limit // 2**20} MiB, the limit of this gateway")
        self.spool.write(decoded)


class LayoutBody:
    """The JSON of a /layout-parsing request, fed as it comes.

    Everything but the text of `file` is collected and parsed at the end; the text goes to a FileValue.
    """

    def __init__(self, value: FileValue) -> None:
        self.value = value
        self.has_file = False
        self.wrong: Refusal | None = None  # with the text of `file`; raised when the fields are known
        self._rest = bytearray()
        self._depth = 0
        self._inside = False  # a string that is not the file's
        self._in_file = False
        self._escape = b""  # begun in the last chunk, inside a string
        self._key_next = False
        self._key_from: int | None = None
        self._file_next = False

    def feed(self, chunk: bytes) -> None:
        chunk, position, self._escape = self._escape + chunk, 0, b""
        while position < len(chunk):
            if self._in_file or self._inside:
                position = self._feed_string(chunk, position)
            else:
                position = self._feed_outside(chunk, position)
            if len(self._rest) > MAX_REST:
                raise Refusal("too-large", f"the request has more than {MAX_REST // 2**20} MiB beside `file`")

    def end(self) -> dict[str, Any]:
        """The request with `file` as an empty text where it was one; see `wrong` too. Raises Refusal."""
        return parse_object(bytes(self._rest))

    def _feed_outside(self, chunk: bytes, position: int) -> int:
        # Until a string begins, in one go: there may be a sign at each character.
        for match in _STOP_OUTSIDE.finditer(chunk, position):
            sign = match.group()
            if sign == b'"':
                self._rest += chunk[position : match.end()]
                if self._file_next:
                    if self.has_file:
                        raise Refusal("bad-field", "`file` is given twice")
                    self.has_file = self._in_file = True
                else:
                    self._inside = True
                    self._key_from = len(self._rest) if self._key_next and self._depth == 1 else None
                self._file_next = False
                return match.end()
            if sign == b":":
                self._key_next = False
            elif sign == b",":
                self._key_next, self._file_next = True, False
            elif sign in b"{[":
                self._depth += 1
                self._key_next, self._file_next = sign == b"{", False
            else:
                self._depth -= 1
                self._key_next = self._file_next = False
        self._rest += chunk[position:]
        return len(chunk)

    def _feed_string(self, chunk: bytes, position: int) -> int:
        end = _text_ends(chunk, position)
        text = chunk[position:end]
        if self._in_file:
            if len(text.translate(None, _CONTROLS)) != len(text):
                raise Refusal("json", "the body is not JSON: a control character inside `file`; write it as \\n")
            self._give(text)
        else:
            self._rest += text
        if end == len(chunk):
            return end
        if chunk[end : end + 1] == b'"':
            self._rest += b'"'
            if self._in_file:
                self._in_file = False
                self._give(b"", last=True)
            else:
                self._inside = False
                if self._key_from is not None:
                    self._file_next = _is_file(bytes(self._rest[self._key_from : -1]))
            return end + 1
        if _CUT_ESCAPE.fullmatch(chunk, end) is None:
            raise Refusal("json", "the body is not JSON: a \\u without four hexadecimal digits")
        self._escape = chunk[end:]
        return len(chunk)

    def _give(self, text: bytes, last: bool = False) -> None:
        if self.wrong is not None:
            return
        try:
            self.value.end() if last else self.value.feed(_plain(text))
        except Refusal as refusal:
            if refusal.cause.name in ("too-large", "no-room"):  # no use in waiting for the rest
                raise
            self.wrong = refusal


def _text_ends(chunk: bytes, position: int) -> int:
    """Where the text of a string ends, or the chunk, or what is whole of its escapes."""
    end = chunk.find(b'"', position)
    end = len(chunk) if end < 0 else end
    if chunk.find(b"\\", position, end) < 0:  # nearly always, and quicker
        return end
    match = _TEXT.match(chunk, position)
    return match.end() if match else position


def _plain(text: bytes) -> bytes:
    """The text of `file` without escapes: all of a chunk at once, as there may be one at each character."""
    if b"\\" not in text:
        return text
    try:
        return json.loads('"' + text.decode("latin-1") + '"').encode("latin-1")
    except ValueError:
        raise Refusal("base64", "`file` is not base64: it has an escape of a character that base64 does not have") from None


def _is_file(raw: bytes) -> bool:
    if b"\\" not in raw:
        return raw == b"file"
    try:
        return json.loads(b'"' + raw + b'"') == "file"
    except ValueError:
        return False


def parse_object(data: bytes) -> dict[str, Any]:
    """The JSON object in a body. Raises Refusal: not JSON, NaN, too deep, too many values, a field twice, no object."""
    if sum(map(data.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise Refusal("too-large", f"the body has more than {MAX_VALUES:,} values; send fewer pages at once")
    try:
        parsed = json.loads(data.decode("utf-8-sig"), parse_constant=_no_constant, object_pairs_hook=_once)
    except UnicodeDecodeError:
        raise Refusal("json", "the body is not UTF-8") from None
    except RecursionError:
        raise _too_deep() from None
    except _Twice as error:
        raise Refusal("bad-field", f"{json.dumps(str(error)[:60])} is given twice") from None
    except ValueError as error:
        where = (
            f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) and data.strip() else ""
        )
        said = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise Refusal("json", f"the body is not JSON: {said[:100]}{where}" if data.strip() else "the body is empty") from None
    if not isinstance(parsed, dict):
        raise Refusal("json", 'the body must be a JSON object, such as {"file": "…", "fileType": 1}')
    level: list[Any] = [parsed]
    for _ in range(MAX_DEPTH):
        inner = (one.values() if isinstance(one, dict) else one for one in level)
        level = [one for values in inner for one in values if isinstance(one, (dict, list))]
        if not level:
            return parsed
    raise _too_deep()


def _too_deep() -> Refusal:
    return Refusal("json", f"the body is nested too deep: more than {MAX_DEPTH} lists and objects in one another")


class _Twice(Exception):
    pass


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise _Twice(name)
        found[name] = value
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")
