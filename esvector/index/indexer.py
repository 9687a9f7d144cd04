"""Indexing: records in, a new version or an updated index behind the alias, and a report that adds up."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from esvector.client import describe_server
from esvector.encode.encoder import Encoder
from esvector.encode.loading import recognize
from esvector.encode.profile import EncoderProfile
from esvector.errors import (
    ConfigError,
    EsvectorError,
    HopelessInputError,
    IndexingError,
    InterruptedRun,
    SourceChangedError,
    VerificationError,
)
from esvector.index.bulk import RetryPolicy
from esvector.index.checkpoint import JobFolder
from esvector.index.documents import TEXT_FIELDS
from esvector.index.job import job
from esvector.index.load import RecordOptions
from esvector.index.repeating import Repeating
from esvector.index.run import Run
from esvector.index.run_options import Graph, RunOptions, Serving, serve_at_once
from esvector.index.target import Making, Target, choose_target, find_targets, lift_block
from esvector.index.versions import check_alias, check_ours, delete_version, live_index
from esvector.mapping import load_template, templated_element_type
from esvector.passport import HASH_FIELD, PASSAGES_FIELD, Passport
from esvector.types import BadRecord, IndexReport, PassageOptions, Progress, Record
from esvector.vectors import ElementType, check_element_type

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

    from esvector.encode.advice import Task
    from esvector.encode.calibrate import BackendName

__all__ = ["Indexer"]

_log = logging.getLogger(__name__)

_LAST_QUESTION = 2.0  # seconds that an interrupted run waits for the server to say what readers see
_FIRST = Making(text_fields=TEXT_FIELDS, vector_field="vector", element_type="float")


class Indexer:
    """Indexes documents under ``alias``: into the live index where it was made alike, else into a new version.

    What is there and unchanged is neither encoded nor sent again. A new version is built beside the live one, and
    readers see it once it is verified. A run that was interrupted goes on where it stopped when it is run again.
    Options that decide what an index looks like (up to ``element_type``) are those of the live index unless stated.

    Args:
        client: the Elasticsearch client to write with.
        alias: name that readers use; indices are called ``alias-000001`` and so on.
        profile: the encoder to load; without it, or ``encoder``, that of the live index.
        encoder: a loaded encoder, or one of your own.
        text_fields: fields whose text is encoded, joined by one space; those that a record lacks are left out. For a
            first index: title and text.
        id_field: field with a record's id; a first index takes ``_id``, else ``id``, else one made from the content.
        mapping: a template like ``mappings/documents.json``: its path, or its content.
        field_types: Elasticsearch types by field name, over everything inferred.
        vector_field: field that holds the vector; a record must not have one of this name. First: "vector".
        passages: cut long documents into passages with a vector each, and the title before each; False gives a document
            one vector, of its beginning where it is longer than the encoder reads, as does a first index.
        given: field in which each record brings its own vector; nothing is encoded then, and ``profile`` says what
            made the vectors.
        element_type: "float", "bfloat16" or "byte": how the vector field keeps a vector; first: the mapping's.
        rebuild: build a new version, whatever the live index is like.
        prune: delete documents that are not among the records, from a live index; a new version never has any.
        most_pruned: share of the documents of an index, live or unfinished, that a run may delete, or that a new
            version may lack of those that readers see; more looks like an incomplete source, and is refused.
        take_over: move the alias away from an index that esvector did not make; ``rollback`` leads back to it.
        keep: a rule: records for which it is false are left out.
        skip_empty: leave records without text out, instead of refusing them.
        most_refused: share of refused records at which a run is given up, once they are 1,000.
        dead_letters: file for the records that cannot be indexed; None is ``<alias>.dead.jsonl`` here.
        state: folder for checkpoints; None is the user's.
        senders: bulk requests under way at once, at most.
        body_bytes: size of a bulk request, in bytes, at most.
        max_document_bytes: a larger document is refused before it is encoded.
        graph: "deferred" builds the graph of a new version once, when everything is loaded, which takes the server half
            the time; "inline" builds it as documents come.
        devices: where to encode, such as "cpu" or ("cuda:0", "cuda:1"); none is a GPU where there is one.
        backend: what runs the model on a CPU: "torch", "onnx", "openvino", "openvino-int8" (calibrated on the first
            documents), or "auto", which tries them on the first documents.
        task: "search" (short questions, longer passages) or "similar" (like with like); None is not known. What the
            model does not suit is warned of.
        query_cache: folder for the exported query tower, which lets searches do without torch; None is the user's
            cache.
        retry: how long to keep trying when the server does not take writes.
        grace: seconds in which an interrupted run finishes what is under way.
    """

    def __init__(
        self,
        client: Elasticsearch,
        alias: str,
        *,
        profile: EncoderProfile | None = None,
        encoder: Encoder | None = None,
        text_fields: tuple[str, ...] | None = None,
        id_field: str | None = None,
        mapping: str | Path | Mapping[str, Any] | None = None,
        field_types: Mapping[str, str] | None = None,
        vector_field: str | None = None,
        passages: PassageOptions | Literal[False] | None = None,
        given: str | None = None,
        element_type: ElementType | None = None,
        rebuild: bool = False,
        prune: bool = False,
        most_pruned: float = 0.1,
        take_over: bool = False,
        keep: Callable[[Mapping[str, Any]], bool] | None = None,
        skip_empty: bool = False,
        most_refused: float = 0.5,
        dead_letters: str | Path | None = None,
        state: str | Path | None = None,
        senders: int = 4,
        body_bytes: int = 4 * 2**20,
        max_document_bytes: int = 10 * 2**20,
        graph: Graph = "deferred",
        devices: str | Sequence[str] = (),
        backend: BackendName | Literal["auto"] = "torch",
        task: Task | None = None,
        query_cache: str | Path | None = None,
        retry: RetryPolicy | None = None,
        grace: float = 10.0,
    ) -> None:
        if profile is not None and encoder is not None:
            raise ConfigError("an index has one encoder", "give profile=EncoderProfile(...) or encoder=..., not both")
        check_alias(alias)
        if vector_field is not None and "." in vector_field:
            raise ConfigError(
                f"the vector field {vector_field!r} has a dot in its name", "name a field of the top level"
            )
        if element_type is not None:
            check_element_type(element_type)
        self.client = client
        self.alias = alias
        self.retry = retry or RetryPolicy()
        self._made_by: EncoderProfile | Encoder | None = profile or encoder
        self._stated: dict[str, Any] = {
            "text_fields": tuple(text_fields) if text_fields else None,
            "id_field": id_field,
            "template": _template(mapping),
            "field_types": dict(field_types) if field_types else None,
            "vector_field": vector_field,
            "passages": passages,
            "given": given,
            "element_type": element_type,
        }
        self._rebuild = rebuild
        self._take_over = take_over
        self._state = None if state is None else Path(state)
        self._records: dict[str, Any] = {
            "keep": keep,
            "skip_empty": skip_empty,
            "most_refused": most_refused,
            "max_document_bytes": max_document_bytes,
        }
        self._run_options: dict[str, Any] = {
            "devices": (devices,) if isinstance(devices, str) else tuple(devices),
            "backend": backend,
            "task": task,
            "dead_letters": Path(dead_letters or f"{alias}.dead.jsonl"),
            "senders": senders,
            "body_bytes": body_bytes,
            "graph": graph,
            "query_cache": None if query_cache is None else Path(query_cache),
            "retry": self.retry,
            "grace": grace,
            "prune": prune,
            "most_pruned": most_pruned,
        }

    def run(
        self,
        documents: Iterable[Mapping[str, Any] | Record | BadRecord],
        progress: Callable[[Progress], None] | None = None,
    ) -> IndexReport:
        """Bring what is behind the alias to what ``documents`` say, and return what became of every record.

        ``progress`` is called a few times a second by the calling thread. Raises IndexingError when the run fails as a
        whole, InterruptedRun after Ctrl-C, LeaseError when another run is changing the alias, ConnectError when the
        server cannot be used: of a new version readers then see nothing, and the same run again goes on with it.
        """
        lost = threading.Event()
        with self.job(lost) as folder:
            return self.build(documents, folder, lost, progress)

    @contextmanager
    def job(self, lost: threading.Event) -> Iterator[JobFolder]:
        """Keep every other run off the alias for the length of the block; ``lost`` is set if one took it all the same.

        Raises LeaseError when another run is changing it.
        """
        describe_server(self.client)
        live_index(self.client, self.alias)  # an alias that cannot be used is found before a model is loaded
        repeat = Repeating(self.client, self.retry, threading.Event())
        with job(self.client, self.alias, self._state, lost, self.retry) as folder:
            for target in repeat(lambda: find_targets(self.client, self.alias)):
                if target.blocked:
                    lift_block(self.client, target.index, repeat)
            yield folder

    def build(
        self,
        documents: Iterable[Mapping[str, Any] | Record | BadRecord],
        folder: JobFolder,
        lost: threading.Event,
        progress: Callable[[Progress], None] | None,
        serving: Serving | None = serve_at_once,
        *,
        complete: bool = False,
    ) -> IndexReport:
        """Do what ``run`` does inside a ``job``; ``serving`` is entered around the moment in which readers are moved.

        With None they are not moved, and the new version stays unfinished. ``complete`` says that ``documents`` are
        known to be all there are, however many others an unfinished version has.
        """
        try:
            return self._build(documents, folder, lost, progress, serving, complete=complete)
        except SourceChangedError:
            folder.clear()
            if not _rewind(documents):
                raise
            _log.warning("the input has changed since the interrupted run: every document is compared anew")
            return self._build(documents, folder, lost, progress, serving, complete=complete)

    def encodes_like(self, target: Target) -> bool:
        """Whether the indexer's encoder is the one that made the vectors of ``target``."""
        return self._same_encoder(target.passport)

    def _build(
        self,
        documents: Iterable[Mapping[str, Any] | Record | BadRecord],
        folder: JobFolder,
        lost: threading.Event,
        progress: Callable[[Progress], None] | None,
        serving: Serving | None,
        *,
        complete: bool,
    ) -> IndexReport:
        previous = live_index(self.client, self.alias)
        if previous is not None and not self._take_over:
            check_ours(self.client, self.alias, previous)
        targets = find_targets(self.client, self.alias)
        if previous is None and not self._take_over:
            _check_none_was_served(self.alias, targets)
        live = next((target for target in targets if target.live), None)
        making = self._making(live)
        target = choose_target(targets, making, self._same_encoder, rebuild=self._rebuild)
        options = RunOptions(
            made_by=self._encoder_of(target or live, sync=target is not None),
            records=RecordOptions(
                text_fields=making.text_fields,
                id_field=making.id_field,
                given=making.given,
                element_type=making.element_type,
                passages=making.passages is not None,
                reserved=frozenset({making.vector_field.partition(".")[0], HASH_FIELD}),
                **self._records,
            ),
            **self._run_options | ({"most_pruned": 1.0} if complete else {}),
        )
        server = describe_server(self.client)
        run = Run(self.client, server, self.alias, making, target, previous, options, folder, lost, progress, serving)
        try:
            return run(documents)
        except BaseException as error:
            raise self._failed(run, folder, error) from error

    def _making(self, live: Target | None) -> Making:
        """Return the options that decide what the index looks like: as stated, else as the live one has them."""
        stated = {name: value for name, value in self._stated.items() if value is not None}
        cut = stated.pop("passages", None)
        base = live.making if live is not None else _FIRST
        passages = base.passages if cut is None else cut or None
        if "template" not in stated and (live is None or (passages is None) != (base.passages is None)):
            stated["template"] = load_template(None, passages=passages is not None)
        if base.given is not None and live is not None and not self._same_encoder(live.passport):
            stated.setdefault("given", None)  # another model is named, so texts are encoded from now on
        making = replace(base, **stated, passages=passages)
        field = making.vector_field.removeprefix(f"{PASSAGES_FIELD}.")
        making = replace(making, vector_field=field if passages is None else f"{PASSAGES_FIELD}.{field}")
        if "element_type" not in stated and "template" in stated:
            making = replace(making, element_type=templated_element_type(making.template, making.vector_field))
        return making

    def _same_encoder(self, passport: Passport) -> bool:
        if self._made_by is None:
            return True
        if isinstance(self._made_by, EncoderProfile):
            return recognize(self._made_by, passport.encoder)
        ours, theirs = self._made_by.profile, passport.encoder
        # The same documents' tower with another one for queries would be searched with the wrong one.
        return (ours.space_id, ours.query_id) == (theirs.space_id, theirs.query_id)

    def _encoder_of(self, target: Target | None, *, sync: bool) -> EncoderProfile | Encoder:
        """Return what encodes: as stated, with every fact that the index states where it goes on with one."""
        made_by = self._made_by
        if target is None and made_by is None:
            raise ConfigError(
                f"there is no index {self.alias} yet, so its encoder has to be named",
                "give a model: --model NAME, or Indexer(..., profile=EncoderProfile(NAME))",
            )
        if made_by is None and target is not None:
            return replace(target.passport.encoder, dtype=None, backend=None)
        if isinstance(made_by, EncoderProfile) and target is not None and sync:
            known = replace(target.passport.encoder, dtype=made_by.dtype, backend=None)
            return replace(known, model=made_by.model, query_model=made_by.query_model or known.query_model)
        assert made_by is not None  # noqa: S101  (for mypy: refused above)
        return made_by

    def _failed(self, run: Run, folder: JobFolder, error: BaseException) -> BaseException:
        """Return the error to raise. An index that this run made for nothing is deleted; all else is left as it is."""
        index = run.index
        client, served = self.client, False
        if isinstance(error, KeyboardInterrupt):  # who stops a run does not wait for a server that hangs
            client = client.options(request_timeout=_LAST_QUESTION)
        try:
            served = index is not None and live_index(client, self.alias) == index
            if isinstance(error, HopelessInputError) and index is not None and run.created and not served:
                delete_version(self.client, index)
            if isinstance(error, HopelessInputError | VerificationError):
                folder.clear()  # the next attempt trusts nothing of this one
        except Exception as problem:  # the run's own error matters more than the clean-up's
            _log.warning("the unfinished %s is left as it is: %s", index, problem)
        if isinstance(error, KeyboardInterrupt):
            return self._interrupted(run, served=served)
        if isinstance(error, EsvectorError) and index is not None:
            left = "the same command again goes on where this one stopped"
            if isinstance(error, HopelessInputError):
                left = "" if run.created or served else f"the unfinished {index} of an earlier run is left as it is"
            if not left or "the same command" in error.remedy:
                return error
            return type(error)(error.message, f"{error.remedy.rstrip('.')}; {left}" if error.remedy else left)
        return error

    def _interrupted(self, run: Run, *, served: bool) -> InterruptedRun:
        if served and not run.updates_live:
            return InterruptedRun(
                f"interrupted at its very end. The run was complete: readers of {self.alias} see {run.index}", ""
            )
        return InterruptedRun(
            f"interrupted after {run.read:,} records; readers of {self.alias} "
            + ("see what was written until then" if run.updates_live else "see what they saw before"),
            "run the same command again: it goes on where it stopped",
        )


def _check_none_was_served(alias: str, targets: Sequence[Target]) -> None:
    """Raise IndexingError where readers once saw a version, although the alias is gone: the next would replace it."""
    served = [target.index for target in targets if target.passport.state == "ready" and not target.loading]
    if served:
        raise IndexingError(
            f"the alias {alias} is gone, but {served[0]} is there, which readers have seen",
            f"go on with it by 'esvector rollback {alias} --to {served[0]}', or begin anew with --take-over",
        )


def _template(mapping: str | Path | Mapping[str, Any] | None) -> dict[str, Any] | None:
    if mapping is None or isinstance(mapping, Mapping):
        return dict(mapping) if mapping is not None else None
    return load_template(mapping)


def _rewind(documents: Iterable[Any]) -> bool:
    """Let ``documents`` be read from the beginning again, where that can be."""
    rewind = getattr(documents, "rewind", None)
    return bool(rewind()) if rewind is not None else iter(documents) is not documents
