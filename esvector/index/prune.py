"""Deleting what left the source: documents that no record of a complete run stands for."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from esvector.errors import IndexingError
from esvector.index.bulk import BulkWriter, RetryPolicy
from esvector.index.content import PLACE_BITS, Comparison, stored_pages
from esvector.index.load import Load
from esvector.index.repeating import Repeating
from esvector.index.target import Target
from esvector.index.versions import loading_alias
from esvector.passport import HASH_FIELD

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = ["prune"]

_PAGE = 5_000  # ids
_log = logging.getLogger(__name__)


def prune(
    client: Elasticsearch,
    target: Target,
    compare: Comparison,
    load: Load,
    count: int,
    most: float,
    retry: RetryPolicy,
    repeat: Repeating,
) -> int:
    """Delete the documents of ``target`` that ``load`` should not leave there; return how many of ``count`` they were.

    Of the index that readers see these are the documents whose id no record had, but for those that other programs have
    written there. Where a record of ``load`` has no readable id, nothing is deleted. Of a version that nobody has seen,
    in which an earlier attempt may have left anything, it is all that this input would not have brought there.

    Raises IndexingError, and nothing is deleted, where they are more than the share ``most``: such a source looks
    incomplete, or like another one.
    """
    if target.live and load.unreadable:
        _log.warning(
            "nothing is pruned: %s rejected records have no readable id, so they may be what seems to be gone",
            f"{load.unreadable:,}",
        )
        return 0
    gone = sum(map(len, _left_over(client, target, compare, load, repeat)))
    if gone > most * count:
        raise IndexingError(
            f"{gone:,} of the {count:,} documents of {target.index} are not in the source, more than the {most:.0%} "
            "that a run may delete; the source's documents are indexed, and none was deleted",
            "check that the source is complete and the right one; to delete them, run the same command again with "
            "--force (in Python: most_pruned=1)",
        )
    if gone:
        writer = BulkWriter(client, loading_alias(target.index), retry=retry)
        # Beats whatever this run wrote, and nothing of the next.
        version = (target.generation + 1 << PLACE_BITS) - 1
        for ids in _left_over(client, target, compare, load, repeat):
            writer.delete(ids, [version] * len(ids))
        repeat(lambda: client.indices.refresh(index=target.index))
    return gone


def _left_over(
    client: Elasticsearch, target: Target, compare: Comparison, load: Load, repeat: Repeating
) -> Iterator[list[str]]:
    ours = target.generation << PLACE_BITS
    # What other programs write into the index that readers see has no hash, and is theirs.
    which = {"exists": {"field": HASH_FIELD}} if target.live else {"match_all": {}}
    for page in stored_pages(client, target.index, repeat, _PAGE, source=False, version=True, query=which):
        ids = [hit["_id"] for hit in page]
        if target.live:
            wanted = compare.met(ids)
        else:
            # Of an id whose first record failed when it was written, what an earlier attempt wrote is no record's.
            stale = load.unwritten.holds(ids)
            wanted = [
                has and not (failed and hit["_version"] < ours)
                for hit, has, failed in zip(page, compare.has_document(ids), stale, strict=True)
            ]
        if left := [id_ for id_, stays in zip(ids, wanted, strict=True) if not stays]:
            yield left
