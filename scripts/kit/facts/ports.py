"""Is a TCP port free, and if not, who holds it."""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Holder:
    """A program that listens on a port; pid is None where the system does not tell (another user's).

    folder: in which it works, "" where that is not visible.
    """

    port: int
    pid: int | None
    name: str
    command: str
    folder: str = ""

    def __str__(self) -> str:
        if self.pid is None:
            return "a program of another user (sudo may show which)"
        command = self.command if len(self.command) <= 80 else self.command[:79] + "…"
        return f"{self.name} (pid {self.pid}: {command})" if command else f"{self.name} (pid {self.pid})"


def is_free(host: str, port: int) -> bool:
    """True when a server could listen on that address now."""
    return obstacle(host, port) == ""


def obstacle(host: str, port: int) -> str:
    """Why this user's server could not listen there: "taken", "no-address" (not of this machine), "no-permission" or ""."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # Sockets of closed connections linger for a minute; a server may take their port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            probe.listen(1)
    except OSError as error:
        known = {errno.EADDRNOTAVAIL: "no-address", errno.EAFNOSUPPORT: "no-address", errno.EACCES: "no-permission"}
        return known.get(error.errno or 0, "taken")
    return ""


def holder(port: int) -> Holder:
    """The program that listens on `port`, as far as this user may see."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:  # macOS asks for root
        connections = []
    pids = [c.pid for c in connections if c.status == psutil.CONN_LISTEN and c.laddr.port == port]
    for pid in pids:
        if pid is None:
            continue
        try:
            process = psutil.Process(pid)
            return Holder(port, pid, process.name(), " ".join(process.cmdline()), _folder(process))
        except psutil.Error:
            continue
    return Holder(port, None, "", "")


def _folder(process: psutil.Process) -> str:
    try:
        return process.cwd()
    except psutil.Error:
        return ""
