"""Going back to an earlier version, and deleting those that are no longer wanted."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from esvector.client import error_reason, explain_errors
from esvector.errors import IndexingError, IndexNotFoundError
from esvector.index.inspect import VersionStatus, describe_versions
from esvector.index.job import job
from esvector.index.versions import check_deletable, delete_version, end_loading, live_index, move_alias

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = ["Rollback", "prunable", "prune", "rollback", "rollback_target", "versions"]


@dataclass(frozen=True, slots=True)
class Rollback:
    """What a rollback did: readers of ``alias`` see ``index`` instead of ``left``, which is kept."""

    alias: str
    index: str
    left: str
    documents: int


def versions(client: Elasticsearch, alias: str) -> list[VersionStatus]:
    """Every version of ``alias``, oldest first. Raises IndexNotFoundError when there is none."""
    return [version for version in describe_versions(client, alias) if version.alias == alias]


def rollback(client: Elasticsearch, alias: str, to: str | None = None, *, state: Path | None = None) -> Rollback:
    """Let readers of ``alias`` see the version again that they saw before the live one, in one atomic step.

    That is the one that was live when the live one first went live, so a second rollback goes one further back, and
    never forth again; ``to`` names another version, in either direction. The version that is left stays as it is. An
    index that esvector did not make, and that a version has replaced, is gone back to like any other while it exists.

    ``state`` is the folder of checkpoints, None the user's. Raises IndexingError when there is no such version, it was
    never verified, or a shard of it is missing; LeaseError while a run is changing the alias; IndexNotFoundError when
    there is no version at all.
    """
    with _alone(client, alias, state):
        found = versions(client, alias)
        live = live_index(client, alias)
        target = rollback_target(found, alias, live, to)
        documents = _count_usable(client, target, found)
        if target != live:
            move_alias(client, alias, live, target)
            if live is not None:  # an update that died may have left it open; the next run is not to go on with it
                end_loading(client, live)
    return Rollback(alias, target, live or "", documents)


def rollback_target(found: Sequence[VersionStatus], alias: str, live: str | None, to: str | None = None) -> str:
    """Choose the index that a rollback leads to. Raises IndexingError when nothing says which."""
    if to is not None:
        if to not in {version.index for version in found} | {version.previous for version in found}:
            raise IndexingError(f"{alias} has no version {to}, nor has it led to an index of that name", _others(found))
        return to
    by_name = {version.index: version for version in found}
    if live is None or live not in by_name:
        raise IndexingError(f"no version of {alias} is live", _others(found))
    name = by_name[live].previous
    if name is None:
        raise IndexingError(f"no version of {alias} was live before {live}", _others(found))
    return name


def _count_usable(client: Elasticsearch, index: str, found: Sequence[VersionStatus]) -> int:
    """Count the documents of ``index``. Raises IndexingError where it is none, was never verified, or lacks a shard."""
    import elasticsearch

    version = next((version for version in found if version.index == index), None)
    with explain_errors(client):
        # An alias, or a pattern, has other names than its own in the answer.
        known = client.indices.get(index=index, features="aliases", ignore_unavailable=True, allow_no_indices=True)
        if list(known) != [index]:
            raise IndexingError(f"{index} is gone", _others(found))
        health = client.cluster.health(index=index)["status"]
        if version is not None and version.state == "unfinished":
            raise IndexingError(f"{index} was never verified", "finish it: run its 'esvector index' command again")
        if health == "red":
            raise IndexingError(f"a shard of {index} is missing", "see GET _cluster/allocation/explain")
        try:
            return int(client.count(index=index)["count"])
        except elasticsearch.BadRequestError as error:
            raise IndexingError(f"{index} cannot be searched: {error_reason(error)}", "open it first") from error


def _others(found: Sequence[VersionStatus]) -> str:
    kept = [version.index for version in found if version.state == "kept"]
    return f"choose one with --to: {', '.join(kept)}" if kept else "no other version of it is kept"


def prune(
    client: Elasticsearch,
    alias: str,
    keep: int = 1,
    *,
    unfinished: bool = False,
    only: Collection[str] | None = None,
    state: Path | None = None,
) -> list[VersionStatus]:
    """Delete the versions of ``alias`` that ``prunable`` names, and return them. Raises what ``prunable`` raises.

    ``only`` are the indices that somebody has agreed to; no other is deleted. ``state`` is the folder of checkpoints.
    Raises LeaseError while a run is changing the alias.
    """
    with _alone(client, alias, state):
        doomed = prunable(versions(client, alias), keep, unfinished=unfinished)
        doomed = [version for version in doomed if only is None or version.index in only]
        for version in doomed:  # all or none
            check_deletable(client, version.index)
        for version in doomed:
            delete_version(client, version.index)
    return doomed


def prunable(found: Sequence[VersionStatus], keep: int = 1, *, unfinished: bool = False) -> list[VersionStatus]:
    """Choose the versions to delete: all but the live one, ``keep`` others, and the unfinished ones unless asked for.

    Those that rollbacks would lead to are kept first, the nearest before the farther, then the newest. Raises
    IndexNotFoundError when no version is live: nothing says then which of them is wanted.
    """
    by_name = {version.index: version for version in found}
    live = next((version for version in found if version.state == "live"), None)
    kept = [version for version in reversed(found) if version.state == "kept"]
    if live is None and kept:
        raise IndexNotFoundError(
            f"none of {', '.join(by_name)} is live, so it is not known which is wanted",
            "let the alias point to one of them with 'esvector rollback ALIAS --to INDEX'",
        )
    back: list[str] = []  # where one rollback after the other leads
    name = live.previous if live else None
    while name in by_name and name not in back:
        back.append(name)
        name = by_name[name].previous
    order = sorted(kept, key=lambda version: back.index(version.index) if version.index in back else len(back))
    doomed = order[keep:] + [version for version in found if unfinished and version.state == "unfinished"]
    return sorted(doomed, key=lambda version: version.index)


@contextmanager
def _alone(client: Elasticsearch, alias: str, state: Path | None) -> Iterator[None]:
    """Keep every run off ``alias``: one that is loading could move it in the same moment."""
    live_index(client, alias)  # raises where the alias is none, or points to several indices
    with job(client, alias, state, threading.Event()):
        yield
