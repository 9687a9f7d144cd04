from __future__ import annotations

import enum
import io
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from datetime import date
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esvector.errors import IndexingError, SourceError
from esvector.index.content import content_hash
from esvector.index.deadletters import LOOKED_AT, MAX_KINDS, DeadLetterFile, DeadLetters, reason_kind
from esvector.index.documents import prepare
from esvector.index.formats import read_jsonl
from esvector.index.load import refusal
from esvector.types import BadRecord, DeadLetter, Document, Record


def lines(path: Path | None) -> list[dict[str, Any]]:
    assert path is not None
    return [json.loads(line) for line in path.read_text().splitlines()]


def letter(record: Any = None, reason: str = "no text", id_: str | None = "1") -> DeadLetter:
    return DeadLetter(id_, "a.jsonl:1", reason, {"a": 1} if record is None else record)


def test_a_letter_is_a_line_at_once(tmp_path: Path) -> None:
    with DeadLetterFile(tmp_path / "dead.jsonl") as file:
        file.write(letter(), 7)
        file.write(letter("raw line", id_=None), 8)
        assert lines(tmp_path / "dead.jsonl") == [
            {"id": "1", "place": "a.jsonl:1", "number": 7, "reason": "no text", "record": {"a": 1}},
            {"id": None, "place": "a.jsonl:1", "number": 8, "reason": "no text", "record": "raw line"},
        ]
        assert (file.count, file.reasons, file.path) == (2, {"no text": 2}, tmp_path / "dead.jsonl")


def test_no_letter_no_file(tmp_path: Path) -> None:
    with DeadLetterFile(tmp_path / "dead.jsonl") as file:
        pass
    assert (file.path, file.count, list(tmp_path.iterdir())) == (None, 0, [])


def test_an_earlier_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "papers.dead.jsonl"
    for _ in range(3):
        with DeadLetterFile(path) as file:
            file.write(letter())
    assert sorted(found.name for found in tmp_path.iterdir()) == [
        "papers.dead.1.jsonl",
        "papers.dead.2.jsonl",
        "papers.dead.jsonl",
    ]
    assert all(len(lines(found)) == 1 for found in tmp_path.iterdir())


def test_a_dangling_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "dead.jsonl").symlink_to(tmp_path / "elsewhere")
    with DeadLetterFile(tmp_path / "dead.jsonl") as file:
        file.write(letter())
    assert file.path == tmp_path / "dead.1.jsonl"
    assert not (tmp_path / "elsewhere").exists()


def test_threads_do_not_mix_lines(tmp_path: Path) -> None:
    with DeadLetterFile(tmp_path / "dead.jsonl") as file:
        threads = [
            threading.Thread(target=lambda n=n: deque(map(file.write, [letter({"n": n, "x": "y" * 5_000})] * 50), 0))
            for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(lines(file.path)) == file.count == 400


class SlowFile(FileIO):
    """Opens slowly, so that threads meet there, and writes a part at a time."""

    def __init__(self, path: Path, mode: str) -> None:
        time.sleep(0.05)
        super().__init__(path, mode)

    def write(self, data: Any, /) -> int:
        return super().write(data[:7])


def test_threads_share_one_file_and_partial_writes_are_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("esvector.index.deadletters.FileIO", SlowFile)
    with DeadLetterFile(tmp_path / "dead.jsonl") as file:
        threads = [threading.Thread(target=file.write, args=(letter({"n": n}),)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [found.name for found in tmp_path.iterdir()] == ["dead.jsonl"]
    assert sorted(line["record"]["n"] for line in lines(file.path)) == [0, 1, 2, 3]


def test_records_that_json_cannot_hold(tmp_path: Path) -> None:
    """Are shown as plain JSON that any reader takes, jq included, and that says what is to be replaced."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    records: list[Any] = [{"a": {1}}, {"a": ["x\ud800"]}, {"a": 2**70}, {"a": deep}, {"a": 10**5_000}, {5: b"\xff"}]
    records += [{"a": float("nan"), "not JSON!": 1}, {"a": Rude()}]
    with DeadLetterFile(tmp_path / "dead.jsonl") as file:
        for record in records:
            file.write(letter(record))
    written = [orjson.loads(line) for line in (tmp_path / "dead.jsonl").read_bytes().splitlines()]
    assert [line["odd"] for line in written] == ["not JSON"] * 6 + ["not JSON!!", "not JSON"]
    no_word = "which JSON has no word for"
    assert [line["record"] for line in written] == [
        {"a": {"not JSON": f"field 'a' is a set, {no_word}", "value": "{1}"}},
        {
            "a": [
                {
                    "not JSON": "field 'a[0]' has half of a surrogate pair, which UTF-8 cannot hold (U+D800 at "
                    "character 1)",
                    "value": "x\\ud800",
                }
            ]
        },
        {
            "a": {
                "not JSON": "field 'a' is an integer outside 64 bits; write it as a string",
                "value": "1180591620717411303424",
            }
        },
        {
            "a": {
                "not JSON": f"field 'a{'[0]' * 250}' is nested deeper than 250 levels",
                "value": "it cannot be written",
            }
        },
        {
            "a": {
                "not JSON": "field 'a' is an integer outside 64 bits; write it as a string",
                "value": hex(10**5_000),
            }
        },
        {
            "not JSON 2": {
                "not JSON": "a field name is a int, not a string",
                "name": "5",
                "value": {"not JSON": f"field '5' is a bytes, {no_word}", "value": "b'\\xff'"},
            }
        },
        {"a": {"not JSON!!": f"field 'a' is nan, {no_word}", "value": "nan"}, "not JSON!": 1},
        {"a": {"not JSON": f"field 'a' is a Rude, {no_word}", "value": "it cannot be written"}},
    ]


class Rude:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize("record", [{"a": "é" * 2_000_000}, "é" * 2_000_000])
def test_a_long_record_is_cut_with_a_note(tmp_path: Path, record: object) -> None:
    with DeadLetterFile(tmp_path / "dead.jsonl") as file:
        file.write(letter(record))
    (line,) = lines(file.path)
    assert 990_000 < len(line["record"].encode()) <= 1_000_000
    assert line["note"].startswith("the record is cut: it has 2,000,0")


@pytest.mark.parametrize("record", [{"_id": "1", "a": "é" * 2_000_000}, "é" * 2_000_000])
def test_a_record_that_was_cut_is_refused_again_until_the_whole_one_is_in_its_place(
    record: Any, tmp_path: Path
) -> None:
    written = letter(record)
    for name in ("1.jsonl", "2.jsonl", "3.jsonl"):
        with DeadLetterFile(tmp_path / name) as file:
            file.write(written, 1)
        (found,) = DeadLetters(tmp_path / name)
        assert isinstance(found, BadRecord)
        assert re.fullmatch(r"the record is cut: it has 2,000,0.. characters as JSON: .*a\.jsonl:1", found.reason)
        assert (found.place, found.id) == ("a.jsonl:1", "1")
        prepared = prepare(found)
        assert isinstance(prepared, DeadLetter)
        written = prepared
    (line,) = lines(tmp_path / "1.jsonl")
    (tmp_path / "1.jsonl").write_text(json.dumps({**line, "record": {"a": 1}}))
    assert list(DeadLetters(tmp_path / "1.jsonl")) == [Record({"a": 1}, "a.jsonl:1")]


# The way back


class Kind(enum.Enum):
    ONE = "one"
    MANY = (1, float("nan"))


STRINGS = st.text("anul .\té\0\u2028\U0001f30d\ud83d\ude00", max_size=6)
NAMES = STRINGS | st.sampled_from(["not JSON", "not JSON 1", "value", "name", "metadata", "_id"])
ODD_NAMES = st.integers() | st.binary(max_size=2) | st.tuples(st.integers()) | st.none()
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | STRINGS
    | st.decimals()
    | st.just(5_000).map(lambda digits: 10**digits)
    | st.binary(max_size=4)
    | st.datetimes()
    | st.uuids()
    | st.sampled_from([{1}, 1j, *Kind, np.float32(0.1), np.int8(3), np.datetime64("NaT"), np.str_("\ud800")])
    | st.sampled_from([np.array([0.1, 3], np.float32), np.array([[1.0, np.nan]]), np.longdouble(1), date(2024, 1, 2)])
)


def nested(levels: int, inner: object) -> object:
    for level in range(levels):
        inner = [inner] if level % 2 else {"x": inner}
    return inner


VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(NAMES, inner, max_size=4)
        | st.dictionaries(NAMES | ODD_NAMES, inner, max_size=2)
        | st.builds(nested, st.sampled_from([1, 246, 249, 250, 251, 900]), inner)
    ),
    max_leaves=8,
)
VECTORS = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False) | st.floats(), max_size=4)
FIELDS = st.dictionaries(
    st.sampled_from(["_id", "id", "title", "text", "metadata", "x", "_index", "not JSON"]) | NAMES | ODD_NAMES, VALUES
)


@st.composite
def records(draw: st.DrawFn) -> Record:
    fields: dict[Any, Any] = draw(FIELDS)
    if draw(st.booleans()):  # mostly what becomes a document
        fields = {
            **{name: value for name, value in fields.items() if name not in ("_id", "id", "title", "text", "_index")},
            **draw(st.sampled_from([{}, {"_id": 7}, {"id": "a"}, {"_id": "a", "metadata": {"x": 1, "metadata": {}}}])),
            "text": "t",
        }
    if draw(st.booleans()):
        fields["embedding"] = draw(VECTORS | VECTORS.map(lambda vector: np.array(vector, np.float64)))
    id_ = draw(st.none() | st.text("aé", max_size=3))
    # Without a field for vectors, a vector belongs to a text that is there, and is not kept: see DeadLetters.
    brought = st.lists(st.floats(width=32), max_size=4).map(lambda vector: np.array(vector, np.float32))
    vector = draw(st.none() | brought) if fields.get("text") == "t" else None
    return Record(fields, "a.jsonl:1", id_, vector)


def retried(written: DeadLetter) -> Record | BadRecord:
    """What is read back of a letter."""
    with tempfile.TemporaryDirectory() as folder:
        with DeadLetterFile(Path(folder) / "d.jsonl") as file:
            file.write(written, 1)
        (found,) = DeadLetters(Path(folder) / "d.jsonl")
    return found


def known(made: Document | DeadLetter, *, given: bool) -> tuple[object, ...]:
    """All that matters of what became of a record, comparable."""
    if isinstance(made, DeadLetter):
        return made.id, made.place, made.reason, made.id_apart
    vector = made.vector.tobytes() if given and made.vector is not None else None
    content = content_hash(made, given=given)
    return made.id, made.place, made.title, made.text, orjson.dumps(made.fields), vector, content, made.id_apart


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(records(), st.booleans(), st.sampled_from([None, "_id", "id", "x"]), st.booleans())
def test_a_letter_gives_the_record_back(record: Record, given: bool, id_field: str | None, passages: bool) -> None:
    """What it becomes is what it would have become, or it is refused for the same reason; and so again."""

    def made(found: Record | BadRecord) -> Document | DeadLetter:
        return prepare(
            found,
            id_field=id_field,
            given="embedding" if given else None,
            title_apart=passages,
            as_written=passages,
            reserved=frozenset({"vector"}),
        )

    first = made(record)
    expected = known(first, given=given)
    found = first
    for _ in range(2):
        found = made(retried(found if isinstance(found, DeadLetter) else refusal(found, "the server said no")))
        assert known(found, given=given) == expected


@given(st.binary(max_size=40) | st.text(max_size=20).map(lambda text: json.dumps({"a": text})[:-1].encode()))
def test_a_line_that_could_not_be_read_is_refused_again(line: bytes) -> None:
    line = line.replace(b"\n", b" ")
    for record in read_jsonl(io.BufferedReader(io.BytesIO(line + b"\n")), "a.jsonl", any_json=False, max_bytes=1000):
        if isinstance(record, BadRecord):
            written = prepare(record)
            assert isinstance(written, DeadLetter)
            assert retried(written) == record


def test_letters_of_today_and_of_yesterday_are_read(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(
        b"""{"id":"1","place":"a:1","number":1,"reason":"r","record":{"id":"1","n":1.5}}
{"id": null, "place": "a:2", "number": 2, "reason": "r", "record": {"text": "bad \\ud800 one"}}
{"id":null,"place":"a:3","number":3,"reason":"r","record":{"n":12345678901234567890123}}
{"id":null,"place":"a:4","number":4,"reason":"not JSON","record":"{\\"a\\":1"}
{"id":null,"place":"a:5","number":5,"reason":"r","record":"{\\"a\\":12345678901234567890123}"}
{"id":"6","place":"a:6","number":6,"reason":"r","record":"{\\"a\\"","note":"the record is cut"}
{"id":null,"place":"a:7","number":7,"reason":"r","record":"{(1, 2): 3}"}
"""
    )
    assert list(DeadLetters(path)) == [
        Record({"id": "1", "n": 1.5}, "a:1"),
        Record({"text": "bad \ud800 one"}, "a:2"),
        Record({"n": 12345678901234567890123}, "a:3"),
        BadRecord("not JSON", "a:4", '{"a":1'),
        Record({"a": 12345678901234567890123}, "a:5"),
        BadRecord("the record is cut: take the whole one from a:6", "a:6", '{"a"', "6"),
        BadRecord("r", "a:7", "{(1, 2): 3}"),
    ]


def test_a_file_without_a_letter_among_its_first_lines_is_refused(tmp_path: Path) -> None:
    path, good = tmp_path / "d.jsonl", b'{"reason":"r","record":{"a":1}}\n'
    path.write_bytes(b"\n" + b"{}\n" * (LOOKED_AT - 1) + good)
    assert len(list(DeadLetters(path))) == LOOKED_AT
    path.write_bytes(b"\n" + b"{}\n" * LOOKED_AT + good)
    with pytest.raises(SourceError, match=r"d\.jsonl:2"):
        next(iter(DeadLetters(path)))


# Resuming, and order


def test_an_interrupted_run_goes_on_with_every_letter_of_a_settled_record(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    odd: list[Any] = [{"a": "\ud800"}, "\udcff", {"a": float("nan")}, {"a": 2**70}, {5: {1}}, {"a": "x" * 2_000_000}]
    with DeadLetterFile(path) as file:
        for number, record in enumerate(odd, 1):
            file.write(letter(record, id_=None), number)
        file.write(letter(id_="a\ud800", reason="\udfff"), 7)
        file.write(letter(), 8)
    with path.open("ab") as stream:
        stream.write(b'{"id":"9","place":"a","number":7,"rea')  # the process died
    before = path.read_bytes().splitlines()
    with DeadLetterFile(tmp_path / "other.jsonl") as file:
        file.resume(path, 7)
        assert (file.path, file.count) == (path, 7)
        file.write(letter(reason="new"), 8)
    assert path.read_bytes().splitlines()[:-1] == before[:7]
    assert lines(path)[-1]["reason"] == "new"
    assert sorted(found.name for found in tmp_path.iterdir()) == ["d.jsonl"]


def test_what_somebody_changed_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    with DeadLetterFile(path) as file:
        for number in (1, 2, 3):
            file.write(letter(), number)
    changed = path.read_bytes().replace(b'"number":2', b"number:2").rstrip(b"\n")  # as some editors save it
    path.write_bytes(changed)
    with DeadLetterFile(tmp_path / "other.jsonl") as file:
        file.resume(path, 3)
        file.write(letter(), 4)
        assert file.count == 4
    assert path.read_bytes().startswith(changed + b"\n")
    assert len(path.read_bytes().splitlines()) == 4


def test_letters_are_in_the_order_of_the_input(tmp_path: Path) -> None:
    """The server refuses later than the reader, and of two records of one id the later one counts."""
    path = tmp_path / "d.jsonl"
    with DeadLetterFile(path) as file:
        for number in (5, 9, 3, 9, 4):
            file.write(letter({"n": number}), number)
    with DeadLetterFile(tmp_path / "other.jsonl") as file:
        file.resume(path, 8)
        file.write(letter({"n": 9}, id_="last"), 9)
        file.write(letter({"n": 8}), 8)
    assert [line["number"] for line in lines(path)] == [3, 4, 5, 8, 9]
    assert [found.fields["n"] for found in DeadLetters(path) if isinstance(found, Record)] == [3, 4, 5, 8, 9]
    assert sorted(found.name for found in tmp_path.iterdir()) == ["d.jsonl"]


def test_a_full_disk_stops_the_run(tmp_path: Path) -> None:
    code = """
import resource, sys
from esvector.errors import IndexingError
from esvector.index.deadletters import DeadLetterFile
from esvector.types import DeadLetter
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
file = DeadLetterFile(sys.argv[1])
try:
    for n in range(100):
        file.write(DeadLetter(str(n), "p", "r", {"x": "y" * 50}))
except IndexingError as error:
    print(n, file.count, error.message)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "d.jsonl"], capture_output=True, text=True, check=True
    )
    failed, count, message = done.stdout.split(" ", 2)
    assert failed == count
    assert 5 < int(count) < 15
    assert "File too large" in message


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(IndexingError, match="No such file or directory"):
        DeadLetterFile(tmp_path / "no" / "dead.jsonl").write(letter())


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("field 'text' is a list, not a string", "field 'text' is a list, not a string"),
        ("the id in 'id' is longer than 512 bytes (514)", "the id in 'id' is longer than N bytes"),
        (
            "no text: none of 'title', 'text' has any; name one (there are: 'a')",
            "no text: none of 'title', 'text' has any",
        ),
        ("the row has 12 cells where the header has 3", "the row has N cells where the header has N"),
        ("not JSON (unexpected character, character 7 of the line)", "not JSON"),
        (
            "document_parsing_exception: [1:27] failed to parse field [year] of type [integer] in document with id 'a'"
            ". Preview of field's value: 'abc'",
            "document_parsing_exception: failed to parse field [year] of type [integer]",
        ),
        ("field 'x1' is nan, which JSON has no word for", "field 'x1' is nan, which JSON has no word for"),
        ("", "no reason given"),
    ],
)
def test_kinds_of_reasons(reason: str, kind: str) -> None:
    assert reason_kind(reason) == kind


def test_kinds_are_bounded_and_the_frequent_come_first(tmp_path: Path) -> None:
    with DeadLetterFile(tmp_path / "dead.jsonl") as file:
        for n in range(MAX_KINDS + 50):
            file.write(letter(reason=f"reason x{n}"))
    assert len(file.reasons) == MAX_KINDS + 1
    assert next(iter(file.reasons.items())) == ("other reasons", 50)
    assert sum(file.reasons.values()) == file.count == MAX_KINDS + 50
