"""The readers of the text formats, JSON lines and CSV: a stream of bytes to records, one at a time.

A record that cannot be read is yielded as a BadRecord and reading goes on. A file that cannot be read on, because it
was cut or is not what it claims to be, is a SourceError that names the place: never taken for the end of the input.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
import zlib
from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import Any

import orjson

from esvector.errors import SourceError
from esvector.types import BadRecord, Record

__all__ = ["RAW_BYTES", "json_fault", "load_any_json", "load_json", "raw_text", "read_csv", "read_jsonl"]

RAW_BYTES = 1_000_000
"""What is kept of a record that could not be read, at most: as much as a dead letter holds, and a byte more, by which
it knows that there was more."""

CSV_SAMPLE_ROWS = 1_000
"""Rows that decide the types of the columns of a CSV file."""

_BOM = b"\xef\xbb\xbf"
_CUT = (EOFError, zlib.error, OSError)
_SKIP_BYTES = 1 << 20

# An integer outside 64 bits has 19 digits or more. Mapping every digit to 0 lets one fast search find such a run.
_DIGITS_TO_ZERO = bytes(0x30 if 0x30 <= byte <= 0x39 else 0 for byte in range(256))
_LONG_NUMBER = b"0" * 19


def read_jsonl(stream: io.BufferedReader, name: str, *, any_json: bool, max_bytes: int) -> Iterator[Record | BadRecord]:
    """One JSON object per line. Blank lines, a byte order mark and CRLF are fine.

    ``any_json`` says that nothing but the content claims to be lines, so that a first line which is no JSON means
    another layout and is refused. Lines longer than ``max_bytes`` are skipped without being held. An integer outside
    64 bits is kept exact. Of a name that comes twice in an object the last value counts, as in most readers.
    """
    number = 0
    record: Record | BadRecord
    try:
        while line := stream.readline(max_bytes + 1):
            number += 1
            if number == 1:
                line = line.removeprefix(_BOM)
            if len(line) > max_bytes and not line.endswith(b"\n"):
                record = _overlong(stream, line, f"{name}:{number}", max_bytes)
            elif line.isspace():
                continue
            else:
                record = _json_record(line, f"{name}:{number}")
            if any_json:
                _refuse_other_layout(record, name)
                any_json = False
            yield record
    except _CUT as error:
        raise _cut(name, f"line {number + 1}", error) from error


def _json_record(line: bytes, place: str) -> Record | BadRecord:
    try:
        fields = load_json(line)
    except ValueError as error:
        return BadRecord(json_fault(line, error), place, raw_text(line))
    if not isinstance(fields, dict):
        return BadRecord(f"not a JSON object but {_json_word(fields)}", place, raw_text(line))
    return Record(fields, place)


def load_json(line: bytes) -> Any:  # noqa: ANN401  (JSON)
    """What a line of JSON holds, with integers outside 64 bits exact. Raises ValueError for anything else."""
    value = orjson.loads(line)
    if _LONG_NUMBER in line.translate(_DIGITS_TO_ZERO) and _has_huge_float(value):
        return load_any_json(line)
    return value


def _has_huge_float(value: object) -> bool:
    """Whether a number stands in ``value`` that may be an integer which orjson rounded to a float."""
    left = [value]
    while left:
        value = left.pop()
        if isinstance(value, float) and abs(value) >= 2**63:
            return True
        if isinstance(value, dict | list):
            left += value.values() if isinstance(value, dict) else value
    return False


def load_any_json(line: bytes) -> Any:  # noqa: ANN401  (JSON)
    """As ``load_json``, but slowly, and with half a surrogate pair, NaN and infinity, which are no JSON."""
    try:
        return json.loads(line)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def json_fault(line: bytes, error: Exception) -> str:
    """Why a line could not be read as JSON."""
    try:
        line.decode()
    except UnicodeDecodeError as bad:
        return f"not UTF-8 (byte {bad.start} of the line is 0x{line[bad.start]:02x})"
    message = f"not JSON ({str(error).split(': line ')[0]}, character {getattr(error, 'pos', 0) + 1} of the line)"
    return (
        message if line.endswith(b"\n") else f"{message}; the file ends in this line, without a line end: was it cut?"
    )


def _json_word(value: object) -> str:
    words = {list: "an array", str: "a string", int: "a number", float: "a number", bool: "a boolean"}
    return words.get(type(value), "null")


def _overlong(stream: io.BufferedReader, line: bytes, place: str, max_bytes: int) -> BadRecord:
    raw, size = raw_text(line), len(line)
    while rest := stream.readline(_SKIP_BYTES):
        size += len(rest)
        if rest.endswith(b"\n"):
            break
    return BadRecord(f"longer than {max_bytes:,} bytes ({size:,})", place, raw)


def _refuse_other_layout(first: Record | BadRecord, name: str) -> None:
    if isinstance(first, Record):
        return
    if first.raw.lstrip().startswith("["):
        raise SourceError(
            f"{name} is one JSON array, not an object per line",
            f"Convert it: jq -c '.[]' {name} > documents.jsonl",
        )
    raise SourceError(
        f"{name} was read as JSON lines, but its first line is {first.reason}",
        f"Name files .jsonl, .csv, .tsv or .parquet. JSON spread over lines is converted by: jq -c . {name}",
    )


def raw_text(line: bytes) -> str:
    """The text of what could not be read, for its dead letter; ``encode`` with "surrogateescape" gives the bytes."""
    return line[: RAW_BYTES + 1].decode("utf-8", "surrogateescape").rstrip("\r\n")


def _cut(name: str, position: str, error: BaseException) -> SourceError:
    return SourceError(
        f"{name} cannot be read on from {position}: {error}",
        "The file is cut or damaged. Fetch or write it again; what was read before that place is complete.",
    )


class _CsvLines:
    """The lines of a CSV file for ``csv.reader``, and what it does not tell: the row's text, faults, the end."""

    def __init__(self, stream: io.BufferedReader, name: str, max_bytes: int) -> None:
        self.stream, self.name, self.max_bytes = stream, name, max_bytes
        self.parts: list[bytes] = []
        self.row_bytes = self.number = 0
        self.fault = ""
        self.ended = False

    def start_row(self) -> int:
        """Forget the row before; return the line (from 1) where the next one starts."""
        self.parts.clear()
        self.row_bytes, self.fault = 0, ""
        return self.number + 1

    def __iter__(self) -> _CsvLines:
        return self

    def __next__(self) -> str:
        line = self.stream.readline(self.max_bytes + 1)
        if not line:
            self.ended = True
            raise StopIteration
        self.number += 1
        if self.number == 1:
            line = line.removeprefix(_BOM)
        self.parts.append(line)
        self.row_bytes += len(line)
        if self.row_bytes > self.max_bytes:
            start = self.number - len(self.parts) + 1
            raise SourceError(
                f"{self.name}:{start}: the row that starts here is longer than {self.max_bytes:,} bytes",
                "Most often a quote is opened there and never closed. Where rows begin after it cannot be known.",
            )
        try:
            return line.decode()
        except UnicodeDecodeError as bad:
            self.fault = f"not UTF-8 (byte {bad.start} of line {self.number} is 0x{line[bad.start]:02x})"
            return line.decode("utf-8", "replace")

    def bad(self, reason: str, start: int) -> BadRecord:
        return BadRecord(reason, f"{self.name}:{start}", raw_text(b"".join(self.parts)))


def read_csv(stream: io.BufferedReader, name: str, *, delimiter: str, max_bytes: int) -> Iterator[Record | BadRecord]:
    """Rows under a header line, quoted as spreadsheets and pandas write them; place is the line where the row starts.

    An empty cell is an absent field. A column's type is decided by the first 1,000 rows: integers (without leading
    zeros or ``+``, within 64 bits), numbers, ``true``/``false``, else strings. A later cell of another type stays a
    string.
    """
    # The csv module has one limit per process. It is only ever raised and never set back: setting it back could fail a
    # row that another thread is reading. What bounds memory here is the length of a row.
    csv.field_size_limit(max(csv.field_size_limit(), max_bytes))
    lines = _CsvLines(stream, name, max_bytes)
    rows = _csv_rows(lines, delimiter)
    try:
        header = _csv_header(next(rows, None), name)
        checked = (_of_width(lines, row, len(header)) for row in rows)
        sample = list(_sample(checked, max_bytes))
        converters = [_column_type([row[1][i] for row in sample if isinstance(row, tuple)]) for i in range(len(header))]
        for row in chain(sample, checked):
            if isinstance(row, BadRecord):
                yield row
                continue
            cells = zip(header, converters, row[1], strict=True)
            yield Record({key: convert(cell) for key, convert, cell in cells if cell}, f"{name}:{row[0]}")
    except _CUT as error:
        raise _cut(name, f"line {lines.number + 1}", error) from error


_Row = tuple[int, list[str]]


def _csv_rows(lines: _CsvLines, delimiter: str) -> Iterator[_Row | BadRecord]:
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        start = lines.start_row()
        try:
            cells = next(reader, None)
        except csv.Error as error:
            if lines.ended:
                raise SourceError(
                    f"{lines.name} ends inside a quoted cell of the row that starts at line {start}",
                    "The file is cut, or a quote is opened there and never closed: rows may be hidden in that cell.",
                ) from error
            yield lines.bad(f"not CSV ({error})", start)
            continue
        if cells is None:
            return
        if lines.fault:
            yield lines.bad(lines.fault, start)
        elif cells:
            yield start, cells


def _csv_header(row: _Row | BadRecord | None, name: str) -> list[str]:
    remedy = "The first line must name the columns, each once."
    if row is None:
        raise SourceError(f"{name} has no header line", remedy)
    if isinstance(row, BadRecord):
        raise SourceError(f"{row.place}: the header line is {row.reason}", remedy)
    header = row[1]
    for column, title in enumerate(header, 1):
        if not title.strip():
            raise SourceError(f"{name}:{row[0]}: column {column} of {len(header)} has no name", remedy)
        if title in header[: column - 1]:
            raise SourceError(f"{name}:{row[0]}: two columns are named {title!r}", remedy)
    return header


def _of_width(lines: _CsvLines, row: _Row | BadRecord, width: int) -> _Row | BadRecord:
    if isinstance(row, BadRecord) or len(row[1]) == width:
        return row
    return lines.bad(f"the row has {len(row[1])} cells where the header has {width}", row[0])


def _sample(rows: Iterator[_Row | BadRecord], max_bytes: int) -> Iterator[_Row | BadRecord]:
    size = 0
    for row in islice(rows, CSV_SAMPLE_ROWS):
        yield row
        size += sum(map(len, row[1])) if isinstance(row, tuple) else len(row.raw)
        if size > max_bytes:
            return


def _column_type(cells: list[str]) -> Callable[[str], Any]:
    given = [cell for cell in cells if cell]
    for convert in (_integer, _number, _boolean):
        if given and not any(isinstance(convert(cell), str) for cell in given):
            return convert
    return str


def _integer(cell: str) -> int | str:
    if re.fullmatch(r"-?[1-9][0-9]{0,18}|0", cell, re.ASCII) and -(2**63) <= int(cell) < 2**63:
        return int(cell)
    return cell


def _number(cell: str) -> float | str:
    form = re.fullmatch(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?", cell, re.ASCII)
    if form is None:
        return cell
    value = float(cell)
    # A whole number that a double cannot hold exactly would be changed by becoming one.
    changed = form.lastindex is None and abs(value) > 2**53
    return value if math.isfinite(value) and not changed else cell


def _boolean(cell: str) -> bool | str:
    known = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
    return known.get(cell, cell)
