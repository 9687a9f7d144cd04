"""An unchanged re-run against a plain read: of the same file, and of all hashes by the same searches.

The plain side does one after the other, in one thread, and nothing else: no comparing, no account, no lease.
"""

from __future__ import annotations

import time
from pathlib import Path

import click
import numpy as np
import orjson
from common import FLAT, ReadyEncoder, check, folder, in_turn, indexer, ratio, say_load, server, spread
from elasticsearch import Elasticsearch

from esvector import read_documents
from esvector.passport import HASH_FIELD
from esvector.types import Record

ALIAS = "bench-sync"
PAGE = 2048  # ids of a search, as many as a run asks for
SENTENCE = "a search engine compares the vector of a question with those of all documents and returns the nearest"


@click.command()
@click.option("--url", help="Address of Elasticsearch [default: a throw-away local node].")
@click.option("--documents", default=100_000, show_default=True)
@click.option("--words", default=60, show_default=True, help="Of each document's text.")
@click.option("--rounds", default=5, show_default=True)
def main(url: str | None, documents: int, words: int, rounds: int) -> None:
    """Print how much longer the re-run takes."""
    say_load("before")
    with server(url) as (client, _process), folder() as here:
        source = here / "documents.jsonl"
        write_source(source, documents, words)
        encoder = ReadyEncoder(np.random.default_rng(1).standard_normal((1000, 64)).astype(np.float32))
        build = indexer(client, ALIAS, encoder, here, mapping=FLAT)
        check(build.run(read_documents(source)), indexed=documents)

        def rerun() -> float:
            started = time.perf_counter()
            report = indexer(client, ALIAS, encoder, here, mapping=FLAT).run(read_documents(source))
            seconds = time.perf_counter() - started
            check(report, unchanged=documents, encoded=0)
            return seconds

        found = in_turn({"re-run": rerun, "plain": lambda: plain(client, source, documents)}, rounds)
        client.indices.delete(index=f"{ALIAS}-000001")
    for name, seconds in found.items():
        print(f"{name:8} {spread(seconds)} s")
    print(f"the re-run takes {ratio(found['re-run'], found['plain'])} x the plain read of {documents:,} documents")
    say_load("after")


def write_source(path: Path, documents: int, words: int) -> None:
    """Write records with a title, some words and two fields more, as JSON lines."""
    random, vocabulary = np.random.default_rng(2), SENTENCE.split()
    with path.open("wb") as stream:
        for number in range(documents):
            text = " ".join(vocabulary[word] for word in random.integers(len(vocabulary), size=words))
            fields = {"id": f"d{number}", "title": f"Document number {number}", "text": f"{text} {number}"}
            stream.write(orjson.dumps(fields | {"year": 1990 + number % 30, "venue": f"v{number % 7}"}) + b"\n")


def plain(client: Elasticsearch, source: Path, documents: int) -> float:
    """Read the file, then the hashes of its ids; return the seconds."""
    started = time.perf_counter()
    ids = [record.fields["id"] for record in read_documents(source) if isinstance(record, Record)]
    found = 0
    for start in range(0, len(ids), PAGE):
        answer = client.search(
            index=ALIAS,
            query={"ids": {"values": ids[start : start + PAGE]}},
            size=PAGE,
            sort=["_doc"],
            source=False,
            docvalue_fields=[HASH_FIELD],
            version=True,
            track_total_hits=False,
            filter_path=["hits.hits._id", "hits.hits._version", "hits.hits.fields"],
        )
        found += sum(1 for hit in answer["hits"]["hits"] if hit["fields"][HASH_FIELD][0])
    seconds = time.perf_counter() - started
    assert found == documents, found
    return seconds


if __name__ == "__main__":
    main()
