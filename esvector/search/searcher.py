"""Searching an alias: the passport says how to encode the query, the mapping how to read the filter."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from esvector.client import error_reason, explain_errors
from esvector.encode.encoder import Encoder
from esvector.encode.probes import unpack_probes
from esvector.encode.queries import QueryEncoder, open_query_encoder, use_encoder
from esvector.encode.tower import unit_length
from esvector.errors import ConfigError, DocumentNotFoundError, IndexNotFoundError, SearchError
from esvector.fields import FieldType, field_types
from esvector.passport import Passport
from esvector.search.filters import compile_filter
from esvector.search.requests import knn_body, read_hits, read_vectors, stored_vector_body
from esvector.types import Hit
from esvector.vectors import to_elements

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = ["Searcher", "Target"]

_MOVES = 3  # lookups of an alias that moves while it is searched
_BATCH = 100  # searches in one _msearch

_Filter = Mapping[str, Any] | Sequence[Mapping[str, Any]] | None


@dataclass(frozen=True, slots=True)
class Target:
    """What an alias leads to at the moment: one index, its passport, and the types of its fields."""

    index: str
    passport: Passport
    fields: Mapping[str, FieldType]


class Searcher:
    """Searches ``alias`` with the encoder that made it; no model is named. Safe to use from several threads.

    Args:
        client: the Elasticsearch client to read with.
        alias: name that the documents were indexed under.
        encoder: a loaded encoder to use instead of loading the one of the passport; it must be the same.
        device: where to encode queries: None is the CPU without torch, by a tower exported once; "cuda:0" is torch.
        query_cache: folder of the exported towers; None is the user's cache.
    """

    def __init__(
        self,
        client: Elasticsearch,
        alias: str,
        *,
        encoder: Encoder | None = None,
        device: str | None = None,
        query_cache: str | Path | None = None,
    ) -> None:
        self.client = client
        self.alias = alias
        self._given = encoder
        self._query_encoder: QueryEncoder | None = None
        self._device = device
        self._query_cache = None if query_cache is None else Path(query_cache)
        self._target: Target | None = None
        self._lock = threading.Lock()

    @property
    def target(self) -> Target:
        """What the alias led to when it was last looked up. Raises IndexNotFoundError when it leads nowhere."""
        if self._target is None:
            self._target = self._look_up()
        return self._target

    @overload
    def search(  # type: ignore[overload-overlap]  # a str is a sequence of str, too
        self,
        query: str,
        *,
        k: int = 10,
        where: str | None = None,
        filter: _Filter = None,
        num_candidates: int | None = None,
    ) -> list[Hit]: ...
    @overload
    def search(
        self,
        query: Sequence[str],
        *,
        k: int = 10,
        where: str | None = None,
        filter: _Filter = None,
        num_candidates: int | None = None,
    ) -> list[list[Hit]]: ...
    def search(
        self,
        query: str | Sequence[str],
        *,
        k: int = 10,
        where: str | None = None,
        filter: _Filter = None,  # noqa: A002  # the word of Elasticsearch's own API
        num_candidates: int | None = None,
    ) -> list[Hit] | list[list[Hit]]:
        """Return the ``k`` documents nearest to ``query``, best first; a list of queries gives a list of lists.

        ``where`` is a filter expression ("year >= 2020 and lang = en"), ``filter`` raw Query DSL; only documents that
        match both are searched, so k hits come back where k match. Raises EncoderMismatchError when the index was made
        by another encoder, FilterError for a filter that cannot be understood, ConfigError for k out of range,
        PartialResultsError when a shard failed.
        """
        queries = [query] if isinstance(query, str) else list(query)
        if empty := [n for n, text in enumerate(queries) if not text.strip()]:
            raise ConfigError(f"query {empty[0] + 1} is empty", "write what you are looking for")

        if not queries:
            return []

        def bodies(target: Target) -> list[dict[str, Any]]:
            return self._bodies(target, queries, k, where, filter, num_candidates)

        answers = self._ask(bodies)
        return answers[0] if isinstance(query, str) else answers

    def similar(
        self,
        document_id: str,
        *,
        k: int = 10,
        where: str | None = None,
        filter: _Filter = None,  # noqa: A002  # the word of Elasticsearch's own API
        num_candidates: int | None = None,
    ) -> list[Hit]:
        """Return the ``k`` documents nearest to a stored one, without itself and without encoding anything.

        Of a document in passages, the mean of their vectors is compared with the passages of the others. Raises
        DocumentNotFoundError when there is no such document, or it has no vector.
        """

        def bodies(target: Target) -> list[dict[str, Any]]:
            vector = self._stored_vector(target, document_id)
            others = {"bool": {"must_not": [{"ids": {"values": [document_id]}}]}}
            filters = [others, *_filters(target, where, filter)]
            return [_body(target, vector, k, num_candidates, filters)]

        return self._ask(bodies)[0]

    def request(
        self,
        query: str,
        *,
        k: int = 10,
        where: str | None = None,
        filter: _Filter = None,  # noqa: A002  # the word of Elasticsearch's own API
        num_candidates: int | None = None,
    ) -> dict[str, Any]:
        """Return the body that ``search`` would send, to look at or to send yourself."""
        return self._bodies(self.target, [query], k, where, filter, num_candidates)[0]

    def _bodies(
        self,
        target: Target,
        queries: list[str],
        k: int,
        where: str | None,
        filter: _Filter,  # noqa: A002
        num_candidates: int | None,
    ) -> list[dict[str, Any]]:
        filters = _filters(target, where, filter)
        # Everything that can be wrong with the request is found before a model is loaded.
        _body(target, [], k, num_candidates, filters)
        vectors = self._encode(target, queries)
        return [_body(target, row, k, num_candidates, filters) for row in vectors.tolist()]

    def _encode(self, target: Target, queries: list[str]) -> NDArray[np.float32] | NDArray[np.int8]:
        vectors = self._matching_encoder(target.passport)(queries)
        return to_elements(vectors, target.passport.element_type)

    def _matching_encoder(self, passport: Passport) -> QueryEncoder:
        """Return the query encoder of ``passport``: the given one if it matches, else the one opened for it."""
        with self._lock:
            current = self._query_encoder
            if current is None or current.query_id != passport.encoder.query_id:
                probes = unpack_probes(passport.probes, passport.encoder.dims or 0)
                if self._given is not None:
                    current = use_encoder(self._given, passport.encoder, probes)
                else:
                    current = open_query_encoder(passport.encoder, probes, device=self._device, cache=self._query_cache)
                self._query_encoder = current
            return current

    def _ask(self, bodies: Callable[[Target], list[dict[str, Any]]]) -> list[list[Hit]]:
        """Send the bodies made for the current target; where the alias has moved meanwhile, make and send them anew."""
        for _ in range(_MOVES):
            target = self.target
            with self._explained():
                answers = self._send(bodies(target))
            indices = {hit["_index"] for answer in answers for hit in answer["hits"]["hits"]}
            if indices <= {target.index}:
                similarity = target.passport.encoder.similarity or "cosine"
                return [read_hits(answer, similarity) for answer in answers]
            self._target = None  # another version is live now: maybe other fields, maybe another encoder
        raise SearchError(f"the alias {self.alias} moved {_MOVES} times during one search", "search again")

    def _send(self, bodies: list[dict[str, Any]]) -> list[Mapping[str, Any]]:
        if len(bodies) == 1:
            return [self.client.search(index=self.alias, allow_partial_search_results=False, body=bodies[0]).body]
        header = {"index": self.alias, "allow_partial_search_results": False}
        answers: list[Mapping[str, Any]] = []
        for start in range(0, len(bodies), _BATCH):
            lines = [line for body in bodies[start : start + _BATCH] for line in (header, body)]
            answers += self.client.msearch(searches=lines)["responses"]
        if errors := [answer["error"] for answer in answers if "error" in answer]:
            cause = (errors[0].get("root_cause") or errors)[0]
            raise SearchError(f"Elasticsearch refuses a search of {self.alias}: {cause.get('reason')}")
        return answers

    def _stored_vector(self, target: Target, document_id: str) -> list[float]:
        field = target.passport.vector_field
        with self._explained():
            hits = self.client.search(index=self.alias, body=stored_vector_body(field, document_id))["hits"]["hits"]
        if not hits:
            raise DocumentNotFoundError(f"no document {document_id!r} in {self.alias}", "check the id")
        vectors = read_vectors(hits[0]["_source"], field)
        if not vectors:
            raise DocumentNotFoundError(f"the document {document_id!r} in {self.alias} has no vector", "index it again")
        return list(vectors[0]) if len(vectors) == 1 else _mean(vectors, target.passport)

    def _look_up(self) -> Target:
        with self._explained():
            mappings = self.client.indices.get_mapping(index=self.alias)
        if len(mappings) != 1:
            raise IndexNotFoundError(f"{self.alias} leads to {len(mappings)} indices", "name one alias of one index")
        index, facts = next(iter(mappings.items()))
        passport = Passport.from_meta(facts["mappings"].get("_meta"))
        if passport is None:
            raise IndexNotFoundError(
                f"{self.alias} has no passport (_meta.esvector), so nobody knows what made its vectors",
                "index the documents with esvector",
            )
        return Target(index, passport, field_types(facts["mappings"]))

    @contextmanager
    def _explained(self) -> Iterator[None]:
        import elasticsearch

        try:
            with explain_errors(self.client):
                yield
        except elasticsearch.NotFoundError as error:
            raise IndexNotFoundError(
                f"there is no index {self.alias}", "see 'esvector status' for those there are"
            ) from error
        except elasticsearch.ApiError as error:
            raise SearchError(f"Elasticsearch refuses the search of {self.alias}: {error_reason(error)}") from error


def _body(
    target: Target,
    vector: Sequence[float],
    k: int,
    num_candidates: int | None,
    filters: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    passport = target.passport
    return knn_body(
        passport.vector_field,
        vector,
        k,
        num_candidates=num_candidates,
        filters=filters,
        passages=passport.passages is not None,
    )


def _mean(vectors: Sequence[Sequence[float]], passport: Passport) -> list[float]:
    """Mean of the vectors of several passages, of one weight each where only directions are compared."""
    stored = np.asarray(vectors, np.float32)
    if passport.encoder.similarity != "dot":
        stored = unit_length(stored)
    mean: list[float] = to_elements(stored.mean(axis=0, keepdims=True), passport.element_type)[0].tolist()
    return mean


def _filters(target: Target, where: str | None, raw: _Filter) -> list[Mapping[str, Any]]:
    filters: list[Mapping[str, Any]] = []
    if where is not None:
        filters.append(compile_filter(where, target.fields))
    if raw is not None:
        filters += [raw] if isinstance(raw, Mapping) else list(raw)
    return filters
