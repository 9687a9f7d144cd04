"""Records to documents: which id, which text, which fields, and why a record cannot be one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from esvector.index.json_values import Refused, plain_fields
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
    id field is. An id that a Record has beside its fields comes before them all.

    Fields: what JSON holds. None is the same as absent; dates, times, UUIDs, enums and numpy values become what JSON
    has for them; other values, NaN, infinity and integers outside 64 bits are refused by name, and so are the names in
    ``reserved`` (where the vector goes) and those that Elasticsearch refuses. A record of the BEIR layout (``_id`` and
    a ``metadata`` object) has its metadata as fields of its own.

    A document, like a dead letter, keeps the record: prepared again it is the same document.
    """
    if isinstance(record, BadRecord):
        return DeadLetter(record.id, record.place, record.reason, record.raw)
    apart = record.id is not None
    read = record.fields
    if record.vector is not None and given is not None and read.get(given) is None:
        read = {**read, given: record.vector}
    try:
        read_plain = fields = plain_fields(read)
        given_id = None
        if not apart and "_id" in fields:
            fields = dict(fields)
            given_id = fields.pop("_id")
            if isinstance(metadata := fields.get("metadata"), dict):
                fields = _flatten(fields, metadata)
        vector = record.vector
        if given is not None:
            fields, vector = _take_vector(fields, given)
            if given in read_plain:  # not so where it is part of a metadata object
                read_plain = {**read_plain, given: vector}
        _check_names(tuple(fields), reserved)
        title, text = _title_and_text(
            fields, text_fields, separator if not title_apart else None, as_written=as_written
        )
        if not text and vector is None and not empty_allowed:
            raise _no_text(fields, text_fields)
        id_ = _checked_id(record.id, "of the record") if apart else _document_id(fields, given_id, id_field)
        return Document(id_, text, fields, record.place, title, vector, read_plain, apart)
    except Refused as refused:
        id_known = record.id if apart else _known_id(record.fields, id_field)
        return DeadLetter(id_known, record.place, str(refused), read, apart)


def _flatten(fields: dict[str, Any], metadata: dict[str, Any]) -> dict[str, Any]:
    del fields["metadata"]
    for name, value in metadata.items():
        if value is None:
            continue
        if fields.setdefault(name, value) != value:
            raise Refused(
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
            raise Refused(f"field {name!r} is one that esvector writes itself; rename it")
        raise Refused(f"field {name!r} is where the vector goes; rename it, or choose another with --vector-field")
    for name in names:
        # Nearly every name is an identifier, and Elasticsearch takes all of those without an underscore in front.
        if name[:1] == "_" or not name.isidentifier():
            _check_name(name)


def _check_name(name: str) -> None:
    """Refuse what Elasticsearch refuses as the name of a field at the top of a document."""
    if name in METADATA_FIELDS:
        raise Refused(f"field {name!r} has the name of an Elasticsearch metadata field; rename it")
    # A name with dots is a path to it. Deeper names are not checked: in a flattened or disabled object any is good.
    if not all(part.strip() for part in name.split(".")):
        raise Refused(f"field {name!r} has a name that Elasticsearch refuses (empty, blank, or dots without a name)")


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


def _no_text(fields: dict[str, Any], text_fields: tuple[str, ...]) -> Refused:
    wanted, present = ", ".join(map(repr, text_fields)), ", ".join(map(repr, list(fields)[:12]))
    return Refused(f"no text: none of {wanted} has any; name a field with --text FIELD (there are: {present:.300})")


def _take_vector(fields: dict[str, Any], name: str) -> tuple[dict[str, Any], NDArray[np.float32]]:
    """The other fields, and the vector: it is stored in the vector field only."""
    value = fields.get(name)
    if not isinstance(value, list) or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in value):
        raise Refused(f"field {name!r} is {'absent' if value is None else 'no list of numbers'}, and holds the vector")
    with np.errstate(over="ignore"):
        vector = np.asarray(value, np.float32)
    if not np.isfinite(vector).all():
        raise Refused(f"field {name!r} has numbers that no float32 holds")
    return {key: kept for key, kept in fields.items() if key != name}, vector


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Refused(f"field {name!r} is a {_word(value)}, not a string")
    return value.strip()


def _word(value: object) -> str:
    return {dict: "object", float: "number", int: "number", bool: "boolean"}.get(type(value), type(value).__name__)


def _document_id(fields: dict[str, Any], given: object, id_field: str | None) -> str:
    if id_field is not None:
        name, value = id_field, given if id_field == "_id" else fields.get(id_field)
        if value is None:
            raise Refused(f"no id: there is no field {id_field!r}")
    else:
        name, value = ("_id", given) if given is not None else ("id", fields.get("id"))
        if value is None:
            return hashlib.sha256(orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]
    return _checked_id(value, f"in {name!r}")


def _checked_id(value: object, where: str) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise Refused(f"the id {where} is a {_word(value)}, not a string or an integer ({_short(value)})")
    if not value:
        raise Refused(f"the id {where} is empty")
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        raise Refused(
            f"the id {where} has half of a surrogate pair, which UTF-8 cannot hold ({_short(value)})"
        ) from error
    if size > MAX_ID_BYTES:
        raise Refused(f"the id {where} is longer than {MAX_ID_BYTES} bytes ({size})")
    return value


def _known_id(fields: Mapping[str, Any], id_field: str | None) -> str | None:
    """The id that a refused record claims, for its dead letter; None where no document can have it."""
    for name in ("_id", "id") if id_field is None else (id_field,):
        with suppress(Refused):
            value = plain_fields({name: fields.get(name)}).get(name)
            if isinstance(value, str | int) and not isinstance(value, bool):
                return str(value)
    return None
