"""One run: the target found, what is there compared, the rest encoded and written, and all of it verified."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from itertools import chain
from typing import TYPE_CHECKING

from esvector.client import Server
from esvector.encode.profile import EncoderProfile
from esvector.errors import IndexingError, LeaseError, SourceChangedError
from esvector.index.bulk import BulkWriter
from esvector.index.checkpoint import Checkpoint, JobFolder
from esvector.index.content import Comparison
from esvector.index.deadletters import DeadLetterFile
from esvector.index.encoding import Encoding, open_encoding, open_given
from esvector.index.filling import Filling
from esvector.index.finish import check_count, defect, final_report
from esvector.index.graph import GraphProgress, GraphReport, finish_graph, loading_body
from esvector.index.lease import is_held
from esvector.index.load import Load
from esvector.index.passages import complete_options, open_splitter
from esvector.index.prune import prune
from esvector.index.repeating import Repeating
from esvector.index.run_options import Records, RunOptions, Serving
from esvector.index.target import Making, Target, find_targets, raise_generation
from esvector.index.versions import (
    begin_loading,
    create_version,
    end_loading,
    loading_alias,
    serve_version,
)
from esvector.index.window import Account, Counts, Window
from esvector.mapping import build_index_body, find_vector, serving_settings, states_pipeline
from esvector.passport import Passport
from esvector.types import IndexReport, Progress

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch


__all__ = ["Run"]

_COMPARED_DOCUMENTS = 2048  # of a window that is compared with the index: a request for fewer costs nearly as much
_log = logging.getLogger(__name__)


class Run:
    """Loads records into ``target``, or into a new version of ``alias`` where it is None. Used once.

    ``folder`` keeps the checkpoint, and ``lost`` is set when another run took over. ``serving`` is entered around the
    moment in which readers are moved to a new version; with None they are not. ``previous`` is the index that readers
    see when it begins. ``created`` says whether the run has made the index that it writes to.
    """

    def __init__(
        self,
        client: Elasticsearch,
        server: Server,
        alias: str,
        making: Making,
        target: Target | None,
        previous: str | None,
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
        self._previous = previous
        self._options = options
        self._folder = folder
        self._lost = lost
        self._serving = serving
        self._progress = progress or (lambda _progress: None)
        self._encoding: Encoding | None = None
        self._saved: Checkpoint | None = None
        self._saving = threading.Lock()
        self._filling: Filling | None = None
        self._writer: BulkWriter | None = None
        self._graph: GraphReport | None = None
        self._started: Load | None = None
        self.created = False

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
        found = self._resumable()
        if self._target is not None:
            # Also where an earlier attempt is gone on with: the input may have changed behind its checkpoint.
            self._target = raise_generation(self._client, self._target, self._repeat)
            if found is not None:
                self._saved = found = replace(found, generation=self._target.generation)
                self._folder.save(found, now=True)
        with DeadLetterFile(self._options.dead_letters) as letters:
            try:
                return self._run(records, letters, found)
            finally:
                if self._encoding is not None:
                    self._encoding.close()

    def _run(self, records: Records, letters: DeadLetterFile, found: Checkpoint | None) -> IndexReport:
        resume = found if found is not None and found.plain else None
        if self._target is None:
            self._encoding = self._open()
        since = found.since if found is not None else self._generation
        self._started = load = Load(
            records,
            self._options.records,
            self._profile(),
            letters,
            generation=self._generation,
            window_documents=self._window_documents(),
            resume=resume,
            on_advance=lambda until, counts: self._save(until, counts, letters, since),
            on_odd=self._save_odd,
            new=self._target is None,
        )
        before = self._open_target(resume)
        compare = self._comparison(since)
        windows = load.windows(None if compare is None else compare.note)
        first, windows = self._first_window(windows, compare)
        if first is not None:
            self._fill(first, windows, compare)
        count = self._verify(before)
        pruned = self._prune(compare, count)
        if not self.updates_live:
            self._check_size(count - pruned)
            self._finish_graph()
        report = self._report(count - pruned, pruned, letters)  # before readers see anything
        self._folder.clear()
        if self.updates_live:
            end_loading(self._client, self._require_target().index, self._repeat)
        elif self._serving is not None:
            with self._serving(self._require_target()):
                self._serve()
        if self._encoding is not None:
            self._encoding.export_query_side(self._options.query_cache)
        return replace(report, seconds=load.seconds)

    @property
    def _generation(self) -> int:
        return self._target.generation if self._target is not None else 1

    @property
    def updates_live(self) -> bool:
        """Whether the run changes the index that readers see."""
        return self._target is not None and self._target.live

    @property
    def _load(self) -> Load:
        if self._started is None:
            raise defect("a run has no load")
        return self._started

    @property
    def _repeat(self) -> Repeating:
        stopping = self._started.stopping if self._started is not None else threading.Event()
        return Repeating(self._client, self._options.retry, stopping)

    def _resumable(self) -> Checkpoint | None:
        """Return how far an earlier attempt has come with this target, None where nothing of it can be used."""
        found = self._folder.load()
        target = self._target
        if found is None or target is None:
            return None
        same = (found.index, found.index_uuid, found.generation) == (target.index, target.uuid, target.generation)
        if same:
            if found.plain:
                _log.info("going on where the interrupted run stopped: after %s records", f"{found.place:,}")
            else:
                _log.info(
                    "the interrupted run had %s records: they are compared with what it wrote", f"{found.place:,}"
                )
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
            raise defect("a run has no index")
        return self._target

    def _open_target(self, resume: Checkpoint | None) -> int:
        """Make what is in the target visible; return how many documents it holds.

        Raises SourceChangedError when these are fewer than an earlier attempt has been told.
        """
        if self._target is None:
            return 0
        index = self._target.index
        begin_loading(self._client, index, self._repeat)
        self._repeat(lambda: self._client.indices.refresh(index=index))
        count = self._count(index)
        if resume is not None and count < resume.counts.created:
            raise SourceChangedError(
                f"{index} holds {count} documents, but the interrupted run wrote at least {resume.counts.created}",
                "run the same command again: each document will then be compared with what is in the index",
            )
        return count

    def _comparison(self, since: int) -> Comparison | None:
        target = self._target
        if target is None:
            return None
        making = self._making
        keeps = making.element_type != "byte" and making.given is None and making.passages is None
        return Comparison(
            self._client,
            target.index,
            since,
            vector_field=target.passport.vector_field if keeps else None,
            repeat=self._repeat,
        )

    def _first_window(
        self, windows: Iterator[Window], compare: Comparison | None
    ) -> tuple[Window | None, Iterator[Window]]:
        """Return the first window with something to write, None where there is none, and the windows after it.

        While the server is asked about one the next is read: of an unchanged input that is all there is to do.
        """
        if compare is None:
            return next((window for window in windows if not self._is_done(window)), None), windows
        one_thread = ThreadPoolExecutor(1, "esvector-compare")
        try:
            following = next(windows, None)
            while (window := following) is not None:
                compared = one_thread.submit(compare, window)
                following = next(windows, None)
                compared.result()
                self._progress(self._load.progress("comparing"))
                if not self._is_done(window):
                    return window, chain([] if following is None else [following], windows)
        except BaseException:
            self._load.stopping.set()  # what waits for the server there is not waited for
            raise
        finally:
            one_thread.shutdown(wait=False)
        return None, windows

    def _is_done(self, window: Window) -> bool:
        """Whether nothing of ``window`` has to be written, which is then accounted for."""
        if window.documents:
            return False
        self._load.settle(window)
        self._check_lease()
        return True

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
        self._writer = BulkWriter(
            self._client,
            loading_alias(self._require_target().index),
            vector_field=self._making.vector_field,
            packed=self._server.takes_packed_vectors,
            pipeline=None if states_pipeline(self._making.template) else "_none",
            body_bytes=self._options.body_bytes,
            retry=self._options.retry,
            stopping=self._load.stopping,
        )
        self._filling = Filling(
            self._load, first, windows, compare, encoding.engines, self._writer, self._options.senders
        )
        try:
            self._filling.run(self._tick, self._options.grace)
        finally:
            if self._saved is not None:
                self._folder.save(self._saved, now=True)

    def _tick(self) -> None:
        self._check_lease()
        waiting = self._writer.waiting_for if self._writer is not None else None
        self._progress(replace(self._load.progress("indexing"), waiting=waiting))

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
        load_as = loading_body(body, making.vector_field) if self._options.graph == "deferred" else body
        stated = find_vector(making.template.get("mappings", {}).get("properties", {}), making.vector_field)
        index = create_version(
            self._client, self._alias, load_as, in_the_end=body if stated else None, repeat=self._repeat
        )
        targets = self._repeat(lambda: find_targets(self._client, self._alias))
        self._target = next(found for found in targets if found.index == index)
        self.created = True

    def _confirm_lease(self) -> None:
        """Ask the server, before what cannot be undone. Raises LeaseError where another run has the alias by now."""
        if not self._repeat(lambda: is_held(self._client, self._alias, self._folder.owner())):
            self._lost.set()
        self._check_lease()

    def _check_lease(self) -> None:
        if self._lost.is_set():
            raise LeaseError(
                f"another run took over {self._alias} while this one stood still",
                "see 'esvector status', then run the same command again if that run has ended",
            )

    def _save(self, until: Account, counts: Counts, letters: DeadLetterFile, since: int) -> None:
        """Note how far the load has come, once there is something to come back to."""
        if (target := self._target) is None:
            return
        with self._saving:
            self._saved = Checkpoint(
                index=target.index,
                index_uuid=target.uuid,
                generation=target.generation,
                since=since,
                place=until.place,
                digest=until.digest,
                counts=counts,
                dead_letters=str(letters.path.absolute()) if letters.path else None,
                plain=self._load.plain,
            )
            self._folder.save(self._saved)

    def _save_odd(self) -> None:
        with self._saving:
            if self._saved is not None:
                self._saved = replace(self._saved, plain=False)
                self._folder.save(self._saved, now=True)

    def _count(self, index: str) -> int:
        return int(self._repeat(lambda: self._client.count(index=index))["count"])

    def _verify(self, before: int) -> int:
        """Compare what the server holds with what it acknowledged; return how many documents that are."""
        self._progress(self._load.progress("verifying"))
        if self._target is None:
            raise self._load.hopeless()
        index = self._target.index
        self._repeat(lambda: self._client.indices.refresh(index=index))
        count = self._count(index)
        update = self.updates_live and not self._options.prune
        check_count(self._load, index, before, count, update=update)
        return count

    def _prune(self, compare: Comparison | None, count: int) -> int:
        """Delete what no record of the input has; return how many documents that were."""
        if compare is None or (self.updates_live and not self._options.prune):
            return 0
        target = self._require_target()
        self._confirm_lease()
        self._progress(self._load.progress("pruning"))
        options = self._options
        return prune(self._client, target, compare, self._load, count, options.most_pruned, options.retry, self._repeat)

    def _check_size(self, count: int) -> None:
        """Raise IndexingError where readers would lose more documents than a run may delete."""
        if self._serving is None or self._previous is None:
            return
        seen, most = self._count(self._previous), self._options.most_pruned
        if seen - count > most * seen:
            raise IndexingError(
                f"the new version has {count:,} documents, but readers of {self._alias} see {seen:,}: it lacks more "
                f"than the {most:.0%} that a run may delete",
                "check that the source is complete and the right one; to serve it, run the same command again with "
                "--force (in Python: most_pruned=1)",
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
            self._client,
            target.index,
            final,
            making.vector_field,
            on_progress=say,
            stopping=load.stopping,
            retry=self._options.retry,
        )

    def _serve(self) -> None:
        target = self._require_target()
        settings = serving_settings(self._making.template)
        self._confirm_lease()
        serve_version(self._client, self._alias, target.index, self._previous, target.passport, settings, self._repeat)
        if self._previous is not None:
            found = self._repeat(lambda: self._client.indices.get_alias(index=self._previous))
            for other in found[self._previous]["aliases"]:
                _log.warning("%s, which the alias %s leads to, is not updated any more", self._previous, other)

    def _report(self, count: int, pruned: int, letters: DeadLetterFile) -> IndexReport:
        graph, updated = self._graph, self.updates_live
        return final_report(
            IndexReport(
                alias=self._alias,
                index=self._require_target().index,
                previous=None if updated else self._previous,
                pruned=pruned,
                sent_again=self._writer.traffic.sent_again if self._writer is not None else 0,
                segments=graph.segments if graph is not None else None,
                graph_seconds=graph.seconds if graph is not None else 0.0,
                stages=self._filling.times if self._filling is not None else (),
            ),
            self._load,
            letters,
            built=None if updated else count,
        )
