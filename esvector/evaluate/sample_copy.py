"""A temporary index with some of the vectors of a live one, to try other vector types on. It never stays."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from esvector.client import explain_errors
from esvector.evaluate.live import Live, ask
from esvector.index.content import stored_pages
from esvector.index.repeating import Repeating
from esvector.index.retries import RetryPolicy
from esvector.passport import HASH_FIELD
from esvector.search.exact import is_quantized
from esvector.search.requests import read_vectors

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = ["COPY_MARK", "StoredVectors", "read_sample", "sample_copy"]

COPY_MARK = "-tuning-"
"""In the name of a sample copy, after that of the alias."""

_PAGE = 1000
_BULK = 500  # documents of a request
_MERGE = 3600.0  # seconds that building one graph may take
_HASHES = 16**32


@dataclass(frozen=True, slots=True)
class StoredVectors:
    """Documents of a sample: ``ids`` and hashes, and of each its vectors, (n, dims); n is 1 without passages."""

    ids: Sequence[str]
    hashes: Sequence[str]
    vectors: Sequence[NDArray[np.float32]]

    def __len__(self) -> int:
        """Number of documents."""
        return len(self.ids)


def read_sample(client: Elasticsearch, live: Live, most: int) -> StoredVectors:
    """Read the vectors of about ``most`` documents: those whose content hash is lowest, which is any of them."""
    field = live.passport.vector_field
    count = ask(client, live.name, {"query": live.has_vector(), "size": 0, "track_total_hits": True})
    share = min(1.0, most / max(1, count["hits"]["total"]["value"]))
    lowest = {"range": {HASH_FIELD: {"lte": f"{min(_HASHES - 1, int(share * _HASHES)):032x}"}}}
    repeat = Repeating(client, RetryPolicy(), threading.Event())
    ids, hashes, vectors = [], [], []
    for page in stored_pages(client, live.name, repeat, _PAGE, source=[field, HASH_FIELD], query=lowest):
        for hit in page:
            if found := read_vectors(hit["_source"], field):
                ids.append(str(hit["_id"]))
                hashes.append(str(hit["_source"][HASH_FIELD]))
                vectors.append(np.asarray(found, np.float32))
    return StoredVectors(ids, hashes, vectors)


@contextmanager
def sample_copy(
    client: Elasticsearch, live: Live, stored: StoredVectors, index_options: Mapping[str, Any]
) -> Iterator[Live]:
    """Create an index of ``stored`` whose vector field has ``index_options``, in one segment; it is deleted at the end.

    Deleted whatever happens meanwhile, Ctrl-C included; only a process that is killed leaves it behind, under a name
    with ``COPY_MARK``.
    """
    name = f"{live.alias}{COPY_MARK}{secrets.token_hex(4)}"
    vector = {**live.vector, "index_options": dict(index_options)}
    path, _, inner = live.passport.vector_field.rpartition(".")
    placed = {path: {"type": "nested", "properties": {inner: vector}}} if path else {inner: vector}
    properties = {**placed, HASH_FIELD: {"type": "keyword", "index": False, "doc_values": True}}
    mappings = {"dynamic": False, "properties": properties, "_meta": {"esvector_sample_of": live.name}}
    settings = {"number_of_shards": 1, "number_of_replicas": 0, "refresh_interval": -1, "hidden": True}
    try:
        with explain_errors(client):
            client.indices.create(index=name, settings=settings, mappings=mappings)
            _load(client, name, stored, live)
            client.indices.refresh(index=name)
            client.options(request_timeout=_MERGE).indices.forcemerge(index=name, max_num_segments=1)
            client.indices.refresh(index=name)
        quantized = is_quantized(vector)
        yield replace(live, target=replace(live.target, index=name, quantized=quantized), mappings=mappings)
    finally:
        client.options(ignore_status=404).indices.delete(index=name)


def _load(client: Elasticsearch, name: str, stored: StoredVectors, live: Live) -> None:
    from elasticsearch import helpers

    path, _, inner = live.passport.vector_field.rpartition(".")
    whole = live.passport.element_type == "byte"  # bytes are refused as 1.0
    actions = (
        {
            "_index": name,
            "_id": id_,
            "_source": {HASH_FIELD: content, **_placed(path, inner, vectors.astype(np.int8) if whole else vectors)},
        }
        for id_, content, vectors in zip(stored.ids, stored.hashes, stored.vectors, strict=True)
    )
    helpers.bulk(client, actions, chunk_size=_BULK)


def _placed(path: str, inner: str, vectors: NDArray[Any]) -> dict[str, Any]:
    rows = vectors.tolist()
    return {path: [{inner: row} for row in rows]} if path else {inner: rows[0]}
