"""Near-duplicates: all pairs of documents of an index that are at least so similar, and the clusters they form."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from esvector.client import error_reason, explain_errors
from esvector.encode.profile import Similarity
from esvector.errors import ConfigError, IndexNotFoundError, SearchError
from esvector.passport import Passport
from esvector.search.exact import is_quantized
from esvector.search.options import MAX_K
from esvector.search.requests import read_hits, read_vectors, refusal
from esvector.types import Hit

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = ["Pair", "clusters", "find_pairs", "nearest_body", "page_body"]

_ALIVE = "10m"  # how long the server keeps a moment of the index between two requests
_PAGE = 500  # documents read at once
_BATCH = 50  # searches in one _msearch
_ANSWERED = 20_000  # hits asked for in one _msearch
_FIRST_K = 11  # the document itself and ten others
_GROWTH = 8
_CANDIDATES = 100
_EXACT = 5_000  # documents up to which each is compared with all: 25 million comparisons
_NOISE = 1e-6  # of float32: the cosine of a vector with itself may come back as 0.9999998

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two documents and their cosine or dot product; ``first`` is before ``second`` in the order of ids."""

    first: str
    second: str
    score: float


def find_pairs(
    client: Elasticsearch,
    index: str,
    passport: Passport,
    min_score: float,
    *,
    filters: Sequence[Mapping[str, Any]] = (),
    num_candidates: int | None = None,
    progress: Progress | None = None,
) -> Generator[Pair]:
    """Find the pairs of documents of ``index`` whose vectors are at least as similar as ``min_score``, each once.

    They come as they are found. The index is read as it is at the beginning, page by page, and for each document those
    nearest to it are searched, more and more of them while all that come back are similar enough. Memory holds a page
    of vectors, and pairs of which one document is still to be read.

    Up to 5,000 documents, each is compared with all others. Of more, a pair is missed if neither of its documents finds
    the other by an approximate search.

    Args:
        client: the Elasticsearch client to read with.
        index: an alias or index that esvector made.
        passport: what made it.
        min_score: cosine or dot product, as the encoder's similarity is. 1 of a cosine is met by equal vectors.
        filters: Query DSL; both documents of a pair match all of them.
        num_candidates: considered by each search on each shard; None: all of up to 5,000, else 100.
        progress: is told the number of documents that are done, and of all.

    Raises ConfigError, at once, for a score that cannot be and for an index in passages: a passage that two documents
    share, such as a notice at their end, makes no duplicates of them, and how many would is not for us to say. While
    reading, raises ConfigError when a document has more than 9,999 such neighbours; PartialResultsError when a shard
    fails.
    """
    if passport.passages is not None:
        raise ConfigError(
            f"{index} has its documents in passages, and one that two documents share makes no duplicates of them",
            "index them with one vector each, in a version or alias without --passages, to compare them as wholes",
        )
    similarity = passport.encoder.similarity or "cosine"
    highest = 1 if similarity == "cosine" else math.inf
    if not -highest <= min_score <= highest or math.isinf(min_score):
        raise ConfigError(
            f"the least score of a pair is {min_score:g}, which is no {'cosine' if highest == 1 else 'dot product'}",
            "0.9 is a good start" if highest == 1 else "use what 'esvector similar' shows for documents alike",
        )
    if num_candidates is not None and not 1 <= num_candidates <= MAX_K:
        raise ConfigError(f"num_candidates is {num_candidates}, but must be between 1 and {MAX_K}")
    least = min_score - _NOISE * max(1.0, abs(min_score))
    return _Comparison(client, index, passport.vector_field, similarity, least, filters, num_candidates, progress)()


def clusters(pairs: Iterable[Pair]) -> list[tuple[str, ...]]:
    """Return the ids that hang together by ``pairs``, directly or over others: largest cluster first, ids sorted."""
    parent: dict[str, str] = {}

    def root(id_: str) -> str:
        while parent.setdefault(id_, id_) != id_:
            parent[id_] = id_ = parent[parent[id_]]
        return id_

    for pair in pairs:
        parent[root(pair.second)] = root(pair.first)
    members: dict[str, list[str]] = {}
    for id_ in parent:
        members.setdefault(root(id_), []).append(id_)
    return sorted((tuple(sorted(ids)) for ids in members.values()), key=lambda ids: (-len(ids), ids))


def page_body(
    pit: str, vector_field: str, filters: Sequence[Mapping[str, Any]], after: Sequence[Any] | None
) -> dict[str, Any]:
    """Return the body that reads the next documents that have a vector, with it; ``after`` is the last one's sort."""
    return {
        "pit": {"id": pit, "keep_alive": _ALIVE},
        "query": {"bool": {"filter": [{"exists": {"field": vector_field}}, *filters]}},
        "sort": ["_shard_doc"],
        "size": _PAGE,
        "_source": [vector_field],  # which hides vectors unless they are named (9.5.3)
        "track_total_hits": after is None,
        **({} if after is None else {"search_after": list(after)}),
    }


def nearest_body(
    pit: str,
    vector_field: str,
    vector: Sequence[float],
    k: int,
    num_candidates: int,
    filters: Sequence[Mapping[str, Any]],
    quantized: bool,
) -> dict[str, Any]:
    """Return the body that finds the ``k`` documents nearest to ``vector`` (dims,), itself included, without fields.

    Where the field is ``quantized``, every candidate is compared again by its full vector.
    """
    candidates = max(k, num_candidates)
    knn: dict[str, Any] = {"field": vector_field, "query_vector": list(vector), "k": k, "num_candidates": candidates}
    if filters:
        knn["filter"] = [dict(clause) for clause in filters]
    if quantized:
        # k times this are compared again (9.5.3); the mapping's own number may leave a near one out, or be none.
        knn["rescore_vector"] = {"oversample": candidates / k}
    return {"pit": {"id": pit, "keep_alive": _ALIVE}, "knn": knn, "size": k, "_source": False}


class _Comparison:
    """One reading of an index; ``least`` is the score that makes a pair."""

    def __init__(
        self,
        client: Elasticsearch,
        index: str,
        vector_field: str,
        similarity: Similarity,
        least: float,
        filters: Sequence[Mapping[str, Any]],
        num_candidates: int | None,
        progress: Progress | None,
    ) -> None:
        self._client = client
        self._index = index
        self._field = vector_field
        self._similarity = similarity
        self._least = least
        self._filters = filters
        self._asked = num_candidates
        self._progress = progress or (lambda _, __: None)
        self._total = 0
        self._pit = ""
        self._quantized = False

    def __call__(self) -> Generator[Pair]:
        # Of a pair that was found from its one document, the other one's id leads to it until that one is read.
        seen: dict[str, set[str]] = {}
        done = 0
        with self._moment():
            for page in self._pages():
                for id_, near in self._near(page).items():
                    known = seen.pop(id_, ())
                    for hit in near:
                        if hit.id not in known:
                            seen.setdefault(hit.id, set()).add(id_)
                            yield Pair(min(id_, hit.id), max(id_, hit.id), hit.score)
                done += len(page)
                self._progress(done, self._total)

    @contextmanager
    def _moment(self) -> Iterator[None]:
        with self._explained():
            self._quantized = _is_quantized(self._client, self._index, self._field)
            self._pit = self._client.open_point_in_time(index=self._index, keep_alive=_ALIVE)["id"]
        try:
            yield
        finally:
            self._client.options(ignore_status=404).close_point_in_time(id=self._pit)

    def _pages(self) -> Iterator[dict[str, list[float]]]:
        """Yield vectors by id."""
        after: Sequence[Any] | None = None
        while True:
            body = page_body(self._pit, self._field, self._filters, after)
            with self._explained():
                answer = self._client.search(body=body, allow_partial_search_results=False).body
            if after is None:
                self._total = answer["hits"]["total"]["value"]
            if not (hits := answer["hits"]["hits"]):
                return
            yield {hit["_id"]: read_vectors(hit["_source"], self._field)[0] for hit in hits}
            after = hits[-1]["sort"]

    def _near(self, page: Mapping[str, Sequence[float]]) -> dict[str, list[Hit]]:
        """Return the other documents that are similar enough, for each of ``page``."""
        near: dict[str, list[Hit]] = {}
        left, k = list(page), min(_FIRST_K, self._total)
        while left:
            full = []
            size = max(1, min(_BATCH, _ANSWERED // k))
            for start in range(0, len(left), size):
                batch = left[start : start + size]
                for id_, hits in zip(batch, self._nearest([page[id_] for id_ in batch], k), strict=True):
                    near[id_] = [hit for hit in hits if hit.score >= self._least and hit.id != id_]
                    if len(hits) == k < self._total and hits[-1].score >= self._least:
                        full.append(id_)
            if full and k == MAX_K:
                raise ConfigError(
                    f"the document {full[0]!r} has more than {MAX_K - 1:,} others that are similar enough",
                    "ask for a higher score, or for fewer documents by a filter",
                )
            left, k = full, min(k * _GROWTH, MAX_K, self._total)
        return {id_: near[id_] for id_ in page}

    def _nearest(self, vectors: Sequence[Sequence[float]], k: int) -> list[list[Hit]]:
        candidates = self._asked or (self._total if self._total <= _EXACT else max(_CANDIDATES, min(MAX_K, 3 * k)))
        lines: list[Mapping[str, Any]] = []
        for vector in vectors:
            body = nearest_body(self._pit, self._field, vector, k, candidates, self._filters, self._quantized)
            lines += [{"allow_partial_search_results": False}, body]
        with self._explained():
            answers = self._client.msearch(searches=lines)["responses"]
        for answer in answers:
            if error := answer.get("error"):
                raise refusal(self._index, error)
        return [read_hits(answer, self._similarity) for answer in answers]

    @contextmanager
    def _explained(self) -> Iterator[None]:
        import elasticsearch

        try:
            with explain_errors(self._client):
                yield
        except elasticsearch.NotFoundError as error:
            if self._pit:
                raise SearchError(
                    f"the server no longer keeps {self._index} as it was at the beginning: {error_reason(error)}",
                    f"do not pause it for longer than {_ALIVE}, and run it again",
                ) from error
            raise IndexNotFoundError(
                f"there is no index {self._index}", "see 'esvector status' for those there are"
            ) from error
        except elasticsearch.ApiError as error:
            raise SearchError(f"Elasticsearch refuses to read {self._index}: {error_reason(error)}") from error


def _is_quantized(client: Elasticsearch, index: str, field: str) -> bool:
    """Whether the field compares other vectors than those that were given, unless told to rescore."""
    return any(
        is_quantized(mapping)
        for facts in client.indices.get_field_mapping(index=index, fields=field).values()
        for mapping in facts["mappings"].get(field, {}).get("mapping", {}).values()
    )
