"""Bundles that are damaged, disks that are full, exports and loads that are killed: a clear line or a clean continuation.

Never is a good name left on an image that is not whole: each test ends by running what is there.
Random places and moments come from a seed that the test prints; KIT_TEST_SEED sets it.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bundles import (
    MANIFEST,
    copy,
    edit_manifest,
    flip,
    flip_somewhere,
    mend_file,
    parts,
    read_manifest,
    state,
    swap,
    truncate,
)
from carried_images import Carried, compressible_mix, is_whole
from engine import Engine, EngineUnavailable, private_engine
from kit.errors import ExitCode
from support import Workspace, check_error, make_workspace, skip, small_disk

pytestmark = pytest.mark.parametrize("engine", ["current"], indirect=True)

MIB = 2**20
SHARED, OWN, NOISE = 16 * MIB, 4 * MIB, 0.4  # 24 MiB of which 10 are left when packed
PART = "1MiB"
IMAGES = Carried()
KILLS = 10
SEED = int(os.environ.get("KIT_TEST_SEED") or random.SystemRandom().randrange(10**6))
LOADING = "paddleocr-vl-kit/loading"


@pytest.fixture
def chance() -> Iterator[random.Random]:
    yield random.Random(SEED)
    print(f"KIT_TEST_SEED={SEED}")  # shown with a failure


@pytest.fixture(scope="module")
def space(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A clone whose .env names the images to carry."""
    return make_space(engine, tmp_path_factory.mktemp("space"), IMAGES)


def make_space(engine: Engine, path: Path, images: Carried) -> Workspace:
    path.mkdir(exist_ok=True)
    space = make_workspace(path)
    (path / ".env").write_text("".join(f"{name}={value}\n" for name, value in images.settings.items()))
    space.environment = {**space.environment, **engine.environment}
    return space


@pytest.fixture(scope="module")
def bundle(engine: Engine, space: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good one, in many parts."""
    make_images(engine)
    folder = tmp_path_factory.mktemp("bundle") / "good"
    done = export(space, folder)
    assert done.returncode == 0, done.stderr
    assert len(parts(folder)) >= 5
    remove_images(engine)
    return folder


@pytest.fixture(autouse=True)
def nothing_broken(engine: Engine, space: Workspace) -> Iterator[None]:
    """Whatever a test did: what has a good name runs and is whole. The next starts without images."""
    settings = (space.path / ".env").read_text()
    yield
    there(engine)
    remove_images(engine)
    (space.path / ".env").write_text(settings)  # a load has written what its bundle wants


def make_images(engine: Engine, release: str = "") -> None:
    IMAGES.make(engine, shared=SHARED, own=OWN, fill=compressible_mix(NOISE), release=release)


def remove_images(engine: Engine) -> None:
    """All of them with their layers, as on a machine that never had them."""
    references = engine.docker("images", "--format", "{{.Repository}}:{{.Tag}}").split()
    ours = [name for name in references if name.startswith((IMAGES.registry, LOADING, "kit.test/somebody"))]
    if ours:
        engine.docker("rmi", "--force", *ours)
    engine.docker("image", "prune", "--force")


def left_of_loads(engine: Engine) -> str:
    return engine.docker("images", "--filter", f"reference={LOADING}", "--quiet")


def assert_left_is_whole(engine: Engine, bundle: Path) -> None:
    """What a load left for the next one: images of the bundle, or what their lowest layers are, which the engine can give out."""
    wanted = [image["layers"] for image in read_manifest(bundle)["images"]]
    for left in left_of_loads(engine).split():
        layers = engine.inspect(left)["RootFS"]["Layers"]
        assert layers and layers in [image[: len(layers)] for image in wanted]
        assert engine.call(["sh", "-c", f"docker save {left} > /dev/null"]).returncode == 0


def export(space: Workspace, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return space.kit("export", folder, "--no-kit", "--part-size", PART, *options)


def there(engine: Engine) -> dict[str, str]:
    """Ids by reference, of those that the engine has; each is whole."""
    return {
        reference: engine.docker("image", "inspect", "--format", "{{.Id}}", reference).strip()
        for reference in IMAGES.references.values()
        if is_whole(engine, reference)
    }


def ids_of(folder: Path) -> dict[str, str]:
    return {image["reference"]: image["config"] for image in read_manifest(folder)["images"]}


def check_damage(done: subprocess.CompletedProcess[str], *words: str) -> None:
    check_error(done, ExitCode.INPUT, *words)


# --- a good bundle


def test_a_bundle_loads_to_the_same_images_and_a_second_time_to_nothing_new(
    engine: Engine, space: Workspace, bundle: Path
) -> None:
    before = state(bundle)
    done = space.kit("load", bundle)
    assert done.returncode == 0, done.stderr
    assert there(engine) == ids_of(bundle)
    again = space.kit("load", bundle)
    assert again.returncode == 0, again.stderr
    assert there(engine) == ids_of(bundle)
    assert state(bundle) == before, "the user's parts are left as they are"


def test_the_readme_of_the_bundle_loads_it_without_the_kit(engine: Engine, bundle: Path) -> None:
    """Its indented lines, run by a plain shell in the bundle's folder."""
    commands = re.findall(r"^  ((?:sha256sum|cat) .*)$", (bundle / "README.txt").read_text(), re.MULTILINE)
    assert ["sha256sum -c" in line for line in commands] == [True, False] and "docker load" in commands[1]
    done = engine.call(["bash", "-euo", "pipefail", "-c", "\n".join(commands)], cwd=bundle)
    assert done.returncode == 0, done.stderr
    assert there(engine) == ids_of(bundle)


# --- damaged bundles


@pytest.mark.parametrize("fault", ["flip", "missing", "cut", "swapped", "foreign id", "edited manifest"])
def test_a_damaged_bundle_is_refused_by_load(
    engine: Engine, space: Workspace, bundle: Path, tmp_path: Path, chance: random.Random, fault: str
) -> None:
    damaged = copy(bundle, tmp_path / "damaged")
    some = chance.choice(parts(damaged))
    words = [some.name]
    match fault:
        case "flip":
            flip_somewhere(some, chance)
        case "missing":
            some.unlink()
        case "cut":
            truncate(some, chance.randrange(some.stat().st_size))
        case "swapped":
            first, second, *_ = parts(damaged)  # of one size
            swap(first, second)
            words = []  # whichever of the two the engine's first layer lies in
        case "foreign id":
            edit_manifest(damaged, lambda manifest: manifest["images"][0].update(config="sha256:" + "0" * 64))
            words = ["manifest.json"]
        case "edited manifest":  # its checksum beside it was not mended
            other = {"reference": "kit.test/somebody/else:1"}
            edit_manifest(damaged, lambda manifest: manifest["images"][0].update(other), mend=False)
            words = ["manifest.json"]
    done = space.kit("load", damaged)
    check_damage(done, *words)
    if fault == "swapped":
        assert first.name in done.stderr or second.name in done.stderr
    reference = read_manifest(bundle)["images"][0]["reference"]
    assert reference not in there(engine)
    # What came of it hinders nothing.
    assert space.kit("load", bundle).returncode == 0
    assert there(engine) == ids_of(bundle)


def test_a_byte_that_was_changed_with_all_checksums_mended_gives_no_image_of_a_good_name(
    engine: Engine, space: Workspace, bundle: Path, tmp_path: Path, chance: random.Random
) -> None:
    """All of the bundle's own sums agree; what is left is zstd's and the image's own."""
    damaged = copy(bundle, tmp_path / "damaged")
    some = parts(damaged)[0]
    flip_somewhere(some, chance)
    mend_file(damaged, some.name)
    check_damage(space.kit("load", damaged))


# --- disks


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(
    engine: Engine, space: Workspace, bundle: Path, tmp_path: Path
) -> None:
    make_images(engine)
    with small_disk(tmp_path, 8):
        check_error(export(space, tmp_path / "new"), ExitCode.ENVIRONMENT, "free; about", "are needed")
        assert list(tmp_path.iterdir()) in ([], [tmp_path / "new"]) and not list(tmp_path.glob("new/*"))


def test_a_disk_that_fills_up_while_the_export_writes(engine: Engine, space: Workspace, bundle: Path, tmp_path: Path) -> None:
    make_images(engine)
    with small_disk(tmp_path, 128):
        folder = tmp_path / "new"
        process = space.start("export", str(folder), "--no-kit", "--part-size", PART)
        wait_for_parts(process, folder, 2)
        os.killpg(process.pid, signal.SIGSTOP)
        filler = fill_disk(tmp_path)
        os.killpg(process.pid, signal.SIGCONT)
        assert f"the disk of {folder} is full" in check_end(process, ExitCode.ENVIRONMENT)
        kept = complete(folder)
        assert kept
        filler.unlink()
        done = space.kit("export", folder, "--no-kit", "--part-size", PART)
        assert done.returncode == 0, done.stderr
        assert_kept(kept, folder)
        assert space.kit("verify", folder).returncode == 0


def test_the_engines_disk_is_full_then_the_engine_dies_then_the_load_goes_through(
    space: Workspace, bundle: Path, tmp_path: Path
) -> None:
    try:
        with private_engine("current", network="none", data_mebibytes=36) as engine:
            data = engine.work / "data"
            tight = make_space(engine, tmp_path / "tight", IMAGES)
            check_error(tight.kit("load", bundle), ExitCode.ENVIRONMENT, f"{data} has", "free; loading needs")
            assert there(engine) == {}

            subprocess.run(["mount", "-o", "remount,size=160m", str(data)], check=True)
            process = stop_while_it_loads(tight, engine, bundle)
            filler = fill_disk(data)
            os.killpg(process.pid, signal.SIGCONT)
            assert "disk of the engine's folder is full" in check_end(process, ExitCode.ENVIRONMENT)
            assert there(engine) == {}
            filler.unlink()

            process = stop_while_it_loads(tight, engine, bundle)
            engine.stop(signal.SIGKILL)
            os.killpg(process.pid, signal.SIGCONT)
            check_end(process, ExitCode.ENVIRONMENT)
            engine.start()
            assert there(engine) == {}

            done = tight.kit("load", bundle)
            assert done.returncode == 0, done.stderr
            assert there(engine) == ids_of(bundle)
            assert left_of_loads(engine) == ""
    except EngineUnavailable as error:
        skip(str(error))


def fill_disk(folder: Path) -> Path:
    """A file that takes all the room, whoever else writes meanwhile."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(MIB))
    return filler


def stop_while_it_loads(space: Workspace, engine: Engine, bundle: Path) -> subprocess.Popen[str]:
    """./kit load, stopped by SIGSTOP while the engine lays out what it has sent so far."""
    process = space.start("load", str(bundle))
    staging = engine.work / "data" / "tmp"
    end = time.monotonic() + 60
    while not [path for path in staging.glob("docker-import*/*.tar") if path.stat().st_size > MIB]:
        assert process.poll() is None and time.monotonic() < end, process.communicate()[0]
    os.killpg(process.pid, signal.SIGSTOP)
    return process


def check_end(process: subprocess.Popen[str], code: int) -> str:
    """What it said. Its exit code is `code`, its last words an error and a hint."""
    talk, _ = process.communicate(timeout=60)
    assert process.returncode == code, talk
    assert [line.split(":")[0] for line in talk.splitlines()][-2:] == ["error", "hint"], talk
    assert "Traceback" not in talk
    return talk


# --- killed


def test_an_export_that_is_killed_at_random_moments_goes_on_where_it_was(
    engine: Engine, space: Workspace, bundle: Path, tmp_path: Path, chance: random.Random
) -> None:
    make_images(engine)
    folder = tmp_path / "new"
    began = time.monotonic()
    assert export(space, tmp_path / "measure").returncode == 0
    seconds = time.monotonic() - began
    killed, kept = 0, {}
    while killed < KILLS:
        process = space.start("export", str(folder), "--no-kit", "--part-size", PART)
        if killed == 0:  # one of them surely has something to keep
            wait_for_parts(process, folder, 2)
        else:
            time.sleep(chance.uniform(0, seconds))  # the moment is what is tested
        if kill(process) == 0:  # it was through
            for path in folder.iterdir():
                path.unlink()
            kept = {}
            continue
        killed += 1
        if folder.exists():
            assert_kept(kept, folder)
            kept = complete(folder)
        assert kept or killed > 1, "the first one was killed in the midst of its parts"
    done = export(space, folder)
    assert done.returncode == 0, done.stderr
    assert_kept(kept, folder)
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []
    remove_images(engine)
    assert space.kit("load", folder).returncode == 0
    assert there(engine) == ids_of(folder)


def test_a_load_that_is_killed_at_random_moments_is_done_by_the_next(
    engine: Engine, space: Workspace, bundle: Path, chance: random.Random
) -> None:
    began = time.monotonic()
    assert space.kit("load", bundle).returncode == 0
    seconds = time.monotonic() - began
    remove_images(engine)
    killed = 0
    while killed < KILLS:
        if killed == 0:  # one of them surely in the midst of the images
            process = stop_while_it_loads(space, engine, bundle)
        else:
            process = space.start("load", str(bundle))
            time.sleep(chance.uniform(0, seconds))
        killed += kill(process) == -signal.SIGKILL
        assert there(engine).items() <= ids_of(bundle).items()
        if len(there(engine)) == 2 or killed == KILLS // 2:
            remove_images(engine)
    done = space.kit("load", bundle)
    assert done.returncode == 0, done.stderr
    assert there(engine) == ids_of(bundle)
    assert left_of_loads(engine) == ""


def kill(process: subprocess.Popen[str]) -> int:
    """By SIGKILL: its return code, 0 where it was through before. Anything else, such as a crash, is a failure."""
    os.killpg(process.pid, signal.SIGKILL)
    talk, _ = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), talk
    return process.returncode


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("verb", ["export", "load"])
def test_a_signal_ends_it_cleanly_and_the_next_goes_on(
    engine: Engine, space: Workspace, bundle: Path, tmp_path: Path, verb: str, number: signal.Signals, code: int
) -> None:
    folder = tmp_path / "new"
    if verb == "export":
        make_images(engine)
        process = space.start("export", str(folder), "--no-kit", "--part-size", PART)
        wait_for_parts(process, folder, 1)
    else:
        process = stop_while_it_loads(space, engine, bundle)
        os.killpg(process.pid, signal.SIGCONT)
    os.killpg(process.pid, number)
    talk, _ = process.communicate(timeout=30)
    assert process.returncode == code, talk
    assert "Traceback" not in talk
    if verb == "export":
        assert not (folder / MANIFEST).exists()
        done = space.kit("export", folder, "--no-kit", "--part-size", PART)
        assert done.returncode == 0, done.stderr
        assert space.kit("verify", folder).returncode == 0
    else:
        assert_left_is_whole(engine, bundle)
        assert space.kit("load", bundle).returncode == 0
        assert there(engine) == ids_of(bundle)
        assert left_of_loads(engine) == ""


def complete(folder: Path) -> dict[str, tuple[int, int, int]]:
    """The parts that an interruption must not cost: all in their place but the newest, which may not be noted yet."""
    return {part.name: state(folder)[part.name] for part in parts(folder)[:-1]}


def assert_kept(kept: dict[str, tuple[int, int, int]], folder: Path) -> None:
    """Each of these files is still the very same: not written again."""
    now = state(folder)
    assert {name: now.get(name) for name in kept} == kept


def wait_for_parts(process: subprocess.Popen[str], folder: Path, count: int) -> None:
    end = time.monotonic() + 60
    while len(parts(folder) if folder.exists() else []) < count:
        assert process.poll() is None and time.monotonic() < end, process.communicate()[0]
        time.sleep(0.002)


# --- another image, another platform, another bundle


def test_a_tag_that_is_there_with_another_id_is_left_alone_unless_replaced(
    engine: Engine, space: Workspace, bundle: Path
) -> None:
    make_images(engine, release="of somebody else")
    others = there(engine)
    assert others and set(others.values()).isdisjoint(ids_of(bundle).values())
    check_error(space.kit("load", bundle), ExitCode.FAILED, "--replace")
    assert there(engine) == others
    done = space.kit("load", bundle, "--replace")
    assert done.returncode == 0, done.stderr
    assert there(engine) == ids_of(bundle)


def test_a_bundle_for_another_platform_is_refused(engine: Engine, space: Workspace, bundle: Path, tmp_path: Path) -> None:
    other = copy(bundle, tmp_path / "other")
    edit_manifest(other, lambda manifest: manifest.update(platform="linux/s390x"))
    check_error(space.kit("load", other), ExitCode.ENVIRONMENT, "linux/s390x")
    assert there(engine) == {}


def test_a_folder_with_another_finished_bundle_is_left_alone(
    engine: Engine, space: Workspace, bundle: Path, tmp_path: Path
) -> None:
    mine = copy(bundle, tmp_path / "mine")
    before = state(mine)
    make_images(engine, release="another")
    check_error(export(space, mine), ExitCode.INPUT, f"{mine} holds a finished bundle")
    assert state(mine) == before
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis.txt").write_text("mine")
    check_error(export(space, tmp_path / "papers"), ExitCode.INPUT, "is not empty: thesis.txt")
    assert [path.name for path in (tmp_path / "papers").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("size", ["0", "-1MiB", "12", "1KiB", "much", "1.5.2GiB", "4GiBB", ""])
def test_a_part_size_that_makes_no_sense_is_refused(engine: Engine, space: Workspace, tmp_path: Path, size: str) -> None:
    done = space.kit("export", tmp_path / "new", "--no-kit", f"--part-size={size}")
    check_error(done, ExitCode.USAGE, "--part-size")
    assert not (tmp_path / "new").exists()


def test_parts_are_no_larger_than_asked_for(engine: Engine, space: Workspace, bundle: Path) -> None:
    sizes = [part.stat().st_size for part in parts(bundle)]
    assert len(set(sizes[:-1])) == 1 and MIB - 2**18 <= sizes[0] <= MIB and 0 < sizes[-1] <= sizes[0]


# --- differential


def test_a_differential_bundle_needs_its_base_and_says_so(engine: Engine, space: Workspace, bundle: Path, tmp_path: Path) -> None:
    make_images(engine, release="next")
    small = tmp_path / "next"
    done = export(space, small, "--base", str(bundle))
    assert done.returncode == 0, done.stderr
    ids = ids_of(small)
    assert ids != ids_of(bundle)
    whole = sum(part.stat().st_size for part in parts(bundle))
    assert sum(part.stat().st_size for part in parts(small)) < whole / 2, "the common layer is left out"
    assert space.kit("verify", small).returncode == 0
    remove_images(engine)

    for base in ((), ("--base", small)):  # none, and one on which it is not based
        created = read_manifest(bundle)["created"]
        check_error(space.kit("load", small, *base), ExitCode.ENVIRONMENT, created, "--base")
        assert there(engine) == {}

    damaged = copy(bundle, tmp_path / "damaged")
    some = flip_in_a_layer_that(damaged, small)
    check_damage(space.kit("load", small, "--base", damaged), some.name)
    assert there(engine) == {}

    done = space.kit("load", small, "--base", bundle)
    assert done.returncode == 0, done.stderr
    assert there(engine) == ids


def flip_in_a_layer_that(base: Path, small: Path) -> Path:
    """Damage a layer of `base` that `small` needs and lacks; the part in which it was."""
    manifest = read_manifest(small)
    held = {frame["name"] for frame in manifest["frames"]}
    needed = {layer for image in manifest["images"] for layer in image["layers"]} - held
    at = next(frame["offset"] + frame["size"] // 2 for frame in read_manifest(base)["frames"] if frame["name"] in needed)
    for part in parts(base):
        if at < part.stat().st_size:
            flip(part, at)
            return part
        at -= part.stat().st_size
    raise AssertionError("no part has that byte")


def test_a_differential_bundle_loads_onto_the_images_of_its_base(
    engine: Engine, space: Workspace, bundle: Path, tmp_path: Path
) -> None:
    make_images(engine, release="next")
    small = tmp_path / "next"
    assert export(space, small, "--base", str(bundle)).returncode == 0
    remove_images(engine)
    assert space.kit("load", bundle).returncode == 0
    done = space.kit("load", small, "--replace")
    assert done.returncode == 0, done.stderr
    assert there(engine) == ids_of(small)


# --- no Docker, no folder, no image


def test_without_an_engine_export_and_load_say_so_and_verify_works(
    engine: Engine, space: Workspace, bundle: Path, tmp_path: Path
) -> None:
    nowhere = {"DOCKER_HOST": f"unix://{tmp_path}/no.sock"}
    check_error(space.kit("load", bundle, **nowhere), ExitCode.ENVIRONMENT, "Docker")
    check_error(space.kit("export", tmp_path / "new", **nowhere), ExitCode.ENVIRONMENT, "Docker")
    assert not (tmp_path / "new").exists()
    assert space.kit("verify", bundle, **nowhere).returncode == 0


def test_an_image_that_is_nowhere_ends_the_export_before_anything_is_written(
    engine: Engine, space: Workspace, tmp_path: Path
) -> None:
    done = export(space, tmp_path / "new")  # kit.test resolves nowhere (RFC 6761)
    check_error(done, ExitCode.ENVIRONMENT, "registry was not reached")
    assert not list(tmp_path.glob("new/*"))


def test_what_is_no_bundle_is_refused(engine: Engine, space: Workspace, bundle: Path, tmp_path: Path) -> None:
    unfinished = copy(bundle, tmp_path / "unfinished")
    (unfinished / MANIFEST).unlink()
    (tmp_path / "empty").mkdir()
    for folder, word in ((unfinished, "export"), (tmp_path / "empty", "empty"), (tmp_path / "nowhere", "nowhere")):
        check_damage(space.kit("load", folder), word)
    check_damage(space.kit("load", bundle / MANIFEST))


def test_a_folder_that_is_a_file_is_refused_by_export(engine: Engine, space: Workspace, tmp_path: Path) -> None:
    make_images(engine)
    (tmp_path / "file").write_text("mine")
    done = export(space, tmp_path / "file")
    check_error(done, ExitCode(done.returncode), "file")
    assert done.returncode in (ExitCode.USAGE, ExitCode.INPUT, ExitCode.ENVIRONMENT)
    assert (tmp_path / "file").read_text() == "mine"


def test_the_manifest_says_what_is_carried(engine: Engine, space: Workspace, bundle: Path) -> None:
    manifest = json.loads((bundle / MANIFEST).read_text())
    assert manifest["kind"] == "gpu" and manifest["platform"].startswith("linux/")
    assert manifest["settings"].items() >= IMAGES.settings.items()
    assert manifest["requires"]["cuda"] == "12.6"
    assert {image["service"]: image["reference"] for image in manifest["images"]} == IMAGES.references
    layers = [set(image["layers"]) for image in manifest["images"]]
    frames = [frame["name"] for frame in manifest["frames"] if frame["kind"] == "layer"]
    assert layers[0] & layers[1] and sorted(frames) == sorted(layers[0] | layers[1]), "a shared layer is carried once"
