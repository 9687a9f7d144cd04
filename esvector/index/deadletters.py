"""The file of records that were not indexed, each with its reason, so that they can be mended and indexed again."""

from __future__ import annotations

import json
import math
import re
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

from esvector.errors import IndexingError, SourceError
from esvector.types import BadRecord, DeadLetter, Record

__all__ = ["MAX_RECORD_BYTES", "DeadLetterFile", "DeadLetters", "reason_kind"]

MAX_RECORD_BYTES = 1_000_000
"""A longer record is cut in the file; the whole of it is where ``place`` says."""

MAX_KINDS = 100
OTHER = "other reasons"


class DeadLetterFile:
    """JSON lines ``{"id", "place", "number", "reason", "record"}``, one per record that was not indexed.

    The file is made at the first letter: no letters, no file. One that exists is left alone and a number is added
    (``papers.dead.1.jsonl``), because the letters of an earlier run may be the only trace of its records. Each letter
    is handed to the system before ``write`` returns. Of a record its fields are written, which have no vector. Safe
    between threads. ``number`` is that of the record in the input, from 1; 0 where it is of none.
    """

    def __init__(self, path: str | Path) -> None:
        self._wanted = Path(path)
        self._path: Path | None = None
        self._file: FileIO | None = None
        self._lock = threading.Lock()
        self._reasons: Counter[str] = Counter()

    @property
    def path(self) -> Path | None:
        """The file that was written, None while there was no letter."""
        return self._path

    @property
    def count(self) -> int:
        """Letters written."""
        return self._reasons.total()

    @property
    def reasons(self) -> dict[str, int]:
        """Letters by kind of reason, the most frequent first; at most 100 kinds and then one for all others."""
        with self._lock:
            return dict(self._reasons.most_common())

    def resume(self, path: str | Path, number: int) -> None:
        """Go on with the file of an interrupted run, without the letters of records after ``number``: they come again.

        Raises IndexingError where it cannot be read or written.
        """
        path = Path(path)
        try:
            kept = [line for line in path.read_bytes().splitlines(keepends=True) if _number(line) <= number]
            shorter = path.with_name(path.name + ".new")
            shorter.write_bytes(b"".join(kept))
            shorter.replace(path)
            self._file = FileIO(path, "a")
        except FileNotFoundError:
            return  # somebody has dealt with it; later letters get a file of their own
        except OSError as error:
            raise self._failed(error) from error
        self._path = path
        for line in kept:
            self._count(str(orjson.loads(line)["reason"]))

    def write(self, letter: DeadLetter, number: int = 0) -> None:
        """Append one letter. Raises IndexingError where it cannot be written: a record is never dropped silently."""
        line = _line(letter, number)
        with self._lock:
            try:
                file = self._file or self._open()
                _write_all(file, line)
            except OSError as error:
                raise self._failed(error) from error
            self._count(letter.reason)

    def _count(self, reason: str) -> None:
        kind = reason_kind(reason)
        self._reasons[kind if kind in self._reasons or len(self._reasons) < MAX_KINDS else OTHER] += 1

    def _failed(self, error: OSError) -> IndexingError:
        return IndexingError(
            f"the dead letters cannot be written to {self._path or self._wanted}: {error.strerror or error}",
            "Make room or choose another file, then run the same command again.",
        )

    def close(self) -> None:
        """Close the file; a later letter would begin another one."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def __enter__(self) -> DeadLetterFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> FileIO:
        number = 0
        while True:
            path = self._wanted if number == 0 else self._wanted.with_suffix(f".{number}{self._wanted.suffix}")
            try:
                # "x" makes the file or fails, so that two runs at the same time cannot share one.
                self._file = FileIO(path, "x")
            except FileExistsError:
                number += 1
                continue
            self._path = path
            return self._file


class DeadLetters:
    """The records of a dead-letter file, to be indexed again, once what they were refused for is mended.

    A record that was cut in the file, or could not be read in the first place and still cannot, is a BadRecord. Raises
    SourceError for a file that is not there or holds something else.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise SourceError(f"{path} is no file", "Name a file of dead letters that an earlier run has written.")

    def __iter__(self) -> Iterator[Record | BadRecord]:
        with self.path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                yield _record(line, f"{self.path}:{number}")


def _record(line: bytes, place: str) -> Record | BadRecord:
    try:
        letter = orjson.loads(line)
        record, note = letter["record"], letter.get("note")
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{place} is no dead letter", "Name a file that an earlier run has written.") from error
    if note is not None:
        return BadRecord(f"{note}: take the whole one from {letter.get('place')}", place, str(record))
    if isinstance(record, str):
        try:
            record = orjson.loads(record)
        except ValueError:
            return BadRecord(str(letter.get("reason", "not readable")), place, str(record))
    if not isinstance(record, dict):
        return BadRecord("not a JSON object", place, str(record))
    return Record(record, place)


def _write_all(file: FileIO, line: bytes) -> None:
    # Unbuffered, so one call may write a part: what is left follows, or the disk is full and the next call says so.
    rest = memoryview(line)
    while rest:
        rest = rest[file.write(rest) :]


def _number(line: bytes) -> float:
    """The number in a line; one that was cut in the middle is of no record that counts."""
    try:
        return int(orjson.loads(line)["number"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def _line(letter: DeadLetter, number: int) -> bytes:
    written: dict[str, Any] = {"id": letter.id, "place": letter.place, "number": number, "reason": letter.reason}
    record = letter.record if isinstance(letter.record, str) else dict(letter.record)
    line = _json({**written, "record": record})
    if len(line) <= MAX_RECORD_BYTES:
        return line
    whole = record if isinstance(record, str) else _json(record).decode()
    written["record"] = whole.encode("utf-8", "replace")[:MAX_RECORD_BYTES].decode("utf-8", "ignore")
    written["note"] = f"the record is cut: it has {len(whole):,} characters as JSON"
    return _json(written)


def _json(value: Mapping[str, Any]) -> bytes:
    """One line of JSON whatever is in it: a letter is often one because its record has no JSON."""
    try:
        return orjson.dumps(value, default=repr, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY)
    except orjson.JSONEncodeError:
        pass
    try:
        return json.dumps(value, default=repr).encode() + b"\n"
    except (TypeError, ValueError, RecursionError):
        kept = {key: item for key, item in value.items() if key in ("id", "place", "number", "reason")}
        return json.dumps({**kept, "record": _repr(value.get("record", value))}).encode() + b"\n"


def _repr(value: object) -> str:
    try:
        return repr(value)
    except (RecursionError, ValueError):  # ValueError: an integer of more than 4,300 digits
        return "it cannot be written"


_POSITION = re.compile(r"\[\d+:\d+\] ?")
_TAIL = re.compile(r"( in document with id |\. Preview of field's value|;).*|\n.*", re.DOTALL)
_ASIDE = re.compile(r" ?\([^()]*\)")
_NUMBER = re.compile(r"(?<![\w'])-?\d[\d.,]*\b(?!')")


def reason_kind(reason: str) -> str:
    """The reason without what differs from record to record, so that letters can be counted by it.

    Positions, numbers, what stands in parentheses or after a semicolon, and Elasticsearch's id and preview of the value
    go; the field stays: ``[1:27] failed to parse field [year] of type [integer] in document with id '9'`` counts as
    ``failed to parse field [year] of type [integer]``.
    """
    kind = _TAIL.sub("", _POSITION.sub("", reason))
    kind = _NUMBER.sub("N", _ASIDE.sub("", kind)).strip()
    return kind[:160] or "no reason given"
