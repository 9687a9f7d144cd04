"""The account of a load: added up in the order of the input, whatever comes first."""

from __future__ import annotations

import itertools
import weakref

import numpy as np
import pytest

from esvector.index.window import Counts, Ledger, Window
from esvector.types import Document


def window(number: int, span: int = 1) -> Window:
    made = Window(number, 10, span=span, place=10 * (number + span))
    made.counts = Counts(read=10 * span, indexed=8 * span, dead=2 * span)
    return made


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_nothing_counts_before_what_came_before_it(order: tuple[int, ...]) -> None:
    places: list[int] = []
    ledger = Ledger(Counts(), lambda last, counts: places.append(last.place) or None)  # type: ignore[func-returns-value]
    settled = set[int]()
    for number in order:
        ledger.settle(window(number))
        settled.add(number)
        first_open = next(n for n in range(5) if n not in settled)
        assert ledger.counts.read == 10 * first_open
        assert (places[-1] if places else 0) == 10 * first_open
    assert places == sorted(set(places))
    assert ledger.counts == Counts(read=40, indexed=32, dead=8)


def test_settled_documents_are_let_go_of_while_an_earlier_window_is_held_up() -> None:
    ledger, late, vector = Ledger(Counts(), lambda last, counts: None), window(1), np.zeros(4, np.float32)
    late.add(Document("a", "t", {}, "1", vector=vector), 11, b"{}", "h")
    kept = weakref.ref(vector)
    ledger.settle(late)
    del late, vector
    assert kept() is None
    ledger.settle(window(0))
    assert ledger.counts.read == 20


def test_windows_that_were_put_together_count_for_all_of_them() -> None:
    ledger = Ledger(Counts(read=5, indexed=5), lambda last, counts: None)
    ledger.settle(window(3))
    ledger.settle(window(0, span=3))
    assert ledger.counts == Counts(read=45, indexed=37, dead=8)


def test_putting_together_keeps_everything_in_order() -> None:
    one, two = window(0), window(1)
    one.add(Document("a", "t", {}, "1"), 1, b"{}", "ha")
    two.add(Document("b", "t", {}, "2"), 2, b"{}", "hb")
    two.digest = "later"
    one.extend(two)
    assert ([d.id for d in one.documents], one.places, one.hashes) == (["a", "b"], [1, 2], ["ha", "hb"])
    assert (one.span, one.place, one.digest, one.counts.read) == (2, 20, "later", 20)


def test_an_account_adds_up_or_says_so() -> None:
    assert Counts(read=6, indexed=1, unchanged=1, superseded=1, dead=1, filtered=2).adds_up
    assert not Counts(read=2, indexed=1).adds_up
