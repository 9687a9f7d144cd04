"""What decides a vector, as data: asked for by a user, filled in by a loaded encoder, recorded in the index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from esvector.errors import ConfigError

__all__ = ["EncoderProfile", "Similarity"]

Similarity = Literal["cosine", "dot"]


@dataclass(frozen=True, slots=True)
class EncoderProfile:
    """Everything that decides a vector.

    A user names the model and overrides what must differ; None means "as the model says". The profile of a loaded
    encoder (``Encoder.profile``) is complete, and it is what the passport of an index records.

    Attributes:
        model: hub name, or the folder of a sentence-transformers model.
        revision: commit of the hub repository; None for a folder.
        weights: sha256 of the weights, tokenizer and module files.
        query_prompt: text put before every query; "" for none.
        document_prompt: text put before every document; "" for none.
        pooling: how token embeddings become one, such as "mean" or "cls".
        normalize: whether vectors are made unit length (always true for cosine).
        similarity: "cosine" or "dot": what the model was trained for.
        dims: length of a vector.
        max_length: tokens read of a text, special tokens included; the rest is cut off.
        dtype: number format the encoder computed in; recorded, but no part of its identity.
    """

    model: str
    revision: str | None = None
    weights: str | None = None
    query_prompt: str | None = None
    document_prompt: str | None = None
    pooling: str | None = None
    normalize: bool | None = None
    similarity: Similarity | None = None
    dims: int | None = None
    max_length: int | None = None
    dtype: str | None = None

    def __post_init__(self) -> None:
        if not self.model:
            raise ConfigError("the model's name is empty", "give a hub name or the folder of a model")
        if self.similarity not in (None, "cosine", "dot"):
            raise ConfigError(f"similarity {self.similarity!r} is not known", "use 'cosine' or 'dot'")
        for name in ("dims", "max_length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}, but must be at least 1")

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
        """As JSON-ready values, in the order of the attributes."""
        return asdict(self)

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


_IDENTITY = (
    "weights",
    "query_prompt",
    "document_prompt",
    "pooling",
    "normalize",
    "similarity",
    "dims",
    "max_length",
)
