"""Encoding a window of texts: sorted by length, in batches of bounded size, back in input order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from esvector.encode.encoder import Encoder
from esvector.errors import EncoderError

__all__ = ["EncodedWindow", "encode_window", "token_batches"]

# Padded tokens of a batch: on a CPU the best of 256..8192 for a MiniLM-sized model; a GPU wants far more.
CPU_TOKEN_BUDGET = 2048


@dataclass(frozen=True, slots=True)
class EncodedWindow:
    """``vectors`` is (n, dims) float32 in input order; ``tokens`` (n,) int64 before any cut; ``truncated`` counts."""

    vectors: NDArray[np.float32]
    tokens: NDArray[np.int64]
    truncated: int


def encode_window(
    encoder: Encoder,
    texts: Sequence[str],
    token_budget: int = CPU_TOKEN_BUDGET,
    on_batch: Callable[[int, int], None] | None = None,
) -> EncodedWindow:
    """Encode ``texts`` as documents; ``on_batch`` is told the texts and tokens of each batch done.

    Raises EncoderError when the encoder gives another shape than its profile says.
    """
    profile = encoder.profile
    dims, max_length = profile.dims or 0, profile.max_length or 1
    tokens = encoder.count_tokens(texts)
    vectors = np.empty((len(texts), dims), np.float32)
    for batch in token_batches(np.minimum(tokens, max_length), token_budget):
        encoded = encoder.encode_document([texts[i] for i in batch])
        if encoded.shape != (len(batch), dims):
            raise EncoderError(
                f"{profile.model} gave an array of shape {encoded.shape} for {len(batch)} texts, "
                f"but its profile says {dims} dims",
                "the encoder and its profile do not belong together",
            )
        vectors[batch] = encoded
        if on_batch is not None:
            on_batch(len(batch), int(tokens[batch].sum()))
    return EncodedWindow(vectors, tokens, int((tokens > max_length).sum()))


def token_batches(lengths: NDArray[np.int64], budget: int) -> Iterator[NDArray[np.int64]]:
    """Positions of ``lengths`` (n,) in batches whose padded size (rows x longest row) is at most ``budget`` tokens.

    Longest first, so that running out of memory shows at once; a row longer than the budget is a batch of its own.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        rows = max(1, budget // max(1, int(lengths[order[start]])))
        yield order[start : start + rows]
        start += rows
