"""Texts laid end to end, on the CPU: the same vectors as with padding. The kernel for GPUs is not run here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from esvector.encode.backends.torch import TorchBackend
from esvector.encode.loading import load_encoder
from esvector.encode.profile import EncoderProfile
from esvector.encode.tower import ModelTower
from tests.support import models


def document_tower(folder: Path, **asked: Any) -> tuple[ModelTower, TorchBackend]:
    tower = load_encoder(EncoderProfile(str(folder), **asked), device="cpu").towers["document"].tower
    assert isinstance(tower, ModelTower)
    assert isinstance(tower.backend, TorchBackend)
    return tower, tower.backend


@pytest.mark.parametrize("build", [models.symmetric, models.dot_trained, models.last_token, models.instructor])
def test_a_batch_laid_end_to_end_gives_the_vectors_of_the_padded_one(
    build: Callable[[Path], Path], tmp_path: Path
) -> None:
    tower, backend = document_tower(build(tmp_path / build.__name__))
    texts = models.words(24, 3)
    ids, mask = tower.tokenize(texts).padded(np.arange(len(texts)))
    expected = backend.forward(ids, mask)
    laid = backend.embedder.end_to_end()
    assert laid.possible
    laid.replace_attention()
    with torch.inference_mode():
        found = laid.forward(ids, mask, torch.from_numpy)
    assert torch.allclose(found, expected, atol=1e-5)
    laid.restore_attention()
    assert torch.equal(backend.forward(ids, mask), expected)


def test_padded_batches_are_never_run_without_their_mask(tmp_path: Path) -> None:
    tower, backend = document_tower(models.symmetric(tmp_path / "model"))
    laid = backend.embedder.end_to_end()
    laid.replace_attention()
    ids, mask = tower.tokenize(["one", "two words more"]).padded(np.arange(2))
    with pytest.raises(ValueError, match="does not pass on where its texts begin"):
        backend.forward(ids, mask)


def test_the_copy_in_float32_has_padding_again(tmp_path: Path) -> None:
    tower, backend = document_tower(models.symmetric(tmp_path / "model"), dtype="bfloat16")
    laid = backend.embedder.end_to_end()
    laid.replace_attention()
    backend._end_to_end = laid
    exact = backend.exact()
    ids, mask = tower.tokenize(["one", "two words more"]).padded(np.arange(2))
    assert exact.dtype == "float32"
    together = exact.collect([exact.forward(ids, mask)])
    alone = exact.collect([exact.forward(ids[:1, : mask[0].sum()], mask[:1, : mask[0].sum()])])
    assert np.allclose(together[0], alone[0], atol=1e-5)
    assert np.isfinite(backend.collect([backend.forward(ids, mask)])).all()


def test_both_sides_of_one_model_attend_alike(tmp_path: Path) -> None:
    """They share its modules: the attention that one side has replaced is that of the other, too."""
    folder = models.prompted(tmp_path / "model")
    expected = load_encoder(EncoderProfile(str(folder)), device="cpu")
    encoder = load_encoder(EncoderProfile(str(folder)), device="cpu")
    document, query = (encoder.towers[side].tower for side in ("document", "query"))
    assert isinstance(document, ModelTower)
    assert isinstance(query, ModelTower)
    assert isinstance(document.backend, TorchBackend)
    assert isinstance(query.backend, TorchBackend)
    laid = document.backend.embedder.end_to_end()
    laid.replace_attention()
    document.backend._end_to_end = laid
    query.backend.attend_as(document.backend)
    texts = models.words(9, 6)
    assert np.allclose(encoder.encode_query(texts), expected.encode_query(texts), atol=1e-5)
    assert np.allclose(encoder.encode_document(texts), expected.encode_document(texts), atol=1e-5)


def test_a_table_of_tokens_is_not_laid_end_to_end(tmp_path: Path) -> None:
    encoder = load_encoder(EncoderProfile(str(models.router(tmp_path / "router"))), "query", "cpu")
    tower = encoder.towers["query"].tower
    assert isinstance(tower, ModelTower)
    assert isinstance(tower.backend, TorchBackend)
    assert not tower.backend.embedder.end_to_end().possible
