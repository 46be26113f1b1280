"""API keys: from a file or the environment, compared in constant time, never printed."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

MIN_LENGTH = 16  # characters; `openssl rand -hex 16` makes twice that
_LOOK_AGAIN = 1.0  # seconds between two looks at the file


class KeysError(ValueError):
    """The keys cannot be used; says why, never a key."""


class Keys:
    """The keys that are let in, by their SHA-256. Empty: everybody is."""

    def __init__(self, text: str = "", file: Path | None = None) -> None:
        """text: as in the file. file: one key a line, `NAME:KEY` or `KEY`, # starts a comment; read again when it changes.

        Raises KeysError when the file cannot be read, has no key, or one is too short.
        """
        self._fixed = parse_keys(text) if text.strip() else {}
        self._file = file
        self._from_file: dict[bytes, str] = {}
        self._stamp: tuple[int, int] | None = None
        self._looked = 0.0
        if file is not None:
            self._load()
        self.required = bool(self._fixed) or file is not None

    def client_of(self, headers: Mapping[bytes, bytes]) -> str | None:
        """The name of the key that a request carries; None when it carries none of them.

        headers: names in lower case. `Authorization: Bearer KEY` or `X-API-Key: KEY`.
        """
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        given = token.strip() if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"")
        digest = hashlib.sha256(given).digest()
        name = None
        # All are compared, whichever fits: the time taken tells nothing of which.
        for known, known_name in self._current().items():
            if hmac.compare_digest(known, digest):
                name = known_name
        return name

    def _current(self) -> dict[bytes, str]:
        if self._file is not None and time.monotonic() - self._looked > _LOOK_AGAIN:
            # Half written, or gone: those that were good stay until there are new ones.
            with contextlib.suppress(KeysError):
                self._load()
        return {**self._fixed, **self._from_file}

    def _load(self) -> None:
        assert self._file is not None
        self._looked = time.monotonic()
        try:
            state = self._file.stat()
            stamp = (state.st_mtime_ns, state.st_size)
            if stamp == self._stamp:
                return
            text = self._file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise KeysError(f"the key file {self._file} cannot be read: {getattr(error, 'strerror', 'not UTF-8')}") from None
        self._from_file = parse_keys(text, str(self._file))
        self._stamp = stamp


def entries(text: str) -> Iterator[tuple[str | None, str]]:
    """Name, or None, and key of each entry, unchecked: `NAME:KEY` or `KEY`, one a line or with commas; # starts a comment."""
    for line in (line.strip() for line in text.replace(",", "\n").splitlines()):
        if line and not line.startswith("#"):
            name, colon, key = line.rpartition(":")
            yield (name.strip() if colon else None), key


def parse_keys(text: str, source: str = "GATEWAY_API_KEYS") -> dict[bytes, str]:
    """SHA-256 of each key → its name (`key-1`, … where none is given). Raises KeysError."""
    keys: dict[bytes, str] = {}
    for number, (name, key) in enumerate(entries(text), 1):
        if len(key) < MIN_LENGTH or not key.isascii() or " " in key:
            raise KeysError(
                f"{source}: key {number} is not at least {MIN_LENGTH} ASCII characters without spaces; openssl rand -hex 16"
            )
        keys[hashlib.sha256(key.encode()).digest()] = f"key-{number}" if name is None else name
    if not keys:
        raise KeysError(f"{source} has no key; one a line, or do not set it")
    return keys
