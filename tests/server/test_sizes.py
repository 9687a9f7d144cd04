"""The sizes that an estimate tells, compared with those of the real server."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from elasticsearch import Elasticsearch

from esvector import Indexer
from esvector.cli import app
from esvector.client import Server, describe_server
from esvector.demo import python_docs
from esvector.index.estimate import estimate_load
from esvector.index.inspect import describe_versions
from esvector.index.packing import pack
from esvector.index.sizes import source_vector_bytes, vector_bytes, vector_types
from esvector.local.distribution import VERSION
from esvector.vectors import ElementType, to_elements
from tests.support.commands import until
from tests.support.encoders import HashEncoder

COUNT = 3000  # from about 2,500 vectors on even a bbq_hnsw field has a graph
TYPES = vector_types(384, "cosine", Server((9, 5, 3)))
GRAPH = 2.0  # the real graph is at most so many times as large as estimated, and at least one such part of it


def load(
    es: Elasticsearch, index: str, dims: int, element_type: ElementType, options: dict[str, Any], **settings: Any
) -> dict[str, Any]:
    """Index random vectors, merge them into one segment, and return the index's statistics."""
    vector = {"type": "dense_vector", "dims": dims, "element_type": element_type, "similarity": "cosine"}
    es.indices.create(
        index=index,
        settings={"number_of_replicas": 0, "refresh_interval": "-1"} | settings,
        mappings={"properties": {"vector": vector | {"index_options": options}}},
    )
    vectors = np.random.default_rng(0).standard_normal((COUNT, dims)).astype(np.float32)
    versions, sources, ids = range(1, COUNT + 1), [b"{}"] * COUNT, [f"d{n}" for n in range(COUNT)]
    packed = settings.get("mapping.exclude_source_vectors", True)
    block = pack(ids, versions, sources, to_elements(vectors, element_type), "vector", packed=packed)
    assert not es.bulk(index=index, operations=block.body(range(COUNT)))["errors"]  # type: ignore[arg-type]
    es.indices.refresh(index=index)
    es.options(request_timeout=300).indices.forcemerge(index=index, max_num_segments=1)
    es.indices.flush(index=index, force=True)
    stats: dict[str, Any] = es.indices.stats(index=index, metric="dense_vector,segments")["indices"][index]["primaries"]
    assert stats["segments"]["count"] == 1
    return stats


@pytest.mark.filterwarnings("ignore:This API is in technical preview")
@pytest.mark.parametrize(("element_type", "index_type"), TYPES)
def test_vectors_take_what_is_estimated(
    element_type: ElementType, index_type: str, es: Elasticsearch, alias: str
) -> None:
    dims = 100  # no multiple of a machine word
    options = {"type": index_type, "m": 16, "ef_construction": 100}
    off_heap = load(es, alias, dims, element_type, options)["dense_vector"]["off_heap"]
    fields = es.indices.disk_usage(index=alias, run_expensive_tasks=True)[alias]["fields"]
    expected = vector_bytes(dims, element_type, index_type)
    quantized = off_heap["total_veq_size_bytes"] + off_heap["total_veb_size_bytes"]
    graph = off_heap["total_vex_size_bytes"]
    assert off_heap["total_vec_size_bytes"] == COUNT * expected.raw
    assert quantized == COUNT * expected.quantized
    assert COUNT * expected.graph / GRAPH < graph < COUNT * expected.graph * GRAPH
    on_disk = fields["vector"]["knn_vectors_in_bytes"]
    assert on_disk == pytest.approx(COUNT * (expected.raw + expected.quantized) + graph, rel=0.01)


@pytest.mark.filterwarnings("ignore:This API is in technical preview")
@pytest.mark.parametrize("element_type", ["float", "byte"])
def test_a_server_before_9_2_keeps_the_text_of_vectors_too(
    element_type: ElementType, es: Elasticsearch, alias: str
) -> None:
    """Newer ones do as those did where they are told to."""
    load(es, alias, 100, element_type, {"type": "flat"}, **{"mapping.exclude_source_vectors": False})
    source = es.indices.disk_usage(index=alias, run_expensive_tasks=True)[alias]["fields"]["_source"]
    expected = source_vector_bytes(100, element_type, Server((8, 19, 0)))
    assert source["total_in_bytes"] == pytest.approx(COUNT * expected, rel=0.2)


def test_an_estimate_is_near_what_the_load_then_takes(es: Elasticsearch, alias: str, tmp_path: Path) -> None:
    records, encoder = list(python_docs()), HashEncoder(dims=384)
    found = estimate_load(records, encoder, describe_server(es), sample=1000, records=len(records))
    Indexer(es, alias, encoder=encoder, dead_letters=tmp_path / "dead.jsonl").run(records)
    index, asked = f"{alias}-000001", f"{alias}-asked"
    es.indices.create(index=asked, **found.body)
    made = es.indices.get(index=f"{index},{asked}")
    assert made[index]["mappings"]["properties"] == made[asked]["mappings"]["properties"]
    settings = [made[name]["settings"]["index"] for name in (index, asked)]
    for name in ("number_of_shards", "auto_expand_replicas", "mapping", "refresh_interval"):
        assert settings[0].get(name) == settings[1].get(name), name
    es.indices.delete(index=asked)
    es.options(request_timeout=300).indices.forcemerge(index=index, max_num_segments=1)
    es.indices.refresh(index=index)
    es.indices.flush(index=index, force=True)
    # The size that the server tells is up to 10 s old: it may be one from amid the merge, when both graphs were there.
    near = pytest.approx(found.sizes[0].disk_bytes, rel=0.25)
    until(lambda: describe_versions(es, alias)[0].disk_bytes == near, f"about {found.sizes[0].disk_bytes} bytes")
    (status,) = describe_versions(es, alias)
    assert status.memory_bytes == pytest.approx(found.sizes[0].memory_bytes, rel=0.25)
    assert (found.sizes[0].index_type, found.sizes[0].chosen) == (status.vector_type, True)


def test_a_server_that_answers_is_asked_for_its_version_only(
    server_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.jsonl").write_text('{"id": 1, "text": "x"}\n')
    with caplog.at_level(logging.INFO, "elastic_transport"):
        result = CliRunner().invoke(app, ["estimate", "a.jsonl", "--model", "all-MiniLM-L6-v2", "--url", server_url])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["server"], found["server_assumed"]) == (VERSION, None)
    requests = [said.getMessage().split()[:2] for said in caplog.records if said.name.startswith("elastic_transport")]
    assert [method for method, _ in requests] == ["GET"]
    assert requests[0][1].startswith(f"{server_url}/_nodes/_local")
