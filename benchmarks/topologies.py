"""Topologies side by side in one run: upstream's published layout, the kit's single API, the kit's gateway with 1, 2 and 4 APIs.

    .kit/venv/bin/python benchmarks/topologies.py [--docs] [--json FILE] [--quick]
    .kit/venv/bin/python benchmarks/topologies.py --steady

Every one of them is the real `paddlex --serve` of the CPU preview in front of one VLM of set speed (vlm_of_set_speed.py). What
is the limit is chosen: the VLM, as on a host with one GPU (`vlm`); the API, the VLM having places for all and the layout model
taking no CPU, as on a GPU (`api`, layout_of_set_blocks.py); or the CPU, the VLM taking no time at all (`cpu`). Prints Markdown;
exit status 1 when something that must hold does not. --docs renews docs/performance.md and docs/performance.svg. --quick: a few
pages, to see that it runs; its figures mean nothing. --steady: upstream's API and four behind the gateway alone, 16 clients, for
STEADY pages: what begins and ends a run, when not all clients have a page on its way, weighs little there.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import re
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import psutil  # noqa: E402
from kit import api, console  # noqa: E402
from kit.bench import plot  # noqa: E402
from kit.bench.drive import drive, warm_up  # noqa: E402
from kit.bench.figures import Reply, count, percentile  # noqa: E402
from kit.bench.run import SINGLE  # noqa: E402
from kit.bench.workload import PAGES, Load, Workload  # noqa: E402
from kit.errors import KitError  # noqa: E402
from stage import Process, Stage, get, set_speed  # noqa: E402
from verdicts import PLAIN, UPSTREAM, GatewayCost, Point, Verdict, find, gateway, judge, tables  # noqa: E402

SAMPLES = ROOT / "samples"
REPLICAS = (1, 2, 4)
# A page of the workload takes 18 s of the VLM's slots, 24 of which work side by side: 1.3 pages/s at most, which leaves two cores
# idle most of the time. On an A100 the 0.9B model reads 1.0 to 1.6 pages/s (sources in docs/performance.md).
VLM_LIMITS = {"crop_ms": 800, "token_ms": 20, "batch": 24}
API_LIMITS = {"crop_ms": 100, "token_ms": 3, "batch": 512}
CPU_LIMITS = {"crop_ms": 0, "token_ms": 0, "batch": 256}
FAKE_SECONDS = 0.1  # for a page, of the API before and behind which it is measured what the gateway adds
TIMEOUT = 900.0  # seconds for a reply
IDLE = 0.1  # share of all cores in use by others above which figures are preliminary
BEGIN, END = "<!-- made by benchmarks/topologies.py --docs -->", "<!-- end -->"


@dataclass(frozen=True)
class Size:
    """How much is sent. single: clients → pages."""

    single: dict[int, int]
    pdf_pages: int
    cpu_bound: dict[int, int]
    pairs: int


FULL = Size({1: 8, 4: 12, 16: 32}, 60, {16: 32}, 100)
STEADY = 80  # pages
QUICK = Size({1: 1, 16: 4}, 6, {16: 4}, 2)


@dataclass(frozen=True)
class Topology:
    """open: the processes while it is measured: where to send, the APIs, and the gateway if there is one."""

    name: str
    open: Callable[[], contextlib.AbstractContextManager[tuple[str, Sequence[Process], Process | None]]]


@contextlib.contextmanager
def topologies(stage: Stage, vlm: Process, with_gateway: bool, *, set_blocks: bool = False) -> Iterator[list[Topology]]:
    """All API processes run for as long; idle ones take no CPU. set_blocks: with a layout model that takes no CPU."""
    kind = {"set_blocks": set_blocks}
    upstream = stage.api("upstream", stage.upstream_config(), vlm, **kind)
    plain = stage.api("plain", stage.our_config(), vlm, **kind)
    names = [f"replica-{number}" for number in range(1, max(REPLICAS) + 1)]
    replicas = [stage.api(name, stage.our_config(), vlm, behind_gateway=True, **kind) for name in names]

    @contextlib.contextmanager
    def straight(process: Process) -> Iterator[tuple[str, Sequence[Process], Process | None]]:
        yield process.url, [process], None

    @contextlib.contextmanager
    def behind(some: Sequence[Process]) -> Iterator[tuple[str, Sequence[Process], Process | None]]:
        with stage.gateway(some, vlm) as front:
            asyncio.run(warm_up(front.url, Workload(SAMPLES, 0).page(), 1, TIMEOUT))
            yield front.url, some, front

    with stage.together([upstream, plain, *replicas]) as every:
        for process in every:
            asyncio.run(warm_up(process.url, Workload(SAMPLES, 0).page(), 1, TIMEOUT))
        made = [
            Topology(UPSTREAM, lambda: straight(upstream)),
            Topology(PLAIN, lambda: straight(plain)),
            *(Topology(gateway(n), lambda n=n: behind(replicas[:n])) for n in REPLICAS),
        ]
        yield made if with_gateway else made[:2]


def measure(topology: Topology, limit: str, document: str, clients: int, loads: Sequence[Load], vlm: Process) -> Point:
    """Send the loads; the figures, with what the VLM and the processors did meanwhile."""
    with topology.open() as (url, apis, front):
        before, cpu, front_cpu = get(vlm, "/counters"), _cpu(apis), front.cpu_seconds() if front else 0.0
        psutil.cpu_percent()
        replies: list[Reply] = []
        asyncio.run(drive(url, loads, clients, TIMEOUT, replies.append))
        cpu_share, after = psutil.cpu_percent() / 100, get(vlm, "/counters")
        cpu, front_cpu = _cpu(apis) - cpu, (front.cpu_seconds() if front else 0.0) - front_cpu
    figures = count(document, clients, replies)
    if not figures.pages:
        raise KitError(f"{topology.name}: no page was read: {figures.errors}", "run it with --keep and look into the logs")
    slot_seconds = after["slot_seconds"] - before["slot_seconds"]
    return Point(
        topology=topology.name,
        limit=limit,
        document=document,
        clients=clients,
        pages_per_second=figures.pages_per_second,
        p50=figures.p50 or 0.0,
        p95=figures.p95 or 0.0,
        received_per_page=figures.received_per_page or 0.0,
        # Alone, the VLM would have all of its slots busy all the time.
        vlm_share=slot_seconds / (after["batch"] * figures.seconds),
        cpu_share=cpu_share,
        cpu_per_page=cpu / figures.pages,
        gateway_cpu_per_page=front_cpu / figures.pages,
        errors=sum(figures.errors.values()),
    )


def gateway_cost(stage: Stage, vlm: Process, pairs: int) -> GatewayCost:
    """The same page straight to a fake API and through the gateway in front of it, in turn, which of them first also in turn."""
    differences = []
    with stage.together([stage.fake_api(vlm, FAKE_SECONDS)]) as (straight,), stage.gateway([straight], vlm) as front:
        workload = Workload(SAMPLES, 3)
        asyncio.run(warm_up(front.url, workload.page(), 1, TIMEOUT))
        for number in range(pairs):
            load, seconds = workload.page(), {}
            for address in (front.url, straight.url)[:: -1 if number % 2 else 1]:
                replies: list[Reply] = []
                asyncio.run(drive(address, [load], 1, TIMEOUT, replies.append))
                if replies[0].error:
                    raise KitError(f"{address}: {replies[0].error}")
                seconds[address] = replies[0].seconds
            differences.append(seconds[front.url] - seconds[straight.url])
    return GatewayCost(statistics.median(differences), percentile(differences, 90), pairs)


def same_markdown(all_of_them: Sequence[Topology]) -> bool:
    """Do all topologies read the same words from every sample of one page?"""
    loads = [Workload(SAMPLES, 5, [name]).page() for name in PAGES]
    texts = []
    for topology in all_of_them:
        with topology.open() as (url, _, _), api.client(url, TIMEOUT) as http:
            replies = [
                http.post(url + api.PATH, content=load.body, headers={"Content-Type": "application/json"}) for load in loads
            ]
            results = [api.result_of(url, reply)["layoutParsingResults"] for reply in replies]
            texts.append([[page["markdown"]["text"] for page in result] for result in results])
    return all(text == texts[0] for text in texts)


def _cpu(processes: Sequence[Process]) -> float:
    return sum(process.cpu_seconds() for process in processes)


def run(folder: Path, size: Size, with_gateway: bool) -> tuple[list[Point], list[Verdict], dict[str, Any]]:
    points: list[Point] = []
    verdicts: list[Verdict] = []
    busy_before = psutil.cpu_percent(5) / 100  # of all cores; the load average would still tell of what has ended
    with Stage(folder) as stage:
        vlm = stage.vlm()
        stage.wait([vlm])

        def level(
            every: Sequence[Topology],
            limit: str,
            clients: int,
            make: Callable[[Workload], list[Load]],
            document: str,
            rounds: int = 1,
        ) -> None:
            """All topologies in turn, each as often; what counts of a topology is its middle one."""
            found: list[list[Point]] = [[] for _ in every]
            for number in range(rounds):
                for topology, of_it in zip(every, found, strict=True):
                    loads = make(Workload(SAMPLES, clients + 1000 * number))
                    of_it.append(measure(topology, limit, document, clients, loads, vlm))
                    console.say(_words(of_it[-1]))
            points.extend(_middle(of_it) for of_it in found)

        def singles(count: int) -> Callable[[Workload], list[Load]]:
            return lambda workload: [workload.page() for _ in range(count)]

        def long_pdf(workload: Workload) -> list[Load]:
            return [workload.long_pdf(size.pdf_pages)]

        document = f"PDF of {size.pdf_pages} pages"
        with topologies(stage, vlm, with_gateway) as every:
            set_speed(vlm, VLM_LIMITS)
            for clients, pages in size.single.items():
                level(every, "vlm", clients, singles(pages), SINGLE)
            set_speed(vlm, CPU_LIMITS)
            for clients, pages in size.cpu_bound.items():
                level(every, "cpu", clients, singles(pages), SINGLE)
            level(every, "cpu", 1, long_pdf, document)
            if with_gateway:
                alike = same_markdown(every)
        with topologies(stage, vlm, with_gateway, set_blocks=True) as every:
            set_speed(vlm, API_LIMITS)
            for topology in every:  # the first long document is slower than any other, by the memory that it asks for
                with topology.open() as (url, _, _):
                    asyncio.run(drive(url, long_pdf(Workload(SAMPLES, 0)), 1, TIMEOUT, lambda reply: None))
            level(every, "api", 1, long_pdf, document, rounds=3)
        if with_gateway:
            cost = gateway_cost(stage, vlm, size.pairs)
            verdicts = judge(points, cost, same_markdown=alike)
    facts = {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "busy_before": round(busy_before, 3),
        "vlm": {"vlm": VLM_LIMITS, "api": API_LIMITS, "cpu": CPU_LIMITS},
    }
    return points, verdicts, facts


def steady(folder: Path) -> str:
    """Markdown: the two rows."""
    with Stage(folder) as stage:
        vlm = stage.vlm()
        stage.wait([vlm])
        with topologies(stage, vlm, True) as every:
            set_speed(vlm, VLM_LIMITS)
            points = []
            for topology in (every[0], every[-1]):
                workload = Workload(SAMPLES, STEADY)
                points.append(measure(topology, "vlm", SINGLE, 16, [workload.page() for _ in range(STEADY)], vlm))
    return tables(points, [])


def _middle(points: Sequence[Point]) -> Point:
    """The one with the median of pages a second; the errors of all."""
    middle = sorted(points, key=lambda point: point.pages_per_second)[len(points) // 2]
    return replace(middle, errors=sum(point.errors for point in points))


def _words(point: Point) -> str:
    return (
        f"{time.strftime('%H:%M:%S')}  {point.limit}  {point.topology}, {point.document}, {point.clients} clients: "
        f"{point.pages_per_second:.2f} pages/s, p50 {point.p50:.2f} s, VLM {point.vlm_share:.0%}, CPU {point.cpu_share:.0%}, "
        f"{point.errors} errors"
    )


def vlm_alone(points: Sequence[Point]) -> float:
    """Pages a second of the workload, all slots of the VLM being busy all the time."""
    return statistics.median(p.pages_per_second / p.vlm_share for p in points if p.limit == "vlm" and p.document == SINGLE)


def head(points: Sequence[Point], facts: dict[str, Any], minutes: float) -> str:
    """What stands above the tables."""
    busy = "**Preliminary: the machine was not idle.** " if facts["busy_before"] > IDLE else ""
    return (
        f"{busy}{facts['machine']}; {facts['busy_before']:.0%} of them busy before the run; {minutes:.0f} minutes. "
        f"The VLM alone could read {vlm_alone(points):.2f} of the single pages a second.\n\n"
    )


def drawing(points: Sequence[Point]) -> str:
    """Pages a second and latency by clients, the VLM being the limit."""
    names = list(dict.fromkeys(point.topology for point in points))
    clients = sorted({point.clients for point in points if point.limit == "vlm" and point.document == SINGLE})

    def series(value: Callable[[Point], float]) -> list[plot.Series]:
        return [plot.Series(name, [value(find(points, name, "vlm", number)) for number in clients]) for name in names]

    notes = [
        "Real paddlex --serve (CPU preview's layout model); the VLM is a model of speed: "
        f"{VLM_LIMITS['batch']} crops side by side.",
    ]
    places = [str(number) for number in clients]
    alone = plot.Series("the VLM alone", [vlm_alone(points)] * len(places))
    return plot.svg(
        "One page a request, the VLM being the limit",
        notes,
        [
            plot.Panel("pages a second", "clients", "pages/s", places, [*series(lambda p: p.pages_per_second), alone]),
            plot.Panel("latency of a page, p50", "clients", "seconds", places, series(lambda p: p.p50)),
        ],
    )


def write_docs(text: str, svg: str) -> None:
    page = ROOT / "docs" / "performance.md"
    before = page.read_text()
    if BEGIN not in before or END not in before:
        raise KitError(f"{page}: no place for the tables", f"put {BEGIN} and {END} into it")
    made = f"{BEGIN}\n\n{text}\n{END}"
    page.write_text(re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: made, before, flags=re.DOTALL))
    page.with_suffix(".svg").write_text(svg)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--docs", action="store_true", help="renew docs/performance.md and docs/performance.svg")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every figure")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="the plot")
    parser.add_argument("--quick", action="store_true", help="a few pages, to see that it runs")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="configs and logs stay there")
    parser.add_argument("--steady", action="store_true", help="two topologies, 16 clients, for longer; no docs, no verdicts")
    parser.add_argument("--no-gateway", action="store_true", help="the bare APIs alone")
    options = parser.parse_args()
    if options.docs and (options.quick or options.no_gateway or options.steady):
        parser.error("--docs takes a whole run")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no process of the stage is left
    try:
        with contextlib.ExitStack() as stack:
            folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            folder.mkdir(parents=True, exist_ok=True)
            if options.steady:
                print(steady(folder.resolve()))
                return 0
            began = time.monotonic()
            points, verdicts, facts = run(folder.resolve(), QUICK if options.quick else FULL, not options.no_gateway)
        text = head(points, facts, (time.monotonic() - began) / 60) + tables(points, verdicts)
        print(text)
        report = {**facts, "points": [asdict(p) for p in points], "verdicts": [v.as_dict() for v in verdicts]}
        if options.json:
            options.json.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
        if options.svg:
            options.svg.write_text(drawing(points))
        if options.docs:
            write_docs(text, drawing(points))
    except KitError as error:
        console.error(error)
        return int(error.code)
    except KeyboardInterrupt:
        return 130
    return 0 if all(verdict.holds for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
