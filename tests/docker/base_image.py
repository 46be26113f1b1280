"""A base image like python:3.x-slim, made from this machine's own files: no registry, no download, two seconds.

It holds the running Python with pip, busybox as the shell and its tools, bash
and curl where the machine has them, the CA certificates, and the user that the
official images have: paddleocr, uid 1000, in /home/paddleocr.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path

from engine import Engine

NAME = "kit-test-base:python"
USER = ("paddleocr", 1000)
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"

# Of the standard library, what a server never imports.
UNUSED = {"__pycache__", "config-*", "ensurepip", "idlelib", "lib2to3", "site-packages", "dist-packages", "test", "tests",
          "tkinter", "turtledemo", "_tkinter*"}  # fmt: skip
PROGRAMS = ("bash", "curl")
# Opened by name at run time, so ldd does not show them: name resolution, what compiled wheels count on, and the
# last two for OpenCV, which images/api.Dockerfile gets by apt-get where they are missing.
LIBRARIES = ("libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2", "libpthread.so.0", "libdl.so.2", "libutil.so.1",
             "librt.so.1", "libm.so.6", "libgcc_s.so.1", "libstdc++.so.6", "libGL.so.1", "libgthread-2.0.so.0")  # fmt: skip
# An installed package ca-certificates overwrites its own file, so the machine's lie beside it.
CERTIFICATES = "/etc/ssl/host-ca.crt"
CERTIFICATE_SOURCES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/cert.pem")
# Where a build finds packages on a machine with an index of its own.
INDEX_VARIABLES = ("PIP_INDEX_URL", "PIP_TRUSTED_HOST", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


def make_base_image(engine: Engine, name: str = NAME) -> str:
    """Import the image into `engine`, once, so that what is built on it can be re-used; its name."""
    if engine.docker("images", "--quiet", name):
        return name
    with tempfile.TemporaryDirectory(prefix="kit-base-") as folder:
        root = Path(folder)
        _make_root(root)
        archive = engine.work / "base.tar"
        with tarfile.open(archive, "w") as tar:
            tar.add(root, arcname=".", filter=_owned)
    changes = [word for line in (*_environment(), f'CMD ["python{VERSION}"]') for word in ("--change", line)]
    engine.docker("import", *changes, str(archive), name)
    archive.unlink()
    return name


def make_tiny_image(engine: Engine, name: str = "kit-test-tiny:busybox") -> str:
    """Import an image of busybox alone, for tests in which nothing but a process is needed; its name."""
    archive = engine.work / "tiny.tar"
    with tarfile.open(archive, "w") as tar:
        for applet in ("sh", "sleep", "true"):
            tar.add(shutil.which("busybox") or "busybox", arcname=f"bin/{applet}")
    engine.docker("import", str(archive), name)
    archive.unlink()
    return name


def _make_root(root: Path) -> None:
    for folder in ("bin", "etc/ssl", "home/paddleocr", "lib64", "proc", "root", "run", "sys", "dev", "tmp", "usr/bin",
                   "usr/local/bin", "usr/local/lib", "var/tmp"):  # fmt: skip
        (root / folder).mkdir(parents=True)
    for folder in ("tmp", "var/tmp"):
        (root / folder).chmod(0o1777)
    binaries = [*_copy_python(root), *_copy_programs(root)]
    _copy_libraries(root, binaries)
    _copy_pip(root)
    _copy_certificates(root)
    _write_accounts(root)


def _copy_python(root: Path) -> list[Path]:
    """The interpreter below /usr/local, as in the official Python images; its compiled files."""
    base = Path(sys.base_prefix)
    library = Path(os.__file__).parent
    shutil.copytree(library, root / f"usr/local/lib/python{VERSION}", symlinks=True, ignore=shutil.ignore_patterns(*UNUSED))
    (root / f"usr/local/lib/python{VERSION}/site-packages").mkdir()
    interpreter = next(path for path in (base / "bin").glob(f"python{VERSION}") if path.exists()).resolve()
    shutil.copy2(interpreter, root / f"usr/local/bin/python{VERSION}")
    for name in ("python", "python3"):
        (root / "usr/local/bin" / name).symlink_to(f"python{VERSION}")
    return [interpreter, *(path for path in library.glob("lib-dynload/*.so") if not path.name.startswith("_tkinter"))]


def _copy_programs(root: Path) -> list[Path]:
    busybox = shutil.which("busybox") or "busybox"
    shutil.copy2(busybox, root / "bin/busybox")
    for applet in subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    found = [Path(path).resolve() for path in map(shutil.which, PROGRAMS) if path]
    for path in found:
        shutil.copy2(path, root / "usr/bin" / path.name)
    return found


def _copy_libraries(root: Path, binaries: Iterable[Path]) -> None:
    """Every library to the path under which its loader knows it."""
    cache = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True).stdout
    entries = [line.strip().split(" => ") for line in cache.splitlines() if " => " in line and "x32" not in line]
    wanted = {path for name, path in entries if name.split()[0] in LIBRARIES}
    for binary in (*binaries, *map(Path, sorted(wanted))):
        wanted |= set(_linked(binary))
    for path in map(Path, sorted(wanted)):
        # Python's own library lies in its prefix, which the image has at /usr/local.
        inside = Path("usr/local/lib") / path.name if path.is_relative_to(Path(sys.base_prefix, "lib")) and _private() else path
        target = root / str(inside).lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            shutil.copyfile(path.resolve(), target)
            target.chmod(0o755)


def _private() -> bool:
    """True for a Python in a prefix of its own, such as pyenv's; False for the system's."""
    return sys.base_prefix != "/usr"


def _linked(binary: Path) -> list[str]:
    """Libraries that the dynamic loader would open for this file, and the loader itself."""
    lines = subprocess.run(["ldd", str(binary)], capture_output=True, text=True).stdout.splitlines()
    words = [line.partition("=>")[2].split() or line.split() for line in lines]
    return [line[0] for line in words if line and line[0].startswith("/")]


def _copy_pip(root: Path) -> None:
    pip = importlib.util.find_spec("pip")
    if not pip or not pip.submodule_search_locations:
        raise RuntimeError(f"{sys.executable} has no pip to put into the base image")
    site = root / f"usr/local/lib/python{VERSION}/site-packages"
    shutil.copytree(pip.submodule_search_locations[0], site / "pip", ignore=shutil.ignore_patterns("__pycache__"))
    script = root / "usr/local/bin/pip"
    script.write_text('#!/bin/sh\nexec python -m pip "$@"\n')
    script.chmod(0o755)


def _copy_certificates(root: Path) -> None:
    source = next((path for path in map(Path, CERTIFICATE_SOURCES) if path.exists()), None)
    if source:
        shutil.copyfile(source, root / CERTIFICATES.lstrip("/"))


def _write_accounts(root: Path) -> None:
    name, uid = USER
    (root / "etc/passwd").write_text(f"root:x:0:0:root:/root:/bin/sh\n{name}:x:{uid}:{uid}:{name}:/home/{name}:/bin/sh\n")
    (root / "etc/group").write_text(f"root:x:0:\n{name}:x:{uid}:\n")
    (root / "etc/nsswitch.conf").write_text("hosts: files dns\n")


def _environment() -> list[str]:
    variables = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LD_LIBRARY_PATH": "/usr/local/lib",
        "LANG": "C.UTF-8",
        **{name: CERTIFICATES for name in ("SSL_CERT_FILE", "PIP_CERT", "CURL_CA_BUNDLE")},
        **{name: value for name in INDEX_VARIABLES if (value := os.environ.get(name))},
    }
    return [f"ENV {name}={value}" for name, value in variables.items()]


def _owned(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Everything is root's but the user's home."""
    uid = USER[1] if entry.name.startswith("./home/") else 0
    entry.uid = entry.gid = uid
    entry.uname = entry.gname = ""
    return entry
