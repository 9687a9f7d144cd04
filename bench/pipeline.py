"""A load with a real model on the CPU against its bound: cores by the CPU seconds of each stage of a document, alone.

The stages alone, each over the same documents: reading and preparing, tokenizing, encoding, packing and sending, and
the server's own work meanwhile. The whole run is measured until everything is acknowledged. What other programs take
of the processors while it runs is measured, too, and taken off the cores in a second figure.
"""

from __future__ import annotations

import time
from pathlib import Path

import click
import orjson
import psutil
from common import FLAT, check, cpu_seconds, folder, forget, indexer, own_cpu, say_load, server, spread
from elasticsearch import Elasticsearch

from esvector import read_documents
from esvector.encode.encoder import ModelEncoder
from esvector.encode.engine import document_engine
from esvector.encode.loading import load_encoder
from esvector.encode.profile import EncoderProfile
from esvector.index.bulk import BulkWriter
from esvector.index.deadletters import DeadLetterFile
from esvector.index.load import Load, RecordOptions
from esvector.index.versions import begin_loading, loading_alias
from esvector.index.window import Window
from esvector.types import Progress
from esvector.vectors import to_elements

ALIAS = "bench-pipeline"


@click.command()
@click.option("--url", help="Address of Elasticsearch [default: a throw-away local node].")
@click.option("--model", default="sentence-transformers/all-MiniLM-L6-v2", show_default=True)
@click.option("--documents", default=3_000, show_default=True)
@click.option("--rounds", default=3, show_default=True)
def main(url: str | None, model: str, documents: int, rounds: int) -> None:
    """Print the CPU time of each stage, and how near the whole run comes to the bound."""
    say_load("before")
    with server(url) as (client, process), folder() as here:
        source = here / "documents.jsonl"
        write_source(source, documents)
        encoder = load_encoder(EncoderProfile(model), device="cpu")
        whole(client, process, encoder, source, here)  # warms everything up
        shares, plain, free = [], [], []
        stages: dict[str, list[float]] = {}
        for _ in range(rounds):
            alone = costs(client, process, encoder, source, here)
            rate, cores = whole(client, process, encoder, source, here)
            bound = 1 / sum(alone.values())
            plain.append(rate / (psutil.cpu_count() * bound))
            shares.append(rate / (cores * bound))
            free.append(cores)
            for name, seconds in alone.items():
                stages.setdefault(name, []).append(1e6 * seconds)
        forget(client, ALIAS)
    for name, micro in stages.items():
        print(f"{name:14} {spread(micro)} microseconds of CPU a document")
    print(f"cores that were free of other programs: {spread(free)}")
    print(f"of the bound by all {psutil.cpu_count()} cores: {spread(plain)}; by those that were free: {spread(shares)}")
    say_load("after")


def write_source(path: Path, documents: int) -> None:
    """Write Python's documentation, over and over with a word more each time."""
    from esvector.demo import python_docs

    docs = list(python_docs())
    with path.open("wb") as stream:
        for number in range(documents):
            doc = docs[number % len(docs)]
            more = f"{doc['text']} {number // len(docs)}"
            stream.write(orjson.dumps({"id": f"d{number}", "title": doc["title"], "text": more}) + b"\n")


def whole(
    client: Elasticsearch, process: psutil.Process | None, encoder: ModelEncoder, source: Path, here: Path
) -> tuple[float, float]:
    """Run it all; return documents/s until all is acknowledged, and the cores that other programs left."""
    forget(client, ALIAS)
    times: dict[str, float] = {}
    used, busy, started = own_cpu(process), machine_busy(), time.perf_counter()

    def watch(now: Progress) -> None:
        if now.phase == "verifying":
            times.setdefault("seconds", time.perf_counter() - started)
            times.setdefault("others", machine_busy() - busy - (own_cpu(process) - used))

    report = indexer(client, ALIAS, encoder, here, mapping=FLAT).run(read_documents(source), watch)
    check(report, dead=0)
    return report.indexed / times["seconds"], psutil.cpu_count() - max(0.0, times["others"]) / times["seconds"]


def machine_busy() -> float:
    """CPU seconds that the whole machine has spent on any program."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))


def costs(
    client: Elasticsearch, process: psutil.Process | None, encoder: ModelEncoder, source: Path, here: Path
) -> dict[str, float]:
    """CPU seconds a document of each stage, run alone over the documents of the index that is there."""
    engine = document_engine(encoder)
    found: dict[str, float] = {}

    began = time.process_time()
    windows = read(encoder, source, here)
    count = sum(len(window.documents) for window in windows)
    found["read, prepare"] = (time.process_time() - began) / count

    began = time.process_time()
    tokenized = [engine.tokenize(window.documents) for window in windows]
    found["tokenize"] = (time.process_time() - began) / count

    began = time.process_time()
    vectors = [engine.encode(inputs).vectors for inputs in tokenized]
    found["encode"] = (time.process_time() - began) / count

    target = empty_twin(client)
    began, served = time.process_time(), cpu_seconds(process)
    writer = BulkWriter(client, loading_alias(target))
    for window, rows in zip(windows, vectors, strict=True):
        ids = [document.id for document in window.documents]
        result = writer.deliver(writer.pack(ids, window.places, window.sources, to_elements(rows, "float")))
        assert result.created == len(ids), result
    found["pack, send"] = (time.process_time() - began) / count
    found["server"] = (cpu_seconds(process) - served) / count
    return found


def read(encoder: ModelEncoder, source: Path, here: Path) -> list[Window]:
    """Return all windows of the source, as a load reads them."""
    options = RecordOptions(
        text_fields=("title", "text"),
        id_field=None,
        reserved=frozenset({"vector"}),
        given=None,
        max_document_bytes=2**20,
        element_type="float",
    )
    with DeadLetterFile(here / "dead.jsonl") as letters:
        load = Load(read_documents(source), options, encoder.profile, letters, generation=1)
        return list(load.windows())


def empty_twin(client: Elasticsearch) -> str:
    """Return an empty index with the mapping of the one that is live, open for loading."""
    made = client.indices.get(index=ALIAS)[f"{ALIAS}-000001"]
    name = f"{ALIAS}-000002"
    client.options(ignore_status=404).indices.delete(index=name)
    settings = {"number_of_shards": 1, "number_of_replicas": 0, "refresh_interval": "-1"}
    client.indices.create(index=name, mappings={"properties": made["mappings"]["properties"]}, settings=settings)
    begin_loading(client, name)
    return name


if __name__ == "__main__":
    main()
