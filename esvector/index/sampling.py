"""A sample of a source: its first records as documents, how many there are in all, and how fast they are encoded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Self

import orjson

from esvector.encode.calibrate import spread
from esvector.encode.engine import DocumentEngine
from esvector.errors import IndexingError
from esvector.index.load import HOPELESS
from esvector.index.sources import Documents, as_records
from esvector.index.window import BYTES_PER_DOCUMENT
from esvector.types import BadRecord, DeadLetter, Document, Record

__all__ = ["CountedRecords", "Sample", "Tokenized", "time_encoding"]

_WARM_UP = 32  # documents; the first batches of a process are slow


class CountedRecords:
    """Records, counted as they are read; ``total`` is how many there are, as far as that can be told.

    The share of a file that is read says so only at the moment when more is read: a buffer of it holds many records.
    """

    def __init__(self, documents: Iterable[Any]) -> None:
        self._files = documents if isinstance(documents, Documents) else None
        self._records = as_records(documents)
        self._share = 0.0
        self.read = 0
        self.ended = False
        self.total: int | None = None

    def __iter__(self) -> Iterator[Record | BadRecord]:
        for record in self._records:
            share = self._files.share_read() if self._files is not None else None
            if share is not None and share > self._share:
                if self._share:
                    self.total = round(self.read / self._share)
                self._share = share
            self.read += 1
            yield record
        self.ended, self.total = True, self.read

    def read_on(self, seconds: float) -> None:
        """Read and count for so long, and on until the share of a file says something; nothing is kept."""
        until = time.monotonic() + seconds
        for _ in self:
            if time.monotonic() > until and (self.total is not None or not self._share):
                return


@dataclass(slots=True)
class Sample:
    """The first ``read`` records: ``documents``, whose JSON has ``size`` bytes, and ``reasons`` why others are none.

    ``seconds`` is what reading and preparing them took.
    """

    read: int = 0
    documents: list[Document] = field(default_factory=list)
    size: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    _first_refusal: str = ""

    @classmethod
    def take(
        cls,
        records: CountedRecords,
        prepare: Callable[[Record | BadRecord], Document | DeadLetter],
        most: int | None,
        window: int,
    ) -> Self:
        """Read ``most`` records; None reads the first ``window`` documents, as large as those of a load.

        Raises IndexingError when none is a document.
        """
        sample = cls()
        started = time.perf_counter()
        for record in records:
            sample.read += 1
            sample._add(prepare(record))
            window_full = len(sample.documents) == window or sample.size >= window * BYTES_PER_DOCUMENT
            hopeless = not sample.documents and sample.read == HOPELESS
            if hopeless or (window_full if most is None else sample.read == most):
                break
        sample.seconds = time.perf_counter() - started
        sample._check()
        return sample

    @property
    def mean_size(self) -> float:
        """Bytes of a document's JSON."""
        return self.size / len(self.documents)

    def refuse(self, refused: Mapping[int, str]) -> None:
        """Count the documents at these positions as none. Raises IndexingError when no other is left."""
        for position, reason in refused.items():
            document = self.documents[position]
            self.size -= len(orjson.dumps(document.fields))
            self._count(document.place, reason)
        self.documents = [each for position, each in enumerate(self.documents) if position not in refused]
        self._check()

    def _add(self, document: Document | DeadLetter) -> None:
        if isinstance(document, DeadLetter):
            self._count(document.place, document.reason)
        else:
            self.documents.append(document)
            self.size += len(orjson.dumps(document.fields))

    def _count(self, place: str, reason: str) -> None:
        self._first_refusal = self._first_refusal or f"{place}: {reason}"
        self.reasons[reason] = self.reasons.get(reason, 0) + 1

    def _check(self) -> None:
        if not self.read:
            raise IndexingError("the source has no records", "check the file")
        if not self.documents:
            raise IndexingError(
                f"none of the first {self.read} records could be indexed. The first one: {self._first_refusal}",
                "mend the source or the options and run again",
            )


@dataclass(frozen=True, slots=True)
class Tokenized:
    """Tokens of a sample before any cut: in all, and of the longest text. ``seconds`` is what counting took."""

    total: int
    truncated: int
    longest: int
    longest_place: str
    seconds: float

    @classmethod
    def of(cls, sample: Sample, engine: DocumentEngine) -> Self:
        """Tokenize ``sample``; what cannot be is refused there."""
        engine.tokenize(sample.documents[:_WARM_UP])
        started = time.perf_counter()
        inputs = engine.tokenize(sample.documents)
        seconds = time.perf_counter() - started
        keep = [position for position in range(len(sample.documents)) if position not in inputs.refused]
        sample.refuse(inputs.refused)
        counts, lengths = inputs.counts[keep], inputs.lengths[keep]
        longest = int(counts.argmax())
        return cls(
            int(counts.sum()),
            int((counts > lengths).sum()),
            int(counts[longest]),
            sample.documents[longest].place,
            seconds,
        )


def time_encoding(
    documents: Sequence[Document], engines: Sequence[DocumentEngine], seconds: float
) -> tuple[int, float]:
    """Encode as many of ``documents`` as take about ``seconds``, evenly spread; return how many, and the time of one.

    Every engine encodes its share at once. Loading, starting and tokenizing are not part of the time.
    """
    few = spread(documents, _WARM_UP * len(engines))
    _encode(few, engines)
    most = int(seconds * len(few) / max(_encode(few, engines), 1e-9))
    timed = spread(documents, max(most, len(few)))
    return len(timed), _encode(timed, engines) / len(timed)


def _encode(documents: Sequence[Document], engines: Sequence[DocumentEngine]) -> float:
    """Seconds that ``engines`` take together to encode ``documents``."""
    parts = [documents[first :: len(engines)] for first in range(len(engines))]
    work = [(engine, engine.tokenize(part)) for engine, part in zip(engines, parts, strict=True) if part]
    with ThreadPoolExecutor(len(engines)) as pool:
        started = time.perf_counter()
        for done in [pool.submit(engine.encode, inputs) for engine, inputs in work]:
            done.result()
        return time.perf_counter() - started
