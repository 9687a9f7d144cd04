"""What faults cost: a load through a proxy that breaks requests, and over a restart of the server, against none.

Disturbed, 1 % of the bulk requests end in a connection reset (half of them applied, their answers lost), 5 % are
answered 429, and once the server is killed in mid-load and started again. Of its time the downtime is taken off, from
the kill until the server answers with its shards in place. The same proxy stands in the way of both sides; the vectors
are given, and there is no graph to build.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import click
import numpy as np
from common import FLAT, Floats, ReadyEncoder, check, folder, forget, in_turn, indexer, ratio, say_load, spread

from esvector.client import connect

sys.path.insert(0, str(Path(__file__).parents[1]))  # the proxy and the node are those of the tests

from tests.support.cluster import RealNode, real_node
from tests.support.proxy import Proxy
from tests.support.proxy_faults import ApplyThenLose, Inject, ResetPeer

ALIAS = "bench-faults"
BUSY = {
    "error": {"type": "es_rejected_execution_exception", "reason": "rejected execution of coordinating operation"},
    "status": 429,
}


@click.command()
@click.option("--documents", default=300_000, show_default=True)
@click.option("--dims", default=384, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--encoder-rate", default=0, show_default=True, help="Documents/s that the encoder gives; 0: no limit.")
@click.option("--restart/--no-restart", default=True, show_default=True)
def main(documents: int, dims: int, rounds: int, encoder_rate: int, restart: bool) -> None:
    """Print the ratio of the disturbed runs, less the downtime, to the others."""
    say_load("before")
    vectors = np.random.default_rng(1).standard_normal((10_000, dims)).astype(np.float32)
    encoder = PacedEncoder(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), encoder_rate)
    with real_node(heap_mb=1024) as node, folder() as here:
        turn = iter(range(1_000))
        sides = {
            "undisturbed": lambda: load(node, encoder, documents, here, None, restart=False),
            "disturbed": lambda: load(node, encoder, documents, here, next(turn), restart=restart),
        }
        found = in_turn(sides, rounds)
    for name, seconds in found.items():
        print(f"{name:12} {spread(seconds)} s")
    print(f"faults cost {ratio(found['disturbed'], found['undisturbed'])} x the time of {documents:,} documents")
    say_load("after")


@dataclass(frozen=True)
class PacedEncoder(ReadyEncoder):
    """Gives ready-made vectors, no more than ``rate`` a second where that is not 0, as a device does."""

    rate: int = 0

    def encode_document(self, texts: Sequence[str]) -> Floats:
        """Take the time that a device would."""
        started = time.monotonic()
        found = super().encode_document(texts)
        if self.rate:
            time.sleep(max(0.0, len(texts) / self.rate - (time.monotonic() - started)))
        return found


def load(
    node: RealNode, encoder: PacedEncoder, documents: int, here: Path, seed: int | None, *, restart: bool
) -> float:
    """Index ``documents``, disturbed where there is a ``seed``, and return the seconds, less the downtime."""
    down = [0.0]
    with Proxy(node.url) as proxy, connect(proxy.url, environ={}) as client:
        forget(client, ALIAS)
        if seed is not None:
            proxy.share(0.005, ResetPeer(), seed)
            proxy.share(0.005, ApplyThenLose(), seed + 1_000)
            proxy.share(0.05, Inject(429, BUSY), seed + 2_000)
        progress = {"read": 0}
        restarting = Thread(target=lambda: down.append(restarted(node, proxy, progress, documents)))
        if restart:
            restarting.start()
        started = time.perf_counter()
        run = indexer(client, ALIAS, encoder, here, mapping=FLAT, body_bytes=2**20)
        report = run.run(records(documents), lambda now: progress.update(read=now.read))
        seconds = time.perf_counter() - started
        if restart:
            restarting.join()
        check(report, indexed=documents)
        print(
            f"{'disturbed' if seed is not None else 'undisturbed':12} {seconds:6.1f} s, of them down {sum(down):5.1f}; "
            f"{proxy.bulks} requests, {proxy.faults} faults, {report.sent_again} documents sent again",
            flush=True,
        )
    return seconds - sum(down)


def restarted(node: RealNode, proxy: Proxy, progress: dict[str, int], documents: int) -> float:
    """Kill the server in the middle of the load and start it again; return the seconds until it is usable."""
    proxy.wait_for(lambda: progress["read"] > documents / 2, 600)
    began = time.perf_counter()
    node.kill()
    node.start()
    node.wait()
    return time.perf_counter() - began


def records(count: int) -> Iterator[dict[str, Any]]:
    """Yield small documents."""
    for number in range(count):
        yield {"id": f"d{number}", "title": f"Document number {number}", "year": 1990 + number % 30}


if __name__ == "__main__":
    main()
