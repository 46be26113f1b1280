"""A bundle's signature, made by a key of the user's over manifest.json, which holds the hash of everything else.

    minisign -Sm manifest.json                                                → manifest.json.minisig
    ssh-keygen -Y sign -n paddleocr-vl-kit -f ~/.ssh/id_ed25519 manifest.json → manifest.json.sig

The very programs check it that made it: whoever has such a key has them, and ssh-keygen is nearly everywhere.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from kit.bundle import manifest as manifests
from kit.errors import ExitCode, KitError

MINISIGN, SSH = f"{manifests.NAME}.minisig", f"{manifests.NAME}.sig"
SIGNATURES = (MINISIGN, SSH)
NAMESPACE = "paddleocr-vl-kit"
SIGNER = "bundle"
TIMEOUT = 60.0  # seconds


def check(folder: Path, key: Path | None) -> str:
    """What the signature is worth, in words; key: the public key to trust.

    Raises KitError: INPUT when it does not fit the key, or there is none although a key was given; USAGE for a key that is none;
    ENVIRONMENT when the program that checks it is not here.
    """
    there = [name for name in SIGNATURES if (folder / name).is_file()]
    if key is None:
        return f"{there[0]} was not checked: --key FILE names the public key to trust" if there else "not signed"
    try:
        text = key.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise KitError(f"cannot read the key {key}: {error}", "give a public key of minisign or ssh", ExitCode.USAGE) from error
    wanted = SSH if text.startswith(("ssh-", "ecdsa-", "sk-")) else MINISIGN
    if wanted not in there:
        raise KitError(
            f"{folder} has no {wanted}: it was not signed with a key like {key}", "ask for the signature", ExitCode.INPUT
        )
    (_ssh if wanted == SSH else _minisign)(folder, key, text)
    return f"{wanted} was made by {key}"


def _minisign(folder: Path, key: Path, text: str) -> None:
    argv = ["minisign", "-Vm", str(folder / manifests.NAME), "-x", str(folder / MINISIGN), "-p", str(key)]
    _run(argv, folder, key, b"", "apt-get install minisign, or sign with ssh-keygen")


def _ssh(folder: Path, key: Path, text: str) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".allowed") as allowed:
        allowed.write(f"{SIGNER} {text.strip()}\n")
        allowed.flush()
        argv = ["ssh-keygen", "-Y", "verify", "-f", allowed.name, "-I", SIGNER, "-n", NAMESPACE, "-s", str(folder / SSH)]
        _run(argv, folder, key, (folder / manifests.NAME).read_bytes(), "apt-get install openssh-client")


def _run(argv: list[str], folder: Path, key: Path, given: bytes, install: str) -> None:
    if not shutil.which(argv[0]):
        raise KitError(f"{argv[0]} is not installed, and the signature cannot be checked without", install, ExitCode.ENVIRONMENT)
    try:
        done = subprocess.run(argv, input=given, capture_output=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        raise KitError(
            f"{argv[0]} gave no answer within {TIMEOUT:.0f} s", f"run it yourself: {shlex.join(argv)}", ExitCode.ENVIRONMENT
        ) from None
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines() or ["no output"]
        raise KitError(
            f"the signature of {folder} was not made by {key}: {said[-1]}",
            "do not load it, unless you know why; the owner of the key can sign it again",
            ExitCode.INPUT,
        )
