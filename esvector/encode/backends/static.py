"""A table of token vectors: the mean of a text's rows is its embedding. Needs numpy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["StaticBackend"]


class StaticBackend:
    """Looks tokens up in ``table``, as sentence-transformers' StaticEmbedding does. Threads may share one.

    Args:
        table: (vocabulary, dims) float32; may be mapped from a file, then only the rows that are used are read.
    """

    name = "static"
    dtype = "float32"
    token_budget = 8192  # the gathered rows stay within a few MB

    def __init__(self, table: NDArray[np.float32]) -> None:
        self._table = table

    def forward(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        """Mean of the rows of each text: ``ids`` and ``mask`` are (n, length), the result (n, dims) float32.

        A text without tokens is the zero vector, as in StaticEmbedding.
        """
        vectors = np.zeros((len(ids), self._table.shape[1]), np.float32)
        for row, kept in enumerate(mask.astype(bool)):
            if kept.any():
                self._table[ids[row, kept]].mean(axis=0, out=vectors[row])
        return vectors

    def collect(self, outputs: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return what ``forward`` gave for several batches, one after the other: (sum of n, dims) float32."""
        return np.concatenate(outputs)

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether a smaller batch may help against ``error``."""
        return isinstance(error, MemoryError)

    def is_lost(self, error: BaseException) -> bool:
        """Whether nothing more can be run after ``error`` in this process."""
        return False
