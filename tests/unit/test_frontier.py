"""Which of the measured ways to search is chosen, and which are worth showing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from esvector.errors import ConfigError
from esvector.evaluate.frontier import Goal, Trial, choose, find_frontier, nearest
from esvector.evaluate.plot import plot_frontier
from esvector.evaluate.probing import Interval, Latency
from esvector.evaluate.tune import TuneReport


def trial(candidates: int, recall: float, p50: float, *, margin: float = 0.01, p95: float | None = None) -> Trial:
    interval = Interval(recall - margin, min(1.0, recall + margin))
    times = Latency(p50, 2 * p50 if p95 is None else p95)
    return Trial(True, "int8_hnsw", 16, 100, candidates, 2.0, recall, interval, times, 456_000_000)


SLOW, GOOD, LUCKY, POOR = (
    trial(500, 0.999, 0.009),
    trial(100, 0.97, 0.004),
    trial(50, 0.951, 0.003),
    trial(20, 0.8, 0.002),
)
TRIALS = [SLOW, POOR, GOOD, LUCKY]


def test_the_cheapest_that_surely_finds_enough_is_chosen() -> None:
    assert choose(TRIALS, Goal(0.95)) == GOOD, "0.951 with an interval from 0.941 is not surely enough"
    assert choose(TRIALS, Goal(0.98)) == SLOW
    assert choose(TRIALS, Goal(0.5)) == POOR


def test_of_those_that_are_as_fast_the_one_that_finds_most_is_chosen() -> None:
    better = trial(120, 0.98, 0.0041)
    assert choose([GOOD, better], Goal(0.95)) == better
    assert choose([GOOD, trial(120, 0.98, 0.0043)], Goal(0.95)) == GOOD


def test_a_time_limit_counts_at_the_95th_percentile() -> None:
    assert choose(TRIALS, Goal(0.98, p95=0.02)) == SLOW
    assert choose(TRIALS, Goal(0.98, p95=0.01)) is None


def test_what_comes_nearest_is_the_best_in_time_else_the_fastest_that_finds_enough() -> None:
    assert nearest(TRIALS, Goal(0.98, p95=0.01)) == GOOD
    assert nearest(TRIALS, Goal(1.0)) == SLOW
    assert nearest(TRIALS, Goal(0.95, p95=0.001)) == GOOD
    assert nearest([], Goal(0.95)) is None


def test_the_frontier_has_what_finds_more_than_everything_faster() -> None:
    beaten = trial(80, 0.96, 0.005)
    assert find_frontier([*TRIALS, beaten]) == [POOR, LUCKY, GOOD, SLOW]


def report(**more: Any) -> TuneReport:
    facts: dict[str, Any] = {"chosen": GOOD, "copied": 1000}
    return TuneReport("papers", "papers-000001", Goal(0.95), 10, 200, 0, 5000, (*TRIALS,), (POOR, SLOW), **facts | more)


@pytest.mark.parametrize(("name", "begins"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml")])
def test_the_plot_is_a_picture(tmp_path: Path, name: str, begins: bytes) -> None:
    for chosen in (GOOD, None):
        plot_frontier(report(chosen=chosen), tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(begins)


def test_the_plot_says_what_was_chosen(tmp_path: Path) -> None:
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none"}):
        plot_frontier(report(), tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    assert "num_candidates 100, oversample 2" in text
    assert "papers: recall@10 against time" in text
    assert "int8_hnsw (live index), 456 MB per million" in text


def test_a_file_that_is_no_picture(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no picture"):
        plot_frontier(report(), tmp_path / "a.txt")
    with pytest.raises(ConfigError, match="cannot be written"):
        plot_frontier(report(), tmp_path / "nowhere" / "a.png")
