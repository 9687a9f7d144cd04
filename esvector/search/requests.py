"""The bodies of search requests and what their answers mean. Pure functions: a test reads them as dictionaries."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from esvector.encode.profile import Similarity
from esvector.errors import PartialResultsError, SearchError
from esvector.passport import HASH_FIELD
from esvector.search.plan import Matches
from esvector.types import Hit, Passage

__all__ = [
    "check_shards",
    "knn_body",
    "matches_body",
    "passage_hits",
    "read_hits",
    "read_matches",
    "read_vectors",
    "refusal",
    "source_filter",
    "stored_vectors_body",
    "text_body",
    "to_similarity",
    "with_highlights",
    "words",
]

_FRAGMENT = 150  # characters


def knn_body(
    vector_field: str,
    vector: Sequence[float],
    k: int,
    *,
    num_candidates: int,
    filters: Sequence[Mapping[str, Any]] = (),
    passages: bool = False,
    oversample: float | None = None,
    source: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the body of a kNN search for the ``k`` nearest of the documents that match every filter.

    With ``passages`` the vector field is nested: a document is as near as the best of its passages, which comes along.
    ``vector`` is (dims,); ``num_candidates`` are considered on each shard; ``oversample`` is only
    for a field that is quantized.
    """
    knn: dict[str, Any] = {
        "field": vector_field,
        "query_vector": list(vector),
        "k": k,
        "num_candidates": num_candidates,
    }
    if filters:
        # The knn filter is applied before the search (9.5.3): k hits come back where k documents match.
        knn["filter"] = [dict(f) for f in filters]
    if oversample is not None:
        knn["rescore_vector"] = {"oversample": oversample}
    if passages:
        knn["inner_hits"] = passage_hits(vector_field)
    # Without a size of its own a search answers ten hits, whatever k is (9.5.3).
    return {"knn": knn, "size": k, "_source": source or source_filter(vector_field, passages=passages)}


def text_body(
    query: str,
    text_fields: Sequence[str],
    k: int,
    *,
    filters: Sequence[Mapping[str, Any]] = (),
    source: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the body of a search for the ``k`` documents whose words fit ``query`` best (BM25)."""
    wanted: dict[str, Any] = {"must": [words(query, text_fields)]}
    if filters:
        wanted["filter"] = [dict(f) for f in filters]
    return {"query": {"bool": wanted}, "size": k, "_source": source, "track_total_hits": False}


def with_highlights(body: dict[str, Any], query: str, text_fields: Sequence[str]) -> dict[str, Any]:
    """Return ``body`` asking for the places with words of ``query``, too."""
    marked = {
        "fields": {name: {"number_of_fragments": 3, "fragment_size": _FRAGMENT} for name in text_fields},
        # A kNN search has no words of its own to mark (9.5.3).
        "highlight_query": words(query, text_fields),
    }
    return body | {"highlight": marked}


def matches_body(
    vector_field: str, filters: Sequence[Mapping[str, Any]], up_to: int, *, passages: bool = False
) -> dict[str, Any]:
    """Return the body that counts the documents that match every filter, and their passages; no further than needed."""
    body: dict[str, Any] = {
        "size": 0,
        "track_total_hits": up_to + 1,
        "query": {"bool": {"filter": [dict(f) for f in filters]}},
    }
    if passages:
        body["aggs"] = {"vectors": {"nested": {"path": vector_field.rpartition(".")[0]}}}
    return body


def read_matches(answer: Mapping[str, Any]) -> Matches:
    """Return what ``matches_body`` has counted."""
    total = answer["hits"]["total"]
    vectors = answer.get("aggregations", {}).get("vectors", {}).get("doc_count", total["value"])
    return Matches(total["value"], vectors, at_least=total["relation"] != "eq")


def passage_hits(vector_field: str) -> dict[str, Any]:
    """Return what a kNN search of passages brings of the best one."""
    path = vector_field.rpartition(".")[0]
    # Inner hits name their fields by the whole path, and answer them without it (9.5.3).
    return {"size": 1, "_source": [f"{path}.{name}" for name in ("text", "start", "end")]}


def stored_vectors_body(
    vector_field: str, document_ids: Sequence[str], filters: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Return the body that fetches the vectors of documents, which ``_source`` hides unless they are named."""
    wanted = [{"ids": {"values": list(document_ids)}}, *(dict(f) for f in filters)]
    return {"query": {"bool": {"filter": wanted}}, "size": len(document_ids), "_source": [vector_field]}


def source_filter(vector_field: str, *, passages: bool, fields: Sequence[str] | None = None) -> dict[str, Any]:
    """Return what ``_source`` brings: all, or ``fields``, but no vectors and nothing of our own."""
    excludes = [vector_field.rpartition(".")[0] if passages else vector_field, HASH_FIELD]
    return {"excludes": excludes} if fields is None else {"includes": list(fields), "excludes": excludes}


def read_vectors(source: Mapping[str, Any], vector_field: str) -> list[list[float]]:
    """Return the vectors in the ``_source`` of one document: one, one for each passage, or none."""
    if (vector := source.get(vector_field)) is not None:
        return [vector]
    path, _, name = vector_field.rpartition(".")
    nested = source.get(path) or []
    # A single passage may have been stored without a list around it.
    return [passage[name] for passage in ([nested] if isinstance(nested, dict) else nested) if name in passage]


def check_shards(answer: Mapping[str, Any], *, allow_partial: bool = False) -> bool:
    """Return whether an answer is only a part of the whole.

    Raises PartialResultsError for one, unless it is allowed: a shard failed or the search ran out of time, and the
    rest could be wrong.
    """
    shards = answer.get("_shards", {})
    if not (shards.get("failed") or answer.get("timed_out")):
        return False
    if allow_partial:
        return True
    failures = [str(f.get("reason", {}).get("reason", f)) for f in shards.get("failures", [])]
    raise PartialResultsError(
        f"{shards.get('failed', 0)} of {shards.get('total', 0)} shards failed"
        + (", and the search ran out of time" if answer.get("timed_out") else "")
        + (f": {failures[0]}" if failures else ""),
        "see 'esvector status' and the server's log, then search again",
    )


def refusal(alias: str, error: Mapping[str, Any]) -> SearchError:
    """Return what to raise for a search of ``alias`` that Elasticsearch answered with ``error``, the object.

    That is PartialResultsError where shards are missing, or ran out of time.
    """
    # Of missing shards only the cause says so: there is no root cause, and the reason is "" or "start" (9.5.3).
    (cause, *_) = error.get("root_cause") or [error.get("caused_by") or error]
    reason = cause.get("reason") or cause.get("type")
    missing = not error.get("root_cause") and error.get("type") == "search_phase_execution_exception"
    if missing or cause.get("type") == "search_timeout_exception":
        return PartialResultsError(
            f"shards of {alias} did not answer the search: {reason}",
            "see 'esvector status' and the server's log, or take the hits of the others by allow_partial=True",
        )
    return SearchError(f"Elasticsearch refuses the search of {alias}: {reason}")


def read_hits(answer: Mapping[str, Any], similarity: Similarity | None) -> list[Hit]:
    """Return the hits of an answer, best first; without ``similarity`` scores are BM25.

    Equal ones stay as the server orders them: the same whether 10 or 20 are asked for, so that pages do not overlap.
    """
    hits = [_hit(hit, similarity) for hit in answer["hits"]["hits"]]
    return sorted(hits, key=lambda hit: -hit.score)


def to_similarity(score: float, similarity: Similarity) -> float:
    """Return the cosine or dot product behind an Elasticsearch ``_score`` (9.5.3; float32, so off by up to 1e-7)."""
    if similarity == "cosine":
        return 2 * score - 1
    if score >= 1:
        return score - 1
    return 1 - 1 / score if score else -math.inf


def words(query: str, text_fields: Sequence[str]) -> dict[str, Any]:
    """Return the clause that scores documents by the words of ``query``."""
    # The best field counts, and half of what the others add: a title that says it all need not be repeated.
    return {"multi_match": {"query": query, "fields": list(text_fields), "type": "best_fields", "tie_breaker": 0.5}}


def _hit(hit: Mapping[str, Any], similarity: Similarity | None) -> Hit:
    highlights = {name: tuple(places) for name, places in hit.get("highlight", {}).items()}
    if similarity is None:
        return Hit(hit["_id"], hit["_score"], hit.get("_source", {}), highlights=highlights)
    passage = _passage(hit, similarity)
    # Of a nested field, ``_score`` is exact, but of the passage that was best by quantized vectors, which another can
    # nearly equal (9.5.3, int8: 6 of 3,000 hits were off, by up to 0.005). The inner hit is the best by exact ones.
    score = to_similarity(hit["_score"], similarity) if passage is None else passage.score
    return Hit(hit["_id"], score, hit.get("_source", {}), passage, highlights=highlights)


def _passage(hit: Mapping[str, Any], similarity: Similarity) -> Passage | None:
    for nested in hit.get("inner_hits", {}).values():
        for inner in nested["hits"]["hits"]:
            source = inner["_source"]
            return Passage(source["text"], source["start"], source["end"], to_similarity(inner["_score"], similarity))
    return None
