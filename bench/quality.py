"""How good each way of searching is, on BEIR folders, against exact search with the same encoder.

A folder has corpus.jsonl, queries.jsonl and qrels.tsv. Exact is a product of matrices in numpy, without Elasticsearch;
all sides are judged by esvector.evaluate. ``--write docs/quality.md`` puts the tables into that page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import common
import numpy as np
from elasticsearch import Elasticsearch

from esvector import EncoderProfile, Hit, Searcher, read_documents
from esvector.client import describe_server
from esvector.encode.encoder import ModelEncoder
from esvector.encode.loading import load_encoder
from esvector.evaluate import Comparison, Evaluation, compare, evaluate, find_beir, read_qrels, read_queries
from esvector.types import Record

ALIAS = "bench-quality"
MEASURES = ("nDCG@10", "R@10", "RR@10")  # of the 10 hits that a search gives without being told
BEGIN, END = "<!-- bench/quality.py writes from here -->", "<!-- to here -->"


@dataclass(frozen=True)
class Side:
    """One way of searching, and how it compares with exact search; None for that itself."""

    name: str
    found: Evaluation
    against_exact: tuple[Comparison, ...] | None


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--model", default="sentence-transformers/all-MiniLM-L6-v2", show_default=True)
@click.option("--reranker", help="Cross-encoder to rank again with, by name or folder [default: none].")
@click.option("--modes", default="vector text hybrid", show_default=True, help="Modes of the search to measure.")
@click.option("--write", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Page for the tables.")
@click.option("--url", help="Address of Elasticsearch [default: a throw-away local node].")
@click.option("--tolerance", default=0.003, show_default=True, help="Largest loss of nDCG@10 by the default search.")
@click.option("--exact-only", is_flag=True, help="Without Elasticsearch.")
@click.option("--titles/--no-titles", default=True, show_default=True, help="Encode title and text, or the text.")
def main(
    folders: tuple[Path, ...],
    model: str,
    reranker: str | None,
    modes: str,
    write: Path | None,
    url: str | None,
    tolerance: float,
    exact_only: bool,
    titles: bool,
) -> None:
    """Print a table for each folder; exit with 1 when the default search loses more nDCG@10 than --tolerance."""
    encoder = load_encoder(EncoderProfile(model))
    fields = ("title", "text") if titles else ("text",)
    if exact_only:
        for folder in folders:
            print(table(folder, [Side("exact", judge(folder, exact_search(folder, encoder, fields)), None)]))
        return
    ways = {mode: {} if mode == "vector" else {"mode": mode} for mode in modes.split()}
    if reranker:
        ways |= {f"{way}, re-ranked": options | {"rerank": reranker} for way, options in ways.items()}
    with common.server(url) as (client, _):
        about = f"{Path(model).name}, Elasticsearch {describe_server(client)}. " + about_reranking(reranker)
        measured = {folder: measure(folder, client, encoder, fields, ways) for folder in folders}
    page = "\n\n".join([about, *(table(folder, sides) for folder, sides in measured.items())])
    print(page)
    if write:
        before, rest = write.read_text(encoding="utf-8").split(BEGIN)
        write.write_text(f"{before}{BEGIN}\n{page}\n{END}{rest.split(END)[1]}", encoding="utf-8")
    raise SystemExit(int(any(loss(sides) > tolerance for sides in measured.values())))


def about_reranking(reranker: str | None) -> str:
    """Say what ranked again, or that nothing did."""
    if reranker:
        return f"Re-ranked by {Path(reranker).name}."
    return "Re-ranking was not measured: no cross-encoder was at hand (`--reranker`)."


def measure(
    folder: Path,
    client: Elasticsearch,
    encoder: ModelEncoder,
    fields: tuple[str, ...],
    ways: dict[str, dict[str, Any]],
) -> list[Side]:
    """Index ``folder`` and search it in each of the ``ways``, as an application would."""
    exact = judge(folder, exact_search(folder, encoder, fields))
    sides = [Side("exact", exact, None)]
    with common.folder() as scratch:
        report = common.indexer(client, ALIAS, encoder, scratch, text_fields=fields).run(read_documents(corpus(folder)))
    assert report.indexed == report.read, report
    for way, options in ways.items():
        found = judge(folder, Searcher(client, ALIAS), options)
        sides.append(Side(f"{way} (default)" if not options else way, found, compare(found, exact)))
    common.forget(client, ALIAS)
    return sides


def judge(
    folder: Path,
    search: Searcher | Callable[[Sequence[str]], list[list[Hit]]],
    options: dict[str, Any] | None = None,
) -> Evaluation:
    """Search for the queries of ``folder``."""
    queries, qrels = find_beir(folder)
    return evaluate(search, read_queries(queries), read_qrels(qrels), MEASURES, options=options)


def exact_search(
    folder: Path, encoder: ModelEncoder, fields: tuple[str, ...]
) -> Callable[[Sequence[str]], list[list[Hit]]]:
    """Return a search that compares every document with every query by brute force."""
    ids, texts = [], []
    for record in records(folder):
        ids.append(str(record["_id"]))
        texts.append(encoder.profile.join(tuple((record.get(field) or "").strip() for field in fields)))
    vectors = encoder.encode_document(texts)

    def search(queries: Sequence[str]) -> list[list[Hit]]:
        scores = encoder.encode_query(queries) @ vectors.T
        best = np.argsort(-scores, axis=1, kind="stable")[:, :10]
        return [[Hit(ids[i], float(line[i])) for i in row] for line, row in zip(scores, best, strict=True)]

    return search


def records(folder: Path) -> Iterator[Any]:
    """Fields of each document."""
    for record in read_documents(corpus(folder)):
        assert isinstance(record, Record), record
        yield record.fields


def corpus(folder: Path) -> Path:
    """File of the documents."""
    plain = folder / "corpus.jsonl"
    return plain if plain.exists() else folder / "corpus.jsonl.gz"


def table(folder: Path, sides: list[Side]) -> str:
    """Markdown: a row for each way of searching."""
    counts = sides[0].found.counts
    head = f"**{folder.name}**: {counts.judged:,} queries, {sum(1 for _ in records(folder)):,} documents"
    lines = [f"| | {' | '.join(MEASURES)} | {MEASURES[0]} against exact | p |", "|---|" + "---|" * (len(MEASURES) + 2)]
    for side in sides:
        values = " | ".join(f"{side.found.values[measure]:.4f}" for measure in MEASURES)
        against = " | "
        if side.against_exact:
            first = side.against_exact[0]
            p = "< 0.001" if first.p < 0.001 else f"{first.p:.3f}"
            against = f"{first.difference:+.4f} | {p}"
        lines.append(f"| {side.name} | {values} | {against} |")
    return "\n".join([head, "", *lines])


def loss(sides: list[Side]) -> float:
    """What the default search loses of the first measure; nothing where it was not measured."""
    exact = sides[0].found.values[MEASURES[0]]
    return max((exact - side.found.values[MEASURES[0]] for side in sides if side.name.endswith("(default)")), default=0)


if __name__ == "__main__":
    main()
