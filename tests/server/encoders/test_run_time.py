"""Encoders that differ in what no file shows: refused by the probes, or accepted where they are the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers.util import quantize_embeddings

from esvector.encode.encoder import ModelEncoder
from esvector.encode.loading import load_encoder
from esvector.encode.tower import ModelTower
from esvector.errors import EncoderMismatchError
from tests.server.encoders.cases import Indexed, Own, Vectors, assert_ranking, pairs, search_with


def forgets_the_prompt(encoder: ModelEncoder) -> Own:
    bare = load_encoder(replace(encoder.profile, query_prompt=""), device="cpu")
    return Own(encoder, query=bare.encode_query)


def takes_the_other_prompt(encoder: ModelEncoder) -> Own:
    return Own(encoder, query=encoder.encode_document)


def does_not_normalize(encoder: ModelEncoder) -> Own:
    return Own(encoder, query=lambda texts: encoder.encode_query(texts) * np.float32(1.7))


def rounds_by_the_call(encoder: ModelEncoder) -> Own:
    """To 8 bits, as sentence-transformers does it: by the ranges of the texts of one call."""

    def encode(texts: Sequence[str]) -> Vectors:
        return np.asarray(quantize_embeddings(encoder.encode_query(texts), "int8"), np.float32)

    return Own(encoder, query=encode)


def computes_in_eight_bits(encoder: ModelEncoder) -> Own:
    """Weights in an 8-bit floating-point format, as a loader's option can make them."""
    coarse = load_encoder(encoder.profile, device="cpu")
    tower: Any = coarse.towers["query"].tower
    with torch.no_grad():
        for weight in tower.backend.embedder.parameters():
            weight.copy_(weight.to(torch.float8_e5m2).to(weight.dtype))
    return Own(encoder, query=coarse.encode_query)


def reads_less(encoder: ModelEncoder) -> Own:
    """A maximum length set after loading."""
    short = load_encoder(encoder.profile, device="cpu")
    tower = short.towers["query"].tower
    assert isinstance(tower, ModelTower)
    tower.tokenizer.max_length = 16
    return Own(encoder, query=short.encode_query)


@pytest.mark.parametrize(
    ("name", "override"),
    [
        ("prompted", forgets_the_prompt),
        ("prompted", takes_the_other_prompt),
        ("given", forgets_the_prompt),
        ("symmetric", does_not_normalize),
        ("dot", does_not_normalize),
        ("symmetric", rounds_by_the_call),
        ("symmetric", computes_in_eight_bits),
        ("packaged", computes_in_eight_bits),
        ("symmetric", reads_less),
    ],
)
def test_what_changes_an_encoder_at_run_time_is_seen_by_the_probes(
    name: str, override: Callable[[ModelEncoder], Own], indexed: Indexed
) -> None:
    encoder = indexed.encoder(name)
    assert_ranking(pairs(search_with(indexed, name, Own(encoder))), indexed.expected(name)[0])
    with pytest.raises(EncoderMismatchError, match=r"has the right files and settings.*a cosine of 0?-?\d?\.\d+"):
        search_with(indexed, name, override(encoder))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, dtype) for name in ("symmetric", "dot", "prompted", "dual") for dtype in ("bfloat16", "float16")),
        ("router_deep", "float16"),
        ("packaged", "bfloat16"),
    ],
)
def test_the_same_weights_in_half_precision_are_accepted(name: str, dtype: str, indexed: Indexed) -> None:
    half = load_encoder(replace(indexed.encoder(name).profile, dtype=dtype), device="cpu")
    assert_ranking(pairs(search_with(indexed, name, half)), indexed.expected(name)[0], 2e-2)
