"""Hits that do not repeat each other: maximal marginal relevance (Carbonell and Goldstein, 1998). Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from esvector.encode.profile import Similarity
from esvector.encode.tower import unit_length
from esvector.errors import ConfigError

__all__ = ["diversify"]


def diversify(
    scores: NDArray[np.float32],
    vectors: NDArray[np.float32],
    k: int,
    diversity: float,
    similarity: Similarity | None,
) -> list[int]:
    """Return the rows of the ``k`` candidates to show, in order: (at most k) positions in ``scores``.

    After the most relevant one comes, each time, the candidate with the highest

        (1 - diversity) * relevance - diversity * its largest cosine to one that was chosen

    so that 0 is the order by score and 1 asks for nothing but difference. Equal ones come in the order given.
    Relevance is the score itself where that is a cosine, on the scale of what is subtracted. Other scores ("dot", or
    None: fused, or a re-ranker's) have a scale of their own: they are brought to 0 for the lowest of the candidates and
    1 for the highest, so that multiplying all vectors by a number changes nothing.

    Args:
        scores: (n,) of the query with each candidate.
        vectors: (n, dims) float32, of any length; a zero vector resembles nothing.
        k: how many to choose.
        diversity: from 0 to 1.
        similarity: what ``scores`` are.

    Raises ConfigError for k or a diversity out of range.
    """
    if not 0 <= diversity <= 1:
        raise ConfigError(f"diversity is {diversity:g}, but must be between 0 and 1", "0.3 is a good start")
    if k < 1:
        raise ConfigError(f"k is {k}, but must be at least 1", "ask for more hits")
    if len(scores) != len(vectors):
        raise ValueError(f"{len(scores)} scores for {len(vectors)} vectors")
    units = unit_length(np.asarray(vectors, np.float32))
    relevance = (1 - diversity) * _relevance(np.asarray(scores, np.float64), similarity)
    nearest = np.zeros(len(scores), np.float32)  # largest cosine of each candidate to those that are chosen
    left = np.arange(len(scores))
    chosen: list[int] = []
    while len(chosen) < min(k, len(scores)):
        # The first is the most relevant one, also where diversity leaves relevance no weight.
        worth = relevance - diversity * nearest if chosen else scores
        best = int(left[np.argmax(worth[left])])
        cosines = units @ units[best]
        nearest = np.maximum(nearest, cosines) if chosen else cosines
        left = left[left != best]
        chosen.append(best)
    return chosen


def _relevance(scores: NDArray[np.float64], similarity: Similarity | None) -> NDArray[np.float64]:
    if similarity == "cosine" or not len(scores):
        return scores
    span = scores.max() - scores.min()
    return (scores - scores.min()) / span if span > 0 else np.ones_like(scores)
