"""Deleting what left the source: documents whose id no record of a complete run had."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from esvector.errors import IndexingError
from esvector.index.bulk import BulkWriter, RetryPolicy
from esvector.index.content import PLACE_BITS, Comparison, stored_ids
from esvector.index.repeating import Repeating
from esvector.index.target import Target
from esvector.index.versions import loading_alias

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = ["PruneGuard", "prune"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PruneGuard:
    """How much pruning is believed: more than ``most`` (a share of the documents) looks like an incomplete source."""

    most: float = 0.1


def prune(
    client: Elasticsearch,
    target: Target,
    compare: Comparison,
    count: int,
    guard: PruneGuard | None,
    unreadable: int,
    retry: RetryPolicy,
    repeat: Repeating,
) -> int:
    """Delete the documents of ``target`` that no record had, by ``compare``; return how many of ``count`` they were.

    Without a ``guard`` (of an index that nobody sees yet) they just go. With one, nothing is deleted where a record
    was ``unreadable``, so that its id is not known, and IndexingError is raised where it would be too many.
    """
    if guard is not None and unreadable:
        _log.warning(
            "nothing is pruned: %s rejected records have no readable id, so they may be what seems to be gone",
            f"{unreadable:,}",
        )
        return 0
    gone = sum(map(len, _unseen(client, target.index, compare, repeat)))
    if guard is not None and gone > guard.most * count:
        raise IndexingError(
            f"{gone:,} of the {count:,} documents of {target.index} are not in the source, more than the "
            f"{guard.most:.0%} that may be pruned; the source's documents are indexed, and none was deleted",
            "check that the source is complete; to prune them all the same, run the same command again with --force",
        )
    if gone:
        writer = BulkWriter(client, loading_alias(target.index), retry=retry)
        # Beats whatever this run wrote, and nothing of the next.
        version = (target.generation + 1 << PLACE_BITS) - 1
        for ids in _unseen(client, target.index, compare, repeat):
            writer.delete(ids, [version] * len(ids))
        repeat(lambda: client.indices.refresh(index=target.index))
    return gone


def _unseen(client: Elasticsearch, index: str, compare: Comparison, repeat: Repeating) -> Iterator[list[str]]:
    for ids in stored_ids(client, index, repeat):
        if unseen := [id_ for id_, known in zip(ids, compare.met(ids), strict=True) if not known]:
            yield unseen
