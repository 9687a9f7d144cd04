from __future__ import annotations

from typing import Any

import pytest

from esvector.fields import FieldType, field_types


def fields(**properties: dict[str, Any]) -> dict[str, FieldType]:
    return field_types({"dynamic": "strict", "_meta": {"x": 1}, "properties": properties})


def test_a_plain_field_is_compared_on_itself() -> None:
    assert fields(year={"type": "integer"}) == {"year": FieldType("year", "integer", "year")}


def test_objects_flatten_to_dotted_names_and_are_listed_themselves() -> None:
    found = fields(meta={"properties": {"a": {"type": "keyword"}, "deep": {"properties": {"b": {"type": "long"}}}}})
    assert {name: field.type for name, field in found.items()} == {
        "meta": "object",
        "meta.a": "keyword",
        "meta.deep": "object",
        "meta.deep.b": "long",
    }
    assert found["meta"].exact is None


def test_the_fields_of_nested_objects_know_the_innermost_one() -> None:
    papers = {"type": "nested", "properties": {"title": {"type": "text", "fields": {"raw": {"type": "keyword"}}}}}
    found = fields(
        authors={
            "type": "nested",
            "properties": {"papers": papers, "at": {"properties": {"city": {"type": "keyword"}}}},
        },
        plain={"type": "long"},
        other={"type": "alias", "path": "authors.at.city"},
    )
    assert {name: field.nested for name, field in found.items()} == {
        "authors": None,
        "authors.papers": "authors",
        "authors.papers.title": "authors.papers",
        "authors.papers.title.raw": "authors.papers",
        "authors.at": "authors",
        "authors.at.city": "authors",
        "plain": None,
        "other": "authors",
    }
    assert found["authors.papers"].type == "nested"


@pytest.mark.parametrize(
    ("spec", "exact", "longest"),
    [
        ({"type": "text"}, None, None),
        ({"type": "text", "fields": {"keyword": {"type": "keyword", "ignore_above": 256}}}, "t.keyword", 256),
        ({"type": "text", "fields": {"raw": {"type": "keyword"}, "en": {"type": "text"}}}, "t.raw", None),
        ({"type": "text", "fields": {"a": {"type": "keyword"}, "keyword": {"type": "keyword"}}}, "t.keyword", None),
        (
            {
                "type": "text",
                "fields": {"keyword": {"type": "keyword", "normalizer": "lowercase"}, "z": {"type": "keyword"}},
            },
            "t.z",
            None,
        ),
        ({"type": "text", "fields": {"off": {"type": "keyword", "index": False, "doc_values": False}}}, None, None),
    ],
)
def test_text_is_compared_on_its_keyword_sub_field(
    spec: dict[str, Any], exact: str | None, longest: int | None
) -> None:
    assert fields(t=spec)["t"] == FieldType("t", "text", exact, longest)


def test_sub_fields_are_fields() -> None:
    found = fields(t={"type": "text", "fields": {"keyword": {"type": "keyword", "ignore_above": 9}}})
    assert found["t.keyword"] == FieldType("t.keyword", "keyword", "t.keyword", 9)


def test_an_alias_stands_for_its_target_wherever_that_is_written() -> None:
    found = fields(
        heading={"type": "alias", "path": "meta.title"},
        gone={"type": "alias", "path": "nowhere"},
        meta={"properties": {"title": {"type": "text", "fields": {"keyword": {"type": "keyword"}}}}},
    )
    assert found["heading"] == FieldType("meta.title", "text", "meta.title.keyword")
    assert "gone" not in found


@pytest.mark.parametrize(
    ("spec", "searchable"),
    [
        ({"type": "keyword", "index": False}, True),
        ({"type": "keyword", "doc_values": False}, True),
        ({"type": "keyword", "index": False, "doc_values": False}, False),
        ({"type": "text", "index": False}, False),
        ({"type": "text"}, True),
        ({"type": "dense_vector", "dims": 3, "index": False}, True),
    ],
)
def test_searchable(spec: dict[str, Any], searchable: bool) -> None:
    assert fields(f=spec)["f"].searchable is searchable


def test_doc_values_alone() -> None:
    assert not fields(f={"type": "keyword", "index": False})["f"].indexed
    assert fields(f={"type": "keyword", "doc_values": False})["f"].indexed
    keyword = {"type": "keyword", "index": "false"}
    assert not fields(f={"type": "text", "fields": {"keyword": keyword}})["f"].indexed


def test_an_index_without_fields() -> None:
    assert field_types({}) == {}
    assert fields(empty={"type": "object", "enabled": False}) == {"empty": FieldType("empty", "object", None)}
