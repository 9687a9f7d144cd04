"""Largest resident size of a process that indexes few and many tiny documents, and of one that runs again over them.

Each side is a process of its own, as memory that was needed once is not given back. In the middle of each the server
stands still until nothing more is read: then every channel is full, which is the most that a run may hold. Without
that, a short run has a smaller peak only because the server never fell behind.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil
from common import FLAT, ReadyEncoder, check, folder, indexer, say_load, server, url_of

from esvector.client import connect
from esvector.types import Progress

DIMS = 16
STILL = 10  # looks in a row at which nothing more was read


@click.command()
@click.option("--url", help="Address of Elasticsearch [default: a throw-away local node].")
@click.option("--documents", default=(10_000, 100_000, 1_000_000), multiple=True, show_default=True)
@click.option("--child", hidden=True, help="Index so many documents in this process, and print its size.")
@click.option("--pid", default=0, hidden=True, help="Of the server, to make it stand still.")
@click.option("--alias", hidden=True)
@click.option("--steps", default="build,re-run,change", show_default=True)
@click.option("--step", type=click.Choice(["build", "re-run", "change"]), hidden=True)
def main(
    url: str | None,
    documents: tuple[int, ...],
    child: str | None,
    pid: int,
    alias: str | None,
    steps: str,
    step: str | None,
) -> None:
    """Print the peak of each run, and its ratio to the one before."""
    if child is not None:
        assert url is not None
        assert alias is not None
        assert step is not None
        index(url, alias, int(child), step, Stall(pid, int(child)))
        return
    say_load("before")
    with server(url) as (client, process), folder() as here:
        before: dict[str, float] = {}
        for count in documents:
            for kind in steps.split(","):
                started = time.perf_counter()
                size = measured(url_of(client), process, f"bench-memory-{count}", count, kind, here)
                said = f", {size / before[kind]:.2f} x the one before" if kind in before else ""
                print(f"{count:11,} {kind:7} {size:7.1f} MiB  {time.perf_counter() - started:6.1f} s{said}", flush=True)
                before[kind] = size
            client.indices.delete(index=f"bench-memory-{count}-000001")
    say_load("after")


def measured(url: str, process: psutil.Process | None, alias: str, count: int, step: str, here: Path) -> float:
    """Largest resident size in MiB of a process that does ``step``."""
    command = [sys.executable, str(Path(__file__).resolve()), "--url", url, "--child", str(count)]
    command += ["--pid", str(process.pid if process is not None else 0)]
    done = subprocess.run(
        [*command, "--alias", alias, "--step", step], cwd=here, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


@dataclass
class Stall:
    """Lets the server ``pid`` (0: none) stand still when half of ``count`` records are read, until no more are."""

    pid: int
    count: int
    state: str = "waiting"
    read: int = 0
    same: int = 0

    def __call__(self, now: Progress) -> None:
        """Look at how far the run is; it says so a few times a second."""
        if self.pid and self.state == "waiting" and now.phase == "indexing" and now.read > self.count / 2:
            psutil.Process(self.pid).suspend()
            self.state = "standing"
        elif self.state == "standing":
            self.same = self.same + 1 if now.read == self.read else 0
            if self.same == STILL:
                psutil.Process(self.pid).resume()
                self.state = "over"
        self.read = now.read


def index(url: str, alias: str, count: int, step: str, stall: Stall) -> None:
    """Do one step and print this process's largest resident size in MiB."""
    encoder = ReadyEncoder(np.random.default_rng(1).standard_normal((1000, DIMS)).astype(np.float32))
    with connect(url) as client:
        run = indexer(client, alias, encoder, Path.cwd(), mapping=FLAT)
        report = run.run(records(count, changed=step == "change"), stall)
    assert stall.state == "over" or not stall.pid or step == "re-run", stall
    check(report, read=count, unchanged=count if step == "re-run" else 0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(peak / (2**20 if sys.platform == "darwin" else 1024))


def records(count: int, *, changed: bool) -> Iterator[dict[str, Any]]:
    """Yield tiny documents."""
    word = "another" if changed else "a"
    for number in range(count):
        yield {"id": str(number), "text": f"{word} short text about subject {number}", "year": 1990 + number % 30}


if __name__ == "__main__":
    main()
