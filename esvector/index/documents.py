"""Records to documents: which id, which text, which fields, and why a record cannot be one."""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Mapping
from datetime import date, time
from enum import Enum
from functools import lru_cache
from typing import Any
from uuid import UUID

import numpy as np
import orjson
from numpy.typing import NDArray

from esvector.passport import HASH_FIELD
from esvector.types import BadRecord, DeadLetter, Document, Record

__all__ = ["MAX_ID_BYTES", "TEXT_FIELDS", "prepare"]

TEXT_FIELDS = ("title", "text")
MAX_ID_BYTES = 512
"""Elasticsearch refuses a longer id, and with it the whole bulk request that holds it (elasticsearch issue 54549)."""

# Metadata fields of Elasticsearch 8 and 9, which it refuses inside a document. ``_doc_count`` is one that it takes.
METADATA_FIELDS = frozenset(
    {
        "_data_stream_timestamp",
        "_feature",
        "_field_names",
        "_id",
        "_ignored",
        "_ignored_source",
        "_index",
        "_inference_fields",
        "_nested_path",
        "_primary_term",
        "_routing",
        "_routing_hash",
        "_seq_no",
        "_size",
        "_source",
        "_tier",
        "_tsid",
        "_type",
        "_version",
    }
)
# orjson writes no deeper; Elasticsearch's own limit on fields (20) is lower unless the mapping says otherwise.
MAX_DEPTH = 250
# Dates become strings here, so that every reader of ``fields`` sees the same ones.
_STRICT = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS

_HARMLESS = frozenset({str, int, bool, type(None)})


class _Refused(Exception):
    """Why a record cannot be a document."""


def prepare(
    record: Record | BadRecord,
    *,
    text_fields: tuple[str, ...] = TEXT_FIELDS,
    id_field: str | None = None,
    reserved: frozenset[str] = frozenset(),
    separator: str = " ",
    title_apart: bool = False,
    as_written: bool = False,
    given: str | None = None,
    empty_allowed: bool = False,
) -> Document | DeadLetter:
    """The document of a record, or the dead letter that says why there is none. Pure; a BadRecord gives its own reason.

    Text: that of the ``text_fields`` which have any, in their order; the first of several is the title. ``separator``
    joins it and the rest, which is joined by one space; ``title_apart`` keeps it apart, for prompts that name it. White
    space around a text is left out; not so with ``as_written``, so that offsets in a text that is one field's are
    offsets in the field. Only a document that brings its own vector, in the field ``given``, may have no text, unless
    ``empty_allowed``.

    Id: the value of ``id_field`` where one is named, else of ``_id``, else of ``id`` (strings or integers, up to 512
    bytes), else made from the content, so that the same record has the same id in every run. ``_id`` is not stored, an
    id field is.

    Fields: what ``orjson.dumps`` writes without an option. None is the same as absent; dates, times, UUIDs, enums and
    numpy values become what JSON has for them; other values, NaN, infinity and integers outside 64 bits are refused by
    name, and so are the names in ``reserved`` (where the vector goes) and those that Elasticsearch refuses. A record of
    the BEIR layout (``_id`` and a ``metadata`` object) has its metadata as fields of its own.
    """
    if isinstance(record, BadRecord):
        return DeadLetter(None, record.place, record.reason, record.raw)
    try:
        fields = _plain_fields(record.fields)
        given_id = fields.pop("_id", None) if record.id is None else None
        if given_id is not None and isinstance(metadata := fields.get("metadata"), dict):
            fields = _flatten(fields, metadata)
        _check_names(tuple(fields), reserved)
        vector = record.vector
        if vector is None and given is not None:
            vector = _vector(fields, given)
        title, text = _title_and_text(
            fields, text_fields, separator if not title_apart else None, as_written=as_written
        )
        if not text and vector is None and not empty_allowed:
            raise _no_text(fields, text_fields)
        id_ = record.id if record.id is not None else _document_id(fields, given_id, id_field)
        return Document(id_, text, fields, record.place, title, vector)
    except _Refused as refused:
        id_known = record.id if record.id is not None else _known_id(record.fields, id_field)
        return DeadLetter(id_known, record.place, str(refused), record.fields)


def _plain_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of ``fields`` that is plain JSON, without those that are None."""
    try:
        # orjson finds all that is no JSON but NaN and infinity, which it writes as null: only then is a search needed.
        if b"null" not in orjson.dumps(fields, option=_STRICT):
            return dict(fields)
        if not _has_non_finite(fields):
            return {key: value for key, value in fields.items() if value is not None}
    except orjson.JSONEncodeError:
        pass
    plain = {_key(key, ""): _plain(value, str(key), 1) for key, value in fields.items() if value is not None}
    try:
        orjson.dumps(plain, option=_STRICT)
    except orjson.JSONEncodeError as error:
        raise _Refused(f"the record cannot be written as JSON ({error})") from error
    return plain


def _has_non_finite(value: object) -> bool:
    """Whether NaN or infinity stands anywhere in plain JSON."""
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list | tuple):
        return False
    return not _HARMLESS.issuperset(map(type, value)) and any(map(_has_non_finite, value))


def _key(key: object, path: str) -> str:
    if not isinstance(key, str):
        inside = f" in {path!r}" if path else ""
        raise _Refused(f"a field name{inside} is a {type(key).__name__}, not a string")
    return _string(str(key), str(key))


def _string(value: str, path: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as bad:
        raise _Refused(
            f"field {path!r} has half of a surrogate pair, which UTF-8 cannot hold "
            f"(U+{ord(value[bad.start]):04X} at character {bad.start})"
        ) from bad
    return value


def _plain(value: object, path: str, depth: int) -> object:
    """``value`` as JSON has it; ``path`` is its field, for the message."""
    if depth > MAX_DEPTH:
        raise _Refused(f"field {path.split('.')[0]!r} is nested deeper than {MAX_DEPTH} levels")
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
            raise _Refused(f"field {path!r} is an integer outside 64 bits; write it as a string")
        return int(value)
    if not math.isfinite(value):
        raise _Refused(f"field {path!r} is {float(value)}, which JSON has no word for")
    return float(value)


def _from_python(value: object, path: str, depth: int) -> object:
    if isinstance(value, date | time):
        written = value.isoformat()
        if written != "NaT":  # how pandas writes a missing date, which claims to be one
            return written
    if isinstance(value, UUID):
        return str(value)
    # A numpy value can only be here when numpy is loaded, and is not worth loading it for.
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic | numpy.ndarray) and value.dtype.kind in "biufU":
        return _plain(value.tolist(), path, depth)
    if numpy is not None and isinstance(value, numpy.datetime64) and not numpy.isnat(value):
        return str(value)
    raise _Refused(f"field {path!r} is a {type(value).__name__}, which JSON has no word for")


def _flatten(fields: dict[str, Any], metadata: dict[str, Any]) -> dict[str, Any]:
    del fields["metadata"]
    for name, value in metadata.items():
        if value is None:
            continue
        if fields.setdefault(name, value) != value:
            raise _Refused(
                f"field {name!r} has two values, its own and another in 'metadata' "
                f"({_short(fields[name])}, {_short(value)})"
            )
    return fields


def _short(value: object) -> str:
    return f"{value!r:.60}"


@lru_cache(256)  # most records have the names of the one before
def _check_names(names: tuple[str, ...], reserved: frozenset[str]) -> None:
    if not reserved.isdisjoint(names):
        name = min(reserved.intersection(names))
        if name == HASH_FIELD:
            raise _Refused(f"field {name!r} is one that esvector writes itself; rename it")
        raise _Refused(f"field {name!r} is where the vector goes; rename it, or choose another with --vector-field")
    for name in names:
        # Nearly every name is an identifier, and Elasticsearch takes all of those without an underscore in front.
        if name[:1] == "_" or not name.isidentifier():
            _check_name(name)


def _check_name(name: str) -> None:
    """Refuse what Elasticsearch refuses as the name of a field at the top of a document."""
    if name in METADATA_FIELDS:
        raise _Refused(f"field {name!r} has the name of an Elasticsearch metadata field; rename it")
    # A name with dots is a path to it. Deeper names are not checked: in a flattened or disabled object any is good.
    if not all(part.strip() for part in name.split(".")):
        raise _Refused(f"field {name!r} has a name that Elasticsearch refuses (empty, blank, or dots without a name)")


def _title_and_text(
    fields: dict[str, Any], text_fields: tuple[str, ...], separator: str | None, *, as_written: bool
) -> tuple[str | None, str]:
    """The title, where it is kept apart (``separator`` is None), and the text."""
    texts = [fields[name] if as_written else text for name in text_fields if (text := _text(fields, name))]
    if len(texts) < 2:
        return None, "".join(texts)
    titled = bool(_text(fields, text_fields[0]))
    title, rest = (texts[0], texts[1:]) if titled else ("", texts)
    if separator is None:
        return title.strip() or None, " ".join(rest)
    return None, separator.join(part for part in (title, " ".join(rest)) if part)


def _no_text(fields: dict[str, Any], text_fields: tuple[str, ...]) -> _Refused:
    wanted, present = ", ".join(map(repr, text_fields)), ", ".join(map(repr, list(fields)[:12]))
    return _Refused(f"no text: none of {wanted} has any; name a field with --text FIELD (there are: {present:.300})")


def _vector(fields: dict[str, Any], name: str) -> NDArray[np.float32]:
    """Take the vector out of ``fields``: it is stored in the vector field only."""
    value = fields.pop(name, None)
    listed = isinstance(value, list | tuple)
    if not listed or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in value):
        raise _Refused(f"field {name!r} is {'absent' if value is None else 'no list of numbers'}, and holds the vector")
    with np.errstate(over="ignore"):
        vector = np.asarray(value, np.float32)
    if not np.isfinite(vector).all():
        raise _Refused(f"field {name!r} has numbers that no float32 holds")
    return vector


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _Refused(f"field {name!r} is a {_word(value)}, not a string")
    return value.strip()


def _word(value: object) -> str:
    return {dict: "object", float: "number", int: "number", bool: "boolean"}.get(type(value), type(value).__name__)


def _document_id(fields: dict[str, Any], given: object, id_field: str | None) -> str:
    if id_field is not None:
        name, value = id_field, given if id_field == "_id" else fields.get(id_field)
        if value is None:
            raise _Refused(f"no id: there is no field {id_field!r}")
    else:
        name, value = ("_id", given) if given is not None else ("id", fields.get("id"))
        if value is None:
            return hashlib.sha256(orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise _Refused(f"the id in {name!r} is a {_word(value)}, not a string or an integer ({_short(value)})")
    if not value:
        raise _Refused(f"the id in {name!r} is empty")
    if len(value) > MAX_ID_BYTES // 4 and (size := len(value.encode())) > MAX_ID_BYTES:
        raise _Refused(f"the id in {name!r} is longer than {MAX_ID_BYTES} bytes ({size})")
    return value


def _known_id(fields: Mapping[str, Any], id_field: str | None) -> str | None:
    """The id that a refused record claims, for its dead letter."""
    for name in ("_id", "id") if id_field is None else (id_field,):
        value = fields.get(name)
        if isinstance(value, str | int) and not isinstance(value, bool):
            return str(value)
    return None
