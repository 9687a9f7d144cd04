"""How a search was done, from what it needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from esvector.search.needs import EncodeDocuments, EncodeQueries, Need, Rerank, Send
from esvector.search.plan import Plan
from esvector.search.results import Explanation
from esvector.search.retrieval import Question

__all__ = ["explain"]


def explain(
    alias: str,
    question: Question,
    plan: Plan | None,
    row: int,
    queries: Sequence[str] | None,
    needs: Sequence[Need],
) -> Explanation:
    """Return the explanation of query ``row``, of those that were asked in one call."""
    passport = question.target.passport
    encoded = any(isinstance(need, EncodeQueries) for need in needs)
    matches = None if plan is None else plan.matches
    return Explanation(
        alias=alias,
        index=question.target.index,
        encoder=passport.encoder.model,
        query_input=passport.encoder.query_input(queries[row]) if encoded and queries is not None else None,
        similarity=passport.encoder.similarity or "cosine",
        plan=_plan(question, plan),
        matches=None if matches is None or matches.at_least else matches.documents,
        num_candidates=None if plan is None or plan.name == "exact" else plan.num_candidates,
        bodies=tuple(_bodies(question, row, 1 if queries is None else len(queries))),
        seconds=_seconds(needs),
    )


def _plan(question: Question, plan: Plan | None) -> str:
    parts = []
    if plan is not None:
        parts.append(f"{plan.name}: {plan.why}")
    if question.options.by_text:
        parts.append(f"words (BM25) in {', '.join(question.target.searchable_text)}")
    if question.options.mode == "hybrid":
        parts.append(f"fused by {question.options.fusion}")
    return "; ".join(parts)


def _bodies(question: Question, row: int, queries: int) -> list[Mapping[str, Any]]:
    """The requests of one query: its own of those sent for every query, and all that were sent for no one."""
    bodies = [body for need in question.sent for body in _own(need, row, queries)]
    # What found the hits first: it is what one pastes.
    return sorted(bodies, key=lambda body: not ("knn" in body or body.get("size")))


def _own(need: Send, row: int, queries: int) -> list[Mapping[str, Any]]:
    return [need.bodies[row]] if len(need.bodies) == queries else list(need.bodies)


def _seconds(needs: Sequence[Need]) -> dict[str, float]:
    sent = [need for need in needs if isinstance(need, Send)]
    took = sum(_took(need) for need in sent)
    found = {
        "encoding": sum(n.seconds for n in needs if isinstance(n, EncodeQueries | EncodeDocuments)),
        "elasticsearch": took,
        "network": max(0.0, sum(need.seconds for need in sent) - took),
    }
    reranking = sum(need.seconds for need in needs if isinstance(need, Rerank))
    return found | ({"reranking": reranking} if reranking else {})


def _took(need: Send) -> float:
    """Seconds in Elasticsearch: the searches of one request run at the same time, so the longest counts."""
    return max((answer.get("took", 0) for answer in need.answers), default=0) / 1000
