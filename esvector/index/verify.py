"""Whether a new version is as good as what it replaces: nothing missing, and found again by a search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from esvector.errors import VerificationError
from esvector.index.content import stored_pages
from esvector.index.repeating import Repeating
from esvector.index.target import Target

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = ["Verification", "check_complete", "verify"]

_K = 10
_QUERIES = 50
_CANDIDATES = 100  # of a search that asks for no other number
_EXACT = 10_000  # candidates from which on segments of up to about 100,000 documents are searched exactly (9.5.3)


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found: ``recall`` at ``k`` of ``queries`` documents that were searched for by their own vectors."""

    recall: float
    queries: int
    k: int = _K


def check_complete(client: Elasticsearch, target: Target, source: str, repeat: Repeating) -> None:
    """Raise VerificationError unless ``target`` has as many documents as the index ``source``, each with a vector."""
    repeat(lambda: client.indices.refresh(index=f"{source},{target.index}"))
    wanted = repeat(lambda: client.count(index=source))["count"]
    count = repeat(lambda: client.count(index=target.index))["count"]
    with_vector = repeat(lambda: client.count(index=target.index, query=_has_vector(target)))["count"]
    if not count == with_vector == wanted:
        raise VerificationError(
            f"{target.index} has {count} documents, {with_vector} of them with a vector, but {source} has {wanted}",
            "see the dead letters for those that could not be carried over; readers see what they saw before",
        )


def verify(client: Elasticsearch, target: Target, source: str, repeat: Repeating) -> Verification:
    """Check that nothing is missing, and search for a sample of the documents, approximately and exactly."""
    check_complete(client, target, source, repeat)
    vectors = _sample(client, target, repeat)
    if not vectors:
        return Verification(1.0, 0)
    exact = [_nearest(client, target, vector, _EXACT, repeat) for vector in vectors]
    found = [_nearest(client, target, vector, _CANDIDATES, repeat) for vector in vectors]
    hits = sum(len(near & all_near) for near, all_near in zip(found, exact, strict=True))
    return Verification(hits / sum(map(len, exact)), len(vectors))


def _has_vector(target: Target) -> dict[str, Any]:
    field = target.passport.vector_field
    exists = {"exists": {"field": field}}
    return {"nested": {"path": field.partition(".")[0], "query": exists}} if "." in field else exists


def _sample(client: Elasticsearch, target: Target, repeat: Repeating) -> list[list[float]]:
    """Vectors of documents from all over the index."""
    field = target.passport.vector_field
    count = repeat(lambda: client.count(index=target.index))["count"]
    every = max(1, count // _QUERIES)
    ids: list[str] = []
    place = 0
    for page in stored_pages(client, target.index, repeat, 5_000, source=False):
        ids += [hit["_id"] for hit in page[-place % every :: every]]
        place += len(page)
        if len(ids) >= _QUERIES:
            break
    answer = repeat(
        lambda: client.search(
            index=target.index, query={"ids": {"values": ids[:_QUERIES]}}, size=_QUERIES, source={"includes": [field]}
        )
    )
    return [_vector(hit["_source"], field) for hit in answer["hits"]["hits"]]


def _vector(source: dict[str, Any], field: str) -> list[float]:
    outer, _, inner = field.partition(".")
    found: list[float] = source[outer][0][inner] if inner else source[outer]
    return found


def _nearest(
    client: Elasticsearch, target: Target, vector: list[float], candidates: int, repeat: Repeating
) -> set[str]:
    field = target.passport.vector_field
    knn = {"field": field, "query_vector": vector, "k": _K, "num_candidates": candidates}
    answer = repeat(
        lambda: client.search(index=target.index, knn=knn, size=_K, source=False, allow_partial_search_results=False)
    )
    return {hit["_id"] for hit in answer["hits"]["hits"]}
