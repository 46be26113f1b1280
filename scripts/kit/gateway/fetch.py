"""A document from a URL: only where that is allowed, only from public addresses, by the gateway alone.

The address is checked where the connection is made: the name is resolved once, all its addresses are judged, and the
connection goes to one of those. No second look-up can lead elsewhere. Every redirect goes through the same door.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from kit.gateway.addresses import is_host_allowed, is_literal, is_number, is_public
from kit.gateway.body import Spool
from kit.gateway.causes import Refusal
from kit.gateway.settings import Settings

REDIRECTS = 3
_REDIRECT = (301, 302, 303, 307, 308)


class _Resolver(AbstractResolver):
    """Names to addresses that are public, or not at all."""

    def __init__(self, networks: Sequence[Any]) -> None:
        self._networks = networks

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_UNSPEC) -> list[Any]:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family)
        addresses = [(kind, place[0]) for kind, _, _, _, place in found]
        # One bad address among them is a trick, or a mistake; either way no connection.
        if not addresses or not all(is_public(str(address), self._networks) for _, address in addresses):
            raise _NotPublic(host)
        return [
            {"hostname": host, "host": str(address), "port": port, "family": kind, "proto": 0, "flags": socket.AI_NUMERICHOST}
            for kind, address in addresses
        ]

    async def close(self) -> None:
        pass


class _NotPublic(Exception):
    pass


async def fetch(url: str, spool: Spool, settings: Settings) -> None:
    """Write what is at `url` to the spool. Raises Refusal: url-refused, url-failed, too-large."""
    if not settings.url_hosts:
        raise Refusal("url-refused", "`file` is a URL, and this gateway fetches none (--url-hosts); send the document as base64")
    try:
        await asyncio.wait_for(_fetch(url, spool, settings), settings.url_seconds)
    except asyncio.TimeoutError:
        raise Refusal("url-failed", f"the URL was not fetched within {settings.url_seconds:g} s") from None
    except _NotPublic:
        raise Refusal("url-refused", "the URL's host has no public address") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        if isinstance(error.__cause__, _NotPublic) or isinstance(error.__context__, _NotPublic):
            raise Refusal("url-refused", "the URL's host has no public address") from None
        raise Refusal("url-failed", f"the URL cannot be fetched ({type(error).__name__})") from None


async def _fetch(url: str, spool: Spool, settings: Settings) -> None:
    # A connector of its own: what is pooled for replicas never serves a URL. No proxy of the environment.
    connector = aiohttp.TCPConnector(resolver=_Resolver(settings.url_networks), use_dns_cache=False, force_close=True)
    headers = {"Accept-Encoding": "identity", "User-Agent": "paddleocr-vl-kit-gateway"}
    async with aiohttp.ClientSession(
        connector=connector, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar(), headers=headers, trust_env=False
    ) as session:
        place = _checked(url, None, settings)
        for _ in range(REDIRECTS + 1):
            async with session.get(place, allow_redirects=False) as reply:
                if reply.status in _REDIRECT and "Location" in reply.headers:
                    place = _checked(reply.headers["Location"], place, settings)
                    continue
                await _read(reply, spool, settings.max_body)
                return
    raise Refusal("url-failed", f"the URL is redirected more than {REDIRECTS} times")


def _checked(text: str, base: URL | None, settings: Settings) -> URL:
    """The very URL that may be fetched, be it the first or a redirect's. Raises Refusal.

    aiohttp connects to where this object says, so that nobody reads the text a second time, and otherwise: full-width
    digits, or a backslash, are another host to another reader. base: what redirects to it.
    """
    try:
        url = base.join(URL(text)) if base else URL(text)
        host, port = url.raw_host or "", url.port
    except ValueError:
        raise Refusal("url-refused", "the URL is malformed") from None
    plain = text.isascii() and not any(sign in text for sign in "\\\t\r\n")
    if not plain or url.scheme not in ("http", "https") or not host or url.raw_user or url.raw_password:
        raise Refusal("url-refused", "the URL is not plain http(s)://host/path, in ASCII")
    if not is_host_allowed(host, settings.url_hosts):
        raise Refusal("url-refused", "this gateway does not fetch from the URL's host (--url-hosts)")
    inside = settings.url_networks and is_literal(host)
    if port not in (80, 443) and not inside and host not in settings.url_hosts:
        raise Refusal("url-refused", "the URL's port is neither 80 nor 443, and its host is not named in --url-hosts")
    # aiohttp asks no resolver for an address that is written out. 127.1 and 0x7f000001 are ones to the C library alone.
    if is_number(host) and not is_public(host, settings.url_networks):
        raise Refusal("url-refused", "the URL's host has no public address")
    return url


async def _read(reply: aiohttp.ClientResponse, spool: Spool, limit: int) -> None:
    if reply.status != 200:
        raise Refusal("url-failed", f"the URL answers HTTP {reply.status}")
    if reply.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Refusal("url-failed", "the URL answers with a compressed body, which was not asked for")
    async for chunk in reply.content.iter_chunked(2**16):
        if spool.size + len(chunk) > limit:
            raise Refusal("too-large", f"what is at the URL is larger than {limit // 2**20} MiB, the limit of this gateway")
        spool.write(chunk)
