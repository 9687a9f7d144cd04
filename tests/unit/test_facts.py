"""Where each fact of a profile comes from: the user, else the model's files, else a preset."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from esvector.encode import facts as collecting
from esvector.encode.facts import Facts, TowerFacts, complete
from esvector.encode.layout import Layout, ModuleRef
from esvector.encode.models import ModelFiles
from esvector.encode.presets import preset_named
from esvector.encode.profile import EncoderProfile
from esvector.errors import ConfigError, EncoderError

BGE = preset_named("bge").query_prompt
GEMMA = preset_named("embeddinggemma")


def stated(asked: EncoderProfile, layout: Layout, name: str) -> Facts:
    """What is stated of one model that serves both sides."""
    return collecting.stated(asked, {"document": layout, "query": layout}, {"document": name, "query": name})


def layout(**stated: Any) -> Layout:
    empty = Layout(
        path=Path("/a/model"),
        modules=(ModuleRef("sentence_transformers.models.Transformer", ""),),
        routes=None,
        prompts={},
        similarity=None,
        truncate_dim=None,
        config={},
    )
    return replace(empty, **stated)


def prompts(facts: Facts) -> tuple[str | None, str | None]:
    return facts.query_prompt, facts.document_prompt


UNKNOWN = "team/own-model"
E5 = {"query": "query: ", "passage": "passage: "}
M = EncoderProfile(UNKNOWN)


# Prompts


@pytest.mark.parametrize(
    ("shipped", "expected"),
    [
        ({}, ("", "")),
        (E5, ("query: ", "passage: ")),
        ({"query": "q ", "document": "d ", "passage": "p "}, ("q ", "d ")),
        ({"query": "q ", "corpus": "c "}, ("q ", "c ")),
        ({"search_query": "sq: ", "search_document": "sd: "}, ("sq: ", "sd: ")),
        ({"retrieval.query": "rq ", "retrieval.passage": "rp "}, ("rq ", "rp ")),
        ({"s2p_query": "Instruct: x\nQuery: "}, ("Instruct: x\nQuery: ", "")),
        ({"web_search_query": "w "}, ("w ", "")),
    ],
)
def test_prompts_of_the_model_by_the_names_that_models_use(shipped: dict[str, str], expected: tuple[str, str]) -> None:
    facts = stated(M, layout(prompts=shipped), UNKNOWN)
    assert prompts(facts) == expected
    sources = [facts.sources["query_prompt"], facts.sources["document_prompt"]]
    assert sources == ["the model" if prompt else "nowhere" for prompt in expected]
    assert not facts.warnings


def test_a_users_prompt_wins_even_if_it_is_empty() -> None:
    asked = replace(M, query_prompt="", document_prompt="d: ")
    facts = stated(asked, layout(prompts=E5), "intfloat/e5-base-v2")
    assert prompts(facts) == ("", "d: ")
    assert facts.sources["query_prompt"] == facts.sources["document_prompt"] == "given"


def test_a_preset_fills_in_what_the_model_leaves_open() -> None:
    facts = stated(M, layout(), "intfloat/e5-base-v2")
    assert prompts(facts) == ("query: ", "passage: ")
    assert facts.sources["query_prompt"] == facts.sources["document_prompt"] == "preset e5"
    assert prompts(stated(M, layout(), "BAAI/bge-base-en-v1.5")) == (BGE, "")


def test_the_models_own_prompts_win_over_the_presets_as_a_pair() -> None:
    """Half of each would be a pair that nobody trained."""
    assert prompts(stated(M, layout(prompts={"query": "q2: "}), "intfloat/e5-base-v2")) == ("q2: ", "")


def test_a_family_that_is_asked_for_wins_over_the_models_prompts() -> None:
    facts = stated(replace(M, family="e5"), layout(prompts={"query": "q2: "}), UNKNOWN)
    assert prompts(facts) == ("query: ", "passage: ")
    assert facts.preset is not None
    with pytest.raises(ConfigError, match="no family of models is called 'e55'"):
        stated(replace(M, family="e55"), layout(), UNKNOWN)


def test_no_family_is_an_answer_too() -> None:
    facts = stated(replace(M, family=""), layout(), "intfloat/e5-base-v2")
    assert facts.preset is None
    assert prompts(facts) == ("", "")


def test_the_preset_knows_where_the_title_goes() -> None:
    shipped = {"query": GEMMA.query_prompt, "document": "title: none | text: "}
    facts = stated(M, layout(prompts=shipped), "google/embeddinggemma-300m")
    assert prompts(facts) == (GEMMA.query_prompt, "title: {title} | text: ")
    other = stated(M, layout(prompts=shipped), UNKNOWN)
    assert other.document_prompt == "title: none | text: ", "of an unknown model, only what it says"


def test_prompts_that_do_not_say_their_side_are_named() -> None:
    """A default prompt among them would be for both sides, which is right for neither."""
    shipped = layout(prompts={"STS": "s: ", "BitextMining": "b: "})
    facts = stated(M, shipped, UNKNOWN)
    assert prompts(facts) == ("", "")
    assert len(facts.warnings) == 1
    assert "BitextMining, STS" in facts.warnings[0]
    assert not stated(replace(M, query_prompt="", document_prompt=""), shipped, UNKNOWN).warnings


def test_the_separator_of_the_family() -> None:
    assert stated(M, layout(), UNKNOWN).separator == " "
    assert stated(M, layout(), "allenai/specter").separator == "[SEP]"
    assert stated(replace(M, separator=""), layout(), "allenai/specter").separator == ""


# Similarity


@pytest.mark.parametrize(
    ("asked", "own", "name", "expected", "source"),
    [
        (None, None, UNKNOWN, "cosine", "assumed"),
        (None, "dot", UNKNOWN, "dot", "the model"),
        (None, "cosine", UNKNOWN, "cosine", "the model"),
        (None, None, "multi-qa-mpnet-base-dot-v1", "dot", "preset multi-qa-dot"),
        (None, None, "/models/facebook/contriever", "dot", "preset contriever"),
        ("dot", None, UNKNOWN, "dot", "given"),
        ("dot", "dot", UNKNOWN, "dot", "given"),
        ("dot", "euclidean", UNKNOWN, "dot", "given"),
    ],
)
def test_similarity(asked: Any, own: str | None, name: str, expected: str, source: str) -> None:
    facts = stated(replace(M, similarity=asked), layout(similarity=own), name)
    assert (facts.similarity, facts.sources["similarity"]) == (expected, source)


@pytest.mark.parametrize(("own", "name"), [("cosine", UNKNOWN), (None, "all-MiniLM-L6-v2")])
def test_another_similarity_than_the_models_is_a_warning(own: str | None, name: str) -> None:
    facts = stated(replace(M, similarity="dot"), layout(similarity=own), name)
    assert len(facts.warnings) == 1
    assert "'dot' was asked for, but the model was trained for 'cosine'" in facts.warnings[0]


def test_files_that_contradict_the_family_are_a_warning() -> None:
    facts = stated(M, layout(similarity="cosine"), "multi-qa-mpnet-base-dot-v1")
    assert facts.similarity == "cosine"
    assert "--similarity dot" in facts.warnings[0]


@pytest.mark.parametrize("own", ["euclidean", "manhattan"])
def test_a_similarity_without_a_counterpart_is_refused(own: str) -> None:
    with pytest.raises(EncoderError, match=f"similarity is '{own}'.*\n.*similarity='cosine' or 'dot'"):
        stated(M, layout(similarity=own), UNKNOWN)


# Completing


def tower(**facts: Any) -> TowerFacts:
    plain = TowerFacts(ModelFiles("n", Path("/n"), "c1"), "aa", "mean", 64, 32, normalizes=False, dtype="float32")
    return replace(plain, **facts)


def test_a_complete_profile_of_one_tower() -> None:
    profile = complete(M, stated(M, layout(prompts=E5), UNKNOWN), tower(), None)
    assert profile.to_dict() == {
        "model": "n",
        "revision": "c1",
        "weights": "aa",
        "family": "",
        "kind": "prompted",
        "query_prompt": "query: ",
        "document_prompt": "passage: ",
        "separator": " ",
        "pooling": "mean",
        "normalize": True,
        "similarity": "cosine",
        "dims": 32,
        "max_length": 64,
        "dtype": "float32",
    }


def test_a_complete_profile_is_completed_to_itself() -> None:
    for asked in (M, EncoderProfile("n", query_model="q")):
        query = tower(files=ModelFiles("q", Path("/q"), None), weights="bb") if asked.query_model else None
        once = complete(asked, stated(asked, layout(), UNKNOWN), tower(), query)
        assert complete(once, stated(once, layout(), UNKNOWN), tower(), query) == once


@pytest.mark.parametrize(
    ("asked", "own", "name", "expected"),
    [
        ({}, {}, UNKNOWN, "symmetric"),
        ({}, {"similarity": "dot"}, UNKNOWN, "asymmetric"),
        ({}, {}, "sentence-transformers/multi-qa-MiniLM-L6-cos-v1", "asymmetric"),
        ({}, {}, "all-MiniLM-L6-v2", "symmetric"),
        ({"query_prompt": "q: "}, {}, "all-MiniLM-L6-v2", "prompted"),
        ({}, {}, "BAAI/bge-base-en-v1.5", "prompted"),
        ({"query_prompt": ""}, {}, "BAAI/bge-base-en-v1.5", "symmetric"),
        ({"kind": "asymmetric"}, {}, UNKNOWN, "asymmetric"),
    ],
)
def test_the_kind_of_one_tower(asked: dict[str, Any], own: dict[str, Any], name: str, expected: str) -> None:
    profile = replace(M, **asked)
    assert complete(profile, stated(profile, layout(**own), name), tower(), None).kind == expected


def test_two_towers_are_dual_or_a_router() -> None:
    facts = stated(M, layout(), UNKNOWN)
    query = tower(files=ModelFiles("q", Path("/q"), "c2"), weights="bb", pooling="cls", max_length=32)
    dual = complete(EncoderProfile("d", query_model="q-asked"), facts, tower(), query)
    assert (dual.kind, dual.query_model, dual.query_revision) == ("dual", "q", "c2")
    router = complete(M, facts, tower(), query)
    assert (router.kind, router.query_model, router.query_revision) == ("router", None, None)
    for profile in (dual, router):
        assert (profile.query_weights, profile.query_pooling, profile.query_max_length) == ("bb", "cls", 32)
        assert (profile.weights, profile.pooling, profile.max_length) == ("aa", "mean", 64)


def test_what_is_not_loaded_stays_as_it_was_asked() -> None:
    facts = stated(M, layout(), UNKNOWN)
    query = tower(files=ModelFiles("q", Path("/q"), "c2"), weights="bb")
    whole = complete(EncoderProfile("d", query_model="q"), facts, tower(), query)
    assert complete(whole, facts, None, query) == whole
    assert complete(whole, facts, tower(), None) == whole


@pytest.mark.parametrize(
    ("asked", "own", "expected"),
    [(None, None, 32), (None, 16, 16), (8, 16, 8), (24, 16, 24), (32, None, 32), (None, 99, 32)],
)
def test_dims(asked: int | None, own: int | None, expected: int) -> None:
    profile = replace(M, dims=asked)
    assert complete(profile, stated(profile, layout(truncate_dim=own), UNKNOWN), tower(), None).dims == expected


def test_more_dims_than_there_are() -> None:
    profile = replace(M, dims=33)
    with pytest.raises(ConfigError, match="dims is 33, but team/own-model gives 32\nask for 32 or fewer"):
        complete(profile, stated(profile, layout(), UNKNOWN), tower(), None)


def test_towers_of_different_dims() -> None:
    with pytest.raises(EncoderError, match="document tower has 32 dims, the query tower 48"):
        complete(M, stated(M, layout(), UNKNOWN), tower(), tower(raw_dims=48))


@pytest.mark.parametrize(
    ("similarity", "normalizes", "asked", "expected"),
    [
        ("cosine", False, None, True),
        ("cosine", False, False, True),  # Elasticsearch's dot_product, which stands for cosine, takes unit vectors only
        ("dot", False, None, False),
        ("dot", True, None, True),
        ("dot", False, True, True),
    ],
)
def test_normalization(similarity: str, normalizes: bool, asked: bool | None, expected: bool) -> None:
    profile = replace(M, normalize=asked)
    facts = stated(profile, layout(similarity=similarity), UNKNOWN)
    assert complete(profile, facts, tower(normalizes=normalizes), None).normalize is expected
