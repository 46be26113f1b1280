"""README.txt of a bundle: what it is, and how to use it with nothing but a shell."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from kit.bundle.manifest import IMAGES, KIT, MODELS, NAME, PREVIEW, SUMS, Manifest
from kit.bundle.signature import MINISIGN, NAMESPACE, SIGNER, SSH
from kit.stack.files import ENGINE_20, SEPARATOR


def text(manifest: Manifest, compose_files: Sequence[str], volume: str) -> str:
    """compose_files: those to start it with on the other host. volume: of the models there."""
    with_kit = any(file.name == KIT for file in manifest.files)
    up = "./kit up --preview" if manifest.kind == PREVIEW else "./kit up"
    lines = [
        "PaddleOCR-VL Kit: a service for a host without network",
        "",
        f"written {manifest.created} by kit {manifest.kit}, for {manifest.platform}",
        *(f"  {image.reference}\n    {image.config}" for image in manifest.images),
        "",
    ]
    if manifest.requires:
        needs = manifest.requires
        lines += [
            f"The host needs an NVIDIA driver {needs.driver} or newer (CUDA {needs.cuda}), a card of compute capability",
            f"{', '.join(needs.capabilities)}, the NVIDIA Container Toolkit, and Docker with Compose.",
            "",
        ]
    if manifest.bases:
        lines += [
            "It carries only what this earlier bundle lacks:",
            *(f"  {base.created}: {', '.join(base.images)}" for base in manifest.bases),
            "which must have been loaded before, or lie in reach: ./kit load BUNDLE --base FOLDER. An engine with containerd's",
            "image store needs it in reach, and cannot load this one without ./kit.",
            "",
        ]
    if with_kit:
        lines += [
            "If it was signed, ask for the public key (KEY) by another way than this one, and look before anything of it runs.",
            f"From this folder, with ssh for {SSH} or minisign for {MINISIGN}:",
            "",
            *_signed(),
            "",
        ]
    lines += ["With Python 3.10 or newer, BUNDLE being this folder:", ""]
    if with_kit:
        lines += [f"  tar -xzf BUNDLE/{KIT}", "  cd paddleocr-vl-kit"]
    else:
        lines += ["  cd to a copy of PaddleOCR-VL Kit"]
    lines += ["  ./kit verify BUNDLE", "  ./kit load BUNDLE", f"  {up}", ""]
    lines += ["Without Python, from this folder (zstd is needed):", "", *_by_shell(manifest, compose_files, volume), ""]
    return "\n".join(lines)


def _signed() -> list[str]:
    """The signature, and that kit.tar.gz is the one whose hash was signed: nothing of a bundle can vouch for itself."""
    return [
        f"  echo {SIGNER} $(cat KEY) > ~/signer",
        f"  ssh-keygen -Y verify -f ~/signer -I {SIGNER} -n {NAMESPACE} -s {SSH} < {NAME}",
        f"  minisign -Vm {NAME} -p KEY",
        f'  grep -q "$(sha256sum < {KIT} | cut -c1-64)" {NAME} && echo {KIT} is the one that was signed',
    ]


def _by_shell(manifest: Manifest, compose_files: Sequence[str], volume: str) -> list[str]:
    lines = [f"  sha256sum -c {SUMS}", f"  cat {IMAGES}.* | zstd -dc | docker load"]
    if manifest.models:
        run = f"docker run -i --rm --network none -v {volume}:/home/paddleocr --entrypoint tar"
        lines += [f"  cat {MODELS}.* | zstd -dc | {run} \\", f"    {manifest.images[-1].reference} -xf - -C /home/paddleocr"]
    if not any(file.name == KIT for file in manifest.files):
        return [*lines, "", "The Compose files that start it are not in this bundle (--no-kit)."]
    lines += [f"  tar -xzf {KIT} && cd paddleocr-vl-kit"]
    if manifest.kind == PREVIEW:
        lines += [f"  docker compose {shlex.join(word for name in compose_files for word in ('-f', name))} up -d"]
        behind = f"-f {ENGINE_20}"
    else:
        setting = shlex.quote(f"COMPOSE_FILE={SEPARATOR.join(compose_files)}")
        lines += [f"  printf '\\n%s\\n' {setting} >> .env", "  docker compose up -d"]
        behind = f"{SEPARATOR}{ENGINE_20}"
    return [*lines, "", f"An engine older than 25 wants {behind} right behind {compose_files[0]} there."]
