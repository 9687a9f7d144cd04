"""``esvector tune``: the twin of ``esvector.evaluate.tune.tune``."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from esvector.cli.measuring import milliseconds, query_options, seconds_option, show_measuring
from esvector.cli.options import (
    open_client,
    output_option,
    query_cache_option,
    server_option,
    state_option,
    wants_json,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from esvector.evaluate.frontier import Trial
    from esvector.evaluate.tune import CopyOptions, TuneReport

__all__ = ["tune"]

_COPIED = 20_000


@click.command()
@click.argument("alias")
@click.option("--recall", type=float, default=0.95, show_default=True, help="Share of the exact hits to be found.")
@click.option("--p95", callback=seconds_option, metavar="TIME", help="95 of 100 searches in this time, such as 30ms.")
@click.option("-k", type=int, default=10, show_default=True, help="How many hits are searched for.")
@click.option("--types", metavar="LIST", help="Also try these vector types on a sample copy: hnsw,bbq_hnsw or all.")
@click.option(
    "--sample-copy",
    type=click.IntRange(1),
    metavar="N",
    help=f"Documents of the copy [default: {_COPIED:,}, of --types].",
)
@click.option(
    "--m", "ms", type=int, multiple=True, help="Of the graph of the copy [default: as the index]. Repeatable."
)
@click.option("--ef-construction", "efs", type=int, multiple=True, help="Likewise. Repeatable.")
@click.option(
    "--plot", type=click.Path(path_type=Path, dir_okay=False), help="Draw what was measured: a .png, .svg or .pdf."
)
@click.option("--apply/--dry-run", "store", default=True, help="Store the choice in the passport [default], or do not.")
@query_options(sample=200)
@query_cache_option
@state_option
@server_option
@output_option
def tune(
    alias: str,
    recall: float,
    p95: float | None,
    k: int,
    types: str | None,
    sample_copy: int | None,
    ms: tuple[int, ...],
    efs: tuple[int, ...],
    plot: Path | None,
    store: bool,
    queries: Path | None,
    sample: int,
    where: tuple[str, ...],
    seed: int,
    device: str | None,
    query_cache: Path | None,
    state: Path | None,
    url: str | None,
    as_json: bool,
) -> None:
    r"""Find the cheapest way to search ALIAS that finds enough, and let every later search use it.

    Tried are numbers of candidates and, of quantized vectors, how many are rescored. What is chosen finds --recall with
    the lower end of its 95 % confidence interval, under every --where. Exit status 1 when nothing does.

    \b
    Example:
      esvector tune papers --recall 0.98 --p95 30ms
      esvector tune papers --dry-run --types all --plot frontier.png
    """
    from esvector.cli.report import print_json
    from esvector.evaluate.plot import check_picture, plot_frontier
    from esvector.evaluate.queries import read_queries
    from esvector.evaluate.tune import tune as measure

    if plot is not None:
        check_picture(plot)
    with show_measuring() as progress:
        report = measure(
            open_client(url),
            alias,
            recall=recall,
            p95=p95,
            k=k,
            where=(None, *where),
            queries=None if queries is None else read_queries(queries),
            sample=sample,
            copy=_copy(types, sample_copy, ms, efs),
            store=store,
            seed=seed,
            device=device,
            query_cache=query_cache,
            state=state,
            progress=progress,
        )
    if plot is not None:
        plot_frontier(report, plot)
    as_json = wants_json(as_json)
    if as_json:
        print_json(asdict(report))
    else:
        _print(report)
    for line in _conclusion(report):
        click.echo(line, err=as_json)
    if report.chosen is None:
        from esvector.cli.app import EXIT_FAILED

        sys.exit(EXIT_FAILED)


def _copy(types: str | None, documents: int | None, m: tuple[int, ...], efs: tuple[int, ...]) -> CopyOptions | None:
    from esvector.evaluate.tune import CopyOptions

    if types is None and documents is None and not m and not efs:
        return None
    named = () if types in (None, "all") else tuple(name.strip() for name in str(types).split(","))
    return CopyOptions(documents or _COPIED, named, m, efs)


def _print(report: TuneReport) -> None:
    """Write the frontier of what was searched: of the live index, then of each copy."""
    from rich.console import Console
    from rich.filesize import decimal
    from rich.table import Table

    from esvector.evaluate.frontier import find_frontier

    click.echo(f"{report.index}: {report.documents:,} documents, {report.queries:,} queries, k {report.k}")
    table = Table(box=None, header_style="dim", pad_edge=False)
    for name in (
        "vectors",
        "num_candidates",
        "oversample",
        "recall",
        "95 % interval",
        "p50",
        "p95 ms",
        "a million",
        "",
    ):
        table.add_column(name, justify="left" if name in ("vectors", "") else "right", no_wrap=True)
    groups: dict[tuple[bool, str, int | None, int | None], list[Trial]] = {}
    for trial in report.trials:
        groups.setdefault((trial.live, trial.vector_type, trial.m, trial.ef_construction), []).append(trial)
    for trials in groups.values():
        for trial in _shown(find_frontier(trials), report.chosen):
            table.add_row(
                _vectors(trial),
                str(trial.num_candidates),
                "" if trial.oversample is None else f"{trial.oversample:g}",
                f"{trial.recall:.4f}",
                f"{trial.interval.low:.4f} to {trial.interval.high:.4f}",
                milliseconds(trial.latency.p50),
                milliseconds(trial.latency.p95),
                decimal(trial.bytes_per_million),
                "chosen" if trial == report.chosen else "" if trial.live else "sample copy",
                style="bold" if trial == report.chosen else None,
            )
    Console().print(table)


def _shown(frontier: list[Trial], chosen: Trial | None) -> list[Trial]:
    """The frontier, with what was chosen: of several that are as fast, it may not be the one that is on it."""
    if chosen is None or chosen in frontier or not frontier[0].live:
        return frontier
    return sorted([*frontier, chosen], key=lambda trial: trial.latency.p50)


def _vectors(trial: Trial) -> str:
    return trial.vector_type if trial.m is None else f"{trial.vector_type} m {trial.m} ef {trial.ef_construction}"


def _conclusion(report: TuneReport) -> Iterator[str]:
    goal = f"recall {report.goal.recall:g}"
    if report.goal.p95 is not None:
        goal += f" with 95 of 100 searches in {milliseconds(report.goal.p95)} ms"
    if report.chosen is not None:
        over = "" if report.chosen.oversample is None else f", oversample {report.chosen.oversample:g}"
        kept = "searches use it from now on" if report.stored else "not stored (--dry-run)"
        yield f"chosen for {goal}: num_candidates {report.chosen.num_candidates}{over}; {kept}"
        return
    yield f"nothing that was tried reaches {goal} (by the lower end of the interval); nothing is stored"
    if (near := report.nearest) is not None:
        over = "" if near.oversample is None else f", oversample {near.oversample:g}"
        under = "" if near.where is None else f" under {near.where}"
        yield (
            f"nearest: num_candidates {near.num_candidates}{over}: recall {near.recall:.4f} "
            f"({near.interval.low:.4f} to {near.interval.high:.4f}){under}, p95 {milliseconds(near.latency.p95)} ms; "
            "more queries (--sample) make the interval narrower, and --types all tries other vector types"
        )
