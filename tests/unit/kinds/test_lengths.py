"""Where texts are cut, by the model, its tokenizer, its positions or the user, and how they are counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from esvector.encode.loading import load_encoder
from esvector.encode.profile import EncoderProfile
from esvector.errors import ConfigError, EncoderError
from tests.support import models
from tests.unit.kinds.cases import CASES, SIDES, TEXTS, Built, assert_same, cosines, edit, embed, reference, theirs


@pytest.mark.parametrize("name", CASES)
def test_long_texts_are_cut_where_sentence_transformers_cuts_and_counted(name: str, built: Built) -> None:
    case, encoder = CASES[name], built.encoder(name)
    long = " ".join(["water", "stone", "bird"] * 430)
    for side in SIDES:
        batcher = encoder.batcher(side)
        window = batcher.encode(batcher.tower.tokenize([case.prompt(side) + text for text in (long, "water")]))
        bounded = not (name == "router" and side == "query")
        assert window.truncated == (1 if bounded else 0)
        assert window.tokens[0] > 10 * 128
        others = theirs(case, built.folder(name), side, [long])
        if encoder.profile.normalize:
            others = others / np.linalg.norm(others)
        assert_same(window.vectors[:1], others)


def test_tokens_of_documents_are_counted_before_the_cut(built: Built) -> None:
    encoder = built.encoder("prompted")
    tokenizer: Any = AutoTokenizer.from_pretrained(built.folder("prompted"))
    expected = [len(ids) for ids in tokenizer([f"passage: {text}" for text in TEXTS], truncation=False)["input_ids"]]
    assert encoder.count_tokens(TEXTS).tolist() == expected
    assert max(expected) > (encoder.profile.max_length or 0)


def test_each_route_of_a_router_has_its_own_length(built: Built) -> None:
    """sentence-transformers' model.max_seq_length is the longest of all routes."""
    encoder = built.encoder("router_deep")
    assert (encoder.profile.query_max_length, encoder.profile.max_length) == (32, 64)
    text = " ".join(["water"] * 50)
    ends = [f"{text} stone", f"{text} bird"]
    assert np.array_equal(*encoder.encode_query(ends)), "read to the 32nd token"
    assert not np.array_equal(*encoder.encode_document(ends)), "read to the 64th"
    table = built.encoder("router").profile
    assert (table.query_max_length, table.max_length) == (None, 64)


@pytest.mark.parametrize("length", [8, 100, 128])
def test_another_length_than_the_models(length: int, built: Built) -> None:
    folder = built.folder("symmetric")
    encoder = load_encoder(EncoderProfile(str(folder), max_length=length), device="cpu")
    model = reference(folder)
    model.max_seq_length = length
    assert_same(embed(encoder, "document"), np.asarray(model.encode(TEXTS, prompt="")))
    assert encoder.profile.max_length == length
    assert cosines(embed(encoder, "document"), embed(built.encoder("symmetric"), "document")).min() < 0.99


def test_another_length_for_queries(built: Built) -> None:
    asked = replace(built.encoder("router_deep").profile, query_max_length=16, max_length=20)
    encoder = load_encoder(asked, device="cpu")
    for side, length in (("query", 16), ("document", 20)):
        tower = encoder.towers[side].tower  # type: ignore[index]
        assert tower.tokenize(TEXTS).lengths.max() == length


@pytest.mark.parametrize("name", ["symmetric", "dpr", "router_deep"])
def test_a_length_beyond_the_table_of_positions(name: str, built: Built) -> None:
    with pytest.raises(ConfigError, match="max_length is 129, but the model has positions for 128 tokens"):
        load_encoder(CASES[name].profile(built.folder(name), max_length=129), device="cpu")


def test_a_model_that_promises_more_than_its_table_of_positions(copy: Callable[[str], Path]) -> None:
    folder = copy("symmetric")
    edit(folder / "tokenizer_config.json", model_max_length=512)
    encoder = load_encoder(EncoderProfile(str(folder)), device="cpu")
    assert encoder.profile.max_length == 128
    assert_same(embed(encoder, "document"), np.asarray(reference(folder).encode(TEXTS, prompt="")))


def test_a_table_of_tokens_is_not_cut_by_what_its_tokenizer_was_last_used_for(
    built: Built, copy: Callable[[str], Path]
) -> None:
    folder = copy("router")
    file = str(folder / "query_0_StaticEmbedding" / "tokenizer.json")
    tokenizer = Tokenizer.from_file(file)
    tokenizer.enable_truncation(8)
    tokenizer.save(file)
    encoder = load_encoder(EncoderProfile(str(folder)), device="cpu")
    assert np.array_equal(embed(encoder, "query"), embed(built.encoder("router"), "query"))
    assert cosines(embed(encoder, "query"), np.asarray(reference(folder).encode_query(TEXTS))).min() < 0.999
    assert encoder.profile.query_id == built.encoder("router").profile.query_id


def test_a_model_that_is_a_table_of_tokens_alone(built: Built, tmp_path: Path) -> None:
    table = built.folder("router") / "query_0_StaticEmbedding"
    static = StaticEmbedding.load(str(table))
    SentenceTransformer(modules=[static], device="cpu").save_pretrained(str(tmp_path / "table"))
    encoder = load_encoder(EncoderProfile(str(tmp_path / "table")), device="cpu")
    assert_same(embed(encoder, "document"), embed(built.encoder("router"), "query"))
    assert (encoder.profile.pooling, encoder.profile.max_length) == ("static", None)
    with pytest.raises(EncoderError, match="text 2 of 2 cannot be encoded: the text is empty"):
        encoder.encode_query(["water", ""])


def test_a_zero_vector_is_refused_for_cosine_and_kept_for_dot(copy: Callable[[str], Path]) -> None:
    """A table of tokens gives one for words that it knows nothing of."""
    from safetensors.torch import load_file, save_file

    folder = copy("router")
    file = folder / "query_0_StaticEmbedding" / "model.safetensors"
    ((name, table),) = load_file(file).items()
    table[models.vocabulary().index("water")] = 0
    save_file({name: table}, file)
    with pytest.raises(EncoderError, match="text 2 of 2 cannot be encoded: the encoder gave a zero vector"):
        load_encoder(EncoderProfile(str(folder)), "query", "cpu").encode_query(["stone", "water"])
    dot = load_encoder(EncoderProfile(str(folder), similarity="dot"), "query", "cpu")
    stone, water = dot.encode_query(["stone", "water"])
    assert stone.any()
    assert not water.any()


def test_a_model_that_cuts_the_beginning_is_left_to_itself(copy: Callable[[str], Path]) -> None:
    """What direct tokenizing would get wrong is noticed, and goes through sentence-transformers whole."""
    folder = copy("prompted")
    edit(folder / "tokenizer_config.json", truncation_side="left")
    encoder = load_encoder(EncoderProfile(str(folder)), device="cpu")
    for side in SIDES:
        assert_same(embed(encoder, side), theirs(CASES["prompted"], folder, side))
    assert encoder.profile.dims == models.DIMS


def test_a_model_of_any_length_may_cut_the_beginning(tmp_path: Path) -> None:
    """No probe is long enough to show it."""
    folder = models.symmetric(tmp_path, position_limit=4096, max_length=4000)
    edit(folder / "tokenizer_config.json", truncation_side="left")
    encoder = load_encoder(EncoderProfile(str(folder)), device="cpu")
    text = "stone bird " * 50 + "water sea " * 2000
    assert_same(encoder.encode_document([text]), np.asarray(reference(folder).encode([text], prompt="")))
