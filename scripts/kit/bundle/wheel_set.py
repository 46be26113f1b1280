"""The wheels that let ./kit install itself where no package index is."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from packaging.requirements import Requirement

from kit import envs, wheels
from kit.errors import ExitCode, KitError

PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
PIP = "pip==26.3"  # runs on every version in PYTHONS; Debian's python3 brings none
REQUIREMENTS = Path("scripts") / "kit" / "requirements.txt"  # below the project's root
# Docker's name, and the kernel's, of the platforms that the images come for → the name in a wheel.
MACHINES = {"amd64": "x86_64", "x86_64": "x86_64", "arm64": "aarch64", "aarch64": "aarch64"}
WITHOUT = "--no-kit leaves the kit out"
# A package without a fitting wheel is named by pip itself.
FAILURES = (envs.DISK_FULL, envs.UNREACHED, envs.FORBIDDEN)


def machine_of(arch: str) -> str:
    """As `uname -m` has it. Raises KitError (ENVIRONMENT) for a platform that no wheels are taken for."""
    try:
        return MACHINES[arch]
    except KeyError:
        raise KitError(f"the kit cannot be carried to {arch}: amd64 or arm64", WITHOUT, ExitCode.ENVIRONMENT) from None


def pins_for(requirements: str, python: str, micro: int, machine: str) -> tuple[str, ...]:
    """The lines of a requirements file that hold for CPython `python`.`micro` on Linux; pip evaluates markers for itself only."""
    target = {
        "implementation_name": "cpython",
        "implementation_version": f"{python}.{micro}",
        "os_name": "posix",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": f"{python}.{micro}",
        "python_version": python,
        "sys_platform": "linux",
    }
    lines = (line.partition("#")[0].strip() for line in requirements.splitlines())
    parsed = [Requirement(line) for line in lines if line]
    return tuple(f"{pin.name}{pin.specifier}" for pin in parsed if pin.marker is None or pin.marker.evaluate(target))


def gather(root: Path, scratch: Path, machine: str, pythons: Sequence[str], report: Callable[[str], None]) -> Path:
    """The folder where the wheels and their wheels.json lie.

    That is `scratch`, an empty folder, filled from the package index as pip is configured on this host; or the wheels
    that this very kit came with, where they fit: a bundle can be exported anew on a host without network.
    Raises KitError (ENVIRONMENT) when they cannot be had.
    """
    requirements = root / REQUIREMENTS
    digest = wheels.digest_of(requirements)
    if carried := wheels.carried(root):
        has = wheels.read(carried)
        if has.machine == machine and has.requirements == digest and set(pythons) <= set(has.pythons):
            report(f"packages for Python {', '.join(has.pythons)}: as this kit brought them")
            return carried
    log = root / ".kit" / "export-packages.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("w") as record:
        for number, python in enumerate(pythons, 1):
            report(f"packages for Python {python} ({number} of {len(pythons)})")
            # Should a pin ever depend on a patch release, both ends of the line are carried.
            for pins in dict.fromkeys(pins_for(requirements.read_text(), python, micro, machine) for micro in (0, 99)):
                argv = [*_pip(carried), "download", *_target(python, machine), "--dest", str(scratch), PIP, *pins]
                try:
                    envs.run_logged(
                        argv, record, lambda line: None, what=f"fetching the packages for Python {python}", failures=FAILURES
                    )
                except KitError as error:
                    raise KitError(error.message, f"{error.hint}; {WITHOUT}", error.code) from error
    files = {file.name: wheels.digest_of(file) for file in sorted(scratch.glob("*.whl"))}
    wheels.write_list(scratch, wheels.Wheels(tuple(pythons), machine, digest, files))
    return scratch


def _target(python: str, machine: str) -> list[str]:
    # Each glibc from the newest that may be needed downwards: pip derives no older manylinux_2_x from a newer one.
    platforms = [*(f"manylinux_2_{minor}_{machine}" for minor in range(wheels.GLIBC[1], 4, -1)), f"manylinux2014_{machine}"]
    abis = (f"cp{python.replace('.', '')}", "abi3", "none")
    return [
        *("--no-deps", "--only-binary", ":all:", "--no-input", "--disable-pip-version-check", "--progress-bar", "off"),
        *("--python-version", python, "--implementation", "cp"),
        *(word for abi in abis for word in ("--abi", abi)),
        *(word for platform in platforms for word in ("--platform", platform)),
    ]


def _pip(carried: Path | None) -> list[str]:
    """pip of this environment, or the one that came with it in a bundle."""
    if importlib.util.find_spec("pip") is None and carried:
        return [sys.executable, str(wheels.pip_of(carried) / "pip")]
    return [sys.executable, "-m", "pip"]
