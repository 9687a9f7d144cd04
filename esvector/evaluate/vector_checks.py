"""Whether documents have their vectors, and whether these are what the passport says."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from esvector.encode.encoder import Encoder, check_match
from esvector.encode.probes import agreement
from esvector.errors import EncoderError, EncoderMismatchError, MissingExtraError
from esvector.evaluate.findings import Finding, named
from esvector.evaluate.live import Live, ask
from esvector.evaluate.queries import sampled
from esvector.index.content import encoded_part, stored_pages
from esvector.index.documents import prepare
from esvector.index.encoding import Encoding, open_encoding
from esvector.index.passages import open_splitter
from esvector.index.repeating import Repeating
from esvector.index.retries import RetryPolicy
from esvector.passport import HASH_FIELD
from esvector.search.requests import read_vectors
from esvector.types import Document, Record
from esvector.vectors import to_elements

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = ["SampledDocuments", "check_coverage", "check_duplicates", "check_encoder", "check_norms", "take_sample"]

LEAST_COSINE = 0.999
"""Of a stored vector to the one made of its text now: other hardware and number formats stay above it."""

_MOST_MISSING = 0.01  # share of documents without a vector up to which it is a warning
_UNIT = 0.01  # that a length may be off 1; bfloat16 is off by 0.004 at most
_FACTOR = 10  # times the median, from which on a length is odd where lengths differ
_SCANNED = 50_000  # documents whose hashes are compared
_PAGE = 5_000
_MANY_EQUAL = 0.05
_MANY_CUT = 0.1
_HASHES = 16**32


@dataclass(frozen=True, slots=True)
class SampledDocuments:
    """Documents drawn from the index: ``ids``, stored fields, and the vectors of each, (n, dims)."""

    ids: Sequence[str]
    sources: Sequence[Mapping[str, Any]]
    vectors: Sequence[NDArray[np.float32]]


def take_sample(client: Elasticsearch, live: Live, count: int, seed: int) -> SampledDocuments:
    """Draw ``count`` documents with a vector."""
    field = live.passport.vector_field
    body = sampled(live, count, seed) | {"_source": {"excludes": [HASH_FIELD], "exclude_vectors": False}}
    hits = sorted(ask(client, live.name, body)["hits"]["hits"], key=lambda hit: str(hit["_id"]))
    vectors = [np.asarray(read_vectors(hit["_source"], field), np.float32) for hit in hits]
    outer = field.partition(".")[0]
    sources = [{name: value for name, value in hit["_source"].items() if name != outer} for hit in hits]
    return SampledDocuments([str(hit["_id"]) for hit in hits], sources, vectors)


def check_coverage(client: Elasticsearch, live: Live) -> list[Finding]:
    """Whether every document has a vector, and was written by esvector."""
    total, _ = _count(client, live, {"match_all": {}})
    missing, ids = _count(client, live, {"bool": {"must_not": [live.has_vector()]}})
    found = [Finding("ok", "coverage", f"all {total:,} documents have a vector")]
    if missing:
        found = [
            Finding(
                "alarm" if missing > _MOST_MISSING * total else "warning",
                "coverage",
                f"{missing:,} of {total:,} documents have no vector, so no search by meaning finds them: "
                + named(ids, missing),
                f"index them again, or all of them from their stored texts: esvector reembed {live.alias}",
            )
        ]
    others, ids = _count(client, live, {"bool": {"must_not": [{"exists": {"field": HASH_FIELD}}]}})
    if others:
        found.append(
            Finding(
                "warning",
                "origin",
                f"{others:,} of {total:,} documents have no {HASH_FIELD}, so esvector did not write them: "
                + named(ids, others),
                "write through esvector only: nothing binds the vectors of others to the encoder",
            )
        )
    return found


def check_norms(live: Live, sample: SampledDocuments) -> Finding:
    """Whether the lengths of the sampled vectors are what the encoder gives."""
    lengths = np.array([_odd_end(np.linalg.norm(vectors, axis=1)) for vectors in sample.vectors])
    said = f"of {len(lengths):,} documents drawn"
    if not len(lengths):
        return Finding("note", "norms", "no document has a vector")
    if (broken := ~np.isfinite(lengths) | (lengths == 0)).any():
        return Finding(
            "alarm",
            "norms",
            f"{int(broken.sum()):,} {said} have a vector of zeros, or one that is no number: "
            + named([sample.ids[row] for row in np.flatnonzero(broken).tolist()]),
            "index them again: they are as near to one query as to any other",
        )
    if live.passport.element_type == "byte":
        return Finding("ok", "norms", f"none {said} has a zero vector; bytes keep no length")
    if live.passport.encoder.normalize:
        odd, usual = np.abs(lengths - 1) > _UNIT, "1, as of every vector of this encoder"
    else:
        median = float(np.median(lengths))
        odd, usual = (lengths > _FACTOR * median) | (lengths < median / _FACTOR), f"about {median:.3g}"
    if odd.any():
        return Finding(
            "warning",
            "norms",
            f"{int(odd.sum()):,} {said} have a vector whose length is not {usual}: "
            + named([f"{sample.ids[row]} ({lengths[row]:.3g})" for row in np.flatnonzero(odd).tolist()]),
            "something else wrote these vectors, or changed them: index the documents again",
        )
    return Finding("ok", "norms", f"the vectors {said} have a length of {usual}")


def check_encoder(
    live: Live, sample: SampledDocuments, encoder: Encoder | None, devices: Sequence[str]
) -> list[Finding]:
    """Whether the passport's encoder makes the stored vectors of the stored texts, and how many texts it reads whole.

    ``encoder`` is used instead of loading the passport's, if it is that one.
    """
    profile = live.passport.encoder
    if encoder is None and not profile.complete:
        return [Finding("note", "passport", f"the vectors were brought along, and nobody knows how: {profile.model}")]
    try:
        encoding = open_encoding(encoder or replace(profile, dtype=None, backend=None), devices)
        check_match(profile, encoding.profile)
    except EncoderMismatchError as error:
        return [Finding("alarm", "passport", error.message, error.remedy)]
    except (EncoderError, MissingExtraError) as error:
        return [Finding("warning", "passport", f"the encoder could not be tried: {error.message}", error.remedy)]
    try:
        documents = _documents(live, sample)
        found = [_compare(live, sample, encoding, documents)] if documents else []
        return [*found, *_truncation(live, encoding, list(documents.values()))]
    finally:
        encoding.close()


def check_duplicates(client: Elasticsearch, live: Live) -> Finding:
    """How many documents have the very text of another one; of a large index, a part is looked at."""
    total, _ = _count(client, live, {"match_all": {}})
    # Equal texts have equal hashes, so a range of hashes has all documents of a text or none.
    share = min(1.0, _SCANNED / max(1, total))
    part = {"range": {HASH_FIELD: {"lte": f"{min(_HASHES - 1, int(share * _HASHES)):032x}"}}}
    repeat = Repeating(client, RetryPolicy(), threading.Event())
    wanted = {"source": False, "docvalue_fields": [HASH_FIELD], "query": part}
    groups: dict[str, list[str]] = defaultdict(list)
    for page in stored_pages(client, live.name, repeat, _PAGE, **wanted):
        for hit in page:
            groups[encoded_part(hit["fields"][HASH_FIELD][0])].append(hit["_id"])
    scanned = sum(map(len, groups.values()))
    repeated = sum(len(ids) - 1 for ids in groups.values())
    of = f"{scanned:,} documents" if share == 1 else f"{scanned:,} documents looked at (of {total:,})"
    if not repeated:
        return Finding("ok", "duplicates", f"no two of {of} have the same text")
    most = max(groups.values(), key=len)
    return Finding(
        "warning" if repeated > _MANY_EQUAL * scanned else "note",
        "duplicates",
        f"{repeated:,} of {of} have the text of another one; one text is that of {named(sorted(most))}",
        "they take places among the hits that others could have: leave them out of the source, and index with --prune",
    )


def _count(client: Elasticsearch, live: Live, query: Mapping[str, Any]) -> tuple[int, list[str]]:
    """How many documents match ``query``, and the ids of a few."""
    body = {"query": dict(query), "size": 3, "_source": False, "track_total_hits": True}
    hits = ask(client, live.name, body)["hits"]
    return int(hits["total"]["value"]), [str(hit["_id"]) for hit in hits["hits"]]


def _odd_end(lengths: NDArray[np.float32]) -> float:
    """The length of a document's passages that is farthest from 1, as a ratio."""
    if not np.isfinite(lengths).all() or (lengths == 0).any():
        return 0.0
    return float(lengths[np.abs(np.log(lengths)).argmax()])


def _documents(live: Live, sample: SampledDocuments) -> dict[int, Document]:
    """The sampled documents as they were encoded, by their number; those without a text are left out."""
    passport = live.passport
    found = {}
    for row, (id_, source) in enumerate(zip(sample.ids, sample.sources, strict=True)):
        document = prepare(
            Record(source, f"{live.name}/{id_}", id_),
            text_fields=passport.text_fields,
            separator=passport.encoder.separator or " ",
            title_apart=passport.encoder.takes_title or live.passages,
            as_written=live.passages,
        )
        if isinstance(document, Document) and document.text.strip():
            found[row] = document
    return found


def _compare(live: Live, sample: SampledDocuments, encoding: Encoding, documents: Mapping[int, Document]) -> Finding:
    """Encode the stored texts again, and compare with the stored vectors; of passages, the worst one of a document."""
    engine, rows, texts = encoding.engines[0], list(documents), list(documents.values())
    first = np.arange(len(texts) + 1)
    if live.passport.passages is not None:
        window, inputs = open_splitter(encoding, live.passport.passages).split(texts)
        first = window.first
    else:
        inputs = engine.tokenize(texts)
    made = engine.encode(inputs).vectors
    made = np.asarray(to_elements(made, live.passport.element_type), np.float32)
    cosines = []
    for place, row in enumerate(rows):
        new, old = made[first[place] : first[place + 1]], sample.vectors[row]
        cosines.append(float(agreement(new, old).min()) if new.shape == old.shape else -1.0)
    wrong = sorted(
        (cosine, sample.ids[row]) for cosine, row in zip(cosines, rows, strict=True) if cosine < LEAST_COSINE
    )
    model = live.passport.encoder.model
    if wrong:
        return Finding(
            "alarm",
            "passport",
            f"{len(wrong):,} of {len(rows):,} documents drawn have other vectors than {model} makes of their text "
            f"(cosine below {LEAST_COSINE:g}): " + named([f"{id_} ({_said(cosine)})" for cosine, id_ in wrong]),
            f"something else made them, or their text was changed without them: esvector reembed {live.alias} --model "
            f"{model}",
        )
    return Finding(
        "ok",
        "passport",
        f"{model} makes the stored vectors of {len(rows):,} documents drawn: cosine {min(cosines):.5f} or more",
    )


def _said(cosine: float) -> str:
    return "another number of passages" if cosine == -1.0 else f"{cosine:.3f}"


def _truncation(live: Live, encoding: Encoding, documents: list[Document]) -> list[Finding]:
    if live.passages or not documents:
        return []
    inputs = encoding.engines[0].tokenize(documents)
    cut = int((inputs.counts > inputs.lengths).sum())
    limit = live.passport.encoder.max_length
    if not cut:
        return [Finding("ok", "truncation", f"none of {len(documents):,} texts drawn is longer than the encoder reads")]
    return [
        Finding(
            "warning" if cut > _MANY_CUT * len(documents) else "note",
            "truncation",
            f"{cut:,} of {len(documents):,} texts drawn are longer than the {limit or 0:,} tokens that the encoder "
            f"reads; the longest has {int(inputs.counts.max()):,}",
            f"give each passage a vector of its own: esvector index SOURCE --into {live.alias} --passages auto",
        )
    ]
