"""nDCG@10 of exact search on a BEIR folder, and of searching it through Elasticsearch with the same encoder.

The folder has corpus.jsonl, queries.jsonl and qrels.tsv. Both sides are judged by ir-measures.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import ir_measures
import numpy as np
import orjson
from elasticsearch import Elasticsearch
from ingest import server
from ir_measures import Qrel, ScoredDoc

from esvector import EncoderProfile, Indexer, Searcher, read_documents
from esvector.encode.encoder import ModelEncoder
from esvector.encode.loading import load_encoder

ALIAS = "bench-quality"
MEASURES = [ir_measures.parse_measure(name) for name in ("nDCG@10", "R@10", "RR@10")]


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--model", default="sentence-transformers/all-MiniLM-L6-v2", show_default=True)
@click.option("--url", help="Address of Elasticsearch [default: a throw-away local node].")
@click.option("--tolerance", default=0.005, show_default=True, help="Largest loss of nDCG@10 that is accepted.")
@click.option("--exact-only", is_flag=True, help="Without Elasticsearch.")
@click.option("--titles/--no-titles", default=True, show_default=True, help="Encode title and text, or the text.")
def main(folder: Path, model: str, url: str | None, tolerance: float, exact_only: bool, titles: bool) -> None:
    """Print each side; exit with 1 when the search loses more nDCG@10 than --tolerance."""
    queries = [orjson.loads(line) for line in (folder / "queries.jsonl").read_bytes().splitlines()]
    documents = [orjson.loads(line) for line in (folder / "corpus.jsonl").read_bytes().splitlines()]
    qrels = list(read_qrels(folder / "qrels.tsv"))
    encoder = load_encoder(EncoderProfile(model))
    fields = ("title", "text") if titles else ("text",)
    sides = {"exact": judge(qrels, search_exactly(encoder, queries, documents, fields))}
    if not exact_only:
        with server(url) as client:
            sides["esvector"] = judge(qrels, search_server(client, encoder, queries, folder, fields))
    for name, values in sides.items():
        print(f"{name:9} " + "  ".join(f"{measure} {values[measure]:.4f}" for measure in MEASURES))
    loss = sides["exact"][MEASURES[0]] - sides.get("esvector", sides["exact"])[MEASURES[0]]
    print(f"loss of nDCG@10: {loss:+.4f} (accepted: {tolerance})")
    raise SystemExit(int(loss > tolerance))


def search_exactly(
    encoder: ModelEncoder, queries: list[Any], documents: list[Any], fields: tuple[str, ...]
) -> list[ScoredDoc]:
    """Rank every document for every query by brute force."""
    parts = [tuple((document.get(field) or "").strip() for field in fields) for document in documents]
    vectors = encoder.encode_document([encoder.profile.join(part) for part in parts])
    scores = encoder.encode_query([query["text"] for query in queries]) @ vectors.T
    return [
        ScoredDoc(query["_id"], documents[row]["_id"], float(line[row]))
        for query, line in zip(queries, scores, strict=True)
        for row in np.argsort(-line)[:10]
    ]


def search_server(
    client: Elasticsearch, encoder: ModelEncoder, queries: list[Any], folder: Path, fields: tuple[str, ...]
) -> list[ScoredDoc]:
    """Index the folder, and search it as an application would."""
    indexer = Indexer(client, ALIAS, encoder=encoder, text_fields=fields, dead_letters=folder.name + ".dead.jsonl")
    report = indexer.run(read_documents(folder / "corpus.jsonl"))
    print(f"{report.indexed} of {report.read} documents indexed, {report.truncated} truncated")
    found = Searcher(client, ALIAS).search([query["text"] for query in queries], k=10)
    client.indices.delete(index=report.index)
    return [
        ScoredDoc(query["_id"], hit.id, hit.score) for query, hits in zip(queries, found, strict=True) for hit in hits
    ]


def judge(qrels: list[Qrel], run: list[ScoredDoc]) -> dict[ir_measures.Measure, float]:
    """Mean of each measure over the queries."""
    return dict(ir_measures.calc_aggregate(MEASURES, qrels, run))


def read_qrels(path: Path) -> Iterator[Qrel]:
    """Read judgements: query id, document id, relevance, with a header line."""
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.reader(file, delimiter="\t"):
            if row and row[-1].lstrip("-").isdigit():
                yield Qrel(row[0], row[1], int(row[2]))


if __name__ == "__main__":
    main()
