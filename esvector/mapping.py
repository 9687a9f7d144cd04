"""From a template and a passport to the settings and mappings of an index. Everything here is pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from esvector.client import Server
from esvector.errors import ConfigError
from esvector.passport import HASH_FIELD, PASSAGES_FIELD, Passport
from esvector.vectors import ElementType, check_element_type

__all__ = [
    "DEFAULT_INDEX_OPTIONS",
    "build_index_body",
    "find_vector",
    "infer_properties",
    "load_template",
    "parse_field_types",
    "serving_settings",
    "templated_element_type",
    "vector_property",
]

# Quantized to a byte per dimension for the walk through the graph, exact for the scores: without rescoring an
# int8 score is up to 1.2e-3 off (9.5.3).
DEFAULT_INDEX_OPTIONS: Mapping[str, Any] = {
    "type": "int8_hnsw",
    "m": 16,
    "ef_construction": 100,
    "rescore_vector": {"oversample": 2.0},
}
# Bytes are quantized already: Elasticsearch 9.5.3 takes only this graph and "flat" for them.
_BYTE_INDEX_OPTIONS: Mapping[str, Any] = {"type": "hnsw", "m": 16, "ef_construction": 100}

_SIMILARITY = {"cosine": "cosine", "dot": "max_inner_product"}
_ISO_DATE = re.compile(
    r"\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:\d{2})?| \d{2}:\d{2}(:\d{2})?)?"
)
_LONG = range(-(2**63), 2**63)
_MOST = 0.95  # share of a field's values that decides its type

# Longer strings stay in the document, but are too long to be a term of the inverted index (32,766 bytes).
_KEYWORD: Mapping[str, Any] = {"type": "keyword", "ignore_above": 8191}
_TEXT: Mapping[str, Any] = {"type": "text", "fields": {"keyword": {"type": "keyword", "ignore_above": 256}}}
_DATE: Mapping[str, Any] = {
    "type": "date",
    "format": "strict_date_optional_time||yyyy-MM-dd HH:mm:ss||yyyy-MM-dd HH:mm",
}
# Read in bulk by id, and never searched for.
_HASH: Mapping[str, Any] = {"type": "keyword", "index": False, "doc_values": True}
_LOADING = {"refresh_interval": "-1", "number_of_replicas": 0, "auto_expand_replicas": False}


def load_template(path: str | Path | None = None, *, passages: bool = False) -> dict[str, Any]:
    """Read a template, ``{"settings": ..., "mappings": ...}``; None is the shipped one, with ``passages`` or without.

    Raises ConfigError when the file is missing, no JSON object, or states what only the encoder decides.
    """
    path = Path(path) if path is not None else _shipped("passages.json" if passages else "documents.json")
    try:
        template = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"the mapping {path} cannot be read: {error.strerror}", "check --mapping") from error
    except ValueError as error:
        raise ConfigError(f"the mapping {path} is not JSON: {error}", "start from mappings/documents.json") from error
    unknown = sorted(set(template) - {"settings", "mappings"}) if isinstance(template, dict) else ["(no object)"]
    if unknown or not isinstance(template.get("mappings", {}), dict):
        raise ConfigError(
            f"the mapping {path} has {', '.join(unknown) or 'no mappings object'}",
            'a template is {"settings": {...}, "mappings": {...}}, such as mappings/documents.json',
        )
    return dict(template)


def build_index_body(
    template: Mapping[str, Any],
    passport: Passport,
    server: Server,
    field_types: Mapping[str, str] | None = None,
    sample: Iterable[Mapping[str, Any]] = (),
    meta: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the body of the request that creates an index to load into; ``meta`` is more for its ``_meta``.

    A field's type comes from ``field_types`` (name -> Elasticsearch type), else from the template, else it is a text
    field of the passport, else it is inferred from ``sample`` (stored fields of the first documents).
    """
    mappings = dict(template.get("mappings", {}))
    templated: Mapping[str, Any] = mappings.get("properties", {})
    inferred = {name: prop for name, prop in infer_properties(sample).items() if name not in templated}
    texts = {name: dict(_TEXT) for name in passport.text_fields if name not in templated}
    stated = {name: _property(kind) for name, kind in (field_types or {}).items()}
    vector = vector_property(passport, find_vector(templated, passport.vector_field), server)
    properties = inferred | texts | dict(templated) | stated | _placed(passport, templated, vector)
    properties |= {HASH_FIELD: dict(_HASH)}
    mappings |= {"properties": properties, "_meta": {**mappings.get("_meta", {}), **passport.to_meta(), **(meta or {})}}
    settings = _index_settings(template) | _LOADING
    if server.hides_source_vectors:
        settings["mapping.exclude_source_vectors"] = True
    return {"settings": {"index": settings}, "mappings": mappings}


def serving_settings(template: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that loading had overridden, as the template has them; None gives back the server's default."""
    wanted = _index_settings(template)
    return {name: wanted.get(name) for name in _LOADING}


def states_pipeline(template: Mapping[str, Any]) -> bool:
    """Whether ``template`` itself names an ingest pipeline for its documents."""
    return "default_pipeline" in _index_settings(template)


def vector_property(passport: Passport, templated: Mapping[str, Any], server: Server) -> dict[str, Any]:
    """Mapping of the vector field; ``templated`` may choose ``index_options``, and ``passport`` the rest.

    Everything is written out, because the server's defaults have changed between versions. Raises ConfigError when
    the template states what only the encoder decides, or a graph that the server would refuse document by document.
    """
    if decided := sorted(set(templated) - {"type", "index_options", "element_type"}):
        raise ConfigError(
            f"the mapping states {', '.join(decided)} for the vector field {passport.vector_field!r}",
            "remove it: the encoder decides dims and similarity",
        )
    element_type = passport.element_type
    if element_type == "bfloat16" and not server.takes_bfloat16:
        raise ConfigError(f"Elasticsearch {server} has no bfloat16 vectors", "use float, or Elasticsearch 9.3 or newer")
    if element_type == "byte" and passport.encoder.similarity != "cosine":
        raise ConfigError("vectors of bytes lose their length, which a dot product needs", "use float or bfloat16")
    default = _BYTE_INDEX_OPTIONS if element_type == "byte" else DEFAULT_INDEX_OPTIONS
    options = dict(templated.get("index_options", default))
    # Elasticsearch 9.5.3 takes any m and ef_construction in a mapping and then refuses every document.
    for name, highest in (("m", 512), ("ef_construction", 3200)):
        if not 1 <= options.get(name, 1) <= highest:
            raise ConfigError(f"{name} of the vector field is {options[name]}", f"use 1 to {highest}")
    return {
        "type": "dense_vector",
        "element_type": element_type,
        "dims": passport.encoder.dims,
        "index": True,
        "similarity": _SIMILARITY[passport.encoder.similarity or "cosine"],
        "index_options": options,
    }


def templated_element_type(template: Mapping[str, Any], vector_field: str) -> ElementType:
    """Return the element type that ``template`` states for the vector field, else "float".

    Raises ConfigError for one that esvector does not write.
    """
    properties: Mapping[str, Any] = template.get("mappings", {}).get("properties", {})
    return check_element_type(str(find_vector(properties, vector_field).get("element_type", "float")))


def find_vector(properties: Mapping[str, Any], vector_field: str) -> Mapping[str, Any]:
    """Return the mapping of the vector field, at the top or in the nested field of passages; empty where it is not."""
    path, _, name = vector_field.rpartition(".")
    nested = properties.get(path, {}) if path == PASSAGES_FIELD else {}
    found: Mapping[str, Any] = nested.get("properties", {}).get(name) or properties.get(vector_field, {})
    return found


def infer_properties(sample: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Types of the fields seen in ``sample``: the type that at least 95 % of a field's values have, else keyword.

    Looking at many documents before the mapping is written keeps the first one from deciding: 1 then 2.5 is a
    double, and a code that happens to look like a date once is a keyword. The odd "n.d." among years is refused with
    a reason when its document comes, which beats years that compare like words.
    """
    values: dict[str, list[Any]] = {}
    for fields in sample:
        for name, value in fields.items():
            seen = values.setdefault(name, [])
            seen.extend(v for v in (value if isinstance(value, list) else [value]) if v is not None)
    return {name: prop for name, seen in values.items() if (prop := _infer(seen)) is not None}


def parse_field_types(options: Iterable[str]) -> dict[str, str]:
    """Read ``--field name:type`` options. Raises ConfigError for one without a name or a type."""
    types = {}
    for option in options:
        name, colon, kind = option.rpartition(":")
        if not colon or not name or not kind:
            raise ConfigError(f"--field {option!r} is not name:type", "write it like --field year:integer")
        types[name] = kind
    return types


def _placed(passport: Passport, templated: Mapping[str, Any], vector: dict[str, Any]) -> dict[str, Any]:
    """The vector field in its place: at the top, or beside the text of each passage."""
    if passport.passages is None:
        return {passport.vector_field: vector}
    path, _, name = passport.vector_field.rpartition(".")
    nested = templated.get(path, {})
    if nested.get("type") != "nested":
        raise ConfigError(f"the mapping has no nested field {path!r}", "start from mappings/passages.json")
    for copied in ("include_in_parent", "include_in_root"):
        if nested.get(copied) not in (None, False, "false"):
            # The copies have the same path, so that a document would have a vector for each of its passages.
            raise ConfigError(f"the mapping has {copied} for {path!r}", "remove it: they are searched where they are")
    return {path: {**nested, "properties": {**nested.get("properties", {}), name: vector}}}


def _infer(values: list[Any]) -> dict[str, Any] | None:
    most = _MOST * len(values)
    if not values:
        return None
    if sum(isinstance(value, dict) for value in values) >= most:
        return {"properties": infer_properties(value for value in values if isinstance(value, dict))}
    if sum(isinstance(value, bool) for value in values) >= most:
        return {"type": "boolean"}
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) >= most:
        whole = all(isinstance(number, int) and number in _LONG for number in numbers)
        return {"type": "long", "coerce": False} if whole else {"type": "double"}
    if sum(isinstance(value, str) and _is_date(value) for value in values) >= most:
        return dict(_DATE)
    return None if any(isinstance(value, dict) for value in values) else dict(_KEYWORD)


def _is_date(value: str) -> bool:
    if _ISO_DATE.fullmatch(value) is None:
        return False
    try:
        date.fromisoformat(value[:10])
    except ValueError:
        return False
    return True


def _property(kind: str) -> dict[str, Any]:
    return dict({"keyword": _KEYWORD, "text": _TEXT, "date": _DATE}.get(kind, {"type": kind}))


def _index_settings(template: Mapping[str, Any]) -> dict[str, Any]:
    settings = dict(template.get("settings", {}))
    nested = settings.pop("index", {})
    return {name.removeprefix("index."): value for name, value in (settings | nested).items()}


def _shipped(name: str) -> Path:
    package = Path(__file__).parent
    inside = package / "mappings" / name
    # A wheel carries the templates inside the package; a checkout keeps them beside it, where users look for them.
    return inside if inside.exists() else package.parent / "mappings" / name
