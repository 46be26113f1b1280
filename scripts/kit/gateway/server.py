"""The gateway on a port: uvicorn with a limit on slow heads, and a SIGTERM that finishes what runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import socket
import ssl
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from kit.errors import ExitCode, KitError
from kit.gateway.app import Gateway
from kit.gateway.auth import Keys, KeysError
from kit.gateway.handover import Handover
from kit.gateway.settings import Settings

LOG = logging.getLogger("kit.gateway")

LAST_SECONDS = 2  # for replies that are still being taken when the time for stopping is over
MOST_CONNECTIONS = 4096
KEEP_ALIVE = 65  # seconds; longer than the minute after which most clients and proxies close by themselves


class Server(uvicorn.Server):
    """Answers 503 to new requests from the first SIGTERM on, and ends when the running ones have; the second ends it at once."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway, listener: socket.socket, handover: Handover) -> None:
        super().__init__(config)
        self._gateway, self._listener, self._handover = gateway, listener, handover
        self._draining = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self.started:
            LOG.info("listening on %s:%d", *self._listener.getsockname()[:2])
            try:
                await self._handover.offer(self._listener, lambda: self._tasks.append(asyncio.create_task(self._leave())))
            except OSError as error:
                LOG.warning("no gateway can take over from this one: %s", error)
            self._handover.tell_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._draining or self._loop is None:
            super().handle_exit(sig, frame)
            return
        self._draining = True
        self._loop.call_soon_threadsafe(lambda: self._tasks.append(asyncio.create_task(self._stop())))

    async def _leave(self) -> None:
        LOG.info("another gateway has taken over: %d requests are open", len(self._gateway.running))
        self._handover.end()
        for server in self.servers:
            server.close()
        await self._gateway.leave()
        # A SIGTERM meanwhile has its own time for what is still running.
        self.should_exit = self.should_exit or not self._draining

    async def _stop(self) -> None:
        LOG.info("stopping: %d requests are open", len(self._gateway.running))
        self._handover.end()
        await self._gateway.drain()
        self.should_exit = True


def protocol(header_seconds: float, stall_seconds: float) -> type[H11Protocol]:
    """uvicorn's HTTP/1.1 with time limits on the head of each request and on a client that takes no more of its reply.

    Half of the files that the process may open are for connections of clients, the others for replicas and documents.
    """
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    most = MOST_CONNECTIONS if files == resource.RLIM_INFINITY else min(MOST_CONNECTIONS, files // 2)

    class Protocol(H11Protocol):
        _late: asyncio.TimerHandle | None = None
        _stalled: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._watch()
            if len(self.connections) > most:
                transport.abort()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def pause_writing(self) -> None:
            super().pause_writing()
            # close() would wait for the very client that takes nothing.
            self._stalled = self.loop.call_later(stall_seconds, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            if self._stalled is not None:
                self._stalled.cancel()

        def connection_lost(self, exc: Exception | None) -> None:
            self._unwatch()
            if self._stalled is not None:
                self._stalled.cancel()
            super().connection_lost(exc)

        def _watch(self) -> None:
            if self.cycle is not None and not self.cycle.response_complete:
                self._unwatch()
            elif self._late is None:
                self._late = self.loop.call_later(header_seconds, self._give_up)

        def _unwatch(self) -> None:
            if self._late is not None:
                self._late.cancel()
                self._late = None

        def _give_up(self) -> None:
            self._late = None
            if (self.cycle is None or self.cycle.response_complete) and not self.transport.is_closing():
                self.transport.close()

    return Protocol


def serve(settings: Settings) -> None:
    """Listen until a signal. Raises KitError: USAGE for keys or a certificate, PORT when it cannot listen."""
    try:
        keys = Keys(settings.api_keys or "", settings.api_keys_file)
    except KeysError as error:
        raise KitError(str(error), "one key a line, NAME:KEY or KEY", ExitCode.USAGE) from None
    _check_certificate(settings)
    handover = Handover(settings.handover)
    listener = handover.take() or _listen(settings)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    if not keys.required and settings.host not in ("127.0.0.1", "::1"):
        LOG.warning("listening on %s without API keys: whoever reaches this port is let in", settings.host)
    # The old one goes on until this one has read a page; one that cannot takes nothing over.
    gateway = Gateway(settings, keys, ready_within=settings.seconds_for(1) if handover.is_taking else None)
    config = uvicorn.Config(
        gateway, http=protocol(settings.header_seconds, settings.stall_seconds), ws="none", lifespan="on",
        log_config=None, log_level="warning", access_log=False, server_header=False, proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE, timeout_graceful_shutdown=LAST_SECONDS,
        ssl_certfile=settings.tls_certificate, ssl_keyfile=settings.tls_key,
    )  # fmt: skip
    server = Server(config, gateway, listener, handover)
    with listener, contextlib.suppress(SystemExit):  # uvicorn's, when the gateway could not start
        asyncio.run(server.serve(sockets=[listener]))
    if not server.started:
        raise KitError("the gateway could not start", "the lines above tell why", ExitCode.START)


def _check_certificate(settings: Settings) -> None:
    if settings.tls_certificate is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls_certificate, settings.tls_key, lambda: "")
    except (OSError, ssl.SSLError) as error:
        reason = " ".join(str(getattr(error, "strerror", "") or error).split())
        hint = "PEM files that belong together, the key without a passphrase"
        raise KitError(f"the certificate or its key cannot be used: {reason}", hint, ExitCode.USAGE) from None


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        reason = f"cannot listen on {settings.host}:{settings.port}: {error.strerror}"
        raise KitError(reason, "--port takes another one", ExitCode.PORT) from None
    return listener
