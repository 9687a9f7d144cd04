"""What the index holds of a document: the hash that tells whether it changed, and how to ask for many at once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from esvector.errors import IndexingError
from esvector.index.repeating import Repeating
from esvector.index.seen import SeenIds
from esvector.index.window import Window
from esvector.passport import HASH_FIELD
from esvector.types import Document

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = ["PLACE_BITS", "Comparison", "content_hash", "encoded_part", "stamped", "stored_pages"]

PLACE_BITS = 40
"""A document's external version is ``generation << PLACE_BITS | place``: any later run beats an earlier one, and within
a run the last record of an id stays."""

_HASH_KEY = b'"%b":"' % HASH_FIELD.encode()
_PART = 16  # hex digits of each of the two hashes
_SCAN_ALIVE = "5m"
_ANSWER = ["hits.hits._id", "hits.hits._version", "hits.hits.fields", "timed_out", "_shards.failed"]


def content_hash(document: Document, *, given: bool) -> str:
    """Return 32 hex digits: of what is encoded of ``document``, and of all that is stored of it.

    ``given`` says that the vector that it brings takes the place of encoding. The order of fields is of no matter: the
    server changes it where it puts a vector back into a source.
    """
    encoded = hashlib.blake2b(digest_size=_PART // 2)
    if given and document.vector is not None:
        encoded.update(document.vector.tobytes())
    if document.title:
        encoded.update(document.title.encode() + b"\0")
    encoded.update(document.text.encode())
    stored = orjson.dumps(document.fields, option=orjson.OPT_SORT_KEYS)
    return encoded.hexdigest() + hashlib.blake2b(stored, digest_size=_PART // 2).hexdigest()


def stamped(source: bytes, content: str) -> bytes:
    """Return the JSON object ``source`` with its hash as one more field."""
    return source[:-1] + (b"," + _HASH_KEY if len(source) > 2 else _HASH_KEY) + content.encode() + b'"}'


def encoded_part(content: str) -> str:
    """Return the half of a hash that is of what is encoded."""
    return content[:_PART]


class _Stored(NamedTuple):
    version: int
    content: str


class Comparison:
    """Looks up what the index holds of the documents of a window, so that what is there is not encoded again.

    Args:
        client: the Elasticsearch client.
        index: where to look; it was refreshed when the run began, and holds what was there then.
        since: the generation in which the job began: what is stored from there on is work of its earlier attempts.
        vector_field: where vectors are fetched from, for documents of which only other fields changed; None to encode
            these again.
        repeat: for a server in trouble.
    """

    def __init__(
        self,
        client: Elasticsearch,
        index: str,
        since: int,
        vector_field: str | None,
        repeat: Repeating,
    ) -> None:
        self._client = client
        self._index = index
        self._since = since << PLACE_BITS
        self._seen = SeenIds()
        self._refused = SeenIds()
        self._vector_field = vector_field
        self._repeat = repeat

    def note(self, window: Window) -> None:
        """Take note of the ids of a window, and in it of those that came before."""
        window.repeated = self._seen.add([document.id for document in window.documents])
        self._refused.add(window.refused_ids)

    def has_document(self, ids: Sequence[str]) -> list[bool]:
        """Whether each of ``ids`` was that of a record of this run that became a document."""
        return self._seen.holds(ids)

    def met(self, ids: Sequence[str]) -> list[bool]:
        """Whether each of ``ids`` was that of a record of this run, be it one that was refused."""
        return [one or other for one, other in zip(self._seen.holds(ids), self._refused.holds(ids), strict=True)]

    def __call__(self, window: Window) -> None:
        """Count and drop what needs no work; documents whose vector can be kept get it."""
        self.note(window)
        ids = [document.id for document in window.documents]
        if not ids:
            return
        stored = self._look_up(ids)
        rows: list[int] = []
        keep_vector: list[int] = []
        for row, id_ in enumerate(ids):
            found = stored.get(id_)
            content = window.hashes[row]
            if found is None or window.repeated[row] or encoded_part(found.content) != encoded_part(content):
                rows.append(row)
            elif found.content == content and found.version >= self._since:
                window.counts.indexed += 1
            elif found.content == content:
                window.counts.unchanged += 1
            else:
                rows.append(row)
                keep_vector.append(row)
        if keep_vector and self._vector_field is not None:
            self._give_vectors(window, keep_vector)
        window.keep(rows)

    def _look_up(self, ids: Sequence[str]) -> dict[str, _Stored]:
        hits = self._hits(ids, source=False, docvalue_fields=[HASH_FIELD], version=True, filter_path=_ANSWER)
        return {
            hit["_id"]: _Stored(hit["_version"], (hit.get("fields", {}).get(HASH_FIELD) or [""])[0]) for hit in hits
        }

    def _give_vectors(self, window: Window, rows: list[int]) -> None:
        """Fetch the vectors that are in the index, instead of making them again."""
        field = self._vector_field
        wanted = {window.documents[row].id: row for row in rows}
        for hit in self._hits(list(wanted), source=[field]):
            vector = hit.get("_source", {}).get(field)
            if vector is not None:
                row = wanted[hit["_id"]]
                kept: NDArray[np.float32] = np.asarray(vector, np.float32)
                window.documents[row] = replace(window.documents[row], vector=kept)

    def _hits(self, ids: Sequence[str], **wanted: Any) -> list[dict[str, Any]]:  # noqa: ANN401
        answer = self._repeat(
            lambda: self._client.search(
                index=self._index,
                query={"ids": {"values": list(ids)}},
                size=len(ids),
                sort=["_doc"],
                track_total_hits=False,
                allow_partial_search_results=False,
                **wanted,
            )
        )
        if answer.get("timed_out") or answer.get("_shards", {}).get("failed"):
            raise IndexingError(f"{self._index} could not be read completely", "run the same command again")
        return list(answer.get("hits", {}).get("hits", []))


def stored_pages(
    client: Elasticsearch,
    index: str,
    repeat: Repeating,
    size: int,
    **wanted: Any,  # noqa: ANN401
) -> Iterator[list[dict[str, Any]]]:
    """Yield the hits of all documents, ``size`` at a time, as of one moment; ``wanted`` says what is read of each."""
    pit = repeat(lambda: client.open_point_in_time(index=index, keep_alive=_SCAN_ALIVE))["id"]
    after: dict[str, Any] = {}
    try:
        while page := _page(client, pit, repeat, size=size, **wanted, **after):
            yield page
            after = {"search_after": page[-1]["sort"]}
    finally:
        client.options(ignore_status=404).close_point_in_time(id=pit)


def _page(client: Elasticsearch, pit: str, repeat: Repeating, **wanted: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    answer = repeat(
        lambda: client.search(
            pit={"id": pit, "keep_alive": _SCAN_ALIVE},
            sort=["_shard_doc"],
            track_total_hits=False,
            allow_partial_search_results=False,
            **wanted,
        )
    )
    return list(answer["hits"]["hits"])
