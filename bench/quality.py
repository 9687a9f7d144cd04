"""nDCG@10 of searching a BEIR folder through Elasticsearch, against exact search with the same vectors.

The folder has corpus.jsonl, queries.jsonl and qrels.tsv. Both sides are judged by ir-measures.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import click
import ir_measures
import numpy as np
import orjson
from ingest import server
from ir_measures import Qrel, ScoredDoc

from esvector import EncoderProfile, Indexer, Searcher, read_documents
from esvector.encode.loading import load_encoder
from esvector.encode.engine import encode_window

ALIAS = "bench-quality"
MEASURES = [ir_measures.parse_measure(name) for name in ("nDCG@10", "R@10", "RR@10")]


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--model", default="sentence-transformers/all-MiniLM-L6-v2", show_default=True)
@click.option("--url", help="Address of Elasticsearch [default: a throw-away local node].")
@click.option("--tolerance", default=0.005, show_default=True, help="Largest loss of nDCG@10 that is accepted.")
def main(folder: Path, model: str, url: str | None, tolerance: float) -> None:
    """Print both sides; exit with 1 when the search loses more nDCG@10 than --tolerance."""
    queries = [orjson.loads(line) for line in (folder / "queries.jsonl").read_bytes().splitlines()]
    qrels = list(read_qrels(folder / "qrels.tsv"))
    texts = [query["text"] for query in queries]
    encoder = load_encoder(EncoderProfile(model))
    with server(url) as client:
        indexer = Indexer(client, ALIAS, encoder=encoder, dead_letters=folder.name + ".dead.jsonl")
        report = indexer.run(read_documents(folder / "corpus.jsonl"))
        print(f"{report.indexed} of {report.read} documents indexed, {report.truncated} truncated")
        found = Searcher(client, ALIAS, encoder=encoder).search(texts, k=10)
        client.indices.delete(index=report.index)
    searched = [
        ScoredDoc(query["_id"], hit.id, hit.score) for query, hits in zip(queries, found, strict=True) for hit in hits
    ]
    documents = [orjson.loads(line) for line in (folder / "corpus.jsonl").read_bytes().splitlines()]
    bodies = [" ".join(t for t in (d.get("title", "").strip(), d["text"].strip()) if t) for d in documents]
    scores = encoder.encode_query(texts) @ encode_window(encoder, bodies).vectors.T
    exact = [
        ScoredDoc(query["_id"], documents[row]["_id"], float(line[row]))
        for query, line in zip(queries, scores, strict=True)
        for row in np.argsort(-line)[:10]
    ]
    sides = {"exact": judge(qrels, exact), "esvector": judge(qrels, searched)}
    for name, values in sides.items():
        print(f"{name:9} " + "  ".join(f"{measure} {values[measure]:.4f}" for measure in MEASURES))
    loss = sides["exact"][MEASURES[0]] - sides["esvector"][MEASURES[0]]
    print(f"loss of nDCG@10: {loss:+.4f} (accepted: {tolerance})")
    raise SystemExit(int(loss > tolerance))


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
