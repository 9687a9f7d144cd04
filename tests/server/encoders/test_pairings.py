"""Encoders that are not the index's: refused by the facts of their profiles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from esvector.encode.loading import load_encoder
from esvector.encode.profile import EncoderProfile, Side
from esvector.errors import EncoderMismatchError
from tests.server.encoders.cases import CASES, Indexed, Own, edit, search_with
from tests.support import models


def assert_refused(indexed: Indexed, name: str, encoder: Any, *facts: str) -> None:
    """Refused for these facts and no others, with what both sides have of each."""
    expected = indexed.encoder(name).profile
    with pytest.raises(EncoderMismatchError) as error:
        search_with(indexed, name, encoder)
    lines = str(error.value).splitlines()
    for fact in facts:
        ours, found = getattr(expected, fact), getattr(encoder.profile, fact)
        assert f"  {fact}: {ours!r} expected, {found!r} found" in lines
    assert sum(line.startswith("  ") for line in lines) == len(facts), lines
    assert expected.model in lines[0]
    assert encoder.profile.model in lines[0]


def test_another_model(indexed: Indexed, tmp_path: Path) -> None:
    other = models.symmetric(tmp_path / "other", seed=1)
    assert_refused(indexed, "symmetric", load_encoder(EncoderProfile(str(other)), device="cpu"), "weights")


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("symmetric", "document"),
        *((name, side) for name in ("dual", "dpr", "router") for side in ("document", "query")),
    ],
)
def test_one_changed_weight_of_either_tower(
    name: str, side: Side, indexed: Indexed, copy: Callable[[str], Path]
) -> None:
    case, folder = CASES[name], copy(name)
    models.change_weight(folder / (case.query if side == "query" else case.document))
    encoder = load_encoder(case.profile(folder), device="cpu")
    assert_refused(indexed, name, encoder, "query_weights" if side == "query" else "weights")


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("prompted", {"query_prompt": "Query: "}),
        ("prompted", {"document_prompt": ""}),
        ("symmetric", {"query_prompt": "query: "}),
        ("symmetric", {"max_length": 63}),
        ("symmetric", {"separator": "[SEP]"}),
        ("router_deep", {"query_max_length": 31}),
        ("dual", {"max_length": 32}),
    ],
)
def test_another_setting(name: str, asked: dict[str, Any], indexed: Indexed) -> None:
    encoder = load_encoder(CASES[name].profile(indexed.folder(name), **asked), device="cpu")
    assert_refused(indexed, name, encoder, *asked)


def test_fewer_dims(indexed: Indexed) -> None:
    assert_refused(
        indexed, "symmetric", load_encoder(EncoderProfile(str(indexed.folder("symmetric")), dims=16)), "dims"
    )


def test_another_similarity(indexed: Indexed) -> None:
    dot = load_encoder(EncoderProfile(str(indexed.folder("symmetric")), similarity="dot"), device="cpu")
    assert_refused(indexed, "symmetric", dot, "similarity")
    cosine = load_encoder(EncoderProfile(str(indexed.folder("dot")), similarity="cosine"), device="cpu")
    assert_refused(indexed, "dot", cosine, "similarity", "normalize")


@pytest.mark.parametrize(("name", "fact"), [("symmetric", "pooling"), ("dual", "pooling"), ("dual", "query_pooling")])
def test_another_pooling(name: str, fact: str, indexed: Indexed, copy: Callable[[str], Path]) -> None:
    folder, case = copy(name), CASES[name]
    below = folder / (case.query if fact == "query_pooling" else case.document)
    edit(below / "1_Pooling" / "config.json", pooling_mode="max")
    assert_refused(indexed, name, load_encoder(case.profile(folder), device="cpu"), fact)


def test_one_tower_where_two_made_the_index_and_two_where_one_did(indexed: Indexed) -> None:
    one, two = indexed.encoder("symmetric"), indexed.encoder("router")
    # The document towers of both have the same weights in another layout.
    one_sided = replace(two.profile, query_weights=None, query_pooling=None, query_max_length=None)
    assert_refused(indexed, "router", Own(one, replace(one_sided)), "query_weights", "query_pooling")
    two_sided = replace(one.profile, query_weights=two.profile.query_weights, query_pooling="static")
    assert_refused(indexed, "symmetric", Own(two, two_sided), "query_weights", "query_pooling")
    for name, encoder in (("router", one), ("symmetric", two)):
        with pytest.raises(EncoderMismatchError, match="query_weights"):
            search_with(indexed, name, encoder)
