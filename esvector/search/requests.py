"""The bodies of search requests and what their answers mean. Pure functions: a test reads them as dictionaries."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from esvector.encode.profile import Similarity
from esvector.errors import ConfigError, PartialResultsError
from esvector.passport import HASH_FIELD
from esvector.types import Hit, Passage

__all__ = ["MAX_K", "knn_body", "read_hits", "read_vectors", "stored_vector_body", "to_similarity"]

MAX_K = 10_000  # Elasticsearch's limit on num_candidates, and so on k (9.5.3)


def knn_body(
    vector_field: str,
    vector: Sequence[float],
    k: int,
    *,
    num_candidates: int | None = None,
    filters: Sequence[Mapping[str, Any]] = (),
    passages: bool = False,
) -> dict[str, Any]:
    """Return the body of a kNN search for the ``k`` nearest of the documents that match every filter.

    With ``passages`` the vector field is nested: a document is as near as the best of its passages, which comes along.

    ``vector`` is (dims,); ``num_candidates`` are considered on each shard (None: three times k, at least 100).
    Raises ConfigError when k or num_candidates is out of range.
    """
    if not 1 <= k <= MAX_K:
        raise ConfigError(f"k is {k}, but must be between 1 and {MAX_K}", "ask for fewer hits")
    candidates = min(MAX_K, max(100, 3 * k)) if num_candidates is None else num_candidates
    if not k <= candidates <= MAX_K:
        raise ConfigError(f"num_candidates is {candidates}, but must be between k ({k}) and {MAX_K}")
    knn: dict[str, Any] = {"field": vector_field, "query_vector": list(vector), "k": k, "num_candidates": candidates}
    if filters:
        # The knn filter is applied before the search (9.5.3): k hits come back where k documents match.
        knn["filter"] = [dict(f) for f in filters]
    hidden = vector_field
    if passages:
        hidden = vector_field.rpartition(".")[0]
        # Inner hits name their fields by the whole path, and answer them without it (9.5.3).
        knn["inner_hits"] = {"size": 1, "_source": [f"{hidden}.{name}" for name in ("text", "start", "end")]}
    # Without a size of its own a search answers ten hits, whatever k is (9.5.3).
    return {"knn": knn, "size": k, "_source": {"excludes": [hidden, HASH_FIELD]}}


def stored_vector_body(vector_field: str, document_id: str) -> dict[str, Any]:
    """Return the body of a search that fetches the vectors of one document, which ``_source`` hides unless named."""
    return {"query": {"ids": {"values": [document_id]}}, "size": 1, "_source": [vector_field]}


def read_vectors(source: Mapping[str, Any], vector_field: str) -> list[list[float]]:
    """Return the vectors in the ``_source`` of one document: one, one for each passage, or none."""
    if (vector := source.get(vector_field)) is not None:
        return [vector]
    path, _, name = vector_field.rpartition(".")
    nested = source.get(path) or []
    # A single passage may have been stored without a list around it.
    return [passage[name] for passage in ([nested] if isinstance(nested, dict) else nested) if name in passage]


def read_hits(answer: Mapping[str, Any], similarity: Similarity) -> list[Hit]:
    """Return the hits of an answer, best first, equal scores ordered by id.

    Raises PartialResultsError when a shard failed or the search ran out of time: the rest could be wrong.
    """
    shards = answer.get("_shards", {})
    if shards.get("failed") or answer.get("timed_out"):
        failures = [str(f.get("reason", {}).get("reason", f)) for f in shards.get("failures", [])]
        raise PartialResultsError(
            f"{shards.get('failed', 0)} of {shards.get('total', 0)} shards failed"
            + (", and the search ran out of time" if answer.get("timed_out") else "")
            + (f": {failures[0]}" if failures else ""),
            "see 'esvector status' and the server's log, then search again",
        )
    hits = [_hit(hit, similarity) for hit in answer["hits"]["hits"]]
    return sorted(hits, key=lambda hit: (-hit.score, hit.id))


def to_similarity(score: float, similarity: Similarity) -> float:
    """Return the cosine or dot product behind an Elasticsearch ``_score`` (9.5.3; float32, so off by up to 1e-7)."""
    if similarity == "cosine":
        return 2 * score - 1
    if score >= 1:
        return score - 1
    return 1 - 1 / score if score else -math.inf


def _hit(hit: Mapping[str, Any], similarity: Similarity) -> Hit:
    passage = _passage(hit, similarity)
    # Of a nested field, ``_score`` is exact, but of the passage that was best by quantized vectors, which another can
    # nearly equal (9.5.3, int8: 6 of 3,000 hits were off, by up to 0.005). The inner hit is the best by exact ones.
    score = to_similarity(hit["_score"], similarity) if passage is None else passage.score
    return Hit(hit["_id"], score, hit.get("_source", {}), passage)


def _passage(hit: Mapping[str, Any], similarity: Similarity) -> Passage | None:
    for nested in hit.get("inner_hits", {}).values():
        for inner in nested["hits"]["hits"]:
            source = inner["_source"]
            return Passage(source["text"], source["start"], source["end"], to_similarity(inner["_score"], similarity))
    return None
