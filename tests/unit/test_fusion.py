"""Fusing rankings: the formula, and what must hold whatever the rankings are."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esvector.errors import ConfigError
from esvector.search.fusion import reciprocal_rank, weighted
from esvector.types import Hit, Leg, Passage

Rankings = dict[str, list[Hit]]

_SCORES = st.integers(-40, 40).map(lambda n: n / 8)


@st.composite
def rankings(draw: st.DrawFn, names: tuple[str, ...] = ("vector", "text", "third")) -> Rankings:
    """Up to three rankings of up to eight documents each, best first, with equal scores among them."""
    made: Rankings = {}
    for name in draw(st.lists(st.sampled_from(names), unique=True, min_size=1)):
        ids = draw(st.lists(st.sampled_from("abcdefgh"), unique=True))
        scores = sorted((draw(_SCORES) for _ in ids), reverse=True)
        made[name] = [Hit(id_, score, {"from": name}) for id_, score in zip(ids, scores, strict=True)]
    return made


FUSIONS = [reciprocal_rank, weighted, lambda r: weighted(r, normalize="none"), lambda r: weighted(r, lowest={})]


def ids(hits: list[Hit]) -> list[str]:
    return [hit.id for hit in hits]


def check(hits: list[Hit], expected: dict[str, float]) -> None:
    """Whether ``hits`` are those of ``expected``, in its order, with its scores."""
    assert ids(hits) == list(expected)
    assert [hit.score for hit in hits] == pytest.approx(list(expected.values()))


def test_reciprocal_rank_by_hand() -> None:
    fused = reciprocal_rank(
        {"vector": [Hit("a", 0.9), Hit("b", 0.8), Hit("c", 0.1)], "text": [Hit("c", 12.0), Hit("b", 7.0)]}
    )
    assert ids(fused) == ["c", "b", "a"]  # 1/63 + 1/61, twice 1/62, 1/61
    assert fused[0].score == pytest.approx(1 / 63 + 1 / 61)
    assert fused[0].legs == {"vector": Leg(3, 0.1), "text": Leg(1, 12.0)}
    assert fused[1].legs == {"vector": Leg(2, 0.8), "text": Leg(2, 7.0)}
    assert fused[2].score == pytest.approx(1 / 61)
    assert fused[2].legs == {"vector": Leg(1, 0.9)}


def test_reciprocal_rank_with_weights_and_another_constant() -> None:
    found = {"vector": [Hit("a", 0.9), Hit("b", 0.8)], "text": [Hit("b", 12.0), Hit("a", 7.0)]}
    fused = reciprocal_rank(found, {"text": 3}, constant=1)
    check(fused, {"b": 1 / 3 + 3 / 2, "a": 1 / 2 + 3 / 3})


def test_weighted_by_hand() -> None:
    fused = weighted(
        {
            "vector": [Hit("a", 0.9), Hit("b", 0.7), Hit("c", 0.5)],
            "text": [Hit("c", 20.0), Hit("d", 15.0), Hit("b", 10.0)],
        },
        {"vector": 0.75, "text": 0.25},
    )
    check(fused, {"a": 0.75, "b": 0.75 * 0.5, "c": 0.25, "d": 0.25 * 0.5})


def test_a_known_lowest_score_keeps_what_the_last_hit_is_worth() -> None:
    found = {"vector": [Hit("a", 0.8), Hit("b", 0.6)], "text": [Hit("c", 8.0), Hit("b", 6.0)]}
    scores = {hit.id: hit.score for hit in weighted(found, lowest={"vector": -1, "text": 0})}
    assert scores == pytest.approx({"a": 1, "b": 1.6 / 1.8 + 0.75, "c": 1})


def test_scores_as_they_are() -> None:
    found = {"vector": [Hit("a", 0.8)], "text": [Hit("a", 6.5), Hit("b", 1.0)]}
    fused = weighted(found, {"text": 0.1}, normalize="none")
    check(fused, {"a": 1.45, "b": 0.1})


@pytest.mark.parametrize("scores", [[3.0, 3.0, 3.0], [0.0], [-2.5, -2.5]])
def test_equal_scores_count_as_the_best_there_is(scores: list[float]) -> None:
    found = {"text": [Hit(str(n), score) for n, score in enumerate(scores)], "vector": [Hit("x", 1.0), Hit("y", 0.5)]}
    fused = {hit.id: hit.score for hit in weighted(found)}
    assert fused == {**{str(n): 1.0 for n in range(len(scores))}, "x": 1.0, "y": 0.0}


def test_equal_scores_are_in_the_order_of_ids() -> None:
    assert ids(reciprocal_rank({"text": [Hit("b", 1.0)], "vector": [Hit("a", 1.0)]})) == ["a", "b"]
    assert ids(reciprocal_rank({"text": [Hit("a", 1.0)], "vector": [Hit("b", 1.0)]})) == ["a", "b"]


def test_the_same_ranks_in_other_rankings_are_equal() -> None:
    """1/3 + 1/4 + 1/5 is another number when added in another order."""
    orders = {"one": "cab", "two": "abc", "three": "bca"}
    fused = reciprocal_rank({name: [Hit(id_, 1.0) for id_ in order] for name, order in orders.items()}, constant=2)
    assert ids(fused) == ["a", "b", "c"]
    assert len({hit.score for hit in fused}) == 1


def test_what_a_hit_brings_is_kept_whichever_ranking_brought_it() -> None:
    passage = Passage("the part", 10, 18, 0.5)
    found = {
        "vector": [Hit("a", 0.5, {"title": "A"}, passage)],
        "text": [Hit("b", 9.0), Hit("a", 3.0, {"title": "A"}, None, {}, {"title": ("<em>A</em>",)})],
    }
    hit = {hit.id: hit for hit in reciprocal_rank(found)}["a"]
    assert (hit.source, hit.passage, hit.highlights) == ({"title": "A"}, passage, {"title": ("<em>A</em>",)})


def test_of_two_passages_that_of_the_better_rank_is_kept() -> None:
    first, second = Passage("first", 0, 5, 0.5), Passage("second", 6, 12, 0.4)
    for better, worse in (("text", "vector"), ("vector", "text")):
        found = {better: [Hit("a", 3.0, {}, first)], worse: [Hit("b", 0.9), Hit("a", 0.5, {}, second)]}
        assert {hit.id: hit.passage for hit in reciprocal_rank(found)}["a"] == first


@pytest.mark.parametrize("fuse", FUSIONS)
def test_nothing_found(fuse: object) -> None:
    assert callable(fuse)
    assert fuse({}) == []
    assert fuse({"vector": [], "text": []}) == []


@pytest.mark.parametrize("fuse", FUSIONS)
@given(found=rankings())
def test_the_order_of_the_rankings_is_of_no_matter(fuse: object, found: Rankings) -> None:
    assert callable(fuse)
    assert fuse(found) == fuse(dict(reversed(found.items())))


@pytest.mark.parametrize("fuse", FUSIONS)
@given(found=rankings(("vector",)))
def test_one_ranking_keeps_its_order(fuse: object, found: Rankings) -> None:
    assert callable(fuse)
    (hits,) = found.values()
    distinct = [replace(hit, score=hit.score - n) for n, hit in enumerate(hits)]  # no two are equal
    assert ids(fuse({"vector": distinct})) == ids(distinct)


@pytest.mark.parametrize("fuse", FUSIONS)
@given(found=rankings())
def test_every_document_comes_once_with_all_its_legs(fuse: object, found: Rankings) -> None:
    assert callable(fuse)
    fused: list[Hit] = fuse(found)
    assert sorted(ids(fused)) == sorted({hit.id for hits in found.values() for hit in hits})
    legs = {
        id_: {name: Leg(ids(hits).index(id_) + 1, hits[ids(hits).index(id_)].score) for name, hits in found.items()
              if id_ in ids(hits)}
        for id_ in ids(fused)
    }  # fmt: skip
    assert {hit.id: dict(hit.legs) for hit in fused} == legs
    assert [hit.score for hit in fused] == sorted((hit.score for hit in fused), reverse=True)


@given(found=rankings(), data=st.data())
def test_a_better_rank_never_lowers_a_document(found: Rankings, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(found)))
    if len(found[name]) < 2:
        return
    at = data.draw(st.integers(1, len(found[name]) - 1))
    better = list(found[name])
    better[at - 1], better[at] = better[at], better[at - 1]
    risen = found[name][at].id
    before, after = ids(reciprocal_rank(found)), ids(reciprocal_rank({**found, name: better}))
    assert after.index(risen) <= before.index(risen)


@given(found=rankings(), data=st.data())
def test_a_higher_score_never_lowers_a_document(found: Rankings, data: st.DataObject) -> None:
    """Short of the best score, which the scale hangs on."""
    name = data.draw(st.sampled_from(sorted(found)))
    hits = found[name]
    inner = [n for n, hit in enumerate(hits) if hits[-1].score < hit.score < hits[0].score]
    if not inner:
        return
    at = data.draw(st.sampled_from(inner))
    risen = replace(hits[at], score=hits[at].score + data.draw(st.floats(0, hits[0].score - hits[at].score)))
    better = sorted([*hits[:at], risen, *hits[at + 1 :]], key=lambda hit: -hit.score)
    before, after = ids(weighted(found)), ids(weighted({**found, name: better}))
    assert after.index(risen.id) <= before.index(risen.id)


@given(found=rankings())
def test_normalized_scores_are_between_0_and_the_sum_of_weights(found: Rankings) -> None:
    weights = dict.fromkeys(found, 0.5)
    assert all(0 <= hit.score <= 0.5 * len(found) for hit in weighted(found, weights))


def test_what_cannot_be() -> None:
    found = {"vector": [Hit("a", 1.0)], "text": [Hit("b", 1.0)]}
    with pytest.raises(ConfigError, match="constant of reciprocal rank fusion is 0"):
        reciprocal_rank(found, constant=0)
    with pytest.raises(ConfigError, match="a weight for txet"):
        reciprocal_rank(found, {"txet": 1})
    for wrong in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="the weight of text is"):
            weighted(found, {"text": wrong})
    with pytest.raises(ConfigError, match="all weights are 0"):
        weighted(found, {"text": 0, "vector": 0})
    with pytest.raises(ConfigError, match="normalization 'zscore' is not known"):
        weighted(found, normalize="zscore")  # type: ignore[arg-type]
