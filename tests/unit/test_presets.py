from __future__ import annotations

import re
from typing import get_args

import pytest

from esvector.encode.presets import PRESETS, Preset, Suits, find_preset, preset_named
from esvector.encode.profile import TITLE_SLOT, Kind, Similarity
from esvector.errors import ConfigError

EACH = pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.family)


def family(name: str) -> str | None:
    preset = find_preset(name)
    return preset.family if preset else None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sentence-transformers/all-MiniLM-L6-v2", "all-minilm"),
        ("all-MiniLM-L12-v2", "all-minilm"),
        ("intfloat/e5-base-v2", "e5"),
        ("E5-Small", "e5"),
        ("/models/e5-base-v2", "e5"),
        ("./e5-base-v2/", "e5"),
        ("~/m/bge-large-en-v1.5", "bge"),
        ("/home/me/.cache/huggingface/hub/models--intfloat--e5-base-v2/snapshots/1c644c92", "e5"),
        ("models--LaBSE/snapshots/1c644c92", "labse"),
        ("Qwen/Qwen3-Embedding-8B", "qwen3-embedding"),
        ("Xenova/snowflake-arctic-embed-xs", "arctic"),
        ("facebook/mcontriever-msmarco", "contriever"),
        ("MongoDB/mdbr-leaf-mt", "leaf-mt"),
    ],
)
def test_models_are_known_by_hub_name_bare_name_and_folder(name: str, expected: str) -> None:
    assert family(name) == expected


@pytest.mark.parametrize(
    ("name", "expected", "general"),
    [
        ("BAAI/bge-m3", "bge-m3", "bge"),
        ("BAAI/bge-small-zh-v1.5", "bge-zh", "bge"),
        ("intfloat/multilingual-e5-large-instruct", "e5-multilingual-instruct", "e5-multilingual"),
        ("intfloat/multilingual-e5-large", "e5-multilingual", "e5"),
        ("intfloat/e5-mistral-7b-instruct", "e5-mistral", "e5"),
        ("multi-qa-mpnet-base-dot-v1", "multi-qa-dot", "multi-qa-cos"),
        ("multi-qa-mpnet-base-cos-v1", "multi-qa-cos", "multi-qa-dot"),
        ("msmarco-distilbert-base-tas-b", "msmarco-tas-b", "msmarco-older"),
        ("msmarco-distilbert-base-dot-prod-v3", "msmarco-dot", "msmarco-older"),
        ("msmarco-distilbert-dot-v5", "msmarco-dot", "msmarco-cos"),
        ("msmarco-MiniLM-L-6-v3", "msmarco-older", "msmarco-cos"),
        ("paraphrase-multilingual-mpnet-base-v2", "paraphrase-multilingual", "paraphrase"),
        ("Alibaba-NLP/gte-large-en-v1.5", "gte-v1.5", "gte"),
        ("Alibaba-NLP/gte-Qwen2-7B-instruct", "gte-qwen2", "gte"),
        ("nomic-ai/nomic-embed-text-v1.5", "nomic-v1.5", "nomic-v1"),
        ("Snowflake/snowflake-arctic-embed-m-v1.5", "arctic-v1.5", "arctic"),
        ("Snowflake/snowflake-arctic-embed-l-v2.0", "arctic-v2", "arctic"),
        ("Snowflake/snowflake-arctic-embed-m-long", "arctic-long", "arctic"),
        ("mdbr-leaf-mt-asym", "leaf-asym", "leaf-mt"),
        ("granite-embedding-small-english-r2", "granite-r2", "granite"),
        ("minishlab/potion-retrieval-32M", "potion-retrieval", "potion"),
    ],
)
def test_the_special_family_wins_over_the_general(name: str, expected: str, general: str) -> None:
    assert family(name) == expected
    assert preset_named(general) != preset_named(expected)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "e5",
        "e5-base-v2-finetuned",
        "my-e5-base-v2",
        "e5-base-v2/checkpoint-100",
        "bge-reranker-base",
        "cross-encoder/ms-marco-MiniLM-L-6-v2",
        "cross-encoder/stsb-roberta-base",
        "allenai/specter2_base",  # its adapters are half of it
        "jinaai/jina-embeddings-v4",
        "bert-base-uncased",
        "nomic-embed-text-v1x5",
    ],
)
def test_other_names_are_unknown(name: str) -> None:
    assert find_preset(name) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "sentence-transformers/facebook-dpr-ctx_encoder-single-nq-base",
            "sentence-transformers/facebook-dpr-question_encoder-single-nq-base",
        ),
        ("facebook-dpr-ctx_encoder-multiset-base", "facebook-dpr-question_encoder-multiset-base"),
        ("facebook/dpr-ctx_encoder-multiset-base", "facebook/dpr-question_encoder-multiset-base"),
        ("/models/dpr-ctx_encoder-single-nq-base/", "/models/dpr-question_encoder-single-nq-base"),
        (
            "hub/models--facebook--dpr-ctx_encoder-single-nq-base/snapshots/1",
            "facebook/dpr-question_encoder-single-nq-base",
        ),
        ("facebook/dpr-question_encoder-single-nq-base", "facebook/dpr-question_encoder-single-nq-base"),
        ("intfloat/e5-base-v2", None),
    ],
)
def test_a_dual_encoder_knows_its_question_model(name: str, expected: str | None) -> None:
    preset = find_preset(name)
    assert preset is not None
    assert preset.partner(name) == expected


def test_a_name_of_another_family_has_no_partner() -> None:
    assert preset_named("dpr").partner("all-MiniLM-L6-v2") is None


def test_families_are_found_by_name() -> None:
    assert preset_named("e5").family == "e5"
    assert preset_named("BGE-M3").family == "bge-m3"
    assert len({preset.family for preset in PRESETS}) == len(PRESETS)


@pytest.mark.parametrize(
    ("asked", "offered"),
    [
        ("bgem3", "bge-m3"),
        ("intfloat/e5-base-v2", "did you mean e5?"),
        ("multi-qa", "multi-qa-cos"),
        ("zzzz", "specter"),
    ],
)
def test_an_unknown_family_is_refused_with_the_near_ones(asked: str, offered: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(repr(asked))) as caught:
        preset_named(asked)
    assert offered in caught.value.remedy


@EACH
def test_every_preset_is_reached_by_its_example(preset: Preset) -> None:
    re.compile(preset.models)
    assert find_preset(preset.example) is preset
    assert preset.models == preset.models.lower()
    assert preset.family == preset.family.lower()


@EACH
def test_every_fact_is_one_that_the_rest_understands(preset: Preset) -> None:
    assert preset.kind in get_args(Kind)
    assert preset.kind != "given"
    assert preset.similarity in get_args(Similarity)
    assert preset.suits
    assert preset.suits <= set(get_args(Suits))
    assert preset.pooling in ("mean", "cls", "lasttoken", "none")
    assert preset.dims == tuple(sorted(set(preset.dims)))
    assert all(0 < dims <= 4096 for dims in preset.dims)  # the most that a dense_vector takes
    assert preset.max_length is None or preset.max_length > 0
    assert preset.licence
    assert preset.source


@EACH
def test_prompts_belong_to_the_kinds_that_have_them(preset: Preset) -> None:
    prompts = preset.query_prompt + preset.document_prompt
    if preset.kind == "prompted":
        assert prompts
    elif preset.kind != "router":
        assert not prompts
    assert "{" not in preset.query_prompt
    assert "{" not in preset.document_prompt.replace(TITLE_SLOT, "")
    assert (preset.query_model is not None) == (preset.kind == "dual")


def test_prompts_end_as_their_cards_write_them() -> None:
    """A missing or added space is another prompt."""
    bare = {preset.family for preset in PRESETS if preset.query_prompt and not preset.query_prompt.endswith(" ")}
    assert bare == {"qwen3-embedding", "bge-zh"}
    assert all(preset.document_prompt.endswith(" ") for preset in PRESETS if preset.document_prompt)
    assert preset_named("qwen3-embedding").query_prompt.endswith("query\nQuery:")
    assert preset_named("e5-multilingual-instruct").query_prompt.endswith("query\nQuery: ")
