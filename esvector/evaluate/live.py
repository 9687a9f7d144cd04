"""What is behind an alias: its index, passport and mapping, and the searches that a measurement sends to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from esvector.mapping import find_vector
from esvector.passport import Passport
from esvector.search.conditions import Conditions
from esvector.search.needs import Send
from esvector.search.requests import check_shards
from esvector.search.searcher import batches_of, explained, msearch_answers
from esvector.search.target import Target, read_target

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = ["Live", "ask", "ask_many", "look_up"]


@dataclass(frozen=True, slots=True)
class Live:
    """One index, which is searched by its own name. ``settings`` are flat, without "index."."""

    alias: str
    target: Target
    mappings: Mapping[str, Any]
    settings: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Name of the index."""
        return self.target.index

    @property
    def passport(self) -> Passport:
        """What made it."""
        return self.target.passport

    @property
    def vector(self) -> Mapping[str, Any]:
        """Mapping of the vector field."""
        return find_vector(self.mappings.get("properties", {}), self.passport.vector_field)

    @property
    def vector_type(self) -> str:
        """Type of its ``index_options``; "hnsw" where the server does not say (bytes)."""
        return str(self.vector.get("index_options", {}).get("type", "hnsw"))

    @property
    def passages(self) -> bool:
        """Whether documents have a vector for each passage."""
        return "." in self.passport.vector_field

    def filters(self, where: str | None) -> list[Mapping[str, Any]]:
        """Return the filter ``where`` as Query DSL. Raises FilterError when it cannot be understood."""
        return list(Conditions.of(self.target, None, where).document)

    def has_vector(self) -> dict[str, Any]:
        """Return the query for documents that have a vector."""
        exists = {"exists": {"field": self.passport.vector_field}}
        path = self.passport.vector_field.rpartition(".")[0]
        return {"nested": {"path": path, "query": exists}} if path else exists


def look_up(client: Elasticsearch, alias: str) -> Live:
    """Return what is behind ``alias``. Raises IndexNotFoundError where that is not one index that esvector made."""
    with explained(client, alias):
        found = client.indices.get(index=alias, flat_settings=True).body
    target = read_target(alias, found)
    facts = found[target.index]
    settings = {key.removeprefix("index."): value for key, value in facts["settings"].items()}
    return Live(alias, target, facts["mappings"], settings)


def ask(client: Elasticsearch, index: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Send one search and return its answer. Raises SearchError when it is refused, or not answered by every shard."""
    with explained(client, index):
        answer: Mapping[str, Any] = client.search(index=index, allow_partial_search_results=False, body=dict(body)).body
    check_shards(answer)
    return answer


def ask_many(client: Elasticsearch, index: str, bodies: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Send many searches, a hundred at a time, and return their answers. Raises as ``ask`` does."""
    answers: list[Mapping[str, Any]] = []
    for lines in batches_of(index, Send([dict(body) for body in bodies])):
        with explained(client, index):
            answers += msearch_answers(client.msearch(searches=lines), index)
    for answer in answers:
        check_shards(answer)
    return answers
