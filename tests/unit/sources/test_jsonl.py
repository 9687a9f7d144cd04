"""JSON lines: layouts, limits, and what a broken line costs."""

from __future__ import annotations

import gzip
import subprocess
import sys

import pytest

from esvector.errors import SourceError
from esvector.types import BadRecord, Record
from tests.unit.sources.reading import fields, read, the_bad, write


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
    assert bad.raw.encode("utf-8", "surrogateescape") == line, "whole, so that its dead letter can be mended"


def test_a_last_line_that_was_cut_says_so() -> None:
    write("a.jsonl", '{"n": 1}\n{"n": ')
    assert the_bad("a.jsonl").reason.endswith("was it cut?")


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**30])
def test_an_integer_outside_64_bits_is_not_rounded(number: int) -> None:
    write("a.jsonl", f'{{"a": {{"b": [{number}]}}, "c": 0.1234567890123456789, "d": "{number}"}}\n')
    (found,) = fields("a.jsonl")
    assert found == {"a": {"b": [number]}, "c": 0.12345678901234568, "d": str(number)}
    assert type(found["a"]["b"][0]) is int


def test_a_deep_object_with_a_long_number_is_read() -> None:
    write("a.jsonl", b'{"a":' * 1_000 + b"12345678901234567890123" + b"}" * 1_000)
    (found,) = read("a.jsonl")
    assert found.place == "a.jsonl:1"


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
print(good.place, bad.raw == "x" * 1_000_001, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
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
