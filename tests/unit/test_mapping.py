from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from esvector.client import Server
from esvector.errors import ConfigError
from esvector.mapping import (
    build_index_body,
    find_vector,
    infer_properties,
    load_template,
    parse_field_types,
    serving_settings,
    templated_element_type,
)
from esvector.passport import Passport
from esvector.types import PassageOptions, SearchSettings
from tests.support.encoders import HashEncoder

PASSPORT = Passport(HashEncoder().profile, ("title", "text"), "vector", "0.0")
CUT = replace(PASSPORT, vector_field="passages.vector", passages=PassageOptions(200, 20))
NEW, OLD = Server((9, 5, 3)), Server((8, 19, 0))


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2, 3], "long"),
        ([1, 2.5], "double"),
        ([2**63], "double"),
        ([True, False], "boolean"),
        (["2020-01-01", "2020-01-02T10:00:00Z", "2021-01-01 10:00"], "date"),
        (["2020-13-01"], "keyword"),
        (["2020"], "keyword"),
        (["a", "2020-01-01"], "keyword"),
        ([1, "a"], "keyword"),
        ([[1, 2], [3], []], "long"),
        ([["a", "b"], None], "keyword"),
        ([*range(99), "n.d."], "long"),
        ([*["2020-01-01"] * 99, "n.d."], "date"),
    ],
)
def test_types_are_those_of_nearly_all_values(values: list[Any], kind: str) -> None:
    assert infer_properties([{"f": value} for value in values])["f"]["type"] == kind


def test_objects_are_looked_into_and_unknown_fields_left_to_the_server() -> None:
    inferred = infer_properties([{"a": {"b": 1, "c": ["x"]}, "nothing": None, "empty": []}])
    assert inferred == {
        "a": {
            "properties": {"b": {"type": "long", "coerce": False}, "c": {"type": "keyword", "ignore_above": 8191}},
        }
    }


def test_a_stated_type_wins_over_the_template_and_the_template_over_the_sample() -> None:
    template = load_template() | {"mappings": {"properties": {"a": {"type": "ip"}, "b": {"type": "ip"}}}}
    body = build_index_body(template, PASSPORT, NEW, {"a": "integer"}, [{"a": "x", "b": "x", "c": "x"}])
    kinds = {name: prop["type"] for name, prop in body["mappings"]["properties"].items()}
    assert kinds == {
        "a": "integer", "b": "ip", "c": "keyword", "title": "text", "text": "text", "vector": "dense_vector",
        "esvector_hash": "keyword",
    }  # fmt: skip


def test_the_encoder_decides_dims_and_similarity_and_nothing_is_left_to_the_server() -> None:
    dot = replace(PASSPORT, encoder=replace(PASSPORT.encoder, similarity="dot", dims=768))
    for passport, similarity, dims in ((PASSPORT, "cosine", 64), (dot, "max_inner_product", 768)):
        vector = build_index_body(load_template(), passport, NEW)["mappings"]["properties"]["vector"]
        assert vector == {
            "type": "dense_vector",
            "element_type": "float",
            "dims": dims,
            "index": True,
            "similarity": similarity,
            "index_options": {
                "type": "int8_hnsw", "m": 16, "ef_construction": 100, "rescore_vector": {"oversample": 2.0},
            },
        }  # fmt: skip


def test_a_template_may_choose_the_graph_but_not_what_the_encoder_decides() -> None:
    def template(**vector: Any) -> dict[str, Any]:
        return {"mappings": {"properties": {"vector": vector}}}

    flat = build_index_body(template(type="dense_vector", index_options={"type": "flat"}), PASSPORT, NEW)
    assert flat["mappings"]["properties"]["vector"]["index_options"] == {"type": "flat"}
    with pytest.raises(ConfigError, match="the mapping states dims, similarity"):
        build_index_body(template(dims=3, similarity="l2_norm"), PASSPORT, NEW)
    with pytest.raises(ConfigError, match="m of the vector field is 513"):
        build_index_body(template(index_options={"type": "hnsw", "m": 513}), PASSPORT, NEW)


def test_loading_has_no_refresh_and_no_replicas_and_serving_has_what_the_template_says() -> None:
    template = load_template()
    loading = build_index_body(template, PASSPORT, NEW)["settings"]["index"]
    assert (loading["refresh_interval"], loading["number_of_replicas"], loading["auto_expand_replicas"]) == (
        "-1",
        0,
        False,
    )
    assert serving_settings(template) == {
        "refresh_interval": None, "number_of_replicas": None, "auto_expand_replicas": "0-1",
    }  # fmt: skip
    own = {"settings": {"index.refresh_interval": "30s", "number_of_replicas": 2}}
    assert serving_settings(own) == {
        "refresh_interval": "30s", "number_of_replicas": 2, "auto_expand_replicas": None,
    }  # fmt: skip


def test_settings_that_an_older_server_does_not_know_are_not_sent() -> None:
    assert (
        build_index_body(load_template(), PASSPORT, NEW)["settings"]["index"]["mapping.exclude_source_vectors"] is True
    )
    assert "mapping.exclude_source_vectors" not in build_index_body(load_template(), PASSPORT, OLD)["settings"]["index"]


def test_the_users_own_meta_is_kept_beside_the_passport() -> None:
    template = {"mappings": {"_meta": {"owner": "search team"}}}
    meta = build_index_body(template, PASSPORT, NEW)["mappings"]["_meta"]
    assert meta["owner"] == "search team"
    assert Passport.from_meta(meta) == PASSPORT


@pytest.mark.parametrize("content", ["{", "[]", '{"mapings": {}}', '{"mappings": []}'])
def test_a_template_that_cannot_be_used_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "mine.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"mine\.json"):
        load_template(path)
    with pytest.raises(ConfigError, match="no-such"):
        load_template(tmp_path / "no-such.json")


def test_field_options() -> None:
    assert parse_field_types(["year:integer", "a.b:keyword", "x:y:long"]) == {
        "year": "integer", "a.b": "keyword", "x:y": "long",
    }  # fmt: skip
    for wrong in ("year", ":long", "year:"):
        with pytest.raises(ConfigError, match="is not name:type"):
            parse_field_types([wrong])


def test_the_passport_survives_json() -> None:
    meta = json.loads(json.dumps(PASSPORT.ready().to_meta()))
    assert Passport.from_meta(meta) == PASSPORT.ready()
    assert Passport.from_meta({"other": 1}) is None
    assert Passport.from_meta(None) is None


def test_a_passport_of_a_newer_version_is_refused() -> None:
    meta = PASSPORT.to_meta()
    meta["esvector"]["encoder"]["space_id"] = "x"
    with pytest.raises(ConfigError, match="space_id"):
        Passport.from_meta(meta)
    with pytest.raises(ConfigError, match="cannot be read"):
        Passport.from_meta({"esvector": {"encoder": {}}})


def test_passages_are_nested_with_a_vector_each() -> None:
    template = load_template(passages=True)
    properties = build_index_body(template, CUT, NEW, sample=[{"year": 1}])["mappings"]["properties"]
    assert set(properties) == {"title", "text", "year", "passages", "esvector_hash"}
    nested = properties["passages"]
    assert nested["type"] == "nested"
    assert {name: prop["type"] for name, prop in nested["properties"].items()} == {
        "start": "integer", "end": "integer", "text": "text", "vector": "dense_vector",
    }  # fmt: skip
    flat = build_index_body(load_template(), PASSPORT, NEW)["mappings"]["properties"]["vector"]
    assert nested["properties"]["vector"] == find_vector(properties, "passages.vector") == flat
    assert "vector" not in template["mappings"]["properties"]["passages"]["properties"], "the template is not changed"


def test_a_template_may_choose_the_graph_and_the_element_type_of_passages() -> None:
    template = load_template(passages=True)
    chosen = {"element_type": "byte", "index_options": {"type": "hnsw", "m": 32}}
    template["mappings"]["properties"]["passages"]["properties"]["vector"] = chosen
    assert templated_element_type(template, "passages.vector") == "byte"
    body = build_index_body(template, replace(CUT, element_type="byte"), NEW)
    assert find_vector(body["mappings"]["properties"], "passages.vector")["index_options"]["m"] == 32
    template["mappings"]["properties"]["passages"]["properties"]["vector"] = {"dims": 3}
    with pytest.raises(ConfigError, match=r"states dims for the vector field 'passages\.vector'"):
        build_index_body(template, CUT, NEW)


def test_a_template_without_a_nested_field_is_none_for_passages() -> None:
    with pytest.raises(ConfigError, match="no nested field 'passages'\nstart from mappings/passages"):
        build_index_body(load_template(), CUT, NEW)


@pytest.mark.parametrize("copied", ["include_in_parent", "include_in_root"])
def test_passages_are_not_copied_into_their_document(copied: str) -> None:
    template = load_template(passages=True)
    template["mappings"]["properties"]["passages"][copied] = True
    with pytest.raises(ConfigError, match=f"{copied} for 'passages'\nremove it"):
        build_index_body(template, CUT, NEW)


def test_the_passport_remembers_how_passages_were_cut() -> None:
    assert Passport.from_meta(CUT.to_meta()) == CUT
    assert CUT.to_meta()["esvector"]["passages"] == {"tokens": 200, "overlap": 20}
    assert Passport.from_meta(PASSPORT.to_meta()) == PASSPORT
    meta = PASSPORT.to_meta()
    del meta["esvector"]["passages"]
    assert Passport.from_meta(meta) == PASSPORT, "an index made before there were passages"


def test_the_passport_remembers_how_to_search() -> None:
    tuned = replace(PASSPORT, search=SearchSettings(num_candidates=80, oversample=2.0, recall=0.97))
    assert Passport.from_meta(json.loads(json.dumps(tuned.to_meta()))) == tuned
    meta = PASSPORT.to_meta()
    del meta["esvector"]["search"]
    assert Passport.from_meta(meta) == PASSPORT, "an index made before there was tuning"
    meta["esvector"]["search"] = {"candidates": 5}
    with pytest.raises(ConfigError, match="cannot be read"):
        Passport.from_meta(meta)
