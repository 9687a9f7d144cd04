"""Ids of the space and of the query side: what is part of them, what is not, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from esvector.encode.loading import load_encoder
from esvector.encode.profile import EncoderProfile
from esvector.errors import ConfigError, EncoderMismatchError
from tests.support import models
from tests.unit.kinds.cases import CASES, SIDES, TEXTS, TWO_TOWERS, Built, edit, embed


@pytest.mark.parametrize("name", CASES)
def test_ids_are_those_of_a_copy_elsewhere_and_of_the_same_model_loaded_again(
    name: str, built: Built, copy: Callable[[str], Path]
) -> None:
    before = built.encoder(name).profile
    folder = copy(name)
    (folder / "README.md").write_text("another readme")
    after = load_encoder(CASES[name].profile(folder), device="cpu").profile
    assert (after.space_id, after.query_id) == (before.space_id, before.query_id)
    assert not after.differences(before)
    assert load_encoder(after, device="cpu").profile == after


@pytest.mark.parametrize("name", CASES)
def test_a_changed_document_weight_is_another_space_and_is_refused(
    name: str, built: Built, copy: Callable[[str], Path]
) -> None:
    case, before = CASES[name], built.encoder(name).profile
    folder = copy(name)
    models.change_weight(folder / case.document_folder)
    profile = case.profile(folder)
    after = load_encoder(profile, device="cpu").profile
    assert after.space_id != before.space_id
    assert after.query_id != before.query_id
    recorded = replace(before, model=profile.model, query_model=profile.query_model)
    with pytest.raises(EncoderMismatchError, match="weights") as error:
        load_encoder(recorded, device="cpu")
    assert str(before.weights) in str(error.value)
    assert str(after.weights) in str(error.value)


@pytest.mark.parametrize("name", TWO_TOWERS)
def test_a_changed_query_weight_is_another_query_side_of_the_same_space(
    name: str, built: Built, copy: Callable[[str], Path]
) -> None:
    case, before = CASES[name], built.encoder(name).profile
    folder = copy(name)
    models.change_weight(folder / str(case.query_folder))
    profile = case.profile(folder)
    after = load_encoder(profile, device="cpu").profile
    assert after.space_id == before.space_id
    assert after.query_id != before.query_id
    assert set(after.differences(before)) == {"query_weights"}
    recorded = replace(before, model=profile.model, query_model=profile.query_model)
    with pytest.raises(EncoderMismatchError, match="query_weights") as error:
        load_encoder(recorded, "query", "cpu")
    assert str(before.query_weights) in str(error.value)
    assert str(after.query_weights) in str(error.value)
    assert np.array_equal(
        load_encoder(recorded, "document", "cpu").encode_document(TEXTS), embed(built.encoder(name), "document")
    ), "what documents need is untouched"


def test_a_changed_pooling_is_refused(built: Built, copy: Callable[[str], Path]) -> None:
    folder = copy("symmetric")
    edit(folder / "1_Pooling" / "config.json", pooling_mode="cls")
    recorded = replace(built.encoder("symmetric").profile, model=str(folder))
    with pytest.raises(EncoderMismatchError, match="pooling: 'mean' expected, 'cls' found"):
        load_encoder(recorded, device="cpu")


def test_what_is_recorded_wins_over_files_that_changed(built: Built, copy: Callable[[str], Path]) -> None:
    """Prompts and lengths are settings: the index remembers what they were."""
    folder = copy("prompted")
    edit(folder / "config_sentence_transformers.json", prompts={"query": "q: ", "passage": "p: "}, truncate_dim=8)
    edit(folder / "tokenizer_config.json", model_max_length=16)
    edit(folder / "config.json", torch_dtype="bfloat16", transformers_version="4.0.0")
    before = built.encoder("prompted")
    after = load_encoder(replace(before.profile, model=str(folder)), device="cpu")
    assert (after.profile.space_id, after.profile.query_id) == (before.profile.space_id, before.profile.query_id)
    for side in SIDES:
        assert np.array_equal(embed(after, side), embed(before, side))
    fresh = load_encoder(EncoderProfile(str(folder)), device="cpu").profile
    assert set(fresh.differences(before.profile)) == {"query_prompt", "document_prompt", "dims", "max_length"}


@pytest.mark.parametrize(
    ("asked", "space"),
    [
        ({"document_prompt": "d: "}, True),
        ({"max_length": 20}, True),
        ({"dims": 16}, True),
        ({"similarity": "dot"}, True),
        ({"separator": "[SEP]"}, True),
        ({"query_prompt": "q: "}, False),
    ],
)
def test_a_setting_that_decides_vectors_is_in_the_ids(asked: dict[str, Any], space: bool, built: Built) -> None:
    before = built.encoder("symmetric").profile
    after = load_encoder(EncoderProfile(str(built.folder("symmetric")), **asked), device="cpu").profile
    assert (after.space_id != before.space_id) == space
    assert after.query_id != before.query_id


@pytest.mark.parametrize("asked", [{"dtype": "bfloat16"}, {"dtype": "float16"}, {"backend": "onnx"}])
def test_what_computes_the_vectors_is_not(asked: dict[str, str], built: Built) -> None:
    before = built.encoder("symmetric").profile
    after = load_encoder(replace(before, **asked), device="cpu").profile  # type: ignore[arg-type]
    assert (after.space_id, after.query_id) == (before.space_id, before.query_id)
    assert after.dtype == asked.get("dtype", "float32")


def test_a_dtype_to_compute_in(built: Built) -> None:
    with pytest.raises(ConfigError, match="'int8' is not one to encode in"):
        load_encoder(EncoderProfile(str(built.folder("symmetric")), dtype="int8"), device="cpu")
