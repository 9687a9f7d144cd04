"""``esvector recall``: the twin of ``measure_recall``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from esvector.cli.measuring import milliseconds, query_options, show_measuring
from esvector.cli.options import open_client, output_option, query_cache_option, server_option, wants_json

if TYPE_CHECKING:
    from esvector.evaluate.recall import RecallPoint, RecallReport

__all__ = ["recall"]


@click.command()
@click.argument("alias")
@click.option("-k", "ks", type=int, multiple=True, default=(10, 100), show_default=True, help="Hits. Repeatable.")
@click.option(
    "--num-candidates", type=int, multiple=True, help="Measure with so many [default: as a search does]. Repeatable."
)
@click.option(
    "--oversample", type=float, help="Of quantized vectors, rescore so many times k [default: the mapping's]."
)
@query_options(sample=100)
@query_cache_option
@server_option
@output_option
def recall(
    alias: str,
    ks: tuple[int, ...],
    num_candidates: tuple[int, ...],
    oversample: float | None,
    queries: Path | None,
    sample: int,
    where: tuple[str, ...],
    seed: int,
    device: str | None,
    query_cache: Path | None,
    url: str | None,
    as_json: bool,
) -> None:
    r"""Measure how much of what an exact search of ALIAS finds its approximate search finds.

    The queries are those of a file, else documents of the index, searched for by their own vectors. Every --where is
    measured beside the search without a filter.

    \b
    Example:
      esvector recall papers --where "year >= 2020" --where "venue = ACL"
    """
    from esvector.cli.report import print_json
    from esvector.evaluate.queries import read_queries
    from esvector.evaluate.recall import measure_recall

    with show_measuring() as progress:
        report = measure_recall(
            open_client(url),
            alias,
            queries=None if queries is None else read_queries(queries),
            sample=sample,
            k=ks,
            where=(None, *where),
            num_candidates=num_candidates or (None,),
            oversample=oversample,
            seed=seed,
            device=device,
            query_cache=query_cache,
            progress=progress,
        )
    if wants_json(as_json):
        about = {name: value for name, value in asdict(report).items() if name != "points"}
        for point in report.points:
            print_json(about | asdict(point))
    else:
        _print(report)


def _print(report: RecallReport) -> None:
    from rich.console import Console
    from rich.table import Table

    drawn = "queries of the file" if report.source == "file" else "documents drawn, by their own vectors"
    click.echo(f"{report.index} ({report.vector_type}): {report.points[0].queries:,} {drawn}")
    table = Table(box=None, header_style="dim", pad_edge=False)
    for name in (
        "k",
        "num_candidates",
        "filter",
        "match",
        "recall",
        "95 % interval",
        "worst 10 %",
        "p50 / p95 ms",
        "exact",
    ):
        table.add_column(name, justify="left" if name == "filter" else "right", no_wrap=name != "filter")
    for point in report.points:
        table.add_row(*_row(point))
    Console().print(table)


def _row(point: RecallPoint) -> tuple[str, ...]:
    from rich.markup import escape

    share = f"{point.documents:,}" if point.where is None else f"{point.documents:,} ({point.selectivity:.2%})"
    return (
        str(point.k),
        "default" if point.num_candidates is None else str(point.num_candidates),
        escape(point.where or "none"),
        share,
        f"[bold]{point.recall:.4f}[/bold]",
        f"{point.interval.low:.4f} to {point.interval.high:.4f}",
        f"{point.worst_decile:.2f}",
        f"{milliseconds(point.approximate.p50)} / {milliseconds(point.approximate.p95)}",
        f"{milliseconds(point.exact.p50)} / {milliseconds(point.exact.p95)}",
    )
