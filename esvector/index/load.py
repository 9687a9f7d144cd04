"""One load: its windows, its stages, and the account of what became of every record."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from esvector.encode.engine import DocumentEngine
from esvector.encode.profile import EncoderProfile
from esvector.encode.tower import Inputs
from esvector.errors import IndexingError, VerificationError
from esvector.index.bulk import BulkWriter, WriteResult
from esvector.index.deadletters import DeadLetterFile
from esvector.index.documents import prepare
from esvector.index.pipeline import Pipeline, Stopped
from esvector.index.sources import as_records
from esvector.types import BadRecord, DeadLetter, Document, IndexReport, Progress, Record
from esvector.vectors import ElementType, to_elements

__all__ = ["Counts", "Load", "Window"]

BYTES_PER_DOCUMENT = 8192  # that a window may have on average
# A run whose first records are all refused has a wrong mapping or a wrong option, not bad records.
HOPELESS = 1000
REPEATED_IDS_SHOWN = 10


@dataclass(slots=True)
class Window:
    """Consecutive documents; ``versions`` are their places in the input, ``sources`` their fields as JSON.

    ``most`` documents are taken at a time, fewer where they are large.
    """

    most: int
    documents: list[Document] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    sources: list[bytes] = field(default_factory=list)
    size: int = 0

    def add(self, document: Document, place: int, source: bytes) -> None:
        """Append one document."""
        self.documents.append(document)
        self.versions.append(place)
        self.sources.append(source)
        self.size += len(source)

    @property
    def full(self) -> bool:
        """Whether the window should go on its way."""
        return len(self.documents) >= self.most or self.size >= self.most * BYTES_PER_DOCUMENT

    def stored_fields(self) -> list[Mapping[str, Any]]:
        """Fields of each document, to infer their types from."""
        return [document.fields for document in self.documents]

    def select(self, keep: NDArray[np.intp]) -> Window:
        """Return the window of the documents at the positions ``keep`` (n,)."""
        return Window(
            self.most,
            [self.documents[i] for i in keep],
            [self.versions[i] for i in keep],
            [self.sources[i] for i in keep],
        )


@dataclass(slots=True)
class Counts:
    """Running account of a load."""

    read: int = 0
    encoded: int = 0
    created: int = 0
    replaced: int = 0
    uncertain: int = 0
    superseded: int = 0
    dead: int = 0
    tokens: int = 0
    truncated: int = 0
    indexed: int = 0


class Load:
    """Turns ``records`` into windows, encodes and writes them, and counts. Every record is counted exactly once.

    ``stopping`` ends it early, between two batches.
    """

    def __init__(
        self,
        records: Iterable[Mapping[str, Any] | Record | BadRecord],
        profile: EncoderProfile,
        letters: DeadLetterFile,
        *,
        text_fields: tuple[str, ...],
        id_field: str | None,
        reserved: frozenset[str],
        max_document_bytes: int,
        element_type: ElementType = "float",
        given: str | None = None,
        window_documents: int = 1024,
    ) -> None:
        self.stopping = threading.Event()
        self.counts = Counts()
        self._records = as_records(records)
        self._profile = profile
        self._letters = letters
        self._text_fields = text_fields
        self._id_field = id_field
        self._reserved = reserved
        self._max_document_bytes = max_document_bytes
        self._element_type = element_type
        self._given = given
        self._window_documents = window_documents
        self._repeated: list[str] = []
        self._first_reason = ""
        self._lock = threading.Lock()
        self._started = time.monotonic()

    def windows(self) -> Iterator[Window]:
        """Read the source. Raises IndexingError when none of the first records can be indexed."""
        window = Window(self._window_documents)
        for record in self._records:
            self.counts.read += 1
            self._take(record, window)
            if window.full:
                yield window
                window = Window(self._window_documents)
            elif self.counts.read == self.counts.dead == HOPELESS:
                raise self.nothing_to_index()
        if window.documents:
            yield window

    def tokenize(self, windows: Iterator[Window], engine: DocumentEngine) -> Iterator[tuple[Window, Inputs]]:
        """Tokenize each window, ahead of the device."""
        for window in windows:
            yield window, engine.tokenize(window.documents)

    def encode(
        self, windows: Iterator[tuple[Window, Inputs]], engine: DocumentEngine
    ) -> Iterator[tuple[Window, NDArray[np.float32]]]:
        """Encode each window; documents that get no vector become dead letters."""
        for window, inputs in windows:
            encoded = engine.encode(inputs, self._count_encoded)
            for position, reason in sorted(encoded.refused.items()):
                self._bury(window.documents[position], reason)
            with self._lock:
                self.counts.truncated += encoded.truncated
            if encoded.refused:
                keep = np.array([n for n in range(len(window.documents)) if n not in encoded.refused], np.intp)
                yield window.select(keep), encoded.vectors[keep]
            else:
                yield window, encoded.vectors

    def write(self, encoded: Iterator[tuple[Window, NDArray[np.float32]]], writer: BulkWriter) -> Iterator[None]:
        """Write each window and account for each of its documents. Raises IndexingError when all are refused."""
        for window, vectors in encoded:
            ids = [document.id for document in window.documents]
            elements = to_elements(vectors, self._element_type)
            result = writer.write(ids, window.versions, window.sources, elements)
            for position, reason in result.refused:
                self._bury(window.documents[position], reason)
            self._count_written(result)
            if len(result.refused) == len(ids) > 1 and not self.counts.indexed:
                raise self.nothing_to_index()
            yield None

    def settle(self, index: str, count: int) -> None:
        """Compare with ``count``, what the server holds, and fix what lost answers left open.

        Raises VerificationError when documents are missing or too many, IndexingError when there are none.
        """
        counts = self.counts
        if not counts.created <= count <= counts.created + counts.uncertain:
            raise VerificationError(
                f"{index} holds {count} documents, but the server acknowledged {counts.created}"
                + (f" to {counts.created + counts.uncertain}" if counts.uncertain else ""),
                "see the server's log, then run the same command again",
            )
        if count == 0:
            raise self.nothing_to_index()
        counts.superseded += counts.created + counts.replaced + counts.uncertain - count
        counts.indexed = count

    def nothing_to_index(self) -> IndexingError:
        """Return the error of a load in which no record could be indexed."""
        if not self.counts.read:
            return IndexingError("the source has no records", "check the file; readers see what they saw before")
        where = f"; they are in {self._letters.path}" if self._letters.path else ""
        return IndexingError(
            f"none of the first {self.counts.dead} records could be indexed. The first one: {self._first_reason}",
            f"mend the source or the options and run again{where}",
        )

    def progress(self, phase: str) -> Progress:
        """Return a snapshot of the counts."""
        c = self.counts
        seconds = time.monotonic() - self._started
        return Progress(phase, c.read, c.encoded, c.indexed, c.dead, c.tokens, seconds)

    def report(self, alias: str, index: str, previous: str | None, pipeline: Pipeline) -> IndexReport:
        """Return the report of a settled load."""
        c = self.counts
        return IndexReport(
            alias=alias,
            index=index,
            previous=previous,
            read=c.read,
            indexed=c.indexed,
            superseded=c.superseded,
            dead=c.dead,
            truncated=c.truncated,
            tokens=c.tokens,
            seconds=time.monotonic() - self._started,
            stages=pipeline.times(),
            dead_letters=str(self._letters.path) if self._letters.path else None,
            repeated_ids=tuple(self._repeated),
            reasons=self._letters.reasons,
        )

    def _take(self, record: Record | BadRecord, window: Window) -> None:
        document = prepare(
            record,
            text_fields=self._text_fields,
            id_field=self._id_field,
            reserved=self._reserved,
            separator=self._profile.separator or " ",
            title_apart=self._profile.takes_title,
            given=self._given,
        )
        if isinstance(document, DeadLetter):
            self._letter(document)
            return
        source = orjson.dumps(document.fields)
        if len(source) > self._max_document_bytes:
            limit = self._max_document_bytes
            self._bury(document, f"the document is too large: {len(source)} bytes, and the limit is {limit}")
            return
        window.add(document, self.counts.read, source)

    def _bury(self, document: Document, reason: str) -> None:
        self._letter(DeadLetter(document.id, document.place, reason, document.fields))

    def _letter(self, letter: DeadLetter) -> None:
        self._letters.write(letter)
        with self._lock:
            self.counts.dead += 1
            self._first_reason = self._first_reason or f"{letter.place}: {letter.reason}"

    def _count_encoded(self, documents: int, tokens: int) -> None:
        if self.stopping.is_set():  # a window can take minutes on a CPU
            raise Stopped
        with self._lock:
            self.counts.encoded += documents
            self.counts.tokens += tokens

    def _count_written(self, result: WriteResult) -> None:
        with self._lock:
            counts = self.counts
            counts.created += result.created
            counts.replaced += result.replaced
            counts.uncertain += result.uncertain
            counts.superseded += result.superseded
            counts.indexed += result.created + result.replaced + result.uncertain
            room = REPEATED_IDS_SHOWN - len(self._repeated)
            self._repeated += result.repeated_ids[: max(0, room)]
