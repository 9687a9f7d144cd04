"""Values as JSON has them: those of a record made plain, and what JSON cannot hold shown in its dead letter."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, time
from enum import Enum
from typing import Any
from uuid import UUID

import numpy as np
import orjson

__all__ = ["MAX_DEPTH", "Odd", "Refused", "plain_fields", "show", "unshow"]

# orjson writes no deeper; Elasticsearch's own limit on fields (20) is lower unless the mapping says otherwise.
MAX_DEPTH = 250
TAG = "not JSON"
_WIDEST = 8
# Dates become strings here, so that every reader of ``fields`` sees the same ones.
_STRICT = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS

_SCALARS = frozenset({str, int, float, bool, type(None)})
_PLAIN = _SCALARS | {list, dict}
_HARMLESS = _SCALARS - {float}


class Refused(Exception):
    """Why a record cannot be a document."""


@dataclass(frozen=True, slots=True)
class Odd:
    """In a record that was read from its dead letter: a value, or the name of a field, that JSON cannot hold.

    ``reason`` says why, and refuses the record again; ``shown`` is the text that stands for it in the file.
    """

    reason: str
    shown: str


def plain_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of ``fields`` that is plain JSON, without those that are None; Refused names what JSON cannot hold.

    What it returns is the same when it is written as JSON, read and made plain again.
    """
    if _is_json(fields):
        if None not in fields.values():
            return dict(fields)
        return {key: value for key, value in fields.items() if value is not None}
    plain = {_key(key, ""): _plain(value, str(key), 1) for key, value in fields.items() if value is not None}
    try:
        orjson.dumps(plain, option=_STRICT)
    except orjson.JSONEncodeError as error:
        raise Refused(f"the record cannot be written as JSON ({error})") from error
    return plain


def show(fields: Mapping[Any, Any]) -> tuple[Mapping[str, Any], str | None]:
    """``fields`` as JSON, whatever they hold, and the tag of what JSON cannot hold; None where it can hold it all.

    In place of such a value is ``{tag: why, "value": text}``, in place of such a name ``tag 1`` with ``{tag: why,
    "name": text, "value": ...}``. The tag begins no name of the record itself.
    """
    if _is_json(fields):
        return fields, None
    tag = TAG
    while True:
        showing = _Showing(tag)
        shown = showing.mapping(fields, "", 0)
        if not showing.odd:
            return shown, None
        if not showing.ambiguous:
            return shown, tag
        tag += "!"


def unshow(value: Any, tag: str) -> Any:  # noqa: ANN401  (JSON)
    """What ``show`` was given, in plain JSON, with an Odd for each value and name that it could only show."""
    if isinstance(value, list):
        return [unshow(inner, tag) for inner in value]
    if not isinstance(value, dict):
        return value
    if tag in value:
        return Odd(str(value[tag]), str(value.get("value", "")))
    return dict(_unshow_item(key, inner, tag) for key, inner in value.items())


def _unshow_item(key: str, value: Any, tag: str) -> tuple[str | Odd, Any]:  # noqa: ANN401
    if key.startswith(tag) and isinstance(value, dict) and tag in value:
        return Odd(str(value[tag]), str(value.get("name", ""))), unshow(value.get("value"), tag)
    return key, unshow(value, tag)


class _Showing:
    """One walk through a record: ``odd`` counts what JSON cannot hold; ``ambiguous`` is a tag that begins a name."""

    def __init__(self, tag: str) -> None:
        self._tag = tag
        self.odd = 0
        self.ambiguous = False

    def mapping(self, mapping: Mapping[Any, Any], path: str, depth: int) -> dict[str, Any]:
        shown: dict[str, Any] = {}
        for key, value in mapping.items():
            at = f"{path}.{_text(key)}" if depth else _text(key)
            entry = self._value(value, at, depth + 1) if depth else self._field(value, at)
            try:
                name = _key(key, path)
            except Refused as refused:
                self.odd += 1
                name, entry = (
                    f"{self._tag} {self.odd}",
                    {self._tag: str(refused), "name": _text(key), "value": entry},
                )
            else:
                self.ambiguous |= name.startswith(self._tag)
            shown[name] = entry
        return shown

    def _field(self, value: object, path: str) -> object:
        """A field at the top, which is not followed into its depth where it is refused for that: it may be endless."""
        try:
            return self._value(value, path, 1)
        except RecursionError:
            try:
                return _plain(value, path, 1)
            except Refused as refused:
                return self._stand_in(refused, value)

    def _value(self, value: object, path: str, depth: int) -> object:
        if depth > MAX_DEPTH:
            raise RecursionError
        if isinstance(value, Enum):
            return self._value(value.value, path, depth + 1)
        if isinstance(value, np.ndarray):
            value = _from_numpy(value)
        if isinstance(value, Mapping):
            return self.mapping(value, path, depth)
        if isinstance(value, list | tuple):
            return [self._value(inner, f"{path}[{i}]", depth + 1) for i, inner in enumerate(value)]
        try:
            return _plain(value, path, depth)
        except Refused as refused:
            return self._stand_in(refused, value)

    def _stand_in(self, refused: Refused, value: object) -> dict[str, str]:
        self.odd += 1
        return {self._tag: str(refused), "value": _text(value)}


def _text(value: object) -> str:
    """A text for people that UTF-8 can hold, whatever ``value`` is."""
    if isinstance(value, Odd):
        return value.shown
    try:
        written = str(value) if isinstance(value, str) else repr(value)
    except Exception:  # that of a user's own class may raise anything
        # Python writes no more than 4,300 decimal digits.
        written = hex(value) if isinstance(value, int) else "it cannot be written"
    return written.encode("utf-8", "backslashreplace").decode()


def _is_json(fields: Mapping[Any, Any]) -> bool:
    """Whether ``fields`` are just what a reader of JSON makes, so that nothing changes by writing and reading them."""
    try:
        written = orjson.dumps(fields, option=_STRICT)
    except orjson.JSONEncodeError:
        return False
    # orjson finds all that is no JSON but NaN and infinity, which it writes as null: only then is a search needed. It
    # also writes tuples, enums and UUIDs.
    return _has_plain_types(fields) and not (b"null" in written and _has_non_finite(fields))


def _has_plain_types(fields: Mapping[Any, Any]) -> bool:
    left: list[Iterable[object]] = [fields.values()]
    while left:
        values = left.pop()
        kinds = set(map(type, values))
        if kinds <= _SCALARS:
            continue
        if not kinds <= _PLAIN:
            return False
        for value in values:
            if isinstance(value, dict | list):
                left.append(value.values() if isinstance(value, dict) else value)
    return True


def _has_non_finite(value: object) -> bool:
    """Whether NaN or infinity stands anywhere in plain JSON."""
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        return False
    return not _HARMLESS.issuperset(map(type, value)) and any(map(_has_non_finite, value))


def _key(key: object, path: str) -> str:
    if isinstance(key, Odd):
        raise Refused(key.reason)
    if not isinstance(key, str):
        inside = f" in {path!r}" if path else ""
        raise Refused(f"a field name{inside} is a {type(key).__name__}, not a string")
    return _string(str(key), str(key))


def _string(value: str, path: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as bad:
        raise Refused(
            f"field {path!r} has half of a surrogate pair, which UTF-8 cannot hold "
            f"(U+{ord(value[bad.start]):04X} at character {bad.start})"
        ) from bad
    return value


def _plain(value: object, path: str, depth: int) -> object:
    """``value`` as JSON has it; ``path`` is its field, for the message."""
    if depth > MAX_DEPTH:
        raise Refused(f"field {path.split('.')[0]!r} is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        return {_key(key, path): _plain(inner, f"{path}.{key}", depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, f"{path}[{i}]", depth + 1) for i, inner in enumerate(value)]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return _plain(value.value, path, depth + 1)
    if isinstance(value, str):
        return _string(str(value), path)
    if isinstance(value, int | float):
        return _number(value, path)
    return _from_python(value, path, depth)


def _number(value: float, path: str) -> float:
    if isinstance(value, int):
        if not -(2**63) <= value < 2**64:
            raise Refused(f"field {path!r} is an integer outside 64 bits; write it as a string")
        return int(value)
    if not math.isfinite(value):
        raise Refused(f"field {path!r} is {float(value)}, which JSON has no word for")
    return float(value)


def _from_python(value: object, path: str, depth: int) -> object:
    if isinstance(value, Odd):
        raise Refused(value.reason)
    if isinstance(value, date | time):
        written = value.isoformat()
        if written != "NaT":  # how pandas writes a missing date, which claims to be one
            return written
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, np.datetime64) and not np.isnat(value):
        return str(value)
    if (listed := _from_numpy(value)) is not value:
        return listed if _is_finite(value) else _plain(listed, path, depth)
    raise Refused(f"field {path!r} is a {type(value).__name__}, which JSON has no word for")


def _from_numpy(value: object) -> object:
    """A scalar or an array of numpy as Python has it, where that is a number, a boolean or a string; else as it is."""
    # Python has no number of more than 8 bytes, and numpy gives such a one as it is.
    if isinstance(value, np.generic | np.ndarray) and value.dtype.kind in "biufU":
        listed: object = value.tolist() if value.dtype.kind == "U" or value.dtype.itemsize <= _WIDEST else value
        return listed
    return value


def _is_finite(value: object) -> bool:
    """Whether ``value`` is of numbers of numpy which JSON has all: no look at each is needed."""
    return isinstance(value, np.generic | np.ndarray) and value.dtype.kind != "U" and bool(np.isfinite(value).all())
