"""./kit configure: what to run on which card with how much memory, and the files that say so."""

from __future__ import annotations

import argparse
import os
import sys
from urllib.parse import urlsplit

from kit import configure, console
from kit.catalog import backends, models
from kit.catalog.settings import Settings
from kit.errors import ExitCode, KitError
from kit.facts.gpus import nvidia
from kit.facts.machine import machine
from kit.paths import ROOT
from kit.plan import AUTO, TOPOLOGIES, USUAL_BACKEND, Plan, Wishes, plan
from kit.plan.memory import GIB
from kit.stack.choose import active
from kit.verbs.arguments import Verbs

LOCAL = ("localhost", "127.0.0.1", "::1", "0.0.0.0")


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser(
        "configure",
        help="plan cards, images and memory for this machine; write .env",
        description="Plans cards, images, model and memory for this machine, says why, shows what would change in .env and the "
        "local configs, and writes it. On a terminal it asks first; elsewhere it writes without a question. Your own lines, "
        "keys and comments stay. Without an NVIDIA GPU, or on one that cannot do it, nothing is written (exit code 6).",
    )
    models_ = ", ".join(model.name for model in models.MODELS)
    parser.add_argument("--model", default="", metavar="NAME", help=f"{models_}; 1.6 will do (default: as it is)")
    names = [backend.name for backend in backends.BACKENDS]
    parser.add_argument(
        "--backend", choices=names, metavar="NAME", help=f"who reads the blocks: {', '.join(names)} (default: as it is)"
    )
    parser.add_argument(
        "--gpu",
        default="auto",
        metavar="IDS",
        help="auto, or indexes or UUIDs with commas: one is shared, of two the VLM takes the roomier one, "
        "more get a service each",
    )
    parser.add_argument(
        "--topology", default="", choices=TOPOLOGIES, metavar="KIND", help="shared: API and VLM on one card; split: on two; "
        "pairs: both on every card, a service each (default: by the number of cards)",
    )  # fmt: skip
    parser.add_argument("--offline", action="store_true", help="images with the models inside")
    parser.add_argument("--budget", type=gibibytes, metavar="GIB", help="take no more of each card than this")
    parser.add_argument(
        "--vlm-url",
        type=_url,
        metavar="URL",
        help="a VLM server of your own, ending in /v1: the API alone is started",
    )
    parser.add_argument(
        "--replicas",
        type=_replicas,
        metavar="N",
        help="APIs behind the gateway: a number, `auto` for what cores, RAM and cards allow, 0 for none (default: as it is)",
    )
    parser.add_argument("--yes", action="store_true", help="write without asking")
    parser.add_argument("--dry-run", action="store_true", help="show the plan and the changes, write nothing")
    parser.set_defaults(run=run)


def gibibytes(text: str) -> float:
    value = float(text)
    if not 0 < value < 10_000:
        raise ValueError
    return value


gibibytes.__name__ = "number of GiB"


def _url(text: str) -> str:
    """A base URL as PaddleX's client wants it. Raises KitError (USAGE), which says more than argparse would."""
    text = text.rstrip("/")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise KitError(f"--vlm-url {text} is no HTTP address", "such as http://10.0.0.5:8118/v1", ExitCode.USAGE)
    if not parts.path.endswith("/v1"):
        raise KitError(f"--vlm-url {text} does not end in /v1 (OCR#16897)", f"--vlm-url {text}/v1", ExitCode.USAGE)
    if parts.hostname in LOCAL:
        where = f"{parts.scheme}://host.docker.internal{f':{port}' if port else ''}{parts.path}"
        raise KitError(
            f"--vlm-url {text} would be the API's own container",
            f"let the server listen on 0.0.0.0 and give --vlm-url {where}",
            ExitCode.USAGE,
        )
    return text


def run(arguments: argparse.Namespace) -> ExitCode:
    settings = Settings(ROOT, os.environ)
    gpus = () if arguments.gpu == "auto" else tuple(word.strip() for word in arguments.gpu.split(",") if word.strip())
    wishes = Wishes(
        model=arguments.model,
        backend=arguments.backend or _usual_backend(settings["VLM_BACKEND"]),
        gpus=gpus,
        topology=arguments.topology,
        offline=arguments.offline,
        budget=arguments.budget,
        vlm_url=arguments.vlm_url or "",
        usual_model=settings["VLM_MODEL_NAME"],
        replicas=int(settings.given("API_REPLICAS") or 0) if arguments.replicas is None else arguments.replicas,
    )
    made = plan(nvidia(), machine(), wishes)
    console.data(shown(made))
    changes = configure.changes(made, ROOT, settings)
    _warn_of_environment(made)
    if not changes:
        console.say("nothing changes: the files are as planned")
        return ExitCode.OK
    for change in changes:
        console.data(change.title)
        console.data("\n".join(f"  {line}" for line in change.lines()) + "\n")
    if arguments.dry_run:
        console.say("nothing was written (--dry-run)")
        return ExitCode.OK
    _require_idle(settings)
    if not arguments.yes and sys.stdin.isatty() and not _confirmed(len(changes)):
        console.say("nothing was written")
        return ExitCode.OK
    configure.write(changes)
    console.say("written: " + ", ".join(change.path.name for change in changes))
    for command in configure.start_commands(made):
        console.say(f"next: {command}")
    return ExitCode.OK


def _replicas(text: str) -> int:
    if text == "auto":
        return AUTO
    if not text.isdigit() or int(text) > 64:
        raise KitError(f"--replicas {text}", "a number from 0 to 64, or auto", ExitCode.USAGE)
    return int(text)


def _usual_backend(name: str) -> str:
    """The backend in force, where it is one that the kit starts."""
    found = backends.find(name)
    return found.name if found and found.image else USUAL_BACKEND


def shown(made: Plan) -> str:
    """The plan: each choice with its reason, then what takes how much of each card."""
    lines = []
    for choice in made.choices:
        lines += [f"{choice.name:<24}{choice.value}", f"{'':<24}  {choice.reason}"]
    for placed in made.placed:
        for card, budget in placed.budgets:
            lines += ["", f"memory of {card.label}, GiB (estimates: docs/configure.md)"]
            parts = sorted(budget.parts, key=lambda part: not part.share)
            lines += [f"  {part.size / GIB:7.2f}  {part.service}  {part.name}" for part in parts]
            lines.append(
                f"  {budget.planned / GIB:7.2f}  planned, of {budget.free / GIB:.2f} free and {budget.total / GIB:.2f} in all"
            )
    return "\n".join(lines) + "\n"


def _warn_of_environment(made: Plan) -> None:
    for key, value in configure.env_values(made, ROOT).items():
        if os.environ.get(key) not in (None, "", value):
            console.say(f"{key}={os.environ[key]} in your environment wins over .env: unset it", "yellow")


def _require_idle(settings: Settings) -> None:
    """What a running service holds would be taken for used: the new plan would be a smaller one."""
    stack = active(settings)
    if stack and "GPU" in stack.label:
        raise KitError(
            "the service is running, and the memory that it holds counts as used", "./kit down, then again", ExitCode.FAILED
        )


def _confirmed(files: int) -> bool:
    console.say(f"write {'this file' if files == 1 else f'these {files} files'}? [Y/n] ")
    return sys.stdin.readline().strip().lower() in ("", "y", "yes")
