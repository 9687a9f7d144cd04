"""Requests other than bulk ones whose answers are lost, or that meet a node in trouble: a run goes on all the same."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from elasticsearch import Elasticsearch

from esvector import Indexer
from esvector.client import connect
from esvector.errors import IndexingError, IndexNotFoundError, ServerUnreachableError
from esvector.index.graph import loading_body
from esvector.index.history import versions
from esvector.index.lease import LEASES_INDEX
from esvector.index.repeating import Repeating
from esvector.index.retries import RetryPolicy
from esvector.index.target import find_targets
from esvector.index.versions import create_version, list_versions, live_index, loading_alias, move_alias
from tests.support.encoders import HashEncoder
from tests.support.proxy import Proxy
from tests.support.proxy_faults import ApplyThenLose, Inject, ResetPeer

QUICK = RetryPolicy(first_wait=0.05)
HNSW = {"type": "dense_vector", "dims": 64, "index_options": {"type": "int8_hnsw"}}
TEMPLATE = {"mappings": {"properties": {"vector": {"type": "dense_vector", "index_options": {"type": "int8_hnsw"}}}}}


def body_of(vector: dict[str, Any]) -> dict[str, Any]:
    return {
        "settings": {"index": {"number_of_replicas": 0}},
        "mappings": {"_meta": {"mine": 1}, "properties": {"vector": vector}},
    }


def run(client: Elasticsearch, alias: str, folder: Path, texts: list[str]) -> str:
    indexer = Indexer(
        client,
        alias,
        encoder=HashEncoder(),
        mapping=TEMPLATE,
        state=folder / "state",
        dead_letters=folder / "dead.jsonl",
        retry=QUICK,
    )
    return indexer.run([{"id": str(n), "text": text} for n, text in enumerate(texts)]).index


def test_a_run_whose_answers_are_lost_builds_one_version_and_updates_it(
    es: Elasticsearch, alias: str, server_url: str, tmp_path: Path
) -> None:
    index = f"{alias}-000001"
    es.options(ignore_status=404).delete(index=LEASES_INDEX, id=alias)
    with Proxy(server_url) as proxy, connect(proxy.url, environ={}) as client:
        proxy.once("GET /_cluster/state", Inject(503))
        proxy.once(f"PUT /{LEASES_INDEX}/_doc/{alias}", ApplyThenLose())
        proxy.once(f"PUT /{alias}-trial-", ApplyThenLose())
        proxy.once(f"DELETE /{alias}-trial-", ApplyThenLose())
        proxy.once(f"PUT /{index} ", ApplyThenLose())
        proxy.once(f"PUT /{index}/_settings", ApplyThenLose())
        proxy.once(f"PUT /{index}/_mapping", ApplyThenLose())
        proxy.once("POST /_aliases", ApplyThenLose())
        assert run(client, alias, tmp_path, ["one", "two"]) == index
        assert not proxy.unmet
        proxy.once(f"PUT /{index}/_mapping", Inject(503))  # the number of the run
        proxy.once(f"PUT /{index}/_alias/{loading_alias(index)}", ApplyThenLose())
        proxy.once(f"DELETE /{index}/_alias/{loading_alias(index)}", ApplyThenLose())
        assert run(client, alias, tmp_path, ["one", "another", "three"]) == index
        assert not proxy.unmet
    assert live_index(es, alias) == index
    assert es.count(index=alias)["count"] == 3
    assert list(es.indices.get(index=f"{alias}*", expand_wildcards="all")) == [index]
    assert list(es.indices.get_alias(index=index)[index]["aliases"]) == [alias]


def test_a_number_that_another_run_took_is_not_ours(es: Elasticsearch, alias: str, server_url: str) -> None:
    """Its first answer was not lost, but there is a document in the index: so it is another run's."""
    with Proxy(server_url) as proxy, connect(proxy.url, environ={}) as client:
        index = f"{alias}-000001"

        def taken(exchange: Any) -> None:
            es.indices.create(index=index, body=body_of(HNSW) | {"aliases": {loading_alias(index): {}}})
            es.index(index=index, document={}, refresh=True)
            Inject(503)(exchange)

        proxy.once(f"PUT /{index} ", taken)
        repeat = Repeating(client, QUICK, threading.Event())
        assert create_version(client, alias, body_of(HNSW), repeat=repeat) == f"{alias}-000002"


def test_readers_are_moved_once_where_the_answer_is_lost_twice(es: Elasticsearch, alias: str, server_url: str) -> None:
    first, second = (create_version(es, alias, body_of(HNSW)) for _ in range(2))
    move_alias(es, alias, None, first)
    with Proxy(server_url) as proxy, connect(proxy.url, environ={}) as client:
        client = client.options(max_retries=0)
        proxy.once("POST /_aliases", ApplyThenLose())
        proxy.once(f"HEAD /_alias/{alias}", Inject(503))  # what became of it cannot be told at first
        move_alias(client, alias, first, second, repeat=Repeating(client, QUICK, threading.Event()))
        assert not proxy.unmet
        with pytest.raises(IndexingError, match="no longer points to"):
            move_alias(client, alias, first, second + "0", repeat=Repeating(client, QUICK, threading.Event()))
    assert live_index(es, alias) == second


def test_a_trial_that_a_killed_run_leaves_is_no_version_and_goes_with_the_next(
    es: Elasticsearch, alias: str, server_url: str
) -> None:
    body = body_of(HNSW)
    with Proxy(server_url) as proxy, connect(proxy.url, environ={}) as client:
        proxy.once(f"DELETE /{alias}-", ResetPeer())  # as far as the server sees, the run is dead from here on
        with pytest.raises(ServerUnreachableError):
            create_version(client, alias, loading_body(body, "vector"), in_the_end=body)
    (left,) = es.indices.get(index=f"{alias}-*", expand_wildcards="all")
    assert list_versions(es, alias) == []
    assert find_targets(es, alias) == []
    with pytest.raises(IndexNotFoundError):
        versions(es, alias)
    assert create_version(es, alias, loading_body(body, "vector"), in_the_end=body) == f"{alias}-000001"
    assert list(es.indices.get(index=f"{alias}-*", expand_wildcards="all")) == [f"{alias}-000001"], left
