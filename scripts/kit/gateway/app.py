"""The ASGI service: routes, one request from its head to its end, errors in upstream's shape."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import aiohttp

from kit.gateway import contract, metrics, openapi, pages
from kit.gateway.auth import Keys
from kit.gateway.body import FileValue, LayoutBody, Room, Spool, parse_object
from kit.gateway.causes import Refusal
from kit.gateway.discovery import Discovery
from kit.gateway.dispatch import Pool
from kit.gateway.exchange import ClientLeft, Exchange, Receive, Send, close_unused
from kit.gateway.fetch import fetch
from kit.gateway.parse import Answer, Parser, Request
from kit.gateway.replica import PARSE, RESTRUCTURE, Replica
from kit.gateway.settings import Settings
from kit.gateway.splitters import Splitters
from kit.gateway.vlm import Vlm
from kit.gateway.watching import kept_up

LOG = logging.getLogger("kit.gateway")

ROUTES = {
    **{"/health": ("GET", "HEAD"), "/ready": ("GET", "HEAD"), "/metrics": ("GET", "HEAD"), "/openapi.json": ("GET", "HEAD")},
    **{PARSE: ("POST",), RESTRUCTURE: ("POST",)},
}
OPEN = ("/health", "/ready")  # without a key: for balancers and orchestrators
_SHARE = 4  # requests that a client may have open for each place that is free
_REFUSED_BYTES, _REFUSED_SECONDS = 2**20, 2.0  # of what one who was not let in is still sending
_BROKEN_OFF_SECONDS = 10.0  # for what is still coming of a request that was let in
_QUIET_SECONDS = 1.0  # without a request, before a gateway goes whose port another one has
_PIECE = 2**16  # bytes of a reply that are sent at once; server.py limits the time that a client takes for them


class Gateway:
    """The service. Started and stopped by ASGI's lifespan."""

    def __init__(self, settings: Settings, keys: Keys, ready_within: float | None = None) -> None:
        """ready_within: seconds after which it gives up when it cannot read pages; it listens when it can. None: at once."""
        self.settings, self.keys = settings, keys
        self._ready_within = ready_within
        self.metrics = metrics.Metrics()
        self.stopping = False  # refuses what comes
        self.leaving = False  # another gateway has the port; what has come here is still served
        self.running: set[Exchange] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self.room = Room(settings.spool_dir, settings.spool_mib * 2**20)

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            headers = dict(scope["headers"])
            peer = (scope.get("client") or ("-",))[0]
            await self._serve(Exchange(scope["path"], scope["method"], headers, receive, peer), send)

    # --- start and stop

    async def start(self) -> None:
        # A connection for each call: one that a restarted replica has closed is never taken for a live one.
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        self._session = aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, trust_env=False
        )
        settings = self.settings
        self.splitters = Splitters(settings.splitters)
        self.vlm = Vlm(settings.vlm, self._session, settings.probe_seconds, lambda: self.pool.wake())
        self.pool = Pool(settings, self.vlm, self.metrics)
        self.pool.replicas += [self._replica(url) for url in settings.replicas]
        self.parser = Parser(settings, self.pool, self.splitters, self.room)
        self._add_gauges()
        self.room.sweep()
        await self.splitters.start()
        watches: list[Callable[[], Coroutine[Any, Any, None]]] = [self.vlm.watch, self.pool.watch]
        watches += [replica.watch for replica in self.pool.replicas]
        if settings.discover:
            watches.append(Discovery(settings.discover, self.pool, self._replica, settings.probe_seconds).watch)
        self._tasks = [asyncio.create_task(kept_up(watch)) for watch in watches]

    def _replica(self, url: str) -> Replica:
        return Replica(url, self._session, self.settings, self.vlm, self.metrics, self.pool.wake)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.splitters.stop()
        await self._session.close()

    async def leave(self) -> None:
        """Another gateway has the port: serve what has come, until nothing comes any more."""
        self.leaving = True
        quiet_since = time.monotonic()
        while time.monotonic() - quiet_since < _QUIET_SECONDS and not self.stopping:
            await asyncio.sleep(0.02)
            quiet_since = time.monotonic() if self.running else quiet_since

    async def drain(self) -> None:
        """Refuse what comes, let what runs come to an end within the limit, refuse the rest of it then."""
        self.stopping = True
        end = time.monotonic() + self.settings.stop_seconds
        while self.running and time.monotonic() < end:
            await asyncio.sleep(0.02)
        for exchange in list(self.running):
            exchange.refused = _stopping()
            if exchange.work is not None:
                exchange.work.cancel()
        while self.running and time.monotonic() < end + 2:
            await asyncio.sleep(0.02)

    async def _be_ready(self, seconds: float) -> None:
        """Raises Refusal: why it cannot read pages."""
        end = time.monotonic() + seconds
        while (refusal := self._not_ready()) is not None:
            if self.stopping or time.monotonic() > end:
                await self.stop()
                raise refusal
            await asyncio.sleep(0.05)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.start()
            if self._ready_within is not None:
                await self._be_ready(self._ready_within)
        except Exception as error:
            LOG.error("the gateway cannot start: %s", error, exc_info=not isinstance(error, Refusal))
            await send({"type": "lifespan.startup.failed", "message": ""})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.stop()
        await send({"type": "lifespan.shutdown.complete"})

    def _add_gauges(self) -> None:
        replicas, pool = self.pool.replicas, self.pool
        self.metrics.readers = {
            "gateway_queue_pages": lambda: [((), pool.waiting_pages)],
            "gateway_requests_open": lambda: [((), len(self.running))],
            "gateway_spool_bytes": lambda: [((), self.room.used)],
            "gateway_replica_up": lambda: [((one.name,), one.is_up) for one in replicas],
            "gateway_replica_busy": lambda: [((one.name,), one.busy) for one in replicas],
            "gateway_vlm_up": lambda: [((), not self.vlm.is_down)],
            "gateway_last_page_seconds": lambda: [((), self._age())],
        }

    # --- one request

    async def _serve(self, exchange: Exchange, send: Send) -> None:
        status, cause, answer = 500, "", None
        try:
            if exchange.path in (PARSE, RESTRUCTURE):
                answer = await self._post(exchange)
                status = 200
                await self._send(exchange, send, 200, answer.pieces, answer.size)
                self.metrics.pages.add(by=answer.pages)
                exchange.pages = answer.pages
            elif (asset := pages.find(exchange.path)) is not None:
                self._route(exchange)
                status, body = asset.answer(exchange.headers.get(b"if-none-match", b"").decode("latin-1"))
                await self._send(exchange, send, status, (body,), len(asset.body), asset.kind, asset.headers)
            else:
                status, kind, body, headers = self._get(exchange)
                await self._send(exchange, send, status, iter((body,)), len(body), kind, headers)
        except ClientLeft:
            status, cause = 499, "client left"
            self.metrics.left.add()
        except Refusal as refusal:
            status, cause = refusal.cause.status, refusal.cause.name
            await self._refuse(exchange, send, refusal)
        except Exception:
            LOG.exception("logId %s", exchange.log_id)
            cause = "internal"
            await self._refuse(exchange, send, Refusal("internal", "a fault of the gateway; its log tells more under this logId"))
        finally:
            if answer is not None:
                answer.close()
            self.running.discard(exchange)
            self._account(exchange, status, cause)

    def _account(self, exchange: Exchange, status: int, cause: str) -> None:
        seconds = time.monotonic() - exchange.begun
        path = exchange.path if exchange.path in ROUTES else "other"
        self.metrics.requests.add(path, str(status))
        if cause and status != 499:
            self.metrics.errors.add(cause)
        if path in (PARSE, RESTRUCTURE):
            self.metrics.seconds.observe("total", seconds)
            LOG.info(
                "%s %s %s %d pages=%d %.3fs %s",
                *(exchange.log_id, exchange.peer, path, status, exchange.pages, seconds, cause or "ok"),
            )  # fmt: skip

    async def _refuse(self, exchange: Exchange, send: Send, refusal: Refusal) -> None:
        body = json.dumps({"logId": exchange.log_id, "errorCode": refusal.cause.status, "errorMsg": refusal.sentence}).encode()
        await self._send(exchange, send, refusal.cause.status, iter((body,)), len(body), headers=refusal.headers)

    async def _send(
        self, exchange: Exchange, send: Send, status: int, pieces: Any, size: int, kind: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        fields = {"content-type": kind, "content-length": str(size), "x-content-type-options": "nosniff", **(headers or {})}
        if self.stopping or self.leaving or (exchange.method == "POST" and not exchange.read):
            fields["Connection"] = "close"
        raw = [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in fields.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        if exchange.method != "HEAD":
            for piece in pieces:
                for at in range(0, len(piece), _PIECE):
                    await send({"type": "http.response.body", "body": bytes(piece[at : at + _PIECE]), "more_body": True})
        if status >= 400 and exchange.method == "POST" and not exchange.read and b"expect" not in exchange.headers:
            # The whole answer is out. A connection that is closed on a client in the middle of sending may take it back.
            let_in = exchange.work is not None
            most = (self.settings.max_body, _BROKEN_OFF_SECONDS) if let_in else (_REFUSED_BYTES, _REFUSED_SECONDS)
            await exchange.discard(*most)
        await send({"type": "http.response.body", "body": b""})

    def _client(self, exchange: Exchange) -> str:
        """Who asks: the name of his key, or his address. Raises Refusal (no-key)."""
        if not self.keys.required:
            return exchange.peer
        name = self.keys.client_of(exchange.headers)
        if name is None:
            given = b"authorization" in exchange.headers or b"x-api-key" in exchange.headers
            raise Refusal("no-key", "this API key is not known" if given else "an API key is needed: Authorization: Bearer KEY")
        return name

    def _route(self, exchange: Exchange) -> None:
        if b"content-length" in exchange.headers and b"transfer-encoding" in exchange.headers:
            raise Refusal("framing", "Content-Length and Transfer-Encoding exclude each other (RFC 9112, 6.3)")
        methods = ROUTES.get(exchange.path) or (pages.METHODS if pages.find(exchange.path) else None)
        if methods is None:
            raise Refusal("not-found", "no such path; POST /layout-parsing parses a document, /openapi.json tells the rest")
        if exchange.method not in methods:
            allow = ", ".join(methods)
            raise Refusal("method", f"{exchange.path} takes {allow}", allow=allow)

    # --- GET

    def _get(self, exchange: Exchange) -> tuple[int, str, bytes, dict[str, str]]:
        self._route(exchange)
        if exchange.path not in OPEN:
            self._client(exchange)
        if exchange.path == "/metrics":
            return 200, metrics.CONTENT_TYPE, self.metrics.text().encode(), {}
        if exchange.path == "/openapi.json":
            return 200, "application/json", openapi.document(), {}
        if exchange.path == "/health":
            return 200, "application/json", self._state(exchange, 0, "Healthy"), {}
        refusal = self._not_ready()
        if refusal is not None:
            return 503, "application/json", self._state(exchange, 503, refusal.sentence), refusal.headers
        return 200, "application/json", self._state(exchange, 0, "Ready"), {}

    def _state(self, exchange: Exchange, code: int, message: str) -> bytes:
        state: dict[str, Any] = {"logId": exchange.log_id, "errorCode": code, "errorMsg": message}
        # Addresses of the inside are for those who have a key.
        if exchange.path == "/ready":
            if not self.keys.required or self.keys.client_of(exchange.headers) is not None:
                replicas = [{"name": r.name, "state": r.state, "reason": r.reason, "busy": r.busy} for r in self.pool.replicas]
                vlm = {"watched": self.vlm.url is not None, "up": not self.vlm.is_down, "reason": self.vlm.reason}
                state |= {"replicas": replicas, "vlm": vlm, "lastPageSeconds": round(self._age(), 1)}
            elif code:
                state["errorMsg"] = "not ready"
        return json.dumps(state).encode()

    def _age(self) -> float:
        last = self.pool.last_page
        return -1.0 if last is None else time.monotonic() - last

    def _not_ready(self) -> Refusal | None:
        if self.stopping:
            return _stopping()
        if (outage := self.pool.outage()) is not None:
            return outage
        oldest = max(3 * self.settings.proof_seconds, self.settings.seconds_for(self.settings.pages_per_range))
        if not 0 <= self._age() <= oldest:
            return Refusal("no-replica", f"no page was read within {oldest:.0f} s", retry_after=10)
        return None

    # --- POST

    async def _post(self, exchange: Exchange) -> Answer:
        self._route(exchange)
        client = self._client(exchange)
        if self.stopping:
            raise _stopping()
        self._require_place(client)
        self.pool.require_room(client)
        self._check_head(exchange)
        exchange.client = client
        self.running.add(exchange)
        work = self._layout_parsing if exchange.path == PARSE else self._restructure_pages
        exchange.work = asyncio.create_task(work(exchange, client))
        try:
            return await asyncio.wait_for(exchange.work, self.settings.request_seconds)
        except asyncio.TimeoutError:
            close_unused(exchange.work)
            raise Refusal("deadline", f"the request took more than {self.settings.request_seconds:g} s") from None
        except asyncio.CancelledError:
            close_unused(exchange.work)
            if exchange.refused is not None:
                raise exchange.refused from None
            raise

    def _require_place(self, client: str) -> None:
        """Raises Refusal (queue-full) when all places are taken, or this client has four times as many as are left.

        So one client alone leaves a fifth of them, two leave a ninth, and who has none is let in while there is any.
        """
        own = sum(exchange.client == client for exchange in self.running)
        left = self.settings.max_requests - len(self.running)
        if own >= _SHARE * left:
            again = self.pool.retry_after()
            said = f"{own} requests of this client are open, of {len(self.running)}; come again in {again} s"
            raise Refusal("queue-full", said, retry_after=again)

    def _check_head(self, exchange: Exchange) -> None:
        kind = exchange.headers.get(b"content-type", b"").split(b";")[0].strip().lower()
        if kind and kind != b"application/json" and not kind.endswith(b"+json"):
            shown = kind.decode("latin-1")[:40]
            raise Refusal("content-type", f"the body must be JSON: Content-Type: application/json, not {json.dumps(shown)}")
        if exchange.headers.get(b"content-encoding", b"identity").strip().lower() != b"identity":
            raise Refusal("content-type", "a compressed body is not taken; send it without Content-Encoding")
        length = exchange.headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > self.settings.max_body:
            raise self._too_large()

    def _too_large(self) -> Refusal:
        return Refusal("too-large", f"the body is larger than {self.settings.max_body_mib} MiB, the limit of this gateway")

    async def _layout_parsing(self, exchange: Exchange, client: str) -> Answer:
        spool = Spool(self.room)
        try:
            value = FileValue(spool, self.settings.max_body)
            body = LayoutBody(value)
            await self._receive(exchange, body.feed)
            fields = body.end()
            # The text of `file` has gone to the spool; the checks want to see that it is one.
            checked = {**fields, "file": "…"} if body.has_file else fields
            request = self._checked(exchange, checked, contract.LAYOUT_PARSING, client)
            if body.wrong is not None:
                raise body.wrong
            if request.fields.get("fileType") is None and value.url is None:
                raise Refusal("file-type", "`fileType` is required with base64: 0 for a PDF, 1 for a picture")
            if value.url is not None:
                await exchange.unless_left(fetch(value.url, spool, self.settings))
            return await exchange.unless_left(self.parser.parse(request, spool))
        finally:
            spool.close()

    async def _restructure_pages(self, exchange: Exchange, client: str) -> Answer:
        spool = Spool(self.room)

        def read() -> Request:
            fields = parse_object(spool.read(0, spool.size))
            return self._checked(exchange, fields, contract.RESTRUCTURE_PAGES, client)

        async def put_together() -> Answer:
            async with self.parser.all_pages:
                request = await asyncio.to_thread(read)  # a body of 100 MiB takes seconds, in which others are served
                if len(request.fields["pages"]) > self.settings.max_pages:
                    raise Refusal("too-many-pages", f"more than {self.settings.max_pages} pages; send them in parts")
                return await self.parser.restructure(request)

        try:
            await self._receive(exchange, spool.write)
            return await exchange.unless_left(put_together())
        finally:
            spool.close()

    def _checked(self, exchange: Exchange, fields: dict[str, Any], table: tuple[contract.Field, ...], client: str) -> Request:
        found = contract.problems(fields, table)
        log_id = fields.get("logId")
        if isinstance(log_id, str) and not contract.problems({"logId": log_id}, (contract.LOG_ID_FIELD,)):
            exchange.log_id = log_id
        if found:
            raise Refusal(found[0][0], "; ".join(sentence for _, sentence in found))
        kept = {name: value for name, value in fields.items() if name not in ("file", "logId")}
        return Request(kept, exchange.log_id, client, id(exchange))

    async def _receive(self, exchange: Exchange, feed: Callable[[bytes], None]) -> None:
        """The body, piece by piece. Raises ClientLeft; Refusal: too-large, slow-client, and those of `feed`."""
        settings, total, begun = self.settings, 0, time.monotonic()
        while not exchange.read:
            left = settings.body_seconds - (time.monotonic() - begun)
            try:
                message = await asyncio.wait_for(exchange.receive(), min(settings.stall_seconds, left))
            except asyncio.TimeoutError:
                raise Refusal("slow-client", "the body stopped coming, or took too long; send it again") from None
            if message["type"] == "http.disconnect":
                raise ClientLeft
            chunk = message.get("body", b"")
            exchange.read = not message.get("more_body", False)
            total += len(chunk)
            if total > settings.max_body:
                raise self._too_large()
            feed(chunk)
        self.metrics.seconds.observe("receive", time.monotonic() - begun)


def _stopping() -> Refusal:
    return Refusal("stopping", "the gateway is being stopped; try again", retry_after=2)
