"""A whole load until everything is acknowledged, and until it is searchable with its graph, against what others do.

Every side ends with the same fields and int8_hnsw options, loaded without refresh and replicas. esvector is its whole
run: lease, new version, verification, graph, swap. The vectors are given, so encoding costs nothing. The other sides:

- esvector with its graph built as documents come, or its merge on all cores;
- helpers.bulk and helpers.parallel_bulk (4 threads), vectors as JSON lists or packed, into an index that builds its
  graph as documents come;
- helpers.bulk in calls of 100 documents with JSON lists: what the loader of a well-known vector benchmark does;
- a raw replay, over as many connections, of the very bytes that esvector sent.

"searchable" is each as its users leave it: refreshed, the graph in as many segments as there are; esvector's in as
many as its run decides. "merged" is with one segment more forced on every side, for those that force it.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil
from common import (
    Floats,
    ReadyEncoder,
    check,
    cpu_seconds,
    folder,
    forget,
    in_turn,
    indexer,
    post_all,
    ratio,
    say_load,
    server,
    spread,
    stolen_seconds,
    url_of,
)
from elasticsearch import Elasticsearch, helpers

from esvector.index.graph import loading_body
from esvector.index.run_options import Graph
from esvector.index.segments import look_at_shards
from esvector.types import Progress

ALIAS = "bench-load"
PEER = "bench-peer"
SENDERS = 4
CALL = 100
SERVER_CORE, CLIENT_CORE = 0, 1
IN_PARALLEL = {"settings": {"index": {"merge.intra_merge_parallelism_enabled": True}}}


@dataclass(frozen=True)
class Took:
    """Seconds since the beginning, until each point, and the server's CPU seconds until the last two."""

    acknowledged: float
    searchable: float
    merged: float
    cpu: float
    cpu_merged: float
    segments: int
    writing: float = 0.0  # from the first bulk request to the last answer
    stolen: float = 0.0  # of that, what the host took from the server's core


@dataclass(frozen=True)
class Setup:
    """What all sides share: the server, its process where it is ours, a folder, and how many rounds there are."""

    client: Elasticsearch
    process: psutil.Process | None
    here: Path
    rounds: int
    warm: int


@dataclass
class Wire:
    """What went over a client's transport as bulk requests: when, and the bodies if asked for."""

    bodies: list[bytes] | None = None
    began: float = 0.0
    ended: float = 0.0
    stolen: float = 0.0


@click.command()
@click.option("--url", help="Address of Elasticsearch [default: a throw-away local node].")
@click.option("--documents", default=10_000, show_default=True, help="Against the helpers; 0 leaves them out.")
@click.option("--replayed", default=60_000, show_default=True, help="Against the replay; 0 leaves it out.")
@click.option("--dims", default=384, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--warm", default=1, show_default=True, help="Rounds before them, which do not count.")
@click.option(
    "--only", multiple=True, metavar="SIDE", help="Compare with this side alone, of those that load as users do."
)
@click.option("--apart", is_flag=True, help="The server on one core and every client on another (Linux).")
def main(
    url: str | None,
    documents: int,
    replayed: int,
    dims: int,
    rounds: int,
    warm: int,
    only: tuple[str, ...],
    apart: bool,
) -> None:
    """Print what each side took and esvector's ratios."""
    say_load("before")
    with server(url) as (client, process), folder() as here:
        if apart:
            set_apart(process)
        setup = Setup(client, process, here, rounds, warm)
        if documents:
            against_helpers(setup, corpus(documents, dims), only)
        if replayed:
            against_replay(setup, corpus(replayed, dims), apart=apart)
    say_load("after")


def set_apart(process: psutil.Process | None) -> None:
    """Give the server and this process a core each, as if they were two machines."""
    if process is None:
        raise click.UsageError("--apart needs a server of its own: leave --url out")
    for core, one in ((SERVER_CORE, process), (CLIENT_CORE, psutil.Process())):
        for thread in one.threads():  # those that they start later inherit it
            os.sched_setaffinity(thread.id, {core})


def against_helpers(setup: Setup, vectors: Floats, only: tuple[str, ...]) -> None:
    """Compare with what others do."""
    client, process, here, rounds = setup.client, setup.process, setup.here, setup.rounds
    body = final_body(client, vectors[:100], here)

    def theirs(send: Callable[[Elasticsearch, Floats], None]) -> Callable[[], Took]:
        return lambda: peer(client, process, body, vectors, send)

    sides: dict[str, Callable[[], Took]] = {
        "esvector": lambda: ours(client, process, vectors, here, "deferred"),
        "esvector, all cores": lambda: ours(client, process, vectors, here, "deferred", mapping=IN_PARALLEL),
        "esvector, inline": lambda: ours(client, process, vectors, here, "inline"),
        "bulk, JSON": theirs(lambda plain, rows: bulk(plain, rows, listed)),
        "bulk, packed": theirs(lambda plain, rows: bulk(plain, rows, helpers.pack_dense_vector)),
        "parallel_bulk, JSON": theirs(lambda plain, rows: parallel(plain, rows, listed)),
        "parallel_bulk, packed": theirs(lambda plain, rows: parallel(plain, rows, helpers.pack_dense_vector)),
        f"bulk of {CALL}, JSON": theirs(in_small_calls),
    }
    if unknown := set(only) - sides.keys():
        raise click.UsageError(f"no side is called {', '.join(sorted(unknown))}: {', '.join(sides)}")
    found = in_turn(
        {name: sides[name] for name in sides if not only or name in {"esvector", *only}}, rounds, setup.warm
    )
    print(f"{len(vectors):,} documents, {vectors.shape[1]} dims; seconds, medians of {rounds} rounds")
    print(
        f"{'':22} {'acknowledged':>12} {'searchable':>10} {'merged':>7} {'server CPU':>11} {'CPU merged':>11} segments"
    )
    for name, rows in found.items():
        middle = [
            statistics.median(column)
            for column in zip(
                *((r.acknowledged, r.searchable, r.merged, r.cpu, r.cpu_merged) for r in rows), strict=True
            )
        ]
        print(f"{name:22} {middle[0]:12.1f} {middle[1]:10.1f} {middle[2]:7.1f} {middle[3]:11.1f} {middle[4]:11.1f} "
              f"{rows[-1].segments:8}")  # fmt: skip
    first = found.pop("esvector")
    print("esvector is faster by: median (lowest to highest round)")
    for name, rows in found.items():
        print(f"{name:22} " + "   ".join(f"{what} {faster(rows, first, what)}" for what in SPANS))
    for name, rows in found.items():
        for what in ("cpu", "cpu_merged"):
            mine, other = ([getattr(row, what) for row in some] for some in (first, rows))
            print(f"server {what}, esvector to {name}: {ratio(mine, other)}")


SPANS = ("acknowledged", "searchable", "merged")


def faster(theirs: Sequence[Took], ours: Sequence[Took], what: str) -> str:
    """How many times as long the others took."""
    return ratio([getattr(row, what) for row in theirs], [getattr(row, what) for row in ours])


def against_replay(setup: Setup, vectors: Floats, *, apart: bool) -> None:
    """Compare with posting the same bytes."""
    client, process, here = setup.client, setup.process, setup.here
    body = loading_body(final_body(client, vectors[:100], here), "vector")
    bodies: list[bytes] = []
    ours(client, process, vectors, here, "deferred", wire=Wire(bodies))
    print(
        f"{len(vectors):,} documents, {len(bodies)} requests of {sum(map(len, bodies)) / len(bodies) / 2**20:.1f} MiB"
    )

    def replay() -> tuple[float, float]:
        create(client, body)
        started, before = time.perf_counter(), stolen_seconds(SERVER_CORE)
        post_all(url_of(client), PEER, bodies, SENDERS)
        took = time.perf_counter() - started, stolen_seconds(SERVER_CORE) - before
        client.indices.delete(index=f"{PEER}-000001")
        return took

    sides: dict[str, Callable[[], Any]] = {
        "esvector": lambda: ours(client, process, vectors, here, "deferred", stop=True),
        "replay": replay,
    }
    found = in_turn(sides, setup.rounds, setup.warm)
    writing = [row.writing for row in found["esvector"]]
    whole = [row.acknowledged for row in found["esvector"]]
    replayed = [seconds for seconds, _ in found["replay"]]
    print("seconds of each round, replay/esvector's writing: " + ", ".join(
        f"{one:.2f}/{other:.2f}" for one, other in zip(replayed, writing, strict=True)
    ))  # fmt: skip
    print(f"replay {spread(replayed)} s; esvector writes for {spread(writing)} s, of {spread(whole)} s until then")
    print(f"esvector's writing reaches {ratio(replayed, writing)} of the replay's rate")
    print(f"esvector's whole load reaches {ratio(replayed, whole)} of the replay's rate")
    if apart:  # a host that lends fewer cores than it shows takes more of the server's while the client computes
        stolen = [taken for _, taken in found["replay"]], [row.stolen for row in found["esvector"]]
        print(f"of these, the host took {spread(stolen[0])} and {spread(stolen[1])} s from the server's core")
        had = (
            [seconds - taken for seconds, taken in zip(times, lost, strict=True)]
            for times, lost in zip((replayed, writing), stolen, strict=True)
        )
        print(f"for the seconds that the server had, esvector's writing reaches {ratio(*had)} of the replay's rate")


class Loaded(Exception):
    """Everything is acknowledged, and nothing more is asked for."""


def ours(
    client: Elasticsearch,
    process: psutil.Process | None,
    vectors: Floats,
    here: Path,
    graph: Graph,
    *,
    stop: bool = False,
    wire: Wire | None = None,
    mapping: dict[str, Any] | None = None,
) -> Took:
    """Run esvector into a new version, which is merged, looked at and deleted; ``stop`` when all is acknowledged."""
    forget(client, ALIAS)
    times: dict[str, float] = {}
    started, before = time.perf_counter(), cpu_seconds(process)

    def watch(now: Progress) -> None:
        times.setdefault(now.phase, time.perf_counter() - started)
        if stop and now.phase == "verifying":
            raise Loaded

    run = indexer(client, ALIAS, ReadyEncoder(vectors), here, graph=graph, mapping=mapping)
    with watched(client, wire or Wire()) as seen:
        try:
            check(run.run(records(len(vectors)), watch), indexed=len(vectors))
        except Loaded:
            forget(client, ALIAS)
            return Took(times["verifying"], 0, 0, 0, 0, 0, seen.ended - seen.began, seen.stolen)
    searchable, cpu = time.perf_counter() - started, cpu_seconds(process) - before
    merge(client, f"{ALIAS}-000001")
    merged, cpu_merged = time.perf_counter() - started, cpu_seconds(process) - before
    segments = sum(shard.segments for shard in look_at_shards(client, f"{ALIAS}-000001", "vector"))
    forget(client, ALIAS)
    return Took(times["verifying"], searchable, merged, cpu, cpu_merged, segments, seen.ended - seen.began)


def peer(
    client: Elasticsearch,
    process: psutil.Process | None,
    body: dict[str, Any],
    vectors: Floats,
    send: Callable[[Elasticsearch, Floats], None],
) -> Took:
    """Fill an index with ``send``, then refresh it, merge it and delete it."""
    create(client, body)
    started, before = time.perf_counter(), cpu_seconds(process)
    with Elasticsearch(url_of(client), request_timeout=120) as plain:
        send(plain, vectors)
    acknowledged = time.perf_counter() - started
    client.indices.refresh(index=PEER)
    searchable, cpu = time.perf_counter() - started, cpu_seconds(process) - before
    segments = sum(shard.segments for shard in look_at_shards(client, f"{PEER}-000001", "vector"))
    merge(client, PEER)
    merged, cpu_merged = time.perf_counter() - started, cpu_seconds(process) - before
    assert client.count(index=PEER)["count"] == len(vectors)
    client.indices.delete(index=f"{PEER}-000001")
    return Took(acknowledged, searchable, merged, cpu, cpu_merged, segments)


def listed(vector: Floats) -> list[float]:
    """As JSON has it."""
    values: list[float] = vector.tolist()
    return values


def actions(vectors: Floats, write: Callable[[Any], Any]) -> Iterator[dict[str, Any]]:
    """Yield what the helpers are given."""
    for record, vector in zip(records(len(vectors)), vectors, strict=True):
        yield {"_index": PEER, "_id": record["id"], **record, "vector": write(vector)}


def bulk(plain: Elasticsearch, vectors: Floats, write: Callable[[Any], Any]) -> None:
    """Send by ``helpers.bulk``, with its defaults."""
    helpers.bulk(plain, actions(vectors, write))


def parallel(plain: Elasticsearch, vectors: Floats, write: Callable[[Any], Any]) -> None:
    """Send by ``helpers.parallel_bulk``, with its defaults."""
    for ok, item in helpers.parallel_bulk(plain, actions(vectors, write), thread_count=SENDERS):
        assert ok, item


def in_small_calls(plain: Elasticsearch, vectors: Floats) -> None:
    """Send by calls of ``helpers.bulk`` with 100 documents each."""
    waiting = actions(vectors, listed)
    while call := list(islice(waiting, CALL)):
        helpers.bulk(plain, call)


def records(count: int) -> Iterator[dict[str, Any]]:
    """Yield three small fields of each document."""
    for number in range(count):
        yield {"id": f"d{number}", "title": f"Document number {number}", "year": 1990 + number % 30}


def corpus(count: int, dims: int) -> Floats:
    """Unit vectors (count, dims) around 200 centres, as those of texts are."""
    random = np.random.default_rng(1)
    centres = random.standard_normal((200, dims)).astype(np.float32)
    vectors = centres[random.integers(200, size=count)] + 0.7 * random.standard_normal((count, dims))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def final_body(client: Elasticsearch, vectors: Floats, here: Path) -> dict[str, Any]:
    """Return the body of an index with the fields that esvector gives these documents, for the other sides."""
    forget(client, ALIAS)
    indexer(client, ALIAS, ReadyEncoder(vectors), here, graph="inline").run(records(len(vectors)))
    properties = client.indices.get_mapping(index=ALIAS)[f"{ALIAS}-000001"]["mappings"]["properties"]
    forget(client, ALIAS)
    settings = {"number_of_shards": 1, "number_of_replicas": 0, "refresh_interval": "-1"}
    return {"settings": {"index": settings}, "mappings": {"properties": properties}}


def create(client: Elasticsearch, body: dict[str, Any]) -> None:
    """Make a new index with an alias."""
    client.options(ignore_status=404).indices.delete(index=f"{PEER}-000001")
    client.indices.create(index=f"{PEER}-000001", aliases={PEER: {}}, **body)


def merge(client: Elasticsearch, index: str) -> None:
    """Force one segment, and wait for it."""
    client.options(request_timeout=3600).indices.forcemerge(index=index, max_num_segments=1)
    client.indices.refresh(index=index)


@contextmanager
def watched(client: Elasticsearch, wire: Wire) -> Iterator[Wire]:
    """Note in ``wire`` what goes over the client's transport, which the clients derived from it share."""
    transport = client.transport
    perform = transport.perform_request
    before = 0.0

    def noted(method: str, target: str, **what: Any) -> Any:  # noqa: ANN401
        if "/_bulk" not in target:
            return perform(method, target, **what)
        nonlocal before
        if not wire.began:
            wire.began, before = time.perf_counter(), stolen_seconds(SERVER_CORE)
        if wire.bodies is not None:
            wire.bodies.append(what["body"])
        answer = perform(method, target, **what)
        wire.ended, wire.stolen = time.perf_counter(), stolen_seconds(SERVER_CORE) - before
        return answer

    transport.perform_request = noted  # type: ignore[method-assign]
    try:
        yield wire
    finally:
        del transport.perform_request


if __name__ == "__main__":
    main()
