"""Half precision, on the CPU: what sentence-transformers makes of the same model in the same number format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from esvector.encode.loading import load_encoder
from esvector.encode.profile import EncoderProfile
from esvector.encode.tower import ModelTower, unit_length
from tests.support import models

LONG = [" ".join(models.WORDS[start : start + 200]) for start in (0, 40, 80)]


def tower_of(folder: Path, dtype: str) -> tuple[ModelTower, torch.nn.Module]:
    tower = load_encoder(EncoderProfile(str(folder), dtype=dtype), "document", "cpu").towers["document"].tower
    assert isinstance(tower, ModelTower)
    return tower, tower.backend.embedder  # type: ignore[attr-defined]


def rotary(folder: Path) -> Path:
    return models.last_token(folder, max_length=256, position_limit=256)


@pytest.mark.parametrize("build", [rotary, models.modern])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rotary_frequencies_are_never_rounded(build: Callable[[Path], Path], dtype: str, tmp_path: Path) -> None:
    _, embedder = tower_of(build(tmp_path / "model"), dtype)
    found = {name: buffer.dtype for name, buffer in embedder.named_buffers() if "inv_freq" in name}
    assert found
    assert set(found.values()) == {torch.float32}


def test_what_overflows_in_float16_stays_in_float32(tmp_path: Path) -> None:
    """T5's last matrix of each feed-forward, which transformers keeps in float32 for that reason."""
    _, embedder = tower_of(models.t5(tmp_path / "model"), "float16")
    kinds = {name: weight.dtype for name, weight in embedder.named_parameters()}
    assert {kind for name, kind in kinds.items() if ".wo." in name} == {torch.float32}
    assert {kind for name, kind in kinds.items() if ".wi." in name} == {torch.float16}


@pytest.mark.parametrize("build", [rotary, models.modern, models.roberta, models.mpnet, models.t5])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_vectors_are_those_of_sentence_transformers(build: Callable[[Path], Path], dtype: str, tmp_path: Path) -> None:
    folder = build(tmp_path / "model")
    tower, _ = tower_of(folder, dtype)
    kind: dict[str, Any] = {"dtype": getattr(torch, dtype)}
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True, model_kwargs=kind)
    for text in LONG:
        ours = tower.collect([tower.forward(tower.tokenize([text]), np.arange(1))])
        theirs = model.encode([text], prompt="", convert_to_tensor=True).float().cpu().numpy()
        assert np.allclose(unit_length(ours), unit_length(theirs), atol=1e-6)


@pytest.mark.parametrize("build", [models.roberta, models.mpnet])
def test_a_text_never_reads_positions_that_the_model_lacks(build: Callable[..., Path], tmp_path: Path) -> None:
    """Its positions begin after the padding index: 34 of them take 32 tokens, whatever the tokenizer says."""
    encoder = load_encoder(
        EncoderProfile(str(build(tmp_path / "model", max_length=34, position_limit=34))), device="cpu"
    )
    assert encoder.profile.max_length == 32
    vectors = encoder.encode_document([LONG[0], LONG[0] + " much more of it"])
    assert np.isfinite(vectors).all()
    assert np.allclose(vectors[0], vectors[1], atol=1e-6)
