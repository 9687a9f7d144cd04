"""One ranking of documents for each query: by vector (approximate or exact), or by words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from esvector.search import exact
from esvector.search.conditions import Conditions
from esvector.search.needs import Send, Steps
from esvector.search.options import MAX_K, SearchOptions
from esvector.search.plan import SCAN_UP_TO, Matches, Plan, exact_plan, make_plan
from esvector.search.requests import (
    check_shards,
    knn_body,
    matches_body,
    passage_hits,
    read_hits,
    read_matches,
    source_filter,
    text_body,
    with_highlights,
)
from esvector.search.target import Target
from esvector.types import Hit

__all__ = ["AliasMoved", "Question", "Vector", "ask", "by_text", "by_vector", "choose_plan"]

Vector = list[float]


class AliasMoved(Exception):
    """The hits are of another index than the one that the request was made for."""


@dataclass(slots=True)
class Question:
    """One call of a search: what was asked, of which target, and what has been sent for it."""

    target: Target
    options: SearchOptions
    conditions: Conditions
    sent: list[Send] = field(default_factory=list)
    partial: bool = False

    @property
    def passages(self) -> bool:
        """Whether documents are found by their passages."""
        return self.target.passport.passages is not None

    @property
    def source(self) -> dict[str, Any]:
        """What the server brings of documents; a re-ranker reads their texts, whatever fields are wanted."""
        fields = self.options.fields
        if fields is not None and self.options.rerank is not None:
            fields = [*fields, *self.target.passport.text_fields]
        return source_filter(self.target.passport.vector_field, passages=self.passages, fields=fields)


def ask(question: Question, bodies: list[dict[str, Any]]) -> Steps[list[Mapping[str, Any]]]:
    """Answers to ``bodies``, complete ones unless the options allow others.

    Raises AliasMoved, or PartialResultsError.
    """
    options = question.options
    if options.timeout is not None:
        bodies = [body | {"timeout": f"{round(1000 * options.timeout)}ms"} for body in bodies]
    need = Send(bodies, allow_partial=options.allow_partial)
    question.sent.append(need)
    answers: list[Mapping[str, Any]] = yield need
    need.answers = answers
    for answer in answers:
        question.partial |= check_shards(answer, allow_partial=options.allow_partial)
        if any(hit["_index"] != question.target.index for hit in answer["hits"]["hits"]):
            raise AliasMoved
    return answers


def by_text(question: Question, queries: Sequence[str]) -> Steps[list[list[Hit]]]:
    """The documents whose words fit each query best (BM25)."""
    fields = question.target.searchable_text
    bodies = []
    for query in queries:
        body = text_body(
            query, fields, question.options.depth, filters=question.conditions.document, source=question.source
        )
        bodies.append(with_highlights(body, query, fields) if question.options.highlight else body)
    answers = yield from ask(question, bodies)
    return [read_hits(answer, None) for answer in answers]


def choose_plan(question: Question) -> Steps[Plan]:
    """How vectors are searched; where a filter restricts the documents, those that match are counted first."""
    matches = None
    filters = question.conditions.document
    if filters and question.options.num_candidates is None and question.options.mode != "exact":
        matches = yield from _count(question, SCAN_UP_TO)
    return make_plan(question.options, question.target, matches)


def by_vector(
    question: Question, plan: Plan, vectors: Sequence[Vector], queries: Sequence[str] | None = None
) -> Steps[tuple[Plan, list[list[Hit]]]]:
    """The documents nearest to each vector, and how they were found: a plan that finds too few is given up.

    ``queries`` are the words to highlight.
    """
    if plan.name != "exact":
        bodies = [_knn(question, plan, vector) for vector in vectors]
        answers = yield from ask(question, _highlighted(question, bodies, queries))
        found = [_read(question, answer) for answer in answers]
        depth = question.options.depth
        if question.partial or all(len(hits) >= depth for hits in found):
            return plan, found
        # A graph may not lead to all that match (9.5.3): whether there are more, only counting tells.
        matches = yield from _count(question, depth)
        if all(len(hits) >= min(depth, matches.documents) for hits in found):
            return plan, found
        plan = exact_plan(matches, "the graph led to fewer documents than match, so each was compared")
    return plan, (yield from _exactly(question, vectors, queries))


def _count(question: Question, up_to: int) -> Steps[Matches]:
    field_name = question.target.passport.vector_field
    body = matches_body(field_name, question.conditions.document, up_to, passages=question.passages)
    (answer,) = yield from ask(question, [body])
    return read_matches(answer)


def _knn(question: Question, plan: Plan, vector: Vector) -> dict[str, Any]:
    return knn_body(
        question.target.passport.vector_field,
        vector,
        question.options.depth,
        num_candidates=plan.num_candidates,
        filters=question.conditions.knn,
        passages=question.passages,
        oversample=plan.oversample if question.target.quantized else None,
        source=question.source,
    )


def _read(question: Question, answer: Mapping[str, Any]) -> list[Hit]:
    return read_hits(answer, question.target.passport.encoder.similarity or "cosine")


def _highlighted(
    question: Question, bodies: list[dict[str, Any]], queries: Sequence[str] | None
) -> list[dict[str, Any]]:
    fields = question.target.searchable_text
    if not question.options.highlight or queries is None or not fields:
        return bodies
    return [with_highlights(body, query, fields) for body, query in zip(bodies, queries, strict=True)]


def _exactly(question: Question, vectors: Sequence[Vector], queries: Sequence[str] | None) -> Steps[list[list[Hit]]]:
    """Compare every vector that matches."""
    depth = question.options.depth
    buckets = yield from _buckets(question)
    found: list[list[Hit]] = []
    for row, vector in enumerate(vectors):
        bodies = [
            _scan(question, vector, depth, count, [*question.conditions.knn, bucket]) for bucket, count in buckets
        ]
        best = exact.merge((yield from ask(question, bodies)), depth)
        hits: list[Hit] = []
        if best:
            hits = yield from _fetch(question, vector, [id_ for id_, _ in best], queries and queries[row : row + 1])
        found.append(hits)
    return found


def _fetch(
    question: Question, vector: Vector, document_ids: list[str], query: Sequence[str] | None
) -> Steps[list[Hit]]:
    """Those documents as hits, with their fields and best passages."""
    count = exact.Count(len(document_ids), MAX_K, MAX_K)
    filters = [*question.conditions.knn, {"ids": {"values": document_ids}}]
    body = _scan(question, vector, len(document_ids), count, filters) | {"_source": question.source}
    body["size"] = len(document_ids)
    (answer,) = yield from ask(question, _highlighted(question, [body], query))
    return _read(question, answer)


def _buckets(question: Question) -> Steps[list[tuple[Mapping[str, Any], exact.Count]]]:
    """Filters that cut all that matches into parts that the server compares one by one, with what each counts."""
    steps = exact.find_buckets(
        question.target.passport.vector_field, question.conditions.document, passages=question.passages
    )
    body = next(steps)
    while True:
        (answer,) = yield from ask(question, [body])
        try:
            body = steps.send(answer)
        except StopIteration as done:
            buckets: list[tuple[Mapping[str, Any], exact.Count]] = done.value
            return buckets


def _scan(
    question: Question,
    vector: Vector,
    size: int,
    count: exact.Count,
    filters: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    body = exact.exact_body(
        question.target.passport.vector_field,
        vector,
        size,
        count,
        filters,
        quantized=question.target.quantized,
        passages=question.passages,
    )
    if question.passages:
        body["knn"]["inner_hits"] = passage_hits(question.target.passport.vector_field)
    return body
