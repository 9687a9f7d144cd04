"""A new version from what the live one stores: another encoder or mapping, without the source, and no write lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from esvector.errors import IndexNotFoundError, VerificationError
from esvector.index.checkpoint import JobFolder
from esvector.index.content import stored_pages
from esvector.index.repeating import Repeating, once
from esvector.index.run_options import Serving
from esvector.index.target import BLOCKED_KEY, Target, find_targets, lift_block, update_meta
from esvector.index.verify import check_complete, verify
from esvector.passport import HASH_FIELD
from esvector.types import IndexReport, Progress, Record

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

    from esvector.index.indexer import Indexer

__all__ = ["ReembedReport", "StoredDocuments", "reembed"]

_PAGE = 500
_FREE_PASSES = 2  # over what others wrote meanwhile, before they have to wait for the last one


@dataclass(frozen=True, slots=True)
class ReembedReport:
    """What became of a reembed.

    Attributes:
        load: the account of the documents.
        recall: share of the exact nearest documents of a sample that a search of the new version finds.
        passes: how often writes that others made meanwhile were caught up.
    """

    load: IndexReport
    recall: float
    passes: int


class StoredDocuments:
    """The documents of an index as records, under their own ids; each iteration reads them as they are then."""

    def __init__(self, client: Elasticsearch, target: Target, repeat: Repeating, *, with_vectors: bool) -> None:
        self._client = client
        self._index = target.index
        self._vector_field = target.passport.vector_field
        self._repeat = repeat
        self._with_vectors = with_vectors

    def __iter__(self) -> Iterator[Record]:
        self._repeat(lambda: self._client.indices.refresh(index=self._index))
        source: dict[str, Any] = {"excludes": [self._vector_field.partition(".")[0], HASH_FIELD]}
        if self._with_vectors:
            source = {"excludes": [HASH_FIELD], "exclude_vectors": False}
        for page in stored_pages(self._client, self._index, self._repeat, _PAGE, source=source):
            yield from map(self._record, page)

    def _record(self, hit: dict[str, Any]) -> Record:
        fields = hit["_source"]
        kept = fields.pop(self._vector_field, None)
        vector = None if kept is None else np.asarray(kept, np.float32)
        return Record(fields, f"{self._index}/{hit['_id']}", hit["_id"], vector)


def reembed(
    indexer: Indexer, *, least_recall: float = 0.9, progress: Callable[[Progress], None] | None = None
) -> ReembedReport:
    """Build a new version of ``indexer``'s alias from what the live one stores, and let readers see it.

    The indexer says what is to be different: its encoder, or its mapping. Vectors are taken along where the encoder is
    the same. Writes that others make meanwhile are caught up, the last of them while the live index takes no more.

    Raises VerificationError, and readers then see what they saw before, when a document could not be carried over or
    the new version finds less than ``least_recall`` of what an exact search of a sample finds; IndexNotFoundError where
    there is nothing to start from.
    """
    lost = threading.Event()
    with indexer.job(lost) as folder:
        return _Reembedding(indexer, folder, lost, least_recall, progress)()


class _Reembedding:
    """One reembed; ``folder`` and ``lost`` are of the job."""

    def __init__(
        self,
        indexer: Indexer,
        folder: JobFolder,
        lost: threading.Event,
        least_recall: float,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self._indexer = indexer
        self._client = indexer.client
        self._folder = folder
        self._lost = lost
        self._least_recall = least_recall
        self._progress = progress
        self._live = live_target(indexer.client, indexer.alias)
        self._repeat = Repeating(indexer.client, indexer.retry, threading.Event())
        keeps = self._live.passport.element_type != "byte" and "." not in self._live.passport.vector_field
        self._documents = StoredDocuments(
            self._client, self._live, self._repeat, with_vectors=keeps and indexer.encodes_like(self._live)
        )
        self._seen_changes: Mapping[str, int] = {}
        self._recall = 0.0
        self._passes = 0

    def __call__(self) -> ReembedReport:
        self._seen_changes = self._changes()
        report = self._build(self._serving)
        return ReembedReport(report, self._recall, self._passes)

    @contextmanager
    def _serving(self, target: Target) -> Iterator[None]:
        """Catch up, verify, and hold writers back while readers are moved to ``target``."""
        for _ in range(_FREE_PASSES):
            if not self._catch_up():
                break
        found = verify(self._client, target, self._live.index, self._repeat)
        self._recall = found.recall
        if found.recall < self._least_recall:
            raise VerificationError(
                f"{target.index} finds {found.recall:.3f} of what an exact search finds (of {found.queries} queries, "
                f"the best {found.k} each), less than {self._least_recall:g}",
                "choose a mapping that is less coarse (more oversampling, larger m), or allow it with --least-recall",
            )
        with no_writes(self._client, self._live, self._repeat):
            self._catch_up()
            check_complete(self._client, target, self._live.index, self._repeat)
            yield

    def _catch_up(self) -> bool:
        """Take over what was written to the live index since it was read; whether there was anything."""
        now = self._changes()
        if now == self._seen_changes:
            return False
        self._seen_changes = now
        self._passes += 1
        self._build(None)
        return True

    def _build(self, serving: Serving | None) -> IndexReport:
        return self._indexer.build(self._documents, self._folder, self._lost, self._progress, serving, complete=True)

    def _changes(self) -> Mapping[str, int]:
        return self._repeat(lambda: changes(self._client, self._live.index))


def live_target(client: Elasticsearch, alias: str) -> Target:
    """Return what is behind ``alias``. Raises IndexNotFoundError where esvector made no such index."""
    for target in find_targets(client, alias):
        if target.live:
            return target
    raise IndexNotFoundError(
        f"there is no live index {alias} that this esvector can read", "see 'esvector status' for those there are"
    )


def changes(client: Elasticsearch, index: str) -> Mapping[str, int]:
    """Return a number for each shard of ``index`` that every write and every deletion raises."""
    stats = client.indices.stats(index=index, level="shards", filter_path="indices.*.shards")
    return {
        number: max(copy["seq_no"]["max_seq_no"] for copy in copies)
        for number, copies in stats["indices"][index]["shards"].items()
    }


@contextmanager
def no_writes(client: Elasticsearch, target: Target, repeat: Repeating) -> Iterator[None]:
    """Let nobody write to ``target`` for the length of the block; clients that retry wait for its end.

    A run that dies amid it leaves a note, by which the next one takes the block away.
    """
    update_meta(client, target.index, {BLOCKED_KEY: True}, repeat)
    repeat(lambda: client.indices.add_block(index=target.index, block="write"))
    try:
        yield
    except BaseException:
        lift_block(client, target.index, once(client))  # what has failed is not to wait for the server once more
        raise
    lift_block(client, target.index, repeat)
