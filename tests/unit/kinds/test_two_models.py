"""Two models that make one encoder, and their partners."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from esvector.encode.loading import load_encoder
from esvector.encode.profile import EncoderProfile, Side
from esvector.errors import EncoderError
from tests.support import models
from tests.unit.kinds.cases import CASES, SIDES, Built, edit, embed


def test_two_models_of_different_dims(built: Built, tmp_path: Path) -> None:
    other = models.symmetric(tmp_path, dims=16)
    with pytest.raises(EncoderError, match="document tower has 32 dims, the query tower 16"):
        load_encoder(EncoderProfile(str(built.folder("symmetric")), query_model=str(other)), device="cpu")


def test_the_partner_of_a_passage_model_of_dpr_is_found_beside_it(built: Built, tmp_path: Path) -> None:
    for ours, published in (("question", "question"), ("context", "ctx")):
        shutil.copytree(built.folder("dpr") / ours, tmp_path / f"dpr-{published}_encoder-single-nq-base")
    encoder = load_encoder(EncoderProfile(str(tmp_path / "dpr-ctx_encoder-single-nq-base")), device="cpu")
    assert encoder.profile.kind == "dual"
    assert set(encoder.profile.differences(built.encoder("dpr").profile)) == {"separator"}
    assert encoder.profile.separator == " [SEP] "
    for side in SIDES:
        assert np.array_equal(embed(encoder, side), embed(built.encoder("dpr"), side))


def test_a_dpr_folder_that_lacks_weights_is_not_filled_by_chance(copy: Callable[[str], Path]) -> None:
    from safetensors.torch import load_file, save_file

    folder = copy("dpr")
    weights = folder / "context" / "model.safetensors"
    tensors = load_file(weights)
    gone = next(name for name in tensors if "layer.1.output.dense.weight" in name)
    del tensors[gone]
    save_file(tensors, weights)
    with pytest.raises(EncoderError, match=r"lacks 1 weights of a DPR encoder, such as encoder\.layer\.1"):
        load_encoder(CASES["dpr"].profile(folder), device="cpu")


def test_a_dpr_that_projects_is_refused(copy: Callable[[str], Path]) -> None:
    folder = copy("dpr")
    edit(folder / "context" / "config.json", projection_dim=16)
    with pytest.raises(EncoderError, match="projects its vectors"):
        load_encoder(CASES["dpr"].profile(folder), device="cpu")


@pytest.mark.parametrize(
    "side",
    [None, "query"],
)
def test_the_query_prompt_of_two_models_is_that_of_the_question_model(
    side: Side | None, copy: Callable[[str], Path]
) -> None:
    folder = copy("dual")
    edit(folder / "query" / "config_sentence_transformers.json", prompts={"query": "ask: "})
    edit(folder / "document" / "config_sentence_transformers.json", prompts={"passage": "tell: "})
    profile = load_encoder(CASES["dual"].profile(folder), side, "cpu").profile
    assert profile.query_prompt == "ask: "
    if side is None:
        assert profile.document_prompt == "tell: "
