"""One search, from the words to the hits: what esvector adds to encoding and one request, and what others take for it.

All sides ask the same queries of the same index for the same ten hits, in turn, each over a kept connection:

- bare: the exported query encoder alone, and the body that esvector sends, over ``http.client``. What is left is ours.
- script: what is copied most, ``SentenceTransformer.encode`` and ``client.search(knn=...)``.
- langchain-elasticsearch: ``ElasticsearchStore.similarity_search`` in a process of its own, since it needs another
  client: --langchain names a Python that has langchain-elasticsearch, langchain-huggingface, sentence-transformers.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import click
import numpy as np
from common import folder, forget, in_turn, ratio, say_load, server, spread, url_of
from elasticsearch import Elasticsearch
from numpy.typing import NDArray
from queries import THREADS, make_queries, rate, take
from sentence_transformers import SentenceTransformer

from esvector import EncoderProfile, Indexer, Searcher
from esvector.encode.encoder import ModelEncoder
from esvector.encode.loading import load_encoder
from esvector.encode.models import find_model
from esvector.encode.probes import unpack_probes
from esvector.encode.queries import open_query_encoder
from esvector.encode.tower import unit_length

ALIAS = "bench-search"
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
K = 10

LANGCHAIN = """
import json, sys, time
from langchain_elasticsearch import DenseVectorStrategy, ElasticsearchStore
from langchain_huggingface import HuggingFaceEmbeddings
from elasticsearch import Elasticsearch
url, alias, model = sys.argv[1:]
store = ElasticsearchStore(
    index_name=alias, client=Elasticsearch(url), vector_query_field="vector", query_field="text",
    embedding=HuggingFaceEmbeddings(model_name=model, model_kwargs={"device": "cpu"}), strategy=DenseVectorStrategy(),
)
for line in sys.stdin:
    seconds = []
    for query in json.loads(line):
        started = time.perf_counter()
        found = store.similarity_search(query, k=10, fetch_k=100)
        seconds.append(time.perf_counter() - started)
        assert len(found) == 10
    print(json.dumps(seconds), flush=True)
"""

Ask = Callable[[Sequence[str]], list[float]]


@click.command()
@click.option("--url", help="Address of Elasticsearch [default: a throw-away local node].")
@click.option("--documents", default=20_000, show_default=True)
@click.option("--queries", default=100, show_default=True, help="Of each side in each round.")
@click.option("--rounds", default=7, show_default=True)
@click.option(
    "--langchain", type=click.Path(path_type=Path, exists=True), help="Python that has langchain-elasticsearch."
)
def main(url: str | None, documents: int, queries: int, rounds: int, langchain: Path | None) -> None:
    """Print the median seconds of a search on each side, and esvector's ratios to the others."""
    say_load("before")
    with server(url) as (client, _), folder() as here, ExitStack() as stack:
        forget(client, ALIAS)
        encoder = QuickDocuments(load_encoder(EncoderProfile(MODEL), device="cpu"))
        job = Indexer(client, ALIAS, encoder=encoder, state=here / "state", dead_letters=here / "dead.jsonl")
        job.run(records(documents))
        searcher = Searcher(client, ALIAS, query_cache=here / "queries")
        texts = make_queries(queries * (rounds + 1) * 7)
        sides: dict[str, Ask] = {
            "bare": bare(searcher, here / "queries", url_of(client)),
            "esvector": timed(lambda query: searcher.search(query, k=K)),
            "esvector, filtered": timed(lambda query: searcher.search(query, k=K, where="number >= 0")),
            "script": script(client),
        }
        if langchain is not None:
            sides["langchain"] = stack.enter_context(closing(Langchain(langchain, url_of(client))))
        found = in_turn(
            {name: lambda ask=ask: float(np.median(ask(take(texts, queries)))) for name, ask in sides.items()}, rounds
        )
        together: dict[int, list[float]] = {1: [], THREADS: []}
        for _ in range(rounds):
            for threads, rates in together.items():
                rates.append(rate(lambda one: searcher.search(one[0], k=K), take(texts, queries), threads))
        forget(client, ALIAS)
    print(f"{documents:,} documents, {queries} distinct queries a side and round, {rounds} rounds; p50 of one search")
    for name, seconds in found.items():
        print(f"{name:20} {spread([1000 * value for value in seconds])} ms")
    for name in found:
        if name != "esvector":
            print(f"esvector takes {ratio(found['esvector'], found[name])} of the time of {name}")
    for threads, rates in together.items():
        print(f"{threads:3} threads {spread(rates)} searches/s")
    print(f"{THREADS} threads: {ratio(together[THREADS], together[1])} times one thread")
    say_load("after")


@dataclass(frozen=True)
class QuickDocuments:
    """The real model for queries; documents get random vectors, whose meaning is no matter here."""

    model: ModelEncoder

    @property
    def profile(self) -> EncoderProfile:
        """The model's."""
        return self.model.profile

    def count_tokens(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """One of each text."""
        return np.ones(len(texts), np.int64)

    def encode_query(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """As the model does."""
        return self.model.encode_query(texts)

    def encode_document(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Random, of unit length."""
        rng = np.random.default_rng(abs(hash(texts[0])))
        vectors = rng.standard_normal((len(texts), self.profile.dims or 0)).astype(np.float32)
        return unit_length(vectors)


def records(count: int) -> Iterator[dict[str, object]]:
    """Yield small documents."""
    for number in range(count):
        yield {"id": f"d{number}", "text": f"Document number {number}", "number": number}


def timed(search: Callable[[str], Sequence[object]]) -> Ask:
    """Return what measures each search of a list of queries."""

    def ask(texts: Sequence[str]) -> list[float]:
        seconds = []
        for text in texts:
            started = time.perf_counter()
            found = search(text)
            seconds.append(time.perf_counter() - started)
            assert len(found) == K, found
        return seconds

    return ask


def bare(searcher: Searcher, cache: Path, url: str) -> Ask:
    """Return what encodes, and sends the same body, and nothing else."""
    passport = searcher.target.passport
    encoder = open_query_encoder(passport.encoder, unpack_probes(passport.probes, 384), cache=cache)
    body = searcher.request("anything", k=K)
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port)
    headers = {"content-type": "application/json"}

    def search(query: str) -> Sequence[object]:
        body["knn"]["query_vector"] = encoder([query])[0].tolist()
        connection.request("POST", f"/{ALIAS}/_search", json.dumps(body), headers)
        found: list[object] = json.loads(connection.getresponse().read())["hits"]["hits"]
        return found

    return timed(search)


def script(client: Elasticsearch) -> Ask:
    """Return what sentence-transformers' example for Elasticsearch does."""
    model = SentenceTransformer(str(find_model(MODEL).path), device="cpu", local_files_only=True)

    def search(query: str) -> Sequence[object]:
        knn = {"field": "vector", "query_vector": model.encode(query), "k": K, "num_candidates": 100}
        found: list[object] = client.search(index=ALIAS, knn=knn)["hits"]["hits"]
        return found

    return timed(search)


class Langchain:
    """langchain-elasticsearch in a process of its own, which is sent lists of queries."""

    def __init__(self, python: Path, url: str) -> None:
        command = [str(python), "-c", LANGCHAIN, url, ALIAS, str(find_model(MODEL).path)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, texts: Sequence[str]) -> list[float]:
        """Ask, and return the seconds of each query."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(list(texts)) + "\n")
        self._process.stdin.flush()
        seconds: list[float] = json.loads(self._process.stdout.readline())
        return seconds

    def close(self) -> None:
        """End it."""
        self._process.communicate()


if __name__ == "__main__":
    main()
