"""What flows through a load: consecutive documents, and the account of the records that they came from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import astuple, dataclass, field
from threading import Lock
from typing import Any, NamedTuple

from esvector.index.passages import PassageWindow
from esvector.types import Document

__all__ = ["BYTES_PER_DOCUMENT", "Account", "Counts", "Ledger", "Window"]

BYTES_PER_DOCUMENT = 8192
"""That a window may have on average."""


@dataclass(slots=True)
class Counts:
    """An account of records: each one read is in exactly one of the next five.

    ``created`` documents were new to the index, ``encoded`` ones went through the encoder, and ``truncated`` ones
    are longer than it reads.
    """

    read: int = 0
    indexed: int = 0
    unchanged: int = 0
    superseded: int = 0
    dead: int = 0
    filtered: int = 0
    created: int = 0
    encoded: int = 0
    truncated: int = 0
    tokens: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    @property
    def adds_up(self) -> bool:
        """Whether every record read ended in exactly one state."""
        return self.read == self.indexed + self.unchanged + self.superseded + self.dead + self.filtered


@dataclass(slots=True)
class Window:
    """Consecutive documents that are to be written, and the account of all records that they were taken from.

    Attributes:
        number: position among the windows of a load, from 0.
        span: windows that it was put together from.
        most: documents taken at a time, fewer where they are large.
        documents: those that have no fate yet.
        places: the number of each one's record in the input, from 1.
        sources: the fields of each as JSON, its hash among them.
        hashes: that hash, of what is encoded and of all that is stored.
        refused_ids: of the records that were refused when they were read, where there is one.
        repeated: whether an earlier record of the load had the same id, where that is known.
        passages: those that the documents were cut into, once they are.
        counts: what is known of the records.
        place: number of the last record.
        digest: of the input up to that record.
    """

    number: int
    most: int
    documents: list[Document] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    sources: list[bytes] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)
    refused_ids: list[str] = field(default_factory=list)
    repeated: list[bool] = field(default_factory=list)
    passages: PassageWindow | None = None
    counts: Counts = field(default_factory=Counts)
    place: int = 0
    digest: str = ""
    size: int = 0
    span: int = 1

    def add(self, document: Document, place: int, source: bytes, content: str) -> None:
        """Append one document."""
        self.documents.append(document)
        self.places.append(place)
        self.sources.append(source)
        self.hashes.append(content)
        self.repeated.append(False)
        self.size += len(source)

    @property
    def full(self) -> bool:
        """Whether the window should go on its way."""
        return len(self.documents) >= self.most or self.size >= self.most * BYTES_PER_DOCUMENT

    def stored_fields(self) -> list[Mapping[str, Any]]:
        """Fields of each document, to infer their types from."""
        return [document.fields for document in self.documents]

    def keep(self, rows: Iterable[int]) -> None:
        """Keep the documents at the positions ``rows`` and drop the others, whose fate is counted."""
        rows = list(rows)
        if len(rows) == len(self.documents):
            return
        self.documents = [self.documents[row] for row in rows]
        self.places = [self.places[row] for row in rows]
        self.sources = [self.sources[row] for row in rows]
        self.hashes = [self.hashes[row] for row in rows]
        self.repeated = [self.repeated[row] for row in rows]

    def extend(self, following: Window) -> None:
        """Append the window that follows, and take over its account."""
        self.documents += following.documents
        self.places += following.places
        self.sources += following.sources
        self.hashes += following.hashes
        self.refused_ids += following.refused_ids
        self.repeated += following.repeated
        self.counts += following.counts
        self.place, self.digest = following.place, following.digest
        self.size += following.size
        self.span += following.span


class Account(NamedTuple):
    """What is left of a window that is settled: ``place`` and ``digest`` are those of its last record."""

    place: int
    digest: str
    span: int
    counts: Counts


class Ledger:
    """Adds up the accounts of windows, in the order of the input, whatever the order in which they are settled.

    ``on_advance`` is called, by one thread at a time, whenever everything up to a window is settled: with what is left
    of that window, and the account of all records up to its end. Windows are numbered from 0; ``counts`` is what the
    account starts at.
    """

    def __init__(self, counts: Counts, on_advance: Callable[[Account, Counts], None]) -> None:
        self.counts = counts
        self._on_advance = on_advance
        self._next = 0
        self._early: dict[int, Account] = {}
        self._lock = Lock()

    def settle(self, window: Window) -> None:
        """Take the account of a window whose every record has its fate.

        Its documents are not kept: while the server holds one request up (9.5.3 does, for seconds), the other senders
        settle any number of windows after it.
        """
        with self._lock:
            self._early[window.number] = Account(window.place, window.digest, window.span, window.counts)
            last = None
            while (ready := self._early.pop(self._next, None)) is not None:
                self.counts += ready.counts
                self._next += ready.span
                last = ready
            if last is not None:
                self._on_advance(last, self.counts)
