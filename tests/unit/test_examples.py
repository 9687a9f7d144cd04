"""A query made of wanted and unwanted examples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from esvector.errors import ConfigError
from esvector.search.examples import example_vector

NONE = np.zeros((0, 8), np.float32)


def units(n: int, seed: int, dims: int = 8) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).standard_normal((n, dims)).astype(np.float32)
    unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def test_one_example_is_the_query_itself() -> None:
    wanted = units(1, 0)
    assert example_vector(wanted, NONE, "cosine") == pytest.approx(wanted[0], abs=1e-6)
    assert example_vector(3 * wanted, NONE, "cosine") == pytest.approx(wanted[0], abs=1e-6)
    assert example_vector(3 * wanted, NONE, "dot") == pytest.approx(3 * wanted[0], abs=1e-6)


@given(n=st.integers(1, 5), m=st.integers(0, 5), seed=st.integers(0, 1000))
def test_it_is_the_mean_less_half_the_mean_of_the_unwanted(n: int, m: int, seed: int) -> None:
    wanted, unwanted = units(n, seed), units(m, seed + 1)
    expected = wanted.mean(axis=0) - (0.5 * unwanted.mean(axis=0) if m else 0)
    found = example_vector(wanted, unwanted, "cosine")
    assert found.dtype == np.float32
    assert float(np.linalg.norm(found)) == pytest.approx(1, abs=1e-6)
    assert found == pytest.approx(expected / np.linalg.norm(expected), abs=1e-5)
    assert example_vector(wanted, unwanted, "dot") == pytest.approx(expected, abs=1e-6)


@given(n=st.integers(1, 4), m=st.integers(1, 4), seed=st.integers(0, 1000), factor=st.floats(0.01, 100))
def test_of_a_cosine_the_length_of_an_example_is_of_no_matter(n: int, m: int, seed: int, factor: float) -> None:
    wanted, unwanted = units(n, seed), units(m, seed + 1)
    longer = wanted.copy()
    longer[0] *= factor
    expected = example_vector(wanted, unwanted, "cosine")
    assert example_vector(longer, unwanted * factor, "cosine") == pytest.approx(expected, abs=1e-5)


@given(seed=st.integers(0, 1000), likeness=st.floats(-1, 1))
def test_the_wanted_one_stays_nearer_than_the_unwanted_one(seed: int, likeness: float) -> None:
    """However alike the two are; and the unwanted one is farther than it was."""
    wanted, other = units(2, seed)
    across = other - (other @ wanted) * wanted
    across /= np.linalg.norm(across)
    unwanted = likeness * wanted + np.sqrt(1 - likeness**2) * across
    found = example_vector(wanted[None], unwanted[None].astype(np.float32), "cosine")
    assert found @ wanted >= found @ unwanted - 1e-6
    assert found @ wanted > 0.5
    assert found @ unwanted <= wanted @ unwanted + 1e-6


def test_a_text_that_is_wanted_and_unwanted_still_leads_to_itself() -> None:
    wanted = units(1, 3)
    assert example_vector(wanted, wanted, "cosine") == pytest.approx(wanted[0], abs=1e-6)


def test_examples_that_cancel_out_are_an_error_that_says_what_to_do() -> None:
    a, b = units(2, 5)
    opposite = np.stack([a, -a])
    for wanted, unwanted in ((opposite, NONE), (np.stack([a, b, -a, -b]), NONE), (0.5 * a[None], a[None])):
        with pytest.raises(ConfigError, match="cancel each other out") as error:
            example_vector(wanted, unwanted, "dot")
        assert "leave out" in error.value.remedy
    with pytest.raises(ConfigError, match="2 wanted and 0 unwanted examples"):
        example_vector(opposite, NONE, "cosine")


def test_without_a_wanted_example_there_is_nothing_to_look_for() -> None:
    with pytest.raises(ConfigError, match="no example of what to look for"):
        example_vector(NONE, units(2, 0), "cosine")
