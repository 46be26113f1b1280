"""Writes what is made from the tables in scripts/kit: .env.example, docs/settings.md, docs/cli.md, docs/lint.md,
docs/catalog.md, docs/troubleshooting.md, pipeline_config_gateway.yaml, and the tables in docs/gateway.md.

.kit/venv/bin/python scripts/render.py          write
.kit/venv/bin/python scripts/render.py --check  exit 1 when a file differs
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from kit import cli, lint  # noqa: E402
from kit.catalog import failures, settings  # noqa: E402
from kit.errors import EXIT_MEANING  # noqa: E402
from kit.gateway import causes, metrics  # noqa: E402
from kit.gateway import settings as gateway_settings  # noqa: E402
from kit.plan import tables  # noqa: E402
from kit.preview.overlay import REPLICA_CONCURRENCY  # noqa: E402
from kit.stack import logs  # noqa: E402

MADE = "<!-- made by scripts/render.py; change the tables in scripts/kit -->\n\n"


def settings_page() -> str:
    return (
        MADE + "# Settings\n\n"
        "Set them in `.env` beside `compose.yaml` (start from `.env.example`) or in the environment, which wins.\n"
        "An empty value counts as not set.\n\n" + settings.markdown_table()
    )


def cli_page() -> str:
    os.environ["COLUMNS"] = "100"
    parser = cli.parser()
    verbs = parser._subparsers._group_actions[0].choices
    text = MADE + "# ./kit\n\nResults go to stdout, talk to stderr. `NO_COLOR` is respected.\n"
    for name, verb in verbs.items():
        text += f"\n## ./kit {name}\n\n```\n{verb.format_help().strip()}\n```\n"
    text += "\n## Exit codes\n\n| code | meaning |\n| --- | --- |\n"
    return text + "".join(f"| {int(code)} | {meaning} |\n" for code, meaning in EXIT_MEANING.items())


def troubleshooting_page() -> str:
    return (
        MADE + "# Troubleshooting\n\n"
        "`./kit diagnose` looks for all of this in the logs of the services that run here, or have died; `./kit diagnose FILE`\n"
        "in any log, `… | ./kit diagnose -` in what is piped in. Each cause is listed once, the most fundamental first, with\n"
        "the last line that shows it. Of a service that serves, what its log says before the last parsed page counts as past.\n"
        "`./kit up`, `status` and `logs` do the same by themselves.\n\n"
        "Exit code 0: causes are known, or there is no trouble. 1: there is trouble of an unknown kind. Then\n"
        "`./kit diagnose --bundle` writes one .zip (it opens by a double click everywhere, and GitHub takes it): versions, what\n"
        "runs and how often it was restarted, `./kit doctor` and `./kit lint`, the configuration as Compose resolves it, the\n"
        f"last {logs.LINES} lines of each log. Secrets are taken out by their names, by their shape, and wherever the values of\n"
        "secret-sounding settings stand. Look into it before you send it.\n\n"
        "`OCR#` and `PDX#` are issues of PaddlePaddle/PaddleOCR and PaddlePaddle/PaddleX; *measured* means provoked with the\n"
        "program named.\n" + failures.markdown_tables()
    )


def lint_page() -> str:
    return (
        MADE + "# ./kit lint\n\n"
        "Reads what `docker compose` would read in a folder: compose.yaml and its overrides (or COMPOSE_FILE), `.env`, the "
        "pipeline config and the VLM config that the services mount and load, a Dockerfile and its start script where a "
        "service is built. Neither Docker nor Compose is needed, nothing is written without `--fix`, and nothing is asked of "
        "a network. Services may have any names: the API is the one that runs `paddlex --serve` (or calls `PaddleOCRVL` in "
        "Python), the VLM server the one that runs `genai_server`, vLLM, SGLang, FastDeploy or llama.cpp.\n\n"
        "- **error**: it will not start, or not do what was asked. `./kit lint` ends with 1, and `./kit up` does not start (2).\n"
        "- **warning**: it bites later. **info**: worth knowing. Both end with 0.\n"
        "- `--fix` mends where only one mend is possible, shows each changed line, and lints again. Comments and layout stay.\n"
        "- `--json`: a list of `{id, severity, file, line, message, why, mend, fixable}` on stdout.\n"
        "- What depends on the card is judged by this machine's, and for this project alone: another "
        "folder may be meant for another machine.\n\n" + lint.markdown_table()
    )


def catalog_page() -> str:
    return (
        MADE + "# Models, images, backends, memory\n\n"
        "What `./kit configure` plans with, and where it comes from. OCR# and PDX# are issues of PaddlePaddle/PaddleOCR and "
        "PaddlePaddle/PaddleX. How it is used: [configure.md](configure.md).\n\n" + tables.markdown()
    )


def gateway_page() -> str:
    """Written by hand but for its tables, each between two comments."""
    tables = {
        "settings": gateway_settings.markdown_table(),
        "causes": causes.markdown_table(),
        "metrics": metrics.markdown_table(),
    }
    text = (ROOT / "docs/gateway.md").read_text()
    for name, table in tables.items():
        begin, end = f"<!-- {name}: made by scripts/render.py -->\n", "<!-- end -->"
        before, _, rest = text.partition(begin)
        text = before + begin + table + end + rest.partition(end)[2]
    return text


def gateway_config() -> str:
    """Of a replica behind the gateway: the usual one without PaddleX's queues, and with fewer blocks on their way at once."""
    text = (ROOT / "pipeline_config_vllm.yaml").read_text()
    server = "      server_url: http://paddleocr-vlm-server:8118/v1\n"
    assert text.count("use_queues: True\n") == 1
    assert text.count(server) == 1
    more = "      # Its client looks through all open requests for each: with PaddleX's 200 that costs more than the request.\n"
    more += f"      max_concurrency: {REPLICA_CONCURRENCY}\n"
    header = "# Made by scripts/render.py from pipeline_config_vllm.yaml, for an API behind the gateway: without the queues,\n"
    header += "# which cost 0.5 s a request and are of use only within a long document, and that one the gateway cuts.\n"
    return header + text.replace("use_queues: True\n", "use_queues: False\n").replace(server, server + more)


PAGES = {
    "pipeline_config_gateway.yaml": gateway_config,
    ".env.example": settings.env_example,
    "docs/settings.md": settings_page,
    "docs/cli.md": cli_page,
    "docs/troubleshooting.md": troubleshooting_page,
    "docs/lint.md": lint_page,
    "docs/catalog.md": catalog_page,
    "docs/gateway.md": gateway_page,
}


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--check", action="store_true")
    check = arguments.parse_args().check
    stale = [name for name, make in PAGES.items() if not (ROOT / name).exists() or (ROOT / name).read_text() != make()]
    for name in stale:
        print(f"differs: {name}" if check else f"written: {name}")
        if not check:
            (ROOT / name).write_text(PAGES[name]())
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
