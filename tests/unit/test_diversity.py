"""Maximal marginal relevance against its definition, written out slowly."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from esvector.encode.profile import Similarity
from esvector.errors import ConfigError
from esvector.search.diversity import diversify


def slowly(
    scores: NDArray[np.float32], vectors: NDArray[np.float32], k: int, diversity: float, cosine: bool
) -> list[int]:
    """The definition, pair by pair."""
    relevance = [float(score) for score in scores]
    if not cosine:
        low, high = min(relevance), max(relevance)
        relevance = [(score - low) / (high - low) if high > low else 1.0 for score in relevance]
    lengths = [float(np.linalg.norm(vector)) for vector in vectors]

    def resemblance(a: int, b: int) -> float:
        return float(vectors[a] @ vectors[b]) / (lengths[a] * lengths[b]) if lengths[a] and lengths[b] else 0.0

    chosen = [max(range(len(scores)), key=lambda i: scores[i])]
    while len(chosen) < min(k, len(scores)):
        worth = {
            i: (1 - diversity) * relevance[i] - diversity * max(resemblance(i, j) for j in chosen)
            for i in range(len(scores))
            if i not in chosen
        }
        chosen.append(max(worth, key=lambda i: worth[i]))
    return chosen


@pytest.mark.parametrize("similarity", ["cosine", "dot", None])
@pytest.mark.parametrize("diversity", [0.0, 0.2, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_the_choice_is_that_of_the_definition(similarity: Similarity | None, diversity: float, seed: int) -> None:
    draw = np.random.default_rng(seed)
    n, k = int(draw.integers(1, 60)), int(draw.integers(1, 40))
    vectors = draw.standard_normal((n, 6)).astype(np.float32) * draw.uniform(0.1, 9, (n, 1)).astype(np.float32)
    query = draw.standard_normal(6).astype(np.float32)
    scores = vectors @ query
    if similarity == "cosine":
        scores = scores / (np.linalg.norm(vectors, axis=1) * np.linalg.norm(query))
    expected = slowly(scores, vectors, k, diversity, similarity == "cosine")
    assert diversify(scores, vectors, k, diversity, similarity) == expected


def test_without_diversity_it_is_the_order_by_score_equal_ones_as_given() -> None:
    scores = np.array([0.1, 0.9, 0.5, 0.9, 0.5], np.float32)
    vectors = np.ones((5, 3), np.float32)
    for similarity in ("cosine", "dot", None):
        assert diversify(scores, vectors, 5, 0, similarity) == [1, 3, 2, 4, 0]


def test_a_copy_of_what_was_shown_waits_for_something_new() -> None:
    """Three copies of the best answer and one other: the other comes second."""
    vectors = np.array([[1, 0, 0], [1, 0, 0], [1, 0, 0], [0.8, 0.6, 0]], np.float32)
    scores = vectors @ np.array([1, 0, 0], np.float32)
    assert diversify(scores, vectors, 4, 0, "cosine") == [0, 1, 2, 3]
    assert diversify(scores, vectors, 4, 0.6, "cosine")[:2] == [0, 3]


def test_full_diversity_begins_with_the_best_and_then_goes_far_away() -> None:
    vectors = np.array([[1, 0], [0.99, 0.1], [0, 1], [-1, 0]], np.float32)
    assert diversify(np.array([0.9, 0.95, 0.2, 0.1], np.float32), vectors, 4, 1, "cosine") == [1, 3, 2, 0]


@given(factor=st.sampled_from([1e-3, 0.5, 7.0, 1e4]), seed=st.integers(0, 50), diversity=st.floats(0.05, 0.95))
def test_the_scale_of_a_dot_product_is_of_no_matter(factor: float, seed: int, diversity: float) -> None:
    draw = np.random.default_rng(seed)
    vectors = draw.standard_normal((20, 5)).astype(np.float32)
    scores = vectors @ draw.standard_normal(5).astype(np.float32)
    expected = diversify(scores, vectors, 10, diversity, "dot")
    assert diversify(scores * factor, vectors * factor, 10, diversity, "dot") == expected


def test_zero_vectors_and_equal_scores() -> None:
    vectors = np.array([[0, 0], [0, 0], [1, 0]], np.float32)
    assert diversify(np.zeros(3, np.float32), vectors, 3, 0.5, "dot") == [0, 1, 2]
    assert diversify(np.array([-np.inf, 1, 0]), vectors, 3, 0, "cosine") == [1, 2, 0]


def test_nobody_comes_twice_and_k_is_an_upper_limit() -> None:
    draw = np.random.default_rng(0)
    vectors = draw.standard_normal((7, 3)).astype(np.float32)
    for k, diversity in itertools.product((1, 3, 7, 50), (0.0, 0.5, 1.0)):
        chosen = diversify(vectors[:, 0], vectors, k, diversity, "dot")
        assert len(set(chosen)) == len(chosen) == min(k, 7)
    assert diversify(np.zeros(0, np.float32), np.zeros((0, 3), np.float32), 5, 0.5, "cosine") == []


def test_a_thousand_candidates_are_no_work() -> None:
    draw = np.random.default_rng(0)
    vectors = draw.standard_normal((1000, 384)).astype(np.float32)
    scores = vectors @ vectors[0]
    quickest = min(_seconds(scores, vectors) for _ in range(3))
    assert quickest < 1  # 0.01 s on one core


def _seconds(scores: NDArray[np.float32], vectors: NDArray[np.float32]) -> float:
    started = time.perf_counter()
    diversify(scores, vectors, 100, 0.5, "dot")
    return time.perf_counter() - started


def test_what_cannot_be() -> None:
    scores, vectors = np.zeros(2, np.float32), np.zeros((2, 3), np.float32)
    for diversity in (-0.1, 1.1, float("nan")):
        with pytest.raises(ConfigError, match="diversity is"):
            diversify(scores, vectors, 1, diversity, "cosine")
    with pytest.raises(ConfigError, match="k is 0"):
        diversify(scores, vectors, 0, 0.5, "cosine")
    with pytest.raises(ValueError, match="2 scores for 3 vectors"):
        diversify(scores, np.zeros((3, 3), np.float32), 1, 0.5, "cosine")
