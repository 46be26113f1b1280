"""Which addresses and hosts a URL may lead to. Pure; fetch.py asks."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import Any

_NUMBER = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Python's own lists have grown over its versions; these do not depend on which one runs.
_UNICAST = ipaddress.ip_network("2000::/3")  # all that IANA has given out of IPv6
_NEVER = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "3fff::/20")))


def is_public(address: str, networks: Sequence[Any] = ()) -> bool:
    """Whether an IP address is one that a stranger may make the gateway talk to.

    networks: of the operator's own that count as public. An IPv4 address inside an IPv6 one is judged as itself.
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if any(ip in network for network in networks if network.version == ip.version):
        return True
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1])
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner:
            return is_public(str(inner), networks)
        if ip not in _UNICAST:
            return False
    if any(ip in network for network in _NEVER if network.version == ip.version):
        return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved and not ip.is_unspecified


def is_host_allowed(host: str, hosts: Sequence[str]) -> bool:
    """hosts: as in GATEWAY_URL_HOSTS."""
    host = host.lower().rstrip(".")
    return any(one == "*" or host == one or (one.startswith(".") and host.endswith(one)) for one in hosts)


def is_number(host: str) -> bool:
    """Whether a host is an address that is written out, in whatever way: no name ends with a number (WHATWG URL, 3.5)."""
    return ":" in host or _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]) is not None


def is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
