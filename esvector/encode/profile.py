"""What decides a vector, as data: asked for by a user, filled in by a loaded encoder, recorded in the index."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from esvector.errors import ConfigError

__all__ = ["TITLE_SLOT", "EncoderProfile", "Kind", "Side", "Similarity"]

Similarity = Literal["cosine", "dot"]
Side = Literal["query", "document"]
Kind = Literal["symmetric", "asymmetric", "prompted", "dual", "router", "given"]

TITLE_SLOT = "{title}"
_NO_TITLE = "none"  # what EmbeddingGemma's card puts in the place of a missing title


@dataclass(frozen=True, slots=True)
class EncoderProfile:
    """Everything that decides a vector.

    A user names the model and overrides what must differ; None means "as the model says". The profile of a loaded
    encoder (``Encoder.profile``) is complete, and it is what the passport of an index records. The attributes that
    begin with ``query_`` describe a query tower of its own; None there means that one tower serves both sides.

    Attributes:
        model: hub name, or the folder of a model; for a dual encoder, the model of the documents.
        revision: commit of the hub repository; None for a folder.
        weights: fingerprint of the document tower's files.
        query_model: the model of the queries, of a dual encoder.
        query_revision: its commit.
        query_weights: fingerprint of the query tower's files.
        family: preset that fills in what the model's files leave open (``esvector models``); "" for none.
        kind: "symmetric", "asymmetric" (by training), "prompted", "dual", "router", or "given" (ready-made vectors).
        query_prompt: text put before every query; "" for none.
        document_prompt: text put before every document; "" for none. ``{title}`` in it is the document's title.
        separator: what joins the title and the text of a document.
        pooling: how token embeddings become one, such as "mean" or "cls".
        query_pooling: the same of the query tower.
        normalize: whether vectors are made unit length (always true for cosine).
        similarity: "cosine" or "dot": what the model was trained for.
        dims: length of a vector; fewer than the model's cuts its vectors (Matryoshka).
        max_length: tokens read of a text, special tokens included; the rest is cut off. None: no limit.
        query_max_length: the same of the query tower.
        dtype: number format the encoder computes in; recorded, but no part of its identity.
        backend: what ran the document tower; recorded, but no part of its identity.
    """

    model: str
    revision: str | None = None
    weights: str | None = None
    query_model: str | None = None
    query_revision: str | None = None
    query_weights: str | None = None
    family: str | None = None
    kind: Kind | None = None
    query_prompt: str | None = None
    document_prompt: str | None = None
    separator: str | None = None
    pooling: str | None = None
    query_pooling: str | None = None
    normalize: bool | None = None
    similarity: Similarity | None = None
    dims: int | None = None
    max_length: int | None = None
    query_max_length: int | None = None
    dtype: str | None = None
    backend: str | None = None

    def __post_init__(self) -> None:
        if not self.model or self.query_model == "":
            raise ConfigError("the model's name is empty", "give a hub name or the folder of a model")
        if self.similarity not in (None, *get_args(Similarity)):
            raise ConfigError(f"similarity {self.similarity!r} is not known", "use 'cosine' or 'dot'")
        if self.kind not in (None, *get_args(Kind)):
            raise ConfigError(f"kind {self.kind!r} is not known", f"use one of {', '.join(get_args(Kind))}")
        if TITLE_SLOT in (self.query_prompt or ""):
            raise ConfigError(f"the query prompt has {TITLE_SLOT}, but queries have no title")
        for name in ("dims", "max_length", "query_max_length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}, but must be at least 1")

    @property
    def two_towers(self) -> bool:
        """Whether queries have a tower of their own."""
        return self.query_model is not None or self.query_weights is not None

    @property
    def complete(self) -> bool:
        """Whether every fact is stated, as in the profile of a loaded encoder."""
        return None not in (self.weights, self.pooling, self.normalize, self.similarity, self.dims, self.query_prompt)

    @property
    def takes_title(self) -> bool:
        """Whether the document prompt has a place of its own for the title."""
        return TITLE_SLOT in (self.document_prompt or "")

    @property
    def space_id(self) -> str:
        """Id (32 hex digits) of all that decides a document vector: equal ids, comparable vectors."""
        return _digest(self._tower("document") | {"separator": self.separator})

    @property
    def query_id(self) -> str:
        """Id (32 hex digits) of all that decides a query vector, and of the space it is aligned to."""
        return _digest(self._tower("query") | {"aligned_to": self.space_id})

    def query_input(self, text: str) -> str:
        """Return what the query tower reads for ``text``."""
        return (self.query_prompt or "") + text

    def document_input(self, text: str, title: str | None = None) -> str:
        """Return what the document tower reads for ``text`` under ``title``."""
        prompt = self.document_prompt or ""
        if self.takes_title:
            return prompt.replace(TITLE_SLOT, title or _NO_TITLE) + text
        return prompt + self.join((title, text) if title else (text,))

    def join(self, texts: tuple[str, ...]) -> str:
        """Join a title (the first of several) and the rest of a document's texts, as the model was trained."""
        separator = " " if self.separator is None else self.separator
        return separator.join(part for part in (texts[0], " ".join(texts[1:])) if part) if texts else ""

    def differences(self, other: EncoderProfile) -> dict[str, tuple[Any, Any]]:
        """Facts that decide a vector and are not equal: name -> (ours, theirs). Empty means the same encoder.

        The model's name and revision are no such facts: the same weights under another name are the same encoder.
        """
        return {
            name: (getattr(self, name), getattr(other, name))
            for name in _IDENTITY
            if getattr(self, name) != getattr(other, name)
        }

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values, in the order of the attributes; what is not stated is left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EncoderProfile:
        """Read back what ``to_dict`` wrote. Raises ConfigError for a name this version does not know."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ConfigError(
                f"the encoder profile has {', '.join(unknown)}, which this version of esvector does not know",
                "it was written by a newer version: upgrade esvector",
            )
        return cls(**values)

    def _tower(self, side: Side) -> dict[str, Any]:
        own = side == "query" and self.two_towers
        return {
            "weights": self.query_weights if own else self.weights,
            "prompt": self.query_prompt if side == "query" else self.document_prompt,
            "pooling": self.query_pooling if own else self.pooling,
            "max_length": self.query_max_length if own else self.max_length,
            "normalize": self.normalize,
            "similarity": self.similarity,
            "dims": self.dims,
        }


_IDENTITY = (
    "weights",
    "query_weights",
    "query_prompt",
    "document_prompt",
    "separator",
    "pooling",
    "query_pooling",
    "normalize",
    "similarity",
    "dims",
    "max_length",
    "query_max_length",
)


def _digest(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
