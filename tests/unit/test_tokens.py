"""Tokenizing without transformers: the ids of its wrapper, cut as it cuts, with nothing lost on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from esvector.encode.tokens import TextTokenizer, Tokens, token_batches
from tests.support import models

LENGTH = 12
TEXTS = ["", "water", "Zürich, 1997: wholly un-known 人工 wordings?", "a\x00b\n\tc", *models.words(20, seed=5)]
# Words of the vocabulary, pieces of words, and whatever else a document may hold: but for halves of a surrogate pair.
_ANYTHING = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
ANY_TEXT = st.lists(st.one_of(st.sampled_from(models.WORDS), _ANYTHING), max_size=20).map(" ".join)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.symmetric(tmp_path_factory.mktemp("tokens") / "symmetric")


@pytest.fixture(scope="module")
def wrapper(folder: Path) -> Any:
    """What sentence-transformers tokenizes with."""
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


@pytest.fixture(scope="module")
def rust(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def each(tokens: Tokens) -> list[list[int]]:
    return [tokens.ids[start:end].tolist() for start, end in zip(tokens.starts, tokens.starts[1:], strict=False)]


@pytest.mark.parametrize("length", [None, 3, LENGTH, 500])
def test_ids_are_those_of_the_wrapper(length: int | None, wrapper: Any, rust: Tokenizer) -> None:
    tokens = TextTokenizer(rust, length)(TEXTS)
    theirs = wrapper(TEXTS, truncation=length is not None, max_length=length)["input_ids"]
    assert each(tokens) == theirs
    assert tokens.lengths.tolist() == [len(ids) for ids in theirs]
    assert tokens.counts.tolist() == [len(ids) for ids in wrapper(TEXTS, truncation=False)["input_ids"]]
    assert [array.dtype.name for array in (tokens.ids, tokens.starts, tokens.counts)] == ["int32", "int64", "int64"]
    assert len(tokens) == len(TEXTS)
    assert not tokens.refused


@settings(max_examples=100)
@given(texts=st.lists(ANY_TEXT, min_size=1, max_size=5))
def test_ids_are_those_of_the_wrapper_for_any_text(texts: list[str], wrapper: Any, rust: Tokenizer) -> None:
    tokens = TextTokenizer(rust, LENGTH)(texts)
    assert each(tokens) == wrapper(texts, truncation=True, max_length=LENGTH)["input_ids"]
    assert tokens.counts.tolist() == [len(ids) for ids in wrapper(texts, truncation=False)["input_ids"]]


def test_without_special_tokens_the_text_begins_at_once(wrapper: Any, rust: Tokenizer) -> None:
    tokens = TextTokenizer(rust, 5, special_tokens=False)(TEXTS)
    theirs = wrapper(TEXTS, add_special_tokens=False)["input_ids"]
    assert each(tokens) == [ids[:5] for ids in theirs]
    assert tokens.counts.tolist() == [len(ids) for ids in theirs]
    assert tokens.lengths[0] == 0, "an empty text has no tokens"


def test_what_a_tokenizer_json_says_of_cutting_and_padding_is_not_obeyed(folder: Path, rust: Tokenizer) -> None:
    facts = json.loads((folder / "tokenizer.json").read_text())
    facts["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    facts["padding"] = {
        "strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]",
    }  # fmt: skip
    bound = Tokenizer.from_str(json.dumps(facts))
    assert len(bound.encode("water " * 20)) == 9
    assert each(TextTokenizer(bound, 30)(TEXTS)) == each(TextTokenizer(rust, 30)(TEXTS))
    assert len(bound.encode("water " * 20)) == 9, "the tokenizer at hand is used by others, too"


def test_a_tokenizer_that_splits_special_tokens_goes_on_doing_so(rust: Tokenizer) -> None:
    splitting = Tokenizer.from_str(rust.to_str())
    splitting.encode_special_tokens = True
    text = "water [SEP] stone"
    assert each(TextTokenizer(splitting, 30)([text])) == [splitting.encode(text).ids]
    assert splitting.encode(text).ids != rust.encode(text).ids


@pytest.mark.parametrize("bad", ["half \ud83d a pair", "\udc00", None, 7])
def test_what_cannot_be_tokenized_is_refused_alone(bad: Any, rust: Tokenizer) -> None:
    tokenizer = TextTokenizer(rust, LENGTH)
    tokens = tokenizer(["water", bad, "over stone", bad])
    good = tokenizer(["water", "over stone"])
    assert set(tokens.refused) == {1, 3}
    what = "half a surrogate pair" if isinstance(bad, str) else f"a {type(bad).__name__} cannot"
    assert all(what in reason for reason in tokens.refused.values())
    assert each(tokens) == [each(good)[0], [], each(good)[1], []]
    assert tokens.counts.tolist() == [good.counts[0], 0, good.counts[1], 0]


def test_an_emoji_is_no_half_pair(rust: Tokenizer) -> None:
    assert not TextTokenizer(rust, LENGTH)(["🚀 water"]).refused


def test_no_texts() -> None:
    tokens = TextTokenizer(models._tokenizer(), LENGTH)([])
    assert (len(tokens), tokens.ids.size, tokens.starts.tolist()) == (0, 0, [0])
    ids, mask = tokens.padded(np.array([], np.intp))
    assert ids.shape == mask.shape == (0, 0)


def test_padding_on_the_right_in_the_order_asked(wrapper: Any, rust: Tokenizer) -> None:
    tokens = TextTokenizer(rust, LENGTH)(TEXTS)
    rows = np.array([6, 1, 3, 1])
    ids, mask = tokens.padded(rows, pad=4)
    theirs = wrapper([TEXTS[row] for row in rows], padding=True, truncation=True, max_length=LENGTH)
    assert mask.tolist() == theirs["attention_mask"]
    assert ids.tolist() == np.where(mask == 1, theirs["input_ids"], 4).tolist()
    assert (ids.dtype.name, mask.dtype.name) == ("int64", "int64")


def test_some_of_the_texts_in_another_order(rust: Tokenizer) -> None:
    tokens = TextTokenizer(rust, LENGTH)(["water", "\ud83d", *TEXTS])
    rows = np.array([5, 1, 0, 5, 7])
    part = tokens.select(rows)
    assert each(part) == [each(tokens)[row] for row in rows]
    assert part.counts.tolist() == tokens.counts[rows].tolist()
    assert part.refused == {1: tokens.refused[1]}
    assert len(tokens.select(np.array([], np.intp))) == 0


def test_a_text_without_tokens_is_all_padding(rust: Tokenizer) -> None:
    tokens = TextTokenizer(rust, LENGTH, special_tokens=False)(["water stone", ""])
    ids, mask = tokens.padded(np.array([1, 0]))
    assert mask.tolist() == [[0, 0], [1, 1]]
    assert ids[0].tolist() == [0, 0]


@pytest.mark.parametrize(("special", "expected"), [(True, 3), (False, 2)])
def test_the_length_of_a_prompt_leaves_out_what_ends_an_input(special: bool, expected: int, rust: Tokenizer) -> None:
    tokenizer = TextTokenizer(rust, LENGTH, special_tokens=special)
    assert tokenizer.prompt_length("query: ") == expected
    assert each(tokenizer(["query: water"]))[0][expected] == each(tokenizer(["water"]))[0][1 if special else 0]


def test_the_tokenizer_as_a_file_is_the_same_tokenizer(rust: Tokenizer) -> None:
    tokenizer = TextTokenizer(rust, LENGTH)
    again = TextTokenizer(Tokenizer.from_str(tokenizer.json), LENGTH)
    assert each(again(TEXTS)) == each(tokenizer(TEXTS))


def test_batches_hold_every_row_once_within_the_budget_longest_first() -> None:
    lengths = np.random.default_rng(2).integers(1, 300, 400)
    batches = list(token_batches(lengths, 1024))
    assert sorted(np.concatenate(batches)) == list(range(400))
    assert all(len(batch) * lengths[batch].max() <= 1024 for batch in batches)
    ordered = lengths[np.concatenate(batches)]
    assert (np.diff(ordered) <= 0).all(), "running out of memory is to show at once"
    assert sum(len(batch) * lengths[batch].max() for batch in batches) / lengths.sum() < 1.1


def test_a_text_longer_than_the_budget_is_a_batch_of_its_own() -> None:
    assert [list(batch) for batch in token_batches(np.array([5000, 10, 10]), 1000)] == [[0], [1, 2]]


@pytest.mark.parametrize("lengths", [[], [0, 0]])
def test_batches_of_nothing(lengths: list[int]) -> None:
    batches = list(token_batches(np.array(lengths, np.int64), 100))
    assert [list(batch) for batch in batches] == ([[0, 1]] if lengths else [])


@settings(max_examples=200)
@given(lengths=st.lists(st.integers(0, 600), max_size=60), budget=st.integers(1, 2000))
def test_no_mix_of_lengths_loses_a_row(lengths: list[int], budget: int) -> None:
    array = np.array(lengths, np.int64)
    batches = list(token_batches(array, budget))
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert all(len(batch) == 1 or len(batch) * array[batch].max() <= budget for batch in batches)
