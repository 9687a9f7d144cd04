"""Searching by examples: documents of the index, or texts, that are wanted or unwanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esvector.encode.tower import unit_length
from esvector.errors import ConfigError, DocumentNotFoundError
from esvector.search.conditions import Conditions, Where
from esvector.search.examples import example_vector
from esvector.search.needs import EncodeDocuments, Need, Steps
from esvector.search.options import SearchOptions
from esvector.search.results import Results
from esvector.search.retrieval import Question, choose_plan
from esvector.search.searching import of_current_target, pose, results_of, stored_vectors
from esvector.search.target import Target
from esvector.vectors import to_elements

__all__ = ["similar_steps"]


def similar_steps(
    alias: str,
    like: Sequence[str],
    unlike: Sequence[str],
    texts: Sequence[str],
    options: SearchOptions,
    scope: Where,
) -> Steps[Results]:
    """The results for examples. Raises as ``Searcher.similar``."""
    _check(like, texts, options)

    def steps(target: Target) -> Steps[Results]:
        question = pose(target, options, scope)
        needs: list[Need] = []
        vector = yield from _vector(question, like, unlike, texts, scope, needs)
        examples = [*like, *unlike]
        if examples:
            question = replace(question, conditions=question.conditions.without(examples))
        plan = yield from choose_plan(question)
        (found,) = yield from results_of(alias, question, plan, [vector], None, needs)
        return found

    return (yield from of_current_target(alias, steps))


def _check(like: Sequence[str], texts: Sequence[str], options: SearchOptions) -> None:
    if not like and not texts:
        raise ConfigError("there is no example of what to look for", "name a document, or give a text")
    if empty := [n for n, text in enumerate(texts) if not text.strip()]:
        raise ConfigError(f"text {empty[0] + 1} is empty", "write what documents should be like")
    for name, asked in (
        ("mode", options.by_text),
        ("rerank", options.rerank is not None),
        ("highlight", options.highlight),
    ):
        if asked:
            raise ConfigError(
                f"{name} needs the words of a query, and an example has none", "leave it out, or search by a query"
            )


def _vector(
    question: Question,
    like: Sequence[str],
    unlike: Sequence[str],
    texts: Sequence[str],
    scope: Where,
    needs: list[Need],
) -> Steps[list[float]]:
    """The vector to search with: that of one example, or what several have in common."""
    target = question.target
    passport = target.passport
    # Examples may be outside of the search's own filters, but not of what its caller may see.
    within = Question(target, SearchOptions(allow_partial=question.options.allow_partial), Conditions.of(target, scope))
    stored = yield from stored_vectors(within, list(dict.fromkeys([*like, *unlike])))
    question.sent.extend(within.sent)
    question.partial |= within.partial
    for id_ in (*like, *unlike):
        if id_ not in stored:
            raise DocumentNotFoundError(f"no document {id_!r} with a vector in {target.index}", "check the id")
    wanted: list[NDArray[Any]] = [stored[id_] for id_ in like]
    if texts:
        need = EncodeDocuments(passport, list(texts))
        needs.append(need)
        wanted += list((yield need))
    similarity = passport.encoder.similarity or "cosine"
    if len(wanted) == 1 and not unlike:
        vector = np.asarray(wanted[0], np.float32)
        if similarity == "cosine":  # a bfloat16 vector comes back a little off its unit length (9.5.3)
            vector = unit_length(vector[None, :])[0]
    else:
        unwanted = np.asarray([stored[id_] for id_ in unlike], np.float32).reshape(len(unlike), -1)
        vector = example_vector(np.asarray(wanted, np.float32), unwanted, similarity)
    numbers: list[float] = to_elements(vector[None, :], passport.element_type)[0].tolist()
    return numbers
