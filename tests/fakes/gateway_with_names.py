"""The gateway, with names looked up in a file that a test can change: `ADDRESS NAME` a line, as in /etc/hosts.

python gateway_with_names.py FILE FLAG...
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

_HOSTS = Path(sys.argv.pop(1))
_getaddrinfo = socket.getaddrinfo


def getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> list[Any]:
    lines = [line.split() for line in _HOSTS.read_text().splitlines()]
    found = [address for address, name in lines if name == host]
    if found:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]
    if str(host).endswith(".test"):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return _getaddrinfo(host, port, *args, **kwargs)


socket.getaddrinfo = getaddrinfo

if __name__ == "__main__":
    from kit.gateway.__main__ import main

    sys.exit(main())
