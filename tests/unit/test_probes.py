"""Probes: what counts as the same encoder at work, and what does not."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from esvector.encode.encoder import ModelEncoder
from esvector.encode.loading import load_encoder
from esvector.encode.probes import LEAST_AGREEMENT, PROBES, agreement, pack_probes, unpack_probes
from esvector.encode.profile import EncoderProfile
from esvector.encode.tower import unit_length
from esvector.errors import ConfigError
from tests.support import models

MINILM = EncoderProfile("sentence-transformers/all-MiniLM-L6-v2")


@pytest.fixture(scope="module")
def minilm() -> ModelEncoder:
    return load_encoder(MINILM, device="cpu")


@pytest.fixture(scope="module")
def recorded(minilm: ModelEncoder) -> NDArray[np.float32]:
    """What a passport would keep."""
    return unpack_probes(pack_probes(minilm.encode_query(PROBES)), 384)


def test_what_is_packed_can_be_read_by_another_machine() -> None:
    vectors = np.array([[0.5, -1.0, 2.0], [0.0, 65504.0, 6e-5]], np.float32)
    packed = pack_probes(vectors)
    assert base64.b64decode(packed[0]) == b"\x00\x38\x00\xbc\x00\x40", "little-endian float16"
    assert np.allclose(unpack_probes(packed, 3), vectors, rtol=1e-3)
    assert unpack_probes(packed, 3).dtype == np.float32
    assert unpack_probes([], 3).shape == (0, 3)


@pytest.mark.parametrize("damage", ["not base64!", "AAA", "AAAA", 7, None])
def test_damaged_probes_are_said_to_be_damaged(damage: object) -> None:
    with pytest.raises(ConfigError, match=r"probes of the passport.*\n.*index the documents again"):
        unpack_probes([damage], 3)  # type: ignore[list-item]


def test_the_same_encoder_agrees_with_what_was_written(minilm: ModelEncoder, recorded: NDArray[np.float32]) -> None:
    found = agreement(minilm.encode_query(PROBES), recorded)
    assert (found > 0.99999).all()
    assert found.shape == (len(PROBES),)


@pytest.mark.parametrize("dtype", ["bfloat16"])  # float16 takes half a minute on a CPU
def test_another_number_format_is_the_same_encoder(dtype: str, recorded: NDArray[np.float32]) -> None:
    # The longest probe is what takes the time, and shows no more than the others.
    encoder = load_encoder(replace(MINILM, dtype=dtype), device="cpu")
    found = agreement(encoder.encode_query(PROBES[:-1]), recorded[:-1])
    assert (found >= LEAST_AGREEMENT).all()
    assert (found < 1).any(), "it was another format"


def test_a_forgotten_prompt_is_another_encoder(minilm: ModelEncoder, recorded: NDArray[np.float32]) -> None:
    wrong = minilm.encode_query([f"query: {probe}" for probe in PROBES])
    assert agreement(wrong, recorded).min() < 0.99
    assert (agreement(wrong, recorded) < LEAST_AGREEMENT).sum() >= len(PROBES) - 1, "all but the longest, at least"


def test_another_maximum_length_shows(recorded: NDArray[np.float32]) -> None:
    shorter = load_encoder(replace(MINILM, max_length=128), device="cpu")
    assert (agreement(shorter.encode_query(PROBES), recorded) < LEAST_AGREEMENT).sum() == 1, "the long one"


def test_a_lost_normalization_is_another_encoder(tmp_path: Path) -> None:
    raw = load_encoder(EncoderProfile(str(models.dot_trained(tmp_path))), device="cpu").encode_query(PROBES)
    unit = unit_length(raw)
    assert (agreement(unit, unpack_probes(pack_probes(raw), models.DIMS)) < LEAST_AGREEMENT).all()
    assert (agreement(raw, unpack_probes(pack_probes(unit), models.DIMS)) < LEAST_AGREEMENT).all()
    assert (agreement(raw, unpack_probes(pack_probes(raw), models.DIMS)) > LEAST_AGREEMENT).all()


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ([3, 4], [3, 4], 1.0),
        ([3, 4], [3.02, 4.02], 1.0),  # rounding, not another scale
        ([3, 4], [6, 8], 0.5),
        ([6, 8], [3, 4], 0.5),
        ([1, 0], [0, 1], 0.0),
        ([1, 0], [-1, 0], -1.0),
        ([0, 0], [0, 0], 1.0),  # a table of tokens knows none of this text: still the same table
        ([0, 0], [1, 0], -1.0),
        ([1, 0], [0, 0], -1.0),
        ([np.nan, 1], [1, 0], -1.0),
        ([np.nan, 1], [np.nan, 1], -1.0),
        ([np.inf, 1], [1, 0], -1.0),
    ],
)
def test_agreement(ours: list[float], theirs: list[float], expected: float) -> None:
    found = agreement(np.array([ours], np.float32), np.array([theirs], np.float32))
    assert found == pytest.approx([expected], abs=1e-4)


def test_probes_differ_from_each_other_and_the_last_is_long(recorded: NDArray[np.float32]) -> None:
    products = recorded @ recorded.T
    assert products[~np.eye(len(PROBES), dtype=bool)].max() < 0.6
    assert 128 < len(PROBES[-1].split()) < 256
