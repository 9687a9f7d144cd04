"""Retrieve and re-rank: the first hits of a search, judged one by one by a model that reads query and text together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from esvector.encode.reranking import CrossEncoderReranker, PairReranker, Reranker, open_reranker
from esvector.errors import EncoderError, SearchError
from esvector.passport import Passport
from esvector.types import Hit, Leg

__all__ = ["CrossEncoderReranker", "Reranker", "judged_text", "open_reranker", "rerank", "rerank_many"]


def judged_text(hit: Hit, passport: Passport) -> str:
    """Return the text of ``hit`` that is judged: its passage, else what was encoded of it, title and text joined.

    The hit has to bring the text fields of the passport in its source. "" where it has no text.
    """
    if hit.passage is not None:
        return hit.passage.text
    texts = [value if isinstance(value := hit.source.get(name), str) else "" for name in passport.text_fields]
    return passport.encoder.join((*texts[:1], *(text for text in texts[1:] if text)))


def rerank(query: str, hits: Sequence[Hit], reranker: Reranker, text_of: Callable[[Hit], str]) -> list[Hit]:
    """Return ``hits``, best first, in the order and with the score of ``reranker``; equal ones as they came.

    ``legs`` keeps what it held and gets "rerank". Of hits without legs, rank and score are kept as "vector". Raises
    SearchError when no hit has a text, EncoderError when a score is no number.
    """
    return rerank_many([query], [hits], reranker, text_of)[0]


def rerank_many(
    queries: Sequence[str], hits: Sequence[Sequence[Hit]], reranker: Reranker, text_of: Callable[[Hit], str]
) -> list[list[Hit]]:
    """Re-rank the hits of several queries, in the same batches where ``reranker`` is a ``PairReranker``."""
    texts = [[text_of(hit) for hit in found] for found in hits]
    if any(map(len, texts)) and not any(text.strip() for found in texts for text in found):
        raise SearchError(
            "there is no text to judge: the stored documents have none in their text fields",
            "search without re-ranking, or index the documents with their texts",
        )
    scores = _scores(queries, texts, reranker) if queries else []
    return [_ordered(found, row) for found, row in zip(hits, scores, strict=True)]


def _scores(queries: Sequence[str], texts: Sequence[Sequence[str]], reranker: Reranker) -> list[NDArray[np.float32]]:
    if isinstance(reranker, PairReranker):
        pairs = [(query, text) for query, found in zip(queries, texts, strict=True) for text in found]
        together = _checked(reranker.score_pairs(pairs), len(pairs))
        return np.split(together, np.cumsum([len(found) for found in texts])[:-1])
    return [
        _checked(reranker.score(query, found), len(found)) if found else np.zeros(0, np.float32)
        for query, found in zip(queries, texts, strict=True)
    ]


def _checked(scores: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    scores = np.asarray(scores, np.float32)
    if scores.shape != (count,):
        raise EncoderError(f"the re-ranker gave an array of shape {scores.shape} for {count} texts")
    if np.isnan(scores).any():
        raise EncoderError(f"the re-ranker gave {int(np.isnan(scores).sum())} scores that are no number")
    return scores


def _ordered(hits: Sequence[Hit], scores: NDArray[np.float32]) -> list[Hit]:
    order = np.argsort(-scores, kind="stable").tolist()
    ranked: list[Hit] = []
    for rank, at in enumerate(order, start=1):
        hit, score = hits[at], float(scores[at])
        before = hit.legs or {"vector": Leg(at + 1, hit.score)}
        ranked.append(replace(hit, score=score, legs={**before, "rerank": Leg(rank, score)}))
    return ranked
