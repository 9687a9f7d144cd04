"""Indexing: records in, a verified new version behind the alias out, and a report that adds up."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from esvector.client import Server, describe_server, explain_errors
from esvector.encode.encoder import Encoder
from esvector.encode.profile import EncoderProfile
from esvector.errors import ConfigError, EsvectorError, InterruptedRun, VerificationError
from esvector.index.bulk import BulkWriter, RetryPolicy
from esvector.index.deadletters import DeadLetterFile
from esvector.index.documents import TEXT_FIELDS
from esvector.index.encoding import Encoding, open_encoding, open_given
from esvector.index.load import Load, Window
from esvector.index.pipeline import Pipeline, Stage
from esvector.index.versions import (
    check_alias,
    create_version,
    delete_version,
    live_index,
    loading_alias,
    serve_version,
)
from esvector.mapping import build_index_body, load_template, serving_settings, templated_element_type
from esvector.passport import Passport
from esvector.types import BadRecord, IndexReport, Progress, Record
from esvector.vectors import ElementType, check_element_type

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

    from esvector.encode.advice import Task
    from esvector.encode.calibrate import BackendName

__all__ = ["Indexer"]

_log = logging.getLogger(__name__)

_GRACE = 10.0  # seconds that stages get to end after an interruption
_TICK = 0.2  # seconds between two calls of the progress callback


class Indexer:
    """Indexes documents under ``alias``: each run builds a new version beside the live one and swaps when verified.

    Args:
        client: the Elasticsearch client to write with.
        alias: name that readers use; indices are called ``alias-000001`` and so on.
        profile: the encoder to load; or give ``encoder``.
        encoder: a loaded encoder, or one of your own.
        text_fields: fields whose text is encoded, joined by one space; those that a record lacks are left out.
        id_field: field with a record's id; None takes ``_id``, else ``id``, else one made from the content.
        mapping: a template like ``mappings/documents.json``: its path, or its content.
        field_types: Elasticsearch types by field name, over everything inferred.
        vector_field: field that holds the vector; a record must not have one of this name.
        dead_letters: file for the records that cannot be indexed; None is ``<alias>.dead.jsonl`` here.
        senders: bulk requests under way at once.
        body_bytes: size of a bulk request, in bytes.
        max_document_bytes: a larger document is refused before it is encoded.
        devices: where to encode, such as "cpu" or ("cuda:0", "cuda:1"); none is a GPU where there is one.
        backend: what runs the model on a CPU: "torch", "onnx", "openvino", "openvino-int8" (calibrated on the first
            documents), or "auto", which tries them on the first documents.
        task: "search" (short questions, longer passages) or "similar" (like with like); None is not known. What the
            model does not suit is warned of.
        given: field in which each record brings its own vector; nothing is encoded then, and ``profile`` says what
            made the vectors.
        element_type: "float", "bfloat16" or "byte": how the vector field keeps a vector; None is the mapping's.
        query_cache: folder for the exported query tower, which lets searches do without torch; None is the user's
            cache.
        retry: how long to keep trying when the server does not take writes.
    """

    def __init__(
        self,
        client: Elasticsearch,
        alias: str,
        *,
        profile: EncoderProfile | None = None,
        encoder: Encoder | None = None,
        text_fields: tuple[str, ...] = TEXT_FIELDS,
        id_field: str | None = None,
        mapping: str | Path | Mapping[str, Any] | None = None,
        field_types: Mapping[str, str] | None = None,
        vector_field: str = "vector",
        dead_letters: str | Path | None = None,
        senders: int = 4,
        body_bytes: int = 4 * 2**20,
        max_document_bytes: int = 10 * 2**20,
        devices: str | Sequence[str] = (),
        backend: BackendName | Literal["auto"] = "torch",
        task: Task | None = None,
        given: str | None = None,
        element_type: ElementType | None = None,
        query_cache: str | Path | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        made_by = profile or encoder
        if made_by is None or (profile is not None and encoder is not None):
            raise ConfigError("an index needs one encoder", "give profile=EncoderProfile(...) or encoder=...")
        check_alias(alias)
        self.client = client
        self.alias = alias
        self._made_by = made_by
        self._encoding: Encoding | None = None
        self._devices = (devices,) if isinstance(devices, str) else tuple(devices)
        self._backend = backend
        self._task = task
        self._given = given
        self._query_cache = None if query_cache is None else Path(query_cache)
        self._text_fields = tuple(text_fields)
        self._id_field = id_field
        self._template = dict(mapping) if isinstance(mapping, Mapping) else load_template(mapping)
        self._field_types = dict(field_types or {})
        self._vector_field = vector_field
        self._element_type = check_element_type(element_type or templated_element_type(self._template, vector_field))
        self._dead_letters = Path(dead_letters or f"{alias}.dead.jsonl")
        self._senders = senders
        self._body_bytes = body_bytes
        self._max_document_bytes = max_document_bytes
        self._retry = retry or RetryPolicy()

    def run(
        self,
        documents: Iterable[Mapping[str, Any] | Record | BadRecord],
        progress: Callable[[Progress], None] | None = None,
    ) -> IndexReport:
        """Index ``documents`` into a new version and let readers see it once it is verified.

        ``progress`` is called a few times a second by the calling thread. Raises IndexingError when the run fails as a
        whole, InterruptedRun after Ctrl-C, ConnectError when the server cannot be used: readers then still see what
        they saw before, and the unfinished version is deleted.
        """
        server = describe_server(self.client)
        live_index(self.client, self.alias)  # an alias that cannot be used is found before a model is loaded
        encoding = self._open_encoding()
        try:
            report = self._load_version(documents, encoding, server, progress)
            encoding.export_query_side(self._query_cache)
        finally:
            if encoding.close():  # processes that encode end with the run
                self._encoding = None
        return report

    def _load_version(
        self,
        documents: Iterable[Mapping[str, Any] | Record | BadRecord],
        encoding: Encoding,
        server: Server,
        progress: Callable[[Progress], None] | None,
    ) -> IndexReport:
        previous = live_index(self.client, self.alias)
        with DeadLetterFile(self._dead_letters) as letters:
            load = Load(
                documents,
                encoding.profile,
                letters,
                text_fields=self._text_fields,
                id_field=self._id_field,
                reserved=frozenset({self._vector_field}),
                max_document_bytes=self._max_document_bytes,
                element_type=self._element_type,
                given=self._given,
                window_documents=encoding.window_documents,
            )
            windows = load.windows()
            first = next(windows, None)
            if first is None:
                raise load.nothing_to_index()
            encoding = encoding.settle(first.documents, self._backend, self._task)
            passport = self._passport(encoding)
            body = build_index_body(self._template, passport, server, self._field_types, first.stored_fields())
            index = create_version(self.client, self.alias, body)
            try:
                stages = self._fill(index, server, load, encoding, itertools.chain([first], windows), progress)
                self._verify(index, load)
                settings = serving_settings(self._template)
                serve_version(self.client, self.alias, index, previous, passport, settings)
            except BaseException as error:
                raise self._failed(index, load, error) from error
            report = load.report(self.alias, index, previous, stages)
        if not report.adds_up:
            raise VerificationError(f"the report does not add up: {report}", "this is a defect of esvector: report it")
        return report

    def _open_encoding(self) -> Encoding:
        if self._encoding is None:
            if self._given is not None:
                self._encoding = open_given(self._made_by)
            else:
                self._encoding = open_encoding(self._made_by, self._devices)
        return self._encoding

    def _passport(self, encoding: Encoding) -> Passport:
        return Passport(
            encoder=encoding.profile,
            text_fields=self._text_fields,
            vector_field=self._vector_field,
            esvector=version("esvector"),
            element_type=self._element_type,
            probes=encoding.probes,
        )

    def _fill(
        self,
        index: str,
        server: Server,
        load: Load,
        encoding: Encoding,
        windows: Iterator[Window],
        progress: Callable[[Progress], None] | None,
    ) -> Pipeline:
        writer = BulkWriter(
            self.client,
            loading_alias(index),
            vector_field=self._vector_field,
            packed=server.takes_packed_vectors,
            body_bytes=self._body_bytes,
            retry=self._retry,
            stopping=load.stopping,
        )
        engines = list(encoding.engines)  # each of the workers takes one
        stages = [
            Stage("tokenize", lambda windows: load.tokenize(windows, encoding.engines[0])),
            Stage("encode", lambda windows: load.encode(windows, engines.pop()), workers=len(encoding.engines)),
            Stage("write", lambda encoded: load.write(encoded, writer), workers=self._senders),
        ]
        pipeline = Pipeline(windows, stages, stopping=load.stopping)
        pipeline.start()
        try:
            while not pipeline.join(_TICK):
                if progress is not None:
                    progress(load.progress("indexing"))
        except BaseException:
            pipeline.stop()
            _let_end(pipeline)
            raise
        if progress is not None:
            progress(load.progress("verifying"))
        return pipeline

    def _verify(self, index: str, load: Load) -> None:
        """Compare what the server holds with what it acknowledged."""
        with explain_errors(self.client):
            self.client.indices.refresh(index=index)
            count = int(self.client.count(index=index)["count"])
        load.settle(index, count)

    def _failed(self, index: str, load: Load, error: BaseException) -> BaseException:
        """Delete the unfinished version and return the error to raise; one that readers see already is left alone."""
        left = ""
        try:
            if live_index(self.client, self.alias) == index:
                left = f" The run was complete: readers of {self.alias} see {index}."
            else:
                delete_version(self.client, index)
        except Exception as problem:  # the run's own error matters more than the clean-up's
            _log.warning("the unfinished %s could not be deleted: %s", index, problem)
            left = f" The unfinished index {index} could not be deleted: delete it when the server is back."
        if isinstance(error, KeyboardInterrupt):
            return InterruptedRun(
                f"interrupted after {load.counts.read} records; readers of {self.alias} see what they saw before",
                f"run the same command again.{left}",
            )
        if isinstance(error, EsvectorError) and left:
            return type(error)(error.message, error.remedy + left)
        return error


def _let_end(pipeline: Pipeline) -> None:
    """Wait for the stages that are finishing what they have in hand; they are daemons, so a stuck one is left."""
    deadline = time.monotonic() + _GRACE
    try:
        while not pipeline.join(max(0.0, deadline - time.monotonic())) and time.monotonic() < deadline:
            pass
    except Exception as error:  # the error that stopped the run is raised already
        _log.debug("a stage ended with %s", error)
