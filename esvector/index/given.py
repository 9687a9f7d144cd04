"""Vectors that documents bring along, encoded elsewhere: used as they are, and compared with the model on a sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from esvector.encode.batcher import EncodedWindow
from esvector.encode.calibrate import spread
from esvector.encode.encoder import Encoder
from esvector.encode.engine import document_engine
from esvector.encode.probes import agreement
from esvector.encode.profile import EncoderProfile
from esvector.encode.tower import finish
from esvector.errors import EncoderMismatchError
from esvector.types import Document

__all__ = ["GivenEngine", "check_sample"]

SAMPLE = 16
LEAST_MEAN = 0.99
"""Mean cosine of a sample to the model's own vectors: other hardware and half precision stay above it, 8-bit weights
mostly, a forgotten prompt (0.72 to 0.89 on MiniLM) or another model never."""


@dataclass(frozen=True, slots=True)
class _GivenInputs:
    """The vectors of a window. There are no tokens to count."""

    vectors: NDArray[np.float32]
    refused: dict[int, str] = field(default_factory=dict)

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.zeros(len(self.vectors), np.int64)

    counts = lengths


class GivenEngine:
    """Takes the vector of each document instead of encoding its text."""

    at_once = 1

    def __init__(self, profile: EncoderProfile) -> None:
        self._dims = profile.dims or 0
        self._normalize = bool(profile.normalize)
        self._zero_allowed = profile.similarity == "dot"

    def tokenize(self, documents: Sequence[Document]) -> _GivenInputs:
        """Collect the vectors; one of another length, or without a direction, is refused."""
        vectors = np.zeros((len(documents), self._dims), np.float32)
        refused: dict[int, str] = {}
        for row, document in enumerate(documents):
            if document.vector is None or len(document.vector) != self._dims:
                has = "no vector" if document.vector is None else f"a vector of {len(document.vector)} dims"
                refused[row] = f"the document has {has}, and the index wants {self._dims} dims"
            elif not self._zero_allowed and not np.any(document.vector):
                refused[row] = "the document has a zero vector, which cosine cannot compare"
            else:
                vectors[row] = document.vector
        return _GivenInputs(vectors, refused)

    def encode(self, inputs: _GivenInputs, on_batch: Callable[[int, int], None] | None = None) -> EncodedWindow:
        """Return the vectors, of unit length where the profile says so."""
        vectors = finish(inputs.vectors, self._dims, normalize=self._normalize)
        if on_batch is not None:
            on_batch(len(vectors) - len(inputs.refused), 0)
        return EncodedWindow(vectors, inputs.counts, 0, inputs.refused)


def check_sample(encoder: Encoder, documents: Sequence[Document]) -> int:
    """Compare the vectors of a few ``documents`` with what ``encoder`` makes of their texts; return how many.

    Raises EncoderMismatchError when they are not of this encoder.
    """
    dims = encoder.profile.dims
    fit = [d for d in documents if d.text and d.vector is not None and len(d.vector) == dims and np.any(d.vector)]
    sample = spread(fit, SAMPLE)
    if not sample:
        return 0
    engine = document_engine(encoder)
    made = engine.encode(engine.tokenize(sample)).vectors
    given = np.stack([d.vector for d in sample if d.vector is not None])
    if encoder.profile.normalize:
        given = finish(given, given.shape[1], normalize=True)
    found = agreement(made, given)
    if found.mean() < LEAST_MEAN:
        worst = sample[int(found.argmin())]
        raise EncoderMismatchError(
            f"the documents' vectors are not those of {encoder.profile.model}: of {len(sample)} compared, the mean "
            f"cosine is {found.mean():.3f}; the farthest is {worst.id} ({worst.place}) with {found.min():.3f}",
            "name the model, prompt and settings that made them (--model, --document-prompt, --max-length, --dims)",
        )
    return len(sample)
