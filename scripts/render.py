"""Writes what is made from the tables in scripts/kit: .env.example, docs/settings.md, docs/cli.md.

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

from kit import cli  # noqa: E402
from kit.catalog import settings  # noqa: E402
from kit.errors import EXIT_MEANING  # noqa: E402

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


PAGES = {
    ".env.example": settings.env_example,
    "docs/settings.md": settings_page,
    "docs/cli.md": cli_page,
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
