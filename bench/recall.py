"""Recall of default search against exact search, without a filter and under filters that fewer and fewer match.

The corpus is that of a BEIR folder (corpus.jsonl or corpus.jsonl.gz), encoded by a real model; its documents are the
queries. The filters are on a number that every document gets by its place in a fixed shuffle, so that they match the
share that they should and nothing else about a document decides.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from common import folder, forget, say_load, server
from elasticsearch import Elasticsearch

from esvector import EncoderProfile, Indexer, read_documents
from esvector.evaluate.recall import RecallReport, measure_recall

ALIAS = "bench-recall"
SHARES = (0.5, 0.1, 0.01, 0.001)
PARTS = 100_000


@click.command()
@click.argument("corpus", type=click.Path(path_type=Path, exists=True))
@click.option("--url", help="Address of Elasticsearch [default: a throw-away local node].")
@click.option("--alias", help="Use this alias, which has the corpus already, and keep it.")
@click.option("--model", default="sentence-transformers/all-MiniLM-L6-v2", show_default=True)
@click.option("--limit", type=int, help="Documents of the corpus [default: all].")
@click.option("--sample", default=200, show_default=True, help="Documents that are queries.")
@click.option("-k", "ks", type=int, multiple=True, default=(10, 100), show_default=True)
def main(
    corpus: Path, url: str | None, alias: str | None, model: str, limit: int | None, sample: int, ks: tuple[int, ...]
) -> None:
    """Print the recall at each k, under each filter, with its interval at 95 % confidence."""
    say_load("before")
    with server(url) as (client, _), folder() as here:
        if alias is None:
            forget(client, ALIAS)
            profile = EncoderProfile(model)
            job = Indexer(client, ALIAS, profile=profile, state=here / "state", dead_letters=here / "dead.jsonl")
            print(f"{job.run(numbered(corpus, limit)).indexed:,} documents indexed", flush=True)
        show(measure(client, alias or ALIAS, sample, ks))
        if alias is None:
            forget(client, ALIAS)
    say_load("after")


def numbered(corpus: Path, limit: int | None) -> Iterator[Mapping[str, Any]]:
    """Yield the documents, each with a number from 0 to 99,999 that has nothing to do with it."""
    order = random.Random(11)
    for count, record in enumerate(read_documents(corpus)):
        if count == limit:
            return
        fields: Mapping[str, Any] = getattr(record, "fields", record)
        yield {**fields, "shuffled": order.randrange(PARTS)}


def measure(client: Elasticsearch, alias: str, sample: int, ks: tuple[int, ...]) -> RecallReport:
    """Compare default searches with exact ones."""
    filters = [None, *(f"shuffled < {round(PARTS * share)}" for share in SHARES)]
    return measure_recall(client, alias, sample=sample, k=ks, where=filters)


def show(report: RecallReport) -> None:
    """Print a line for each measurement."""
    print(f"{report.index}: {report.vector_type}, {report.points[0].queries} documents as queries")
    print(f"{'share that matches':>19} {'documents':>10} {'k':>4} {'recall':>7} {'95 %':>15} {'worst decile':>13} "
          f"{'p50':>9} {'exact p50':>10}")  # fmt: skip
    for point in report.points:
        low, high = point.interval
        times = f"{1000 * point.approximate.p50:6.1f} ms {1000 * point.exact.p50:7.1f} ms"
        recall = f"{point.recall:7.4f} {low:7.4f}-{high:.4f} {point.worst_decile:13.3f}"
        print(f"{point.selectivity:19.4f} {point.documents:10,} {point.k:4} {recall} {times}")


if __name__ == "__main__":
    main()
