"""Looking at what is in the cluster: every version that esvector made, with its size and health."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from esvector.client import explain_errors
from esvector.errors import ConfigError, IndexNotFoundError
from esvector.index.sizes import keeps_raw_in_memory
from esvector.mapping import find_vector
from esvector.passport import META_KEY, Passport

if TYPE_CHECKING:
    from collections.abc import Mapping

    from elasticsearch import Elasticsearch

__all__ = ["PREVIOUS_KEY", "VersionStatus", "describe_versions", "memory_bytes"]

# In a mapping's _meta, beside the passport: the index that readers saw before this one.
PREVIOUS_KEY = "esvector_previous"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """One version. ``state`` is "live" (readers see it), "kept" (verified, but not what they see) or "unfinished".

    ``previous`` is the index that readers saw before this one first went live: where a rollback leads; None where there
    was none. ``created`` is when the index was, as ISO 8601 in UTC.

    ``memory_bytes`` is what a fast search keeps in memory: quantized vectors and graph, and the raw vectors where
    nothing is quantized; None where the server (before 9.2) does not tell.
    """

    alias: str
    index: str
    state: str
    documents: int
    model: str
    kind: str
    similarity: str
    dims: int
    vector_type: str
    disk_bytes: int
    memory_bytes: int | None
    health: str
    created: str
    previous: str | None
    passport: Mapping[str, Any]


def describe_versions(client: Elasticsearch, alias: str | None = None) -> list[VersionStatus]:
    """Return the versions of ``alias``, or of every alias, in the order of their names.

    Raises IndexNotFoundError when there is none of ``alias``.
    """
    pattern = f"{alias}-*,{alias}" if alias else "*"
    with explain_errors(client):
        indices = client.indices.get(index=pattern, features="aliases,mappings,settings", ignore_unavailable=True)
        ours = {
            name: (facts, passport)
            for name, facts in sorted(indices.items())
            if _belongs(name, facts, alias) and (passport := _passport(name, facts))
        }
        if not ours and alias:
            raise IndexNotFoundError(f"esvector made no index {alias}", "see 'esvector status' for those there are")
        if not ours:
            return []
        names = ",".join(ours)
        stats = client.indices.stats(index=names, metric="docs,store,dense_vector")["indices"]
        health = client.cluster.health(index=names, level="indices")["indices"]
        # The statistics count each nested passage as a document, too (9.5.3).
        counts = {
            name: int(client.count(index=name)["count"])
            for name, (_, p) in ours.items()
            if p.passages and name in stats
        }
    lost = {"primaries": {"docs": {"count": 0}, "store": {"size_in_bytes": 0}}}  # none of its shards is there
    return [
        _describe(name, facts, passport, stats.get(name, lost)["primaries"], health[name]["status"], counts.get(name))
        for name, (facts, passport) in ours.items()
    ]


def _passport(index: str, facts: Mapping[str, Any]) -> Passport | None:
    """Read the passport; one that cannot be read is said, and does not hide the other indices."""
    try:
        return Passport.from_meta(facts["mappings"].get("_meta"))
    except ConfigError as error:
        _log.warning("%s is left out: %s", index, error.message)
        return None


def _belongs(index: str, facts: Mapping[str, Any], alias: str | None) -> bool:
    return alias is None or index.rpartition("-")[0] == alias or index == alias or alias in facts["aliases"]


def _describe(
    index: str,
    facts: Mapping[str, Any],
    passport: Passport,
    stats: Mapping[str, Any],
    health: str,
    count: int | None,
) -> VersionStatus:
    alias = index.rpartition("-")[0]
    field = find_vector(facts["mappings"]["properties"], passport.vector_field)
    live = alias in facts["aliases"]
    vector_type = str(field.get("index_options", {}).get("type", "hnsw"))
    return VersionStatus(
        alias=alias,
        index=index,
        state="live" if live else "kept" if passport.state == "ready" else "unfinished",
        documents=stats["docs"]["count"] if count is None else count,
        model=passport.encoder.model,
        kind=passport.encoder.kind or "",
        similarity=passport.encoder.similarity or "",
        dims=passport.encoder.dims or 0,
        vector_type=vector_type,
        disk_bytes=stats["store"]["size_in_bytes"],
        memory_bytes=memory_bytes(stats.get("dense_vector", {}).get("off_heap"), vector_type),
        health=health,
        created=_iso(int(facts["settings"]["index"]["creation_date"])),
        previous=facts["mappings"]["_meta"].get(PREVIOUS_KEY),
        passport=facts["mappings"]["_meta"][META_KEY],
    )


def _iso(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")


def memory_bytes(off_heap: Mapping[str, Any] | None, vector_type: str) -> int | None:
    """Return what a fast search keeps in memory, by ``off_heap`` of an index's statistics; None where they lack it."""
    if off_heap is None:
        return None
    quantized = off_heap.get("total_veq_size_bytes", 0) + off_heap.get("total_veb_size_bytes", 0)
    # A segment too small for a graph is searched by its raw vectors, whatever the type says.
    raw = off_heap.get("total_vec_size_bytes", 0) if keeps_raw_in_memory(vector_type) or not quantized else 0
    return int(quantized + off_heap.get("total_vex_size_bytes", 0) + raw)
