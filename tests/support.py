"""What the tests share: a clone to work in, ports, waiting, bad files."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import pytest
from kit.errors import ExitCode

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "samples"
API, VLM = "paddleocr-vl-api", "paddleocr-vlm-server"
FAULT = "fault"  # property of a test: the fault, what the client saw, seconds to the next good page


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Workspace:
    """A clone of the repository with its own state and ports; `kit` runs its ./kit."""

    path: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # What the developer has set for ./kit must not reach the tests.
        kept = {k: v for k, v in os.environ.items() if k not in ("API_BIND", "API_PORT", "PREVIEW_VLM_PORT", "PYTHONPATH")}
        ports = {"API_PORT": str(free_port()), "PREVIEW_VLM_PORT": str(free_port())}
        self.environment = kept | ports | self.environment

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.environment['API_PORT']}"

    def kit(self, *arguments: str | Path, timeout: float = 900, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run ./kit to its end."""
        return subprocess.run(
            [self.path / "kit", *arguments],
            env=self.environment | environment, cwd=self.path, capture_output=True, text=True,
            timeout=timeout, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start ./kit in the background, stdout and stderr in one pipe."""
        return subprocess.Popen(
            [self.path / "kit", *arguments],
            env=self.environment | environment, cwd=self.path, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=heed_ctrl_c,
        )  # fmt: skip

    def processes(self) -> list[str]:
        """Command lines of the services that were started from this clone."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    folder = str((entry / "cwd").readlink())
                except OSError:
                    continue
                if folder.startswith(str(self.path)) and ("paddlex" in command or "kit.preview" in command):
                    found.append(command)
        return found

    def listening(self) -> list[int]:
        """Which of this clone's ports somebody listens on."""
        ports = [int(self.environment[name]) for name in ("API_PORT", "PREVIEW_VLM_PORT")]
        taken = []
        for port in ports:
            with socket.socket() as probe:
                probe.settimeout(1)
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    taken.append(port)
        return taken


def make_workspace(path: Path) -> Workspace:
    """Copy what git would (tracked and new files) and link what is installed: .kit/venv and .kit/preview.

    Where the preview is not installed yet, the first `./kit up` in a workspace
    installs it through the link, as a newcomer's would.
    """
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=True
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, path / name)
    (path / ".kit").mkdir()
    for part in ("venv", "preview"):
        (ROOT / ".kit" / part).mkdir(parents=True, exist_ok=True)
        (path / ".kit" / part).symlink_to(ROOT / ".kit" / part)
    return Workspace(path)


@dataclass(frozen=True)
class Running:
    """A preview that serves. first: the `./kit up` that started it; seconds: how long that took."""

    workspace: Workspace
    url: str
    vlm_url: str
    first: subprocess.CompletedProcess[str]
    seconds: float


def check_error(done: subprocess.CompletedProcess[str], code: ExitCode, *parts: str) -> None:
    """One `error:` line, one `hint:` line, nothing on stdout, no traceback, the documented code."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert [line.split(":")[0] for line in lines][-2:] == ["error", "hint"], done.stderr
    assert "Traceback" not in done.stderr
    for part in parts:
        assert part in done.stderr


def skip(reason: str) -> NoReturn:
    """Leave a test out on a machine that cannot run it; CI can run all of them, and there it is a failure."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[None]:
    """A file system of that size at `folder`, which exists; unmounted afterwards."""
    if os.geteuid() != 0:
        skip("needs root: mounts a small file system")
    argv = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", folder]
    mounted = subprocess.run(argv, capture_output=True, text=True)
    if mounted.returncode:
        skip(f"needs to mount a small file system: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def wait_for(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Poll until `condition()` holds; fail with `what` after `seconds`.

    Asks for half of the time at most: what is waited for may need the processor.
    """
    end = time.monotonic() + seconds
    while True:
        asked = time.monotonic()
        if condition():
            return
        now = time.monotonic()
        assert now < end, f"waited {seconds} s for {what}"
        time.sleep(min(0.5, max(0.1, now - asked)))


def heed_ctrl_c() -> None:
    """A run in the background starts its children deaf to SIGINT; a user's terminal does not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def interrupt(process: subprocess.Popen[str]) -> None:
    """Ctrl-C, as a terminal sends it: to the whole process group."""
    os.killpg(process.pid, signal.SIGINT)


def make_encrypted_pdf(password: bytes) -> bytes:
    """The standard security handler, revision 2 (ISO 32000-1, 7.6.3): enough to need a password."""
    padding = bytes.fromhex("28BF4E5E4E758A4164004E56FFFA01082E2E00B6D0683E802F0CA9FE6453697A")
    identity = b"0123456789abcdef"
    padded = (password + padding)[:32]
    owner = _rc4(hashlib.md5(padded).digest()[:5], padded)
    permissions = struct.pack("<i", -4)
    key = hashlib.md5(padded + owner + permissions + identity).digest()[:5]
    user = _rc4(key, padding)
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 200] >>",
        b"<< /Filter /Standard /V 1 /R 2 /O <%s> /U <%s> /P -4 >>" % (owner.hex().encode(), user.hex().encode()),
    ]
    body, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    trailer = b"<< /Size 5 /Root 1 0 R /Encrypt 4 0 R /ID [<%s> <%s>] >>" % ((identity.hex().encode(),) * 2)
    return body + b"xref\n0 5\n0000000000 65535 f \n%strailer\n%s\nstartxref\n%d\n%%%%EOF\n" % (table, trailer, len(body))


def _rc4(key: bytes, data: bytes) -> bytes:
    state, j = list(range(256)), 0
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) % 256
        state[i], state[j] = state[j], state[i]
    out, i, j = bytearray(), 0, 0
    for byte in data:
        i = (i + 1) % 256
        j = (j + state[i]) % 256
        state[i], state[j] = state[j], state[i]
        out.append(byte ^ state[(state[i] + state[j]) % 256])
    return bytes(out)
