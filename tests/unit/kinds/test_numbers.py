"""Number formats to compute in, and vectors cut to fewer dims."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from esvector.encode.loading import load_encoder
from esvector.encode.profile import EncoderProfile
from esvector.encode.tower import ModelTower
from esvector.errors import ConfigError
from tests.support import models
from tests.unit.kinds.cases import CASES, SIDES, TEXTS, Built, assert_same, cosines, edit, embed, reference

# Number formats


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_checkpoint_of_two_bytes_a_weight_is_computed_in_four(dtype: Any, tmp_path: Path) -> None:
    folder = models.half_precision(tmp_path, dtype)
    encoder = load_encoder(EncoderProfile(str(folder)), device="cpu")
    tower = encoder.towers["document"].tower
    assert isinstance(tower, ModelTower)
    assert tower.backend.dtype == encoder.profile.dtype == "float32"
    assert_same(embed(encoder, "document"), np.asarray(reference(folder).encode(TEXTS, prompt="")))


@pytest.mark.parametrize("name", ["symmetric", "instructor", "last_token", "router", "router_deep"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_gives_unit_vectors_all_the_same(name: str, dtype: str, built: Built) -> None:
    encoder = load_encoder(CASES[name].profile(built.folder(name), dtype=dtype), device="cpu")
    for side in SIDES:
        tower = encoder.towers[side].tower
        assert isinstance(tower, ModelTower)
        assert tower.backend.dtype == dtype
        vectors = embed(encoder, side)
        assert vectors.dtype == np.float32
        assert np.isfinite(vectors).all()
        assert np.abs((vectors.astype(np.float64) ** 2).sum(axis=1) - 1).max() < 1e-6
        assert cosines(vectors, embed(built.encoder(name), side)).min() > 0.99
        tokens = tower.tokenize([encoder.profile.query_input(text) for text in TEXTS])
        raw = tower.backend.collect([tower.backend.forward(*tokens.padded(np.arange(len(TEXTS))))])
        assert np.abs((raw.astype(np.float64) ** 2).sum(axis=1) - 1).max() > 1e-6, "the model's own are not"


# Dims


@pytest.mark.parametrize("name", ["symmetric", "instructor", "router"])
def test_cut_vectors_are_those_of_sentence_transformers_at_unit_length(name: str, built: Built) -> None:
    case, folder = CASES[name], built.folder(name)
    encoder = load_encoder(case.profile(folder, dims=16), device="cpu")
    model = reference(folder, truncate_dim=16)
    for side in SIDES:
        encode = model.encode_query if side == "query" else model.encode_document
        vectors = embed(encoder, side)
        assert vectors.shape == (len(TEXTS), 16)
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
        assert_same(vectors, np.asarray(encode(TEXTS, prompt=case.prompt(side), normalize_embeddings=True)))


def test_cut_vectors_of_a_dot_product_keep_their_length(built: Built) -> None:
    encoder = load_encoder(EncoderProfile(str(built.folder("asymmetric")), dims=16), device="cpu")
    assert np.array_equal(embed(encoder, "document"), embed(built.encoder("asymmetric"), "document")[:, :16])


def test_dims_that_the_model_ships(built: Built, copy: Callable[[str], Path]) -> None:
    folder = copy("symmetric")
    edit(folder / "config_sentence_transformers.json", truncate_dim=16)
    assert load_encoder(EncoderProfile(str(folder)), device="cpu").profile.dims == 16
    assert load_encoder(EncoderProfile(str(folder), dims=32), device="cpu").profile.dims == 32


@pytest.mark.parametrize("name", ["symmetric", "dual", "router"])
def test_more_dims_than_the_model_has(name: str, built: Built) -> None:
    with pytest.raises(ConfigError, match=r"dims is 33, but .* gives 32"):
        load_encoder(CASES[name].profile(built.folder(name), dims=33), device="cpu")
