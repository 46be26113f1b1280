"""Renews the libraries that the viewer and its tests carry, from npm: scripts/vendor.py [--check].

The versions are pinned here; the files land in the folders below with their licence, their checksums in SHA256SUMS of each
folder, which tests/unit/test_viewer_files.py holds against them. --check downloads too, and changes nothing: exit 1
when a file differs from what npm has. Needs npm; nothing else of the kit does.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VIEWER = ROOT / "scripts" / "kit" / "viewer" / "vendor"
TESTS = ROOT / "tests" / "vendor"
SUMS = "SHA256SUMS"


@dataclass(frozen=True)
class Library:
    """One package. files: pattern in the package → folder below the library's own, empty for itself. why: what it is for."""

    name: str
    version: str
    folder: Path
    files: dict[str, str]
    why: str


LIBRARIES = (
    Library(
        "marked", "18.2.1", VIEWER / "marked", {"lib/marked.esm.js": "", "LICENSE*": ""}, "Markdown to HTML"
    ),
    Library("dompurify", "3.4.18", VIEWER / "dompurify", {"dist/purify.es.mjs": "", "LICENSE": ""}, "what of HTML may stay"),
    Library(
        "katex", "0.19.1", VIEWER / "katex",
        {"dist/katex.min.js": "", "dist/katex.min.css": "", "dist/fonts/*.woff2": "fonts", "LICENSE": ""}, "formulas",
    ),
    Library(
        "pdfjs-dist", "6.5.438", VIEWER / "pdfjs",
        # legacy: for browsers of the last years, not of the last months. The decoders without WebAssembly: the page's policy
        # lets nothing be compiled.
        {"legacy/build/pdf.min.mjs": "", "legacy/build/pdf.worker.min.mjs": "", "cmaps/*": "cmaps",
         "wasm/*_nowasm_fallback.js": "wasm", "wasm/LICENSE_*JBIG2": "wasm", "wasm/LICENSE_*OPENJPEG": "wasm", "LICENSE": ""},
        "pages of a PDF: as pictures, and cut out one by one",
    ),
    Library("axe-core", "4.14.1", TESTS / "axe-core", {"axe.min.js": "", "LICENSE": ""}, "accessibility, in tests alone"),
)  # fmt: skip


def download(library: Library, folder: Path) -> dict[str, bytes]:
    """The files of a package that are wanted, by their path below the library's folder. npm checks the package's own hash."""
    argv = ["npm", "pack", "--silent", "--pack-destination", str(folder), f"{library.name}@{library.version}"]
    print("$ " + " ".join(argv), file=sys.stderr)
    name = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split()[-1]
    found = {}
    with tarfile.open(folder / name) as package:
        for member in package.getmembers():
            path = member.name.partition("/")[2]
            for pattern, below in library.files.items():
                if member.isfile() and fnmatch.fnmatchcase(path, pattern) and path.count("/") == pattern.count("/"):
                    found[str(Path(below) / Path(path).name)] = package.extractfile(member).read()  # type: ignore[union-attr]
    missing = [pattern for pattern in library.files if not any(fnmatch.fnmatchcase(n, "*" + Path(pattern).name) for n in found)]
    if missing:
        sys.exit(f"error: {library.name} {library.version} has no {', '.join(missing)}")
    return found


def sums(files: dict[str, bytes]) -> bytes:
    """As `sha256sum` writes it, so that `sha256sum -c SHA256SUMS` reads it."""
    return "".join(f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files)).encode()


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--check", action="store_true")
    check = arguments.parse_args().check
    differs = []
    with tempfile.TemporaryDirectory() as scratch:
        for library in LIBRARIES:
            files = download(library, Path(scratch))
            files[SUMS] = sums(files)
            held = {p.relative_to(library.folder).as_posix(): p.read_bytes() for p in library.folder.rglob("*") if p.is_file()}
            if held == files:
                continue
            differs.append(f"{library.name} {library.version}")
            if not check:
                shutil.rmtree(library.folder, ignore_errors=True)
                for name, data in files.items():
                    (library.folder / name).parent.mkdir(parents=True, exist_ok=True)
                    (library.folder / name).write_bytes(data)
    for one in differs:
        print(f"differs: {one}" if check else f"written: {one}")
    return 1 if check and differs else 0


if __name__ == "__main__":
    sys.exit(main())
