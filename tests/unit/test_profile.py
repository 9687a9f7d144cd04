"""The profile as data: what it adds to texts, how it is written down, and the ids of what it describes."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest

from esvector.encode.profile import EncoderProfile
from esvector.errors import ConfigError

ONE_TOWER = EncoderProfile(
    model="a/model",
    revision="4c5f",
    weights="aa",
    family="",
    kind="prompted",
    query_prompt="query: ",
    document_prompt="passage: ",
    separator=" ",
    pooling="mean",
    normalize=True,
    similarity="cosine",
    dims=32,
    max_length=64,
    dtype="float32",
    backend="torch",
)
TWO_TOWERS = replace(
    ONE_TOWER,
    kind="dual",
    query_model="a/question-model",
    query_revision="77",
    query_weights="bb",
    query_pooling="cls",
    query_max_length=32,
)

# What decides a document vector, and so every comparison with it.
SPACE: dict[str, Any] = {
    "weights": "cc",
    "document_prompt": "text: ",
    "separator": "[SEP]",
    "pooling": "max",
    "max_length": 65,
    "normalize": False,
    "similarity": "dot",
    "dims": 16,
}
# What decides a query vector alone.
QUERY: dict[str, Any] = {"query_prompt": "q: "}
QUERY_TOWER: dict[str, Any] = {"query_weights": "cc", "query_pooling": "max", "query_max_length": 33}
# What says where an encoder came from, or what ran it.
NEITHER: dict[str, Any] = {
    "model": "/a/folder",
    "revision": None,
    "family": "e5",
    "kind": "asymmetric",
    "dtype": "bfloat16",
    "backend": "onnx",
}
NEITHER_OF_A_TOWER: dict[str, Any] = {"query_model": "/another/folder", "query_revision": None}


def test_every_attribute_is_tried_below() -> None:
    tried = {*SPACE, *QUERY, *QUERY_TOWER, *NEITHER, *NEITHER_OF_A_TOWER}
    assert tried == {field.name for field in fields(EncoderProfile)}


@pytest.mark.parametrize("profile", [ONE_TOWER, TWO_TOWERS], ids=["one tower", "two towers"])
@pytest.mark.parametrize(("name", "value"), SPACE.items())
def test_what_decides_a_document_vector_changes_both_ids(profile: EncoderProfile, name: str, value: Any) -> None:
    other = replace(profile, **{name: value})
    assert other.space_id != profile.space_id
    assert other.query_id != profile.query_id
    assert other.differences(profile) == {name: (value, getattr(profile, name))}


@pytest.mark.parametrize(
    ("profile", "name", "value"),
    [
        *((ONE_TOWER, *item) for item in QUERY.items()),
        *((TWO_TOWERS, *item) for item in (QUERY | QUERY_TOWER).items()),
    ],
)
def test_what_decides_a_query_vector_changes_the_query_id_alone(profile: EncoderProfile, name: str, value: Any) -> None:
    other = replace(profile, **{name: value})
    assert other.space_id == profile.space_id
    assert other.query_id != profile.query_id
    assert other.differences(profile) == {name: (value, getattr(profile, name))}


@pytest.mark.parametrize(
    ("profile", "name", "value"),
    [
        *((ONE_TOWER, *item) for item in NEITHER.items()),
        *((TWO_TOWERS, *item) for item in (NEITHER | NEITHER_OF_A_TOWER).items()),
    ],
)
def test_what_decides_no_vector_changes_no_id(profile: EncoderProfile, name: str, value: Any) -> None:
    other = replace(profile, **{name: value})
    assert (other.space_id, other.query_id) == (profile.space_id, profile.query_id)
    assert other.differences(profile) == {}


def test_ids_are_the_same_in_every_process_and_version() -> None:
    """They are recorded in indices: a change here makes every index a stranger."""
    assert (ONE_TOWER.space_id, ONE_TOWER.query_id) == (
        "ae3ca5389244204a3a246c6c4d4afbed",
        "8f584f9717cafedcfd87d0fc542a5cc0",
    )
    assert TWO_TOWERS.space_id == ONE_TOWER.space_id, "the query tower is no part of the space"


def test_a_query_tower_is_one_of_its_own_weights_or_model() -> None:
    assert not ONE_TOWER.two_towers
    assert replace(ONE_TOWER, query_model="q").two_towers
    assert replace(ONE_TOWER, query_weights="q").two_towers


def test_prompts_stand_before_the_text() -> None:
    assert ONE_TOWER.query_input("why?") == "query: why?"
    assert ONE_TOWER.document_input("because") == "passage: because"
    assert EncoderProfile("m").query_input("why?") == "why?"
    assert EncoderProfile("m").document_input("because") == "because"


@pytest.mark.parametrize(
    ("separator", "title", "expected"),
    [
        (" ", "Title", "passage: Title text"),
        ("[SEP]", "Title", "passage: Title[SEP]text"),
        (None, "Title", "passage: Title text"),
        ("[SEP]", None, "passage: text"),
        ("[SEP]", "", "passage: text"),
    ],
)
def test_title_and_text_are_joined_as_the_model_was_trained(
    separator: str | None, title: str | None, expected: str
) -> None:
    assert replace(ONE_TOWER, separator=separator).document_input("text", title) == expected


@pytest.mark.parametrize(
    ("texts", "expected"),
    [((), ""), (("a",), "a"), (("a", "b", "c"), "a|b c"), (("", "b", "c"), "b c"), (("a", ""), "a")],
)
def test_only_the_title_is_set_off(texts: tuple[str, ...], expected: str) -> None:
    assert replace(ONE_TOWER, separator="|").join(texts) == expected


def test_a_title_goes_where_the_prompt_wants_it() -> None:
    profile = replace(ONE_TOWER, document_prompt="title: {title} | text: ")
    assert profile.takes_title
    assert not ONE_TOWER.takes_title
    assert profile.document_input("text", "Title") == "title: Title | text: text"
    assert profile.document_input("text {title}", "{title}") == "title: {title} | text: text {title}"
    assert profile.document_input("text") == profile.document_input("text", "") == "title: none | text: text"


@pytest.mark.parametrize("profile", [EncoderProfile("m"), ONE_TOWER, TWO_TOWERS])
def test_a_profile_survives_being_written_down(profile: EncoderProfile) -> None:
    written = json.loads(json.dumps(profile.to_dict()))
    assert EncoderProfile.from_dict(written) == profile
    assert None not in written.values()


def test_what_is_empty_is_stated_all_the_same() -> None:
    assert EncoderProfile("m", query_prompt="", normalize=False).to_dict() == {
        "model": "m",
        "query_prompt": "",
        "normalize": False,
    }


def test_a_profile_of_a_newer_version_is_not_read_in_part() -> None:
    with pytest.raises(ConfigError, match=r"has colour, shape, which this version.*\n.*upgrade"):
        EncoderProfile.from_dict({"model": "m", "shape": 1, "colour": "red"})


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"model": ""}, "name is empty"),
        ({"query_model": ""}, "name is empty"),
        ({"similarity": "l2"}, "'l2'"),
        ({"kind": "triple"}, "'triple'"),
        ({"dims": 0}, "dims is 0"),
        ({"max_length": -1}, "max_length is -1"),
        ({"query_max_length": 0}, "query_max_length is 0"),
        ({"query_prompt": "title: {title} | "}, "queries have no title"),
    ],
)
def test_a_profile_that_cannot_be(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        EncoderProfile(**({"model": "m"} | wrong))
