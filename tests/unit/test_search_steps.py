"""The steps of a search, without a server."""

from __future__ import annotations

import pytest

from esvector.encode.profile import EncoderProfile
from esvector.errors import SearchError
from esvector.passport import Passport
from esvector.search.conditions import Conditions
from esvector.search.needs import LookUp, Need, Send, Steps, run
from esvector.search.options import SearchOptions
from esvector.search.retrieval import Question
from esvector.search.searching import stored_vectors
from esvector.search.target import Target

TARGET = Target("i", Passport(EncoderProfile("m", similarity="cosine", dims=2), ("text",), "v", "1"), {})


def test_vectors_of_more_documents_than_an_answer_holds_are_fetched_in_parts() -> None:
    wanted = [f"d{n}" for n in range(25_000)]

    def perform(need: Need) -> object:
        assert isinstance(need, Send)
        assert max(body["size"] for body in need.bodies) <= 1000
        return [
            {
                "hits": {
                    "hits": [
                        {"_index": "i", "_id": id_, "_source": {"v": [1.0, 0.0]}}
                        for id_ in body["query"]["bool"]["filter"][0]["ids"]["values"]
                    ]
                }
            }
            for body in need.bodies
        ]

    found = run(stored_vectors(Question(TARGET, SearchOptions(), Conditions()), wanted), perform)
    assert sorted(found) == sorted(wanted)


def test_steps_are_told_what_failed_and_may_know_a_way_on() -> None:
    def steps() -> Steps[str]:
        try:
            yield LookUp()
        except SearchError:
            another: str = yield LookUp(again=True)
            return another
        return "nothing failed"

    def perform(need: Need) -> object:
        assert isinstance(need, LookUp)
        if not need.again:
            raise SearchError("gone")
        return "another way"

    def hopeless(need: Need) -> object:
        raise SearchError("gone")

    assert run(steps(), perform) == "another way"
    with pytest.raises(SearchError, match="gone"):
        run(steps(), hopeless)
