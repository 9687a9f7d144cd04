"""Reading a mapping: which fields a document has, and how each can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["FieldType", "field_types"]

# Objects whose fields are reached by dotted names; a nested object's are not (they are documents of their own).
_OBJECTS = frozenset({"object", "passthrough"})


@dataclass(frozen=True, slots=True)
class FieldType:
    """One field of a mapping.

    ``name`` is the field that Elasticsearch knows (the target, for an alias) and ``type`` its mapping type. ``exact``
    is the field to compare whole values on: itself, the keyword sub-field of a text field, or None where there is none.
    ``ignore_above`` is the longest value of ``exact`` that is indexed, in UTF-16 code units. ``searchable`` is False
    where neither an index nor doc values were asked for, so that no query can find a value.
    """

    name: str
    type: str
    exact: str | None
    ignore_above: int | None = None
    searchable: bool = True


def field_types(mappings: Mapping[str, Any]) -> dict[str, FieldType]:
    """The fields of ``mappings`` (the ``mappings`` object that ``GET _mapping`` answers with) under their dotted names.

    Objects and nested fields are listed as themselves, with ``exact`` None. The fields of an object follow under dotted
    names; those of a nested field are left out. Sub-fields are listed (``title.keyword``), and an alias stands for its
    target. Nothing is raised: an alias whose target is not in the mapping is left out.
    """
    found: dict[str, FieldType] = {}
    aliases: dict[str, str] = {}
    _collect(mappings.get("properties") or {}, "", found, aliases)
    found.update({name: found[path] for name, path in aliases.items() if path in found})
    return found


def _collect(properties: Mapping[str, Any], prefix: str, found: dict[str, FieldType], aliases: dict[str, str]) -> None:
    for short, spec in properties.items():
        name = prefix + short
        kind = spec.get("type", "object")
        if kind == "alias":
            aliases[name] = spec["path"]
        elif kind in _OBJECTS or kind == "nested":
            found[name] = FieldType(name, "nested" if kind == "nested" else "object", None)
            if kind != "nested":
                _collect(spec.get("properties") or {}, name + ".", found, aliases)
        else:
            found[name] = _leaf(name, spec)
            found.update({f"{name}.{sub}": _leaf(f"{name}.{sub}", s) for sub, s in (spec.get("fields") or {}).items()})


def _leaf(name: str, spec: Mapping[str, Any]) -> FieldType:
    if spec["type"] == "text":
        return _text(name, spec)
    return FieldType(name, spec["type"], name, _ignore_above(spec), _searchable(spec))


def _text(name: str, spec: Mapping[str, Any]) -> FieldType:
    keywords = {
        sub: s for sub, s in (spec.get("fields") or {}).items() if s.get("type") == "keyword" and _searchable(s)
    }
    # A normalizer changes what is compared (lower case, say): a sub-field without one comes first, then the usual name.
    best = min(keywords, key=lambda sub: ("normalizer" in keywords[sub], sub != "keyword", sub), default=None)
    indexed = _flag(spec, "index")
    if best is None:
        return FieldType(name, "text", None, searchable=indexed)
    return FieldType(name, "text", f"{name}.{best}", _ignore_above(keywords[best]), indexed)


def _ignore_above(spec: Mapping[str, Any]) -> int | None:
    return int(spec["ignore_above"]) if "ignore_above" in spec else None


def _searchable(spec: Mapping[str, Any]) -> bool:
    # Elasticsearch 9.5.3: either of the two is enough; with neither a term is refused and `exists` finds nothing.
    return _flag(spec, "index") or _flag(spec, "doc_values")


def _flag(spec: Mapping[str, Any], name: str) -> bool:
    # A mapping may say false or "false"; doc_values may also be an object of options.
    return spec.get(name, True) not in (False, "false")
