"""Largest resident size of a process that indexes few and many tiny documents, and of one that runs again over them.

Each side is a process of its own, as memory that was needed once is not given back.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
from common import FLAT, ReadyEncoder, check, folder, indexer, say_load, server, url_of

from esvector.client import connect

DIMS = 16


@click.command()
@click.option("--url", help="Address of Elasticsearch [default: a throw-away local node].")
@click.option("--documents", default=(10_000, 100_000, 1_000_000), multiple=True, show_default=True)
@click.option("--child", hidden=True, help="Index so many documents in this process, and print its size.")
@click.option("--alias", hidden=True)
@click.option("--step", type=click.Choice(["build", "re-run", "change"]), hidden=True)
def main(url: str | None, documents: tuple[int, ...], child: str | None, alias: str | None, step: str | None) -> None:
    """Print the peak of each run, and its ratio to the one before."""
    if child is not None:
        assert url is not None
        assert alias is not None
        assert step is not None
        index(url, alias, int(child), step)
        return
    say_load("before")
    with server(url) as (client, _process), folder() as here:
        before: dict[str, float] = {}
        for count in documents:
            for kind in ("build", "re-run", "change"):
                started = time.perf_counter()
                size = measured(url_of(client), f"bench-memory-{count}", count, kind, here)
                said = f", {size / before[kind]:.2f} x the one before" if kind in before else ""
                print(f"{count:11,} {kind:7} {size:7.1f} MiB  {time.perf_counter() - started:6.1f} s{said}", flush=True)
                before[kind] = size
            client.indices.delete(index=f"bench-memory-{count}-000001")
    say_load("after")


def measured(url: str, alias: str, count: int, step: str, here: Path) -> float:
    """Largest resident size in MiB of a process that does ``step``."""
    command = [sys.executable, str(Path(__file__).resolve()), "--url", url, "--child", str(count)]
    done = subprocess.run(
        [*command, "--alias", alias, "--step", step], cwd=here, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


def index(url: str, alias: str, count: int, step: str) -> None:
    """Do one step and print this process's largest resident size in MiB."""
    encoder = ReadyEncoder(np.random.default_rng(1).standard_normal((1000, DIMS)).astype(np.float32))
    with connect(url) as client:
        run = indexer(client, alias, encoder, Path.cwd(), mapping=FLAT)
        report = run.run(records(count, changed=step == "change"))
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
