"""./kit up: start the service and wait until it has parsed a page."""

from __future__ import annotations

import argparse
import os

from kit import access, console, envs, health
from kit.catalog.settings import Settings
from kit.errors import ExitCode, KitError
from kit.facts.gpus import nvidia
from kit.lint import Severity, lint, load
from kit.paths import ROOT, SAMPLE
from kit.stack import GATEWAY, Stack, rolling, start, takeover
from kit.stack.choose import chosen
from kit.stack.compose import ComposeStack
from kit.stack.local import LocalStack
from kit.verbs.arguments import Verbs, seconds
from kit.verbs.lint import where

LOCAL_TIMEOUT, COMPOSE_TIMEOUT = 300.0, 3600.0  # seconds; Compose may pull 23 GB, or build


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser("up", help="start the service and wait until it has parsed a page")
    parser.add_argument("--preview", action="store_true", help="the CPU preview, also where there is a GPU")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--local", action="store_true", help="the CPU preview as processes, also where Docker is")
    how.add_argument("--docker", action="store_true", help="containers or nothing")
    parser.add_argument(
        "--timeout", type=seconds, metavar="SECONDS", help="give up after so long (processes 300, containers 3600)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    settings = Settings(ROOT, os.environ)
    (ROOT / ".kit").mkdir(exist_ok=True)
    with envs.locked(ROOT / ".kit" / "up.lock", waiting=lambda: console.say("another ./kit up is under way; waiting for it")):
        stack = chosen(settings, preview=arguments.preview, local=arguments.local, containers=arguments.docker)
        _check_files(stack, settings)
        if _serves(stack):
            console.say("already up: nothing to do")
            say_where(stack)
            return
        limit = arguments.timeout or (LOCAL_TIMEOUT if isinstance(stack, LocalStack) else COMPOSE_TIMEOUT)
        if _replaced(stack, limit):
            page = health.deep(stack.url, SAMPLE)
        else:
            if stack.down():
                console.say("what ran was incomplete or of another configuration: it was stopped")
            page = start.bring_up(stack, SAMPLE, limit)
    console.say(f"✔ serving: {SAMPLE.relative_to(ROOT)} was parsed in {page.seconds:.1f} s", "green")
    say_where(stack)
    console.data(page.markdown)


def _check_files(stack: Stack, settings: Settings) -> None:
    """What ./kit lint finds in the files that this stack reads. Raises KitError (USAGE) on the first error."""
    if isinstance(stack, LocalStack):
        project = load(ROOT, os.environ, files=[], pipeline=settings.path("PIPELINE_CONFIG"), preview=True)
    elif isinstance(stack, ComposeStack) and stack.preview:  # its image takes this very config
        project = load(ROOT, os.environ, files=stack.compose_files, pipeline=ROOT / "pipeline_config_vllm.yaml", preview=True)
    else:
        # Where COMPOSE_FILE is set the linter reads it too, and can say in which line a name is wrong.
        files = None if settings.given("COMPOSE_FILE") or not isinstance(stack, ComposeStack) else stack.compose_files
        project = load(ROOT, os.environ, files=files, nvidia=nvidia())
    found = lint(project)
    errors = [finding for finding in found if finding.severity is Severity.ERROR]
    for finding in found:
        if finding.severity is Severity.WARNING and not errors:
            console.say(f"{where(finding)}: {finding.message} ({finding.rule.id}; {finding.mend})", "yellow")
    if errors:
        first, *others = errors
        raise KitError(
            f"{where(first)}: {first.message} ({first.rule.id})",
            f"{first.mend}; ./kit lint{' --fix' if first.edits else ''}",
            ExitCode.USAGE,
            detail=tuple(f"{where(finding)}: {finding.message} ({finding.rule.id})" for finding in others),
        )


def _replaced(stack: Stack, timeout: float) -> bool:
    """Take a changed configuration over while the gateway serves; False where there is none that does."""
    if stack.is_current():  # and does not work: then it is started anew
        return False
    if isinstance(stack, ComposeStack) and rolling.can_roll(stack):
        rolling.roll(stack, timeout)
    elif isinstance(stack, LocalStack) and takeover.can_take_over(stack):
        takeover.take_over(stack, console.say, timeout)
    else:
        return False
    return True


def _serves(stack: Stack) -> bool:
    services = stack.ps()
    if not all(service.state == "ready" for service in services) or not stack.is_current():
        return False
    try:
        health.deep(stack.url, SAMPLE)
    except KitError as error:
        console.say(f"it runs, but does not work: {error.message}")
        return False
    return True


def say_where(stack: Stack) -> None:
    body = f"""(printf '{{"fileType":1,"file":"'; base64 < '{SAMPLE}' | tr -d '\\n'; printf '"}}')"""
    key = ' -H "Authorization: Bearer $KEY"' if access.of(stack.url).key else ""
    post = f"curl -sS -H 'Content-Type: application/json'{key} --data-binary @- {stack.url}/layout-parsing"
    for image in stack.images():
        console.say(f"{image.service}  {image.reference}  {image.id[:19]}  {image.kind}")
    console.say(
        f"\nAPI     POST {stack.url}/layout-parsing\n"
        f"page    {f'{stack.url}/ in a browser' if GATEWAY in stack.services else './kit view'}\n"
        f"health  GET  {stack.url}/health\n\n"
        f"try it  {body} | {post}\n"
        f"or      ./kit parse {SAMPLE.relative_to(ROOT)}\n"
        f"stop    ./kit down\n" + ("$KEY is one of GATEWAY_API_KEYS_FILE\n" if key else "")
    )
