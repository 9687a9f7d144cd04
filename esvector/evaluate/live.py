"""What is behind an alias: its index, passport and mapping, and the searches that a measurement sends to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from esvector.client import error_reason, explain_errors
from esvector.errors import IndexNotFoundError, PartialResultsError, SearchError
from esvector.mapping import find_vector
from esvector.passport import Passport
from esvector.search.conditions import Conditions
from esvector.search.target import Target, read_target

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = ["Live", "ask", "ask_many", "look_up"]

_BATCH = 100  # searches in one _msearch


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
    import elasticsearch

    try:
        with explain_errors(client):
            found = client.indices.get(index=alias, flat_settings=True).body
    except elasticsearch.NotFoundError as error:
        raise IndexNotFoundError(f"there is no index {alias}", "see 'esvector status' for those there are") from error
    target = read_target(alias, found)
    facts = found[target.index]
    settings = {key.removeprefix("index."): value for key, value in facts["settings"].items()}
    return Live(alias, target, facts["mappings"], settings)


def ask(client: Elasticsearch, index: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Send one search and return its answer. Raises SearchError when it is refused, or not answered by every shard."""
    import elasticsearch

    try:
        with explain_errors(client):
            answer = client.search(index=index, allow_partial_search_results=False, body=dict(body)).body
    except elasticsearch.ApiError as error:
        raise SearchError(f"Elasticsearch refuses a search of {index}: {error_reason(error)}") from error
    return _complete(index, answer)


def ask_many(client: Elasticsearch, index: str, bodies: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Send many searches, a hundred at a time, and return their answers. Raises as ``ask`` does."""
    header = {"index": index, "allow_partial_search_results": False}
    answers: list[Mapping[str, Any]] = []
    for start in range(0, len(bodies), _BATCH):
        lines = [line for body in bodies[start : start + _BATCH] for line in (header, dict(body))]
        with explain_errors(client):
            answers += client.msearch(searches=lines)["responses"]
    return [_complete(index, answer) for answer in answers]


def _complete(index: str, answer: Mapping[str, Any]) -> Mapping[str, Any]:
    if "error" in answer:
        cause = (answer["error"].get("root_cause") or [answer["error"]])[0]
        raise SearchError(f"Elasticsearch refuses a search of {index}: {cause.get('reason')}")
    if answer["_shards"]["failed"] or answer["timed_out"]:
        raise PartialResultsError(
            f"{answer['_shards']['failed']} of {answer['_shards']['total']} shards of {index} did not answer",
            "see 'esvector status' and the server's log, then try again",
        )
    return answer
