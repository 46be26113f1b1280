"""A new gateway takes over from the old one without a moment in which nobody listens.

The old one passes its listening socket through a Unix socket (SCM_RIGHTS): both hold the same queue of connections, so
that closing one end of it drops none. When the new one can read pages it says so, and the old one finishes
what it has. SO_REUSEPORT would not do: closing one of two sockets resets the connections that wait in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from pathlib import Path

READY = b"ready"
_GIVE = b"listener"
_SECONDS = 5.0  # for the old one to answer


class Handover:
    """path: of the Unix socket, which its folder's rights protect; None: there is no handing over."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._old: socket.socket | None = None
        self._server: asyncio.AbstractServer | None = None

    def take(self) -> socket.socket | None:
        """The listening socket of a gateway that runs, or None where none does."""
        if self._path is None:
            return None
        old = socket.socket(socket.AF_UNIX)
        old.settimeout(_SECONDS)
        try:
            old.connect(str(self._path))
            word, descriptors, _, _ = socket.recv_fds(old, len(_GIVE), 1)
        except OSError:
            old.close()
            return None
        if word != _GIVE or not descriptors:
            old.close()
            return None
        self._old = old
        return socket.socket(fileno=descriptors[0])

    @property
    def is_taking(self) -> bool:
        """Whether `take` has got a socket, and the old gateway has not been told to go."""
        return self._old is not None

    def tell_ready(self) -> None:
        """To the old gateway: it may go."""
        if self._old is not None:
            with contextlib.suppress(OSError):
                self._old.sendall(READY)
            self._old.close()
            self._old = None

    async def offer(self, listener: socket.socket, leave: Callable[[], None]) -> None:
        """From now on pass `listener` to who asks; `leave` is called when he is ready. Raises OSError.

        To be done before the old one is told: a new socket at the path is the sign that the port has changed hands.
        """
        if self._path is None:
            return
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()

        async def give(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                copy = socket.socket(fileno=writer.get_extra_info("socket").fileno())
                try:
                    socket.send_fds(copy, [_GIVE], [listener.fileno()])
                finally:
                    copy.detach()
                if await reader.read(len(READY)) == READY:
                    leave()
            writer.close()

        self._server = await asyncio.start_unix_server(give, str(self._path))
        self._path.chmod(0o600)

    def end(self) -> None:
        """Offer nothing any more. The path is the new one's by now, or useless."""
        if self._server is not None:
            self._server.close()
