"""Dead letters, mended or not, and indexed again: as the documents that their records would have been."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from elasticsearch import Elasticsearch
from numpy.typing import NDArray

from esvector import Indexer, read_documents
from esvector.cli import app
from esvector.cli.app import EXIT_REJECTED
from esvector.encode.loading import load_encoder
from esvector.encode.profile import EncoderProfile
from esvector.errors import SourceError, VerificationError
from esvector.index.deadletters import DeadLetters
from esvector.index.reembed import reembed
from esvector.types import IndexReport, PassageOptions, Record
from tests.support import models
from tests.support.encoders import HashEncoder

Fields = dict[str, Any]
Run = Callable[..., IndexReport]
VECTOR = {"type": "dense_vector", "index_options": {"type": "flat"}}
FLAT: Fields = {"mappings": {"properties": {"vector": VECTOR, "year": {"type": "integer"}}}}
ENCODER = HashEncoder(16)


@pytest.fixture
def dead(tmp_path: Path) -> Path:
    return tmp_path / "dead.jsonl"


@pytest.fixture
def run(es: Elasticsearch, alias: str, dead: Path) -> Run:
    """Index records; a first index is made without a graph, which is of no matter here."""

    def run(records: Iterable[Any], **options: Any) -> IndexReport:
        chosen: dict[str, Any] = {"encoder": ENCODER, "mapping": FLAT, "dead_letters": dead} | options
        return Indexer(es, alias, **chosen).run(records)

    return run


def good(n: int = 40, **more: Any) -> list[Fields]:
    return [{"_id": f"g{i}", "text": f"text {i}", "year": 2000 + i, **more} for i in range(n)]


def read_letters(path: Path) -> list[Fields]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def mend(path: Path, change: Callable[[Fields], None]) -> Path:
    """Change the record of each letter."""
    letters = read_letters(path)
    for letter in letters:
        change(letter["record"])
    path.write_text("".join(json.dumps(letter) + "\n" for letter in letters))
    return path


def a_year(record: Fields) -> None:
    record["year"] = 1999


def stored(es: Elasticsearch, alias: str) -> dict[str, Fields]:
    es.indices.refresh(index=alias)
    hits = es.search(index=alias, size=1000, source={"excludes": ["esvector_hash", "passages"]})["hits"]["hits"]
    return {hit["_id"]: hit["_source"] for hit in hits}


def test_mended_letters_are_indexed_and_the_others_rejected_again(
    es: Elasticsearch, alias: str, tmp_path: Path
) -> None:
    letters = tmp_path / "dead.jsonl"
    indexer = Indexer(es, alias, encoder=HashEncoder(), dead_letters=letters)
    records: list[dict[str, Any]] = [
        {"id": "a", "text": "fine", "year": 2001},
        {"id": "b", "text": "fine", "year": "n.d."},
        {"id": "c"},
    ]
    records += [{"id": str(n), "text": f"text {n}", "year": 2000} for n in range(40)]
    assert indexer.run(records).dead == 2
    lines = [json.loads(line) for line in letters.read_text().splitlines()]
    by_id = {line["id"]: line for line in lines}
    by_id["b"]["record"]["year"] = 1999
    letters.write_text("".join(json.dumps(line) + "\n" for line in lines))
    report = indexer.run(DeadLetters(letters))
    assert (report.read, report.indexed, report.dead) == (2, 1, 1)
    es.indices.refresh(index=alias)
    assert es.get(index=alias, id="b")["_source"]["year"] == 1999
    assert es.count(index=alias)["count"] == 42
    again = tmp_path / "dead.1.jsonl"
    assert report.dead_letters == str(again)
    assert [json.loads(line)["id"] for line in again.read_text().splitlines()] == ["c"]


# Which id


@pytest.mark.parametrize("id_field", [None, "_id"])
def test_a_mended_document_keeps_the_id_of_its_record(
    id_field: str | None, run: Run, es: Elasticsearch, alias: str, dead: Path
) -> None:
    run([*good(), {"_id": "new", "text": "x", "year": "n.d."}], id_field=id_field)
    run([{"_id": "g0", "text": "changed", "year": "n.d."}, *good()[1:]], dead_letters=dead.with_name("more.jsonl"))
    for path in (dead, dead.with_name("more.jsonl")):
        assert run(DeadLetters(mend(path, a_year))).indexed == 1
    found = stored(es, alias)
    assert sorted(found) == sorted([f"g{i}" for i in range(40)] + ["new"])
    assert found["new"] == {"text": "x", "year": 1999}
    assert found["g0"] == {"text": "changed", "year": 1999}


def test_a_mended_record_of_the_beir_layout_has_its_metadata_as_fields(
    run: Run, es: Elasticsearch, alias: str, dead: Path
) -> None:
    rest = [{"_id": f"g{i}", "title": "", "text": f"t {i}", "metadata": {"year": i, "url": "u"}} for i in range(40)]
    record: Any = {
        "_id": "b",
        "title": "T",
        "text": "x",
        "metadata": {"year": "n.d.", "url": "v", "metadata": {"a": 1}},
    }
    assert run([*rest, record]).dead == 1
    assert run(DeadLetters(mend(dead, lambda found: found["metadata"].update(year=7)))).indexed == 1
    assert stored(es, alias)["b"] == {"title": "T", "text": "x", "year": 7, "url": "v", "metadata": {"a": 1}}
    record["metadata"]["year"] = 7
    assert run([*rest, record]).unchanged == 41


def test_an_id_that_stands_beside_the_fields_is_kept(run: Run, es: Elasticsearch, alias: str, dead: Path) -> None:
    records = [
        Record({"text": f"t {i}", "year": i, "id": "other", "metadata": {"a": 1}}, f"{i}", f"r{i}") for i in range(40)
    ]
    run([*records, Record({"text": "x", "year": "n.d."}, "here", "server"), Record({"year": 1}, "there", "prepare")])
    mend(dead, lambda record: record.update(year=1, text="mended"))
    assert run(DeadLetters(dead)).indexed == 2
    found = stored(es, alias)
    assert len(found) == 42
    assert found["server"] == found["prepare"] == {"text": "mended", "year": 1}


def test_an_id_made_from_the_content_is_that_of_the_mended_content(
    run: Run, es: Elasticsearch, alias: str, dead: Path
) -> None:
    """So that the mended source is unchanged afterwards, and not a second document."""
    run([*good(), {"text": "x", "year": "n.d."}])
    run(DeadLetters(mend(dead, a_year)))
    assert len(stored(es, alias)) == 41
    assert run([*good(), {"text": "x", "year": 1999}]).unchanged == 41


def test_letters_of_a_reembed_have_the_ids_of_the_index(
    run: Run, es: Elasticsearch, alias: str, dead: Path, tmp_path: Path
) -> None:
    strings = {"mappings": {"properties": {"vector": VECTOR, "year": {"type": "keyword"}}}}
    records = [{**record, "year": str(record["year"])} for record in good()]
    records[3]["year"] = "n.d."
    run(records, mapping=strings)
    with pytest.raises(VerificationError):
        reembed(Indexer(es, alias, encoder=HashEncoder(24), mapping=FLAT, rebuild=True, dead_letters=dead))
    (letter,) = read_letters(dead)
    assert letter["id"] == "g3"
    mend(dead, lambda record: record.update(year="2003"))
    report = Indexer(es, alias, dead_letters=dead, encoder=ENCODER).run(DeadLetters(dead))
    assert (report.indexed, report.dead) == (1, 0)
    assert stored(es, alias)["g3"] == {"text": "text 3", "year": "2003"}
    assert len(stored(es, alias)) == 40


# From every source, for every reason


def jsonl(path: Path, records: list[Fields]) -> Path:
    path = path.with_suffix(".jsonl")
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def csv_file(path: Path, records: list[Fields]) -> Path:
    path = path.with_suffix(".csv")
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(records[0]))
        writer.writeheader()
        writer.writerows(records)
    return path


def parquet(path: Path, records: list[Fields]) -> Path:
    import pyarrow
    from pyarrow import parquet

    path = path.with_suffix(".parquet")
    parquet.write_table(pyarrow.Table.from_pylist(records), path)
    return path


@pytest.mark.parametrize("write", [jsonl, csv_file, parquet])
def test_a_retried_letter_is_the_document_that_its_record_would_have_been(
    write: Callable[[Path, list[Fields]], Path], run: Run, dead: Path, tmp_path: Path
) -> None:
    records: list[Fields] = [
        {"_id": f"d{i}", "title": f"Title {i}", "text": f"some text {i}", "score": i + 0.1, "day": "2024-01-02"}
        for i in range(40)
    ]
    records[7]["text"] += "x" * 2_000  # too large for the first run
    records[8]["day"] = "someday"  # the server refuses it
    records[9]["title"] = records[9]["text"] = None  # no text
    first = run(read_documents(write(tmp_path / "source", records)), max_document_bytes=1_000)
    assert (first.indexed, first.dead) == (37, 3)
    records[8]["day"] = "2024-01-03"
    records[9]["text"] = "found"
    letters = read_letters(dead)
    mended = {letter["id"]: letter["record"] for letter in letters}
    mended["d8"]["day"], mended["d9"]["text"] = "2024-01-03", "found"
    dead.write_text("".join(json.dumps(letter) + "\n" for letter in letters))
    retried = run(DeadLetters(dead))
    assert (retried.read, retried.indexed, retried.dead) == (3, 3, 0)
    again = run(read_documents(write(tmp_path / "mended", records)))
    assert (again.unchanged, again.indexed) == (40, 0)


class Moody(HashEncoder):
    """Gives a text no usable vector while it is in a bad mood."""

    bad_mood = True

    def _vector(self, text: str) -> NDArray[np.float32]:
        vector = super()._vector(text)
        return vector * np.float32("nan") if self.bad_mood and "poison" in text else vector


def test_what_the_encoder_refused_can_be_retried_as_it_is(run: Run, es: Elasticsearch, alias: str, dead: Path) -> None:
    encoder = Moody(16)
    records = [*good(), {"_id": "p", "text": "poison", "year": 1}]
    assert run(records, encoder=encoder).dead == 1
    encoder.bad_mood = False
    assert run(DeadLetters(dead), encoder=encoder).indexed == 1
    assert run(records, encoder=encoder).unchanged == 41


def test_letters_of_documents_in_passages(run: Run, es: Elasticsearch, alias: str, dead: Path, tmp_path: Path) -> None:
    encoder = load_encoder(EncoderProfile(str(models.prompted(tmp_path / "model"))), device="cpu")
    options: dict[str, Any] = {
        "encoder": encoder,
        "mapping": None,
        "passages": PassageOptions(24),
        "field_types": {"year": "integer"},
    }
    long = "\n" + " ".join(models.words(30, seed=3))
    records = [{"_id": f"p{i}", "title": " a ", "text": f"{long} {i} ", "year": i} for i in range(12)]
    records[4]["year"] = "n.d."
    assert run(records, **options).dead == 1
    assert run(DeadLetters(mend(dead, a_year)), **options).indexed == 1
    records[4]["year"] = 1999
    assert stored(es, alias)["p4"] == {"title": " a ", "text": f"{long} 4 ", "year": 1999}
    assert run(records, **options).unchanged == 12


def test_a_line_that_was_no_json_is_mended_whole(
    run: Run, es: Elasticsearch, alias: str, dead: Path, tmp_path: Path
) -> None:
    """Also a long one: NaN is what Python writes where a number is missing."""
    source = jsonl(tmp_path / "source", good())
    long = json.dumps({"_id": "n", "text": "y" * 50_000, "year": float("nan")})
    latin = b'{"_id": "l", "text": "caf\xe9", "year": 1}\n'
    source.write_bytes(source.read_bytes() + long.encode() + b"\n" + latin)
    assert run(read_documents(source)).dead == 2
    dead.write_text(dead.read_text().replace("NaN", "1990"))
    report = run(DeadLetters(dead))
    assert (report.indexed, report.dead) == (1, 1)
    assert stored(es, alias)["n"] == {"text": "y" * 50_000, "year": 1990}
    (latin_letter,) = read_letters(dead.with_name("dead.1.jsonl"))
    assert latin_letter["reason"].startswith("not UTF-8"), "and no character is replaced"


# Vectors that records bring


@pytest.mark.parametrize("by_hand", [False, True])
def test_letters_of_given_vectors_have_them(by_hand: bool, run: Run, es: Elasticsearch, alias: str, dead: Path) -> None:
    made = [(vector * 1.7).tolist() for vector in ENCODER.encode_document([f"t{n}" for n in range(40)])]
    records: list[Fields] = [{"_id": f"g{n}", "text": f"t{n}", "year": n, "embedding": made[n]} for n in range(40)]
    records[3]["year"] = "n.d."  # refused by the server
    records[4]["embedding"] = made[4][:5]  # refused for its length
    records[5] = {"_id": "g5", "year": 5, "text": ["x"], "embedding": made[5]}  # refused when it is prepared
    beside = Record({"text": "beside", "year": "n.d."}, "here", "r", ENCODER.encode_document(["beside"])[0])
    assert run([*records, beside], given="embedding").dead == 4
    records[3]["year"] = records[4]["year"] = 1999
    records[4]["embedding"] = made[4]
    records[5]["text"] = "t5"
    mended = {"g3": records[3], "g4": records[4], "g5": records[5]}

    def change(record: Fields) -> None:
        record.update(year=1999, text=record["text"] if isinstance(record["text"], str) else "t5")
        if len(record["embedding"]) == 5:
            record["embedding"] = made[4]

    records[5]["year"] = 1999
    mend(dead, change)
    report = run(DeadLetters(dead), **({"given": "embedding"} if by_hand else {}))
    assert (report.indexed, report.dead) == (4, 0), report.reasons
    again = run([*records, Record({"text": "beside", "year": 1999}, "here", "r", beside.vector)])
    assert (again.unchanged, again.indexed) == (41, 0)
    hits = es.search(index=alias, size=100, source={"includes": ["vector"], "exclude_vectors": False})["hits"]["hits"]
    vectors = {hit["_id"]: hit["_source"]["vector"] for hit in hits}
    for id_ in mended:
        assert vectors[id_] == pytest.approx(ENCODER.encode_document([f"t{id_[1:]}"])[0].tolist(), abs=1e-6)
    assert "embedding" not in stored(es, alias)["g3"]


# Values that JSON cannot hold


ODD: list[tuple[str, Any]] = [
    ("surrogate", "bad \ud800 one"),
    ("pair", "\ud83d\ude00"),
    ("huge", 12345678901234567890123),
    ("longer", 10**5_000),
    ("nan", float("nan")),
    ("infinity", float("inf")),
    ("decimal", Decimal("0.1")),
    ("bytes", b"\xff"),
    ("set", {1}),
    ("key", {5: "x"}),
    ("tuple key", {"a": {(1, 2): "x"}}),
    ("array", np.array([1.0, np.nan])),
]


def test_odd_values_are_refused_again_until_they_are_mended(
    run: Run, es: Elasticsearch, alias: str, dead: Path
) -> None:
    odd: list[Any] = [{"_id": name, "text": "x", "value": value} for name, value in ODD]
    plain = {"_id": "plain", "text": "x", "year": "n.d."}
    deep: list[Any] = []
    for _ in range(900):
        deep = [deep]
    cycle: list[Any] = [1]
    cycle += [cycle, cycle]
    odd += [{"_id": "deep", "text": "x", "value": deep}, {"_id": "cycle", "text": "x", "value": cycle}]
    odd += [{"_id": "name", "text": "x", "a\ud800": 1}, {"_id": "int name", "text": "x", 5: 1}]
    odd += [{"_id": "text", "text": "\u2028 \0 \ud800"}]
    first = run([*good(), *odd, plain])
    assert first.dead == len(odd) + 1
    before = {letter["id"]: letter["reason"] for letter in read_letters(dead)}
    for number in (1, 2):  # the second is a retry of the letters of the first
        report = run([*DeadLetters(dead), *good()])
        assert (report.indexed, report.unchanged, report.dead) == (0, 40, len(odd) + 1)
        dead = dead.with_name(f"dead.{number}.jsonl")
        assert {letter["id"]: letter["reason"] for letter in read_letters(dead)} == before
    letters = read_letters(dead)
    for letter in letters:
        record = letter["record"]
        for name in [name for name in record if name not in ("_id", "text")]:
            del record[name]
        record["text"], record["value"] = "mended", "fine"
    dead.write_text("".join(json.dumps(letter) + "\n" for letter in letters))
    assert run(DeadLetters(dead)).indexed == len(odd) + 1
    found = stored(es, alias)
    assert sorted(found) == sorted([f"g{i}" for i in range(40)] + [each["_id"] for each in [*odd, plain]])


def test_ids_names_and_texts_with_half_a_surrogate_pair_cost_an_update_only_themselves(
    run: Run, es: Elasticsearch, alias: str
) -> None:
    run(good())
    odd: list[Any] = [
        {"id": "a\ud800", "text": "x"},
        {"_id": "\udfff", "text": "x"},
        {"_id": "key", "text": "x", "k\ud800": 1},
        {"_id": "text", "text": "\ud800"},
        {"_id": 10**5_000, "text": "x"},
        Record({"text": "x"}, "here", "b\ud800"),
        Record({"text": "x"}, "here", ""),
        Record({"text": "x"}, "here", "y" * 600),
    ]
    report = run([*odd, *good(), {"_id": "last", "text": "y", "year": 1}])
    assert (report.dead, report.unchanged, report.indexed) == (len(odd), 40, 1)
    assert len(stored(es, alias)) == 41


# Files that are damaged


def test_a_damaged_line_costs_only_itself(run: Run, es: Elasticsearch, alias: str, dead: Path) -> None:
    run([*good(), *({"_id": f"b{i}", "text": f"x {i}", "year": "n.d."} for i in range(5))])
    whole = mend(dead, a_year).read_text().splitlines()
    lines = list(whole)
    lines[0] = lines[0].replace('"record"', "record")
    lines[2] = json.dumps(json.loads(lines[2]) | {"record": 7})
    lines[4] = lines[4][:-20]
    dead.write_text("\ufeff" + "\n\n".join(lines))
    report = run(DeadLetters(dead))
    assert (report.read, report.indexed, report.dead) == (5, 2, 3)
    more = dead.with_name("dead.1.jsonl")
    letters = read_letters(more)
    assert [letter["place"] for letter in letters] == [f"{dead}:1", f"{dead}:5", f"{dead}:9"]
    assert sorted(set(stored(es, alias)) - {f"g{i}" for i in range(40)}) == ["b1", "b3"]
    # What was damaged is mended in the second file, as it would have been in the first.
    assert [letter["record"] for letter in letters] == lines[::2]
    letters[0]["record"], letters[1]["record"], letters[2]["record"] = whole[::2]
    more.write_text("".join(json.dumps(letter) + "\n" for letter in letters))
    assert run(DeadLetters(more)).indexed == 3
    assert len(stored(es, alias)) == 45
    assert stored(es, alias)["b4"] == {"text": "x 4", "year": 1999}


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_an_empty_file_has_no_letters(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_bytes(content)
    assert list(DeadLetters(tmp_path / "d.jsonl")) == []


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is no file"):
        DeadLetters(tmp_path / "nothing.jsonl")
    other = tmp_path / "papers.jsonl"
    other.write_text('{"id": "a", "text": "b"}\n' * 3)
    with pytest.raises(SourceError, match=r"papers\.jsonl"):
        next(iter(DeadLetters(other)))


def test_the_command_retries_what_it_can_and_names_what_it_cannot(
    run: Run, es: Elasticsearch, alias: str, server_url: str, dead: Path, tmp_path: Path
) -> None:
    encoder = load_encoder(EncoderProfile(str(models.prompted(tmp_path / "model"))), device="cpu")
    run([*good(), *({"_id": f"b{i}", "text": f"x {i}", "year": "n.d."} for i in range(3))], encoder=encoder)
    mend(dead, a_year)
    dead.write_text(dead.read_text()[:-9])
    arguments = ["retry", str(dead), "--into", alias]
    result = CliRunner().invoke(app, arguments, env={"ESVECTOR_URL": server_url}, prog_name="esvector")
    assert result.exit_code == EXIT_REJECTED, result.output
    report = json.loads(result.stdout)
    assert (report["read"], report["indexed"], report["dead"]) == (3, 2, 1)
    assert sorted(set(stored(es, alias)) - {f"g{i}" for i in range(40)}) == ["b0", "b1"]
    (letter,) = read_letters(Path(report["dead_letters"]))
    assert letter["place"] == f"{dead}:3"
    result = CliRunner().invoke(app, ["retry", str(Path(__file__)), "--into", alias], env={"ESVECTOR_URL": server_url})
    assert result.exit_code not in (0, EXIT_REJECTED)


# Places


def test_letters_say_where_their_record_stands_however_often_they_are_retried(
    run: Run, dead: Path, tmp_path: Path
) -> None:
    source = jsonl(tmp_path / "source", [*good(), {"_id": "a"}, {"_id": "b", "text": "x", "year": "n.d."}])
    run(read_documents(source))
    for number in (1, 2):
        run([*DeadLetters(dead), *good()])
        dead = dead.with_name(f"dead.{number}.jsonl")
        assert [letter["place"] for letter in read_letters(dead)] == [f"{source}:41", f"{source}:42"]
