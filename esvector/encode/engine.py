"""The engine of a load: documents in, vectors out, on one device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from esvector.encode.batcher import Batcher, EncodedWindow
from esvector.encode.encoder import Encoder, ModelEncoder
from esvector.encode.tokens import TextTokenizer
from esvector.encode.tower import Inputs, ModelTower, TextTower
from esvector.types import Document

__all__ = ["DocumentEngine", "LocalEngine", "document_engine"]

_BUDGET = 2048  # padded tokens of a batch for an application's own encoder


class DocumentEngine(Protocol):
    """Encodes windows of documents on one device: ``tokenize`` in any thread, ``encode`` in ``at_once`` threads."""

    @property
    def at_once(self) -> int:
        """Windows that keep it busy."""

    def tokenize(self, documents: Sequence[Document]) -> Inputs:
        """Tokenize what the encoder reads of ``documents``."""

    def encode(self, inputs: Any, on_batch: Callable[[int, int], None] | None = None) -> EncodedWindow:  # noqa: ANN401
        """Encode what ``tokenize`` gave; ``on_batch`` is told the documents and tokens of each batch."""


class LocalEngine:
    """Encodes in this process."""

    at_once = 1

    def __init__(self, batcher: Batcher, compose: Callable[[Document], str]) -> None:
        self._batcher = batcher
        self._compose = compose

    @property
    def tokenizer(self) -> TextTokenizer | None:
        """What tokenizes; None where the encoder does that by itself."""
        tower = self._batcher.tower
        return tower.tokenizer if isinstance(tower, ModelTower) else None

    def tokenize(self, documents: Sequence[Document]) -> Inputs:
        """Tokenize what the encoder reads of ``documents``."""
        inputs: Inputs = self._batcher.tower.tokenize([self._compose(document) for document in documents])
        return inputs

    def encode(self, inputs: Inputs, on_batch: Callable[[int, int], None] | None = None) -> EncodedWindow:
        """Encode tokenized documents; ``on_batch`` is told the documents and tokens of each batch."""
        return self._batcher.encode(inputs, on_batch)


def document_engine(encoder: Encoder) -> LocalEngine:
    """Return what encodes documents with ``encoder``, be it esvector's own or an application's."""
    profile = encoder.profile
    if isinstance(encoder, ModelEncoder):
        return LocalEngine(encoder.batcher("document"), lambda d: profile.document_input(d.text, d.title))
    tower = TextTower(encoder.encode_document, encoder.count_tokens, profile.dims or 0, profile.max_length, _BUDGET)
    batcher = Batcher(tower, zero_allowed=profile.similarity == "dot")
    # An encoder of an application's own puts its prompts before the texts itself.
    return LocalEngine(batcher, lambda d: profile.join((d.title, d.text)) if d.title else d.text)
