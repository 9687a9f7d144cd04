"""The file of records that were not indexed, each with its reason, so that they can be mended and indexed again."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import FileIO
from itertools import islice
from pathlib import Path
from tempfile import NamedTemporaryFile
from types import TracebackType
from typing import IO, Any

import orjson

from esvector.errors import IndexingError, SourceError
from esvector.index.formats import RAW_BYTES, json_fault, load_any_json, load_json, raw_text
from esvector.index.json_values import show, unshow
from esvector.types import BadRecord, DeadLetter, Record

__all__ = ["MAX_RECORD_BYTES", "DeadLetterFile", "DeadLetters", "letter_line", "reason_kind"]

MAX_RECORD_BYTES = RAW_BYTES
"""A longer record is cut in the file, and ``note`` says so; the whole of it is where ``place`` says."""

MAX_KINDS = 100
OTHER = "other reasons"

LOOKED_AT = 100
"""Lines among which a file of dead letters has one that is whole."""

_log = logging.getLogger(__name__)
_KEYS = frozenset({"id", "place", "number", "reason", "record"})


class DeadLetterFile:
    """JSON lines ``{"id", "place", "number", "reason", "record"}``, one per record that was not indexed.

    The file is made at the first letter: no letters, no file. One that exists is left alone and a number is added
    (``papers.dead.1.jsonl``), because the letters of an earlier run may be the only trace of its records. Each letter
    is handed to the system before ``write`` returns; when the file is closed they are in the order of the input. Safe
    between threads.

    ``record`` are the fields as they were read, so that ``DeadLetters`` gives what the source gave; or the text of what
    could not be read. ``place`` is where that was, and stays so when a letter is retried and refused again. ``number``
    is that of the record in the input, from 1; 0 where it is of none. Three more keys are there where they are needed:
    ``id_apart`` (true) where no field says the id, which then counts as it stands in the letter; ``odd``, the tag of
    objects that stand for what JSON cannot hold (``show``); ``note`` where the record is cut.
    """

    def __init__(self, path: str | Path) -> None:
        self._wanted = Path(path)
        self._path: Path | None = None
        self._file: FileIO | None = None
        self._lock = threading.Lock()
        self._reasons: Counter[str] = Counter()
        self._last = 0
        self._in_order = True

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

        So does that of a line that was cut, at the end of the file. Raises IndexingError where it cannot be read or
        written.
        """
        path = Path(path)
        try:
            with path.open("rb") as old, _in_place_of(path) as new:
                for line in old:
                    if kept := self._kept(line, number):
                        new.write(kept)
            self._file = FileIO(path, "a")
        except FileNotFoundError:
            return  # somebody has dealt with it; later letters get a file of their own
        except OSError as error:
            raise self._failed(error) from error
        self._path = path

    def _kept(self, line: bytes, number: int) -> bytes:
        try:
            letter = _load(line)
            letter_number = int(letter["number"])
        except (ValueError, KeyError, TypeError):
            # A whole line that is no letter was one, until somebody changed it.
            if line.isspace() or not line.endswith(b"\n"):
                return b""
            self._count("a line that is no dead letter", self._last)
            return line
        if letter_number > number:
            return b""
        self._count(str(letter["reason"]), letter_number)
        return line.rstrip(b"\n") + b"\n"

    def write(self, letter: DeadLetter, number: int = 0) -> None:
        """Append one letter. Raises IndexingError where it cannot be written: a record is never dropped silently."""
        line = letter_line(letter, number)
        with self._lock:
            try:
                file = self._file or self._open()
                _write_all(file, line)
            except OSError as error:
                raise self._failed(error) from error
            self._count(letter.reason, number)

    def _count(self, reason: str, number: int) -> None:
        kind = reason_kind(reason)
        self._reasons[kind if kind in self._reasons or len(self._reasons) < MAX_KINDS else OTHER] += 1
        self._in_order &= number >= self._last
        self._last = number

    def _failed(self, error: OSError) -> IndexingError:
        return IndexingError(
            f"the dead letters cannot be written to {self._path or self._wanted}: {error.strerror or error}",
            "Make room or choose another file, then run the same command again.",
        )

    def close(self) -> None:
        """Put the letters into the order of the input and close the file; a later letter would begin another one."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None
                self._sort()

    def __enter__(self) -> DeadLetterFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _sort(self) -> None:
        """Of two records of one id the later one counts, also when both are retried."""
        path = self._path
        if self._in_order or path is None:
            return
        try:
            _sort_lines(path)
            self._in_order = True
        except OSError as error:
            _log.warning("the dead letters in %s are not in the order of the input: %s", path, error)

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

    Mended or not, each is the record that the source had: under the id that it had there, with the same fields, and
    with the vector that it brought in a field. An id that was made from the content is made anew, from the content as
    it is now: the mended source then gives the same document, and the old id was never in the index. What JSON cannot
    hold is refused again, for the same reason, until the object that stands for it is replaced. A vector that came out
    of an index is not in the file, because the text may be mended: it is encoded again.

    A BadRecord is what was cut in the file; what could not be read in the first place, and still cannot; and a line
    that is no dead letter, whose place is in this file. Raises SourceError for a file that is not there or has no dead
    letter among its first lines.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise SourceError(f"{path} is no file", "Name a file of dead letters that an earlier run has written.")

    def __iter__(self) -> Iterator[Record | BadRecord]:
        self._check()
        for number, line in self._lines():
            yield _record(line, f"{self.path}:{number}")

    def _check(self) -> None:
        first: int | None = None
        for number, line in islice(self._lines(), LOOKED_AT):
            first = first or number
            with suppress(ValueError):
                _load(line)
                return
        if first is not None:
            raise SourceError(
                f"{self.path}:{first} is no dead letter, nor is any of the next {LOOKED_AT} lines",
                "Name a file that an earlier run has written.",
            )

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        with self.path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                whole = line.removeprefix(_BOM) if number == 1 else line
                if not whole.isspace():
                    yield number, whole


_BOM = b"\xef\xbb\xbf"


def _record(line: bytes, place: str) -> Record | BadRecord:
    try:
        return _restored(_load(line), place)
    except (ValueError, RecursionError) as error:
        return BadRecord(f"not a dead letter: {_fault(line, error)}", place, raw_text(line))


def _load(line: bytes) -> dict[str, Any]:
    """The letter in a line. Raises ValueError where there is none."""
    try:
        letter = load_json(line)
    except ValueError:
        letter = load_any_json(line)
    if isinstance(letter, dict) and "reason" in letter and isinstance(letter.get("record"), dict | str):
        return letter
    raise ValueError(_NO_LETTER)


_NO_LETTER = "it has no 'reason', or no 'record' that is an object or a string"


def _fault(line: bytes, error: Exception) -> str:
    return _NO_LETTER if str(error) == _NO_LETTER else json_fault(line, error)


def _restored(letter: Mapping[str, Any], place: str) -> Record | BadRecord:
    record, where = letter["record"], str(letter.get("place") or place)
    id_ = None if letter.get("id") is None else str(letter["id"])
    if isinstance(record, dict):
        fields = unshow(record, str(letter["odd"])) if "odd" in letter else record
        return Record(fields, where, id_ if letter.get("id_apart") else None)
    if "note" in letter:
        return BadRecord(f"{letter['note']}: take the whole one from {where}", where, record, id_)
    try:
        found = load_json(record.encode("utf-8", "surrogateescape"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        return BadRecord(str(letter["reason"]), where, record, id_)
    if found.keys() >= _KEYS and isinstance(found["record"], dict | str):
        return _restored(found, where)  # a damaged line of a file of dead letters, mended in the next one
    return Record(found, where)


def _write_all(file: FileIO, line: bytes) -> None:
    # Unbuffered, so one call may write a part: what is left follows, or the disk is full and the next call says so.
    rest = memoryview(line)
    while rest:
        rest = rest[file.write(rest) :]


def _sort_lines(path: Path) -> None:
    """Put the lines of a file of dead letters into the order of the input."""
    lines: list[tuple[int, int, int]] = []
    number = start = 0
    with path.open("rb") as old:
        for line in old:
            with suppress(ValueError, KeyError, TypeError):
                number = int(_load(line)["number"])
            lines.append((number, start, len(line)))
            start += len(line)
        lines.sort()
        with _in_place_of(path) as new:
            for _, start, length in lines:
                old.seek(start)
                new.write(old.read(length))


@contextmanager
def _in_place_of(path: Path) -> Iterator[IO[bytes]]:
    """A new file that takes the place of ``path``, with its mode, when the block ends well."""
    with NamedTemporaryFile(dir=path.parent, prefix=f"{path.name}.", delete=False) as new:
        try:
            yield new
            shutil.copymode(path, new.name)
            os.replace(new.name, path)
        except BaseException:
            os.unlink(new.name)
            raise


def letter_line(letter: DeadLetter, number: int) -> bytes:
    """The line of a letter in the file, whatever is in its record."""
    written: dict[str, Any] = {"id": letter.id, "place": letter.place, "number": number, "reason": letter.reason}
    if letter.id_apart:
        written["id_apart"] = True
    record: Mapping[str, Any] | str = letter.record
    if not isinstance(record, str):
        record, tag = show(record)
        if tag is not None:
            written["odd"] = tag
    line = _json({**written, "record": record})
    if len(line) <= MAX_RECORD_BYTES:
        return line
    whole = record if isinstance(record, str) else _json(record).decode().rstrip("\n")
    encoded = whole.encode("utf-8", "surrogatepass")
    if len(encoded) <= MAX_RECORD_BYTES:
        return line
    written["note"] = f"the record is cut: it has {len(whole):,} characters as JSON"
    return _json({**written, "record": encoded[:MAX_RECORD_BYTES].decode("utf-8", "ignore")})


def _json(value: Mapping[str, Any]) -> bytes:
    """One line of JSON; texts other than those of the record's fields may have half a surrogate pair."""
    try:
        return orjson.dumps(value, default=repr, option=orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError:
        return json.dumps(value, default=repr).encode() + b"\n"


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
