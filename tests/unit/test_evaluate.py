"""Measures and comparisons, by values that were worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from esvector.errors import ConfigError, SearchError
from esvector.evaluate import Evaluation, compare, evaluate, judge
from esvector.evaluate.judging import hits_needed
from esvector.evaluate.measures import parse_measures
from esvector.types import Hit

QRELS = {"q1": {"a": 3, "b": 1, "n": 0}, "q2": {"c": 1}}
RUN = {"q1": {"b": 0.9, "x": 0.8, "a": 0.7}, "q2": {"x": 0.5, "c": 0.4}}
NDCG = {"q1": (1 + 3 / math.log2(4)) / (3 + 1 / math.log2(3)), "q2": 1 / math.log2(3)}


def test_measures_are_those_of_the_textbook() -> None:
    found = judge(RUN, QRELS, "nDCG@3 R@2 RR@10 P@2 AP Success@1 Judged@3 P(rel=2)@3")
    assert found.by_query["q1"] == pytest.approx(
        {
            "nDCG@3": NDCG["q1"],
            "R@2": 1 / 2,
            "RR@10": 1,
            "P@2": 1 / 2,
            "AP": (1 / 1 + 2 / 3) / 2,
            "Success@1": 1,
            "Judged@3": 2 / 3,
            "P(rel=2)@3": 1 / 3,
        }
    )
    assert found.by_query["q2"]["RR@10"] == 1 / 2
    assert found.values["nDCG@3"] == pytest.approx((NDCG["q1"] + NDCG["q2"]) / 2)
    assert list(found.values) == ["nDCG@3", "R@2", "RR@10", "P@2", "AP", "Success@1", "Judged@3", "P(rel=2)@3"]
    assert found.remarks == ()


@pytest.mark.parametrize("measure", ["nDCG@2", "RR@2", "RR", "P@1", "AP", "Judged@1"])
@pytest.mark.parametrize(("first", "second"), [("a", "z"), ("z", "a")])
def test_of_equal_scores_the_first_is_first_for_every_measure(measure: str, first: str, second: str) -> None:
    """trec_eval would take the larger id first, and equal are scores that differ by less than 32 bits show."""
    for scores in ((0.5, 0.5), (0.5 + 1e-12, 0.5)):
        run = {"q": dict(zip((first, second), scores, strict=True))}
        assert judge(run, {"q": {first: 1}}, measure).values[measure] == 1
        assert judge(run, {"q": {second: 1}}, measure).values[measure] < 1


def test_a_run_in_any_order_is_ranked_by_score() -> None:
    assert judge({"q": {"a": 0.1, "b": 0.9}}, {"q": {"b": 1}}, "RR").values == {"RR": 1}


def test_what_is_left_out_or_cannot_be_found_is_counted_and_said() -> None:
    qrels = QRELS | {"q3": {"d": 0}, "q4": {"e": 1}, "q5": {"f": 1}}
    found = judge(RUN | {"q3": {"d": 1.0}, "q9": {"a": 1.0}}, qrels, "RR", queries=["q1", "q2", "q3", "q4", "q6"])
    counts = found.counts
    assert (counts.judged, counts.unjudged, counts.unasked, counts.irrelevant, counts.empty) == (4, 1, 1, 1, 1)
    assert (counts.relevant, counts.missing) == (4, None)
    assert found.values == {"RR": (1 + 1 / 2 + 0 + 0) / 4}
    assert [remark.split(": ")[1] for remark in found.remarks] == ["1"] * 5
    assert "queries of the run that are none of the queries" in found.remarks[-1]
    alone = judge(RUN | {"q9": {"a": 1.0}}, qrels, "RR")
    assert (alone.counts.judged, alone.counts.unjudged, alone.counts.unasked, alone.counts.empty) == (5, 1, 0, 3)


def test_queries_and_judgements_of_two_collections() -> None:
    with pytest.raises(ConfigError, match="the queries are such as '1', those of the judgements 'q1'"):
        judge({"1": {"a": 1.0}}, QRELS)
    with pytest.raises(ConfigError, match="no query has judgements"):
        evaluate(lambda texts: [[] for _ in texts], {"1": "x"}, QRELS)


def test_all_unknown_measures_are_named_at_once_with_what_is_allowed() -> None:
    bad = "foo nDCG@0 P@True P(rel=0)@5 R RBP ERR@10 NumRet nDCG@x P@-1 P@10001 __import__('os') nDCG@10.5 ("
    with pytest.raises(ConfigError) as error:
        parse_measures(f"nDCG@10 {bad} R@5")
    assert error.value.message == "no such measure: " + ", ".join(bad.split())
    assert "nDCG@10, R@10, RR@10" in error.value.remedy
    with pytest.raises(ConfigError, match="no measure is named"):
        parse_measures(" ")


def test_every_measure_that_is_named_as_allowed_is() -> None:
    with pytest.raises(ConfigError) as error:
        parse_measures("foo")
    allowed = [word for word in error.value.remedy.replace(",", " ").replace(";", " ").split() if word[0].isupper()]
    allowed += [word for word in error.value.remedy.replace(",", " ").split() if word.startswith(("nDCG", "infAP"))]
    assert len(allowed) >= 20
    assert parse_measures(word.rstrip(";") for word in allowed)


def test_names_for_one_measure_are_one() -> None:
    assert list(map(str, parse_measures("MRR@10 RR@10 Recall@5 NDCG@10"))) == ["RR@10", "R@5", "nDCG@10"]


@pytest.mark.parametrize(("measures", "k"), [("nDCG@10 R@200", 200), ("P@5", 5), ("AP P@5", 100), ("RR R@1000", 1000)])
def test_as_many_hits_as_the_measures_look_at(measures: str, k: int) -> None:
    assert hits_needed(parse_measures(measures)) == k


def test_any_function_that_finds_can_be_evaluated() -> None:
    asked: list[list[str]] = []
    told: list[tuple[int, int]] = []

    def find(texts: Sequence[str]) -> list[list[Hit]]:
        asked.append(list(texts))
        return [[Hit(f"d{text}", 0.5), Hit("other", 0.4)] for text in texts]

    queries = {str(n): f"{n}" for n in range(230)}
    qrels = {str(n): {f"d{n}": 1} for n in range(1, 300)}
    found = evaluate(find, queries, qrels, "RR@10 P@2", progress=lambda done, total: told.append((done, total)))
    assert found.values == {"RR@10": 1.0, "P@2": 0.5}
    assert [text for texts in asked for text in texts] == [str(n) for n in range(1, 230)]
    assert told == [(0, 229), (100, 229), (200, 229), (229, 229)]
    assert (found.counts.judged, found.counts.unjudged, found.counts.unasked) == (229, 1, 70)
    assert found.run["7"] == {"d7": 0.5, "other": 0.4}


def test_the_order_of_hits_counts_where_scores_say_another_one() -> None:
    """As after diversity. A run file is ranked by its scores, so they must say the order."""
    found = evaluate(lambda _: [[Hit("a", 0.1), Hit("b", 0.9), Hit("c", 0.5)]], {"q": "x"}, {"q": {"a": 1}}, "RR")
    assert found.values == {"RR": 1}
    assert list(found.run["q"].items()) == [("a", 3.0), ("b", 2.0), ("c", 1.0)]


def test_a_search_that_finds_a_document_twice_is_refused() -> None:
    with pytest.raises(SearchError, match="twice for the query 'q'"):
        evaluate(lambda _: [[Hit("a", 0.9), Hit("a", 0.8)]], {"q": "x"}, {"q": {"a": 1}})


def test_options_without_a_searcher_are_refused_rather_than_ignored() -> None:
    with pytest.raises(ConfigError, match="k and options are for a Searcher"):
        evaluate(lambda _: [[]], {"q": "x"}, {"q": {"a": 1}}, options={"where": "year > 2000"})
    with pytest.raises(ConfigError, match="k and options are for a Searcher"):
        evaluate(lambda _: [[]], {"q": "x"}, {"q": {"a": 1}}, k=5)


def test_the_worst_queries() -> None:
    run = {f"q{n}": {"x": 1.0, "y": 0.9, "z": 0.8} for n in range(4)}
    qrels = {"q0": {"y": 1}, "q1": {"x": 1}, "q2": {"w": 1}, "q3": {"z": 1}}
    assert judge(run, qrels, "RR").worst("RR", 2) == ["q2", "q3"]
    assert judge(run, qrels, "RR").worst("RR") == ["q2", "q3", "q0"]


def judged(good: Sequence[bool]) -> Evaluation:
    """Queries that find their document first, or not at all."""
    run = {f"q{n}": {"yes" if is_good else "no": 1.0} for n, is_good in enumerate(good)}
    return judge(run, {query: {"yes": 1} for query in run}, "RR P@1")


@pytest.mark.parametrize(
    ("wins", "losses", "p"),
    [(0, 0, 1), (1, 0, 1), (2, 0, 2 / 4), (5, 0, 2 / 32), (6, 0, 2 / 64), (8, 1, 2 * (1 + 9) / 512), (3, 3, 1)],
)
def test_p_is_that_of_all_choices_of_signs(wins: int, losses: int, p: float) -> None:
    """Of 2^n choices of signs, so many give a difference as large, in either direction."""
    one = judged([True] * wins + [False] * losses + [True, False] * 20)
    other = judged([False] * wins + [True] * losses + [True, False] * 20)
    for found in compare(one, other):
        assert found.p == pytest.approx(p)
        assert (found.wins, found.ties, found.losses) == (wins, 40, losses)
        assert found.difference == pytest.approx((wins - losses) / (40 + wins + losses))
        assert found.difference == pytest.approx(found.value - found.other)
    assert [found.measure for found in compare(one, other)] == ["RR", "P@1"]


def test_many_queries_by_chance_the_same_each_time() -> None:
    """By the normal approximation of the binomial: 60 of 100 has p = 0.045 to 0.057, 80 of 100 less than 1e-8."""
    close = judged([True] * 60 + [False] * 40), judged([False] * 60 + [True] * 40)
    assert 0.04 < compare(*close)[0].p < 0.07
    assert compare(*close) == compare(*close)
    assert compare(*close)[0].p == compare(*reversed(close))[0].p
    assert compare(judged([True] * 80 + [False] * 20), judged([False] * 80 + [True] * 20))[0].p <= 2 / 10_000


def test_worse_is_lower_by_more_than_is_tolerated_and_not_by_chance() -> None:
    (lost, *_) = compare(judged([False] * 6 + [True] * 94), judged([True] * 100))
    assert lost.difference == pytest.approx(-0.06)
    assert lost.is_worse()
    assert lost.is_worse(tolerance=0.05)
    assert not lost.is_worse(tolerance=0.06)
    assert not lost.is_worse(alpha=0.03)
    (won, *_) = compare(judged([True] * 100), judged([False] * 6 + [True] * 94))
    assert not won.is_worse()
    (few, *_) = compare(judged([False] * 5), judged([True] * 5))
    assert not few.is_worse()


def test_other_queries_or_measures_cannot_be_compared() -> None:
    with pytest.raises(ConfigError, match=r"on different queries: 1 are in one only, such as 'q2'"):
        compare(judged([True] * 2), judged([True] * 3))
    with pytest.raises(ConfigError, match=r"no measure is common to RR, P@1 and AP"):
        compare(judged([True]), judge({"q0": {"yes": 1.0}}, {"q0": {"yes": 1}}, "AP"))
