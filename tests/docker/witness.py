"""Engines without a way out, and witnesses of who tried to leave: the kit by strace, the engine by a proxy that records.

A failed attempt counts: without a route no packet is ever sent, so counters of a
firewall would see nothing, while strace sees the call itself.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine import Engine, private_engine

PROXY_PORT = 3128
PROXY = f"http://127.0.0.1:{PROXY_PORT}"
# Accepts, writes down the first line of each request, refuses it.
RECORDER = f"""
import socket, sys
server = socket.create_server(("127.0.0.1", {PROXY_PORT}))
print("listening", flush=True)
while True:
    client, _ = server.accept()
    with client, open(sys.argv[1], "ab") as log:
        log.write(client.recv(4096).split(b"\\r\\n")[0] + b"\\n")
        client.sendall(b"HTTP/1.1 502 Bad Gateway\\r\\nContent-Length: 0\\r\\n\\r\\n")
"""
# One JSON list: what went well of a TCP connection to argv[1]:argv[2], and of a name's resolution.
LEAVE = """
import errno, json, socket, sys
def attempt(name, act):
    try:
        act()
        return [name, ""]
    except socket.gaierror as error:
        return [name, "unresolved"]
    except OSError as error:
        return [name, errno.errorcode.get(error.errno, str(error))]
print(json.dumps([
    attempt("connection", lambda: socket.create_connection((sys.argv[1], int(sys.argv[2])), 5).close()),
    attempt("name", lambda: socket.getaddrinfo("pypi.org", 443)),
]))
"""
# A connected datagram socket names its peer in connect, an unconnected one in the sending call. The start of a program
# is in the log to show that something was watched: a verb may well make no network call at all.
CALLS = "trace=execve,connect,sendto,sendmsg,sendmmsg"
PEER = re.compile(r'sin6?_port=htons\((\d+)\).*?(?:inet_addr\("|inet_pton\(AF_INET6, ")([^"]+)"')
NAME_SERVICE = 53


@dataclass(frozen=True)
class Sealed:
    """An engine without a way out, whose own requests to registries go to a recorder inside its network."""

    engine: Engine
    log: Path

    def asked(self) -> list[str]:
        """First lines of the engine's requests so far, such as `CONNECT registry-1.docker.io:443 HTTP/1.1`."""
        return self.log.read_text().splitlines() if self.log.exists() else []

    def run(self, *words: str | Path, log: Path, environment: dict[str, str], cwd: Path, timeout: float = 600) -> Traced:
        """Run a program on the engine's network under strace; what its processes tried is in the result.

        Now and then strace itself loses a process and ends all of them (`ptrace(PTRACE_LISTEN…): Input/output error`, 6.1 under
        load): such a run says nothing of the program, which is then run once more.
        """
        argv = [*traced(log), *map(str, words)]
        done = self.engine.call_inside(argv, env=environment, cwd=cwd, timeout=timeout)
        called = peers(log)
        if done.returncode and "strace: ptrace(" in done.stderr:
            done = self.engine.call_inside(argv, env=environment, cwd=cwd, timeout=timeout)
            called += peers(log)
        return Traced(done, called)


@dataclass(frozen=True)
class Traced:
    """done: the program's end. peers: everyone outside of this machine, and name servers, that it called or tried to."""

    done: subprocess.CompletedProcess[str]
    peers: list[str]


@contextlib.contextmanager
def sealed_engine(flavour: str, **options: object) -> Iterator[Sealed]:
    """private_engine with network="none". options: of engine.Options."""
    proxies = {name: PROXY for name in ("HTTP_PROXY", "HTTPS_PROXY")} | {"NO_PROXY": ""}
    with private_engine(flavour, network="none", environment=proxies, **options) as engine:
        log = engine.work / "asked.log"
        argv = ["nsenter", f"--net={engine.network}", sys.executable, "-c", RECORDER, str(log)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as recorder:
            try:
                assert recorder.stdout
                assert recorder.stdout.readline() == "listening\n"
                yield Sealed(engine, log)
            finally:
                recorder.kill()


# --- no way out


def ways_out(engine: Engine, image: str) -> list[str]:
    """Every way from the engine's network, and from a container of `image` (with Python), to this machine or beyond.

    A listener of this machine, on the address of its way to the outside, is what they try to reach: any network
    that has a way out through the machine reaches it, and the test needs no host of the Internet.
    """
    found = []
    for version in ("-4", "-6"):
        lines = engine.call_inside(["ip", version, "route", "show", "table", "all"]).stdout.splitlines()
        found += [f"route {line}" for line in lines if line.startswith(("default", "0.0.0.0/0", "::/0"))]
    links = json.loads(engine.call_inside(["ip", "-json", "-details", "link", "show"]).stdout)
    found += [f"link {link['ifname']}" for link in links if not _inner(link)]
    with _listener() as (address, port):
        here = engine.call_inside([sys.executable, "-c", LEAVE, address, str(port)])
        words = ("run", "--rm", "--user", "0", "--entrypoint", "python3", image, "-c", LEAVE, address, str(port))
        for place, answer in (("engine", here.stdout), ("container", engine.docker(*words))):
            found += [f"{what} from the {place}" for what, problem in json.loads(answer) if not problem]
            # A refusal or a time-out would mean that packets do leave.
            found += [f"{what} from the {place}: {p}" for what, p in json.loads(answer) if p not in NOWHERE and p]
    return found


NOWHERE = ("ENETUNREACH", "EHOSTUNREACH", "unresolved")


def _inner(link: dict[str, object]) -> bool:
    """Loopback, a bridge, or a container's end of a pair, which always hangs on a bridge."""
    kind = link.get("linkinfo", {}).get("info_kind")  # type: ignore[attr-defined]
    return link["ifname"] == "lo" or kind == "bridge" or (kind == "veth" and "master" in link)


@contextlib.contextmanager
def _listener() -> Iterator[tuple[str, int]]:
    """Accepts connections on this machine's own address on its way to the outside."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing; picks the route
        address = probe.getsockname()[0]
    with socket.create_server((address, 0)) as server:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    server.accept()[0].close()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield address, server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)


# --- attempts of a program


def traced(log: Path) -> Sequence[str]:
    """What to put before a command line so that `log` gets the starts and network calls of all its processes."""
    return ("strace", "--follow-forks", "--seccomp-bpf", "--quiet=all", "-e", CALLS, "-o", str(log))


def peers(log: Path) -> list[str]:
    """ADDRESS:PORT of each attempt that such a log shows, but for this machine's own addresses; a name server always counts.

    Raises AssertionError when the log does not even show a program's start: then nothing was watched.
    """
    text = log.read_text()
    assert re.search(r"\bexecve\(", text), f"strace saw no program start in {log}"
    found = {(address, int(port)) for port, address in PEER.findall(text)}
    return sorted(f"{address}:{port}" for address, port in found if port == NAME_SERVICE or not _own(address))


def _own(text: str) -> bool:
    address = ipaddress.ip_address(text)
    mapped = getattr(address, "ipv4_mapped", None) or address
    return mapped.is_loopback or mapped.is_unspecified
