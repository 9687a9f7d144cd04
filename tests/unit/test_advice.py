from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from esvector.encode.advice import TRIALS, Task, advise, base_model_of
from esvector.encode.presets import PRESETS, Preset, find_preset
from esvector.encode.profile import EncoderProfile

E5: dict[str, Any] = {"query_prompt": "query: ", "document_prompt": "passage: "}
BGE = "Represent this sentence for searching relevant passages: "
INSTRUCT = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
PARAPHRASE = EncoderProfile("paraphrase-mpnet-base-v2", family="paraphrase")
CTX = "sentence-transformers/facebook-dpr-ctx_encoder-single-nq-base"
QUESTION = "sentence-transformers/facebook-dpr-question_encoder-single-nq-base"


def complete(preset: Preset, **changes: Any) -> EncoderProfile:
    """The profile that loading the example of ``preset`` as it should be gives."""
    facts: dict[str, Any] = {
        "family": preset.family,
        "kind": preset.kind,
        "query_model": preset.partner(preset.example),
        "query_weights": "2" if preset.kind in ("dual", "router") else None,
        "query_prompt": preset.query_prompt,
        "document_prompt": preset.document_prompt,
        "separator": preset.separator,
        "similarity": preset.similarity,
        "dims": preset.dims[0],
        "max_length": preset.max_length,
    }
    return EncoderProfile(preset.example, **facts | changes)


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.family)
def test_a_model_used_as_it_should_be_needs_no_advice(preset: Preset) -> None:
    profile = complete(preset)
    assert advise(profile) == []
    assert all(advise(profile, task) == [] for task in preset.suits)
    assert advise(profile, median_tokens=63) == []
    assert advise(EncoderProfile(preset.example)) == []
    copy = complete(preset, family="", query_model=None)
    assert advise(EncoderProfile("/models/mine", query_prompt=copy.query_prompt), base_model=preset.example) == []


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.family)
def test_every_warning_is_one_line_names_a_way_out_and_comes_once(preset: Preset) -> None:
    wrong: dict[str, Any] = {
        "query_prompt": "",
        "document_prompt": "",
        "separator": "+",
        "dims": 7,
        "max_length": 99999,
    }
    swapped: dict[str, Any] = wrong | {"query_model": preset.partner(preset.example) and preset.example}
    tasks: tuple[Task | None, ...] = ("search", "similar", None)
    for task in tasks:
        found = advise(complete(preset, **swapped), task, median_tokens=10000)
        found += advise(EncoderProfile("mine", **wrong), task, base_model=preset.example)
        found += advise(complete(preset, query_prompt="x: ", document_prompt="x: "), task)
        for line in found:
            assert "\n" not in line
            assert len(line) <= 210
            assert any(word in line for word in ("use ", "leave ", "give ", "split "))
        assert len(advise(complete(preset, **swapped), task)) == len(set(advise(complete(preset, **swapped), task)))


@pytest.mark.parametrize(
    ("profile", "task", "median", "parts"),
    [
        (PARAPHRASE, "search", None, ["paraphrase models compare like with like", "e5-base-v2", "--task similar"]),
        (PARAPHRASE, None, 64.0, ["not passages (64 tokens)", "--task similar"]),
        (PARAPHRASE, None, 63.9, []),
        (PARAPHRASE, None, None, []),
        (PARAPHRASE, "similar", 200.0, []),
        (EncoderProfile("LaBSE"), "search", None, ["multilingual-e5-base", "bge-m3"]),
        (EncoderProfile("mine", family="stsb-nli"), "search", None, ["stsb-nli models"]),
        (EncoderProfile("all-MiniLM-L6-v2"), "search", 200.0, []),
        (EncoderProfile("intfloat/e5-base-v2", **E5), "similar", None, ["sides differ", "as documents", "all-mpnet"]),
        (EncoderProfile("multi-qa-MiniLM-L6-cos-v1"), "similar", None, ["trained on questions", "as documents"]),
        (EncoderProfile("mine"), "search", 200.0, []),
    ],
)
def test_a_model_for_another_task(profile: EncoderProfile, task: Task | None, median: float, parts: list[str]) -> None:
    check(advise(profile, task, median_tokens=median), parts)


@pytest.mark.parametrize(
    ("profile", "base", "parts"),
    [
        (EncoderProfile("e5-base-v2", query_prompt=""), None, ["'query: '", "there is none", "--family e5 or"]),
        (EncoderProfile("e5-base-v2", query_prompt=""), None, ['--query-prompt "query: "']),
        (EncoderProfile("e5-base-v2", document_prompt=""), None, ["before documents", '--document-prompt "passage: "']),
        (EncoderProfile("e5-base-v2", family="e5", query_prompt="query:"), None, ["white space", "use --query-prompt"]),
        (EncoderProfile("e5-base-v2", query_prompt="q: "), None, ["'q: ' is put there"]),
        (EncoderProfile("mine", family="bge", query_prompt=""), None, ["use --family bge, and no --query-prompt"]),
        (EncoderProfile("all-MiniLM-L6-v2", query_prompt="query: "), None, ["take no prompt", "leave --query-prompt"]),
        (EncoderProfile("mine", family="", query_prompt=""), "intfloat/e5-base-v2", ["e5 models", "--family e5"]),
        (EncoderProfile("mine", query_prompt=""), "/home/me/e5-base-v2/", ["--family e5"]),
        (EncoderProfile("mine", query_prompt=""), "bert-base-uncased", []),
        # a copy may have learnt a prompt, and an instruction may say another task
        (EncoderProfile("mine", query_prompt="query: "), "all-MiniLM-L6-v2", []),
        (EncoderProfile("Qwen/Qwen3-Embedding-0.6B", query_prompt="Instruct: find laws\nQuery:"), None, []),
        (
            EncoderProfile("Qwen/Qwen3-Embedding-0.6B", query_prompt=INSTRUCT + " "),
            None,
            ["white space", "query\\nQuery:'"],
        ),
        (EncoderProfile("bge-base-en", query_prompt=BGE.rstrip()), None, ["white space"]),
        (EncoderProfile("e5-base-v2", kind="given", document_prompt=""), None, []),
    ],
)
def test_a_prompt_that_is_forgotten_or_another(profile: EncoderProfile, base: str | None, parts: list[str]) -> None:
    check(advise(profile, base_model=base), parts)


def test_each_side_is_told_of_its_prompt() -> None:
    found = advise(EncoderProfile("e5-base-v2", query_prompt="", document_prompt=""))
    assert [line.split("before ")[1].split(",")[0] for line in found] == ["queries", "documents"]


def test_what_the_models_own_files_say_is_not_judged() -> None:
    profile = EncoderProfile("e5-base-v2", query_prompt="ask: ", document_prompt="", dims=100, max_length=1024)
    assert len(advise(profile)) == 4
    sources = dict.fromkeys(("query_prompt", "dims", "max_length"), "the model")
    (line,) = advise(profile, sources=sources | {"document_prompt": "nowhere"})
    assert "passage: " in line


@pytest.mark.parametrize(
    ("profile", "median", "parts"),
    [
        (EncoderProfile("all-MiniLM-L6-v2", dims=128), None, ["cut to 128 dims", "leave --dims out"]),
        (EncoderProfile("nomic-embed-text-v1.5", dims=128), None, []),
        (EncoderProfile("e5-small", dims=768), None, []),
        (EncoderProfile("mine", family="e5", dims=32, max_length=9999), None, []),
        (EncoderProfile("all-MiniLM-L6-v2", max_length=512), None, ["512 tokens", "at most 256"]),
        (EncoderProfile("all-MiniLM-L6-v2", max_length=128), 200.0, ["median 200", "128 tokens", "split them"]),
        (EncoderProfile("mine", max_length=128), 128.0, []),
        (EncoderProfile("potion-base-8M"), 50000.0, ["like with like"]),
    ],
)
def test_sizes(profile: EncoderProfile, median: float | None, parts: list[str]) -> None:
    check(advise(profile, median_tokens=median), parts)


@pytest.mark.parametrize(
    ("profile", "parts"),
    [
        (EncoderProfile(CTX, query_model=QUESTION), []),
        (EncoderProfile(CTX), []),  # loading it names the other
        (EncoderProfile(QUESTION, query_model=CTX), ["question model of a pair", "ctx_encoder"]),
        (EncoderProfile(QUESTION), ["question model of a pair"]),
        (EncoderProfile(CTX, query_model=CTX), ["does not encode queries", "--query-model"]),
        (EncoderProfile(CTX, query_model="/models/my-own-question-model"), []),
    ],
)
def test_a_pair_with_the_two_exchanged_or_one_twice(profile: EncoderProfile, parts: list[str]) -> None:
    check(advise(profile), parts)


def test_a_copy_that_has_lost_its_similarity_and_separator() -> None:
    profile = EncoderProfile("mine", similarity="cosine", separator=" ", query_prompt="", document_prompt="")
    lines = advise(profile, base_model="facebook/dpr-ctx_encoder-single-nq-base")
    assert ["similarity is 'dot'" in lines[0], "separator of title and text is ' [SEP] '" in lines[1]] == [True, True]
    assert all("use --family dpr" in line for line in lines)


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("config.json", '{"_name_or_path": "intfloat/e5-base-v2", "a": 1}', "intfloat/e5-base-v2"),
        ("config.json", '{"_name_or_path": "", "a": 1}', None),
        ("config.json", '{"a": 1}', None),
        (
            "README.md",
            "---\ntags:\n- x\nbase_model: intfloat/e5-base-v2\nlicense: mit\n---\n# x\n",
            "intfloat/e5-base-v2",
        ),
        ("README.md", "---\nbase_model:\n- intfloat/e5-base-v2\n---\n", "intfloat/e5-base-v2"),
        ("README.md", '---\nbase_model: "BAAI/bge-m3"\n---\n', "BAAI/bge-m3"),
        ("README.md", "---\ntags: x\n---\nbase_model: no/card\n", None),
        ("README.md", "base_model: no/card\n", None),
        ("other.txt", "", None),
    ],
)
def test_the_base_model_is_read_from_config_or_card(tmp_path: Path, file: str, text: str, expected: str | None) -> None:
    (tmp_path / file).write_text(text)
    assert base_model_of(tmp_path) == expected


def test_the_models_that_advice_names_are_known_and_suit() -> None:
    from esvector.encode import advice

    for names, task in (
        (advice._FOR_SEARCH, "search"),
        (advice._FOR_SEARCH_MULTILINGUAL, "search"),
        (advice._FOR_SIMILAR, "similar"),
        (advice._FOR_LONG, "search"),
    ):
        for name in names.replace(" or ", ", ").split(", "):
            preset = find_preset(name)
            assert preset is not None
            assert task in preset.suits


def test_there_are_four_trials_of_each_task_with_texts_of_their_own() -> None:
    assert [trial.task for trial in TRIALS] == ["search"] * 4 + ["similar"] * 4
    texts = [text for trial in TRIALS for text in (trial.text, trial.right, *trial.others)]
    assert len(set(texts)) == len(texts)


def check(found: list[str], parts: list[str]) -> None:
    """One warning with all ``parts``, or none."""
    if not parts:
        assert found == []
        return
    assert len(found) == 1, found
    for part in parts:
        assert part in found[0]
