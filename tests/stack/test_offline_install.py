"""The kit out of a bundle, on a host that has Python and nothing else: no network, no index, no ensurepip, no HOME."""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit import wheels
from kit.bundle import kit_archive, wheel_set
from kit.catalog.settings import Settings
from kit.errors import ExitCode
from support import ROOT, check_error, skip, small_disk

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
BASE = Path(sys.base_prefix) / "bin" / f"python{HERE}"  # not the environment of the tests: a host's own Python


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """kit.tar.gz of this repository for this Python, its wheels from the package index."""
    target = tmp_path_factory.mktemp("archive") / "kit.tar.gz"
    kit_archive.write(ROOT, target, Settings(ROOT, {}), platform.machine(), lambda line: None, pythons=[HERE])
    return target


@pytest.fixture
def unpacked(archive: Path, tmp_path: Path) -> Path:
    """As `tar -xzf` leaves it; a space in the path, as on many disks that are carried about."""
    folder = tmp_path / "usb disk"
    folder.mkdir()
    subprocess.run(["tar", "-xzf", archive], cwd=folder, check=True)
    (root,) = folder.iterdir()
    return root


class Witness:
    """Listens where an index or a proxy is said to be, and counts who comes."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def came(self) -> bool:
        """Whether anybody has connected: the kernel accepts for us and keeps it."""
        try:
            self._socket.accept()[0].close()
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def witness() -> Iterator[Witness]:
    found = Witness()
    yield found
    found.close()


NOWHERE = "/proc/nowhere"  # where not even root can write


def hostile(folder: Path, url: str) -> dict[str, str]:
    """A host whose settings would all lead pip elsewhere. No HOME; an installed httpx that is not there."""
    (folder / "pip").mkdir(parents=True)
    (folder / "pip" / "pip.conf").write_text(
        f"[global]\nindex-url = {url}/conf\nfind-links = {url}/conf\nretries = 0\ntimeout = 0.2\n[install]\ntarget = {NOWHERE}\n"
    )
    (folder / "httpx-0.28.1.dist-info").mkdir()
    (folder / "httpx-0.28.1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: httpx\nVersion: 0.28.1\n")
    pip = {"INDEX_URL": f"{url}/env", "FIND_LINKS": f"{url}/env", "TARGET": NOWHERE, "PROXY": url}
    pip |= {"NO_BINARY": ":all:", "RETRIES": "0", "TIMEOUT": "0.2"}
    proxies = {name: url for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")}
    return {
        **{"PATH": "/usr/bin:/bin", "KIT_PYTHON": str(BASE), "PYTHONPATH": str(folder), "XDG_CONFIG_DIRS": str(folder)},
        **{f"PIP_{name}": value for name, value in pip.items()},
        **{"PIP_CONFIG_FILE": str(folder / "pip" / "pip.conf")},
        **proxies,
    }


def run(argv: list[str | Path], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv, env=environment, cwd="/", capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL
    )  # fmt: skip


def kit(root: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run([root / "kit", *words], {"PATH": "/usr/bin:/bin", "KIT_PYTHON": str(BASE)} | environment)


def installed(root: Path) -> set[str]:
    """NAME==VERSION of what is in ./kit's environment."""
    code = "from importlib.metadata import distributions as d; print(*{f\"{x.metadata['Name']}=={x.version}\" for x in d()})"
    done = run([root / ".kit" / "venv" / "bin" / "python", "-I", "-c", code], {})
    return {line.lower().replace("_", "-").replace(".yaml", "-yaml") for line in done.stdout.split()}


def pinned() -> set[str]:
    text = (ROOT / wheel_set.REQUIREMENTS).read_text()
    return set(wheel_set.pins_for(text, HERE, sys.version_info.micro, platform.machine()))


def test_nothing_but_the_wheels_is_asked(unpacked: Path, tmp_path: Path, witness: Witness) -> None:
    done = run([unpacked / "kit", "parse", "--help"], hostile(tmp_path / "etc", witness.url))
    assert done.returncode == 0 and done.stdout.startswith("usage: ./kit parse"), done.stderr
    assert installed(unpacked) == pinned(), "those and no others, although PYTHONPATH pretends that httpx is there"
    assert not witness.came()


def test_pip_left_to_itself_would_go_there(unpacked: Path, tmp_path: Path, witness: Witness) -> None:
    """Else the test above could not fail."""
    pip = wheels.pip_of(unpacked / wheels.FOLDER) / "pip"
    done = run([BASE, pip, "download", "--dest", tmp_path, "httpx==0.28.1"], hostile(tmp_path / "etc", witness.url))
    assert done.returncode and witness.came()


WITHOUT_ENSUREPIP = 'raise ModuleNotFoundError("No module named \'ensurepip\'", name="ensurepip")\n'


def test_without_any_network_and_without_ensurepip(unpacked: Path, tmp_path: Path) -> None:
    """In a network namespace of its own, whose one interface is down; Python as Debian has it before python3-venv."""
    if os.geteuid():
        skip("needs root: makes a network namespace")
    standard = Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix}))
    (tmp_path / "absent.py").write_text(WITHOUT_ENSUREPIP)
    script = """
        mount --bind "$ABSENT" "$STANDARD/ensurepip/__init__.py"
        "$KIT_PYTHON" -c 'import ensurepip' 2>/dev/null && echo "ensurepip is here"
        for address in 127.0.0.1 192.0.2.1; do
            "$KIT_PYTHON" -c "import socket; socket.create_connection(('$address', 9))" 2>&1 | tail -n 1
        done
        "$ROOT/kit" --help
        "$ROOT/kit" up --local
    """
    environment = {"PATH": "/usr/sbin:/usr/bin:/bin", "KIT_PYTHON": str(BASE), "ABSENT": str(tmp_path / "absent.py")}
    done = run(["unshare", "-n", "-m", "sh", "-c", script], environment | {"STANDARD": str(standard), "ROOT": str(unpacked)})
    first, second, *help_ = done.stdout.splitlines()
    assert [first, second] == ["OSError: [Errno 101] Network is unreachable"] * 2, done.stderr
    assert help_[0].startswith("usage: ./kit"), done.stderr
    assert installed(unpacked) == pinned()
    # The preview as processes is not carried, and says so before it looks for an index.
    assert done.returncode == ExitCode.ENVIRONMENT
    *_, error, hint = done.stderr.splitlines()
    assert error == "error: the preview as processes cannot be installed: this ./kit came in a bundle, which does not carry it"
    assert "./kit up --preview" in hint and not (unpacked / ".kit" / "preview" / "vlm-venv").exists()


def flip(root: Path) -> str:
    (wheel,) = (root / wheels.FOLDER).glob("zstandard-*.whl")
    data = bytearray(wheel.read_bytes())
    data[len(data) // 2] ^= 1
    wheel.write_bytes(data)
    return f"{wheel.name} is not what was exported"


def cut(root: Path) -> str:
    (wheel,) = (root / wheels.FOLDER).glob("pip-*.whl")
    os.truncate(wheel, 1000)
    return f"{wheel.name} is not what was exported"


def lose(root: Path) -> str:
    (wheel,) = (root / wheels.FOLDER).glob("pyyaml-*.whl")
    wheel.unlink()
    return f"{wheel.name} is missing"


def lose_list(root: Path) -> str:
    (root / wheels.FOLDER / wheels.LIST).unlink()
    return "wheels.json is missing"


def other_python(root: Path) -> str:
    file = root / wheels.FOLDER / wheels.LIST
    file.write_text(json.dumps(json.loads(file.read_text()) | {"pythons": ["3.99"]}))
    return f"is Python {HERE}, and the bundle carries packages for 3.99"


@pytest.mark.parametrize("fault", [flip, cut, lose, lose_list, other_python], ids=lambda fault: fault.__name__)
def test_wheels_that_cannot_serve_are_said(unpacked: Path, fault) -> None:
    says = fault(unpacked)
    done = kit(unpacked, "status")
    done.stderr = done.stderr.removeprefix("First use: making .kit/venv …\n")
    check_error(done, ExitCode.ENVIRONMENT, says)
    assert not (unpacked / ".kit" / "venv").exists()


def test_a_disk_that_fills_up_meanwhile_is_said_and_nothing_is_left(unpacked: Path) -> None:
    venv = unpacked / ".kit" / "venv"
    venv.mkdir()
    with small_disk(venv, 20):
        done = kit(unpacked, "status")
        assert done.returncode == ExitCode.ENVIRONMENT and "error: the installation failed: the disk is full" in done.stderr
        assert "Traceback" not in done.stderr
        assert list(venv.iterdir()) == []


def test_the_archive_names_each_member_below_one_folder(archive: Path) -> None:
    with tarfile.open(archive) as tar:
        names = tar.getnames()
    assert {name.split("/")[0] for name in names} == {kit_archive.TOP} and not any(".." in name for name in names)
    assert not any("__pycache__" in name or "/.git/" in name or "/.kit/venv" in name for name in names)
