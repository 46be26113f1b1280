"""From what is so and what is wished to a plan: cards, images, model, memory. Pure: asks nothing, writes nothing.

Every choice comes with its reason. What cannot be planned is a KitError that names the working alternative.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from kit.catalog import backends, images, models, requirements
from kit.catalog.backends import NATIVE, Backend
from kit.catalog.images import Family
from kit.catalog.models import Model
from kit.errors import ExitCode, KitError
from kit.facts.gpus import Nvidia
from kit.facts.machine import Machine
from kit.plan import memory
from kit.plan.cards import Card, cards_of, require_host, wanted
from kit.plan.memory import GIB, Budget

SHARED, SPLIT, PAIRS, API_ONLY = "shared", "split", "pairs", "api-only"
TOPOLOGIES = (SHARED, SPLIT, PAIRS)
USUAL_BACKEND, USUAL_MODEL = "vllm", "PaddleOCR-VL-0.9B"
AUTO = -1
MOST_REPLICAS = 8  # fill any VLM that is known: one API sends it the blocks of one page, a dozen or more
LEFT_CORES = 2  # for the VLM server and the gateway
KV_BYTES = "kv-cache-memory-bytes"
CLIENT_MOST = 200  # requests that PaddleX keeps open with the VLM unless told otherwise (paddlex 3.7.2 source, GenAIConfig)


@dataclass(frozen=True)
class Wishes:
    """What the user asked for. gpus: empty for the kit's choice. model, topology: "" likewise.

    usual_model: taken when no model is asked for and the images leave the choice. budget: GiB of each card.
    vlm_url: of a server of your own. replicas: APIs behind the gateway; AUTO for the kit's choice, 0 for no gateway.
    """

    model: str = ""
    backend: str = USUAL_BACKEND
    gpus: tuple[str, ...] = ()
    topology: str = ""
    offline: bool = False
    budget: float | None = None
    vlm_url: str = ""
    usual_model: str = USUAL_MODEL
    replicas: int = 0

    @property
    def apis(self) -> int:
        return max(1, self.replicas)


@dataclass(frozen=True)
class Choice:
    name: str
    value: str
    reason: str


@dataclass(frozen=True)
class Placed:
    """One API with its VLM. number: 0 for the first. vlm, vlm_budget: None where no VLM server is started."""

    number: int
    api: Card
    api_budget: Budget
    vlm: Card | None = None
    vlm_budget: Budget | None = None

    @property
    def budgets(self) -> tuple[tuple[Card, Budget], ...]:
        """Each card once, with all that it holds."""
        if self.vlm is None or self.vlm_budget is None:
            return ((self.api, self.api_budget),)
        if self.vlm == self.api:
            return ((self.vlm, self.vlm_budget),)
        return ((self.vlm, self.vlm_budget), (self.api, self.api_budget))


@dataclass(frozen=True)
class Plan:
    topology: str
    model: Model
    backend: Backend
    family: Family
    placed: tuple[Placed, ...]
    choices: tuple[Choice, ...]
    vlm_url: str = ""
    replicas: int = 0  # APIs behind the gateway; 0 without one
    api_servers: int | None = None  # vLLM's api-server-count, where the default of PaddleX is too many

    @property
    def serves_vlm(self) -> bool:
        """True when a VLM server is started beside the API."""
        return self.topology != API_ONLY

    @property
    def layout_batch(self) -> int:
        """Pages that the layout model takes at once, on the smallest of the cards."""
        return min(p.api_budget.step.layout_batch for p in self.placed)

    @property
    def at_once(self) -> int:
        """Requests that each API keeps open with the VLM."""
        apis = max(1, self.replicas)
        most = self.backend.at_once
        if self.serves_vlm:
            most = min(CLIENT_MOST, *(p.vlm_budget.seqs for p in self.placed if p.vlm_budget))
        return max(1, most // apis)


def plan(nvidia: Nvidia, machine: Machine, wishes: Wishes) -> Plan:
    """The plan. Raises KitError: USAGE for wishes that contradict each other, ENVIRONMENT where this hardware is not enough."""
    return _with_replicas(nvidia, machine, wishes) if wishes.replicas == AUTO else _plan(nvidia, machine, wishes)


def _with_replicas(nvidia: Nvidia, machine: Machine, wishes: Wishes) -> Plan:
    """The plan with as many APIs as the host and the cards take without a smaller VLM or a smaller layout batch."""
    one = _plan(nvidia, machine, replace(wishes, replicas=1))
    room = min(machine.cores - LEFT_CORES, machine.memory_available // memory.API_RAM) // len(one.placed)
    for replicas in range(min(MOST_REPLICAS, room), 1, -1):
        try:
            more = _plan(nvidia, machine, replace(wishes, replicas=replicas))
        except KitError:
            continue
        if _size_of(more) == _size_of(one):
            return more
    return one


def _size_of(made: Plan) -> tuple[object, ...]:
    return made.topology, made.layout_batch, *(p.vlm_budget and p.vlm_budget.step for p in made.placed)


def _plan(nvidia: Nvidia, machine: Machine, wishes: Wishes) -> Plan:
    backend = _backend(wishes)
    require_host(machine)
    cards = cards_of(nvidia, machine)
    pool = _driven(wanted(cards, wishes.gpus) if wishes.gpus else cards, nvidia)
    if wishes.topology == SPLIT and len(pool) < 2:
        raise KitError(
            "--topology split needs two cards, and there is one", "leave --topology out, or name two with --gpu", ExitCode.USAGE
        )
    try:
        placed, topology, why = _place(pool, backend, wishes)
    except KitError as error:
        raise _with_driver(error, nvidia) from None
    family, model, choices = _images(placed, backend, wishes)
    _require_driver(nvidia, family.build)
    result = Plan(
        topology, model, backend, family, placed, choices=(), vlm_url=wishes.vlm_url, replicas=wishes.replicas,
        api_servers=_api_servers(machine, backend),
    )  # fmt: skip
    cards_choice = Choice("cards", "; ".join(_cards_text(p) for p in placed), why)
    return replace(result, choices=(cards_choice, *choices, *_replicas(result, machine), *_sizes(result)))


# --- wishes


def _backend(wishes: Wishes) -> Backend:
    backend = backends.find(wishes.backend)
    if backend is None:
        names = ", ".join(b.name for b in backends.BACKENDS)
        raise KitError(f"unknown backend {wishes.backend}", f"there are: {names}", ExitCode.USAGE)
    if wishes.vlm_url and backend.client == NATIVE:
        raise KitError("--backend native has no VLM server, so --vlm-url has no meaning", "leave one of them out", ExitCode.USAGE)
    if backend.own_server and not wishes.vlm_url:
        raise KitError(
            f"there is no official image for {backend.name}",
            f"start that server yourself and give its address: --backend {backend.name} --vlm-url http://HOST:PORT/v1",
            ExitCode.USAGE,
        )
    if wishes.replicas and backend.client == NATIVE:
        raise KitError(
            "--replicas: with --backend native each API would load a VLM of its own", "leave one of them out", ExitCode.USAGE
        )
    if wishes.topology in (SPLIT, PAIRS) and not _starts_vlm(backend, wishes):
        raise KitError(
            f"--topology {wishes.topology} needs a VLM server that the kit starts", "leave --topology out", ExitCode.USAGE
        )
    return backend


def _starts_vlm(backend: Backend, wishes: Wishes) -> bool:
    return backend.image and not wishes.vlm_url


# --- cards


def _place(pool: tuple[Card, ...], backend: Backend, wishes: Wishes) -> tuple[tuple[Placed, ...], str, str]:
    """Where everything goes: the placed services, the topology, and why."""
    budget = round(wishes.budget * GIB) if wishes.budget is not None else None
    if not _starts_vlm(backend, wishes):
        fits = _ranked([p for card in pool if (p := _alone(card, backend, budget, wishes.apis))])
        if not fits:
            raise _refusal(pool, backend, wishes)
        return fits[:1], API_ONLY, "the API alone; of the cards that can hold it, the one with the most free memory"
    if wishes.gpus and len({card.build for card in pool if _serves(card, backend)}) > 1:
        raise KitError(
            "these cards need images of different builds, and a service has one (Blackwell: sm120)",
            "name cards of one kind, or configure a second clone for the others",
            ExitCode.USAGE,
        )
    shared = _ranked([p for card in pool if (p := _shared(card, backend, budget, wishes.apis))])
    topology = wishes.topology or (PAIRS if len(wishes.gpus) > 2 else SPLIT if len(pool) > 1 else SHARED)
    if topology == PAIRS and shared:
        unfit = tuple(card for card in pool if card not in {p.api for p in shared})
        if wishes.gpus and unfit:
            raise _refusal(unfit, backend, wishes)
        pairs = [p for p in shared if p.api.build == shared[0].api.build]
        pairs.sort(key=lambda p: pool.index(p.api))
        why = "an API and a VLM of its own on every card: the pipeline does not spread over cards (OCR#17466)"
        return tuple(replace(p, number=number) for number, p in enumerate(pairs)), PAIRS, why
    if topology == SPLIT:
        if split := _split(pool, backend, budget, wishes.apis):
            return (split,), SPLIT, "the VLM has the card with the most free memory to itself, the layout model the next one"
        if shared and (wishes.topology or len(wishes.gpus) > 1):
            other = "no other card has room for the layout model, or has another build of images"
            raise KitError(
                f"{shared[0].api.label} can hold the service, but {other}",
                "leave --topology out and name that card alone with --gpu",
                ExitCode.ENVIRONMENT,
            )
    if shared:
        why = "API and VLM share the card"
        return shared[:1], SHARED, f"{why} with the most free memory of {len(pool)}" if pool[1:] else f"{why}; it is the only one"
    raise _refusal(pool, backend, wishes)


def _ranked(placed: list[Placed]) -> tuple[Placed, ...]:
    return tuple(sorted(placed, key=lambda p: -p.api.free))


def _serves(card: Card, backend: Backend) -> bool:
    return not card.problem and card.build is not None and backend.runs_on(card.capability)


def _holds_api(card: Card) -> bool:
    """PaddlePaddle runs the layout model from 7.0 on (PaddleOCR-VL documentation)."""
    return not card.problem and card.build is not None and card.capability >= (7, 0)


def _alone(card: Card, backend: Backend, budget: int | None, apis: int) -> Placed | None:
    if not _holds_api(card):
        return None
    native = backend.client == NATIVE
    found = memory.api_budget(card.total, card.free, budget, native=native, half=card.capability >= (8, 0), apis=apis)
    return Placed(0, card, found) if found else None


def _shared(card: Card, backend: Backend, budget: int | None, apis: int) -> Placed | None:
    if not _serves(card, backend):
        return None
    found = memory.vlm_budget(
        card.total, card.free, budget, base=card.base, with_api=True, whole_steps=backend.name == "fastdeploy", apis=apis
    )
    return Placed(0, card, found, card, found) if found else None


def _split(pool: tuple[Card, ...], backend: Backend, budget: int | None, apis: int) -> Placed | None:
    """The roomiest card that can serve the VLM, and the next one of the same build for the API."""
    for vlm in sorted((c for c in pool if _serves(c, backend)), key=lambda c: -c.free):
        whole = backend.name == "fastdeploy"
        theirs = memory.vlm_budget(vlm.total, vlm.free, budget, base=vlm.base, with_api=False, whole_steps=whole)
        if not theirs:
            continue
        for api in sorted((c for c in pool if c != vlm and _holds_api(c) and c.build == vlm.build), key=lambda c: -c.free):
            if ours := memory.api_budget(api.total, api.free, budget, apis=apis):
                return Placed(0, api, ours, vlm, theirs)
    return None


# --- refusals


def _refusal(pool: tuple[Card, ...], backend: Backend, wishes: Wishes) -> KitError:
    """Why no card of `pool` will do, a line for each, and what would work."""
    why = [f"{card.label}: {_why_not(card, backend, wishes)}" for card in pool]
    first = max(pool, key=lambda c: (_serves(c, backend), c.capability, c.free))
    return KitError(
        why[pool.index(first)] if len(pool) == 1 else f"none of {len(pool)} cards can do it; {why[pool.index(first)]}",
        _way_out(first, backend, wishes),
        ExitCode.ENVIRONMENT,
        detail=tuple(why) if len(pool) > 1 else (),
    )


def _why_not(card: Card, backend: Backend, wishes: Wishes) -> str:
    if card.problem:
        return card.problem
    capability = "{}.{}".format(*card.capability)
    if card.build is None:
        return f"no official image runs on compute capability {capability} (OCR#17077)"
    if _starts_vlm(backend, wishes) and not backend.runs_on(card.capability):
        need = (
            ", ".join("{}.{}".format(*c) for c in backend.only)
            if backend.only
            else "{}.{} or newer".format(*backend.least)
            if backend.least
            else ""
        )
        return f"{backend.name} needs compute capability {need}, this is {capability}"
    if card.capability < (7, 0):
        return f"PaddlePaddle needs compute capability 7.0 or newer, this is {capability}"
    least = _least(card, backend, wishes)
    if wishes.budget is not None and card.free >= least:
        return f"--budget {wishes.budget:g} GiB is too little, {gib(least - _reserve(card))} are needed"
    held = f", held by {card.holders}" if card.holders else ""
    return f"{gib(card.free)} of {gib(card.total)} are free, {gib(least)} are needed{held}"


def _least(card: Card, backend: Backend, wishes: Wishes) -> int:
    """Bytes that must be free on this card for the smallest plan."""
    if _starts_vlm(backend, wishes):
        return memory.least_free(card.total, with_api=True, whole_steps=backend.name == "fastdeploy", apis=wishes.apis)
    native = memory.native_parts(card.capability >= (8, 0)) if backend.client == NATIVE else ()
    return sum(part.size for part in (*native, *memory.layout_parts(1, wishes.apis))) + _reserve(card)


def _reserve(card: Card) -> int:
    return memory.limit_of(card.total, card.free, None)[1]


def _way_out(card: Card, backend: Backend, wishes: Wishes) -> str:
    if card.problem or card.build is None or card.capability < (7, 0):
        return "use another card (--gpu), or a VLM server elsewhere with --vlm-url; without a GPU: ./kit up --preview"
    if _starts_vlm(backend, wishes) and not backend.runs_on(card.capability):
        if backends.BACKENDS[0].runs_on(card.capability):
            return "--backend vllm runs on this card"
        return "--backend native runs on this card, slowly; or serve the VLM by llama.cpp: --backend llama-cpp --vlm-url …"
    if wishes.budget is not None:
        return "raise --budget, or leave it out"
    return "stop what holds the memory (a running service: ./kit down), or use another card; nvidia-smi shows who holds it"


def _driven(pool: tuple[Card, ...], nvidia: Nvidia) -> tuple[Card, ...]:
    """Cards whose images need a newer driver drop out, unless that would leave none: then the driver is what to speak of."""

    def late(card: Card) -> bool:
        return bool(nvidia.cuda and card.build and nvidia.cuda < images.LEAST_CUDA[card.build])

    if all(late(card) or card.problem or card.build is None for card in pool):
        return pool
    problem = "its images need a driver for CUDA {}.{}, this one serves {}.{}"
    return tuple(
        replace(card, problem=problem.format(*images.LEAST_CUDA[card.build or ""], *nvidia.cuda or ())) if late(card) else card
        for card in pool
    )


def _require_driver(nvidia: Nvidia, build: str) -> None:
    need = images.LEAST_CUDA[build]
    if nvidia.cuda and nvidia.cuda < need:
        raise KitError(
            "the NVIDIA driver {} serves CUDA {}.{}; the images need {}.{}".format(nvidia.driver or "", *nvidia.cuda, *need),
            f"update the driver to version {requirements.DRIVER_OF_CUDA[need]} or newer",
            ExitCode.ENVIRONMENT,
        )


def _with_driver(error: KitError, nvidia: Nvidia) -> KitError:
    """A refusal whose way out must not end at the driver."""
    try:
        _require_driver(nvidia, images.DEFAULT)
    except KitError as driver:
        return KitError(error.message, f"{error.hint}; {driver.hint} first", error.code, (*error.detail, driver.message))
    return error


# --- images and model


def _images(placed: tuple[Placed, ...], backend: Backend, wishes: Wishes) -> tuple[Family, Model, tuple[Choice, ...]]:
    build = placed[0].api.build
    asked = models.find(wishes.model) if wishes.model else None
    if wishes.model and asked is None:
        names = ", ".join(model.name for model in models.MODELS)
        raise KitError(f"unknown model {wishes.model}", f"there are: {names}", ExitCode.USAGE)
    usual = models.find(wishes.usual_model) or models.find(USUAL_MODEL)
    assert usual is not None
    fitting = [f for f in images.FAMILIES if f.build == build and f.offline == wishes.offline]
    if wishes.offline and not asked and not any(f.carries == usual.name for f in fitting):
        model = next(m for f in fitting for m in models.MODELS if m.name == f.carries)
        reason = f"the offline image carries this one alone, not {usual.name}"
    else:
        model = asked or usual
        reason = "you asked for it" if asked else "as before; --model takes another"
    family = next((f for f in fitting if _carries(f, model) and f.paddleocr >= max(model.paddleocr, backend.paddleocr)), None)
    if family is None:
        carried = ", ".join(f.carries for f in fitting)
        raise KitError(
            f"no offline image for this card carries {model.name}" + (f" for {backend.name}" if backend.own_server else ""),
            f"those that exist carry: {carried}; or leave --offline out and carry the model over yourself",
            ExitCode.ENVIRONMENT,
        )
    why = "Blackwell cards need the sm120 build" if build == images.BLACKWELL else "the newest version that is published"
    if wishes.offline:
        why += "; the models are inside"
    note = f" ({family.note})" if family.note else ""
    return (
        family,
        model,
        (
            Choice("images", family.tag, why + note),
            Choice("model", model.name, f"{reason}; layout model {model.layout}, VLM {model.vlm}"),
            Choice("backend", backend.name, _backend_reason(backend, wishes)),
        ),
    )


def _carries(family: Family, model: Model) -> bool:
    return not family.carries or family.carries == model.name


def _backend_reason(backend: Backend, wishes: Wishes) -> str:
    if wishes.vlm_url:
        return f"your own server at {wishes.vlm_url}; no VLM is started here"
    return backend.about


# --- sizes


def _sizes(made: Plan) -> tuple[Choice, ...]:
    first = made.placed[0]
    chosen = [Choice("layout batch", str(made.layout_batch), "pages that the layout model takes at once")]
    if (budget := first.vlm_budget) and made.backend.keys:
        share, longest, tokens, requests = made.backend.keys
        chosen += [
            Choice(
                share,
                f"{budget.utilization:.2f}",
                f"{gib(budget.share)} of {gib(budget.base)}; of {gib(budget.free)} free, {gib(budget.around)} are for what lies "
                f"outside of it, and {gib(budget.reserve)} stay free",
            ),
            Choice(longest, str(budget.step.model_len), f"the longest request takes {memory.REQUEST_TOKENS} tokens"),
            Choice(
                tokens,
                str(budget.step.batched_tokens),
                f"profiled with {memory.profile_images(budget.step.batched_tokens)} pictures; the default of PaddleX, "
                "131072, with 668",
            ),
            Choice(
                requests, str(budget.seqs), f"the KV cache holds {budget.requests} requests of full length, more of usual ones"
            ),
        ]
        if first.vlm and first.vlm.mig:
            why = "of a slice vLLM may count the whole GPU or the slice (vllm#41776): its cache gets a size of its own"
            chosen.append(Choice(KV_BYTES, str(budget.kv), why))
    if made.api_servers is not None and first.vlm_budget:
        chosen.append(Choice("api-server-count", str(made.api_servers), "PaddleX starts 4, of 0.6 GB each; this host is small"))
    chosen.append(
        Choice(
            "requests of the API",
            str(made.at_once) if made.backend.client != NATIVE else "1",
            "no more than the VLM runs at once: what waits there runs into PaddleX's limit of 600 s"
            if made.backend.client != NATIVE
            else "PaddlePaddle reads one block at a time",
        )
    )
    return tuple(chosen)


def _replicas(made: Plan, machine: Machine) -> tuple[Choice, ...]:
    if not made.replicas:
        return ()
    reason = (
        f"behind the gateway; each reads one page at a time and takes a core, about {gib(memory.API_RAM)} of RAM and its layout "
        f"model ({machine.cores} cores, {gib(machine.memory_available)} of RAM are there)"
    )
    return (Choice("API replicas", str(made.replicas), reason),)


def _api_servers(machine: Machine, backend: Backend) -> int | None:
    """PaddleX starts 4 HTTP processes before vLLM (paddlex 3.7.2 source), each of 0.5 to 0.6 GB (measured on a CPU, vLLM 0.28).

    On a small host they take RAM and cores from the engine and the API.
    """
    if backend.name == "vllm" and (machine.memory_total < 16 * GIB or machine.cores < 8):
        return 1
    return None


def _cards_text(placed: Placed) -> str:
    if placed.vlm is None or placed.vlm == placed.api:
        return placed.api.label
    return f"VLM on {placed.vlm.label}, API on {placed.api.label}"


def gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"
