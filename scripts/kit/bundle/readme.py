"""README.txt of a bundle: what it is, and how to use it with nothing but a shell."""

from __future__ import annotations

from kit.bundle.manifest import IMAGES, KIT, MODELS, PREVIEW, SUMS, Manifest


def text(manifest: Manifest) -> str:
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
            "It carries only what this earlier bundle lacks, which must have been loaded before:",
            *(f"  {base.created}: {', '.join(base.images)}" for base in manifest.bases),
            "",
        ]
    lines += ["With Python 3.10 or newer, BUNDLE being this folder:", ""]
    if with_kit:
        lines += [f"  tar -xzf BUNDLE/{KIT}", "  cd paddleocr-vl-kit"]
    else:
        lines += ["  cd to a copy of PaddleOCR-VL Kit"]
    lines += ["  ./kit verify BUNDLE", "  ./kit load BUNDLE", f"  {up}", ""]
    lines += [
        "Without Python, from this folder (zstd is needed):",
        "",
        f"  sha256sum -c {SUMS}",
        f"  cat {IMAGES}.* | zstd -dc | docker load",
    ]
    if manifest.models:
        run = "docker run -i --rm --network none -v paddleocr-vl_models:/home/paddleocr --entrypoint tar"
        lines += [f"  cat {MODELS}.* | zstd -dc | {run} \\", f"    {manifest.images[-1].reference} -xf - -C /home/paddleocr"]
    file = "compose.preview.yaml" if manifest.kind == PREVIEW else "compose.yaml"
    if with_kit:
        lines += [f"  tar -xzf {KIT} && cd paddleocr-vl-kit"]
    lines += [_compose(manifest, file), ""]
    return "\n".join(lines)


def _compose(manifest: Manifest, file: str) -> str:
    files = [file]
    if manifest.kind != PREVIEW:
        files += ["compose.models.yaml"] * bool(manifest.models) + ["compose.offline.yaml"]
    return "  docker compose " + " ".join(f"-f {name}" for name in files) + " up -d"
