"""The gateway, with names looked up in a file that a test can change: `ADDRESS NAME` a line, as in /etc/hosts.

A name has all addresses of its lines. With `ADDRESS>OTHER` it has ADDRESS when it is looked up first, and OTHER from then on.

python gateway_with_names.py FILE FLAG...
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

_HOSTS = Path(sys.argv.pop(1))
_getaddrinfo = socket.getaddrinfo
_seen: set[str] = set()  # names that have been looked up


def getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> list[Any]:
    lines = [line.split() for line in _HOSTS.read_text().splitlines()]
    found = [address.split(">")[-1 if host in _seen else 0] for address, name in lines if name == host]
    if found:
        _seen.add(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]
    if str(host).endswith(".test"):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return _getaddrinfo(host, port, *args, **kwargs)


socket.getaddrinfo = getaddrinfo

if __name__ == "__main__":
    from kit.gateway.__main__ import main

    sys.exit(main())
