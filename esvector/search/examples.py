"""A query made of examples: near the documents that are wanted, away from those that are not. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from esvector.encode.profile import Similarity
from esvector.encode.tower import unit_length
from esvector.errors import ConfigError

__all__ = ["example_vector"]

_UNLIKE = 0.5
"""Weight of the unwanted examples' mean beside that of the wanted ones.

Rocchio's formula without a query: wanted examples have to count more than unwanted ones (Manning, Raghavan and
Schuetze, "Introduction to Information Retrieval", 9.1.1). With a half, of one wanted and one unwanted vector of unit
length the result is always nearer to the wanted one, and at least half as long: the two cannot cancel out. With one,
examples of like texts (what one gives to say "this, but not that") would leave noise; with the book's 0.2, made for
sparse vectors, the unwanted ones are hardly felt, since the dense vectors of all texts have a good part in common.
"""
_NOTHING = 1e-5  # of the examples' own length: what rounding leaves of float32 vectors that cancel out


def example_vector(
    positive: NDArray[np.float32], negative: NDArray[np.float32], similarity: Similarity
) -> NDArray[np.float32]:
    """Return the query vector (dims,) float32 for wanted (n, dims) and unwanted (m, dims) examples, n > 0, m >= 0.

    It is the mean of the wanted ones less half the mean of the unwanted ones. For "cosine" every example has the same
    weight, whatever its length, and the result is unit length. For "dot" lengths mean something and are kept.

    Raises ConfigError where there is no wanted example, or nothing is left of them.
    """
    if not len(positive):
        raise ConfigError("there is no example of what to look for", "give at least one beside those to stay away from")
    if similarity == "cosine":
        positive, negative = unit_length(positive), unit_length(negative)
    wanted = np.asarray(positive, np.float64).mean(axis=0)
    if len(negative):
        wanted = wanted - _UNLIKE * np.asarray(negative, np.float64).mean(axis=0)
    length = float(np.linalg.norm(wanted))
    if length <= _NOTHING * float(np.linalg.norm(positive, axis=1).max()):
        raise ConfigError(
            f"the {len(positive)} wanted and {len(negative)} unwanted examples cancel each other out: no direction to "
            "search in is left",
            "leave out those that contradict each other, or search for them one by one",
        )
    vector: NDArray[np.float32] = (wanted / length if similarity == "cosine" else wanted).astype(np.float32)
    return vector
