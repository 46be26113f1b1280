"""KIT1xx: images and their tags, and what is started in them."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from kit.catalog import images, models
from kit.lint import mend
from kit.lint.compose_file import as_mapping
from kit.lint.findings import Hit, Rules, Severity
from kit.lint.project import Api, Project, Vlm
from kit.lint.services import API_IMAGE, IMAGE_HOME, VLM_IMAGE, Image, Mount, Service
from kit.lint.tree import find, scalar

rules = Rules()
ERROR, WARNING, INFO = Severity.ERROR, Severity.WARNING, Severity.INFO
VLM_IMAGES = ("paddleocr-genai-vllm-server", "paddleocr-genai-fastdeploy-server")
MODELS_INSIDE = IMAGE_HOME / ".paddlex" / "official_models"  # where PaddleX keeps its models, and offline images carry theirs


def version(tag: str) -> tuple[int, int] | None:
    """The paddleocr inside an official image; None where its tag does not tell."""
    family = next((family for family in images.FAMILIES if family.tag == tag), None)
    if family:
        return family.paddleocr
    known = images.read(tag)
    if known is None:
        return None
    if known.era == "2025":
        return (3, 3)
    if known.era == "latest":
        return max(family.paddleocr for family in images.FAMILIES)
    major, minor = known.era.split(".")
    return int(major), int(minor)


def _image(part: Api | Vlm) -> Image | None:
    image = part.service.image if part.service else None
    return image if image and not image.digest else None


def _official(project: Project) -> Iterator[Image]:
    for service in project.services:
        if service.image and service.image.official and not service.image.digest and service.image.scalar.text.count("/"):
            yield service.image


@rules(
    "KIT101",
    WARNING,
    "`paddlex-genai-…-server` instead of `paddleocr-genai-…-server`",
    why="it is the base on which the official image is built, without paddleocr and without its version tags "
    "(PaddleOCR deploy/paddleocr_vl_docker, vlm.Dockerfile)",
    mend="use paddleocr-genai-vllm-server for the VLM server and paddleocr-vl for the API",
)
def base_image(project: Project) -> Iterator[Hit]:
    for service in project.services:
        if service.image and service.image.name.startswith("paddlex-genai-"):
            name = service.image.name.replace("paddlex-", "paddleocr-", 1)
            place = service.image.scalar.where(service.image.name)
            yield Hit(place, f"{service.image.name} is the base image; the official one is {name}")


@rules(
    "KIT102",
    WARNING,
    "`paddlex_genai_server` instead of `paddleocr genai_server`",
    why="the official image is documented with `paddleocr genai_server`; the other belongs to PaddleX's own base image "
    "(PaddleOCR-VL documentation, Launching the VLM Inference Service)",
    mend="start `paddleocr genai_server` with the same options",
)
def old_command(project: Project) -> Iterator[Hit]:
    for vlm in project.vlms:
        if vlm.word and vlm.word.text.endswith("paddlex_genai_server"):
            image = vlm.service.image
            edits = ()
            if image and image.name in VLM_IMAGES and not vlm.word.item:
                edits = mend.put_part(vlm.word.scalar, vlm.word.text, "paddleocr genai_server")
            yield Hit(vlm.word.place, "paddlex_genai_server is PaddleX's command", edits)


@rules(
    "KIT103",
    ERROR,
    "API and VLM server have tags of different families",
    why="images of different versions or GPU generations do not fit together (OCR#17849, OCR#17571)",
    mend="give both services the same tag",
)
def mixed(project: Project) -> Iterator[Hit]:
    for api, vlm in project.pairs():
        one, other = _image(api), _image(vlm)
        if one and other and one.official and other.official and images.same_family(one.tag, other.tag) is False:
            yield Hit(other.tag_place, f"{other.name} has the tag {other.tag}, {one.name} has {one.tag}: two families")


@rules(
    "KIT104",
    WARNING,
    "one image carries its models, the other does not",
    why="without a network the other one ends with `No available model hosting platforms detected` (OCR#16908, OCR#17349); "
    "with one, a model is downloaded that was meant to be inside",
    mend="take `…-offline` for both or for neither",
)
def half_offline(project: Project) -> Iterator[Hit]:
    for api, vlm in project.pairs():
        one, other = _image(api), _image(vlm)
        if one is None or other is None or not (one.official and other.official and images.same_family(one.tag, other.tag)):
            continue
        if one.tag.endswith("-offline") != other.tag.endswith("-offline"):
            yield Hit(other.tag_place, f"{one.name}:{one.tag} beside {other.name}:{other.tag}")


@rules(
    "KIT105",
    WARNING,
    "a tag of 2025, such as `latest` or `latest-offline`",
    why="these tags were frozen at paddleocr 3.3 and know PaddleOCR-VL-0.9B alone; newer configs fail on them (OCR#17849, "
    "OCR#17571)",
    mend="take a versioned tag, such as paddleocr3.6-nvidia-gpu",
)
def frozen(project: Project) -> Iterator[Hit]:
    for image in _official(project):
        known = images.read(image.tag or "latest")
        carried = any(family.tag == image.tag for family in images.FAMILIES)  # one of them is the only one of its kind
        if known and known.era == "2025" and not carried:
            said = f"the tag {image.tag}" if image.tag else "no tag, which means latest,"
            yield Hit(image.tag_place, f"{image.name}: {said} is of 2025")


@rules(
    "KIT106",
    ERROR,
    "the model is newer than the image",
    why="`Unknown model` or `Failed to get model directory` (OCR#18171, OCR#17571): 1.5 needs images of paddleocr 3.4, 1.6 of "
    "3.6",
    mend="take a newer tag, or the model of this image",
)
def model_too_new(project: Project) -> Iterator[Hit]:
    for vlm in project.vlms:
        model = models.find(vlm.model.text) if vlm.model and vlm.kind == "genai" else None
        yield from _too_new(vlm, model, vlm.model.place if vlm.model else vlm.place)
    for api in project.apis:
        name = api.wiring.model if api.wiring and api.config else None
        yield from _too_new(api, models.find(name.text) if name else None, name.place if name else api.place)


def _too_new(part: Api | Vlm, model: models.Model | None, place: object) -> Iterator[Hit]:
    image = _image(part)
    inside = version(image.tag or "latest") if image and image.official else None
    if image and model and inside and inside < model.paddleocr:
        needs = ".".join(map(str, model.paddleocr))
        yield Hit(place, f"{model.vlm} needs paddleocr {needs}; {image.name}:{image.tag} has {'.'.join(map(str, inside))}")


@rules(
    "KIT107",
    ERROR,
    "a tag that was never published",
    why="the registry ends at paddleocr3.6; `paddleocr3.7-nvidia-gpu` answers 404 (registry list of 2026-09-03)",
    mend="take paddleocr3.6-nvidia-gpu",
)
def unpublished(project: Project) -> Iterator[Hit]:
    for image in _official(project):
        if not images.published(image.tag):
            yield Hit(image.tag_place, f"{image.name}:{image.tag} does not exist")


@rules(
    "KIT108",
    WARNING,
    "a tag of no known family, spelt almost like one",
    why="`manifest unknown` at the first pull (OCR#17607, OCR#17310)",
    mend="correct the tag",
)
def misspelt_tag(project: Project) -> Iterator[Hit]:
    tags = [*(family.tag for family in images.FAMILIES), "latest-nvidia-gpu", "latest-nvidia-gpu-offline"]
    for image in _official(project):
        near = difflib.get_close_matches(image.tag, tags, n=1, cutoff=0.85)
        if near and images.read(image.tag) is None:
            yield Hit(image.tag_place, f"no known tag is called {image.tag}", mend=f"write {near[0]}")


@rules(
    "KIT109",
    ERROR,
    "an image that the registry does not have",
    why="official VLM images exist for vLLM and FastDeploy alone (PaddleOCR-VL documentation); `genai-vlm-server` is a "
    "frequent slip "
    "(OCR#16953, OCR#17310)",
    mend="paddleocr-genai-vllm-server or paddleocr-genai-fastdeploy-server",
)
def no_such_image(project: Project) -> Iterator[Hit]:
    for service in project.services:
        image = service.image
        if image and image.name.startswith("paddleocr-genai") and image.name not in VLM_IMAGES:
            yield Hit(image.scalar.where(image.name), f"{image.name}: no such official image")


@rules(
    "KIT110",
    WARNING,
    "an offline image is asked for a model that it does not carry",
    why="each offline image carries one VLM; for another one the server looks for a model hub and ends "
    "(PaddleOCR commit 19142f1)",
    mend="ask for the model inside, or take the tag without -offline",
)
def not_inside(project: Project) -> Iterator[Hit]:
    for vlm in project.vlms:
        image = _image(vlm)
        family = next((f for f in images.FAMILIES if image and f.tag == image.tag and f.offline), None)
        wanted = models.find(vlm.model.text) if vlm.model else None
        if image and family and wanted and wanted != models.find(family.carries) and not vlm.option("--model_dir"):
            yield Hit(vlm.place, f"{wanted.vlm} is asked for; {image.tag} carries {family.carries}")


@rules(
    "KIT111",
    ERROR,
    "the server starts another engine than the image has",
    why="`The 'fastdeploy-server' plugin is not available. Please install it first.` Without --backend it starts "
    "fastdeploy (paddlex 3.7.2 source, genai/server.py, DEFAULT_BACKEND)",
    mend="say --backend vllm in the vllm image, --backend fastdeploy in the fastdeploy image",
)
def wrong_engine(project: Project) -> Iterator[Hit]:
    for vlm in project.vlms:
        match = VLM_IMAGE.fullmatch(vlm.service.image.name) if vlm.service.image else None
        if match and vlm.kind == "genai" and vlm.engine != match[1]:
            named = vlm.option("--backend")
            if named is None:
                option, text = f"--backend {match[1]}", f"no --backend: fastdeploy starts, in the image of {match[1]}"
                yield Hit(vlm.place, text, vlm.with_option(option), f"add {option}")
            else:
                yield Hit(named.place, f"--backend {named.text} in the image of {match[1]}", mend=f"say --backend {match[1]}")


@rules(
    "KIT112",
    ERROR,
    "the image was built for another GPU generation",
    why="`no kernel image is available for execution on the device`: Blackwell cards (compute capability 12.0) need the sm120 "
    "tags and a driver for CUDA 12.9; those serve no older card (OCR#17507, OCR#17893)",
    mend="Blackwell cards: latest-nvidia-gpu-sm120; all others: paddleocr3.6-nvidia-gpu",
)
def wrong_generation(project: Project) -> Iterator[Hit]:
    cards = project.nvidia.gpus if project.nvidia else ()
    for image in _official(project) if cards else ():
        known = images.read(image.tag)
        if known is None or known.accelerator not in ("nvidia-gpu", "gpu"):
            continue
        fits = [card.capability >= (12, 0) for card in cards if card.capability != (0, 0)]
        if fits and not any(new == (known.build == images.BLACKWELL) for new in fits):
            card = cards[0]
            yield Hit(image.tag_place, f"{image.tag} does not run on {card.name} ({card.capability[0]}.{card.capability[1]})")


@rules(
    "KIT113",
    WARNING,
    "the VLM image runs the API, or the API image runs the VLM server",
    why="the VLM image has no PaddlePaddle for layout detection, the API image no inference engine (PaddleOCR deploy "
    "Dockerfiles; "
    "`No module named 'paddle'`, OCR#16956)",
    mend=f"{API_IMAGE} for the API, paddleocr-genai-vllm-server for the VLM",
)
def wrong_image_for_the_job(project: Project) -> Iterator[Hit]:
    for api in project.apis:
        image = api.service.image if api.service else None
        if image and VLM_IMAGE.fullmatch(image.name):
            yield Hit(image.scalar.where(image.name), f"{image.name} is made for the VLM server and runs the API")
    for vlm in project.vlms:
        image = vlm.service.image
        if image and image.name == API_IMAGE:
            yield Hit(image.scalar.where(image.name), f"{image.name} is made for the API and runs the VLM server")


def _over_models(service: Service) -> Iterator[Mount]:
    """Mounts on the folder of the models, or on one above it."""
    yield from (m for m in service.mounts if m.target == MODELS_INSIDE or m.target in MODELS_INSIDE.parents)


def _official_services(project: Project, *, offline: bool) -> Iterator[tuple[Service, Image]]:
    """Services of official images whose tag says that the models are inside, or that they are not."""
    for service in project.services:
        image = service.image
        known = images.read(image.tag) if image and image.official and not image.digest else None
        if image and known and known.offline == offline and not service.build:
            yield service, image


@rules(
    "KIT114",
    WARNING,
    "a volume over the models inside an offline image",
    why="a new volume takes a copy of what the first image has there, and shows that for ever: models of a newer image stay "
    "unseen, and of two services one sees only the other's models: `No available model hosting platforms detected` (Docker "
    "documentation, Volumes)",
    mend="leave the volume out: without compose.models.yaml in COMPOSE_FILE",
)
def hidden_models(project: Project) -> Iterator[Hit]:
    carrying = list(_official_services(project, offline=True))
    for service, image in carrying:
        for mount in _over_models(service):
            shared = any(
                other.source == mount.source and other.named
                for beside in project.services
                if beside is not service
                for other in beside.mounts
            )
            if mount.named:
                text = f"the volume {mount.source} lies over the models of {image.name}:{image.tag}"
                yield Hit(mount.target_place, text, severity=ERROR if shared else None)


def _told(service: Service) -> bool:
    """Was it told that there is no model hub?"""
    told = scalar(as_mapping(service.get("environment")), "HF_HUB_OFFLINE")
    return told is not None and told.text.lower() in ("1", "true", "yes", "on")  # as huggingface_hub reads it


def _cut_off(service: Service, project: Project) -> bool:
    """Has it no network with a way out, or was it told that there is none?"""
    if _told(service):
        return True
    networks = as_mapping(service.get("networks")).items
    found = [find(project.compose.root, "networks", name) for name in networks] if project.compose else []
    inside = [value for value in (scalar(network, "internal") for network in found) if value and value.text.lower() == "true"]
    return bool(found) and len(inside) == len(found)


@rules(
    "KIT115",
    ERROR,
    "no models: not in the image, not in a volume, and no way to fetch them",
    why="`No available model hosting platforms detected`, or after 20 s `No model source is available` (paddlex 3.7.2, measured "
    "without network)",
    mend="take the `…-offline` tags; or add compose.models.yaml with the models in its volume (docs/offline.md)",
)
def nowhere_a_model(project: Project) -> Iterator[Hit]:
    own = {vlm.service.name for vlm in project.vlms if vlm.option("--model_dir")}
    own |= {
        api.service.name
        for api in project.apis
        if api.service and api.config and (folder := scalar(api.config.tree, "SubModules", "LayoutDetection", "model_dir"))
        if folder.value
    }
    roles = {part.service.name for part in (*project.apis, *project.vlms) if part.service}
    for service, image in _official_services(project, offline=False):
        if service.name in roles - own and not any(_over_models(service)) and _cut_off(service, project):
            yield Hit(image.tag_place, f"{service.name} is cut off, and {image.name}:{image.tag} carries no models")


@rules(
    "KIT117",
    WARNING,
    "behind the gateway nothing can be fetched: the models must be in the volume already",
    why="compose.gateway.yaml cuts API and VLM server off; with an empty volume they end with `No available model hosting "
    "platforms detected` (paddlex 3.7.2, measured without network)",
    mend="VLM_NETWORK_INTERNAL=false in .env for the first start, and for good if you like; or the `…-offline` tags",
)
def nothing_to_fetch_with(project: Project) -> Iterator[Hit]:
    apis = {api.service.name for api in project.apis if api.service}
    for service, image in _official_services(project, offline=False):
        if service.name in apis and any(_over_models(service)) and not _told(service) and _cut_off(service, project):
            yield Hit(image.tag_place, f"{service.name} is cut off, and {image.name}:{image.tag} fetches its models")


@rules(
    "KIT116",
    ERROR,
    "a volume on ~/.paddlex, which the image does not have",
    why="a new volume gets its owner from the image; where that has no such folder it is root's, and user 1000 cannot write: "
    "`PermissionError: … '/home/paddleocr/.paddlex/…'` (official Dockerfiles; Docker 20.10 and 26.1, measured)",
    mend="mount the volume on /home/paddleocr, as compose.models.yaml does",
)
def unwritable_volume(project: Project) -> Iterator[Hit]:
    for service, image in _official_services(project, offline=False):
        user = service.scalar("user")
        if user and user.text.split(":")[0] in ("0", "root"):
            continue
        for mount in _over_models(service):
            if mount.named and IMAGE_HOME in mount.target.parents:
                yield Hit(mount.target_place, f"{image.name}:{image.tag} has no {mount.target}: the volume will be root's")
