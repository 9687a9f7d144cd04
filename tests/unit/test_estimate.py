"""Sampling a source and what is concluded from it. There is no client here, so no server can be touched."""

from __future__ import annotations

import gzip
import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from esvector.client import Server
from esvector.encode.engine import document_engine
from esvector.errors import ConfigError, IndexingError
from esvector.index.documents import prepare
from esvector.index.estimate import PER, estimate_load, type_sizes
from esvector.index.sampling import CountedRecords, Sample, time_encoding
from esvector.index.sizes import HASH_BYTES, STORED_SHARE
from esvector.index.sources import read_documents
from esvector.mapping import build_index_body, load_template
from esvector.passport import Passport
from esvector.types import Document
from tests.support.encoders import HashEncoder

SERVER = Server((9, 5, 3))
RECORDS = [{"id": f"d{n}", "text": f"text number {n}", "year": 1990 + n % 30} for n in range(200)]


def noise(n: int, seed: int = 0) -> list[dict[str, Any]]:
    """Records that compression cannot make small, of 20 to 1,000 characters."""
    draw = random.Random(seed)
    return [{"id": i, "text": f"{draw.getrandbits(4 * draw.randint(20, 1000)):x}"} for i in range(n)]


# How many records there are


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "parquet"])
def test_the_records_of_a_large_file_are_counted_by_a_part_of_it(suffix: str, tmp_path: Path) -> None:
    records, path = noise(20_000), tmp_path / f"large.{suffix}"
    lines = "".join(json.dumps(record) + "\n" for record in records).encode()
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    else:
        path.write_bytes(gzip.compress(lines, 1) if suffix.endswith("gz") else lines)
    counted = CountedRecords(read_documents(path))
    for _ in itertools.islice(counted, 100):
        pass
    counted.read_on(0)
    assert not counted.ended
    assert counted.read < 10_000
    assert counted.total == pytest.approx(20_000, rel=0.05)


def test_the_records_of_several_small_files_are_counted_exactly(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    counted = CountedRecords(read_documents(tmp_path / "*.jsonl"))
    for _ in itertools.islice(counted, 10):
        pass
    counted.read_on(60)
    assert (counted.ended, counted.total) == (True, 600)


def test_an_endless_source_is_read_for_the_given_time_only() -> None:
    counted = CountedRecords({"id": n} for n in itertools.count())
    counted.read_on(0.01)
    assert (counted.ended, counted.total) == (False, None)


# The sample


def take(records: Any, most: int | None = None, window: int = 50) -> Sample:
    return Sample.take(CountedRecords(records), prepare, most, window)


def test_the_sample_is_a_window_of_documents_or_so_many_records() -> None:
    mixed = [{"id": "none"}, *RECORDS]
    assert (take(mixed).read, len(take(mixed).documents)) == (51, 50)
    assert (take(mixed, 10).read, len(take(mixed, 10).documents)) == (10, 9)
    assert take(mixed, 10_000).read == 201


def test_a_window_of_large_documents_is_cut_as_in_a_load() -> None:
    large = ({"id": n, "text": "word " * 20_000} for n in itertools.count())
    assert take(large).read == 5  # 8 KiB a document on average: 400 KiB


def test_refused_documents_leave_the_sample_with_their_bytes() -> None:
    sample = take(RECORDS[:3])
    size = sample.size
    sample.refuse({1: "no tokens"})
    assert [document.id for document in sample.documents] == ["d0", "d2"]
    assert sample.size == size - len(b'{"id":"d1","text":"text number 1","year":1991}')
    assert sample.reasons == {"no tokens": 1}


@pytest.mark.parametrize("most", [None, 1000, 100_000])
def test_a_source_of_nothing_usable_is_an_error_that_says_why(most: int | None) -> None:
    with pytest.raises(IndexingError, match=r"none of the first 1000 records.*record 1: no text"):
        take(({"id": n} for n in itertools.count()), most)
    with pytest.raises(IndexingError, match="no records"):
        take([])


# Timing


def documents(n: int) -> list[Document]:
    return [Document(f"d{i}", f"text {i}", {}, f"record {i}") for i in range(n)]


def test_what_is_timed_is_bounded_by_time_and_shared_by_all_engines() -> None:
    encoders = [HashEncoder(), HashEncoder()]
    engines = [document_engine(encoder) for encoder in encoders]
    timed, seconds = time_encoding(documents(1000), engines, 1e-6)
    assert (timed, [encoder.encoded for encoder in encoders]) == (64, [96, 96])
    assert seconds > 0
    timed, _ = time_encoding(documents(1000), engines, 3600)
    assert timed == 1000


def test_fewer_documents_than_engines() -> None:
    timed, seconds = time_encoding(documents(1), [document_engine(HashEncoder()) for _ in range(3)], 1)
    assert (timed, seconds > 0) == (1, True)


# The whole


def test_the_estimate_adds_up() -> None:
    short = {"id": "long", "text": "word " * 100}  # HashEncoder reads 64 words
    found = estimate_load([*RECORDS, short, {"id": "none"}, {"id": "list", "text": []}], HashEncoder(), SERVER)
    assert (found.records, found.records_from) == (203, "counted")
    assert (found.sampled, found.usable, found.rejected) == (203, 201, 2)
    assert sum(found.reasons.values()) == found.rejected
    assert (found.truncated, found.longest, found.longest_place) == (1, 100, "record 201")
    assert found.tokens == 3 * 200 + 100
    assert found.documents == 201
    assert found.seconds == pytest.approx(found.documents / found.documents_per_second)
    assert found.documents_per_second == pytest.approx(1 / sum(stage.seconds for stage in found.stages))
    assert [stage.name for stage in found.stages] == ["read", "tokenize", "encode"]
    assert found.encoder == HashEncoder().profile


def test_what_is_stated_wins_and_rejected_records_take_no_space() -> None:
    half = [record for pair in zip(RECORDS, [{"id": "none"}] * len(RECORDS), strict=True) for record in pair]
    found = estimate_load(half, HashEncoder(), SERVER, records=1000)
    assert (found.records, found.records_from, found.documents) == (1000, "stated", 500)
    one = estimate_load(half, HashEncoder(), SERVER, records=2)
    assert found.sizes[0].disk_bytes == pytest.approx(500 * one.sizes[0].disk_bytes, rel=1e-3)


def test_where_records_cannot_be_counted_figures_are_of_a_million(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esvector.index.estimate._COUNTING", 0.0)
    endless: Iterator[dict[str, Any]] = ({"id": n, "text": "a text"} for n in itertools.count())
    found = estimate_load(endless, HashEncoder(), SERVER, sample=100)
    assert (found.records, found.records_from, found.documents) == (None, "unknown", PER)


def test_sizes_are_vectors_and_stored_fields() -> None:
    passport = Passport(HashEncoder(dims=384).profile, ("text",), "vector", "0")
    options = {"type": "int4_hnsw", "m": 32, "ef_construction": 100}
    vector = {"vector": {"type": "dense_vector", "index_options": options}}
    body = build_index_body(load_template() | {"mappings": {"properties": vector}}, passport, SERVER)
    first, *others = type_sizes(10, 1000.0, passport, SERVER, body)
    assert (first.element_type, first.index_type, first.chosen) == ("float", "int4_hnsw", True)
    assert first.disk_bytes == 10 * (1536 + 208 + 128 + 1000 * STORED_SHARE + HASH_BYTES)
    assert first.memory_bytes == 10 * (208 + 128)
    assert len(others) == 8
    assert not any(size.chosen for size in others)
    older = {(s.element_type, s.index_type): s for s in type_sizes(10, 1000.0, passport, Server((8, 19, 0)), body)}
    assert older["float", "int4_hnsw"].disk_bytes == first.disk_bytes + 10 * 3264
    assert older["float", "int4_hnsw"].memory_bytes == first.memory_bytes


def test_given_vectors_are_not_encoded_and_those_of_another_length_are_rejected() -> None:
    encoder = HashEncoder()
    vectors = encoder.encode_document([str(record["text"]) for record in RECORDS])
    given = [record | {"v": vector.tolist()} for record, vector in zip(RECORDS, vectors, strict=True)]
    given[7] |= {"v": [1.0]}
    encoded = encoder.encoded
    found = estimate_load(given, encoder, SERVER, given="v")
    assert encoder.encoded - encoded < len(RECORDS)  # the probes, and a sample that is compared
    assert (found.usable, found.rejected) == (199, 1)
    assert "v" not in found.body["mappings"]["properties"]


def test_a_mapping_that_the_server_would_refuse_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"8\.19\.0 has no bfloat16"):
        estimate_load(RECORDS, HashEncoder(), Server((8, 19, 0)), element_type="bfloat16")
