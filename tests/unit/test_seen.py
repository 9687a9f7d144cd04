"""The ids of a run, in eight bytes each."""

from __future__ import annotations

import random
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from esvector.index.seen import SeenIds


def test_an_id_that_utf8_cannot_hold_is_one_like_others() -> None:
    seen = SeenIds()
    assert seen.add(["a\ud800", "a", "a\ud801"]) == [False, False, False]
    assert seen.holds(["a\ud800", "a?"]) == [True, False]


@given(st.lists(st.lists(st.text(max_size=2), max_size=20), max_size=20))
def test_says_what_a_set_would_say(windows: list[list[str]]) -> None:
    seen, expected = SeenIds(), set[str]()
    for ids in windows:
        known = []
        for id_ in ids:
            known.append(id_ in expected)
            expected.add(id_)
        assert seen.add(ids) == known
    assert len(seen) == len(expected)
    every = [*expected, "never there"]
    assert seen.holds(every) == [True] * len(expected) + [False]


def test_a_million_ids_take_little_more_than_eight_megabytes() -> None:
    seen = SeenIds()
    tracemalloc.start()
    for start in range(0, 1_000_000, 5_000):
        assert not any(seen.add([f"document-{n}" for n in range(start, start + 5_000)]))
    held, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 9_000_000
    assert most < 11_000_000  # also while runs are merged
    order = random.Random(1)
    assert all(seen.holds([f"document-{order.randrange(1_000_000)}" for _ in range(1_000)]))
