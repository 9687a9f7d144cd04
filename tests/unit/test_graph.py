"""Bodies for loading with the graph deferred, and how segments are counted."""

from __future__ import annotations

from typing import Any

import pytest

from esvector.client import Server
from esvector.index.graph import can_defer, loading_body
from esvector.index.segments import ShardSegments, count_segments
from esvector.mapping import build_index_body
from esvector.passport import Passport
from tests.support.encoders import HashEncoder

SERVER = Server((9, 5, 3))


def body(templated: dict[str, Any] | None = None, element_type: Any = "float", **settings: Any) -> dict[str, Any]:
    passport = Passport(HashEncoder().profile, ("text",), "vector", "0.0", element_type)
    properties = {"vector": templated} if templated else {}
    template = {"settings": settings, "mappings": {"dynamic": "strict", "properties": properties}}
    return build_index_body(template, passport, SERVER, {"year": "integer"})


@pytest.mark.parametrize(
    ("options", "element_type"),
    [
        (None, "float"),
        (None, "bfloat16"),
        (None, "byte"),
        ({"type": "hnsw", "m": 32}, "float"),
        ({"type": "int4_hnsw"}, "float"),
        ({"type": "bbq_hnsw", "rescore_vector": {"oversample": 4}}, "float"),
    ],
)
def test_the_vectors_are_loaded_flat_and_nothing_else_changes(options: Any, element_type: Any) -> None:
    final = body({"index_options": options} if options else None, element_type)
    loading = loading_body(final, "vector")
    vector = loading["mappings"]["properties"].pop("vector")
    wanted = final["mappings"]["properties"]["vector"] | {"index_options": {"type": "flat"}}
    assert vector == wanted
    assert loading["settings"]["index"].pop("merge.policy.max_merged_segment") == "512mb"
    rest = {**final["mappings"]["properties"]}
    del rest["vector"]
    assert loading == {**final, "mappings": {**final["mappings"], "properties": rest}}


@pytest.mark.parametrize("kind", ["flat", "int8_flat", "bbq_flat", "bbq_disk"])
def test_a_template_without_a_graph_is_loaded_as_it_is(kind: str) -> None:
    final = body({"index_options": {"type": kind}})
    assert not can_defer(final, "vector")
    assert loading_body(final, "vector") == final


def test_a_template_with_settings_for_merges_keeps_them() -> None:
    settings: Any = {"index.merge.policy.max_merged_segment": "1gb"}
    final = body(**settings)
    assert loading_body(final, "vector")["settings"] == final["settings"]


def test_a_nested_vector_is_found_by_its_path() -> None:
    final = body()
    vector = final["mappings"]["properties"].pop("vector")
    passages = {"type": "nested", "dynamic": False, "properties": {"vector": vector, "start": {"type": "integer"}}}
    final["mappings"]["properties"]["passages"] = passages
    loading = loading_body(final, "passages.vector")["mappings"]["properties"]
    assert loading["year"] == {"type": "integer"}
    assert loading["passages"]["type"] == "nested"
    assert loading["passages"]["properties"]["start"] == {"type": "integer"}
    assert loading["passages"]["properties"]["vector"]["index_options"] == {"type": "flat"}
    assert final["mappings"]["properties"]["passages"]["properties"]["vector"] == vector  # the caller's stays


def segment(documents: int, **attributes: str) -> dict[str, Any]:
    return {"num_docs": documents, "size_in_bytes": 10, "attributes": attributes}


def test_segments_are_told_apart_by_the_format_of_the_field() -> None:
    mode: Any = {"Lucene90StoredFieldsFormat.mode": "BEST_SPEED"}
    segments = {
        "_0": segment(5, **mode, ES93FlatVectorFormat="[other, p.vector]"),
        "_1": segment(7, **mode, ES93FlatVectorFormat="[other]", ES94HnswScalarQuantizedVectorsFormat="[p.vector]"),
        "_2": segment(1, **mode, ES93FlatVectorFormat="[p.vector2]"),
        "_3": {"num_docs": 3, "size_in_bytes": 10},
    }
    assert count_segments(segments, "p.vector") == ShardSegments(graphed=7, flat=5, segments=4, size=40)
