"""One run: the target found, what is there compared, the rest encoded and written, and all of it verified."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from esvector.client import Server
from esvector.encode.encoder import Encoder
from esvector.encode.profile import EncoderProfile
from esvector.errors import LeaseError, SourceChangedError, VerificationError
from esvector.index.bulk import BulkWriter, RetryPolicy
from esvector.index.checkpoint import Checkpoint, JobFolder
from esvector.index.content import Comparison
from esvector.index.deadletters import DeadLetterFile
from esvector.index.encoding import Encoding, open_encoding, open_given
from esvector.index.graph import GraphProgress, GraphReport, finish_graph, loading_body
from esvector.index.load import Load, RecordOptions
from esvector.index.passages import complete_options, open_splitter
from esvector.index.pipeline import Pipeline, Stage
from esvector.index.prune import PruneGuard, prune
from esvector.index.repeating import Repeating
from esvector.index.target import Making, Target, find_targets, raise_generation
from esvector.index.versions import (
    begin_loading,
    create_version,
    end_loading,
    live_index,
    loading_alias,
    serve_version,
)
from esvector.index.window import Counts, Window
from esvector.mapping import build_index_body, serving_settings
from esvector.passport import Passport
from esvector.types import BadRecord, IndexReport, Progress, Record

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

    from esvector.encode.advice import Task
    from esvector.encode.calibrate import BackendName

__all__ = ["Graph", "Run", "RunOptions", "Serving", "serve_at_once"]

_TICK = 0.2  # seconds between two calls of the progress callback
_ABANDON = 2.0  # seconds that stages get to notice that they are to stop
_COMPARED_DOCUMENTS = 2048  # of a window that is compared with the index: a request for fewer costs nearly as much
_SPANNED = 16  # windows of unchanged documents that are put together, before they move the checkpoint
_log = logging.getLogger(__name__)

Graph = Literal["deferred", "inline"]
Serving = Callable[[Target], AbstractContextManager[None]]
Records = Iterable[Mapping[str, Any] | Record | BadRecord]


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What a run is told, beside its target.

    Attributes:
        made_by: the encoder, or the profile to load it by.
        devices: where to encode; none is a GPU where there is one.
        backend: what runs the model on a CPU.
        task: what the index is for, for the warnings.
        records: how records become documents.
        dead_letters: file for the records that are refused.
        senders: bulk requests under way at once.
        body_bytes: largest body of a bulk request.
        graph: "deferred" builds the graph of a new version once, when everything is loaded; "inline" as it comes.
        query_cache: folder of exported query towers.
        retry: how long to keep trying.
        grace: seconds to finish what is under way when interrupted.
        prune: which documents to delete that no record has, if any.
    """

    made_by: EncoderProfile | Encoder
    devices: tuple[str, ...]
    backend: BackendName | Literal["auto"]
    task: Task | None
    records: RecordOptions
    dead_letters: Path
    senders: int
    body_bytes: int
    graph: Graph
    query_cache: Path | None
    retry: RetryPolicy
    grace: float
    prune: PruneGuard | None


def serve_at_once(_target: Target) -> AbstractContextManager[None]:
    """Move readers without further ado."""
    return nullcontext()


class Run:
    """Loads records into ``target``, or into a new version of ``alias`` where it is None. Used once.

    ``folder`` keeps the checkpoint, and ``lost`` is set when another run took over. ``serving`` is entered around the
    moment in which readers are moved to a new version; with None they are not.
    """

    def __init__(
        self,
        client: Elasticsearch,
        server: Server,
        alias: str,
        making: Making,
        target: Target | None,
        options: RunOptions,
        folder: JobFolder,
        lost: threading.Event,
        progress: Callable[[Progress], None] | None,
        serving: Serving | None,
    ) -> None:
        self._client = client
        self._server = server
        self._alias = alias
        self._making = making
        self._target = target
        self._options = options
        self._folder = folder
        self._lost = lost
        self._serving = serving
        self._progress = progress or (lambda _progress: None)
        self._encoding: Encoding | None = None
        self._saved: Checkpoint | None = None
        self._stages: Pipeline | None = None
        self._writer: BulkWriter | None = None
        self._graph: GraphReport | None = None
        self._started: Load | None = None

    @property
    def index(self) -> str | None:
        """The index that is written to; None while there is none."""
        return self._target.index if self._target is not None else None

    @property
    def read(self) -> int:
        """Records read so far."""
        return self._started.read if self._started is not None else 0

    def __call__(self, records: Records) -> IndexReport:
        """Do it all, and return the report."""
        previous = live_index(self._client, self._alias)
        resume = self._resumable()
        if self._target is not None and resume is None:
            self._target = raise_generation(self._client, self._target)
        with DeadLetterFile(self._options.dead_letters) as letters:
            if resume is not None and resume.dead_letters is not None:
                letters.resume(resume.dead_letters, resume.place)
            try:
                return self._run(records, letters, resume, previous)
            finally:
                if self._encoding is not None:
                    self._encoding.close()

    def _run(
        self, records: Records, letters: DeadLetterFile, resume: Checkpoint | None, previous: str | None
    ) -> IndexReport:
        if self._target is None:
            self._encoding = self._open()
        self._started = load = Load(
            records,
            self._options.records,
            self._profile(),
            letters,
            generation=self._target.generation if self._target is not None else 1,
            window_documents=self._window_documents(),
            resume=resume,
            on_advance=lambda window, counts: self._save(window, counts, letters),
        )
        before = self._open_target(resume)
        compare = self._comparison(resume)
        windows = load.windows(None if compare is None else compare.note)
        first = self._first_window(windows, compare)
        if first is not None:
            self._fill(first, windows, compare)
        count = self._verify(before)
        pruned = self._prune(compare, count)
        self._folder.clear()
        if self.updates_live:
            end_loading(self._client, self._require_target().index)
        else:
            self._finish_graph()
        if not self.updates_live and self._serving is not None:
            with self._serving(self._require_target()):
                self._serve(previous)
        if self._encoding is not None:
            self._encoding.export_query_side(self._options.query_cache)
        return self._report(previous, count - pruned, pruned, letters)

    @property
    def updates_live(self) -> bool:
        """Whether the run changes the index that readers see."""
        return self._target is not None and self._target.live

    @property
    def _load(self) -> Load:
        if self._started is None:
            raise _defect("a run has no load")
        return self._started

    @property
    def _repeat(self) -> Repeating:
        return Repeating(self._client, self._options.retry, self._load.stopping)

    def _resumable(self) -> Checkpoint | None:
        """Return how far an earlier attempt has come with this target, None where nothing of it can be used."""
        found = self._folder.load()
        target = self._target
        if found is None or target is None:
            return None
        same = (found.index, found.index_uuid, found.generation) == (target.index, target.uuid, target.generation)
        if same:
            _log.info("going on after %s records that an interrupted run has settled", f"{found.place:,}")
        return found if same else None

    def _open(self) -> Encoding:
        if self._making.given is not None:
            return open_given(self._options.made_by)
        return open_encoding(self._options.made_by, self._options.devices)

    def _profile(self) -> EncoderProfile:
        if self._encoding is not None:
            return self._encoding.profile
        return self._require_target().passport.encoder

    def _window_documents(self) -> int:
        return self._encoding.window_documents if self._encoding is not None else _COMPARED_DOCUMENTS

    def _require_target(self) -> Target:
        if self._target is None:
            raise _defect("a run has no index")
        return self._target

    def _open_target(self, resume: Checkpoint | None) -> int:
        """Make what is in the target visible; return how many documents it holds.

        Raises SourceChangedError when these are fewer than an earlier attempt has been told.
        """
        if self._target is None:
            return 0
        index = self._target.index
        begin_loading(self._client, index)
        self._repeat(lambda: self._client.indices.refresh(index=index))
        count = self._count(index)
        if resume is not None and count < resume.counts.created:
            raise SourceChangedError(
                f"{index} holds {count} documents, but the interrupted run wrote at least {resume.counts.created}",
                "run the same command again: each document will then be compared with what is in the index",
            )
        return count

    def _comparison(self, resume: Checkpoint | None) -> Comparison | None:
        target = self._target
        if target is None:
            return None
        making = self._making
        keeps = making.element_type != "byte" and making.given is None and making.passages is None
        return Comparison(
            self._client,
            target.index,
            target.generation,
            fresh=resume is not None and target.generation == 1 and not target.live,
            vector_field=target.passport.vector_field if keeps else None,
            repeat=self._repeat,
        )

    def _first_window(self, windows: Iterator[Window], compare: Comparison | None) -> Window | None:
        """Return the first window with something to write; None where there is none."""
        for window in windows:
            if compare is not None:
                compare(window)
                self._progress(self._load.progress("comparing"))
            if window.documents:
                return window
            self._load.settle(window)
            self._check_lease()
        return None

    def _fill(self, first: Window, windows: Iterator[Window], compare: Comparison | None) -> None:
        if self._encoding is None:
            self._encoding = self._open()
        options, passages = self._options, self._making.passages
        encoding = self._encoding.settle(first.documents, options.backend, options.task, passages=passages is not None)
        self._encoding = encoding
        if passages is not None:
            self._load.splitter = open_splitter(encoding, passages)
        if self._target is None:
            self._create(first, encoding)
        self._writer = writer = BulkWriter(
            self._client,
            loading_alias(self._require_target().index),
            vector_field=self._making.vector_field,
            packed=self._server.takes_packed_vectors,
            body_bytes=self._options.body_bytes,
            retry=self._options.retry,
            stopping=self._load.stopping,
        )
        self._load_through(self._pipeline(first, windows, compare, encoding, writer))

    def _create(self, first: Window, encoding: Encoding) -> None:
        making = self._making
        passport = Passport(
            encoder=encoding.profile,
            text_fields=making.text_fields,
            vector_field=making.vector_field,
            esvector=version("esvector"),
            element_type=making.element_type,
            probes=encoding.probes,
            passages=None if making.passages is None else complete_options(making.passages, encoding.profile),
        )
        body = build_index_body(
            making.template, passport, self._server, making.field_types, first.stored_fields(), making.to_meta(1)
        )
        load_as = loading_body(body, making.vector_field) if self._options.graph == "deferred" else None
        index = create_version(self._client, self._alias, body, load_as)
        self._target = next(found for found in find_targets(self._client, self._alias) if found.index == index)

    def _pipeline(
        self,
        first: Window,
        windows: Iterator[Window],
        compare: Comparison | None,
        encoding: Encoding,
        writer: BulkWriter,
    ) -> Pipeline:
        load = self._load
        engines = list(encoding.engines)  # each of the workers takes one
        stages = [
            Stage("compare", lambda windows: _compared(first, windows, compare)),
            Stage("tokenize", lambda windows: load.tokenize(windows, encoding.engines[0])),
            Stage("encode", lambda windows: load.encode(windows, engines.pop()), workers=len(encoding.engines)),
            Stage("write", lambda encoded: load.write(encoded, writer), workers=self._options.senders),
        ]
        return Pipeline(windows, stages, stopping=load.stopping)

    def _load_through(self, pipeline: Pipeline) -> None:
        self._stages = pipeline
        pipeline.start()
        try:
            while not pipeline.join(_TICK):
                self._check_lease()
                waiting = self._writer.waiting_for if self._writer is not None else None
                self._progress(replace(self._load.progress("indexing"), waiting=waiting))
        except KeyboardInterrupt:
            self._drain(pipeline)
            raise
        except BaseException:
            pipeline.stop()
            _let_end(pipeline, _ABANDON)
            raise

    def _drain(self, pipeline: Pipeline) -> None:
        """Read no more, and finish what was read, for as long as the grace lasts; then note how far it went."""
        _log.warning(
            "interrupted: finishing what is under way (up to %g s; again to stop at once)", self._options.grace
        )
        self._load.draining.set()
        try:
            _let_end(pipeline, self._options.grace)
        finally:
            pipeline.stop()
        _let_end(pipeline, _ABANDON)
        if self._saved is not None:
            self._folder.save(self._saved, now=True)

    def _check_lease(self) -> None:
        if self._lost.is_set():
            raise LeaseError(
                f"another run took over {self._alias} while this one stood still",
                "see 'esvector status', then run the same command again if that run has ended",
            )

    def _save(self, window: Window, counts: Counts, letters: DeadLetterFile) -> None:
        """Note how far the load has come, once there is something to come back to."""
        if (target := self._target) is None:
            return
        self._saved = Checkpoint(
            index=target.index,
            index_uuid=target.uuid,
            generation=target.generation,
            place=window.place,
            digest=window.digest,
            counts=counts,
            dead_letters=str(letters.path) if letters.path else None,
        )
        self._folder.save(self._saved)

    def _count(self, index: str) -> int:
        return int(self._repeat(lambda: self._client.count(index=index))["count"])

    def _verify(self, before: int) -> int:
        """Compare what the server holds with what it acknowledged; return how many documents that are."""
        self._progress(self._load.progress("verifying"))
        load = self._load
        if self._target is None:
            raise load.hopeless()
        index = self._target.index
        self._repeat(lambda: self._client.indices.refresh(index=index))
        count = self._count(index)
        created = load.created
        if not before + created <= count <= before + created + load.uncertain:
            raise VerificationError(
                f"{index} holds {count} documents, but there were {before}, and the server acknowledged {created}"
                + (f" to {created + load.uncertain}" if load.uncertain else "")
                + " new ones",
                "see whether something else writes to it, and the server's log; then run the same command again",
            )
        counts = load.ledger.counts
        if count == 0 or counts.read == counts.dead + counts.filtered:
            raise load.hopeless()
        return count

    def _prune(self, compare: Comparison | None, count: int) -> int:
        """Delete what no record of the input has; return how many documents that were."""
        guard = self._options.prune if self.updates_live else None
        if compare is None or (self.updates_live and guard is None):
            return 0
        target = self._require_target()
        self._progress(self._load.progress("pruning"))
        return prune(
            self._client, target, compare, count, guard, self._load.unreadable, self._options.retry, self._repeat
        )

    def _finish_graph(self) -> None:
        """Build the graph of a new version that was loaded without one."""
        load, target, making = self._load, self._require_target(), self._making
        final = build_index_body(making.template, target.passport, self._server, making.field_types)

        def say(now: GraphProgress) -> None:
            self._check_lease()
            waiting = f"{now.waiting:,} vectors to go, {now.segments} segments, {now.seconds:.0f} s"
            self._progress(replace(load.progress("building the graph"), waiting=waiting))

        self._graph = finish_graph(
            self._client, target.index, final, making.vector_field, on_progress=say, stopping=load.stopping
        )

    def _serve(self, previous: str | None) -> None:
        target = self._require_target()
        settings = serving_settings(self._making.template)
        serve_version(self._client, self._alias, target.index, previous, target.passport, settings)

    def _report(self, previous: str | None, count: int, pruned: int, letters: DeadLetterFile) -> IndexReport:
        load, counts, updated = self._load, self._load.ledger.counts, self.updates_live
        if not updated:
            # The whole index is this job's: what is in it was indexed by it, in this attempt or an earlier one.
            accepted = counts.read - counts.dead - counts.filtered
            counts = replace(counts, indexed=count, unchanged=0, superseded=accepted - count)
        report = IndexReport(
            alias=self._alias,
            index=self._require_target().index,
            previous=None if updated else previous,
            read=counts.read,
            indexed=counts.indexed,
            unchanged=counts.unchanged,
            superseded=counts.superseded,
            dead=counts.dead,
            filtered=counts.filtered,
            pruned=pruned,
            encoded=counts.encoded,
            truncated=counts.truncated,
            tokens=counts.tokens,
            sent_again=self._writer.traffic.sent_again if self._writer is not None else 0,
            segments=self._graph.segments if self._graph is not None else None,
            graph_seconds=self._graph.seconds if self._graph is not None else 0.0,
            seconds=load.seconds,
            stages=self._stages.times() if self._stages is not None else (),
            dead_letters=str(letters.path) if letters.path else None,
            repeated_ids=tuple(load.repeated_ids),
            reasons=letters.reasons,
        )
        if not report.adds_up or counts.superseded < 0:
            raise _defect(f"the report does not add up: {report}")
        return report


def _compared(first: Window, windows: Iterator[Window], compare: Comparison | None) -> Iterator[Window]:
    """Yield ``first``, which is compared already, and then the others; what is left of small ones is put together."""
    yield first
    if compare is None:
        yield from windows
        return
    gathered: Window | None = None
    for window in windows:
        compare(window)
        if gathered is None:
            gathered = window
        else:
            gathered.extend(window)
        if gathered.full or gathered.span >= _SPANNED:
            yield gathered
            gathered = None
    if gathered is not None:
        yield gathered


def _defect(what: str) -> VerificationError:
    return VerificationError(what, "this is a defect of esvector: report it")


def _let_end(pipeline: Pipeline, seconds: float) -> None:
    """Wait for the stages that are finishing what they have in hand; they are daemons, so a stuck one is left."""
    deadline = time.monotonic() + seconds
    try:
        while not pipeline.join(max(0.0, deadline - time.monotonic())) and time.monotonic() < deadline:
            pass
    except Exception as error:  # the error that stopped the run is raised already
        _log.debug("a stage ended with %s", error)
