"""Reading a mapping: which fields a document has, and how each can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["FieldType", "field_types"]

_OBJECTS = frozenset({"object", "passthrough"})


@dataclass(frozen=True, slots=True)
class FieldType:
    """One field of a mapping.

    ``name`` is the field that Elasticsearch knows (the target, for an alias) and ``type`` its mapping type. ``exact``
    is the field to compare whole values on: itself, the keyword sub-field of a text field, or None where there is none.
    ``ignore_above`` is the longest value of ``exact`` that is indexed, in UTF-16 code units. ``searchable`` is False
    where neither an index nor doc values were asked for, so that no query can find a value, and ``indexed`` where
    ``exact`` has doc values alone. ``nested`` is the innermost nested field around it, each object of which is a
    document of its own that only a ``nested`` query reaches.
    """

    name: str
    type: str
    exact: str | None
    ignore_above: int | None = None
    searchable: bool = True
    indexed: bool = True
    nested: str | None = None


def field_types(mappings: Mapping[str, Any]) -> dict[str, FieldType]:
    """The fields of ``mappings`` (the ``mappings`` object that ``GET _mapping`` answers with) under their dotted names.

    Objects and nested fields are listed as themselves, with ``exact`` None; their fields follow under dotted names.
    Sub-fields are listed (``title.keyword``), and an alias stands for its target. Nothing is raised: an alias whose
    target is not in the mapping is left out.
    """
    found: dict[str, FieldType] = {}
    aliases: dict[str, str] = {}
    _collect(mappings.get("properties") or {}, "", None, found, aliases)
    found.update({name: found[path] for name, path in aliases.items() if path in found})
    return found


def _collect(
    properties: Mapping[str, Any],
    prefix: str,
    nested: str | None,
    found: dict[str, FieldType],
    aliases: dict[str, str],
) -> None:
    for short, spec in properties.items():
        name = prefix + short
        kind = spec.get("type", "object")
        if kind == "alias":
            aliases[name] = spec["path"]
        elif kind in _OBJECTS or kind == "nested":
            found[name] = FieldType(name, "nested" if kind == "nested" else "object", None, nested=nested)
            _collect(spec.get("properties") or {}, name + ".", name if kind == "nested" else nested, found, aliases)
        else:
            found[name] = _leaf(name, spec, nested)
            subs = {f"{name}.{sub}": each for sub, each in (spec.get("fields") or {}).items()}
            found.update({sub: _leaf(sub, each, nested) for sub, each in subs.items()})


def _leaf(name: str, spec: Mapping[str, Any], nested: str | None) -> FieldType:
    if spec["type"] == "text":
        return _text(name, spec, nested)
    # Elasticsearch 9.5.3: either of the two is enough; with neither a term is refused and `exists` finds nothing.
    indexed = _flag(spec, "index")
    searchable = indexed or _flag(spec, "doc_values")
    return FieldType(name, spec["type"], name, _ignore_above(spec), searchable, indexed, nested)


def _text(name: str, spec: Mapping[str, Any], nested: str | None) -> FieldType:
    keywords = {
        sub: s
        for sub, s in (spec.get("fields") or {}).items()
        if s.get("type") == "keyword" and (_flag(s, "index") or _flag(s, "doc_values"))
    }
    # A normalizer changes what is compared (lower case, say): a sub-field without one comes first, then the usual name.
    best = min(keywords, key=lambda sub: ("normalizer" in keywords[sub], sub != "keyword", sub), default=None)
    searchable = _flag(spec, "index")
    if best is None:
        return FieldType(name, "text", None, searchable=searchable, indexed=searchable, nested=nested)
    limit, indexed = _ignore_above(keywords[best]), _flag(keywords[best], "index")
    return FieldType(name, "text", f"{name}.{best}", limit, searchable, indexed, nested)


def _ignore_above(spec: Mapping[str, Any]) -> int | None:
    return int(spec["ignore_above"]) if "ignore_above" in spec else None


def _flag(spec: Mapping[str, Any], name: str) -> bool:
    # A mapping may say false or "false"; doc_values may also be an object of options.
    return spec.get(name, True) not in (False, "false")
