from __future__ import annotations

import enum
import hashlib
import math
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esvector.index.documents import prepare
from esvector.index.json_values import MAX_DEPTH
from esvector.types import BadRecord, DeadLetter, Document, Record


class Colour(enum.Enum):
    RED = "red"


def document(fields: Mapping[str, Any], id_field: str | None = None) -> Document:
    found = prepare(Record(fields, "x.jsonl:1"), id_field=id_field)
    assert isinstance(found, Document), found
    return found


def reason(
    fields: Mapping[Any, Any],
    text_fields: tuple[str, ...] = ("title", "text"),
    id_field: str | None = None,
    reserved: frozenset[str] = frozenset(),
) -> str:
    record = Record(fields, "x.jsonl:1")
    found = prepare(record, text_fields=text_fields, id_field=id_field, reserved=reserved)
    assert isinstance(found, DeadLetter), found
    assert found.place == "x.jsonl:1"
    assert found.record is fields
    return found.reason


def test_a_plain_record() -> None:
    fields = {
        "id": "d1",
        "title": " A title ",
        "text": "Some text.\n",
        "year": 2020,
        "tags": ["a"],
        "deep": {"x": [1.5]},
    }
    assert document(fields) == Document("d1", "A title Some text.", fields, "x.jsonl:1")


def test_the_record_is_left_as_it_was() -> None:
    fields = {"_id": "d1", "text": "t", "metadata": {"year": 2020}, "none": None}
    before = dict(fields)
    found = document(fields)
    assert fields == before
    assert found.fields is not fields


def test_a_bad_record_is_a_dead_letter() -> None:
    assert prepare(BadRecord("why", "x.jsonl:3", "raw")) == DeadLetter(None, "x.jsonl:3", "why", "raw")


# text


def test_text_is_of_the_fields_that_have_any_in_their_order() -> None:
    record = Record({"id": 1, "title": " ", "text": "body", "abstract": "first", "note": None}, "p")
    found = prepare(record, text_fields=("abstract", "note", "title", "absent", "text"))
    assert isinstance(found, Document)
    assert found.text == "first body"


@pytest.mark.parametrize(
    ("value", "word"), [(["a"], "list"), ({"a": 1}, "object"), (3, "number"), (1.5, "number"), (True, "boolean")]
)
def test_text_that_is_no_string(value: object, word: str) -> None:
    assert reason({"title": "t", "text": value}) == f"field 'text' is a {word}, not a string"


def test_no_text_names_the_fields_there_are() -> None:
    assert reason({"id": 1, "title": " \n", "text": None, "body": "x"}) == (
        "no text: none of 'title', 'text' has any; name a field with --text FIELD (there are: 'id', 'title', 'body')"
    )


# ids


@pytest.mark.parametrize(
    ("fields", "id_field", "expected"),
    [
        ({"_id": "a", "id": "b", "doi": "c"}, None, "a"),
        ({"id": "b", "doi": "c"}, None, "b"),
        ({"_id": None, "id": "b"}, None, "b"),
        ({"_id": "a", "id": "b", "doi": "c"}, "doi", "c"),
        ({"_id": "a", "id": "b"}, "_id", "a"),
        ({"id": 17}, None, "17"),
        ({"id": -(2**63)}, None, str(-(2**63))),
        ({"id": "é" * 256}, None, "é" * 256),
        ({"_id": "a", "metadata": {"doi": "c"}}, "doi", "c"),
    ],
)
def test_which_id(fields: dict[str, Any], id_field: str | None, expected: str) -> None:
    found = document({**fields, "text": "t"}, id_field)
    assert found.id == expected
    assert "_id" not in found.fields
    assert all(found.fields[name] == fields[name] for name in ("id", "doi") if name in fields)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", "the id in 'id' is empty"),
        (1.5, "the id in 'id' is a number, not a string or an integer (1.5)"),
        (True, "the id in 'id' is a boolean, not a string or an integer (True)"),
        (["a"], "the id in 'id' is a list, not a string or an integer (['a'])"),
        ("é" * 257, "the id in 'id' is longer than 512 bytes (514)"),
        ("a" * 513, "the id in 'id' is longer than 512 bytes (513)"),
    ],
)
def test_ids_that_are_refused(value: object, expected: str) -> None:
    assert reason({"id": value, "text": "t"}) == expected


def test_a_named_id_field_that_is_absent_is_not_replaced_by_another() -> None:
    assert reason({"id": 1, "text": "t"}, id_field="doi") == "no id: there is no field 'doi'"


def test_without_an_id_it_is_made_from_the_content() -> None:
    fields = {"text": "t", "year": 2020}
    expected = hashlib.sha256(b'{"text":"t","year":2020}').hexdigest()[:32]
    assert document(fields).id == expected
    assert document({"none": None, "year": 2020, "text": "t"}).id == expected
    assert document({**fields, "year": 2021}).id != expected


def test_a_dead_letter_has_the_id_that_the_record_claims() -> None:
    for fields, id_field, expected in (
        ({"_id": 7}, None, "7"),
        ({"id": "a", "doi": "b"}, "doi", "b"),
        ({"x": 1}, None, None),
    ):
        letter = prepare(Record(fields, "p"), id_field=id_field)
        assert isinstance(letter, DeadLetter)
        assert letter.id == expected


def test_a_dead_letter_has_no_id_that_no_document_can_have() -> None:
    """Whose document it is cannot be known then, and 10**5000 cannot even be written."""
    for value in ("a\ud800", 10**5_000, 2**64):
        letter = prepare(Record({"_id": value, "text": "t"}, "p"))
        assert isinstance(letter, DeadLetter)
        assert letter.id is None


@pytest.mark.parametrize(
    ("id_", "expected"),
    [
        ("", "the id of the record is empty"),
        ("a" * 513, "the id of the record is longer than 512 bytes (513)"),
        ("a\ud800", "the id of the record has half of a surrogate pair, which UTF-8 cannot hold ('a\\ud800')"),
    ],
)
def test_an_id_beside_the_fields_is_checked_like_one_in_them(id_: str, expected: str) -> None:
    letter = prepare(Record({"id": "fine", "text": "t"}, "p", id_))
    assert isinstance(letter, DeadLetter)
    assert (letter.reason, letter.id_apart) == (expected, True)


@pytest.mark.parametrize("value", [uuid.UUID(int=1), Colour.RED, np.str_("red")])
def test_an_id_and_a_text_are_what_json_has_for_them(value: object) -> None:
    """Whatever else is in the record: a date makes each value looked at."""
    plain = str(value) if not isinstance(value, Colour) else "red"
    for other in ({}, {"day": date(2024, 1, 2)}):
        found = document({"id": value, "text": value, **other})
        assert (found.id, found.text) == (plain, plain)
        beir = document({"_id": 1, "metadata": {"text": value, "x": (1,)}, "x": [1], **other})
        assert (beir.text, beir.fields["x"]) == (plain, [1])


# BEIR


def test_beir_metadata_becomes_fields() -> None:
    found = document({"_id": "d", "title": "", "text": "t", "metadata": {"year": 2020, "text": "t", "url": None}})
    assert found.fields == {"title": "", "text": "t", "year": 2020}


def test_beir_metadata_that_contradicts_a_field() -> None:
    assert reason({"_id": "d", "text": "t", "year": 2020, "metadata": {"year": 2021}}) == (
        "field 'year' has two values, its own and another in 'metadata' (2020, 2021)"
    )


def test_metadata_of_another_layout_stays() -> None:
    for fields in ({"id": "d", "text": "t", "metadata": {"year": 1}}, {"id": "d", "text": "t", "metadata": "m"}):
        assert document(fields).fields == fields
    assert document({"_id": "d", "text": "t", "metadata": ["m"]}).fields == {"text": "t", "metadata": ["m"]}


# names


@pytest.mark.parametrize("name", ["_index", "_source", "_routing", "_type", "_seq_no"])
def test_names_of_metadata_fields(name: str) -> None:
    assert reason({"id": 1, "text": "t", name: 1}) == (
        f"field {name!r} has the name of an Elasticsearch metadata field; rename it"
    )
    assert "metadata field" in reason({"_id": "a", "text": "t", "metadata": {name: 1}})


@pytest.mark.parametrize("name", ["", " ", "\t\n", ".a", "a.", "a..b", ".", "a. .b"])
def test_names_that_elasticsearch_refuses(name: str) -> None:
    assert reason({"id": 1, "text": "t", name: 1}).startswith(f"field {name!r} has a name that Elasticsearch refuses")


@pytest.mark.parametrize("name", ["a.b", "with space", "naïve", "_own", "_doc_count", "1st", "a-b", "@timestamp"])
def test_names_that_are_good(name: str) -> None:
    assert document({"id": 1, "text": "t", name: 1}).fields[name] == 1


def test_deep_names_are_left_to_the_mapping() -> None:
    assert document({"id": 1, "text": "t", "flat": {"": 1, "a..b": {"_id": 2}}}).fields["flat"] == {
        "": 1,
        "a..b": {"_id": 2},
    }


def test_a_reserved_name() -> None:
    assert reason({"id": 1, "text": "t", "vector": [1.0]}, reserved=frozenset({"vector"})) == (
        "field 'vector' is where the vector goes; rename it, or choose another with --vector-field"
    )
    assert "is where the vector goes" in reason(
        {"_id": 1, "text": "t", "metadata": {"vector": 1}}, reserved=frozenset({"vector"})
    )


# values


class Number(enum.IntEnum):
    ONE = 1


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (datetime(2024, 1, 2, 3, 4, 5, 6, tzinfo=UTC), "2024-01-02T03:04:05.000006+00:00"),
        (date(2024, 1, 2), "2024-01-02"),
        (time(1, 2), "01:02:00"),
        (np.float32(0.5), 0.5),
        (np.int64(7), 7),
        (np.bool_(True), True),
        (np.str_("s"), "s"),
        (np.float64(0.25), 0.25),
        (np.array([[1, 2]]), [[1, 2]]),
        (np.datetime64("2024-01-02T03:04:05.123456789"), "2024-01-02T03:04:05.123456789"),
        ((1, None, "x"), [1, None, "x"]),
        (OrderedDict(a=MappingProxyType({"b": Text("c")})), {"a": {"b": "c"}}),
        (Text("s"), "s"),
        (2**64 - 1, 2**64 - 1),
    ],
)
def test_python_values_become_json(value: object, expected: object) -> None:
    for given_value, wanted in ((value, expected), ([{"in": value}, None], [{"in": expected}, None])):
        found = document({"id": 1, "text": "t", "x": given_value}).fields["x"]
        assert orjson.loads(orjson.dumps(found)) == wanted


def test_dates_are_strings_in_the_fields() -> None:
    found = document({"id": 1, "text": "t", "x": date(2024, 1, 2), "y": [datetime(2024, 1, 2)]})
    assert found.fields == {"id": 1, "text": "t", "x": "2024-01-02", "y": ["2024-01-02T00:00:00"]}


@pytest.mark.parametrize(
    ("value", "expected"),
    [(uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"), (Colour.RED, "red"), (Number.ONE, 1)],
)
def test_what_orjson_writes_by_itself(value: object, expected: object) -> None:
    for other in ("", datetime(2024, 1, 1)):
        found = document({"id": 1, "text": "t", "x": value, "other": other})
        assert orjson.loads(orjson.dumps(found.fields))["x"] == expected


def test_an_id_and_a_text_of_numpy() -> None:
    found = document({"id": np.int64(3), "text": np.str_("t")})
    assert (found.id, found.text, type(found.text)) == ("3", "t", str)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, np.float32("nan"), np.float64("inf")])
def test_nan_and_infinity_are_refused_wherever_they_are(bad: float) -> None:
    word = str(float(bad))
    assert reason({"id": 1, "text": "t", "x": bad}) == f"field 'x' is {word}, which JSON has no word for"
    deep = {"a": [1, {"b": (0.5, bad)}]}
    assert reason({"id": 1, "text": "t", "x": deep}) == f"field 'x.a[1].b[1]' is {word}, which JSON has no word for"
    assert reason({"_id": 1, "text": "t", "metadata": {"x": bad}}).startswith("field 'metadata.x' is")


def test_the_word_null_is_no_nan() -> None:
    fields = {"id": 1, "text": "null and NaN", "x": [None, 1.5, {"null": None}]}
    assert document({**fields, "none": None}).fields == fields


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({1, 2}, "field 'x' is a set, which JSON has no word for"),
        (object(), "field 'x' is a object, which JSON has no word for"),
        (b"raw", "field 'x' is a bytes, which JSON has no word for"),
        (Decimal("1.5"), "field 'x' is a Decimal, which JSON has no word for"),
        (1j, "field 'x' is a complex, which JSON has no word for"),
        (np.datetime64("NaT"), "field 'x' is a datetime64, which JSON has no word for"),
        (np.longdouble(1), "field 'x' is a longdouble, which JSON has no word for"),
        (np.array([np.longdouble(1)]), "field 'x' is a ndarray, which JSON has no word for"),
        (2**64, "field 'x' is an integer outside 64 bits; write it as a string"),
        pytest.param(10**5_000, "field 'x' is an integer outside 64 bits; write it as a string", id="5,000 digits"),
        ("a\ud800", "field 'x' has half of a surrogate pair, which UTF-8 cannot hold (U+D800 at character 1)"),
        ({"k": {2: 3}}, "a field name in 'x.k' is a int, not a string"),
    ],
)
def test_values_that_are_refused(value: object, expected: str) -> None:
    assert reason({"id": 1, "text": "t", "x": value}) == expected


def test_names_that_are_no_strings() -> None:
    assert reason({"id": 1, "text": "t", 5: 1}) == "a field name is a int, not a string"
    assert reason({"id": 1, "text": "t", "a\udfff": 1}).startswith("field 'a\\udfff' has half of a surrogate pair")


def test_a_text_or_an_id_with_a_lone_surrogate() -> None:
    assert reason({"id": 1, "text": "\udc00"}).startswith("field 'text' has half")
    assert reason({"id": "\udc00", "text": "t"}).startswith("field 'id' has half")


def test_depth_and_cycles() -> None:
    deep: dict[str, Any] = {}
    for _ in range(900):
        deep = {"d": deep}
    assert reason({"id": 1, "text": "t", "x": deep}) == f"field 'x' is nested deeper than {MAX_DEPTH} levels"
    cycle: list[Any] = []
    cycle.append(cycle)
    assert "nested deeper" in reason({"id": 1, "text": "t", "x[0]": cycle})


STRINGS = st.text("anul .\té\0\U0001f30d\ud800", max_size=6)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | STRINGS | st.binary(max_size=4) | st.dates(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(STRINGS, inner, max_size=4) | st.tuples(inner, inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["_id", "id", "title", "text", "metadata", "x", "_index", "a..b"]), VALUES))
def test_any_record_is_a_document_that_survives_json_or_a_dead_letter(fields: dict[str, Any]) -> None:
    found = prepare(Record(fields, "p"))
    if isinstance(found, DeadLetter):
        assert found.reason
        return
    assert 0 < len(found.id.encode()) <= 512
    assert found.text == found.text.strip() != ""
    assert None not in found.fields.values()
    back = orjson.loads(orjson.dumps(found.fields))
    again = prepare(Record(back, "p"))
    assert isinstance(again, Document)
    assert (again.text, orjson.dumps(again.fields)) == (found.text, orjson.dumps(found.fields))


def test_a_text_as_written_keeps_its_offsets_and_the_title_apart() -> None:
    def cut(fields: dict[str, Any], *names: str) -> tuple[str | None, str]:
        found = prepare(Record(fields, "x:1"), text_fields=names, title_apart=True, as_written=True)
        assert isinstance(found, Document), found
        return found.title, found.text

    assert cut({"title": " A title ", "text": "\n Some text. "}, "title", "text") == ("A title", "\n Some text. ")
    assert cut({"text": " x "}, "title", "text") == (None, " x ")
    assert cut({"title": " ", "text": " x ", "more": "y\n"}, "title", "text", "more") == (None, " x  y\n")
    blank = prepare(Record({"text": " \n"}, "x:1"), title_apart=True, as_written=True)
    assert isinstance(blank, DeadLetter)
