"""What the benchmarks share: a server of their own, an encoder without a model, and ratios taken within rounds."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

import numpy as np
import psutil
import urllib3
from elasticsearch import Elasticsearch
from numpy.typing import NDArray

from esvector import Indexer
from esvector.client import connect, describe_server
from esvector.encode.encoder import Encoder
from esvector.encode.profile import EncoderProfile
from esvector.types import IndexReport

Floats = NDArray[np.float32]
AS_THE_WRITER_ASKS = "require_alias=true&include_source_on_error=false&filter_path=items.*.status,items.*.error"
FLAT = {"mappings": {"properties": {"vector": {"type": "dense_vector", "index_options": {"type": "flat"}}}}}
"""A mapping without a graph, where that is not what is measured."""


@dataclass(frozen=True)
class ReadyEncoder:
    """Gives ready-made vectors (n, dims), unit length: a text ends in the number of its vector, modulo n."""

    vectors: Floats

    @property
    def profile(self) -> EncoderProfile:
        """A complete profile of what it does."""
        return EncoderProfile(
            model="ready",
            weights="0" * 64,
            query_prompt="",
            document_prompt="",
            pooling="none",
            normalize=True,
            similarity="cosine",
            dims=self.vectors.shape[1],
            max_length=64,
            dtype="float32",
        )

    def count_tokens(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """One of each text, so that batches are as large as they get."""
        return np.ones(len(texts), np.int64)

    def encode_query(self, texts: Sequence[str]) -> Floats:
        """As documents; a text without a number has vector 0."""
        return self.vectors[[int(end) % len(self.vectors) if (end := _end(text)).isdigit() else 0 for text in texts]]

    def encode_document(self, texts: Sequence[str]) -> Floats:
        """Look the vectors up."""
        return self.vectors[[int(_end(text)) % len(self.vectors) for text in texts]]


def _end(text: str) -> str:
    return text[text.rfind(" ") + 1 :]


def indexer(client: Elasticsearch, alias: str, encoder: Encoder, folder: Path, **options: Any) -> Indexer:  # noqa: ANN401
    """Return an indexer that keeps all that it writes in ``folder``."""
    return Indexer(
        client, alias, encoder=encoder, state=folder / "state", dead_letters=folder / "dead.jsonl", **options
    )


def check(report: IndexReport, **wanted: int) -> None:
    """Assert that ``report`` says what it should."""
    found = {name: getattr(report, name) for name in wanted}
    assert found == wanted, report


def forget(client: Elasticsearch, alias: str) -> None:
    """Delete every version of ``alias``."""
    for name in client.indices.get(index=f"{alias}-*", features="aliases"):
        client.indices.delete(index=name)


@contextmanager
def server(url: str | None, heap_mb: int = 1024) -> Iterator[tuple[Elasticsearch, psutil.Process | None]]:
    """Give a client for ``url``, or for a node that is gone afterwards, and the node's process where it is ours."""
    if url is not None:
        with connect(url) as client:
            describe_server(client)
            yield client, None
        return
    from esvector.local.ephemeral import ephemeral_node

    with ephemeral_node(heap_mb=heap_mb) as node, connect(node.url, environ={}) as client:
        pid = node.status().pid
        assert pid is not None
        yield client, psutil.Process(pid)


@contextmanager
def folder() -> Iterator[Path]:
    """Give a folder that is gone afterwards."""
    with TemporaryDirectory(prefix="esvector-bench-") as name:
        yield Path(name)


def cpu_seconds(process: psutil.Process | None) -> float:
    """CPU seconds of ``process`` and its children so far; 0 where it is not ours to see."""
    if process is None:
        return 0.0
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def own_cpu(process: psutil.Process | None) -> float:
    """CPU seconds of this process and of the server so far: less shaken by other programs than the time is."""
    return time.process_time() + cpu_seconds(process)


def url_of(client: Elasticsearch) -> str:
    """Address of the one server."""
    config = next(iter(client.transport.node_pool.all())).config
    return f"{config.scheme}://{config.host}:{config.port}"


def post_all(url: str, target: str, bodies: Iterable[bytes], connections: int) -> None:
    """Post bulk requests that were made beforehand, as the writer would, over kept connections."""
    pool = urllib3.connection_from_url(url, maxsize=connections, block=True)
    queue: SimpleQueue[bytes | None] = SimpleQueue()
    for body in [*bodies, *[None] * connections]:
        queue.put(body)
    failed: list[bytes] = []

    def post() -> None:
        while (body := queue.get()) is not None:
            answer = pool.request(
                "POST",
                f"/{target}/_bulk?{AS_THE_WRITER_ASKS}",
                body=body,
                headers={"content-type": "application/x-ndjson"},
            )
            if answer.status != 200 or b'"error"' in answer.data:
                failed.append(answer.data[:300])

    run_all([Thread(target=post) for _ in range(connections)])
    pool.close()
    assert not failed, failed[0]


def run_all(threads: Sequence[Thread]) -> None:
    """Start ``threads`` and wait for them."""
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Median, lowest and highest of the rounds' ratios of ``ours`` to ``theirs``."""
    return spread([one / other for one, other in zip(ours, theirs, strict=True)])


def spread(values: Sequence[float]) -> str:
    """Median, lowest and highest."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def stolen_seconds(core: int) -> float:
    """CPU seconds that the host took from ``core`` since it started; 0 where the system does not say."""
    return float(getattr(psutil.cpu_times(percpu=True)[core], "steal", 0.0))


def say_load(when: str) -> None:
    """Print how busy the machine is besides, since that decides what the numbers are worth."""
    stolen = getattr(psutil.cpu_times(), "steal", 0.0)  # Linux only; the difference of two calls is what tells
    load = f"load average {os.getloadavg()[0]:.1f}"
    print(f"{when}: {os.cpu_count()} cores, {load}, {stolen:,.0f} CPU s taken by the host since it started")


def in_turn(sides: dict[str, Callable[[], Any]], rounds: int, warm: int = 1) -> dict[str, list[Any]]:
    """What each side returned in each round; they take turns, the other way round in every second one.

    ``warm`` rounds before that, which do not count, warm the server up.
    """
    found: dict[str, list[Any]] = {name: [] for name in sides}
    for round_ in range(-warm, rounds):
        for name in sorted(sides, key=list(sides).index, reverse=bool(round_ % 2)):
            result = sides[name]()
            if round_ >= 0:
                found[name].append(result)
    return found
