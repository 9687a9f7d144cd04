"""The encoder: what esvector asks of any model, and the one that it loads itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from esvector.encode.batcher import Batcher
from esvector.encode.profile import EncoderProfile, Side
from esvector.encode.tower import Tower
from esvector.errors import EncoderError, EncoderMismatchError

__all__ = ["Encoder", "LoadedTower", "ModelEncoder", "check_match"]


class Encoder(Protocol):
    """What an application may bring instead of a model's name. One thread uses it at a time."""

    @property
    def profile(self) -> EncoderProfile:
        """The complete profile: every fact but ``revision`` filled in."""

    def count_tokens(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Tokens of each text as a document, prompt and special tokens included, before any cut: (n,) int64."""

    def encode_query(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings of queries: (n, dims) float32, unit length where the profile says ``normalize``."""

    def encode_document(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings of documents: (n, dims) float32, unit length where the profile says ``normalize``."""


@dataclass(frozen=True, slots=True)
class LoadedTower:
    """A tower that is ready; ``exact`` gives the same one in float32."""

    tower: Tower
    exact: Callable[[], Tower] | None = None


class ModelEncoder:
    """An encoder of one tower or two, of which one side may not be loaded.

    Args:
        profile: the complete profile.
        towers: what is loaded, by side.
        sources: for a fact of the profile, where it came from.
        warnings: what a user should look at.
        base_model: the model that this one was made from, where its files say so.
    """

    def __init__(
        self,
        profile: EncoderProfile,
        towers: dict[Side, LoadedTower],
        sources: dict[str, str] | None = None,
        warnings: tuple[str, ...] = (),
        base_model: str | None = None,
    ) -> None:
        self.profile = profile
        self.sources = sources or {}
        self.warnings = warnings
        self.towers = towers
        self.base_model = base_model

    def batcher(self, side: Side) -> Batcher:
        """Return what runs complete inputs of ``side``. Raises EncoderError when that side is not loaded."""
        loaded = self.towers.get(side)
        if loaded is None:
            raise EncoderError(
                f"the {side} side of {self.profile.model} is not loaded", f"use load_encoder(profile, side={side!r})"
            )
        return Batcher(loaded.tower, zero_allowed=self.profile.similarity == "dot", exact=loaded.exact)

    def count_tokens(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Tokens of each text as a document, prompt and special tokens included, before any cut: (n,) int64."""
        return self.batcher("document").tower.tokenize([self.profile.document_input(text) for text in texts]).counts

    def encode_query(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings of queries: (n, dims) float32, unit length where the profile says ``normalize``."""
        return self._encode("query", texts, [self.profile.query_input(text) for text in texts])

    def encode_document(self, texts: Sequence[str], titles: Sequence[str | None] | None = None) -> NDArray[np.float32]:
        """Embeddings of documents: (n, dims) float32, unit length where the profile says ``normalize``.

        Raises EncoderError when a text cannot be encoded.
        """
        pairs = zip(texts, titles or [None] * len(texts), strict=True)
        return self._encode("document", texts, [self.profile.document_input(text, title) for text, title in pairs])

    def _encode(self, side: Side, texts: Sequence[str], inputs: Sequence[str]) -> NDArray[np.float32]:
        if empty := [n for n, text in enumerate(texts) if not text.strip()]:
            raise EncoderError(f"text {empty[0] + 1} of {len(texts)} cannot be encoded: the text is empty")
        batcher = self.batcher(side)
        window = batcher.encode(batcher.tower.tokenize(inputs))
        if window.refused:
            position, reason = min(window.refused.items())
            raise EncoderError(f"text {position + 1} of {len(inputs)} cannot be encoded: {reason}")
        return window.vectors


def check_match(expected: EncoderProfile, actual: EncoderProfile) -> None:
    """Raise EncoderMismatchError unless ``actual`` has every fact that ``expected`` states.

    A complete profile states all: that one tower serves both sides, too.
    """
    wanted = expected if expected.complete else replace(actual, **expected.to_dict())
    if differences := wanted.differences(actual):
        lines = [f"  {name}: {theirs!r} expected, {ours!r} found" for name, (theirs, ours) in differences.items()]
        raise EncoderMismatchError(
            f"the encoder {actual.model} is not the one expected ({expected.model}):\n" + "\n".join(lines),
            "use the model, revision and settings that made the index (its passport names them; without a model named, "
            "searching takes them from there), or index the documents again with this one",
        )
