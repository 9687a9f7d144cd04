"""What the senders of one writer share: a limit on how many send, a pause for all, the size of requests."""

from __future__ import annotations

import threading
from itertools import pairwise

import numpy as np
import pytest

from esvector.index.bodies import BodySize, cut, halves
from esvector.index.concurrency import Blockade, Limiter
from esvector.index.pipeline import Stopped
from esvector.index.retries import RetryPolicy

MIB = 2**20


def answers(limiter: Limiter, count: int, *, refused: bool | None) -> None:
    """So many requests are under way together, and answered alike."""
    tickets = [limiter.enter() for _ in range(count)]
    for ticket in tickets:
        limiter.leave(ticket, refused=refused)


def test_a_refusal_halves_the_senders_once_and_good_answers_bring_them_back_one_by_one() -> None:
    limiter = Limiter(threading.Event())
    answers(limiter, 8, refused=True)
    assert limiter.limit == 4
    tickets = [limiter.enter() for _ in range(4)]
    for _ in range(5):  # a round of good answers, each place taken again at once
        limiter.leave(tickets.pop(0), refused=False)
        tickets.append(limiter.enter())
    assert limiter.limit == 5
    for ticket in tickets:
        limiter.leave(ticket, refused=None)
    for _ in range(5):
        answers(limiter, 1, refused=True)
    assert limiter.limit == 1


def test_the_limit_does_not_grow_while_it_holds_nobody_back() -> None:
    limiter = Limiter(threading.Event())
    answers(limiter, 8, refused=True)
    for _ in range(100):
        answers(limiter, 2, refused=False)
    assert limiter.limit == 4


def test_who_waits_for_a_place_ends_when_the_run_is_stopped() -> None:
    stopping = threading.Event()
    limiter = Limiter(stopping, most=1)
    limiter.enter()
    stopping.set()
    with pytest.raises(Stopped):
        limiter.enter()


def test_an_answer_to_an_earlier_request_does_not_end_a_block() -> None:
    stopping = threading.Event()
    blockade = Blockade(stopping, probe_every=1000, deadline=2000)
    began = blockade.begin()
    blockade.end(began - 1)
    assert blockade.begin() == began
    stopping.set()
    with pytest.raises(Stopped):
        blockade.wait()
    blockade.end(began + 1)
    assert not blockade.wait()
    assert blockade.count == 1


def feed(size: BodySize, requests: int, rate: float) -> None:
    for _ in range(requests):
        size.took(size.limit, size.limit / rate)


def test_bodies_grow_to_the_maximum_while_larger_ones_are_not_slower() -> None:
    size = BodySize(5 * MIB)
    assert size.limit == MIB
    feed(size, 100, rate=1e8)
    assert size.limit == 5 * MIB


def test_bodies_stay_at_the_size_before_the_one_that_was_slower() -> None:
    size = BodySize(64 * MIB)
    feed(size, 8, rate=1e8)
    feed(size, 8, rate=1.2e8)
    assert size.limit == 4 * MIB
    feed(size, 8, rate=0.8e8)
    feed(size, 100, rate=2e8)
    assert size.limit == 2 * MIB


def test_small_bodies_say_nothing_of_the_size() -> None:
    size = BodySize(4 * MIB)
    for _ in range(100):
        size.took(1000, 0.001)
    assert size.limit == MIB


def test_a_limit_of_the_server_is_for_good_and_a_shortage_of_memory_is_not() -> None:
    size = BodySize(4 * MIB)
    feed(size, 100, rate=1e8)
    size.shrink(4 * MIB)
    assert size.limit == 2 * MIB
    feed(size, 100, rate=1e8)
    assert size.limit == 4 * MIB
    size.too_big(4 * MIB)
    feed(size, 100, rate=1e8)
    assert size.limit == int(0.9 * 2 * MIB)


@pytest.mark.parametrize("limit", [1, 150, 1000, 4000, 10**9])
def test_parts_are_even_and_never_over_the_limit(limit: int) -> None:
    sizes = np.random.default_rng(3).integers(1, 300, 100)
    for whole in (range(100), list(range(0, 100, 3))):
        parts = cut(whole, sizes, limit)
        assert [position for part in parts for position in part] == list(whole)
        assert all(sizes[part].sum() <= limit or len(part) == 1 for part in parts)
        if limit > 1000:
            totals = [int(sizes[part].sum()) for part in parts]
            assert all(abs(a - b) <= 2 * 300 for a, b in pairwise(totals[:-1]))
    assert cut([], sizes, limit) == []


@pytest.mark.parametrize("giant", [0, 50, 99])
def test_halves_are_both_smaller_wherever_the_giant_is(giant: int) -> None:
    sizes = np.ones(100, np.int64)
    sizes[giant] = 10_000
    first, second = halves(range(100), sizes)
    assert len(first) + len(second) == 100
    assert min(len(first), len(second)) > 0


def test_one_time_may_stand_for_all() -> None:
    assert RetryPolicy(5).give_up_after == 5
