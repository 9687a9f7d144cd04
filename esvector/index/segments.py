"""Segments of an index, and which of them have a graph (``GET _segments?vector_formats=true``, seen on 9.5.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from esvector.index.outcomes import Outcome
from esvector.index.retries import Trouble

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = ["ShardSegments", "ShardsStarting", "count_segments", "look_at_shards"]


class ShardsStarting(Trouble):
    """A primary is not there yet, as after a restart of its node."""

    def __init__(self, index: str) -> None:
        super().__init__(Outcome.TROUBLE, f"a shard of {index} is not started")


@dataclass(frozen=True, slots=True)
class ShardSegments:
    """The primary of one shard: documents by whether their segment has a graph, segments, and bytes on disk.

    Nested documents count, too: a passage is a document of Lucene's. Documents without a vector are left out where no
    document of their segment has one.
    """

    graphed: int
    flat: int
    segments: int
    size: int


def look_at_shards(client: Elasticsearch, index: str, vector_field: str) -> list[ShardSegments]:
    """Return every primary of ``index``, one concrete index. Raises ShardsStarting while one is missing."""
    health = client.options(ignore_status=408).cluster.health(index=index, wait_for_status="yellow", timeout="1s")
    if health["status"] == "red":
        raise ShardsStarting(index)
    answer = client.perform_request(
        "GET",
        f"/{index}/_segments",
        params={"vector_formats": "true"},  # which the client's own method does not know (9.5.1)
        headers={"accept": "application/json"},
    )
    copies = [copy for shard in answer.body["indices"][index]["shards"].values() for copy in shard]
    return [count_segments(copy["segments"], vector_field) for copy in copies if copy["routing"]["primary"]]


def count_segments(segments: Mapping[str, Mapping[str, Any]], vector_field: str) -> ShardSegments:
    """Sum up the segments of one shard, as the server lists them."""
    graphed = flat = 0
    for segment in segments.values():
        # Such as {"ES93FlatVectorFormat": "[passages.vector, other]", "Lucene90StoredFieldsFormat.mode": "BEST_SPEED"}.
        formats = [
            name
            for name, fields in segment.get("attributes", {}).items()
            if vector_field in fields.strip("[]").split(", ")
        ]
        if any("Hnsw" in name for name in formats):
            graphed += segment["num_docs"]
        elif formats:
            flat += segment["num_docs"]
    return ShardSegments(graphed, flat, len(segments), sum(segment["size_in_bytes"] for segment in segments.values()))
