"""gzip, standard input and pipes."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import threading
import time
from pathlib import Path

import pytest

from esvector.errors import SourceError
from esvector.index.sources import read_documents
from esvector.types import Record
from tests.unit.sources.reading import read, write

RANDOM = random.Random(0)


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


@pytest.mark.parametrize(
    "content", [b'{"a": 1}\n{"a": 2}\n', gzip.compress(b'{"a": 1}\n{"a": 2}\n')], ids=["plain", "gzipped"]
)
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
