"""One load: records to windows, through its stages, and the account of what became of every record."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from esvector.encode.engine import DocumentEngine
from esvector.encode.profile import EncoderProfile
from esvector.encode.tower import Inputs
from esvector.errors import HopelessInputError, SourceChangedError
from esvector.index.bulk import BulkWriter, WriteResult
from esvector.index.checkpoint import Checkpoint
from esvector.index.content import PLACE_BITS, content_hash, stamped
from esvector.index.deadletters import DeadLetterFile, letter_line
from esvector.index.delivery import Delivery
from esvector.index.documents import prepare
from esvector.index.passages import PassageSplitter
from esvector.index.pipeline import Stopped
from esvector.index.seen import SeenIds
from esvector.index.sources import as_records
from esvector.index.window import Account, Counts, Ledger, Window
from esvector.types import BadRecord, DeadLetter, Document, Progress, Record
from esvector.vectors import ElementType, to_elements

__all__ = ["Encoded", "Load", "RecordOptions", "refusal"]

HOPELESS = 1000
"""Refused records from which on a run may be hopeless."""
ALL_REFUSED = 100
"""Documents of one window that the server refuses, from which on a run that has written none is hopeless."""
REPEATED_IDS_SHOWN = 10

Encoded = tuple[Window, NDArray[np.float32]]
Packed = tuple[Window, Delivery | None]  # None of a window without documents


@dataclass(frozen=True, slots=True)
class RecordOptions:
    """How records become documents.

    Attributes:
        text_fields: fields whose text is encoded.
        id_field: field with a record's id; None for ``_id``, else ``id``, else one made from the content.
        reserved: names that a record must not have.
        given: field in which a record brings its own vector.
        max_document_bytes: a larger document is refused.
        element_type: how the vector field keeps a vector.
        passages: whether documents are cut into passages, so that the title and white space are kept apart.
        skip_empty: whether records without text are left out instead of refused.
        keep: a rule for the records to take; None takes all.
        most_refused: share of refused records at which the run is given up, of 1,000 or more.
    """

    text_fields: tuple[str, ...]
    id_field: str | None
    reserved: frozenset[str]
    given: str | None
    max_document_bytes: int
    element_type: ElementType
    passages: bool = False
    skip_empty: bool = False
    keep: Callable[[Mapping[str, Any]], bool] | None = None
    most_refused: float = 0.5


class Load:
    """Turns ``records`` into windows, encodes and writes them, and counts. Every record is counted exactly once.

    Args:
        records: the input.
        options: how a record becomes a document.
        profile: of the encoder; it decides how title and text are joined.
        letters: where refused records go.
        generation: of this run, in the versions of its documents.
        window_documents: documents of a window.
        resume: where an earlier attempt of this run has come to.
        on_advance: told of each window up to which everything is settled, and of the account until there.
        on_odd: called when ``plain`` becomes false.
        new: whether the index is made by this load: what takes the place of a document then repeats its id.

    ``plain`` is as in a Checkpoint.

    ``stopping`` ends it at once, between two batches; ``draining`` ends the reading, and what was read is finished.
    """

    def __init__(
        self,
        records: Iterable[Mapping[str, Any] | Record | BadRecord],
        options: RecordOptions,
        profile: EncoderProfile,
        letters: DeadLetterFile,
        *,
        generation: int,
        window_documents: int = 1024,
        resume: Checkpoint | None = None,
        on_advance: Callable[[Account, Counts], None] = lambda _account, _counts: None,
        on_odd: Callable[[], None] = lambda: None,
        new: bool = False,
    ) -> None:
        self.stopping = threading.Event()
        self.draining = threading.Event()
        self.window_documents = window_documents
        self.splitter: PassageSplitter | None = None  # set once it is known what encodes
        self.ledger = Ledger(resume.counts if resume is not None else Counts(), on_advance)
        self.read = 0
        self.plain = True
        self.unreadable = 0  # records whose id nobody knows
        self.repeated_ids: list[str] = []
        self.uncertain = 0  # documents of this attempt that may be new or not: an answer was lost
        self._records = as_records(records)
        self._options = options
        self._profile = profile
        self._letters = letters
        self._generation = generation
        self._on_odd = on_odd
        self._new = new
        self._resume = resume
        self._digest = hashlib.blake2b(digest_size=16)
        self._number = 0
        self.unwritten = SeenIds()  # ids whose first record got no vector, or was refused by the server
        self._repeated = SeenIds()  # ids of more than one record, as far as they are sent
        self._dead = self.ledger.counts.dead
        self._written = self._tokens = 0
        self._encoded = 0.0
        self._first_reason = ""
        self._lock = threading.Lock()
        self._started = time.monotonic()

    @property
    def created(self) -> int:
        """Documents of this attempt that were new to the index, for certain."""
        return self.ledger.counts.created - (self._resume.counts.created if self._resume is not None else 0)

    @property
    def seconds(self) -> float:
        """Seconds since the load was made."""
        return time.monotonic() - self._started

    def windows(self, on_skipped: Callable[[Window], object] | None = None) -> Iterator[Window]:
        """Read the source, after what an earlier attempt has settled; ``on_skipped`` is told of that.

        Raises HopelessInputError when too many records cannot be indexed, SourceChangedError when the input is not the
        one that the earlier attempt read.
        """
        if self._resume is not None:
            self._skip(self._resume, on_skipped)
            if self._resume.dead_letters is not None:  # not before it is known to be the same input
                self._letters.resume(self._resume.dead_letters, self._resume.place)
        window = self._window()
        for record in self._next_records():
            self._take(record, window)
            if window.full:
                yield self._close(window)
                window = self._window()
        if window.counts.read or not self.read:
            yield self._close(window)

    def tokenize(self, windows: Iterator[Window], engine: DocumentEngine) -> Iterator[tuple[Window, Inputs | None]]:
        """Tokenize each window, in passages where it is cut, ahead of the device; but not what has its vector."""
        for window in windows:
            fresh = [window.documents[row] for row in self._to_encode(window)]
            if not fresh:
                yield window, None
            elif self.splitter is not None:
                window.passages, inputs = self.splitter.split(fresh)
                yield window, inputs
            else:
                yield window, engine.tokenize(fresh)

    def encode(self, windows: Iterator[tuple[Window, Inputs | None]], engine: DocumentEngine) -> Iterator[Encoded]:
        """Encode each window; documents that get no vector become dead letters."""
        for window, inputs in windows:
            if inputs is None:
                yield window, self._kept_vectors(window)
                continue
            counts, passages, fresh = window.counts, window.passages, self._to_encode(window)
            # The engine counts what it encodes, which may be passages.
            share = 1.0 if passages is None else len(passages) / len(passages.texts)
            encoded = engine.encode(inputs, partial(self._count_encoded, share))
            refused = encoded.refused if passages is None else passages.refused(encoded.refused)
            counts.encoded += len(fresh) - len(refused)
            counts.truncated += encoded.truncated + (passages.shortened if passages is not None else 0)
            counts.tokens += int(np.sum(inputs.lengths))
            vectors = encoded.vectors
            if len(fresh) < len(window.documents):
                vectors = self._kept_vectors(window)
                vectors[fresh] = encoded.vectors
            yield window, self._without_refused(window, vectors, {fresh[row]: why for row, why in refused.items()})

    def pack(self, encoded: Iterator[Encoded], writer: BulkWriter) -> Iterator[Packed]:
        """Make the lines of the requests of each window."""
        for window, vectors in encoded:
            if not window.documents:
                yield window, None
                continue
            versions = [self._generation << PLACE_BITS | place for place in window.places]
            ids = [document.id for document in window.documents]
            with self._lock:
                self._repeated.add([id_ for id_, flag in zip(ids, window.repeated, strict=True) if flag])
            if any(window.repeated):
                self._be_odd()
            elements = to_elements(vectors, self._options.element_type)
            yield window, writer.pack(ids, versions, window.sources, elements, window.passages)

    def write(self, packed: Iterator[Packed], writer: BulkWriter) -> Iterator[None]:
        """Write each window and account for each of its documents."""
        for window, delivery in packed:
            if delivery is not None:
                self._count(window, delivery.block.ids, writer.deliver(delivery))
            self.ledger.settle(window)
            yield None

    def settle(self, window: Window) -> None:
        """Take the account of a window that has nothing to write."""
        self.ledger.settle(window)

    def hopeless(self) -> HopelessInputError:
        """Return the error of a load that cannot become what its user wants."""
        counts = self.ledger.counts
        if not self.read:
            return HopelessInputError("the source has no records", "check the file; readers see what they saw before")
        if counts.filtered == self.read:
            return HopelessInputError(
                f"all of the {self.read} records are filtered out", "check the rule, or --skip-empty with --text"
            )
        where = f"; they are in {self._letters.path}" if self._letters.path else ""
        done = self._written + self.ledger.counts.unchanged
        told = f"none of the first {self._dead}" if not done else f"only {done} of the first {done + self._dead}"
        return HopelessInputError(
            f"{told} records could be indexed. The first refused one: {self._first_reason}",
            f"mend the source or the options and run again{where}",
        )

    def progress(self, phase: str) -> Progress:
        """Return a snapshot of the counts."""
        done = self._resume.counts if self._resume is not None else Counts()
        return Progress(
            phase,
            self.read,
            done.encoded + round(self._encoded),
            done.indexed + self._written,
            self._dead,
            done.tokens + self._tokens,
            self.seconds,
            settled=self.ledger.counts.read,
        )

    def _next_records(self) -> Iterator[Record | BadRecord]:
        for record in self._records:
            if self.draining.is_set():
                return
            self.read += 1
            yield record

    def _skip(self, done: Checkpoint, on_skipped: Callable[[Window], object] | None) -> None:
        """Read over what is settled, and see that it is what was read then."""
        window = self._window()
        for record in self._next_records():
            self._take(record, window, skip=True)
            if on_skipped is not None and (window.full or self.read == done.place):
                on_skipped(window)
            if self.read == done.place:
                break
            if window.full:
                window = self._window()
        self._number = 0
        if self.draining.is_set():
            raise Stopped
        if self.read != done.place or self._digest.hexdigest() != done.digest:
            raise SourceChangedError(
                f"the input is not the one that the interrupted run read: it differs within the first {done.place} "
                "records",
                "run the same command again: each document will then be compared with what is in the index",
            )

    def _window(self) -> Window:
        window = Window(self._number, self.window_documents)
        self._number += 1
        return window

    def _close(self, window: Window) -> Window:
        window.place = self.read
        window.digest = self._digest.hexdigest()
        return window

    def _take(self, record: Record | BadRecord, window: Window, *, skip: bool = False) -> None:
        """Put a record into ``window`` or, if it cannot be indexed, into the dead letters; ``skip`` writes none."""
        window.counts.read += 1
        options = self._options
        if options.keep is not None and isinstance(record, Record) and not options.keep(record.fields):
            self._filter(window, b"by rule")
            return
        document = prepare(
            record,
            text_fields=options.text_fields,
            id_field=options.id_field,
            reserved=options.reserved,
            separator=self._profile.separator or " ",
            title_apart=self._profile.takes_title or options.passages,
            as_written=options.passages,
            given=options.given,
            empty_allowed=options.skip_empty,
        )
        if isinstance(document, DeadLetter):
            self.unreadable += document.id is None
            self._refuse(window, document, skip=skip)
            return
        if not document.text and document.vector is None:
            self._filter(window, b"empty")
            return
        source = orjson.dumps(document.fields)
        if len(source) > options.max_document_bytes:
            reason = f"the document is too large: {len(source)} bytes, and the limit is {options.max_document_bytes}"
            self._refuse(window, refusal(document, reason), skip=skip)
            return
        content = content_hash(document, given=options.given is not None)
        self._digest.update(f"{document.id}\0{content}".encode())
        window.add(document, self.read, stamped(source, content), content)

    def _filter(self, window: Window, why: bytes) -> None:
        window.counts.filtered += 1
        self._digest.update(b"\0filtered " + why)

    def _refuse(self, window: Window, letter: DeadLetter, *, skip: bool) -> None:
        self._digest.update(b"\0refused " + letter_line(letter, self.read))
        if letter.id is not None:
            window.refused_ids.append(letter.id)
        if not skip:
            self._letter(window, letter, self.read)

    def _kept_vectors(self, window: Window) -> NDArray[np.float32]:
        """The vectors that documents of ``window`` have, (n, dims); zero where there is none."""
        vectors = np.zeros((len(window.documents), self._profile.dims or 0), np.float32)
        for row, document in enumerate(window.documents):
            if document.vector is not None:
                vectors[row] = document.vector
        return vectors

    def _without_refused(
        self, window: Window, vectors: NDArray[np.float32], refused: dict[int, str]
    ) -> NDArray[np.float32]:
        """Take the documents that got no vector out of ``window``, and return the vectors of the others."""
        if not refused:
            return vectors
        for row, reason in sorted(refused.items()):
            self._bury(window, row, reason)
        kept = rows = np.array([row for row in range(len(window.documents)) if row not in refused], np.intp)
        if window.passages is not None:
            window.passages, rows = window.passages.select(kept)
        window.keep(kept.tolist())
        return vectors[rows]

    def _to_encode(self, window: Window) -> list[int]:
        if self._options.given is not None:  # the engine takes the documents' own vectors, and checks each
            return list(range(len(window.documents)))
        return [row for row, document in enumerate(window.documents) if document.vector is None]

    def _count(self, window: Window, ids: Sequence[str], result: WriteResult) -> None:
        if self._new and result.repeated_ids:
            self._be_odd()
        refused = dict(result.refused)
        for row, reason in sorted(refused.items()):
            self._bury(window, row, reason)
        with self._lock:  # of the records of an id, one may overtake another
            ours = self._repeated.holds(result.superseded)
        overtaken = len(result.superseded) - sum(ours)  # by another writer: what is there is not what was sent
        # Of the records of one id, the first that is met stands for the document, and the others for themselves.
        repeats = sum(flag for row, flag in enumerate(window.repeated) if row not in refused) + overtaken
        window.counts.created += result.created
        window.counts.superseded += repeats
        window.counts.indexed += len(ids) - len(refused) - repeats
        with self._lock:
            self.uncertain += result.uncertain
            self._written += len(ids) - len(refused)
            room = REPEATED_IDS_SHOWN - len(self.repeated_ids)
            named = [*result.repeated_ids, *(id_ for id_, flag in zip(ids, window.repeated, strict=True) if flag)]
            self.repeated_ids += list(dict.fromkeys(named))[: max(0, room)]
        # Not where a few changed documents of a good index are refused.
        accepted = window.counts.indexed + window.counts.unchanged + self.ledger.counts.unchanged
        if len(refused) >= ALL_REFUSED and not accepted and not self._written:
            raise self.hopeless()

    def _be_odd(self) -> None:
        if self.plain:
            self.plain = False
            self._on_odd()

    def _bury(self, window: Window, row: int, reason: str) -> None:
        self._be_odd()
        if not window.repeated[row]:
            with self._lock:
                self.unwritten.add([window.documents[row].id])
        self._letter(window, refusal(window.documents[row], reason), window.places[row])

    def _letter(self, window: Window, letter: DeadLetter, place: int) -> None:
        self._letters.write(letter, place)
        window.counts.dead += 1
        with self._lock:
            self._dead += 1
            self._first_reason = self._first_reason or f"{letter.place}: {letter.reason}"
        if self._dead >= HOPELESS and self._dead > self._options.most_refused * self.read:
            raise self.hopeless()

    def _count_encoded(self, share: float, inputs: int, tokens: int) -> None:
        if self.stopping.is_set():  # a window can take minutes on a CPU
            raise Stopped
        with self._lock:
            self._encoded += share * inputs
            self._tokens += tokens


def refusal(document: Document, reason: str) -> DeadLetter:
    """Return the dead letter of a document that was refused after it was made."""
    return DeadLetter(document.id, document.place, reason, document.read, document.id_apart)
