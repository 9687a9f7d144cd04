"""Where records come from: files, standard input, or anything in Python that can be iterated over."""

from __future__ import annotations

import glob
import gzip
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from io import BufferedReader, FileIO, RawIOBase
from pathlib import Path
from typing import Any, BinaryIO

from esvector.errors import SourceError, require
from esvector.index.formats import RAW_BYTES, read_csv, read_jsonl
from esvector.index.parquet import read_parquet
from esvector.types import BadRecord, Record

__all__ = ["MAX_RECORD_BYTES", "Documents", "as_records", "read_documents"]

MAX_RECORD_BYTES = 64 * 2**20
"""The longest line of JSON, or row of CSV, that is read."""

_BUFFER_BYTES = 1 << 20
_GZIP = b"\x1f\x8b"
# What the first bytes of other data say, and what to do about it.
_FOREIGN = {
    b"PAR1\x15": ("Parquet data", "Name the file .parquet."),
    b"PK\x03\x04": ("a zip archive", "Unpack it first."),
    b"BZh": ("bzip2 data", "Unpack it: bzcat {name} | esvector index ... -"),
    b"\xfd7zXZ": ("xz data", "Unpack it: xzcat {name} | esvector index ... -"),
    b"\x28\xb5\x2f\xfd": ("zstd data", "Unpack it: zstdcat {name} | esvector index ... -"),
    b"\xff\xfe": ("UTF-16 text", "Convert it: iconv -f UTF-16 -t UTF-8 {name} > utf8-{name}"),
    b"\xfe\xff": ("UTF-16 text", "Convert it: iconv -f UTF-16 -t UTF-8 {name} > utf8-{name}"),
}
_HEAD_BYTES = 5
_JSON_LINES = (".jsonl", ".ndjson")
_DELIMITERS = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True, slots=True)
class _Input:
    """One file, or standard input where ``path`` is None; ``suffix`` tells the format and is in lower case."""

    name: str
    path: Path | None
    suffix: str
    gzipped: bool


class Documents(Iterator[Record | BadRecord]):
    """The records of several inputs, one after the other, and how far the reading has come."""

    def __init__(self, inputs: list[_Input], stdin: BinaryIO | None, max_record_bytes: int) -> None:
        self._inputs = inputs
        self._stdin = stdin
        self._max_record_bytes = max_record_bytes
        self._records = self._read()
        paths = [found.path for found in inputs]
        self._total = sum(path.stat().st_size for path in paths if path) if all(paths) else 0
        self._done = 0.0

    def __next__(self) -> Record | BadRecord:
        return next(self._records)

    def rewind(self) -> bool:
        """Begin anew with the first record; False, and nothing changed, where an input is no file but a pipe."""
        if not all(found.path is not None and found.path.is_file() for found in self._inputs):
            return False
        self._records = self._read()
        self._done = 0.0
        return True

    def _read(self) -> Iterator[Record | BadRecord]:
        for found in self._inputs:
            yield from _read(found, self._stdin, self._max_record_bytes, self._count)

    def share_read(self) -> float | None:
        """Share of the files that is read, 0 to 1 (up to a buffer of 1 MiB ahead); None where no size is known."""
        return min(1.0, self._done / self._total) if self._total else None

    def _count(self, size: float) -> None:
        self._done += size


def read_documents(
    *sources: str | Path, stdin: BinaryIO | None = None, max_record_bytes: int = MAX_RECORD_BYTES
) -> Documents:
    """Records of files, one after the other, read as they are asked for.

    A source is the path of a ``.jsonl``, ``.ndjson``, ``.csv``, ``.tsv`` (each may be gzipped) or ``.parquet`` file
    (extra ``parquet``), a glob pattern, whose matches are read in sorted order, or ``-`` for JSON lines on standard
    input. A file of another name is read as JSON lines. Strings are UTF-8. A null, or an empty cell, is the same as an
    absent field in every format. How each is read is said at its reader (``esvector.index.formats``, ``.parquet``).

    A record that cannot be read is yielded as a BadRecord. Raises SourceError at once for a source that is not there,
    and while reading for a file that is cut, damaged or of another format; MissingExtraError at once for Parquet
    without pyarrow.
    """
    if not sources:
        raise SourceError(
            "no source is given", "Name a file, a pattern such as 'data/*.jsonl', or - for standard input."
        )
    inputs = [found for source in sources for found in _find(str(source))]
    if sum(found.path is None for found in inputs) > 1:
        raise SourceError("standard input (-) is named twice", "It can be read only once.")
    if any(found.suffix == ".parquet" for found in inputs):
        require("parquet", "pyarrow")
    return Documents(inputs, stdin, max_record_bytes)


def as_records(items: Iterable[Any]) -> Iterator[Record | BadRecord]:
    """Records of anything that yields mappings; place is ``record 17``, from 1. Records pass through as they are.

    An item that is not a mapping is yielded as a BadRecord. Raises SourceError, at once, for a string or one mapping.
    """
    if isinstance(items, str | bytes | Path):
        raise SourceError(f"{str(items)!r} is not a collection of records", "Read a file with read_documents(...).")
    if isinstance(items, Mapping):
        raise SourceError("one mapping is given where many records are expected", "Put it in a list.")
    return (_as_record(item, f"record {number}") for number, item in enumerate(items, 1))


def _as_record(item: object, place: str) -> Record | BadRecord:
    if isinstance(item, (dict, Mapping)):  # the type first that nearly all are: asking for Mapping alone takes long
        return Record(item, place)
    if isinstance(item, Record | BadRecord):
        return item
    raw = item[: RAW_BYTES + 1] if isinstance(item, str) else ""
    return BadRecord(f"not a mapping of names to values but a {type(item).__name__}", place, raw)


def _find(source: str) -> list[_Input]:
    if source == "-":
        return [_Input("stdin", None, ".jsonl", gzipped=False)]
    if os.path.isdir(source):
        raise SourceError(f"{source} is a directory", f"Name the files in it, as in '{source.rstrip('/')}/*.jsonl'.")
    if os.path.exists(source):
        return [_input(source)]
    if not glob.has_magic(source):
        raise SourceError(f"no such file: {source}", f"Paths are read from {os.getcwd()}.")
    matches = sorted(match for match in glob.glob(source, recursive=True) if not os.path.isdir(match))
    if not matches:
        raise SourceError(
            f"no file matches {source}", f"Patterns are read from {os.getcwd()}; ** reaches subdirectories."
        )
    return [_input(match) for match in matches]


def _input(name: str) -> _Input:
    path = Path(name)
    gzipped = path.suffix.lower() == ".gz"
    suffix = (path.with_suffix("") if gzipped else path).suffix.lower()
    if gzipped and suffix == ".parquet":
        raise SourceError(f"{name}: Parquet cannot be read through gzip", f"Unpack it first: gunzip {name}")
    if not os.access(path, os.R_OK):
        raise SourceError(f"{name} may not be read", "Check the permissions of the file.")
    return _Input(name, path, suffix, gzipped)


def _read(
    found: _Input, stdin: BinaryIO | None, max_bytes: int, count: Callable[[float], None]
) -> Iterator[Record | BadRecord]:
    """Records of one input; ``count`` is told the bytes read of its file."""
    if found.suffix == ".parquet" and found.path is not None:
        yield from read_parquet(found.path, found.name, count)
        return
    with ExitStack() as stack:
        stream = _open(found, stdin, stack, count)
        if delimiter := _DELIMITERS.get(found.suffix):
            yield from read_csv(stream, found.name, delimiter=delimiter, max_bytes=max_bytes)
        else:
            any_json = found.suffix not in _JSON_LINES
            yield from read_jsonl(stream, found.name, any_json=any_json, max_bytes=max_bytes)


def _open(found: _Input, stdin: BinaryIO | None, stack: ExitStack, count: Callable[[float], None]) -> BufferedReader:
    """The bytes of an input, out of gzip where they begin like it; whatever was opened is closed by ``stack``."""
    try:
        if found.path is None:
            raw: BinaryIO | FileIO = stdin or _stdin()
        else:
            raw = stack.enter_context(FileIO(found.path))
        head = _head(raw)
    except OSError as error:
        raise SourceError(f"{found.name} cannot be read: {error.strerror or error}", "Check the file.") from error
    for magic, (what, remedy) in _FOREIGN.items():
        if head.startswith(magic):
            raise SourceError(f"{found.name} is {what}", remedy.format(name=found.name))
    stream: BufferedReader = stack.enter_context(BufferedReader(_Rejoined(head, raw, count), _BUFFER_BYTES))
    if head.startswith(_GZIP):
        unpacked = stack.enter_context(gzip.GzipFile(fileobj=stream, mode="rb"))
        # Through read1, which gives what it has: all whole lines before a cut are read before it is met.
        return stack.enter_context(BufferedReader(_Rejoined(b"", unpacked), _BUFFER_BYTES))
    if found.gzipped:
        what = "not gzip data" if head else "empty, not even an empty gzip file"
        raise SourceError(
            f"{found.name} is {what}", "Fetch or write it again; if it is plain text, name it without .gz."
        )
    return stream


def _stdin() -> BinaryIO | FileIO:
    """The bytes of stdin, not by way of ``sys.stdin``.

    That has a lock, which the interpreter needs at its end: it would abort (SIGABRT) where the reading thread of an
    interrupted run still waits for a pipe that gives nothing (3.11).
    """
    try:
        return FileIO(sys.stdin.fileno(), closefd=False)
    except (OSError, ValueError):  # it is no file, as under a test runner
        return sys.stdin.buffer


def _head(raw: BinaryIO | FileIO) -> bytes:
    head = b""
    # A pipe may give a single byte at first.
    while len(head) < _HEAD_BYTES and (more := raw.read(_HEAD_BYTES - len(head))):
        head += more
    return head


class _Rejoined(RawIOBase):
    """``head`` and then what is left of ``raw``: first bytes that were looked at are not lost, on a pipe either.

    Closing it does not close ``raw``. ``count`` is told the bytes of each piece.
    """

    def __init__(
        self, head: bytes, raw: BinaryIO | FileIO | gzip.GzipFile, count: Callable[[float], None] | None = None
    ) -> None:
        self._head = head
        self._count = count
        # read1 returns what a pipe has; read would wait until there is a whole buffer of it.
        self._read = getattr(raw, "read1", raw.read)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401  (any writable buffer; typeshed has no name in 3.11)
        data = self._head[: len(buffer)] or self._read(len(buffer))
        self._head = self._head[len(buffer) :]
        buffer[: len(data)] = data
        if self._count is not None:
            self._count(len(data))
        return len(data)
