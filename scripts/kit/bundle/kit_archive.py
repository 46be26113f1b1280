"""kit.tar.gz: the repository, the configuration in force, and the wheels that ./kit installs itself from."""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import shutil
import stat
import subprocess
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from dotenv import dotenv_values

from kit import wheels
from kit.bundle import wanted, wheel_set
from kit.bundle.export import JOURNAL
from kit.bundle.manifest import IMAGES, KIT
from kit.bundle.parts import part_name
from kit.bundle.wheel_set import PYTHONS, WITHOUT
from kit.catalog.settings import ENV_FILE, Settings
from kit.errors import ExitCode, KitError
from kit.stack.files import OVERRIDES, SEPARATOR

TOP = "paddleocr-vl-kit"
# In force although git ignores them, or does not know them.
CONFIGURATION = (ENV_FILE, f"{ENV_FILE}.gpu*", "*.local.yaml", *OVERRIDES)
SECRET_FILES = ("GATEWAY_API_KEYS_FILE", "GATEWAY_TLS_KEY")
VERSION = ".kit/version"  # read by wanted.kit_version
CHUNK = 2**20
EPOCH = 1577836800  # 2020-01-01, in seconds

Report = Callable[[str], None]


def write(root: Path, target: Path, settings: Settings, arch: str, report: Report, *, pythons: Sequence[str] = PYTHONS) -> None:
    """Write the archive `target`, aside first; the same files give the same bytes.

    arch: of the target host, as Docker or the kernel names it. report: called with a line of progress at a time.
    pythons: versions of CPython that the target may have.
    Raises KitError (ENVIRONMENT) when packages cannot be had, a file cannot be read, or the disk is full; then `target`
    is as it was.
    """
    machine = wheel_set.machine_of(arch)
    partial = target.with_name(f".{target.name}.partial")
    scratch = target.with_name(".wheels.partial")
    try:
        files = collect(root, target.parent, settings, report)
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        folder = wheel_set.gather(root, scratch, machine, pythons, report)
        for name in (*wheels.read(folder).files, wheels.LIST):
            files[str(wheels.FOLDER / name)] = folder / name
        files[VERSION] = scratch / "version"
        files[VERSION].write_text(wanted.kit_version(root) + "\n")
        _pack(files, partial)
        partial.replace(target)
        report(f"{target.name}: {len(files)} files, {target.stat().st_size / 2**20:.0f} MiB")
    except OSError as error:
        raise _failure(error, target) from error
    finally:
        partial.unlink(missing_ok=True)
        shutil.rmtree(scratch, ignore_errors=True)


def state(root: Path, bundle: Path, settings: Settings) -> str:
    """SHA-256, hex, of what the archive in the folder `bundle` is made of; the wheels come of that. Raises KitError as `write`."""
    seen = _Digest()
    try:
        seen.write(wanted.kit_version(root).encode())
        with tarfile.open(fileobj=seen, mode="w|", format=tarfile.GNU_FORMAT, encoding="utf-8") as tar:  # type: ignore
            for name, path in sorted(collect(root, bundle, settings, lambda line: None).items()):
                _add(tar, name, path)
    except OSError as error:
        raise _failure(error, bundle / KIT) from error
    return seen.hash.hexdigest()


class _Digest:
    """A file of which only the digest is kept."""

    def __init__(self) -> None:
        self.hash = hashlib.sha256()

    def write(self, data: bytes) -> None:
        self.hash.update(data)


def collect(root: Path, bundle: Path, settings: Settings, report: Report) -> dict[str, Path]:
    """What to carry: by path below the root, where it is read. bundle: the folder being written, which is left out."""
    known, others = _in_git(root)
    others = [name for name in others if not _left_out(root, name, bundle)]
    files = {name: root / name for name in (*known, *others) if _is_carried(root / name)}
    if known and (extra := [name for name in others if name in files]):
        size = sum((root / name).lstat().st_size for name in extra)
        shown = ", ".join(extra[:3]) + (", …" if len(extra) > 3 else "")
        report(f"kit.tar.gz also carries {len(extra)} files that git does not know ({size / 2**20:.1f} MiB): {shown}")
    for pattern in CONFIGURATION:
        files |= {file.name: file.resolve() for file in root.glob(pattern) if file.is_file()}
    for setting, name in _named(root, settings):
        path = os.path.normpath(root / name)
        inside = os.path.relpath(path, root)
        if Path(inside).parts[0] == "..":
            report(f"{setting} names {path}, outside of this folder: carry it by hand to the same place")
        elif Path(path).is_file():
            files[inside] = Path(path).resolve()
        else:
            report(f"{setting} names {inside}, which is not there")
    for setting in SECRET_FILES:
        if settings.given(setting):
            secret = settings.path(setting)
            files = {name: path for name, path in files.items() if path.resolve() != secret}
            report(f"{setting} names {settings[setting]}, which is a secret and stays here: carry it by hand")
    return files


def _named(root: Path, settings: Settings) -> Iterator[tuple[str, str]]:
    for setting in ("PIPELINE_CONFIG", "VLM_CONFIG"):
        yield setting, settings[setting]
    from_file = dotenv_values(root / ENV_FILE) if (root / ENV_FILE).exists() else {}
    separator = os.environ.get("COMPOSE_PATH_SEPARATOR") or from_file.get("COMPOSE_PATH_SEPARATOR") or SEPARATOR
    yield from (("COMPOSE_FILE", name) for name in settings["COMPOSE_FILE"].split(separator) if name)


def _in_git(root: Path) -> tuple[list[str], list[str]]:
    """What git tracks, and what it neither tracks nor ignores; outside of a checkout everything counts as the latter."""
    if (root / ".git").exists():
        # safe.directory: root exports from a clone that another user owns.
        argv = ["git", "-c", f"safe.directory={root}", "ls-files", "-z"]
        try:
            listed = [
                subprocess.run([*argv, *options], cwd=root, capture_output=True, check=True).stdout
                for options in (["--cached"], ["--others", "--exclude-standard"])
            ]
            known, others = ([os.fsdecode(name) for name in output.split(b"\0") if name] for output in listed)
            return known, others
        except (OSError, subprocess.CalledProcessError):
            pass  # no git here: as outside of a checkout
    return [], [os.path.relpath(file, root) for file in _walk(root)]


def _walk(folder: Path) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            if not _is_foreign(entry):
                yield from _walk(entry)
        else:
            yield entry


def _left_out(root: Path, name: str, bundle: Path) -> bool:
    path = root / name
    folders = [folder for folder in path.parents if folder.is_relative_to(root) and folder != root]
    return any(_is_foreign(folder) or folder.resolve() == bundle.resolve() for folder in folders)


def _is_foreign(folder: Path) -> bool:
    """Git's, the kit's own, caches (CACHEDIR.TAG is their common mark), virtual environments, bundles."""
    marks = ("CACHEDIR.TAG", "pyvenv.cfg", part_name(IMAGES, 0), JOURNAL)
    return folder.name in (".git", ".kit", "__pycache__") or any((folder / mark).exists() for mark in marks)


def _is_carried(path: Path) -> bool:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:  # tracked, and removed
        return False
    return stat.S_ISREG(mode) or stat.S_ISLNK(mode)


def _pack(files: dict[str, Path], target: Path) -> None:
    with target.open("wb") as raw:
        with (
            gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT, encoding="utf-8") as tar,
        ):
            for name in sorted(files):
                _add(tar, name, files[name])
        raw.flush()
        os.fsync(raw.fileno())


def _add(tar: tarfile.TarFile, name: str, path: Path) -> None:
    member = tarfile.TarInfo(f"{TOP}/{name}")
    found = path.lstat()
    member.mode = found.st_mode & 0o755  # what others may write here need not be theirs there
    if stat.S_ISLNK(found.st_mode):
        member.type, member.linkname, member.mtime = tarfile.SYMTYPE, os.readlink(path), EPOCH  # noqa: PTH115
        tar.addfile(member)
        return
    with path.open("rb") as file:
        checksum = 0
        while chunk := file.read(CHUNK):
            checksum = zlib.crc32(chunk, checksum)
            member.size += len(chunk)
        # A time made of the content: with one time for all, a newer kit unpacked over an older one would run
        # old bytecode wherever a file kept its length (Python compares time and length).
        member.mtime = EPOCH + checksum % 2**26
        file.seek(0)
        tar.addfile(member, file)


def _failure(error: OSError, target: Path) -> KitError:
    if error.errno == errno.ENOSPC:
        return KitError(f"no space left for {target}", f"free some space, or {WITHOUT}", ExitCode.ENVIRONMENT)
    hint = f"each file here must be readable, and {target.parent} writable; {WITHOUT}"
    return KitError(f"{error.filename or target}: {error.strerror or error}", hint, ExitCode.ENVIRONMENT)
