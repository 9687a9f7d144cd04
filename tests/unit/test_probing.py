"""What numbers of a measurement mean: recall against the truth, intervals, percentiles, queries of files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from esvector.errors import ConfigError, SourceError
from esvector.evaluate.probing import Probe, interval, latency
from esvector.evaluate.queries import read_queries
from esvector.evaluate.recall import check_probes
from esvector.evaluate.truth import Truth


def truth(*neighbours: tuple[str, float]) -> Truth:
    return Truth((neighbours,), 5, 5, (0.1,))


NEAR = truth(("a", 0.9), ("b", 0.8), ("c", 0.7), ("d", 0.6))


def test_recall_is_the_share_of_the_exact_ones_that_were_found() -> None:
    assert NEAR.recall(0, ["a", "b", "c"], 3) == 1
    assert NEAR.recall(0, ["c", "b", "a"], 3) == 1, "order is no matter of recall"
    assert NEAR.recall(0, ["a", "x", "d"], 3) == pytest.approx(1 / 3)
    assert NEAR.recall(0, ["x", "y", "a"], 2) == 0, "only the first k count"
    assert NEAR.recall(0, [], 2) == 0


def test_fewer_matches_than_k_can_all_be_found() -> None:
    assert NEAR.recall(0, ["a", "b", "c", "d"], 10) == 1
    assert NEAR.recall(0, ["a", "b"], 10) == 0.5
    assert truth().recall(0, [], 10) == 1


def test_which_of_equally_near_documents_were_found_is_no_matter() -> None:
    tied = truth(("a", 0.9), ("b", 0.8), ("c", 0.8), ("d", 0.8), ("e", 0.5))
    assert tied.recall(0, ["a", "d"], 2) == 1
    assert tied.recall(0, ["c", "d"], 2) == 1, "two that are as near as the second one"
    assert tied.recall(0, ["a", "e"], 2) == 0.5


def test_the_interval_holds_the_true_mean_about_as_often_as_it_says() -> None:
    draw = np.random.default_rng(1)
    held = 0
    for seed in range(60):
        values = draw.binomial(10, 0.9, 100) / 10
        found = interval(values.tolist(), seed)
        assert found.low < values.mean() < found.high
        held += found.low <= 0.9 <= found.high
    assert held >= 51  # 57 expected


def test_the_interval_is_the_same_with_the_same_seed_and_narrower_with_more_queries() -> None:
    values = (np.random.default_rng(2).binomial(10, 0.9, 400) / 10).tolist()
    assert interval(values, 7) == interval(values, 7)
    few, many = interval(values[:25]), interval(values)
    assert many.high - many.low < 0.5 * (few.high - few.low)


def test_where_every_query_finds_all_there_is_nothing_to_resample() -> None:
    found = interval([1.0] * 50)
    assert (found.low, found.high) == (1, 1)
    assert interval([0.5]).low == 0.5


def test_percentiles_of_times() -> None:
    found = latency([n / 100 for n in range(101)])
    assert (found.p50, found.p95) == pytest.approx((0.5, 0.95))


@pytest.mark.parametrize(
    "probe", [Probe(0), Probe(10_000), Probe(10, 9), Probe(10, 10_001), Probe(10, 20, 0.5), Probe(10, 20, -1)]
)
def test_numbers_that_the_server_would_refuse(probe: Probe) -> None:
    with pytest.raises(ConfigError):
        check_probes([probe])
    check_probes([Probe(10), Probe(10, 10, 0), Probe(10, 10_000, 1)])


def test_queries_of_files(tmp_path: Path) -> None:
    (tmp_path / "q.txt").write_text("one query\n\n  two\n")
    assert read_queries(tmp_path / "q.txt") == ["one query", "two"]
    (tmp_path / "q.jsonl").write_text('{"_id": "1", "text": "one"}\n{"query": "two"}\n')
    assert read_queries(tmp_path / "q.jsonl") == ["one", "two"]


@pytest.mark.parametrize("line", ['{"title": "x"}', "no json", "[1]"])
def test_a_line_without_a_query_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "q.jsonl").write_text(f'{{"text": "x"}}\n{line}\n')
    with pytest.raises(SourceError, match=r"q\.jsonl:2 has no query"):
        read_queries(tmp_path / "q.jsonl")


def test_a_file_without_queries(tmp_path: Path) -> None:
    (tmp_path / "q.txt").write_text("\n")
    with pytest.raises(SourceError, match="has no queries"):
        read_queries(tmp_path / "q.txt")
    with pytest.raises(SourceError, match="cannot be read"):
        read_queries(tmp_path / "nothing.txt")
