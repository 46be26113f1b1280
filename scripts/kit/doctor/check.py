"""One check: what was found, what is needed and why, how to mend it."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARNING, FAILED, NEUTRAL = "ok", "warning", "failed", "neutral"
MARKS = {OK: "✔", WARNING: "!", FAILED: "✖", NEUTRAL: "–"}

# What cannot run while a check has failed.
NOTHING, GPU_STACK, PREVIEW, EVERYTHING = "", "gpu", "preview", "all"

GB, GIB, MIB = 10**9, 2**30, 2**20


@dataclass(frozen=True)
class Check:
    """name: stable, for programs. title: for people. status: OK, WARNING (works, but look), FAILED or NEUTRAL (does not apply).

    needed: what should be found; why: the reason, with its source. hint: how to mend it; "" where nothing is to be mended.
    blocks: what cannot run for it: GPU_STACK, PREVIEW or EVERYTHING; NOTHING unless the status is FAILED.
    """

    name: str
    title: str
    status: str
    found: str
    needed: str
    why: str
    hint: str = ""
    blocks: str = NOTHING


@dataclass(frozen=True)
class Subject:
    """What a check is about; each method gives the Check of one outcome."""

    name: str
    title: str
    needed: str
    why: str

    def ok(self, found: str, hint: str = "") -> Check:
        return Check(self.name, self.title, OK, found, self.needed, self.why, hint)

    def neutral(self, found: str, hint: str = "") -> Check:
        return Check(self.name, self.title, NEUTRAL, found, self.needed, self.why, hint)

    def warning(self, found: str, hint: str) -> Check:
        return Check(self.name, self.title, WARNING, found, self.needed, self.why, hint)

    def failed(self, found: str, hint: str, blocks: str = NOTHING) -> Check:
        return Check(self.name, self.title, FAILED, found, self.needed, self.why, hint, blocks)


def gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"


def gb(size: float) -> str:
    return f"{size / GB:.1f} GB"


def dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: "28.5.2+dfsg1" → (28, 5, 2); () where there are none."""
    parts: list[int] = []
    for part in version.lstrip("v").split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        parts.append(int(digits))
        if digits != part:
            break
    return tuple(parts)
