"""What a failed request leads to; and ranges on their way, with a service that the test plays."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from kit.client import failures, retry
from kit.client.failures import Busy, KeyRefused, ParseError, Refused, ServerFault, TimedOut, Unavailable, Unreachable, Unusable
from kit.client.flight import Flight, Job
from kit.client.ranges import Span, cut
from kit.client.results import Page
from kit.client.retry import LONGEST_RETRY_AFTER, MOST, MOST_PASSING, SAME, Backoff, Tries, Verdict
from kit.errors import KitError

SOON = Backoff(0.0001, 0.001)


def test_pauses_double_up_to_a_limit_and_are_spread_by_chance() -> None:
    backoff = Backoff(1, 30)
    assert [backoff.pause(count, 1.0) for count in (1, 2, 3, 6, 7, 500)] == [1, 2, 4, 30, 30, 30]
    assert backoff.pause(3, 0.0) == 2


def verdicts(error: ParseError, pages: int) -> list[Verdict]:
    tries, all_of_them = Tries(), []
    while not all_of_them or all_of_them[-1] is Verdict.AGAIN:
        all_of_them.append(tries.after(error, pages, SOON, 0.5)[0])
    return all_of_them


def test_a_page_that_fails_in_one_way_is_given_up_a_range_is_halved() -> None:
    assert verdicts(ServerFault("x"), 1) == [Verdict.AGAIN] * (SAME - 1) + [Verdict.GIVE_UP]
    assert verdicts(ServerFault("x"), 8)[-1] is Verdict.HALVE and len(verdicts(ServerFault("x"), 8)) < SAME
    assert verdicts(Refused("x"), 1) == [Verdict.GIVE_UP] and verdicts(Refused("x"), 2) == [Verdict.HALVE]
    assert verdicts(KeyRefused("x"), 8) == [Verdict.STOP]
    assert len(verdicts(Busy("x"), 8)) == MOST_PASSING, "that it is busy is not the pages' fault"


def test_a_page_that_fails_in_changing_ways_gets_more_tries() -> None:
    tries = Tries()
    kinds: list[ParseError] = [ServerFault("x"), TimedOut("x")]
    count = next(count for count in range(100) if tries.after(kinds[count % 2], 1, SOON, 0.5)[0] is Verdict.GIVE_UP)
    assert count == MOST - 1


def test_retry_after_is_heeded_within_reason() -> None:
    assert Tries().after(Busy("x", retry_after=7), 1, SOON, 0.5) == (Verdict.AGAIN, 7)
    assert Tries().after(Unavailable("x", retry_after=1e9), 1, SOON, 0.5)[1] == LONGEST_RETRY_AFTER
    assert failures.seconds_of("12") == 12
    in_a_minute = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=60), usegmt=True)
    assert 55 < (failures.seconds_of(in_a_minute) or 0) <= 60
    for nonsense in (None, "", "soon", "-5", "1e400", "Mon, 99 Foo"):
        assert failures.seconds_of(nonsense) in (None, 0.0)


def test_never_again_means_never() -> None:
    for error in (ServerFault("x"), Busy("x"), Refused("x"), TimedOut("x")):
        assert Tries().after(error, 8, Backoff(never=True), 0.5)[0] is Verdict.GIVE_UP


class Play:
    """A document of so many pages, through a Flight; `answer` gives the failure of a span, or None."""

    def __init__(self, pages: int, answer: Callable[[Span], KitError | None], **settings: object) -> None:
        self.pages, self.answer = pages, answer
        self.read: Counter[int] = Counter()
        self.lost: dict[int, KitError] = {}
        self.sent: list[Span] = []
        self.made = self.in_flight = self.most_in_flight = 0
        self.flight = Flight(self._send, self._take, self._lose, concurrency=4, **{"backoff": SOON, **settings})  # type: ignore[arg-type]

    def run(self) -> Play:
        asyncio.run(asyncio.wait_for(self.flight.run(self._fresh()), 30))
        assert set(self.read.values()) <= {1} and not set(self.read) & set(self.lost)
        assert set(self.read) | set(self.lost) == set(range(1, self.pages + 1))
        return self

    async def _fresh(self) -> AsyncIterator[Job]:
        for span in cut([(1, self.pages)]):
            self.made += 1
            yield Job(None, span)

    async def _send(self, job: Job) -> list[Page]:
        self.sent.append(job.span)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(0)
            if (error := self.answer(job.span)) is not None:
                raise error
        finally:
            self.in_flight -= 1
        return [Page(number, "", (), {}) for number in range(job.span[0], job.span[1] + 1)]

    async def _take(self, job: Job, pages: list[Page]) -> None:
        self.read.update(page.number for page in pages)

    async def _lose(self, job: Job, error: KitError) -> None:
        self.lost.update(dict.fromkeys(range(job.span[0], job.span[1] + 1), error))


@pytest.mark.parametrize("error", [ServerFault("x"), TimedOut("x"), Refused("x"), Unusable("f", "corrupt", "x")])
def test_poison_pages_are_isolated_by_halving(error: KitError) -> None:
    poison = {13, 14, 40}
    play = Play(64, lambda span: error if any(span[0] <= page <= span[1] for page in poison) else None).run()
    assert set(play.lost) == poison and play.most_in_flight == 4
    assert len(play.sent) < 8 + 3 * (3 * 4 + SAME), "few requests more than there are ranges"


def test_faults_at_random_lose_nothing() -> None:
    chance = random.Random(7)
    kinds: list[KitError | None] = [ServerFault("x"), TimedOut("x"), failures.BrokenOff("x"), failures.BadReply("x"), Busy("x")]
    play = Play(400, lambda span: chance.choice([*kinds, *[None] * 5])).run()
    assert not play.lost and play.flight.retries


def test_failed_ranges_do_not_pile_up() -> None:
    """A service that refuses everything for a while gets no more than what it may have in hand."""
    answers = iter(range(200))
    play = Play(8 * 400, lambda span: Busy("x") if next(answers, None) is not None else None, patience=60)
    made: list[int] = []
    take = play._take

    async def first(job: Job, pages: list[Page]) -> None:
        made.append(play.made)
        await take(job, pages)

    play.flight._take = first
    play.run()
    assert made[0] <= play.flight.workers + 4 * 4


def test_nobody_there_ends_it_at_once_and_a_service_that_leaves_ends_it_later() -> None:
    with pytest.raises(Unreachable):
        Play(80, lambda span: Unreachable("x")).run()
    count = iter(range(3))
    play = Play(80, lambda span: None if next(count, None) is not None else Unreachable("x"), patience=0.05)
    with pytest.raises(Unreachable):
        play.run()
    assert sum(play.read.values()) == 24 and not play.lost


@pytest.mark.parametrize("asked", ["86400", "9" * 400])
def test_no_service_holds_all_requests_longer_than_is_reasonable(monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    monkeypatch.setattr(retry, "LONGEST_RETRY_AFTER", 0.01)
    count = iter(range(3))
    busy = Unavailable("x", retry_after=failures.seconds_of(asked))
    assert not Play(80, lambda span: busy if next(count, None) is not None else None).run().lost


def test_a_service_that_has_read_nothing_at_all_is_not_asked_for_ever() -> None:
    play = Play(800, lambda span: ServerFault("x"))
    with pytest.raises(ServerFault):
        play.run()
    assert len(play.sent) < 800
    # Where it has read pages before, it is the documents.
    assert len(Play(80, lambda span: ServerFault("x"), has_read=True).run().lost) == 80
