"""What an alias leads to: the index, what made it, and what can be asked of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from esvector.errors import IndexNotFoundError, UnknownFieldError
from esvector.fields import FieldType, field_types
from esvector.mapping import find_vector
from esvector.passport import PASSAGES_FIELD, Passport
from esvector.search.exact import is_quantized

__all__ = ["Target", "find_fields", "read_target"]


@dataclass(frozen=True, slots=True)
class Target:
    """What an alias leads to at the moment: one index, its passport, and the types of its fields.

    ``quantized`` says whether the vector field compares shortened vectors, and ``rescored`` whether its mapping has the
    best of them compared again exactly without being asked; ``binary`` are those of one bit for each dimension.
    """

    index: str
    passport: Passport
    fields: Mapping[str, FieldType]
    quantized: bool = False
    rescored: bool = True
    binary: bool = False

    @property
    def passages(self) -> str | None:
        """The nested field of passages; None where a document has one vector."""
        return None if self.passport.passages is None else PASSAGES_FIELD

    @property
    def searchable_text(self) -> list[str]:
        """The text fields of the passport that can be searched by words."""
        return [
            name
            for name in self.passport.text_fields
            if (field := self.fields.get(name)) is not None and field.type == "text" and field.searchable
        ]


def read_target(alias: str, mappings: Mapping[str, Any]) -> Target:
    """Return what ``mappings``, the answer to ``GET alias/_mapping``, say. Raises IndexNotFoundError otherwise."""
    if len(mappings) != 1:
        raise IndexNotFoundError(f"{alias} leads to {len(mappings)} indices", "name one alias of one index")
    index, facts = next(iter(mappings.items()))
    found = facts["mappings"]
    passport = Passport.from_meta(found.get("_meta"))
    if passport is None:
        raise IndexNotFoundError(
            f"{alias} has no passport (_meta.esvector), so nobody knows what made its vectors",
            "index the documents with esvector",
        )
    vector = find_vector(found.get("properties", {}), passport.vector_field)
    if not vector:
        # Elasticsearch 9.5.3 answers a kNN search of a field that is not mapped with 200 and no hits.
        raise IndexNotFoundError(
            f"{index} has no field {passport.vector_field!r}, where its passport says that the vectors are",
            "index the documents again",
        )
    options = vector.get("index_options", {})
    return Target(
        index,
        passport,
        field_types(found),
        quantized=is_quantized(vector),
        rescored="rescore_vector" in options,
        binary=options.get("type", "").startswith("bbq"),
    )


def find_fields(names: list[str], fields: Mapping[str, FieldType]) -> list[FieldType]:
    """The fields of those names. Raises UnknownFieldError, with near names, for one that the mapping does not have."""
    for name in names:
        if name not in fields:
            near = get_close_matches(name, fields, n=3)
            listed = ", ".join(list(fields)[:20])
            raise UnknownFieldError(
                f"the index has no field {name!r}",
                f"Did you mean {' or '.join(near)}?" if near else f"It has: {listed}.",
            )
    return [fields[name] for name in names]
