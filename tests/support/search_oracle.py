"""What a search must find, by brute force in numpy: documents, filters and queries made at random.

A filter comes as the text that a user writes and as the predicate that a reader of ``docs/filters.md`` expects, side by
side: nothing here knows how esvector reads a filter, plans a search or turns a score into a similarity.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tests.support.encoders import HashEncoder

Record: TypeAlias = dict[str, Any]
Vectors: TypeAlias = NDArray[np.float32]

WORDS = ["river", "stone", "garden", "engine", "violin", "desert", "harbour", "lantern", "meadow", "copper"]
VENUES = ["ACL", "EMNLP", "NeurIPS", "New York"]
TAGS = ["red", "green", "blue", "grey"]


class Lengths(HashEncoder):
    """For a dot product: vectors of many lengths, from a quarter to four."""

    def __init__(self, dims: int = 32) -> None:
        super().__init__(dims, "lengths")
        self.profile = replace(self.profile, similarity="dot", normalize=False)

    def _vector(self, text: str) -> Vectors:
        return super()._vector(text) * np.float32(2.0 ** random.Random(text).uniform(-2, 2))


@dataclass(frozen=True, slots=True)
class Condition:
    """A filter as text, and what it means for a record."""

    text: str
    holds: Callable[[Record], bool]


def records(count: int, seed: int, *, words: int = 6, longest: int = 6) -> list[Record]:
    """Records that lack fields, have lists, or repeat each other's text (so that their vectors are equal)."""
    source = random.Random(seed)
    made: list[Record] = []
    for number in range(count):
        body = " ".join(source.choices(WORDS, k=source.choice([words, longest])))
        record: Record = {"id": f"d{number}", "text": f"{body} number {number}"}
        if made and source.random() < 0.05:
            record |= {name: made[-1][name] for name in ("title", "text") if name in made[-1]}
        elif source.random() < 0.7:
            record["title"] = " ".join(source.choices(WORDS, k=2))
        fields: Record = {
            "year": source.choice([source.randrange(1990, 2025), sorted(source.sample(range(1990, 2025), 2))]),
            "venue": source.choice(VENUES),
            "tags": source.sample(TAGS, source.randint(0, 3)),
            "weight": round(source.uniform(-5, 5), 3),
            "day": f"20{source.randrange(10, 25)}-{source.randrange(1, 13):02}-{source.randrange(1, 29):02}",
            "open": source.random() < 0.3,
        }
        made.append(record | {name: value for name, value in fields.items() if source.random() < 0.85})
    return made


def values(record: Record, name: str) -> list[Any]:
    found = record.get(name)
    return [] if found is None else found if isinstance(found, list) else [found]


def condition(source: random.Random, depth: int = 2) -> Condition:
    """A filter of any shape; of depth 0, a single comparison."""
    if depth and source.random() < 0.6:
        parts = [condition(source, depth - 1) for _ in range(source.randint(2, 3))]
        match source.choice(["and", "or", "not"]):
            case "and":
                return Condition(
                    " and ".join(f"({p.text})" for p in parts), lambda record: all(p.holds(record) for p in parts)
                )
            case "or":
                return Condition(
                    " or ".join(f"({p.text})" for p in parts), lambda record: any(p.holds(record) for p in parts)
                )
            case _:
                return Condition(f"not ({parts[0].text})", lambda record: not parts[0].holds(record))
    return source.choice([_year, _venue, _tags, _weight, _day, _flag, _ids, _present])(source)


def _any(text: str, name: str, test: Callable[[Any], bool]) -> Condition:
    return Condition(text, lambda record: any(test(value) for value in values(record, name)))


def _year(source: random.Random) -> Condition:
    year = source.randrange(1988, 2027)
    op, test = source.choice(
        [
            ("=", lambda value: value == year),
            (">=", lambda value: value >= year),
            ("<", lambda value: value < year),
        ]
    )
    return _any(f"year {op} {year}", "year", test)


def _venue(source: random.Random) -> Condition:
    venue = source.choice(VENUES)
    if source.random() < 0.5:
        return _any(f"venue = '{venue}'", "venue", lambda value: value == venue)
    return Condition(f'venue != "{venue}"', lambda record: venue not in values(record, "venue"))


def _tags(source: random.Random) -> Condition:
    wanted = source.sample(TAGS, 2)
    return _any(f"tags in ({', '.join(wanted)})", "tags", lambda value: value in wanted)


def _weight(source: random.Random) -> Condition:
    weight = round(source.uniform(-6, 6), 2)
    return _any(f"weight > {weight}", "weight", lambda value: value > weight)


def _day(source: random.Random) -> Condition:
    month = f"20{source.randrange(10, 25)}-{source.randrange(1, 13):02}"
    return _any(f"day >= {month}", "day", lambda value: value >= f"{month}-01")


def _flag(source: random.Random) -> Condition:
    return _any("open = true", "open", lambda value: value is True)


def _ids(source: random.Random) -> Condition:
    wanted = {f"d{source.randrange(600)}" for _ in range(source.randint(1, 30))}
    return Condition(f"id in ({', '.join(sorted(wanted))})", lambda record: record["id"] in wanted)


def _present(source: random.Random) -> Condition:
    name = source.choice(["title", "year", "tags", "weight"])
    if source.random() < 0.5:
        return Condition(f"exists {name}", lambda record: bool(values(record, name)))
    return Condition(f"missing {name}", lambda record: not values(record, name))


@dataclass(frozen=True, slots=True)
class Oracle:
    """The documents of an index and their vectors, and what a search of them finds.

    ``vectors`` are as many of each document as it has passages, (n, dims) float32; ``element_type`` is how they are
    kept, and ``noise`` the most that a score may be off: what float32 sums of such vectors round.
    """

    records: Mapping[str, Record]
    vectors: Mapping[str, Vectors]
    similarity: Literal["cosine", "dot"]
    element_type: str = "float"
    noise: float = 2e-6

    def scores(self, query: Vectors, condition: Condition | None = None) -> dict[str, float]:
        """The cosine or dot product of each document that satisfies the filter: that of its best passage."""
        ids = [id_ for id_, record in self.records.items() if condition is None or condition.holds(record)]
        if not ids:
            return {}
        stored = np.concatenate([self.vectors[id_] for id_ in ids]).astype(np.float64)
        found = self._kept(stored) @ self._asked(query.astype(np.float64))
        starts = np.cumsum([0, *(len(self.vectors[id_]) for id_ in ids[:-1])])
        return dict(zip(ids, np.maximum.reduceat(found, starts).tolist(), strict=True))

    def _kept(self, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        match self.element_type:
            case "byte":
                return unit(scaled_bytes(vectors))
            case "bfloat16":
                return bfloat16(unit(vectors) if self.similarity == "cosine" else vectors)
            case _:
                return unit(vectors) if self.similarity == "cosine" else vectors

    def _asked(self, query: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.element_type == "byte":
            query = scaled_bytes(query[None, :])[0]
        return unit(query[None, :])[0] if self.similarity == "cosine" else query


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float64)


def scaled_bytes(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each vector scaled so that its largest component is 127, and rounded."""
    single = vectors.astype(np.float32)
    scaled = single * np.float32(127) / np.abs(single).max(axis=1, keepdims=True)
    return np.asarray(np.rint(scaled), np.float64)


def bfloat16(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rounded to the nearest number with 8 bits of precision, and to the even one of two."""
    bits = vectors.astype(np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
    return np.asarray(rounded.astype(np.uint32).view(np.float32), np.float64)


def check_exact(hits: Sequence[Any], scores: Mapping[str, float], k: int, offset: int = 0, noise: float = 2e-6) -> None:
    """Assert that ``hits`` are the best ``k`` after ``offset`` of ``scores``, in their order.

    Each has its own score and the one of its rank: ids can only differ where scores are equal within twice the noise.
    """
    expected = sorted(scores.values(), reverse=True)[offset : offset + k]
    found = [hit.score for hit in hits]
    assert len(found) == len({hit.id for hit in hits}) == len(expected)
    assert all(hit.id in scores for hit in hits), "a hit does not satisfy the filter"
    assert found == sorted(found, reverse=True)
    own = [scores[hit.id] for hit in hits]
    off = np.abs(np.asarray(found) - np.asarray(own)) / np.maximum(1, np.abs(own))
    assert off.max(initial=0) <= noise, f"scores are off by {off.max()}"
    missed = np.abs(np.asarray(found) - np.asarray(expected)) / np.maximum(1, np.abs(expected))
    assert missed.max(initial=0) <= 2 * noise, f"rank {int(missed.argmax()) + 1} has another hit"


def recall(hits: Sequence[Any], scores: Mapping[str, float], k: int, noise: float = 2e-6) -> float:
    """Share of the best ``k`` that is among ``hits``; of equal ones, any will do."""
    best = sorted(scores.values(), reverse=True)[:k]
    if not best:
        return 1.0
    return sum(scores[hit.id] >= best[-1] - 2 * noise for hit in hits) / len(best)
