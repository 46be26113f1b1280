"""What goes on for ever beside the requests: a fault in it must not end it unseen."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

LOG = logging.getLogger("kit.gateway")
_PAUSE = 1.0  # seconds after a fault


async def kept_up(watch: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `watch`; whatever it stumbles over is logged, and it begins anew."""
    while True:
        try:
            return await watch()
        except Exception:
            LOG.exception("%s begins anew", watch.__qualname__)
            await asyncio.sleep(_PAUSE)
