from __future__ import annotations

import csv
import gzip
import io
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from esvector.errors import MissingExtraError, SourceError
from esvector.index.sources import MAX_RECORD_BYTES, as_records, read_documents
from esvector.types import BadRecord, Record

RANDOM = random.Random(0)


@pytest.fixture(autouse=True)
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(name: str, content: str | bytes) -> str:
    Path(name).write_bytes(content.encode() if isinstance(content, str) else content)
    return name


def read(
    *sources: str, stdin: BinaryIO | None = None, max_record_bytes: int = MAX_RECORD_BYTES
) -> list[Record | BadRecord]:
    return list(read_documents(*sources, stdin=stdin, max_record_bytes=max_record_bytes))


def fields(*sources: str) -> list[dict[str, Any]]:
    return [dict(record.fields) for record in read(*sources) if isinstance(record, Record)]


def the_bad(source: str, max_record_bytes: int = MAX_RECORD_BYTES) -> BadRecord:
    records = read(source, max_record_bytes=max_record_bytes)
    (bad,) = (record for record in records if isinstance(record, BadRecord))
    return bad


# JSON lines


def test_jsonl_with_bom_crlf_blank_lines_and_no_last_line_end() -> None:
    write("a.jsonl", b'\xef\xbb\xbf{"a":1}\r\n\r\n   \n{"b":"\xf0\x9f\x8c\x8d"}')
    assert read("a.jsonl") == [Record({"a": 1}, "a.jsonl:1"), Record({"b": "🌍"}, "a.jsonl:4")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"a": }', "not JSON (unexpected character"),
        (b'{"a": NaN}', "not JSON (unexpected character"),
        (b'{"a": -Infinity}', "not JSON"),
        (b'{"a": 1e999}', "infinity"),
        (b'{"a": "\\ud800"}', "not JSON (no low surrogate"),
        (b'{"a": "\xff"}', "not UTF-8 (byte 7 of the line is 0xff)"),
        (b'["a"]', "not a JSON object but an array"),
        (b"null", "not a JSON object but null"),
        (b"true", "not a JSON object but a boolean"),
        (b"[" * 100_000, "depth"),
        (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, "depth"),
        (b'{"a":1}{"b":2}', "character 8 of the line"),
        (b'{"a":' + b"9" * 5_000 + b"}", "not JSON"),
    ],
)
def test_a_broken_line_is_a_bad_record_and_reading_goes_on(line: bytes, reason: str) -> None:
    write("a.jsonl", b'{"n": 1}\n' + line + b'\n{"n": 3}\n')
    first, bad, last = read("a.jsonl")
    assert (first, last) == (Record({"n": 1}, "a.jsonl:1"), Record({"n": 3}, "a.jsonl:3"))
    assert isinstance(bad, BadRecord)
    assert reason in bad.reason
    assert bad.place == "a.jsonl:2"
    assert bad.raw == line.decode("utf-8", "replace")[:2_000]


def test_a_last_line_that_was_cut_says_so() -> None:
    write("a.jsonl", '{"n": 1}\n{"n": ')
    assert the_bad("a.jsonl").reason.endswith("was it cut?")


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**30])
def test_an_integer_outside_64_bits_is_not_rounded(number: int) -> None:
    write("a.jsonl", f'{{"a": {{"b": [{number}]}}, "c": 0.1234567890123456789, "d": "{number}"}}\n')
    (found,) = fields("a.jsonl")
    assert found == {"a": {"b": [number]}, "c": 0.12345678901234568, "d": str(number)}
    assert type(found["a"]["b"][0]) is int


def test_a_line_of_exactly_the_limit_is_read_and_a_longer_one_is_skipped() -> None:
    fit, over = '{"a":"' + "x" * 92 + '"}', '{"a":"' + "x" * 93 + '"}'
    write("a.jsonl", f"{fit}\n{over}\n{fit}")
    first, bad, last = read("a.jsonl", max_record_bytes=100)
    assert isinstance(first, Record)
    assert isinstance(last, Record)
    assert last.place == "a.jsonl:3"
    assert isinstance(bad, BadRecord)
    assert bad.reason == "longer than 100 bytes (102)"
    assert the_bad(write("b.jsonl", over), max_record_bytes=100).place == "b.jsonl:1"


def test_an_overlong_line_is_skipped_in_bounded_memory() -> None:
    with open("big.jsonl.gz", "wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=1) as file:
        for _ in range(200):
            file.write(b"x" * 2**20)
        file.write(b'\n{"a": 1}\n')
    code = """
import resource, sys
from esvector.index.sources import read_documents
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
bad, good = read_documents("big.jsonl.gz", max_record_bytes=2**20)
print(good.place, bad.raw == "x" * 2000, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    place, cut_raw, grown = done.stdout.split()
    assert (place, cut_raw) == ("big.jsonl.gz:2", "True")
    assert int(grown) < 30


def test_json_of_another_layout_is_refused_with_the_way_to_convert_it() -> None:
    with pytest.raises(SourceError, match=r"jq -c '\.\[\]' a.json"):
        read(write("a.json", '[{"a": 1},\n {"a": 2}]'))
    with pytest.raises(SourceError, match="one JSON array"):
        read(write("b.json", "[" + '{"a": 1},' * 100 + "]"), max_record_bytes=50)
    with pytest.raises(SourceError, match=r"jq -c \. c.json"):
        read(write("c.json", '{\n  "a": 1\n}'))
    with pytest.raises(SourceError, match="was read as JSON lines"):
        read(write("readme.md", "# Hello\n"))
    assert fields(write("d.json", '{"a": 1}\n{"a": 2}')) == [{"a": 1}, {"a": 2}]
    assert fields(write("lines.txt", '{"a": 1}')) == [{"a": 1}]


# gzip and standard input


def test_gzip_in_several_members() -> None:
    write("a.jsonl.gz", gzip.compress(b'{"a": 1}\n') + gzip.compress(b'{"a": 2}\n'))
    assert [record.place for record in read("a.jsonl.gz")] == ["a.jsonl.gz:1", "a.jsonl.gz:2"]
    write("a.jsonl", Path("a.jsonl.gz").read_bytes())
    assert len(read("a.jsonl")) == 2


def incompressible_lines(count: int) -> bytes:
    return b"".join(json.dumps({"n": n, "text": RANDOM.randbytes(40).hex()}).encode() + b"\n" for n in range(count))


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_cut_gzip_fails_with_the_line(suffix: str, share: float) -> None:
    whole = gzip.compress(incompressible_lines(20_000) if suffix == "jsonl" else b"a\n" + b"1\n" * 100_000)
    write(f"a.{suffix}.gz", whole[: int(len(whole) * share)])
    with pytest.raises(SourceError, match=r"a\.\w+\.gz .*(from line \d+|empty)"):
        read(f"a.{suffix}.gz")


def test_a_damaged_gzip_fails() -> None:
    whole = bytearray(gzip.compress(incompressible_lines(20_000)))
    whole[-8] ^= 1
    with pytest.raises(SourceError, match="CRC"):
        read(write("a.jsonl.gz", bytes(whole)))
    with pytest.raises(SourceError, match="not gzip data"):
        read(write("b.jsonl.gz", b'{"a": 1}\n'))
    with pytest.raises(SourceError, match="cannot be read on from line 2"):
        read(write("c.jsonl.gz", gzip.compress(b'{"a": 1}\n') + b"garbage"))


def test_stdin_plain_and_gzipped_and_left_open() -> None:
    for content in (b'{"a": 1}\n', gzip.compress(b'{"a": 1}\n')):
        stdin = io.BytesIO(content)
        assert read("-", stdin=stdin) == [Record({"a": 1}, "stdin:1")]
        assert not stdin.closed


@pytest.mark.parametrize("content", [b'{"a": 1}\n{"a": 2}\n', gzip.compress(b'{"a": 1}\n{"a": 2}\n')])
def test_a_pipe_that_gives_a_byte_at_a_time(content: bytes) -> None:
    source, sink = os.pipe()

    def trickle() -> None:
        with os.fdopen(sink, "wb", 0) as out:
            for byte in content:
                out.write(bytes([byte]))

    thread = threading.Thread(target=trickle)
    thread.start()
    with os.fdopen(source, "rb") as stdin:
        assert len(read("-", stdin=stdin)) == 2
    thread.join()


def test_a_named_pipe_that_gives_its_first_byte_alone() -> None:
    os.mkfifo("a.jsonl")
    content = gzip.compress(b'{"a": 1}\n')

    def trickle() -> None:
        with open("a.jsonl", "wb", 0) as out:
            out.write(content[:1])
            time.sleep(0.1)
            out.write(content[1:])

    thread = threading.Thread(target=trickle)
    thread.start()
    assert read("a.jsonl") == [Record({"a": 1}, "a.jsonl:1")]
    thread.join()


def test_a_record_of_a_pipe_is_given_out_before_the_next_one_is_written() -> None:
    source, sink = os.pipe()
    with os.fdopen(source, "rb") as stdin, os.fdopen(sink, "wb", 0) as out:
        records = read_documents("-", stdin=stdin)
        out.write(b'{"a": 1}\n')
        assert next(records) == Record({"a": 1}, "stdin:1")


# which files


def test_sources_are_checked_before_anything_is_read() -> None:
    write("a.jsonl", "broken")
    with pytest.raises(SourceError, match=r"no such file: b\.jsonl"):
        read_documents("a.jsonl", "b.jsonl")
    with pytest.raises(SourceError, match="no file matches"):
        read_documents("*.csv")
    Path("folder").mkdir()
    with pytest.raises(SourceError, match=r"is a directory\nName the files in it, as in 'folder/\*\.jsonl'"):
        read_documents("folder/")
    with pytest.raises(SourceError, match="no source"):
        read_documents()
    with pytest.raises(SourceError, match="named twice"):
        read_documents("-", "-")


def test_globs_are_sorted_and_a_real_name_goes_before_a_pattern() -> None:
    for name in ("p2.jsonl", "p10.jsonl", "p1.jsonl", "p[1].jsonl"):
        write(name, json.dumps({"name": name}))
    assert [found["name"] for found in fields("p?.jsonl", "p10.jsonl")] == ["p1.jsonl", "p2.jsonl", "p10.jsonl"]
    assert [found["name"] for found in fields("p[1].jsonl")] == ["p[1].jsonl"]


@pytest.mark.parametrize(
    ("head", "message"),
    [(b"PAR1\x15", "Parquet"), (b"PK\x03\x04", "zip"), (b"\x28\xb5\x2f\xfd", "zstdcat"), (b"\xff\xfe{\0", "UTF-16")],
)
def test_other_data_is_named(head: bytes, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read(write("a.jsonl", head + b"\0" * 100))


# CSV


def test_csv_types_are_those_of_the_column() -> None:
    write(
        "a.csv",
        "\ufeffid,zip,price,open,big,text,mixed,plus\r\n"
        '1,01234,1.5,true,9223372036854775807,"two\r\nlines, ""quoted""",1,+1\r\n'
        "\r\n"
        "2,90210,-3,False,9223372036854775808,,x,2\r\n",
    )
    assert read("a.csv") == [
        Record(
            {"id": 1, "zip": "01234", "price": 1.5, "open": True, "big": "9223372036854775807"}
            | {"text": 'two\r\nlines, "quoted"', "mixed": "1", "plus": "+1"},
            "a.csv:2",
        ),
        Record(
            {"id": 2, "zip": "90210", "price": -3.0, "open": False, "big": "9223372036854775808"}
            | {"mixed": "x", "plus": "2"},
            "a.csv:5",
        ),
    ]


def test_a_later_cell_of_another_type_stays_a_string() -> None:
    write("a.csv", "id,x\n" + "1,2.5\n" * 1_000 + "A7,many\n3,12345678901234567890\n")
    assert fields("a.csv")[-3:] == [
        {"id": 1, "x": 2.5},
        {"id": "A7", "x": "many"},
        {"id": 3, "x": "12345678901234567890"},
    ]


def test_bad_csv_rows_are_bad_records_and_reading_goes_on() -> None:
    write("a.csv", b'id,text\n1,a\n2\n3,b,c\n4,\xff\n5,"x"y\n6,"multi\nline"\n7,z\n')
    records = read("a.csv")
    assert [(r.place, r.reason.split(" (")[0]) for r in records if isinstance(r, BadRecord)] == [
        ("a.csv:3", "the row has 1 cells where the header has 2"),
        ("a.csv:4", "the row has 3 cells where the header has 2"),
        ("a.csv:5", "not UTF-8"),
        ("a.csv:6", "not CSV"),
    ]
    assert next(r.raw for r in records if isinstance(r, BadRecord)) == "2"
    good = [(r.fields["id"], r.place) for r in records if isinstance(r, Record)]
    assert good == [(1, "a.csv:2"), (6, "a.csv:7"), (7, "a.csv:9")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no header"),
        ("a,b,a\n1,2,3\n", "two columns are named 'a'"),
        ("a,,b\n1,2,3\n", "column 2 of 3 has no name"),
        ('a,b\n1,"never closed\n2,x\n', "ends inside a quoted cell of the row that starts at line 2"),
    ],
)
def test_a_csv_file_that_cannot_be_read(content: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read(write("a.csv", content))


def test_long_csv_cells_are_read_up_to_the_limit() -> None:
    write("a.csv", "a,b\n1," + "x" * 200_000 + "\n")
    assert len(fields("a.csv")[0]["b"]) == 200_000
    assert csv.field_size_limit() >= 200_000
    with pytest.raises(SourceError, match=r"a\.csv:2: the row that starts here is longer than 1,000 bytes"):
        read("a.csv", max_record_bytes=1_000)


def test_tsv_and_gzipped_csv() -> None:
    assert fields(write("a.tsv", 'id\ttext\n1\t"a, b"\n')) == [{"id": 1, "text": "a, b"}]
    assert fields(write("a.csv.gz", gzip.compress(b"id\n1\n"))) == [{"id": 1}]


# Parquet


def test_parquet_values_become_what_json_has() -> None:
    columns = {
        "n": pa.array([1, None], pa.int64()),
        "x": pa.array([float("nan"), 0.5], pa.float32()),
        "ns": pa.array([1_700_000_000_123_456_789, None], pa.timestamp("ns")),
        "zoned": pa.array([datetime(2024, 1, 1, tzinfo=UTC), None], pa.timestamp("ms", "Europe/Amsterdam")),
        "day": pa.array([date(2024, 2, 29), None]),
        "price": pa.array([Decimal("12.34"), None], pa.decimal128(15, 2)),
        "exact": pa.array([Decimal("1234567890123456789.01"), None], pa.decimal128(21, 2)),
        "list": pa.array([["a", None], None]),
        "struct": pa.array([{"a": 1, "when": datetime(2024, 1, 1)}, None]),
        "map": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())),
        "word": pa.array(["a", "b"]).dictionary_encode(),
        "raw": pa.array([b"\xff", None]),
    }
    pq.write_table(pa.table(columns), "a.parquet")
    first, second = read("a.parquet")
    assert first == Record(
        {
            "n": 1,
            "ns": "2023-11-14T22:13:20.123456789",
            "zoned": "2024-01-01T00:00:00.000Z",
            "day": "2024-02-29",
            "price": 12.34,
            "exact": "1234567890123456789.01",
            "list": ["a", None],
            "struct": {"a": 1, "when": datetime(2024, 1, 1)},
            "map": {"k": 1},
            "word": "a",
            "raw": b"\xff",
        },
        "a.parquet:row 1",
    )
    assert second == Record({"x": 0.5, "word": "b"}, "a.parquet:row 2")


def test_parquet_rows_are_numbered_over_batches_and_row_groups() -> None:
    pq.write_table(pa.table({"n": list(range(3_000))}), "a.parquet", row_group_size=700)
    records = read("a.parquet")
    assert all(record.place == f"a.parquet:row {n}" for n, record in enumerate(records, 1))
    assert [r.fields["n"] for r in records if isinstance(r, Record)] == list(range(3_000))


def test_a_parquet_value_that_cannot_be_read_costs_its_row_only() -> None:
    texts = pa.array([b"a", b"\xff\xfe", b"c"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"t": texts}), "a.parquet")
    first, bad, last = read("a.parquet")
    assert (first, last) == (Record({"t": "a"}, "a.parquet:row 1"), Record({"t": "c"}, "a.parquet:row 3"))
    assert isinstance(bad, BadRecord)
    assert bad.place == "a.parquet:row 2"


@pytest.mark.parametrize("damage", ["end", "middle", "empty"])
def test_cut_and_damaged_parquet_fails(damage: str) -> None:
    table = pa.table({"t": [RANDOM.randbytes(50).hex() for _ in range(20_000)]})
    pq.write_table(table, "a.parquet", row_group_size=5_000, write_page_checksum=True, use_dictionary=False)
    whole = bytearray(Path("a.parquet").read_bytes())
    if damage == "middle":
        whole[len(whole) * 5 // 8] ^= 0xFF  # in the third of four row groups
    write("a.parquet", bytes(whole[: {"end": len(whole) - 100, "middle": len(whole), "empty": 0}[damage]]))
    with pytest.raises(SourceError, match=r"a\.parquet cannot be read on from row \d+") as raised:
        read("a.parquet")
    row = int(str(raised.value).split("row ")[1].split(":")[0])
    assert 9_000 < row <= 10_001 if damage == "middle" else row == 1


def test_parquet_without_pyarrow_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esvector.errors.find_spec", lambda name: None)
    write("a.parquet", b"")
    with pytest.raises(MissingExtraError, match=r"esvector\[parquet\]"):
        read_documents("a.parquet")


def test_reading_imports_nothing_heavy() -> None:
    code = "import sys, esvector.index.sources; print({'pyarrow', 'numpy', 'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


# iterables


def test_as_records() -> None:
    given = Record({}, "here")
    items: list[object] = [{"a": 1}, given, 7, "text", BadRecord("r", "p")]
    assert list(as_records(items)) == [
        Record({"a": 1}, "record 1"),
        given,
        BadRecord("not a mapping of names to values but a int", "record 3", ""),
        BadRecord("not a mapping of names to values but a str", "record 4", "text"),
        BadRecord("r", "p"),
    ]


def test_as_records_is_lazy_and_refuses_what_is_no_collection() -> None:
    def endless() -> Iterator[dict[str, int]]:
        while True:
            yield {"a": 1}

    assert next(as_records(endless())) == Record({"a": 1}, "record 1")
    with pytest.raises(SourceError, match="read_documents"):
        as_records("papers.jsonl")
    with pytest.raises(SourceError, match="one mapping"):
        as_records({"a": 1})


def test_the_share_that_is_read_grows_to_one_and_is_unknown_for_stdin(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    pa = pytest.importorskip("pyarrow")
    rows = [{"id": str(n), "text": "x" * 5000} for n in range(1000)]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    (tmp_path / "a.jsonl").write_bytes(lines)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "c.parquet", compression="none", use_dictionary=False)
    documents = read_documents(tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz", tmp_path / "c.parquet")
    shares = [documents.share_read() for _ in documents]
    assert shares == sorted(s for s in shares if s is not None)
    assert 0 < (shares[0] or 0) < 0.3
    assert 0.4 < (shares[999] or 0) < 0.6
    assert shares[-1] == pytest.approx(1)
    assert read_documents("-", stdin=io.BytesIO(lines)).share_read() is None
