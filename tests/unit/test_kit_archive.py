"""kit.tar.gz: what is in it, what is not, the same bytes from the same files; which wheels it takes for whom."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
from kit import wheels
from kit.bundle import kit_archive, wheel_set
from kit.catalog.settings import Settings
from kit.errors import ExitCode, KitError
from support import ROOT, skip, small_disk

PINS = "demo==1.0\n"


def place(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def carry(root: Path) -> None:
    """Wheels as a bundle brings them, so that no index is needed."""
    folder = root / wheels.FOLDER
    place(folder, {"demo-1.0-py3-none-any.whl": "a wheel", "pip-26.3-py3-none-any.whl": "pip"})
    files = {file.name: wheels.digest_of(file) for file in folder.glob("*.whl")}
    digest = wheels.digest_of(root / wheel_set.REQUIREMENTS)
    wheels.write_list(folder, wheels.Wheels(wheel_set.PYTHONS, "x86_64", digest, files))


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A small checkout with everything that lies about in a real one."""
    root = tmp_path / "clone"
    secret = tmp_path / "elsewhere" / "key.pem"
    place(root, {".gitignore": (ROOT / ".gitignore").read_text(), "kit": "#!/bin/sh\n", "docs/page.md": "page\n"})
    place(root, {str(wheel_set.REQUIREMENTS): PINS, "removed.txt": "", "pipeline_config_vllm.yaml": "a: 1\n"})
    (root / "kit").chmod(0o775)
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for argv in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *argv], cwd=root, check=True)
    (root / "removed.txt").unlink()
    place(
        root, {".env": "API_PORT=1\n", ".env.gpu1": "API_PORT=2\n", "vlm.local.yaml": "b: 1\n", "compose.override.yaml": "c: 1\n"}
    )
    place(root, {"new.py": "x\n", "scripts/__pycache__/x.pyc": "", ".pytest_cache/CACHEDIR.TAG": "", ".pytest_cache/v": ""})
    place(root, {"env/pyvenv.cfg": "", "env/lib/x.py": "", ".kit/logs/api.log": "a log\n", ".kit/venv/x": ""})
    place(
        root, {"bundle/.export.json": "{}", "bundle/images.tar.zst.001": "", "old/images.tar.zst.000": "", "old/README.txt": ""}
    )
    place(secret.parent, {secret.name: "a secret of another folder\n", ".env": "TOKEN=other\n"})
    (root / "key.pem").symlink_to(secret)
    carry(root)
    return root


EXPECTED = {
    *(".gitignore", "kit", "docs/page.md", "scripts/kit/requirements.txt", "pipeline_config_vllm.yaml", "new.py", "key.pem"),
    *(".env", ".env.gpu1", "vlm.local.yaml", "compose.override.yaml", ".kit/version"),
    *(f".kit/wheels/{name}" for name in ("demo-1.0-py3-none-any.whl", "pip-26.3-py3-none-any.whl", "wheels.json")),
}


def write(root: Path, target: Path | None = None, arch: str = "amd64") -> tuple[Path, list[str]]:
    said: list[str] = []
    target = target or root.parent / "out" / "kit.tar.gz"
    target.parent.mkdir(exist_ok=True, parents=True)
    kit_archive.write(root, target, Settings(root, {}), arch, said.append)
    return target, said


def members(archive: Path) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(archive) as tar:
        found = {member.name: member for member in tar}
    assert all(name.startswith("paddleocr-vl-kit/") for name in found)
    return {name.removeprefix("paddleocr-vl-kit/"): member for name, member in found.items()}


def test_the_repository_and_the_configuration_in_force_are_in_and_nothing_else(clone: Path) -> None:
    archive, said = write(clone, clone / "bundle" / "kit.tar.gz")
    assert set(members(archive)) == EXPECTED
    assert any("3 files that git does not know" in line and "new.py" in line for line in said), said
    assert b"secret" not in archive.read_bytes() and members(archive)["key.pem"].issym(), (
        "a link is carried, not what it leads to"
    )
    assert {file.name for file in archive.parent.iterdir()} == {".export.json", "images.tar.zst.001", "kit.tar.gz"}


def test_a_folder_without_git_gives_the_same(clone: Path) -> None:
    shutil.rmtree(clone / ".git")
    assert set(members(write(clone, clone / "bundle" / "kit.tar.gz")[0])) == EXPECTED


def test_the_folder_being_written_is_not_in_it(clone: Path) -> None:
    place(clone, {"out/README.txt": "of a bundle without a part so far"})
    assert set(members(write(clone, clone / "out" / "kit.tar.gz")[0])) == EXPECTED


def test_a_clone_of_another_user_is_read_all_the_same(clone: Path) -> None:
    if os.geteuid():
        skip("needs root: gives a folder to another user")
    for path in (clone, clone / ".git"):
        os.chown(path, 1234, 1234)
    (clone / ".gitignore").write_text((clone / ".gitignore").read_text() + "/ignored\n")
    place(clone, {"ignored": ""})
    assert "ignored" not in members(write(clone)[0])


def test_what_the_settings_name_is_carried_even_where_git_ignores_it(clone: Path, tmp_path: Path) -> None:
    place(clone, {".kit/pipeline.yaml": "mine: 1\n", "a.yaml": "", "b.yaml": ""})
    place(tmp_path, {"outside.yaml": "d: 1\n"})
    (clone / "a.yaml").unlink()
    (clone / "a.yaml").symlink_to(tmp_path / "outside.yaml")
    (clone / ".env").write_text(
        "PIPELINE_CONFIG=./.kit/pipeline.yaml\nVLM_CONFIG=../outside.yaml\nCOMPOSE_FILE=a.yaml:b.yaml:c.yaml\n"
    )
    archive, said = write(clone)
    assert set(members(archive)) == EXPECTED | {".kit/pipeline.yaml", "a.yaml", "b.yaml"}
    assert members(archive)["a.yaml"].isreg(), "the file in force, not the link to it"
    assert [line for line in said if "carry it by hand" in line] == [
        f"VLM_CONFIG names {tmp_path / 'outside.yaml'}, outside of this folder: carry it by hand to the same place"
    ]
    assert "COMPOSE_FILE names c.yaml, which is not there" in said


def test_keys_of_the_gateway_stay_here(clone: Path) -> None:
    place(clone, {"gateway-keys": "k: 0123456789abcdef\n", "tls/key.pem": "private\n", "tls/certificate.pem": "public\n"})
    (clone / ".env").write_text("GATEWAY_API_KEYS_FILE=./gateway-keys\nGATEWAY_TLS_KEY=tls/key.pem\n")
    archive, said = write(clone)
    assert set(members(archive)) == EXPECTED | {"tls/certificate.pem"}
    assert sum("stays here: carry it by hand" in line for line in said) == 2


def test_the_same_files_give_the_same_bytes(clone: Path) -> None:
    first = write(clone)[0].read_bytes()
    for path in clone.rglob("*"):
        if path.is_file() and not path.is_symlink() and ".git" not in path.parts:
            os.utime(path, (10**9, 10**9))
    assert write(clone, clone.parent / "other" / "k.tgz")[0].read_bytes() == first
    before = members(write(clone)[0])["new.py"].mtime
    (clone / "new.py").write_text("y\n")
    archive = write(clone)[0]
    assert archive.read_bytes() != first
    assert members(archive)["new.py"].mtime != before, "else Python would run the bytecode of the old file"


def test_modes_are_kept_and_owners_are_not(clone: Path) -> None:
    (clone / ".env").chmod(0o600)
    found = members(write(clone)[0])
    assert [oct(found[name].mode) for name in ("kit", ".env", "docs/page.md")] == ["0o755", "0o600", "0o644"]
    assert {(member.uid, member.gid, member.uname) for member in found.values()} == {(0, 0, "")}


def test_the_scripts_of_this_repository_stay_executable() -> None:
    # Compose mounts healthcheck.sh and calls it by sh; ./kit is called as it is.
    assert ROOT.joinpath("kit").stat().st_mode & 0o111 == 0o111


@pytest.mark.parametrize("fault", ["damaged wheel", "another platform"])
def test_what_fails_is_said_and_leaves_the_old_file(clone: Path, fault: str) -> None:
    target = clone.parent / "out" / "kit.tar.gz"
    place(target.parent, {target.name: "the old one"})
    if fault == "damaged wheel":
        (clone / wheels.FOLDER / "demo-1.0-py3-none-any.whl").write_text("a wheeL")
    with pytest.raises(KitError) as caught:
        write(clone, target, "riscv64" if fault == "another platform" else "amd64")
    assert caught.value.code == ExitCode.ENVIRONMENT
    expected = "demo-1.0-py3-none-any.whl is not what was exported" if fault == "damaged wheel" else "carried to riscv64"
    assert expected in caught.value.message
    assert target.read_text() == "the old one" and [file.name for file in target.parent.iterdir()] == [target.name]


def test_a_full_disk_is_said_and_nothing_is_left(clone: Path, tmp_path: Path) -> None:
    (clone / "big.bin").write_bytes(os.urandom(2 * 2**20))
    (tmp_path / "small").mkdir()
    with small_disk(tmp_path / "small", 1):
        with pytest.raises(KitError) as caught:
            write(clone, tmp_path / "small" / "kit.tar.gz")
        assert caught.value.code == ExitCode.ENVIRONMENT and "no space left" in caught.value.message
        assert "--no-kit" in caught.value.hint
        assert list((tmp_path / "small").iterdir()) == []


# --- which wheels


def test_markers_count_for_the_target_and_not_for_this_python() -> None:
    text = """# a comment
        one==1 ; python_full_version < '3.11'
        one==2 ; python_full_version >= '3.11'  # why
        win==1 ; sys_platform == 'win32'
        arm==1 ; platform_machine == 'aarch64'
        patch==1 ; python_full_version >= '3.12.4'
    """
    assert wheel_set.pins_for(text, "3.10", 0, "x86_64") == ("one==1",)
    assert wheel_set.pins_for(text, "3.11", 99, "aarch64") == ("one==2", "arm==1")
    assert wheel_set.pins_for(text, "3.12", 0, "x86_64") == ("one==2",)
    assert wheel_set.pins_for(text, "3.12", 99, "x86_64") == ("one==2", "patch==1")


@pytest.mark.parametrize("python", wheel_set.PYTHONS)
def test_our_requirements_pin_each_package_once_for_each_python(python: str) -> None:
    pins = wheel_set.pins_for((ROOT / wheel_set.REQUIREMENTS).read_text(), python, 0, "x86_64")
    names = [pin.partition("==")[0] for pin in pins]
    assert len(set(names)) == len(names) and all("==" in pin for pin in pins)
    assert ("exceptiongroup" in names) == (python == "3.10")


def fake_wheel(folder: Path, name: str) -> None:
    distribution, version, *_ = name.split("-")
    about = f"{distribution}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}.whl", "w") as wheel:
        wheel.writestr(
            f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\nRequires-Dist: absent\n"
        )
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all the package index there is, as a mirror's would be."""
    folder = tmp_path / "index"
    folder.mkdir()
    fake_wheel(folder, "pip-26.3-py3-none-any")
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def gathered(root: Path, machine: str, *pythons: str) -> set[str]:
    scratch = root.parent / "scratch"
    scratch.mkdir()
    found = wheels.read(wheel_set.gather(root, scratch, machine, pythons, lambda line: None))
    assert (found.pythons, found.machine) == (pythons, machine)
    assert set(found.files) == {file.name for file in scratch.glob("*.whl")}
    return {name.removesuffix(".whl") for name in found.files}


def test_wheels_for_each_python_of_the_target_and_no_newer_system(clone: Path, index: Path) -> None:
    shutil.rmtree(clone / wheels.FOLDER)
    (clone / wheel_set.REQUIREMENTS).write_text("built==1\nstable==1\npure==1\nnewer==1\nold==1 ; python_version < '3.11'\n")
    ours = [
        *("built-1-cp310-cp310-manylinux_2_28_aarch64", "built-1-cp312-cp312-manylinux2014_aarch64"),
        *("stable-1-cp36-abi3-manylinux_2_17_aarch64", "pure-1-py3-none-any", "old-1-py3-none-any"),
        "newer-1-cp37-abi3-manylinux_2_24_aarch64",
    ]
    others = [
        *("built-1-cp310-cp310-manylinux_2_28_x86_64", "built-1-cp311-cp311-manylinux_2_28_aarch64"),
        *("built-1-cp310-cp310-musllinux_1_2_aarch64", "newer-1-cp37-abi3-manylinux_2_34_aarch64"),
    ]
    for name in (*ours, *others):
        fake_wheel(index, name)
    assert gathered(clone, "aarch64", "3.10", "3.12") == {*ours, "pip-26.3-py3-none-any"}


def test_a_pin_that_depends_on_the_patch_release_is_carried_for_both(clone: Path, index: Path) -> None:
    shutil.rmtree(clone / wheels.FOLDER)
    (clone / wheel_set.REQUIREMENTS).write_text(
        "one==1 ; python_full_version < '3.12.4'\none==2 ; python_full_version >= '3.12.4'\n"
    )
    for name in ("one-1-py3-none-any", "one-2-py3-none-any"):
        fake_wheel(index, name)
    assert gathered(clone, "x86_64", "3.12") == {"one-1-py3-none-any", "one-2-py3-none-any", "pip-26.3-py3-none-any"}


def test_a_package_without_a_fitting_wheel_is_named(clone: Path, index: Path) -> None:
    fake_wheel(index, "demo-1.0-cp310-cp310-manylinux_2_34_x86_64")
    shutil.rmtree(clone / wheels.FOLDER)
    with pytest.raises(KitError) as caught:
        write(clone)
    assert caught.value.code == ExitCode.ENVIRONMENT
    assert "packages for Python 3.10 failed" in caught.value.message and "demo==1.0" in caught.value.message
    assert "--no-kit" in caught.value.hint
    assert list((clone.parent / "out").iterdir()) == []


def test_an_index_that_is_not_reached_is_said(clone: Path, monkeypatch: pytest.MonkeyPatch, index: Path) -> None:
    shutil.rmtree(clone / wheels.FOLDER)
    for name, value in {"PIP_NO_INDEX": "0", "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(KitError) as caught:
        write(clone)
    assert "the package index was not reached" in caught.value.message and "--no-kit" in caught.value.hint


@pytest.mark.parametrize("differs", ["nothing", "the platform", "the requirements", "a newer Python"])
def test_wheels_of_this_very_kit_are_carried_on_only_where_they_fit(
    clone: Path, index: Path, tmp_path: Path, differs: str
) -> None:
    fake_wheel(index, "demo-1.0-py3-none-any")
    if differs == "the requirements":
        (clone / wheel_set.REQUIREMENTS).write_text(f"{PINS}# of another kit\n")
    machine = "aarch64" if differs == "the platform" else "x86_64"
    python = "3.15" if differs == "a newer Python" else "3.12"
    (tmp_path / "scratch").mkdir()
    found = wheel_set.gather(clone, tmp_path / "scratch", machine, [python], lambda line: None)
    assert found == (clone / wheels.FOLDER if differs == "nothing" else tmp_path / "scratch")
    assert (found / "demo-1.0-py3-none-any.whl").is_file()


# --- do they fit?

HOST = wheels.Host("3.12", "x86_64", "glibc", "2.36")


@pytest.mark.parametrize(
    ("host", "says"),
    [
        (HOST, ""),
        (wheels.Host("3.10", "x86_64", "glibc", "2.28"), ""),
        (wheels.Host("3.15", "x86_64", "glibc", "2.40"), "is Python 3.15, and the bundle carries packages for 3.10, 3.11"),
        (wheels.Host("3.13t", "x86_64", "glibc", "2.40"), "is Python 3.13t"),
        (wheels.Host("PyPy 3.11", "x86_64", "glibc", "2.40"), "is Python PyPy 3.11"),
        (
            wheels.Host("3.12", "aarch64", "glibc", "2.40"),
            "this machine is aarch64, and the bundle's ./kit carries packages for x86_64",
        ),
        (wheels.Host("3.12", "x86_64", "glibc", "2.27"), "this system has glibc 2.27"),
        (wheels.Host("3.12", "x86_64", "", ""), "this system has another C library"),
        (wheels.Host("3.12", "x86_64", "musl", "1.2.5"), "this system has musl 1.2.5"),
    ],
)
def test_a_host_that_they_do_not_fit_is_told_why(tmp_path: Path, host: wheels.Host, says: str) -> None:
    (tmp_path / "r.txt").write_text(PINS)
    have = wheels.Wheels(wheel_set.PYTHONS, "x86_64", wheels.digest_of(tmp_path / "r.txt"), {})
    if not says:
        wheels.require_fit(have, host, tmp_path / "r.txt")
        return
    with pytest.raises(KitError) as caught:
        wheels.require_fit(have, host, tmp_path / "r.txt")
    assert says in caught.value.message and caught.value.hint and caught.value.code == ExitCode.ENVIRONMENT


def test_two_versions_of_the_kit_in_one_folder_are_told(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text(PINS)
    with pytest.raises(KitError, match="not the one that the bundle's packages were made for"):
        wheels.require_fit(wheels.Wheels(wheel_set.PYTHONS, "x86_64", "another", {}), HOST, tmp_path / "r.txt")


def test_this_host_is_described_as_wheels_are(monkeypatch: pytest.MonkeyPatch) -> None:
    host = wheels.this_host()
    assert host.python in wheel_set.PYTHONS and host.machine in wheel_set.MACHINES.values()
    monkeypatch.setattr("sys.abiflags", "t")
    assert wheels.this_host().python == f"{host.python}t", "a build without the GIL takes wheels of its own"


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"pythons": 1, "machine": "", "requirements": "", "files": {}}', '{"files": []}']
)
def test_a_list_that_is_none_is_damage_and_no_traceback(tmp_path: Path, text: str) -> None:
    (tmp_path / wheels.LIST).write_text(text)
    with pytest.raises(KitError, match="are damaged"):
        wheels.read(tmp_path)


def test_a_list_cannot_lead_out_of_its_folder(tmp_path: Path) -> None:
    place(tmp_path, {"w/x": "", "outside": "content"})
    digest = wheels.digest_of(tmp_path / "outside")
    wheels.write_list(tmp_path / "w", wheels.Wheels((), "", "", {"../outside": digest}))
    with pytest.raises(KitError, match="outside is missing"):
        wheels.read(tmp_path / "w")


# --- what a bundle does not carry


def test_what_only_an_index_has_is_refused_in_a_kit_from_a_bundle(clone: Path, tmp_path: Path) -> None:
    with pytest.raises(KitError) as caught:
        wheels.require_index(clone, "the preview as processes", "a way out")
    assert caught.value.code == ExitCode.ENVIRONMENT and caught.value.hint.startswith("a way out")
    wheels.require_index(tmp_path, "in a clone nothing is refused", "")
