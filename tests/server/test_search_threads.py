"""One searcher in many threads, with a real model: everybody gets the hits that they would get alone."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from elasticsearch import Elasticsearch

from esvector import EncoderProfile, Hit, Indexer, Searcher
from tests.support import models

THREADS = 32
EACH = 4
ALIAS = "search-threads"
TEXTS = models.words(300, seed=61)
QUERIES = [*models.words(THREADS * EACH - len(TEXTS[:40]), seed=62), *TEXTS[:40]]

# What the threads ask for, in turns.
KINDS: list[dict[str, Any]] = [
    {},
    {"where": "year >= 2000"},
    {"mode": "hybrid"},
    {"where": "year = 2001", "mode": "exact"},
]


@pytest.fixture(scope="module")
def index(es: Elasticsearch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    records = [{"id": f"d{n}", "text": text, "year": 1990 + n % 30} for n, text in enumerate(TEXTS)]
    dead = tmp_path_factory.mktemp("threads") / "dead.jsonl"
    Indexer(es, ALIAS, profile=EncoderProfile("all-MiniLM-L6-v2"), devices="cpu", dead_letters=dead).run(records)
    yield ALIAS
    for name in es.indices.get(index=f"{ALIAS}*"):
        es.indices.delete(index=name)


def test_32_threads_get_the_hits_that_one_gets(es: Elasticsearch, index: str) -> None:
    options = [KINDS[n % len(KINDS)] for n in range(len(QUERIES))]
    one = Searcher(es, index)
    alone = [one.search(query, k=5, **kind) for query, kind in zip(QUERIES, options, strict=True)]
    shared = Searcher(es, index)  # opens its model while 32 threads wait for it
    together = Barrier(THREADS)

    def ask(thread: int) -> list[list[Hit]]:
        together.wait()
        return [shared.search(QUERIES[n], k=5, **options[n]) for n in range(thread, len(QUERIES), THREADS)]

    with ThreadPoolExecutor(THREADS) as pool:
        answers = list(pool.map(ask, range(THREADS)))
    for thread, found in enumerate(answers):
        for hits, expected in zip(found, alone[thread::THREADS], strict=True):
            assert_same(hits, expected)


def assert_same(hits: list[Hit], expected: list[Hit]) -> None:
    """Encoded beside other queries, a vector is off by what float32 rounds: ids may change where scores are equal."""
    assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in expected], abs=1e-5)
    distinct = {round(hit.score, 4) for hit in expected}
    if len(distinct) == len(expected):
        assert [hit.id for hit in hits] == [hit.id for hit in expected]
