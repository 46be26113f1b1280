"""python -m kit.gateway: see docs/gateway.md."""

from __future__ import annotations

import os
import sys

from kit.errors import KitError
from kit.gateway import server, settings


def main() -> int:
    """Serve until a signal; the exit code, as kit.errors has them."""
    try:
        server.serve(settings.load(sys.argv[1:], os.environ))
    except KitError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        return int(error.code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
