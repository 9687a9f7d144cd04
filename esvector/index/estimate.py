"""What a load would take, from a sample of its records: time, disk, memory, the mapping. Nothing is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from esvector.client import Server
from esvector.encode.encoder import Encoder
from esvector.encode.profile import EncoderProfile
from esvector.encode.workers import ProcessEngine
from esvector.index.documents import TEXT_FIELDS, prepare
from esvector.index.encoding import Encoding, open_encoding, open_given
from esvector.index.passages import open_splitter
from esvector.index.sampling import CountedRecords, Sample, Tokenized, time_encoding
from esvector.index.sizes import STORED_SHARE, source_vector_bytes, vector_bytes, vector_types
from esvector.mapping import build_index_body, find_vector, load_template, serving_settings, templated_element_type
from esvector.passport import HASH_FIELD, PASSAGES_FIELD, Passport
from esvector.types import BadRecord, Document, PassageOptions, Record
from esvector.vectors import ElementType, check_element_type

if TYPE_CHECKING:
    from esvector.encode.advice import Task
    from esvector.encode.calibrate import BackendName

__all__ = ["ASSUMPTIONS", "PER", "Estimate", "StageCost", "TypeSize", "estimate_load", "type_sizes"]

PER = 1_000_000
"""Records that sizes and times are of where nobody knows how many the source has."""

RecordsFrom = Literal["counted", "extrapolated", "stated", "unknown"]

ASSUMPTIONS = (
    "The sample is the beginning of the source, and no id is repeated.",
    "The time is that of reading, tokenizing and encoding on this machine, without loading the model. Elasticsearch is "
    "taken to keep up: of one core, 9.5.3 took 0.05 ms to take in a document of 384 dims, and 0.6 ms for its graph.",
    f"Stored fields and their indices are taken as {STORED_SHARE} bytes for a byte of JSON: five corpora had 0.9 to "
    "1.5. The graph may be half or twice as large, and the vectors are exact.",
    "Disk is one copy. Each replica, each version that is kept, and a merge while it runs take as much again.",
    "Memory is what should be free for the page cache, beside the Java heap, for each copy that is searched.",
)

_HASH_BYTES = 80  # of a document on disk: its field esvector_hash, stored and in a column
_COUNTING = 2.0  # seconds to read on after the sample, to count what there is
_TIMING = 15.0  # seconds that the timed encoding may take, about


@dataclass(frozen=True, slots=True)
class StageCost:
    """Seconds for a document that a stage takes by itself on this machine."""

    name: str
    seconds: float


@dataclass(frozen=True, slots=True)
class TypeSize:
    """Bytes in Elasticsearch if the vector field had this type; ``chosen`` is the one of the mapping.

    ``disk_bytes`` are one copy of vectors, graph, stored fields and their indices; each replica takes as much again,
    and so does a merge while it runs. ``memory_bytes`` should be free for the page cache, beside the Java heap.
    """

    element_type: str
    index_type: str
    chosen: bool
    disk_bytes: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """What loading a source would take: ``sampled == usable + rejected``, and the rest follows from those.

    Attributes:
        records: records of the source; None where they could not be counted: figures are then of ``PER`` records.
        records_from: "counted" (all were read), "extrapolated" (by the share of files read), "stated" or "unknown".
        sampled: first records of the source, which were looked at.
        usable: those that are documents.
        rejected: those that are not; ``reasons`` counts why.
        documents: documents that the index would hold, if no id is repeated.
        truncated: of ``usable``, those longer than the encoder reads; none where they are cut into passages.
        vectors: passages of a document on average; 1 without passages.
        tokens: tokens of ``usable``, before any cut.
        longest: tokens of the longest text, which is at ``longest_place``.
        timed: documents that were encoded to take the time, spread over ``usable``.
        stages: what each stage costs alone; they run at once, and share the cores where the CPU encodes.
        documents_per_second: rate of the whole on this machine, if Elasticsearch keeps up.
        seconds: time for all ``documents``, without loading the model and building the graph.
        source_bytes: JSON of a document, on average.
        sizes: disk and memory by type of the vector field.
        encoder: the complete profile.
        server: version that ``body`` is for.
        body: settings and mappings of the index that readers would see.
    """

    records: int | None
    records_from: RecordsFrom
    sampled: int
    usable: int
    rejected: int
    documents: int
    truncated: int
    vectors: float
    tokens: int
    longest: int
    longest_place: str
    timed: int
    stages: tuple[StageCost, ...]
    documents_per_second: float
    seconds: float
    source_bytes: float
    sizes: tuple[TypeSize, ...]
    encoder: EncoderProfile
    server: str
    body: Mapping[str, Any]
    reasons: Mapping[str, int] = field(default_factory=dict)


def estimate_load(
    documents: Iterable[Mapping[str, Any] | Record | BadRecord],
    made_by: EncoderProfile | Encoder,
    server: Server,
    *,
    text_fields: tuple[str, ...] = TEXT_FIELDS,
    id_field: str | None = None,
    mapping: str | Path | None = None,
    field_types: Mapping[str, str] | None = None,
    vector_field: str = "vector",
    passages: PassageOptions | None = None,
    devices: Sequence[str] = (),
    backend: BackendName | Literal["auto"] = "torch",
    task: Task | None = None,
    given: str | None = None,
    element_type: ElementType | None = None,
    sample: int | None = None,
    records: int | None = None,
) -> Estimate:
    """Read a sample of ``documents``, encode some of it, and say what loading all would take. Nothing is written.

    The arguments are those of ``Indexer``; ``server`` is what the mapping is for, and is not asked anything. ``sample``
    records are read from the beginning; None reads as many documents as a load looks at before it writes its mapping.
    ``records`` states how many there are. Raises IndexingError when none of the sample could be indexed, ConfigError
    for a mapping that the server would not take, and what loading the encoder raises.
    """
    template = load_template(mapping, passages=passages is not None)
    if passages is not None:
        vector_field = f"{PASSAGES_FIELD}.{vector_field}"
    kept_as = check_element_type(element_type or templated_element_type(template, vector_field))
    counted = CountedRecords(documents)
    encoding = open_given(made_by) if given is not None else open_encoding(made_by, devices)
    to_document = partial(
        prepare,
        text_fields=text_fields,
        id_field=id_field,
        reserved=frozenset({vector_field.partition(".")[0], HASH_FIELD}),
        separator=encoding.profile.separator or " ",
        title_apart=encoding.profile.takes_title or passages is not None,
        as_written=passages is not None,
        given=given,
    )
    try:
        taken = Sample.take(counted, to_document, sample, encoding.window_documents)
        settled = encoding.settle(taken.documents, backend, task, passages=passages is not None)
        pieces = taken.documents if passages is None else _pieces(settled, passages, taken.documents)
        passport = Passport(settled.profile, text_fields, vector_field, version("esvector"), kept_as, settled.probes)
        body = build_index_body(template, passport, server, field_types, [each.fields for each in taken.documents])
        body["settings"]["index"] = _served(body["settings"]["index"] | serving_settings(template))
        measured = _Measured.of(settled, taken, pieces)
    finally:
        encoding.close()
    counted.read_on(_COUNTING)
    return _conclude(counted, records, taken, measured, passport, server, body)


@dataclass(frozen=True, slots=True)
class _Measured:
    """What the sample's documents cost here, ``per_document`` in seconds of the whole; ``vectors`` of a document."""

    tokens: Tokenized
    vectors: float
    timed: int
    stages: tuple[StageCost, ...]
    per_document: float

    @classmethod
    def of(cls, encoding: Encoding, sample: Sample, pieces: Sequence[Document]) -> _Measured:
        vectors = len(pieces) / len(sample.documents)
        tokens = Tokenized.of(sample, encoding.engines[0])
        timed, encode_seconds = time_encoding(pieces, encoding.engines, _TIMING)
        encode_seconds *= vectors
        stages = (
            StageCost("read", sample.seconds / sample.read),
            StageCost("tokenize", tokens.seconds / len(sample.documents)),
            StageCost("encode", encode_seconds),
        )
        costs = [stage.seconds for stage in stages]
        # A GPU encodes beside the other stages; a CPU has time for one of them.
        beside = any(isinstance(engine, ProcessEngine) for engine in encoding.engines)
        return cls(tokens, vectors, timed, stages, max(costs) if beside else sum(costs))


def _pieces(encoding: Encoding, passages: PassageOptions, documents: Sequence[Document]) -> list[Document]:
    """The passages of ``documents``, each as the encoder will get it."""
    window, _ = open_splitter(encoding, passages).split(documents)
    owners = np.repeat(np.arange(len(documents)), np.diff(window.first)).tolist()
    return [replace(documents[owner], text=text) for owner, text in zip(owners, window.texts, strict=True)]


def _conclude(
    counted: CountedRecords,
    stated: int | None,
    sample: Sample,
    measured: _Measured,
    passport: Passport,
    server: Server,
    body: Mapping[str, Any],
) -> Estimate:
    records, records_from = _records(counted, stated)
    usable = len(sample.documents)
    documents = round((PER if records is None else records) * usable / sample.read)
    return Estimate(
        records=records,
        records_from=records_from,
        sampled=sample.read,
        usable=usable,
        rejected=sample.read - usable,
        documents=documents,
        truncated=0 if passport.vector_field.startswith(f"{PASSAGES_FIELD}.") else measured.tokens.truncated,
        vectors=measured.vectors,
        tokens=measured.tokens.total,
        longest=measured.tokens.longest,
        longest_place=measured.tokens.longest_place,
        timed=measured.timed,
        stages=measured.stages,
        documents_per_second=1 / measured.per_document,
        seconds=documents * measured.per_document,
        source_bytes=sample.mean_size,
        sizes=type_sizes(documents, sample.mean_size, passport, server, body, measured.vectors),
        encoder=passport.encoder,
        server=str(server),
        body=body,
        reasons=sample.reasons,
    )


def type_sizes(
    documents: int,
    source_bytes: float,
    passport: Passport,
    server: Server,
    body: Mapping[str, Any],
    vectors: float = 1.0,
) -> tuple[TypeSize, ...]:
    """Sizes of ``documents`` whose JSON has ``source_bytes``, by type of the vector field, the type of ``body`` first.

    A document has so many ``vectors``, more than 1 where it is cut into passages. Other types are those that
    ``server`` takes, with as many neighbours in the graph as in ``body``. Pure.
    """
    options = find_vector(body["mappings"]["properties"], passport.vector_field)["index_options"]
    if vectors > 1:
        source_bytes *= 2  # the texts of the passages are stored, too
    dims, m = passport.encoder.dims or 0, options.get("m", 16)
    chosen = (passport.element_type, str(options["type"]))
    others = vector_types(dims, passport.encoder.similarity or "cosine", server)
    found = []
    for element_type, index_type in dict.fromkeys((chosen, *others)):
        vector = vector_bytes(dims, element_type, index_type, m)
        stored = STORED_SHARE * source_bytes + vectors * source_vector_bytes(dims, element_type, server) + _HASH_BYTES
        found.append(
            TypeSize(
                element_type,
                index_type,
                (element_type, index_type) == chosen,
                round(documents * (vectors * vector.disk + stored)),
                round(documents * vectors * vector.memory),
            )
        )
    return tuple(found)


def _served(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


def _records(counted: CountedRecords, stated: int | None) -> tuple[int | None, RecordsFrom]:
    if stated is not None:
        return stated, "stated"
    if counted.total is None:
        return None, "unknown"
    return counted.total, "counted" if counted.ended else "extrapolated"
