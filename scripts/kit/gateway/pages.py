"""GET / and /viewer/…: the page for people. Static files of kit/viewer, which hold no data and are for everybody.

Standard library only: ./kit view serves the same files by this module. docs/viewer.md says what the page does.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "viewer"
INDEX, BELOW = "/", "/viewer/"
METHODS = ("GET", "HEAD")

_KINDS = {
    ".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".json": "application/json",
    ".js": "text/javascript; charset=utf-8", ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml", ".woff2": "font/woff2", ".bcmap": "application/octet-stream",
}  # fmt: skip

# Nothing from elsewhere, nothing inline, nothing compiled at run time. blob: the pictures of a reply.
POLICY = "; ".join(
    (
        "default-src 'none'", "script-src 'self'", "worker-src 'self'", "style-src 'self'", "font-src 'self'",
        "img-src 'self' blob:", "connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
    )
)  # fmt: skip
HEADERS = {
    "content-security-policy": POLICY,
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-cache",  # asked for each time, answered by 304: a new kit is seen at once
}


@dataclass(frozen=True)
class Asset:
    """One file. kind: its Content-Type. tag: its ETag."""

    body: bytes
    kind: str
    tag: str

    @property
    def headers(self) -> dict[str, str]:
        """Beside Content-Type. The length is that of the whole, also for HEAD and 304 (RFC 9110, 8.6)."""
        return {**HEADERS, "etag": self.tag, "content-length": str(len(self.body))}

    def answer(self, if_none_match: str) -> tuple[int, bytes]:
        """Status and body for a GET: 304 for who has this very file. if_none_match: the header, "" for none."""
        known = self.tag in (tag.strip().removeprefix("W/") for tag in if_none_match.split(","))
        return (304, b"") if known else (200, self.body)


@lru_cache(maxsize=1)
def _assets() -> dict[str, Asset]:
    """All files by path, 4 MB; read once, so that no path of a request ever becomes one of the disk."""
    found = {}
    for file in sorted(FOLDER.rglob("*")):
        if file.suffix in _KINDS and file.is_file():
            body = file.read_bytes()
            tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
            name = file.relative_to(FOLDER).as_posix()
            found[INDEX if name == "index.html" else BELOW + name] = Asset(body, _KINDS[file.suffix], tag)
    return found


def find(path: str) -> Asset | None:
    """The file for the path of a request, or None."""
    return _assets().get(path)
