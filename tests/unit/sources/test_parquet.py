"""Parquet: values, places, damage."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from esvector.errors import MissingExtraError, SourceError
from esvector.index.sources import read_documents
from esvector.types import BadRecord, Record
from tests.unit.sources.reading import read, write

RANDOM = random.Random(0)


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
