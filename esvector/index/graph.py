"""The graph of a new version, built once: vectors are loaded without one, and one merge at the end builds it.

A graph built while documents arrive is built again whenever segments merge, and on float vectors; the one merge at the
end builds it once, on quantized ones: about half the server's CPU time for the same recall (``bench/graph.py``).

What is left to do is read off the segments themselves (``GET _segments?vector_formats=true`` names the format of each),
not remembered: so a lost answer, a restart of the server or of this process costs at most a merge, never a document,
and the same call finishes what an earlier one began. The facts were seen on Elasticsearch 9.5.3.
"""

from __future__ import annotations

import logging
import re
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from esvector.client import error_reason
from esvector.errors import IndexingError
from esvector.index.pipeline import Stopped
from esvector.index.repeating import Repeating
from esvector.index.retries import RetryPolicy
from esvector.index.segments import ShardSegments, look_at_shards

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = ["GraphProgress", "GraphReport", "can_defer", "finish_graph", "loading_body"]

_log = logging.getLogger(__name__)

# Vectors of a shard that do without a graph: comparing a query with all of them takes no longer than a walk through a
# graph, and finds all. They get theirs when more documents come and segments merge.
EXACT_DOCUMENTS = 5_000
# As large as Elasticsearch's own merges get. A larger segment is not merged again until a fifth of the index is deleted
# documents, and the merge needs that much more disk at once.
SEGMENT_BYTES = 5 * 2**30
# Small enough that the final merge packs every one of them: it leaves alone what is nearly a full segment already.
_LOADING_MERGES = {"merge.policy.max_merged_segment": "512mb"}
_TOMBSTONES_PER_SHARD = 20  # the odds that some shard gets none are e^-20
_ATTEMPTS = 8  # merges in a row that change nothing; each asks for half as many segments as the one before
_SHORTEST_WAIT, _LONGEST_WAIT = 0.05, 2.0  # seconds between two looks; meanwhile a tenth of what the merge took so far
_ANY = TypeVar("_ANY")


@dataclass(frozen=True, slots=True)
class GraphProgress:
    """Vectors that still wait for their graph, segments that there are, and seconds since the beginning."""

    waiting: int
    segments: int
    seconds: float


@dataclass(frozen=True, slots=True)
class GraphReport:
    """What became of the vectors: ``graphed`` of them are in a graph, ``exact`` ones are few enough to do without."""

    graphed: int
    exact: int
    segments: int
    seconds: float


def can_defer(body: Mapping[str, Any], vector_field: str) -> bool:
    """Whether the index that ``body`` would create builds a graph of ``vector_field``, which can then wait."""
    options = _vector_property(body, vector_field).get("index_options", {})
    return str(options.get("type", "")).endswith("hnsw")


def loading_body(body: Mapping[str, Any], vector_field: str) -> dict[str, Any]:
    """Return ``body`` (of the request that creates an index) for loading: the vectors flat, small merges only.

    ``vector_field`` may be a path, such as "passages.vector". Without a graph to defer it is ``body`` as it is.
    """
    if not can_defer(body, vector_field):
        return dict(body)
    flat = {**_vector_property(body, vector_field), "index_options": {"type": "flat"}}
    properties = body["mappings"]["properties"]
    top, changed = next(iter(_along(properties, vector_field, flat, siblings=True).items()))
    mappings = {**body["mappings"], "properties": {**properties, top: changed}}
    settings = {**body.get("settings", {})}
    settings["index"] = {**settings.get("index", {}), **_merges(body)}
    return {**body, "settings": settings, "mappings": mappings}


def finish_graph(
    client: Elasticsearch,
    index: str,
    body: Mapping[str, Any],
    vector_field: str,
    *,
    on_progress: Callable[[GraphProgress], None] | None = None,
    stopping: threading.Event | None = None,
    retry: RetryPolicy | None = None,
) -> GraphReport:
    """Give ``index``, loaded as ``loading_body(body, ...)``, the mapping of ``body``, and build its graph.

    Call it before the index gets replicas: they are copied then, with the graph. It can be called again at any time,
    and returns at once when nothing is left to do. ``retry`` is how long the server may be unable to answer.
    The merge itself has no time limit; ``on_progress`` is called while it runs. Every document stays searchable
    whatever happens.

    Raises IndexingError when the server refuses the mapping or does not build the graph, or a shard does not start,
    ServerUnreachableError when it stays away, Stopped when ``stopping`` is set (the merge goes on without us, and the
    next call waits for it).
    """
    build = _Build(client, index, vector_field, stopping or threading.Event(), retry or RetryPolicy())
    if can_defer(body, vector_field):
        build.restore(body)
        build.merge(on_progress or (lambda _: None))
    return build.report()


class _Build:
    def __init__(
        self, client: Elasticsearch, index: str, vector_field: str, stopping: threading.Event, retry: RetryPolicy
    ) -> None:
        self._client = client.options(max_retries=0, retry_on_status=(), retry_on_timeout=False)
        self._index = index
        self._vector_field = vector_field
        self._stopping = stopping
        self._repeat = Repeating(self._client, retry, stopping)
        self._started = time.monotonic()

    def restore(self, body: Mapping[str, Any]) -> None:
        """Give the index its own mapping and settings; what is merged from now on gets its graph."""
        import elasticsearch

        properties = body["mappings"]["properties"]
        final = _along(properties, self._vector_field, _vector_property(body, self._vector_field))
        try:
            self._ask(lambda: self._client.indices.put_mapping(index=self._index, properties=final))
            if added := dict.fromkeys(_merges(body)):
                self._ask(lambda: self._client.indices.put_settings(index=self._index, body={"index": added}))
        except elasticsearch.BadRequestError as error:
            raise IndexingError(
                f"the server refuses the final mapping of {self._vector_field} in {self._index}: {error_reason(error)}",
                "mend index_options in the mapping; the documents are loaded and stay",
            ) from error

    def merge(self, on_progress: Callable[[GraphProgress], None]) -> None:
        """Merge until no shard waits for its graph."""
        futile, before = 0, None
        while True:
            self._wait_for_merge(on_progress)
            shards = self._shards()
            waiting = [shard for shard in shards if shard.flat > EXACT_DOCUMENTS]
            if not waiting:
                return
            futile = futile + 1 if shards == before else 0
            before = shards
            if futile == _ATTEMPTS:
                raise IndexingError(
                    f"the server ended {_ATTEMPTS} merges of {self._index} without building its graph",
                    "look for the reason in its log (free disk of twice the index is needed), then run the same "
                    "command again: the documents are loaded and stay",
                )
            if min(shard.segments for shard in waiting) == 1:
                self._bury_nothing(len(shards))
            # A merge leaves alone a segment that is larger than the others will be, unless it is to make a single one.
            self._start_merge(max(1, min(_target(shard) for shard in waiting) >> futile))

    def report(self) -> GraphReport:
        """Let searches see the merged segments, and say what there is."""
        self._ask(lambda: self._client.indices.refresh(index=self._index))
        shards = self._shards()
        return GraphReport(
            graphed=sum(shard.graphed for shard in shards),
            exact=sum(shard.flat for shard in shards),
            segments=sum(shard.segments for shard in shards),
            seconds=time.monotonic() - self._started,
        )

    def _wait_for_merge(self, on_progress: Callable[[GraphProgress], None]) -> None:
        """Return when no forced merge of the index is under way, ours or one that an earlier run has left behind."""
        began = time.monotonic()
        while self._ask(self._merging):
            shards = self._shards()
            waiting, segments = sum(shard.flat for shard in shards), sum(shard.segments for shard in shards)
            on_progress(GraphProgress(waiting, segments, time.monotonic() - self._started))
            pause = max(_SHORTEST_WAIT, (time.monotonic() - began) / 10)
            self._stopping.wait(min(pause, _LONGEST_WAIT))
        # What the merge has made is listed once searches see it.
        self._ask(lambda: self._client.indices.refresh(index=self._index))

    def _merging(self) -> bool:
        answer = self._client.perform_request(
            "GET",
            "/_tasks",
            params={"actions": "indices:admin/forcemerge*", "detailed": "true", "group_by": "none"},
            headers={"accept": "application/json"},
        )
        name = re.compile(rf"[\[ ]{re.escape(self._index)}[\],]")
        return any(name.search(task.get("description", "")) for task in answer.body["tasks"])

    def _shards(self) -> list[ShardSegments]:
        return self._ask(lambda: look_at_shards(self._client, self._index, self._vector_field))

    def _bury_nothing(self, shards: int) -> None:
        """Give every shard a second segment: a merge does nothing where there is one.

        Deleting a document that was never there leaves a tombstone, which no reader sees and the merge sweeps away.
        """
        operations = [{"delete": {"_id": f"none-{uuid.uuid4().hex}"}} for _ in range(_TOMBSTONES_PER_SHARD * shards)]
        self._ask(lambda: self._client.bulk(index=self._index, operations=operations, refresh=True))

    def _start_merge(self, segments: int) -> None:
        """Ask for the merge. A second one, because the first one's answer was lost, finds nothing left to do."""
        _log.debug("merging %s into %d segments", self._index, segments)
        self._ask(
            lambda: self._client.indices.forcemerge(
                index=self._index, max_num_segments=segments, wait_for_completion=False
            )
        )

    def _ask(self, request: Callable[[], _ANY]) -> _ANY:
        """Return what ``request``, which may be repeated, returns."""
        if self._stopping.is_set():
            raise Stopped
        return self._repeat(request)


def _target(shard: ShardSegments) -> int:
    """Segments to merge into; fewer than there are, or the merge would do nothing."""
    return max(1, min(-(-shard.size // SEGMENT_BYTES), shard.segments - 1))


def _merges(body: Mapping[str, Any]) -> dict[str, Any]:
    """Settings for the load, unless the template has its own policy of merges."""
    stated = body.get("settings", {}).get("index", {})
    own = any(name == "merge" or name.startswith("merge.policy") for name in stated)
    return {} if own else dict(_LOADING_MERGES)


def _vector_property(body: Mapping[str, Any], vector_field: str) -> dict[str, Any]:
    found: Mapping[str, Any] = body["mappings"]
    for name in vector_field.split("."):
        found = found["properties"][name]
    return dict(found)


def _along(
    properties: Mapping[str, Any], path: str, vector: Mapping[str, Any], *, siblings: bool = False
) -> dict[str, Any]:
    """Return {name: property} of the first part of ``path``, down to ``vector``, with its siblings or without."""
    name, _, rest = path.partition(".")
    if not rest:
        return {name: dict(vector)}
    parent = properties[name]
    below = _along(parent["properties"], rest, vector, siblings=siblings)
    return {name: {**parent, "properties": {**parent["properties"], **below} if siblings else below}}
