"""What can be asked of a search, and how a search is planned, without a server."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_type_hints

import pytest

from esvector.encode.profile import EncoderProfile
from esvector.errors import ConfigError
from esvector.passport import Passport
from esvector.search.options import SearchKeywords, SearchOptions
from esvector.search.plan import SCAN_UP_TO, Matches, make_plan
from esvector.search.target import Target
from esvector.types import SearchSettings


def target(search: SearchSettings | None = None) -> Target:
    profile = EncoderProfile("m", similarity="cosine", dims=3)
    return Target("papers-000001", Passport(profile, ("text",), "vector", "1", search=search), {})


def test_the_keywords_of_search_are_the_options() -> None:
    assert get_type_hints(SearchKeywords) == get_type_hints(SearchOptions)


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"k": 0}, "k is 0"),
        ({"k": 10_001}, "k is 10001"),
        ({"k": True}, "k is True"),
        ({"k": "5"}, "k is '5'"),
        ({"offset": -1}, "offset is -1"),
        ({"k": 10, "offset": 9_991}, r"offset \+ k is 10001"),
        ({"k": 10, "num_candidates": 9}, "num_candidates is 9"),
        ({"num_candidates": 10_001}, "num_candidates is 10001"),
        ({"mode": "semantic"}, "mode is 'semantic'"),
        ({"mode": "text", "min_similarity": 0.5}, "min_similarity"),
        ({"mode": "text", "num_candidates": 50}, "num_candidates"),
        ({"oversample": 0.5}, "oversample is 0.5"),
        ({"diversity": 1.5}, "diversity is 1.5"),
        ({"timeout": 0}, "timeout is 0"),
        ({"weights": {"vector": 2.0}}, "weights"),
        ({"mode": "hybrid", "weights": {"words": 1.0}}, "words"),
        ({"fields": "year"}, "lists of names"),
        ({"facets": "year"}, "lists of names"),
    ],
)
def test_what_cannot_be_is_named(asked: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        SearchOptions(**asked)


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(TypeError, match="top_k"):
        SearchOptions(top_k=5)  # type: ignore[call-arg]


@pytest.mark.parametrize(("k", "candidates"), [(1, 200), (50, 500), (900, 9_000), (10_000, 10_000)])
def test_candidates_grow_with_k_up_to_the_limit(k: int, candidates: int) -> None:
    plan = make_plan(SearchOptions(k=k), target(), None)
    assert plan.name == "kNN"
    assert plan.num_candidates == candidates


def test_a_filter_that_many_match_takes_more_candidates() -> None:
    many = Matches(SCAN_UP_TO + 1, SCAN_UP_TO + 1, at_least=True)
    assert [make_plan(SearchOptions(k=k), target(), many).num_candidates for k in (10, 100)] == [500, 2_000]


def test_few_matches_are_compared_one_by_one_and_many_by_the_graph() -> None:
    few = make_plan(SearchOptions(), target(), Matches(SCAN_UP_TO, SCAN_UP_TO))
    many = make_plan(SearchOptions(), target(), Matches(SCAN_UP_TO + 1, SCAN_UP_TO + 1, at_least=True))
    of_many_passages = make_plan(SearchOptions(), target(), Matches(100, 50_000))
    assert (few.name, many.name, of_many_passages.name) == ("scan", "kNN", "kNN")
    assert (few.num_candidates, few.oversample) == (10_000, 50)
    of_bits = make_plan(SearchOptions(), replace(target(), binary=True), Matches(SCAN_UP_TO, SCAN_UP_TO))
    assert of_bits.oversample == SCAN_UP_TO / 10


def test_what_was_tuned_is_used_in_proportion_to_k() -> None:
    tuned = target(SearchSettings(num_candidates=240, k=10, oversample=4.0, recall=0.987))
    at_10, at_25, at_5 = (make_plan(SearchOptions(k=k), tuned, None) for k in (10, 25, 5))
    assert [plan.num_candidates for plan in (at_10, at_25, at_5)] == [240, 600, 240]
    assert at_10.oversample == 4.0
    assert "0.987" in at_10.why


def test_what_is_asked_for_comes_before_what_was_tuned() -> None:
    tuned = target(SearchSettings(num_candidates=240, oversample=4.0))
    plan = make_plan(SearchOptions(num_candidates=20, oversample=2.0), tuned, None)
    assert (plan.num_candidates, plan.oversample) == (20, 2.0)


def test_quantized_hits_are_compared_again_where_the_mapping_does_not_say_so() -> None:
    silent = replace(target(), quantized=True, rescored=False)
    tuned = replace(target(SearchSettings(num_candidates=240, oversample=4.0)), quantized=True, rescored=False)
    assert make_plan(SearchOptions(), silent, None).oversample == 2.0
    assert make_plan(SearchOptions(oversample=0), silent, None).oversample == 0
    assert make_plan(SearchOptions(), tuned, None).oversample == 4.0
    assert make_plan(SearchOptions(), replace(silent, rescored=True), None).oversample is None
    assert make_plan(SearchOptions(), replace(silent, quantized=False), None).oversample is None


def test_exact_is_exact_however_many_match() -> None:
    assert make_plan(SearchOptions(mode="exact"), target(), None).name == "exact"


@pytest.mark.parametrize(
    ("asked", "depth"),
    [
        ({"k": 10}, 10),
        ({"k": 10, "offset": 20}, 30),
        ({"k": 10, "rerank": "m"}, 50),
        ({"k": 80, "rerank": "m"}, 80),
        ({"k": 10, "diversity": 0.5}, 50),
        ({"k": 10, "mode": "hybrid"}, 100),
        ({"k": 10_000, "mode": "hybrid", "diversity": 0.1}, 10_000),
    ],
)
def test_rankings_are_as_deep_as_what_comes_after_them_needs(asked: dict[str, Any], depth: int) -> None:
    assert SearchOptions(**asked).depth == depth
