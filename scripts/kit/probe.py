"""One page through the whole service, and never a second one on top of it.

PaddleX parses one document at a time and keeps the others in a queue without an end; who
gives up waiting leaves his document in it (paddlex 3.7.2, basic_serving/_app.py). A monitor
that sends a page every minute to a service that is busy for an hour would add sixty. So:

- a file lock lets one probe go at a time; another one reports the last result and its age;
- a probe is written down before it is sent. While one has had no answer, no other is sent for
  a minute, then two, four … at most thirty: PaddleX gives up on a VLM after three calls
  of 600 s. An hour of silence so costs six small pages;
- a start of the API empties its queue, and probing goes on at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import httpx

from kit import api
from kit.errors import ExitCode, KitError
from kit.testpage import WORD, page

TIMEOUT = 60.0  # seconds for the page
FIRST_PAUSE, LONGEST_PAUSE = 60.0, 1800.0  # seconds without a probe after one, and after many, without an answer


@dataclass(frozen=True)
class Result:
    """What became of a page. at: seconds since the epoch when it was sent; seconds: until the answer.

    outcome: "read" (text came back), "empty" (an answer without any), "failed" (an error),
    "unanswered" (within the time given). word_read: whether WORD is in the text. message: of an error.
    """

    outcome: str
    at: float
    seconds: float
    word_read: bool = False
    message: str = ""
    hint: str = ""
    status: int = 0  # of HTTP; 0 where there was none


@dataclass(frozen=True)
class Probe:
    """result: of this probe, or of the last one that came to an end where this one was not sent. sent: whether it was.

    held: why not, in words. next_in: seconds until one may be sent, None while another is under way.
    """

    result: Result | None
    sent: bool
    held: str = ""
    next_in: float | None = None


def probe(folder: Path, url: str, *, started: float | None, timeout: float = TIMEOUT, now: float | None = None) -> Probe:
    """Send the page to the service at `url`, or hold back.

    folder: .kit/run, where the lock and the record lie. started: seconds since the epoch when
    the API was started, None where that is unknown.
    Raises KitError: UNREACHABLE when nothing answers there, ENVIRONMENT when the folder cannot be written.
    """
    now = time.time() if now is None else now
    folder.mkdir(parents=True, exist_ok=True)
    name = f"deep-{hashlib.sha256(url.encode()).hexdigest()[:12]}"
    record_file = folder / f"{name}.json"
    with _lock(folder / f"{name}.lock") as mine:
        record = _load(record_file)
        last = Result(**record["last"]) if record.get("last") else None
        if not mine:
            return Probe(last, False, "another deep probe is under way")
        unanswered, sent_at = record.get("unanswered", 0), record.get("sent_at", 0.0)
        if started is not None and started > sent_at:
            unanswered = 0
        wait = sent_at + pause(unanswered) - now
        if wait > 0:
            age = now - sent_at
            return Probe(last, False, f"the page that was sent {age:.0f} s ago has had no answer", wait)
        _save(record_file, {"unanswered": unanswered + 1, "sent_at": now, "last": record.get("last")})
        try:
            result = _send(url, timeout, now)
        except KitError:  # nothing took it: it waits in no queue
            _save(record_file, {"unanswered": unanswered, "sent_at": sent_at, "last": record.get("last")})
            raise
        still = unanswered + 1 if result.outcome == "unanswered" else 0
        _save(record_file, {"unanswered": still, "sent_at": now, "last": asdict(result)})
        return Probe(result, True)


def pause(unanswered: int) -> float:
    """Seconds from the last probe to the next, after so many without an answer."""
    return min(FIRST_PAUSE * 2 ** (min(unanswered, 16) - 1), LONGEST_PAUSE) if unanswered else 0.0


def text_of(result: dict[str, Any]) -> str:
    """What was read, of a reply's `result`: without tags and signs, which PaddleX writes also around nothing."""
    markdown = " ".join(str(page["markdown"]["text"]) for page in result["layoutParsingResults"])
    text = re.sub(r"<[^>]*>|!\[[^]]*]\([^)]*\)", " ", markdown)
    return " ".join(re.findall(r"\w+", text))


def _send(url: str, timeout: float, now: float) -> Result:
    start = time.monotonic()
    try:
        answer = api.layout_parsing(url, page(), 1, timeout=timeout)
    except api.ServiceError as error:
        seconds = time.monotonic() - start
        late = isinstance(error.__cause__, httpx.TimeoutException)
        outcome = "unanswered" if late else "empty" if isinstance(error, api.Unread) else "failed"
        return Result(outcome, now, seconds, False, error.message, error.hint, error.status)
    text = text_of(answer)
    return Result("read" if text else "empty", now, time.monotonic() - start, WORD in text.lower(), status=200)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[bool]:
    """True when the lock is ours; the kernel frees it with the process, however it ends."""
    try:
        file: IO[str] = path.open("w")
    except OSError as error:
        raise KitError(f"cannot write {path}: {error.strerror}", "own the folder .kit", ExitCode.ENVIRONMENT) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _load(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text())
        return record if isinstance(record, dict) else {}
    except (OSError, ValueError):
        return {}


def _save(path: Path, record: dict[str, Any]) -> None:
    aside = path.with_name(f".{path.name}.partial")
    aside.write_text(json.dumps(record))
    aside.replace(path)
