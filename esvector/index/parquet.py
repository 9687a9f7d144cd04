"""The reader of Parquet files (extra ``parquet``): columns to records, a batch of rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esvector.errors import SourceError
from esvector.types import BadRecord, Record

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["read_parquet"]

BATCH_ROWS = 256
# A decimal of 15 digits survives the way to a double and back; with 16 it may not.
EXACT_DECIMAL_DIGITS = 15


def read_parquet(path: Path, name: str, count: Callable[[float], None]) -> Iterator[Record | BadRecord]:
    """Rows of a Parquet file; place is ``name:row 17``, from 1. A null is an absent field.

    What JSON has no word for, in a column of its own: timestamps (zoned ones in UTC), dates and times become ISO
    strings with every digit they have; decimals of up to 15 digits become numbers, longer ones strings; NaN, which data
    frames write for a missing number, is absent. Inside lists and structs values stay as Python has them, and bytes and
    infinity stay everywhere: ``esvector.index.documents`` then writes or refuses them by name. ``count`` is told the
    bytes read of the file, by the share of its rows.

    Raises SourceError for a file that is cut, damaged or no Parquet, with the rows that were read before.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = 0
    try:
        # With buffer_size a column is read piece by piece; without it a whole row group would be held.
        with pq.ParquetFile(path, buffer_size=1 << 20, page_checksum_verification=True) as file:
            _check_columns(file.schema_arrow.names, name)
            bytes_per_row = path.stat().st_size / max(1, file.metadata.num_rows)
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                count(batch.num_rows * bytes_per_row)
                for record in _records(batch, name, row):
                    row += 1
                    yield record
    except (pa.ArrowException, OSError) as error:
        raise SourceError(
            f"{name} cannot be read on from row {row + 1}: {error}",
            "The file is cut, damaged or not Parquet. Fetch or write it again; the rows before are complete.",
        ) from error


def _check_columns(names: list[str], name: str) -> None:
    repeated = sorted({column for column in names if names.count(column) > 1})
    if repeated:
        raise SourceError(f"{name} has two columns named {repeated[0]!r}", "Write it with each name once.")
    if not names:
        raise SourceError(f"{name} has no columns", "Write it with a column for the text.")


def _records(batch: pa.RecordBatch, name: str, done: int) -> Iterator[Record | BadRecord]:
    names = batch.schema.names
    try:
        columns = [_values(column) for column in batch.columns]
    except ValueError as error:  # also what Arrow raises; text that is not UTF-8 is found only here
        if batch.num_rows == 1:
            yield BadRecord(f"a value cannot be read ({error})", f"{name}:row {done + 1}")
            return
        for i in range(batch.num_rows):
            yield from _records(batch.slice(i, 1), name, done + i)
        return
    for i, row in enumerate(zip(*columns, strict=True), done + 1):
        fields = {key: value for key, value in zip(names, row, strict=True) if value is not None}
        yield Record(fields, f"{name}:row {i}")


def _values(column: pa.Array) -> list[Any]:
    """A column as Python values, None where there is nothing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if pa.types.is_timestamp(kind):
        if kind.tz is not None:
            column = column.cast(pa.timestamp(kind.unit, "UTC"))
        column = pc.replace_substring(column.cast(pa.string()), " ", "T")
    elif pa.types.is_date(kind) or pa.types.is_time(kind):
        column = column.cast(pa.string())
    elif pa.types.is_decimal(kind):
        column = column.cast(pa.float64() if kind.precision <= EXACT_DECIMAL_DIGITS else pa.string())
    elif pa.types.is_floating(kind):
        return [value if value == value else None for value in column.to_pylist()]
    values: list[Any] = column.to_pylist(maps_as_pydicts="strict")
    return values
