"""The deferred graph on a real Elasticsearch: what the segments hold afterwards, and what survives an interruption."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable
from typing import Any

import numpy as np
import orjson
import pytest
from elasticsearch import Elasticsearch
from numpy.typing import NDArray

from esvector.client import connect
from esvector.errors import IndexingError
from esvector.index import graph
from esvector.index.bulk import BulkWriter
from esvector.index.graph import GraphProgress, GraphReport, finish_graph, loading_body
from esvector.index.pipeline import Stopped
from esvector.index.retries import RetryPolicy
from esvector.index.segments import look_at_shards
from esvector.index.versions import create_version, loading_alias
from esvector.local.ephemeral import ephemeral_node
from tests.support.jvm import QUICK
from tests.support.proxy import Proxy
from tests.support.proxy_faults import ApplyThenLose, Inject, ResetPeer

Floats = NDArray[np.float32]
INT8 = {"type": "int8_hnsw", "m": 16, "ef_construction": 100, "rescore_vector": {"oversample": 2.0}}
ENOUGH = 500  # documents that get a graph here, instead of the thousands that need one


@pytest.fixture(autouse=True)
def _small_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "EXACT_DOCUMENTS", ENOUGH)


def clustered(n: int, dims: int = 64) -> Floats:
    """Unit vectors (n, dims) around centres, as those of texts are."""
    random = np.random.default_rng(7)
    centres = random.standard_normal((50, dims))
    vectors = centres[random.integers(50, size=n)] + 0.7 * random.standard_normal((n, dims))
    unit: Floats = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


def body_of(options: dict[str, Any], dims: int = 64, element_type: str = "float", shards: int = 1) -> dict[str, Any]:
    vector = {
        "type": "dense_vector",
        "element_type": element_type,
        "dims": dims,
        "index": True,
        "similarity": "cosine",
        "index_options": options,
    }
    index = {"number_of_shards": shards, "number_of_replicas": 0, "refresh_interval": "-1"}
    return {"settings": {"index": index}, "mappings": {"properties": {"n": {"type": "integer"}, "vector": vector}}}


def load(es: Elasticsearch, index: str, vectors: Any, start: int = 0, refreshed_every: int = 1000) -> None:
    writer = BulkWriter(es, loading_alias(index))
    for first in range(0, len(vectors), refreshed_every):
        part = vectors[first : first + refreshed_every]
        numbers = range(start + first + 1, start + first + 1 + len(part))
        result = writer.deliver(
            writer.pack([f"d{n}" for n in numbers], numbers, [orjson.dumps({"n": n}) for n in numbers], part)
        )
        assert result.created == len(part), result.refused[:1]
        es.indices.refresh(index=index)


def created(es: Elasticsearch, alias: str, body: dict[str, Any], vectors: Any, **options: Any) -> str:
    index = create_version(es, alias, loading_body(body, "vector"))
    load(es, index, vectors, **options)
    return index


def formats(es: Elasticsearch, index: str) -> set[str]:
    answer = es.perform_request(
        "GET", f"/{index}/_segments", params={"vector_formats": "true"}, headers={"accept": "application/json"}
    ).body
    shards = answer["indices"][index]["shards"].values()
    segments = [segment for copies in shards for copy in copies for segment in copy["segments"].values()]
    return {
        name
        for segment in segments
        for name, fields in segment["attributes"].items()
        if "vector" in fields and segment["num_docs"]
    }


def merge_settings(es: Elasticsearch, index: str) -> dict[str, str]:
    settings = es.indices.get_settings(index=index, flat_settings=True)[index]["settings"]
    return {name: value for name, value in settings.items() if "merge" in name}


def recall(es: Elasticsearch, index: str, vectors: Floats, queries: Floats, k: int = 10) -> float:
    best = np.argsort(-(queries @ vectors.T), axis=1)[:, :k]
    found = 0
    for query, wanted in zip(queries, best, strict=True):
        knn = {"field": "vector", "query_vector": query.tolist(), "k": k, "num_candidates": 50}
        hits = es.search(index=index, knn=knn, size=k, source=False)["hits"]["hits"]
        found += len({hit["_id"] for hit in hits} & {f"d{n + 1}" for n in wanted})
    return found / best.size


@pytest.mark.parametrize(
    ("options", "element_type", "format_"),
    [
        (INT8, "float", "ES94HnswScalarQuantizedVectorsFormat"),
        ({"type": "int4_hnsw"}, "bfloat16", "ES94HnswScalarQuantizedVectorsFormat"),
        ({"type": "bbq_hnsw"}, "float", "ES93HnswBinaryQuantizedVectorsFormat"),
        ({"type": "hnsw", "m": 32, "ef_construction": 50}, "float", "ES93HnswVectorsFormat"),
        ({"type": "hnsw"}, "byte", "ES93HnswVectorsFormat"),
    ],
)
def test_the_segments_and_the_mapping_are_the_final_ones(
    es: Elasticsearch, alias: str, options: dict[str, Any], element_type: str, format_: str
) -> None:
    body = body_of(options, element_type=element_type)
    vectors = clustered(1500)
    values = np.round(vectors * 300).clip(-127, 127).astype(np.int8) if element_type == "byte" else vectors
    index = created(es, alias, body, values)
    assert formats(es, index) == {"ES93FlatVectorFormat"}
    report = finish_graph(es, index, body, "vector")
    assert (report.graphed, report.exact, report.segments) == (1500, 0, 1)
    assert formats(es, index) == {format_}
    inline = create_version(es, alias, body)  # says what the mapping is when nothing is deferred
    mappings = es.indices.get_mapping(index=f"{index},{inline}")
    assert mappings[index]["mappings"] == mappings[inline]["mappings"]
    assert merge_settings(es, index) == {}


def test_it_finds_what_a_graph_built_inline_finds(es: Elasticsearch, alias: str) -> None:
    body, vectors = body_of(INT8, dims=96), clustered(3000, 96)
    deferred = created(es, alias, body, vectors)
    finish_graph(es, deferred, body, "vector")
    inline = create_version(es, alias, body)
    load(es, inline, vectors)
    queries = clustered(3100, 96)[3000:]
    assert recall(es, deferred, vectors, queries) >= recall(es, inline, vectors, queries) - 0.01
    load(es, deferred, queries[:1], start=3000)  # a document that comes later is found, too
    assert recall(es, deferred, np.vstack([vectors, queries[:1]]), queries[:1], k=1) == 1


def test_a_few_documents_stay_exact_until_more_come(es: Elasticsearch, alias: str) -> None:
    body, vectors = body_of(INT8), clustered(1200)
    index = created(es, alias, body, vectors[:ENOUGH])
    report = finish_graph(es, index, body, "vector")
    assert (report.graphed, report.exact) == (0, ENOUGH)
    assert recall(es, index, vectors[:ENOUGH], vectors[:20]) == 1
    load(es, index, vectors[ENOUGH:], start=ENOUGH)  # now with the final mapping
    es.indices.forcemerge(index=index, max_num_segments=1)
    assert formats(es, index) == {"ES94HnswScalarQuantizedVectorsFormat"}


@pytest.mark.parametrize("shards", [1, 3])
def test_a_single_segment_gets_its_graph_too(es: Elasticsearch, alias: str, shards: int) -> None:
    """A forced merge does nothing where there is one segment already (9.5.3)."""
    body, vectors = body_of(INT8, shards=shards), clustered(2400)
    index = created(es, alias, body, vectors, refreshed_every=2400)
    es.indices.forcemerge(index=index, max_num_segments=1)
    assert [shard.segments for shard in look_at_shards(es, index, "vector")] == [1] * shards
    report = finish_graph(es, index, body, "vector")
    assert (report.graphed, report.exact) == (2400, 0)
    assert es.count(index=index)["count"] == 2400


def test_a_large_shard_becomes_several_segments_and_none_stays_flat(
    es: Elasticsearch, alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = body_of(INT8)
    body["settings"]["index"]["merge.policy.max_merged_segment"] = "100kb"  # less than there is in a refresh
    index = created(es, alias, body, clustered(6000), refreshed_every=500)
    (shard,) = look_at_shards(es, index, "vector")
    monkeypatch.setattr(graph, "SEGMENT_BYTES", shard.size // 4)
    report = finish_graph(es, index, body, "vector")
    assert report.exact <= ENOUGH
    assert report.graphed + report.exact == 6000
    assert 1 < report.segments <= 5


def test_a_segment_that_is_too_large_for_a_merge_gets_its_graph(
    es: Elasticsearch, alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = body_of(INT8)
    index = created(es, alias, body, clustered(6000), refreshed_every=500)
    (shard,) = look_at_shards(es, index, "vector")
    monkeypatch.setattr(graph, "SEGMENT_BYTES", shard.size // 4)
    es.indices.put_settings(index=index, body={"merge.policy.max_merged_segment": f"{shard.size // 8}b"})
    body["settings"]["index"]["merge.policy.max_merged_segment"] = f"{shard.size // 8}b"
    es.indices.forcemerge(index=index, max_num_segments=2)
    report = finish_graph(es, index, body, "vector")
    assert report.exact <= ENOUGH
    assert report.graphed + report.exact == 6000


def test_vectors_of_passages(es: Elasticsearch, alias: str) -> None:
    vector = body_of(INT8)["mappings"]["properties"]["vector"]
    body = body_of(INT8)
    passages = {"type": "nested", "dynamic": False, "properties": {"vector": vector, "start": {"type": "integer"}}}
    body["mappings"]["properties"] = {"passages": passages, "title": {"type": "keyword"}}
    index = create_version(es, alias, loading_body(body, "passages.vector"))
    vectors = clustered(1200)
    for part in (range(300), range(300, 600)):
        operations: list[dict[str, Any]] = []
        for n in part:
            pair = [{"vector": vectors[2 * n + i].tolist(), "start": i} for i in range(2)]
            operations += [{"index": {"_id": str(n)}}, {"title": str(n), "passages": pair}]
        assert not es.bulk(index=index, operations=operations, refresh=True)["errors"]
    report = finish_graph(es, index, body, "passages.vector")
    assert report.exact == 0
    assert report.graphed >= 1200
    inline = create_version(es, alias, body)
    mappings = es.indices.get_mapping(index=f"{index},{inline}")
    assert mappings[index]["mappings"] == mappings[inline]["mappings"]
    knn = {"field": "passages.vector", "query_vector": vectors[77].tolist(), "k": 1, "num_candidates": 50}
    assert es.search(index=index, knn=knn)["hits"]["hits"][0]["_id"] == "38"


def test_a_mapping_that_the_server_refuses_leaves_the_documents(es: Elasticsearch, alias: str) -> None:
    body = body_of({"type": "int8_hnsw", "rescore_vector": {"oversample": 99}})
    index = created(es, alias, body, clustered(600))
    with pytest.raises(IndexingError, match="oversample must be less than or equal to 10"):
        finish_graph(es, index, body, "vector")
    assert es.count(index=index)["count"] == 600


def test_an_interrupted_merge_is_waited_for_by_the_next_run(es: Elasticsearch, alias: str) -> None:
    body = body_of(INT8, dims=384)
    index = created(es, alias, body, clustered(6000, 384), refreshed_every=3000)
    stopping = threading.Event()
    seen: list[GraphProgress] = []

    def stop(progress: GraphProgress) -> None:
        seen.append(progress)
        stopping.set()

    with pytest.raises(Stopped):
        finish_graph(es, index, body, "vector", on_progress=stop, stopping=stopping)
    assert seen[0].waiting == 6000
    merges = es.indices.stats(index=index, metric="merge")["indices"][index]["primaries"]["merges"]
    assert merges["current"] + merges["total"] <= 1
    report = finish_graph(es, index, body, "vector")
    assert (report.graphed, report.exact, report.segments) == (6000, 0, 1)
    merges = es.indices.stats(index=index, metric="merge")["indices"][index]["primaries"]["merges"]
    assert merges["total"] == 1  # the one that was under way; no second one was asked for
    again = finish_graph(es, index, body, "vector")
    assert again.seconds < 5


def test_lost_answers_and_a_node_in_trouble_cost_nothing(es: Elasticsearch, alias: str, server_url: str) -> None:
    body = body_of(INT8)
    index = created(es, alias, body, clustered(1500))
    with Proxy(server_url) as proxy, connect(proxy.url, environ={}) as client:
        proxy.once(f"PUT /{index}/_mapping", Inject(503))
        proxy.once(f"PUT /{index}/_settings", ApplyThenLose())
        proxy.once(f"POST /{index}/_forcemerge", ApplyThenLose())
        proxy.once(f"GET /{index}/_segments", ResetPeer())
        proxy.once(f"GET /_cluster/health/{index}", Inject(429))
        proxy.once("GET /_tasks", Inject(502, "no JSON", "text/plain"))
        report = finish_graph(client, index, body, "vector", retry=RetryPolicy(first_wait=0.05))
        assert not proxy.unmet
    assert (report.graphed, report.exact, report.segments) == (1500, 0, 1)
    assert merge_settings(es, index) == {}


@pytest.mark.nightly  # a minute: the server is started again
def test_a_shard_that_does_not_start_is_waited_for_as_long_as_the_policy_says(es: Elasticsearch, alias: str) -> None:
    body = body_of(INT8)
    body["settings"]["index"]["routing.allocation.require._name"] = "nobody"
    index = f"{alias}-000001"
    es.indices.create(index=index, body=body, wait_for_active_shards=0, timeout="1s")
    with pytest.raises(IndexingError, match=f"a shard of {index} is not started"):
        finish_graph(es, index, body, "vector", retry=RetryPolicy(give_up_after=1, first_wait=0.05))


@pytest.mark.nightly  # a minute: the server is started again
def test_a_restart_of_the_server_costs_a_merge_and_no_document() -> None:
    body = body_of(INT8, dims=384)
    with ephemeral_node(jvm_options=QUICK) as node, connect(node.url, environ={}) as client:
        index = created(client, "restarted", body, clustered(6000, 384), refreshed_every=3000)
        restarts: list[threading.Thread] = []

        def restart(_: GraphProgress) -> None:
            if not restarts:
                pid = node.status().pid
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
                restarts.append(threading.Thread(target=node.start, kwargs={"timeout": 120}))
                restarts[0].start()

        report: GraphReport = finish_graph(client, index, body, "vector", on_progress=restart)
        _join(restarts)
        assert (report.graphed, report.exact, report.segments) == (6000, 0, 1)
        assert client.count(index=index)["count"] == 6000


def _join(threads: Iterable[threading.Thread]) -> None:
    started = list(threads)
    assert started, "the merge was over before the restart"
    for thread in started:
        thread.join()
