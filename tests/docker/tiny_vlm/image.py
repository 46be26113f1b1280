"""Builds the VLM test image: real PaddleX, real vLLM on a CPU, a tiny random model.

The packages (2 GB) are installed once, on this machine, into a folder that is
kept; a build then only takes them over. They come from where the caller's pip gets
packages: its configuration (files and PIP_* variables) is handed on to uv, which
takes a fraction of pip's time.

    python tests/docker/tiny_vlm/image.py [FOLDER]    install the packages
"""

from __future__ import annotations

import ast
import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine import Engine

HERE = Path(__file__).resolve().parent
DEFAULT_CACHE = HERE.parents[2] / ".kit" / "test-tiny-vlm"
REQUIREMENTS = HERE / "requirements.txt"
PYTHON = (3, 11)  # of requirements.txt
INSIDE = "usr/local/lib/python3.11/site-packages"
LIBRARY, LIBRARY_PACKAGE = "libnuma.so.1", "libnuma1"
UV = "uv==0.13.8"
NEEDS_BYTES = 7 * 2**30  # packages, and twice that while an image is built
INSTALL_SECONDS, BUILD_SECONDS = 900.0, 300.0
TORCH_HINT = "PyPI has no CPU build of torch: pip's configuration must name a place that has (find-links or extra-index-url)"
CONTEXT = ("Dockerfile", "bin", "make_tiny_model.py", "image_processing_tiny.py")

# pip's settings on where packages come from, and uv's options for the same.
PIP_TO_UV = {
    "index-url": "--default-index",
    "extra-index-url": "--index",
    "find-links": "--find-links",
    "trusted-host": "--allow-insecure-host",
}
# Parts of packages that only those who develop or compile with them need.
UNUSED = ("bin", "numba/tests", "pandas/tests", "torch/bin/protoc*", "torch/bin/test_*", "torch/include", "torch/test",
          "tvm_ffi/include")  # fmt: skip
# What a start imports. Importing it once leaves the compiled files, which a start otherwise makes and cannot keep.
WARM = ("paddleocr.__main__", "paddlex.inference.genai.server", "vllm.entrypoints.openai.api_server", "vllm.v1.engine.core",
        "vllm.v1.executor.multiproc_executor", "vllm.v1.worker.cpu_worker", "vllm.v1.worker.cpu_model_runner",
        "vllm.model_executor.models.paddleocr_vl", "torch._inductor.compile_fx")  # fmt: skip


class PackagesUnavailable(Exception):
    """The packages cannot be installed here; the text says why."""


def build_image(engine: Engine, base: str, name: str, cache: Path = DEFAULT_CACHE) -> None:
    """Build the image `name` on the image `base` in `engine`. Raises PackagesUnavailable."""
    whole = f"{name}-packages"
    _import_packages(engine, base, ensure_packages(cache), whole)
    with subprocess.Popen(["tar", "--create", "--directory", str(HERE), *CONTEXT], stdout=subprocess.PIPE) as context:
        words = ("build", "--quiet", "--build-arg", f"BASE_IMAGE={whole}", "--tag", name, "-")
        engine.docker(*words, stdin=context.stdout, env=engine.environment | {"DOCKER_BUILDKIT": "0"}, timeout=BUILD_SECONDS)


def _import_packages(engine: Engine, base: str, root: Path, name: str) -> None:
    """`base` and the packages as one image of one layer: the engine writes 2 GB once, and not three times as for a COPY."""
    container = engine.docker("create", base, "true").strip()
    with tempfile.TemporaryDirectory(prefix="kit-tiny-base-") as folder:
        archive = Path(folder) / "base.tar"
        engine.docker("export", "--output", str(archive), container)
        engine.docker("rm", container)
        subprocess.run(["tar", "--extract", "--file", str(archive), "--directory", folder], check=True)
        archive.unlink()
        variables = json.loads(engine.docker("image", "inspect", "--format", "{{json .Config.Env}}", base))
        changes = [word for variable in variables for word in ("--change", f"ENV {variable}")]
        # Not the folder itself, which the base has too: an import takes no path twice.
        packages = [f"./{path.relative_to(root)}" for path in ((root / INSIDE).parents[1] / LIBRARY, *(root / INSIDE).iterdir())]
        argv = ["tar", "--create", "--directory", folder, ".", "--directory", str(root), *packages]
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as tree:
            engine.docker("import", *changes, "-", name, stdin=tree.stdout, timeout=BUILD_SECONDS)


def ensure_packages(cache: Path = DEFAULT_CACHE) -> Path:
    """The folder with the packages below INSIDE, installed now unless an earlier run did. Raises PackagesUnavailable."""
    _require_machine()
    cache.mkdir(parents=True, exist_ok=True)
    root, stamp = cache / "root", cache / "stamp"
    with _locked(cache / "lock"):
        if not stamp.exists() or stamp.read_text() != _fingerprint():
            stamp.unlink(missing_ok=True)
            shutil.rmtree(root, ignore_errors=True)
            _require_disk(cache)
            _install(root / INSIDE, cache / "tools")
            stamp.write_text(_fingerprint())  # last: what was interrupted is never taken for whole
    return root


def _require_machine() -> None:
    if sys.version_info[:2] != PYTHON or platform.system() != "Linux" or platform.machine() != "x86_64":
        ours = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
        raise PackagesUnavailable(f"the packages are locked for Python {PYTHON[0]}.{PYTHON[1]} on Linux x86_64; this is {ours}")


def _require_disk(cache: Path) -> None:
    free = shutil.disk_usage(cache).free
    if free < NEEDS_BYTES:
        raise PackagesUnavailable(f"{cache}: vLLM and its image need {NEEDS_BYTES >> 30} GiB, {free >> 30} GiB are free")


def _fingerprint() -> str:
    files = (REQUIREMENTS, HERE / "vllm_meta" / "pyproject.toml")
    parts = [path.read_bytes() for path in files] + [repr((UNUSED, WARM, sys.version)).encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _install(packages: Path, tools: Path) -> None:
    _run([sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--upgrade", "--target", str(tools), UV])
    stub = tools / "vllm_meta"  # a copy, because a build leaves its folders beside the source
    shutil.copytree(HERE / "vllm_meta", stub, dirs_exist_ok=True)
    uv = [str(tools / "bin" / "uv"), "pip", "install", "--quiet", "--no-cache", "--no-deps", "--python", sys.executable]
    pip = _pip_settings()
    sources = [word for name, option in PIP_TO_UV.items() for value in pip.get(name, "").split() for word in (option, value)]
    # As pip does: of all places the best version, not the first place that has any.
    sources += ["--index-strategy", "unsafe-best-match"]
    trust = {"SSL_CERT_FILE": pip["cert"]} if "cert" in pip else {}
    wanted = ["--target", str(packages), "--requirement", str(REQUIREMENTS), str(stub)]
    _run([*uv, *sources, *wanted], env=os.environ | trust)
    _add_libraries(packages.parents[1], tools)
    for pattern in UNUSED:
        for path in packages.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    _compile(packages, tools)


def _add_libraries(folder: Path, tools: Path) -> None:
    """What vLLM's kernels link to beside a plain Python image's libraries: this machine's own, or Debian's package."""
    known = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True).stdout.splitlines()
    found = [line.rpartition("=> ")[2] for line in known if line.split()[:1] == [LIBRARY] and "x86-64" in line]
    if not found:
        debs = tools / "debs"
        debs.mkdir(exist_ok=True)
        _run(["apt-get", "download", "-qq", LIBRARY_PACKAGE], cwd=debs)
        _run(["dpkg-deb", "--extract", *map(str, debs.glob(f"{LIBRARY_PACKAGE}_*.deb")), str(debs)])
        found = [str(path) for path in debs.rglob(LIBRARY)]
    shutil.copyfile(found[0], folder / LIBRARY)


def _pip_settings() -> dict[str, str]:
    """The caller's pip configuration: its files, and the PIP_* variables."""
    lines = _run([sys.executable, "-m", "pip", "config", "list"]).splitlines()
    settings: dict[str, str] = {}
    for section in ("global.", "install.", ":env:."):  # each overrides the one before
        for line in lines:
            if line.startswith(section):
                name, _, value = line.removeprefix(section).partition("=")
                settings[name] = ast.literal_eval(value)
    return settings


def _compile(packages: Path, home: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment |= {"PYTHONPATH": str(packages), "HOME": str(home), "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    _run([sys.executable, "-c", f"import {', '.join(WARM)}"], env=environment)


def _run(argv: Sequence[str], *, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    options: dict[str, Any] = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL}
    done = subprocess.run(argv, cwd=cwd, env=env, timeout=INSTALL_SECONDS, **options)
    if done.returncode:
        why = done.stderr.strip()[-2000:]
        hint = f"\nhint: {TORCH_HINT}" if "torch==" in why else ""
        raise PackagesUnavailable(f"{' '.join([Path(argv[0]).name, *argv[1:3]])} failed:\n{why}{hint}")
    return done.stdout


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Two test runs at once: the second waits and then finds the packages there."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main(words: Sequence[str]) -> int:
    start = time.monotonic()
    try:
        folder = ensure_packages(Path(words[0]) if words else DEFAULT_CACHE)
    except PackagesUnavailable as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{folder} after {time.monotonic() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
