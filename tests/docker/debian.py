"""The programs of a Docker engine from Debian's archive, unpacked into a cache folder and never installed.

Installing docker.io would start a second engine for the whole machine; unpacked,
its programs are just files. Only install_packages() calls apt-get.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".kit" / "test-engines"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

# Installed on the machine: what dockerd calls or links to, and what the base image takes from it.
PACKAGES = ("iptables", "iproute2", "util-linux", "libdevmapper1.02.1", "libseccomp2", "ca-certificates", "curl",
            "busybox-static", "libgl1", "libglib2.0-0")  # fmt: skip
PROGRAMS = ("iptables", "ip", "nsenter", "curl", "busybox")


class EngineUnavailable(Exception):
    """No private Docker engine can be had here; the text says why and, where there is one, the way out."""


@dataclass(frozen=True)
class Flavour:
    """One engine version. suite: of Debian; None is the release that the machine runs."""

    name: str
    suite: str | None
    packages: tuple[str, ...]
    # runc and tini of newer suites need a newer libc than the machine may have, so they are always its own.
    own_packages: tuple[str, ...] = ("runc", "tini")

    @property
    def folder(self) -> Path:
        return CACHE / self.name


FLAVOURS = {
    "debian": Flavour("debian", None, ("docker.io", "containerd")),  # 20.10 on Debian 12
    "current": Flavour("current", "trixie", ("docker.io", "docker-cli", "containerd")),  # 26.1
}


def require_machine() -> None:
    """Raise EngineUnavailable unless this is a Debian-like Linux and we are root."""
    if os.geteuid():
        raise EngineUnavailable("a private Docker engine needs root")
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise EngineUnavailable("a private Docker engine is made from Debian packages, and there is no apt-get here")


def require(flavour: Flavour) -> None:
    """Raise EngineUnavailable unless everything that `flavour` needs is in place."""
    require_machine()
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    if not (flavour.folder / "complete").exists():
        missing.append(f"the engine {flavour.name}")
    if missing:
        raise EngineUnavailable(f"missing: {', '.join(missing)}; python tests/docker/engine.py install gets it")


def install_packages() -> None:
    """Install PACKAGES by apt-get and unpack every flavour. Raises EngineUnavailable."""
    require_machine()
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    _run("apt-get", "update", "-qq")
    _run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES, env=quiet)
    for flavour in FLAVOURS.values():
        unpack(flavour)


def unpack(flavour: Flavour) -> None:
    """Download the packages of `flavour` and unpack them into its folder, once."""
    done = flavour.folder / "complete"
    if done.exists():
        return
    shutil.rmtree(flavour.folder, ignore_errors=True)
    debs, tree = flavour.folder / "debs", flavour.folder / "tree"
    debs.mkdir(parents=True)
    options = _other_suite(flavour.suite, flavour.folder / "apt") if flavour.suite else []
    _run("apt-get", *options, "download", "-qq", *flavour.packages, cwd=debs)
    _run("apt-get", "download", "-qq", *flavour.own_packages, cwd=debs)
    for deb in sorted(debs.glob("*.deb")):
        _run("dpkg-deb", "--extract", str(deb), str(tree))
    for folder in (debs, flavour.folder / "apt"):
        shutil.rmtree(folder, ignore_errors=True)
    done.touch()


def _other_suite(suite: str, folder: Path) -> list[str]:
    """apt-get's options for another suite of the same mirror; nothing in /etc is touched."""
    if not KEYRING.exists():
        raise EngineUnavailable(f"{KEYRING} is missing: is this Debian? (apt-get install debian-archive-keyring)")
    for part in ("lists/partial", "cache/archives/partial"):
        (folder / part).mkdir(parents=True)
    source = folder / "suite.list"
    source.write_text(f"deb [signed-by={KEYRING}] {_mirror()} {suite} main\n")
    options = {
        "Dir::Etc::sourcelist": source,
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": folder / "lists",
        "Dir::Cache": folder / "cache",
        "Acquire::Languages": "none",
        "APT::Sandbox::User": "root",
    }
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    _run("apt-get", *words, "update", "-qq")
    return words


def _mirror() -> str:
    """The address from which this machine gets Debian itself."""
    lines = _run(
        "apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(ORIGIN) $(LABEL)", "Created-By: Packages"
    ).splitlines()
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    for line in lines:
        uri, codename, *rest = line.split()
        if rest == ["Debian", "Debian"] and codename == release.get("VERSION_CODENAME"):
            return uri
    raise EngineUnavailable("apt-get on this machine knows no Debian mirror")


def _run(*argv: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise EngineUnavailable(f"{' '.join(argv[:2])} failed: {last}")
    return done.stdout
