"""The records that cross the borders between modules: frozen and slotted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "BadRecord",
    "DeadLetter",
    "Document",
    "Hit",
    "IndexReport",
    "Leg",
    "Passage",
    "PassageOptions",
    "Progress",
    "Record",
    "SearchSettings",
    "StageTime",
]


@dataclass(frozen=True, slots=True)
class Record:
    """One input record as it was read. ``place`` is where, for messages: ``papers.jsonl:17``, ``record 17``.

    A document that comes out of an index brings its ``id``, and may bring its ``vector``: (dims,) float32. Of others,
    the id is in the fields. Where records bring vectors in a field (``given``), that field comes before ``vector``.
    """

    fields: Mapping[str, Any]
    place: str
    id: str | None = None
    vector: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class BadRecord:
    """One input record that could not be read at all; ``raw`` is what was there (may be cut).

    Bytes that are not UTF-8 are in ``raw`` as ``bytes.decode`` has them with "surrogateescape", so that none is lost.
    ``id`` is there where it is known all the same, from a dead letter of the record.
    """

    reason: str
    place: str
    raw: str = ""
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """One document to be indexed: ``text`` is encoded, ``fields`` are stored under the user's own names.

    ``title`` is there where the encoder's prompt has a place of its own for it; else it is part of ``text``. ``vector``
    is there where the record brought its own: (dims,) float32.

    ``read`` are the fields of its record, in plain JSON, and ``id_apart`` says that its id stood beside them: what its
    dead letter needs, for ``fields`` lack the id, the vector and the layout that were taken out of them.
    """

    id: str
    text: str
    fields: Mapping[str, Any]
    place: str
    title: str | None = None
    vector: NDArray[np.float32] | None = None
    read: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    id_apart: bool = False


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One input record that was not indexed, and why.

    ``record`` are its fields as they were read, or the text of one that could not be read. ``id`` is None where none
    could be read; ``id_apart`` says that it stood beside the fields, so that nothing in them says it.
    """

    id: str | None
    place: str
    reason: str
    record: Mapping[str, Any] | str
    id_apart: bool = False


@dataclass(frozen=True, slots=True)
class PassageOptions:
    """How documents are cut into passages, each with a vector of its own.

    ``tokens`` is what the encoder reads of a passage at most, prompt, title and special tokens included: None is 256,
    or what the model reads where that is less. ``overlap`` is how many of them a passage may have in common with the
    one before it: None is an eighth. The options of a passport are complete.
    """

    tokens: int | None = None
    overlap: int | None = None


@dataclass(frozen=True, slots=True)
class Passage:
    """The part of a document that answers a search best: the characters ``start`` to ``end`` of its text."""

    text: str
    start: int
    end: int
    score: float


@dataclass(frozen=True, slots=True)
class Leg:
    """What one ranking said of a hit: its ``rank`` there, from 1, and the ``score`` it had.

    That is the cosine or dot product of "vector", the BM25 score of "text", and the model's own score of "rerank".
    """

    rank: int
    score: float


@dataclass(frozen=True, slots=True)
class Hit:
    """One search result: ``score`` is what it was ranked by, ``source`` the stored fields.

    The score is the model's own cosine or dot product, unless something else ranked the hits: BM25, a fusion of two
    rankings, or a cross-encoder. ``legs`` then says what each ranking thought of the hit. ``passage`` is there where
    documents were indexed in passages, and is the best one; ``highlights`` has the places of a field with words of the
    query, by field, where they were asked for.
    """

    id: str
    score: float
    source: Mapping[str, Any] = field(default_factory=dict)
    passage: Passage | None = None
    legs: Mapping[str, Leg] = field(default_factory=dict)
    highlights: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """How an index is best searched, as ``esvector tune`` found it; kept in the passport.

    ``num_candidates`` are considered on each shard for ``k`` hits, and more for more hits in proportion. ``oversample``
    times k quantized hits are compared again exactly; None is what the mapping says. ``recall`` is what was measured.
    """

    num_candidates: int
    k: int = 10
    oversample: float | None = None
    recall: float | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands: records read, documents encoded and acknowledged, tokens encoded, seconds since its start.

    ``waiting`` says what is waited for, such as "waiting for Elasticsearch for 12 s: Connection refused". ``settled``
    records have their fate for good, as does every record before them.
    """

    phase: str
    read: int
    encoded: int
    indexed: int
    dead: int
    tokens: int
    seconds: float
    waiting: str | None = None
    settled: int = 0


@dataclass(frozen=True, slots=True)
class StageTime:
    """Seconds a pipeline stage spent working, waiting for input and waiting for the next stage, summed over workers."""

    name: str
    workers: int
    busy: float
    starved: float
    blocked: float


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What became of every record of a run, with what earlier attempts of it did where they were interrupted.

    Attributes:
        alias: what readers use.
        index: the index that was written to.
        previous: the index that it replaced; None where it is the first, or the run changed the live one.
        read: records of the input: ``indexed + unchanged + superseded + dead + filtered``.
        indexed: records whose document was written.
        unchanged: records whose document was there already, just as it would have been written.
        superseded: records that repeat an id, of which the last one counts.
        dead: records that were refused; they are in ``dead_letters``.
        filtered: records left out by a rule of the run.
        pruned: documents deleted because no record had their id.
        encoded: documents that went through the encoder.
        truncated: documents longer than the encoder reads; they are indexed, by their beginning.
        tokens: tokens that the encoder read.
        sent_again: documents that this attempt sent more than once, counted for each further time.
        segments: of a new version, after its graph was built; None where a live index was updated.
        graph_seconds: spent on building that graph, once everything was loaded.
        seconds: of this attempt.
        stages: what each stage did with its time.
        dead_letters: file with the refused records.
        repeated_ids: a few of the ids that came more than once.
        reasons: refused records by kind of reason.
    """

    alias: str
    index: str
    previous: str | None = None
    read: int = 0
    indexed: int = 0
    unchanged: int = 0
    superseded: int = 0
    dead: int = 0
    filtered: int = 0
    pruned: int = 0
    encoded: int = 0
    truncated: int = 0
    tokens: int = 0
    sent_again: int = 0
    segments: int | None = None
    graph_seconds: float = 0.0
    seconds: float = 0.0
    stages: tuple[StageTime, ...] = ()
    dead_letters: str | None = None
    repeated_ids: tuple[str, ...] = ()
    reasons: Mapping[str, int] = field(default_factory=dict)

    @property
    def adds_up(self) -> bool:
        """Whether every record read ended in exactly one state."""
        return self.read == self.indexed + self.unchanged + self.superseded + self.dead + self.filtered

    @property
    def bottleneck(self) -> str | None:
        """Name of the stage that was busy for the largest share of its time: the one to make faster."""
        if not self.stages:
            return None
        return max(self.stages, key=lambda s: s.busy / s.workers).name
