"""One contract for every kind of encoder: the vectors of sentence-transformers, from one profile, side by side."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from esvector.encode.loading import load_encoder
from esvector.encode.profile import EncoderProfile, Side
from esvector.encode.tower import ModelTower
from esvector.errors import EncoderError
from tests.support import models
from tests.unit.kinds.cases import (
    CASES,
    ONE_TOWER,
    SIDES,
    TEXTS,
    TWO_TOWERS,
    Built,
    assert_same,
    cosines,
    embed,
    theirs,
)

# The contract


@pytest.mark.parametrize("name", CASES)
def test_vectors_are_those_of_sentence_transformers(name: str, built: Built) -> None:
    case, encoder = CASES[name], built.encoder(name)
    for side in SIDES:
        vectors, others = embed(encoder, side), theirs(case, built.folder(name), side)
        if encoder.profile.similarity == "cosine":
            assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
            others = others / np.linalg.norm(others, axis=1, keepdims=True)
        assert_same(vectors, others)
        assert vectors.dtype == np.float32
        assert vectors.shape == (len(TEXTS), encoder.profile.dims)


@pytest.mark.parametrize("name", CASES)
def test_sides_differ_where_they_should(name: str, built: Built) -> None:
    encoder = built.encoder(name)
    query, document = embed(encoder, "query"), embed(encoder, "document")
    if name in ("symmetric", "asymmetric"):
        assert np.array_equal(query, document)
    else:
        assert cosines(query, document).max() < 0.9999


@pytest.mark.parametrize("name", CASES)
def test_the_profile_is_complete_and_says_what_it_is(name: str, built: Built) -> None:
    case, profile = CASES[name], built.encoder(name).profile
    assert profile.kind == case.kind
    assert (profile.query_prompt, profile.document_prompt) == (case.query_prompt, case.document_prompt)
    assert profile.two_towers == (name in TWO_TOWERS)
    missing = {field for field in EncoderProfile.__slots__ if getattr(profile, field) is None}
    absent = {"revision", "query_revision"} | (set() if case.two_models else {"query_model"})
    if name in ONE_TOWER:
        absent |= {"query_weights", "query_pooling", "query_max_length"}
    if name == "router":  # a table of tokens reads everything
        absent |= {"query_max_length"}
    assert missing == absent
    assert profile.dims == (models.DENSE_DIMS if name == "instructor" else models.DIMS)
    assert profile.similarity == ("dot" if name in ("asymmetric", "dual", "dpr") else "cosine")
    assert profile.normalize == (profile.similarity == "cosine")
    assert (profile.dtype, profile.family, profile.separator) == ("float32", "", " ")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("symmetric", ("mean", None)),
        ("asymmetric", ("cls", None)),
        ("instructor", ("mean without prompt", None)),
        ("last_token", ("lasttoken", None)),
        ("dual", ("cls", "cls")),
        ("dpr", ("cls", "cls")),
        ("router", ("mean", "static")),
        ("router_deep", ("mean", "mean")),
    ],
)
def test_pooling(name: str, expected: tuple[str, str | None], built: Built) -> None:
    profile = built.encoder(name).profile
    assert (profile.pooling, profile.query_pooling) == expected


@pytest.mark.parametrize("name", CASES)
def test_every_kind_is_tokenized_directly(name: str, built: Built) -> None:
    assert all(isinstance(loaded.tower, ModelTower) for loaded in built.encoder(name).towers.values())


@pytest.mark.parametrize("name", CASES)
def test_a_text_alone_or_among_others_has_the_same_vector(name: str, built: Built) -> None:
    for side in SIDES:
        alone = np.concatenate([embed(built.encoder(name), side, [text]) for text in TEXTS])
        assert_same(alone, embed(built.encoder(name), side))


@pytest.mark.parametrize("name", CASES)
def test_no_texts(name: str, built: Built) -> None:
    for side in SIDES:
        assert embed(built.encoder(name), side, []).shape == (0, built.encoder(name).profile.dims)


# One side alone


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", TWO_TOWERS)
def test_one_side_needs_nothing_of_the_other(name: str, side: Side, built: Built, copy: Callable[[str], Path]) -> None:
    case, whole = CASES[name], built.encoder(name)
    folder = copy(name)
    other: Side = "document" if side == "query" else "query"
    gone = folder / str(case.query_folder if other == "query" else case.document_folder)
    if case.two_models:
        shutil.rmtree(gone)
    else:
        for file in gone.iterdir():
            file.unlink()
    recorded = replace(whole.profile, model=case.profile(folder).model, query_model=case.profile(folder).query_model)
    encoder = load_encoder(recorded, side, "cpu")
    assert np.array_equal(embed(encoder, side), embed(whole, side))
    assert (encoder.profile.space_id, encoder.profile.query_id) == (whole.profile.space_id, whole.profile.query_id)
    assert not encoder.profile.differences(whole.profile)
    assert set(encoder.towers) == {side}
    with pytest.raises(EncoderError, match=f"the {other} side of .* is not loaded\n.*side='{other}'"):
        embed(encoder, other)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", ONE_TOWER)
def test_one_tower_serves_both_sides_whichever_was_asked_for(name: str, side: Side, built: Built) -> None:
    encoder = load_encoder(CASES[name].profile(built.folder(name)), side, "cpu")
    for each in SIDES:
        assert np.array_equal(embed(encoder, each), embed(built.encoder(name), each))
    assert encoder.profile == built.encoder(name).profile


def test_one_side_of_a_router_has_no_weights_of_the_other(built: Built) -> None:
    from esvector.encode.backends.torch import TorchBackend

    sizes = {}
    for side in SIDES:
        tower = load_encoder(built.encoder("router_deep").profile, side, "cpu").towers[side].tower
        assert isinstance(tower, ModelTower)
        assert isinstance(tower.backend, TorchBackend)
        names = [name for name, _ in tower.backend.embedder.named_parameters() if ".layer." in name]
        sizes[side] = len({name.split(".layer.")[1][0] for name in names})
    assert sizes == {"query": 1, "document": 2}
