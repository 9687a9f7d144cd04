"""CSV and TSV: types by column, bad rows, limits."""

from __future__ import annotations

import csv
import gzip

import pytest

from esvector.errors import SourceError
from esvector.types import BadRecord, Record
from tests.unit.sources.reading import fields, read, write


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
