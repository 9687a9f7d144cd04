"""Kill an indexing job at random times, run it again until it is done, and judge what it leaves: many seeds.

Run it from the root of the repository: ``uv run python -m bench.crashes --seeds 200``. Builds, builds through a proxy
that loses a tenth of the answers, updates of a live index and re-embeddings take turns.
"""

from __future__ import annotations

import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import click

from esvector.client import connect
from esvector.local.ephemeral import ephemeral_node
from tests.support.crash_rounds import SCENES, Rounds


@click.command()
@click.option("--seeds", type=int, default=200, show_default=True, help="How many.")
@click.option("--first", type=int, default=0, show_default=True, help="The first of them.")
@click.option("--documents", type=int, default=6000, show_default=True, help="Of a load.")
@click.option("--minutes", type=float, default=float("inf"), help="Begin no further seed after as many.")
@click.option("--url", help="An Elasticsearch to use, instead of a throw-away node.")
def main(seeds: int, first: int, documents: int, minutes: float, url: str | None) -> None:
    """Print one line for each seed and a sum; exit status 1 where the judge found anything."""
    begun = time.monotonic()
    run = kills = violations = 0
    with ExitStack() as stack:
        url = url or stack.enter_context(ephemeral_node()).url
        client = stack.enter_context(connect(url, environ={}))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="esvector-")))
        rounds = Rounds(client, str(url), folder, documents)
        for seed in range(first, first + seeds):
            if time.monotonic() - begun > 60 * minutes:
                break
            run += 1
            try:
                finished = rounds.play(seed)
            except AssertionError as error:
                violations += 1
                print(f"seed {seed} ({SCENES[seed % len(SCENES)]}): VIOLATION: {str(error)[-2000:]}", flush=True)
                continue
            kills += finished.kills
            print(f"seed {seed} ({SCENES[seed % len(SCENES)]}): {finished.kills} kills", flush=True)
    print(f"seeds run: {run}, kills: {kills}, violations: {violations}")
    sys.exit(violations > 0)


if __name__ == "__main__":
    main()
