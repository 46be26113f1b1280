"""The packages that a bundle carries in .kit/wheels: for whom they are, and whether they are whole.

Standard library only: envs.py runs this before anything is installed.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from kit.errors import ExitCode, KitError

FOLDER = Path(".kit") / "wheels"  # below the project's root
LIST = "wheels.json"
# The oldest C library that the wheels may need: Debian 10, RHEL 8, Ubuntu 20.04. Newer pillow has no wheel for an older one.
GLIBC = (2, 28)


@dataclass(frozen=True)
class Wheels:
    """What wheels.json says.

    pythons: versions of CPython, such as "3.12". machine: as `uname -m` has it. requirements: SHA-256 of the
    requirements.txt that they serve. files: SHA-256 by file name.
    """

    pythons: tuple[str, ...]
    machine: str
    requirements: str
    files: dict[str, str]


@dataclass(frozen=True)
class Host:
    """What decides which wheels fit. python: "3.12", or with what makes it another one: "3.13t", "PyPy 3.10"."""

    python: str
    machine: str
    libc: str
    libc_version: str


def carried(root: Path) -> Path | None:
    """The folder of wheels that a bundle brought; None in a clone."""
    folder = root / FOLDER
    return folder if folder.is_dir() else None


def require_index(root: Path, what: str, hint: str) -> None:
    """Raise KitError (ENVIRONMENT) where the kit came in a bundle, before `what` is looked for in a package index."""
    if folder := carried(root):
        raise KitError(
            f"{what} cannot be installed: this ./kit came in a bundle, which does not carry it",
            f"{hint}; where a package index is reached, remove {folder}",
            ExitCode.ENVIRONMENT,
        )


def digest_of(file: Path) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def write_list(folder: Path, wheels: Wheels) -> None:
    """Write wheels.json; the same wheels give the same bytes."""
    (folder / LIST).write_text(json.dumps(asdict(wheels), indent=1, sort_keys=True) + "\n")


def read(folder: Path) -> Wheels:
    """What `folder` holds. Raises KitError (ENVIRONMENT) unless wheels.json is there and every file has its hash."""
    try:
        raw = json.loads((folder / LIST).read_text())
        wheels = Wheels(tuple(raw["pythons"]), raw["machine"], raw["requirements"], dict(raw["files"]))
        # Names only: a path would lead out of the folder.
        faults = [name for name, digest in wheels.files.items() if digest_of(folder / Path(name).name) != digest]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        missing = Path(error.filename).name if isinstance(error, FileNotFoundError) else ""
        raise _damaged(folder, f"{missing} is missing" if missing else f"{LIST} or a wheel cannot be read") from error
    if faults:
        raise _damaged(folder, f"{faults[0]} is not what was exported")
    return wheels


def pip_of(folder: Path) -> Path:
    """pip's own wheel, which runs without being installed: `python pip-26.3-py3-none-any.whl/pip`."""
    found = sorted(folder.glob("pip-*.whl"))
    if not found:
        raise _damaged(folder, "pip's wheel is missing")
    return found[-1]


def this_host() -> Host:
    """This Python on this machine."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}{sys.abiflags}"
    name = platform.python_implementation()
    libc, libc_version = platform.libc_ver()
    return Host(version if name == "CPython" else f"{name} {version}", platform.machine(), libc, libc_version)


def require_fit(wheels: Wheels, host: Host, requirements: Path) -> None:
    """Raise KitError (ENVIRONMENT) with the way out unless these wheels serve `requirements` on `host`."""
    if host.machine != wheels.machine:
        raise KitError(
            f"this machine is {host.machine}, and the bundle's ./kit carries packages for {wheels.machine}",
            "take a bundle of this machine's platform: its images would not run here either",
            ExitCode.ENVIRONMENT,
        )
    if host.libc != "glibc" or _numbers(host.libc_version) < GLIBC:
        here = f"{host.libc} {host.libc_version}".strip() or "another C library"
        raise KitError(
            f"this system has {here}, and the bundle's packages need glibc {GLIBC[0]}.{GLIBC[1]} or newer",
            "Debian 10, Ubuntu 20.04, RHEL 8 and newer have it; the bundle's README.txt loads the images without ./kit",
            ExitCode.ENVIRONMENT,
        )
    if host.python not in wheels.pythons:
        raise KitError(
            f"{sys.executable} is Python {host.python}, and the bundle carries packages for {', '.join(wheels.pythons)}",
            f"name another one: KIT_PYTHON=python{wheels.pythons[-1]} ./kit …",
            ExitCode.ENVIRONMENT,
        )
    if digest_of(requirements) != wheels.requirements:
        raise KitError(
            f"{requirements} is not the one that the bundle's packages were made for",
            "unpack kit.tar.gz into an empty folder: two versions of ./kit lie in this one",
            ExitCode.ENVIRONMENT,
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _damaged(folder: Path, what: str) -> KitError:
    return KitError(
        f"the packages in {folder} are damaged: {what}",
        "unpack the bundle's kit.tar.gz again, into an empty folder (sha256sum -c SHA256SUMS tells whether it is whole)",
        ExitCode.ENVIRONMENT,
    )
