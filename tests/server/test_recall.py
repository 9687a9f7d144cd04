"""What ``esvector recall`` says of a real index."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from elasticsearch import Elasticsearch

from esvector import Indexer, PassageOptions
from esvector.errors import ConfigError, EncoderMismatchError, FilterError, IndexNotFoundError
from esvector.evaluate.recall import RecallReport, measure_recall
from tests.support.commands import lines_of, run_command
from tests.support.encoders import HashEncoder

DIMS = 64
ALIAS = "recall-tests"
# A graph in every segment, however small, or all would be scanned: then nothing is approximate.
GRAPH = {"type": "hnsw", "m": 4, "ef_construction": 8, "flat_index_threshold": 0}


def mapping(index_options: dict[str, Any], *, passages: bool = False) -> dict[str, Any]:
    vector = {"vector": {"type": "dense_vector", "index_options": index_options}}
    texts = {"start": {"type": "integer"}, "end": {"type": "integer"}, "text": {"type": "text"}}
    nested = {"passages": {"type": "nested", "dynamic": False, "properties": {**texts, **vector}}}
    return {"mappings": {"properties": nested if passages else vector}}


@pytest.fixture(scope="module")
def records() -> list[dict[str, Any]]:
    order = random.Random(3)
    return [
        {"id": f"d{i}", "text": f"document number {i}", "year": order.randrange(1990, 2025), "rare": i % 100 == 0}
        for i in range(3000)
    ]


@pytest.fixture(scope="module", autouse=True)
def index(es: Elasticsearch, records: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    dead = tmp_path_factory.mktemp("dead") / "dead.jsonl"
    Indexer(es, ALIAS, encoder=HashEncoder(DIMS), mapping=mapping(GRAPH), dead_letters=dead, graph="inline").run(
        records
    )
    yield
    for name in es.indices.get(index=f"{ALIAS}*", expand_wildcards="all"):
        es.indices.delete(index=name)


def measured(es: Elasticsearch, **more: Any) -> RecallReport:
    return measure_recall(es, ALIAS, **{"sample": 40, **more})


def test_more_candidates_find_more_and_all_of_them_find_all(es: Elasticsearch) -> None:
    report = measured(es, k=[10], num_candidates=[10, 100, 3000])
    recalls = [point.recall for point in report.points]
    assert recalls[0] < 0.5, "a coarse graph of random vectors is hard"
    assert recalls[0] + 0.1 < recalls[1] < recalls[2]
    assert recalls[2] > 0.98
    for point in report.points:
        assert point.interval.low <= point.recall <= point.interval.high
        assert point.worst_decile <= point.recall
        assert (point.queries, point.documents, point.selectivity) == (40, 3000, 1.0)
        assert 0 < point.approximate.p50 <= point.approximate.p95
        assert 0 < point.exact.p50 <= point.exact.p95


def test_each_k_and_each_filter_is_measured(es: Elasticsearch, records: list[dict[str, Any]]) -> None:
    report = measured(es, k=[5, 100], where=[None, "rare = true", "year >= 2020"])
    assert [(point.where, point.k) for point in report.points] == [
        (where, k) for where in (None, "rare = true", "year >= 2020") for k in (5, 100)
    ]
    recent = sum(record["year"] >= 2020 for record in records)
    assert {point.where: point.documents for point in report.points} == {
        None: 3000, "rare = true": 30, "year >= 2020": recent,
    }  # fmt: skip
    rare = [point for point in report.points if point.where == "rare = true"]
    assert [point.selectivity for point in rare] == [0.01, 0.01]
    assert [point.recall for point in rare] == [1, 1], "30 documents are compared one by one"


def test_the_same_seed_measures_the_same_and_another_one_does_not(es: Elasticsearch) -> None:
    def recalls(seed: int) -> list[tuple[float, Any]]:
        return [(point.recall, point.interval) for point in measured(es, k=[10], num_candidates=[10], seed=seed).points]

    assert recalls(1) == recalls(1)
    assert recalls(1) != recalls(2)


def test_a_document_is_no_answer_to_its_own_vector(es: Elasticsearch) -> None:
    """Or recall@1 would be that of finding what was asked with."""
    report = measured(es, k=[1], num_candidates=[1], sample=60)
    assert report.points[0].recall < 0.9


def test_queries_are_encoded_as_the_passport_says(es: Elasticsearch) -> None:
    encoder = HashEncoder(DIMS)
    report = measured(es, queries=["document number 7", "another question"], k=[10], encoder=encoder)
    assert (report.source, report.points[0].queries) == ("file", 2)
    with pytest.raises(EncoderMismatchError):
        measured(es, queries=["x"], encoder=HashEncoder(DIMS, "other"))


def test_recall_over_passages(es: Elasticsearch, alias: str, tmp_path: Path) -> None:
    records = [{"id": f"p{n}", "text": " ".join(f"w{n}x{m}." for m in range(n % 60 + 1))} for n in range(400)]
    template = mapping({**GRAPH, "type": "int8_hnsw"}, passages=True)
    indexer = Indexer(
        es,
        alias,
        encoder=HashEncoder(DIMS),
        mapping=template,
        dead_letters=tmp_path / "dead.jsonl",
        passages=PassageOptions(24, 4),
        graph="inline",
    )
    indexer.run(records)
    report = measure_recall(es, alias, sample=30, k=[10], num_candidates=[10, 5000])
    assert [point.documents for point in report.points] == [400, 400]
    assert report.points[0].recall < report.points[1].recall
    assert report.points[1].recall > 0.95


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"k": [0]}, ConfigError),
        ({"k": [10], "num_candidates": [5]}, ConfigError),
        ({"oversample": 0.5}, ConfigError),
        ({"sample": 0}, ConfigError),
        ({"where": ["yaer > 2000"]}, FilterError),
    ],
)
def test_what_cannot_be_measured_is_said_before_anything_is_sent(
    es: Elasticsearch, more: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        measured(es, **more)


def test_no_such_index(es: Elasticsearch) -> None:
    with pytest.raises(IndexNotFoundError, match="there is no index nothing-here"):
        measure_recall(es, "nothing-here")


def test_the_command_writes_a_line_for_each_point(server_url: str, tmp_path: Path) -> None:
    done = run_command(
        server_url, "recall", ALIAS, "--sample", "20", "-k", "10", "--where", "year >= 2020",
        "--num-candidates", "10", "--num-candidates", "50",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    found = lines_of(done)
    assert [(line["where"], line["num_candidates"]) for line in found] == [
        (None, 10), (None, 50), ("year >= 2020", 10), ("year >= 2020", 50),
    ]  # fmt: skip
    assert all({"recall", "interval", "worst_decile", "approximate", "exact", "seed"} <= set(line) for line in found)
    failed = run_command(server_url, "recall", ALIAS, "--queries", str(tmp_path / "none.txt"))
    assert (failed.exit_code, "cannot be read" in failed.output) == (1, True)
