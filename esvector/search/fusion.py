"""Several rankings of the same documents made into one, by rank or by score. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias, get_args

from esvector.errors import ConfigError
from esvector.types import Hit, Leg

__all__ = ["Normalization", "reciprocal_rank", "weighted"]

Normalization = Literal["min-max", "none"]

_Rankings: TypeAlias = Mapping[str, Sequence[Hit]]


def reciprocal_rank(rankings: _Rankings, weights: Mapping[str, float] | None = None, constant: int = 60) -> list[Hit]:
    """Fuse ``rankings``, each best first under its name, by ranks alone: the sum of weight / (constant + rank).

    Scores of any scale go together this way; a document that a ranking lacks gets nothing from it. 60 is the constant
    of Cormack, Clarke and Buettcher (2009), and Elasticsearch's; a smaller one gives the first ranks more weight. A
    ranking's weight is 1 unless ``weights`` names it.

    Each hit says its rank and score in each ranking in ``legs``; its source, passage and highlights are those of the
    ranking where it stands highest and which has any. Equal scores are in the order of ids, and the order of
    ``rankings`` is of no matter. Raises ConfigError for a weight or constant that cannot be.
    """
    if constant < 1:
        raise ConfigError(f"the constant of reciprocal rank fusion is {constant}, but must be at least 1", "use 60")
    return _fuse(rankings, _checked(rankings, weights), lambda _, leg: 1 / (constant + leg.rank))


def weighted(
    rankings: _Rankings,
    weights: Mapping[str, float] | None = None,
    normalize: Normalization = "min-max",
    lowest: Mapping[str, float] | None = None,
) -> list[Hit]:
    """Fuse ``rankings`` by their scores: the sum of weight * normalized score; otherwise as ``reciprocal_rank``.

    "min-max" takes the lowest score of a ranking to 0 and its highest to 1; where all are equal, to 1, since being
    found counts more than not being found. ``lowest`` says for a ranking the lowest score that there can be, to be
    taken to 0 in place of the lowest that was found: -1 of a cosine, 0 of BM25. The last hit of a ranking then keeps
    what it is worth. "none" adds the scores as they are.
    """
    if normalize not in get_args(Normalization):
        raise ConfigError(f"normalization {normalize!r} is not known", f"use {' or '.join(get_args(Normalization))}")
    scales = {name: _scale(hits, normalize, (lowest or {}).get(name)) for name, hits in rankings.items()}
    return _fuse(rankings, _checked(rankings, weights), lambda name, leg: scales[name](leg.score))


def _checked(rankings: _Rankings, weights: Mapping[str, float] | None) -> dict[str, float]:
    weights = weights or {}
    if unknown := sorted(set(weights) - set(rankings)):
        raise ConfigError(
            f"there is a weight for {', '.join(unknown)}", f"there are only {', '.join(sorted(rankings))}"
        )
    found = {name: float(weights.get(name, 1)) for name in rankings}
    for name, weight in found.items():
        if not 0 <= weight < math.inf:
            raise ConfigError(f"the weight of {name} is {weight:g}", "use a number from 0 up")
    if found and not any(found.values()):
        raise ConfigError("all weights are 0, so nothing would decide the order", "give one of them another weight")
    return found


def _scale(hits: Sequence[Hit], normalize: Normalization, lowest: float | None) -> Callable[[float], float]:
    if normalize == "none" or not hits:
        return float
    scores = [hit.score for hit in hits]
    low, high = min(scores) if lowest is None else min(lowest, *scores), max(scores)
    return lambda score: (score - low) / (high - low) if high > low else 1.0


def _fuse(rankings: _Rankings, weights: Mapping[str, float], share: Callable[[str, Leg], float]) -> list[Hit]:
    found: dict[str, dict[str, tuple[Leg, Hit]]] = {}
    for name in sorted(rankings):
        for rank, hit in enumerate(rankings[name], start=1):
            found.setdefault(hit.id, {}).setdefault(name, (Leg(rank, hit.score), hit))
    fused = [
        replace(
            _kept([hit for _, hit in sorted(legs.values(), key=lambda leg: leg[0].rank)]),
            # The exact sum, rounded once: equal legs give equal scores, whichever of them is whose.
            score=math.fsum(weights[name] * share(name, leg) for name, (leg, _) in legs.items()),
            legs={name: leg for name, (leg, _) in legs.items()},
        )
        for legs in found.values()
    ]
    return sorted(fused, key=lambda hit: (-hit.score, hit.id))


def _kept(hits: Sequence[Hit]) -> Hit:
    """The first of ``hits``, all of one document, with what it lacks from the next that has it."""
    return replace(
        hits[0],
        source=next((hit.source for hit in hits if hit.source), {}),
        passage=next((hit.passage for hit in hits if hit.passage is not None), None),
        highlights=next((hit.highlights for hit in hits if hit.highlights), {}),
    )
