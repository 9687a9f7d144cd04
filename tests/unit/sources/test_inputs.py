"""Which files are read, in which order, how far, and iterables in their place."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from esvector.errors import SourceError
from esvector.index.sources import as_records, read_documents
from esvector.types import BadRecord, Record
from tests.unit.sources.reading import fields, read, write


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


def test_reading_imports_nothing_heavy() -> None:
    code = "import sys, esvector.index.sources; print({'pyarrow', 'numpy', 'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


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


def test_only_files_are_read_again() -> None:
    """What is read of a pipe is gone; so it would begin with what comes next."""
    write("a.jsonl", "{}")
    os.mkfifo("pipe.jsonl")
    assert read_documents("a.jsonl").rewind()
    assert not read_documents("a.jsonl", "pipe.jsonl").rewind()
    assert not read_documents("a.jsonl", "-").rewind()
