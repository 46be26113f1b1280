"""./kit parse beside ./kit bench: pages a second of one service, at the same number of requests in flight.

The service is a fake of set speed, so that the clients are all that differs: it reads `--slots` documents at a time, each
page in `--seconds`, and counts by itself, from the first request that comes in to the last reply that goes out. Both clients
get the same pages, those of ./kit bench. Exits with 1 where the median share is below 95 %.

.kit/venv/bin/python benchmarks/client_throughput.py                     one table
.kit/venv/bin/python benchmarks/client_throughput.py --clients 16 --rounds 3
.kit/venv/bin/python benchmarks/client_throughput.py --long 4            a few longer documents among them
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]

from fakes.faulty_service import Read, Service, serving  # noqa: E402
from kit.bench.drive import drive  # noqa: E402
from kit.bench.figures import Reply  # noqa: E402
from kit.bench.workload import Load, Workload  # noqa: E402

ENOUGH = 0.95  # of the pages a second of ./kit bench
LONG_PAGES = 20  # in ranges of 8, 8 and 4
ENTRY = "import sys; sys.path[0] = sys.argv.pop(1); from kit.cli import main; sys.exit(main())"


class SetSpeed(Service):
    """slots: documents that are read at a time."""

    def __init__(self, seconds: float, slots: int) -> None:
        super().__init__(seconds=seconds)
        self._slots = threading.Semaphore(slots)
        self.first = self.last = 0.0
        self.pages = 0

    def answer(self, path: str, fields: dict[str, Any], read: Read | None) -> tuple[int, dict[str, Any]]:
        self.first = self.first or time.perf_counter()
        with self._slots:
            answer = super().answer(path, fields, read)
        self.last = time.perf_counter()
        self.pages += len(read[0]) if read else 0
        return answer

    @property
    def rate(self) -> float:
        return self.pages / (self.last - self.first)


def bench(service: SetSpeed, loads: list[Load], clients: int) -> None:
    replies: list[Reply] = []
    asyncio.run(drive(service.url, loads, clients, 600, replies.append))
    bad = [reply.error for reply in replies if reply.error]
    if bad:
        sys.exit(f"./kit bench had errors: {bad[0]}")


def parse(service: SetSpeed, folder: Path, clients: int) -> None:
    out = folder.with_name(f"{folder.name}-out-{time.monotonic_ns()}")
    words = ["parse", str(folder), "-o", str(out), "--url", service.url, "--concurrency", str(clients)]
    subprocess.run([sys.executable, "-c", ENTRY, str(ROOT / "scripts"), *words], check=True, stderr=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=8, help="requests in flight (%(default)s)")
    parser.add_argument("--documents", type=int, default=160, help="of one page each (%(default)s)")
    parser.add_argument("--long", type=int, default=0, help=f"so many of them are of {LONG_PAGES} pages (%(default)s)")
    parser.add_argument("--seconds", type=float, default=0.25, help="that a page takes (%(default)s)")
    parser.add_argument("--slots", type=int, default=4, help="documents that the service reads at a time (%(default)s)")
    parser.add_argument("--rounds", type=int, default=1, help="how often each is measured (%(default)s)")
    given = parser.parse_args()
    workload = Workload(ROOT / "samples", 0)
    long_at = {given.documents * number // given.long for number in range(given.long)}
    loads = [workload.long_pdf(LONG_PAGES) if number in long_at else workload.page() for number in range(given.documents)]
    shares = []
    print("| client | documents | in flight | pages/s | of ./kit bench |\n| --- | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "pages"
        folder.mkdir()
        for number, load in enumerate(loads):
            suffix = Path(load.name).suffix or ".pdf"
            (folder / f"{number:04d}{suffix}").write_bytes(base64.b64decode(json.loads(load.body)["file"]))
        for _ in range(given.rounds):
            rates = []
            for name, run in (("./kit bench", lambda s: bench(s, loads, given.clients)), ("./kit parse", None)):
                with serving(SetSpeed(given.seconds, given.slots)) as service:
                    assert isinstance(service, SetSpeed)
                    run(service) if run else parse(service, folder, given.clients)
                    rates.append(service.rate)
                share = rates[-1] / rates[0]
                print(f"| {name} | {given.documents} | {given.clients} | {rates[-1]:.2f} | {share:.1%} |", flush=True)
            shares.append(share)
    if (share := statistics.median(shares)) < ENOUGH:
        sys.exit(f"the median share is {share:.1%}, less than {ENOUGH:.0%}")


if __name__ == "__main__":
    main()
