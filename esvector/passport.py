"""The passport of an index: what made its vectors, written into the mapping so that searching needs no model name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from esvector.encode.profile import EncoderProfile
from esvector.errors import ConfigError
from esvector.types import PassageOptions, SearchSettings
from esvector.vectors import ElementType

__all__ = ["HASH_FIELD", "META_KEY", "PASSAGES_FIELD", "Passport"]

META_KEY = "esvector"
HASH_FIELD = "esvector_hash"
"""Field of every document with the hashes of what was encoded of it and of all that is stored."""
PASSAGES_FIELD = "passages"
"""Nested field of documents that were cut into passages."""


@dataclass(frozen=True, slots=True)
class Passport:
    """What made an index; lives in ``_meta.esvector`` of its mapping.

    Attributes:
        encoder: the complete profile of the encoder.
        text_fields: fields whose text is encoded, joined by one space.
        vector_field: field that holds the vector.
        element_type: "float", "bfloat16" or "byte": how the field keeps a vector.
        probes: what the query encoder made of the probe texts (``esvector.encode.probes``), as base64 of float16;
            empty where it was not at hand.
        passages: how documents were cut, each passage with a vector of its own (``vector_field`` is then inside the
            nested field "passages"); None where a document has one vector.
        search: how the index is best searched, where it was tuned.
        esvector: version of esvector that made the index.
        state: "building" until the load is verified, then "ready".
    """

    encoder: EncoderProfile
    text_fields: tuple[str, ...]
    vector_field: str
    esvector: str
    element_type: ElementType = "float"
    probes: tuple[str, ...] = ()
    passages: PassageOptions | None = None
    search: SearchSettings | None = None
    state: str = "building"

    def ready(self) -> Passport:
        """Return the same passport, of a verified index."""
        return replace(self, state="ready")

    def to_meta(self) -> dict[str, Any]:
        """As the ``_meta`` object of a mapping."""
        facts = {field.name: getattr(self, field.name) for field in fields(self)}
        ids = {"space_id": self.encoder.space_id, "query_id": self.encoder.query_id}
        lists = {"text_fields": list(self.text_fields), "probes": list(self.probes)}
        parts = {
            "encoder": self.encoder.to_dict(),
            "passages": None if self.passages is None else asdict(self.passages),
            "search": None if self.search is None else asdict(self.search),
        }
        return {META_KEY: ids | facts | lists | parts}

    @classmethod
    def from_meta(cls, meta: Mapping[str, Any] | None) -> Passport | None:
        """Read the passport in a mapping's ``_meta``; None where esvector did not make the index.

        Raises ConfigError when a newer esvector wrote it or somebody damaged it.
        """
        facts = (meta or {}).get(META_KEY)
        if facts is None:
            return None
        try:
            encoder = EncoderProfile.from_dict(facts["encoder"])
            known = {name: value for name, value in facts.items() if name not in ("space_id", "query_id")}
            lists = {"text_fields": tuple(facts["text_fields"]), "probes": tuple(facts["probes"])}
            cut, tuned = facts.get("passages"), facts.get("search")
            parts = {
                "encoder": encoder,
                "passages": None if cut is None else PassageOptions(**cut),
                "search": None if tuned is None else SearchSettings(**tuned),
            }
            passport = cls(**(known | lists | parts))
            ids = facts["space_id"], facts["query_id"]
        except (KeyError, TypeError) as error:
            raise ConfigError(
                f"the index's passport (_meta.{META_KEY}) cannot be read: {error}",
                "it was written by another version of esvector: upgrade, or index the documents again",
            ) from error
        if ids != (encoder.space_id, encoder.query_id):
            raise ConfigError(
                f"the index's passport (_meta.{META_KEY}) does not agree with itself: its encoder was changed by hand",
                "restore the mapping's _meta, or index the documents again",
            )
        return passport
