"""Which image a container runs is told from the image itself, never from its name."""

from __future__ import annotations

import re

import pytest
from kit.stack.images import KIND_LABEL, KINDS, OFFICIAL_REGISTRY, Image, image_of, kind_of
from support import ROOT

OFFICIAL = f"{OFFICIAL_REGISTRY}/paddleocr-vl:paddleocr3.6-nvidia-gpu"
DIGEST = "sha256:ad0b1f056a76"
MIRROR = "mirror.example:5000/p"


def test_reference_and_id_are_those_of_the_container() -> None:
    container = {"Image": "sha256:77aa", "Config": {"Image": OFFICIAL}}
    assert image_of("paddleocr-vl-api", container, {}) == Image(
        "paddleocr-vl-api", OFFICIAL, "sha256:77aa", "not from a registry: loaded from a file or built here"
    )


@pytest.mark.parametrize(
    ("reference", "inspected", "kind"),
    [
        (OFFICIAL, {"RepoDigests": [f"{OFFICIAL_REGISTRY}/paddleocr-vl@{DIGEST}"]}, f"official, {DIGEST}"),
        (OFFICIAL, {"RepoDigests": [f"elsewhere.example/paddleocr-vl@{DIGEST}"]}, "not from a registry"),
        (f"{MIRROR}/vl:x", {"RepoDigests": [f"{MIRROR}/vl@{DIGEST}"]}, f"from {MIRROR}, {DIGEST}"),
        (f"{MIRROR}/vl", {"RepoDigests": [f"{MIRROR}/vl@{DIGEST}"]}, f"from {MIRROR}, {DIGEST}"),
        (OFFICIAL, {"RepoDigests": None, "Config": {"Labels": None}}, "not from a registry"),
        # A stand-in stays one under an official name, even pushed to the official registry.
        (
            OFFICIAL,
            {"RepoDigests": [f"{OFFICIAL_REGISTRY}/paddleocr-vl@{DIGEST}"], "Config": {"Labels": {KIND_LABEL: "stub"}}},
            "STUB",
        ),
    ],
)  # fmt: skip
def test_kind(reference: str, inspected: dict, kind: str) -> None:
    assert kind_of(reference, inspected).startswith(kind)


def test_every_image_that_is_built_here_says_its_kind() -> None:
    files = [*ROOT.glob("images/*.Dockerfile"), *ROOT.glob("tests/docker/*/Dockerfile")]
    said = [re.search(rf"{KIND_LABEL}=(\S+)", file.read_text()) for file in files]
    assert len(files) == 4 and all(said)
    assert {match[1] for match in said} == set(KINDS)
