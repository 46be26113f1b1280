"""What a private engine leaves on the machine, and how all of it goes again.

Everything carries the engine's tag: the work folder /tmp/kit-engine-TAG, the
network namespace and its link kite-TAG, the iptables rules (in a comment), the
control groups. So it can be found and removed without knowing what a run had
come to before it failed, even by a later run.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PREFIX = "kit-engine-"
LINK = "kite-"  # a link's name has at most 15 characters
# Made by an engine outside every folder that it can be given.
STRAYS = ("/etc/docker/key.json", "/etc/docker", "/run/docker/plugins", "/run/docker", "/run/containerd/s", "/run/containerd")
FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
STOP_SECONDS = 20.0  # from SIGTERM to SIGKILL of the engine


def work_folder(tag: str) -> Path:
    return Path(tempfile.gettempdir()) / f"{PREFIX}{tag}"


def namespace(tag: str) -> str:
    return f"{LINK}{tag}"


def network_of(tag: str) -> Path:
    """The namespace as a file, for nsenter and setns."""
    return Path("/run/netns") / namespace(tag)


# --- making


def claim() -> str:
    """A new tag, with its work folder that names this process as the owner."""
    tag = secrets.token_hex(3)
    folder = Path(tempfile.mkdtemp(prefix="kit-claim-"))
    (folder / "owner").write_text(process_id(os.getpid()))
    folder.chmod(0o755)
    with _alone():
        (folder / "ip_forward").write_text(FORWARD.read_text())
        (folder / "strays").write_text("\n".join(path for path in STRAYS if not Path(path).exists()))
        folder.rename(work_folder(tag))  # never seen without its owner
    return tag


def make_network(tag: str, *, outside: bool = True) -> int:
    """A network namespace with a way out through this machine, or with loopback alone; returns the MTU."""
    name, mtu = namespace(tag), _mtu_to_outside()
    _run("ip", "netns", "add", name)
    _run("ip", "-n", name, "link", "set", "lo", "up")
    if outside:
        _connect(tag, name, mtu)
    return mtu


def _connect(tag: str, name: str, mtu: int) -> None:
    _run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
    with _alone():  # or two engines that start at once take the same
        net = _free_net()
        _run("ip", "addr", "add", f"{net}.1/24", "dev", name)
    _run("ip", "link", "set", name, "mtu", str(mtu), "up")
    _run("ip", "-n", name, "addr", "add", f"{net}.2/24", "dev", "eth0")
    _run("ip", "-n", name, "link", "set", "eth0", "mtu", str(mtu), "up")
    _run("ip", "-n", name, "route", "add", "default", "via", f"{net}.1")
    mark = ("-m", "comment", "--comment", f"{PREFIX}{tag}")
    _iptables("-t", "nat", "-A", "POSTROUTING", "-s", f"{net}.0/24", "!", "-o", name, *mark, "-j", "MASQUERADE")
    _iptables("-I", "FORWARD", "-i", name, *mark, "-j", "ACCEPT")
    _iptables("-I", "FORWARD", "-o", name, *mark, "-j", "ACCEPT")
    FORWARD.write_text("1")


def _free_net() -> str:
    """The first three bytes of a /24 that no link of this machine uses."""
    taken = _run("ip", "-4", "-o", "addr") + _run("ip", "-4", "route")
    return next(net for n in range(1, 255) if f"{(net := f'10.98.{n}')}." not in taken)


def mount_small(folder: Path, mebibytes: int) -> None:
    """A file system of that size below a work folder; goes with it."""
    folder.mkdir()
    _run("mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(folder))


def _mtu_to_outside() -> int:
    """A packet larger than the machine's own link takes would be lost without a trace."""
    words = _run("ip", "-4", "route", "show", "default").split()
    device = words[words.index("dev") + 1] if "dev" in words else "lo"
    return min(int(Path(f"/sys/class/net/{device}/mtu").read_text()), 1400)


# --- removing


def remove(tag: str) -> None:
    """Remove everything that carries `tag`; what is not there is no error."""
    work = work_folder(tag)
    _stop_processes(tag)
    _quiet("ip", "netns", "delete", namespace(tag))
    _quiet("ip", "link", "delete", namespace(tag))
    for table in ("nat", "filter"):
        for rule in _rules(tag, table):
            _quiet("iptables", "-w", "-t", table, "-D", *rule[1:])
    for mount in sorted(_mounts(tag), reverse=True):
        _quiet("umount", "--lazy", mount)
    for group in sorted(_groups(tag), reverse=True):  # children before parents
        with contextlib.suppress(OSError):
            group.rmdir()
    with _alone():
        _restore_machine(tag)
    _quiet("rm", "-rf", str(work))  # images are 100,000 files: several times faster than shutil.rmtree


def remove_orphans() -> list[str]:
    """Remove the engines whose process has ended without doing it (SIGKILL, power); their tags."""
    orphans = [tag for tag in _tags() if not _owner_lives(tag)]
    for tag in orphans:
        remove(tag)
    return orphans


def leftovers(tag: str = "") -> list[str]:
    """What engines of this harness have on the machine now, in words; of all of them without a tag."""
    mark = f"{PREFIX}{tag}"
    found = [f"process {pid}: {command[:80]}" for pid, command in _processes(str(work_folder(tag)))]
    found += [f"namespace {n.name}" for n in Path("/run/netns").glob(f"{LINK}{tag}*")]
    found += [f"link {n.name}" for n in Path("/sys/class/net").glob(f"{LINK}{tag}*")]
    found += [f"iptables rule {' '.join(rule)}" for table in ("nat", "filter") for rule in _rules(tag, table)]
    found += [f"mount {mount}" for mount in _mounts(tag)]
    found += [f"control group {group}" for group in _groups(tag)]
    found += [f"folder {folder}" for folder in Path(tempfile.gettempdir()).glob(f"{mark}*")]
    return found


def _stop_processes(tag: str) -> None:
    """The engine first; its containers are killed meanwhile, because it would give each ten seconds to end."""
    work = work_folder(tag)
    with contextlib.suppress(OSError, ValueError):
        engine = int((work / "docker.pid").read_text())
        os.kill(engine, signal.SIGTERM)
        until = time.monotonic() + STOP_SECONDS
        while _runs(engine) and time.monotonic() < until:
            _kill_containers(tag)
            time.sleep(0.05)
    for attempt in (signal.SIGTERM, signal.SIGKILL):
        for pid, _ in _processes(str(work)):
            _stop(pid, attempt, 3.0)
    _kill_containers(tag)  # they outlive an engine and shims that were killed


def _kill_containers(tag: str) -> None:
    for group in _groups(tag):
        with contextlib.suppress(OSError):
            for pid in (group / "cgroup.procs").read_text().split():
                _stop(int(pid), signal.SIGKILL, 0.5)


def _stop(pid: int, number: signal.Signals, seconds: float) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
        until = time.monotonic() + seconds
        while time.monotonic() < until and _runs(pid):
            time.sleep(0.05)


def _runs(pid: int) -> bool:
    """False for a zombie too: its parent may be a program that reaps late."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _processes(work: str) -> list[tuple[int, str]]:
    """The engine, containerd and its shims name the work folder; a container's own processes hang on a shim."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            program = command.split(" ", 1)[0].rpartition("/")[2]
            if work in command and program in ("dockerd", "containerd", "containerd-shim-runc-v2", "docker-proxy", "nsenter"):
                found.append((int(entry.name), command))
    return found


def _rules(tag: str, table: str) -> list[list[str]]:
    lines = _quiet("iptables", "-w", "-t", table, "-S").splitlines()
    return [line.replace('"', "").split() for line in lines if f"{PREFIX}{tag}" in line]


def _mounts(tag: str) -> list[str]:
    points = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    return [point for point in points if point.startswith(str(work_folder(tag)))]


def _groups(tag: str) -> list[Path]:
    """Parents before children. Controllers that share a hierarchy show it under several names; rmdir once is enough."""
    root = Path("/sys/fs/cgroup")
    tops = [*root.glob(f"{PREFIX}{tag}*"), *root.glob(f"*/{PREFIX}{tag}*")]
    return [Path(folder) for top in tops for folder, _, _ in os.walk(top)]


def _tags() -> list[str]:
    return [folder.name.removeprefix(PREFIX) for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*")]


def _owner_lives(tag: str) -> bool:
    """The owner wrote its pid and start time into the work folder, before anything else was made."""
    try:
        owner = (work_folder(tag) / "owner").read_text()
        return owner == process_id(int(owner.split()[0]))
    except (OSError, ValueError, IndexError):
        return False


def process_id(pid: int) -> str:
    """A pid with its start time, which no later process of the same pid has."""
    return f"{pid} {Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19]}"


# --- what belongs to the machine, not to one engine


def _restore_machine(tag: str) -> None:
    """Put the switch for forwarding back and remove STRAYS, or leave both to the engines that still run."""
    for name in ("ip_forward", "strays"):
        with contextlib.suppress(OSError):
            record = work_folder(tag) / name
            before = record.read_text()
            record.unlink()  # who has none can be handed nothing: its folder may take long to go
            others = [work_folder(other) / name for other in _tags()]
            if heirs := [other for other in others if other.exists()]:
                for heir in heirs:
                    _hand_over(heir, before)
            elif name == "ip_forward":
                FORWARD.write_text(before)
            else:
                _remove_strays(before.splitlines())


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One process at a time reads and restores the machine's own state."""
    folder = os.open(tempfile.gettempdir(), os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _hand_over(record: Path, before: str) -> None:
    """Another engine will restore what this one found: forwarding off, or more strays absent."""
    if record.name == "strays":
        before = "\n".join(path for path in STRAYS if path in before.splitlines() + record.read_text().splitlines())
    elif before.strip() != "0":
        return
    record.write_text(before)


def _remove_strays(paths: list[str]) -> None:
    for path in map(Path, paths):
        with contextlib.suppress(OSError):
            path.rmdir() if path.is_dir() else path.unlink()


# --- commands


def _iptables(*words: str) -> None:
    _run("iptables", "-w", *words)


def _run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout


def _quiet(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout
