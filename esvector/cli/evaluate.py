"""``esvector evaluate``: the twin of ``esvector.evaluate``, with an exit status for CI."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from esvector.cli.options import (
    open_client,
    output_option,
    query_cache_option,
    server_option,
    wants_json,
)
from esvector.cli.progress import tell
from esvector.cli.search_options import judged_options

if TYPE_CHECKING:
    from esvector.evaluate import Comparison, Evaluation, Qrels, Queries
    from esvector.search.options import SearchKeywords
    from esvector.search.searcher import Searcher

__all__ = ["evaluate"]

_SECONDS_BETWEEN_LINES = 10.0
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@dataclass(frozen=True, slots=True)
class _Collection:
    """What is judged by. ``queries`` is None only where a run is judged without them."""

    queries: Queries | None
    qrels: Qrels
    measures: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Asking:
    """How an index is searched."""

    url: str | None
    k: int | None
    device: str | None
    query_cache: Path | None
    options: SearchKeywords


@click.command()
@click.argument("alias", required=False)
@click.option("--queries", "queries_file", type=_FILE, help="Queries: JSON lines (BEIR), or lines of id<TAB>text.")
@click.option("--qrels", "qrels_file", type=_FILE, help="Judgements: BEIR's three columns, or TREC's four.")
@click.option(
    "--beir",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder with queries.jsonl, and qrels.tsv or qrels/test.tsv.",
)
@click.option("--measures", help="Measures with spaces between [default: nDCG@10 R@100 RR@10].")
@judged_options
@click.option(
    "-k", "hits", type=click.IntRange(min=1), help="Hits of a query [default: the largest cutoff of the measures]."
)
@click.option("--run-in", type=_FILE, help="Judge this run file instead of searching.")
@click.option(
    "--run-out", type=click.Path(path_type=Path, dir_okay=False), help="Write the hits to this TREC run file."
)
@click.option("--per-query", is_flag=True, help="The measures of each query, too.")
@click.option("--compare-with", metavar="RUN_OR_ALIAS", help="A run file, alias or index to compare with.")
@click.option("--min", "minima", multiple=True, metavar="MEASURE=VALUE", help="Fail below that; repeatable.")
@click.option("--not-worse-than", metavar="RUN_OR_ALIAS", help="Fail where this one is significantly better.")
@click.option(
    "--alpha",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.05,
    show_default=True,
    help="A difference is significant below this p value.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Loss of a measure that --not-worse-than accepts.",
)
@click.option("--device", help="Encode with torch there, such as cuda:0 [default: cpu, without torch].")
@query_cache_option
@server_option
@output_option
def evaluate(
    alias: str | None,
    queries_file: Path | None,
    qrels_file: Path | None,
    beir: Path | None,
    measures: str | None,
    options: SearchKeywords,
    hits: int | None,
    run_in: Path | None,
    run_out: Path | None,
    per_query: bool,
    compare_with: str | None,
    minima: tuple[str, ...],
    not_worse_than: str | None,
    alpha: float,
    tolerance: float,
    device: str | None,
    query_cache: Path | None,
    url: str | None,
    as_json: bool,
) -> None:
    r"""Tell how good searching ALIAS is, by queries whose relevant documents are known.

    For use in CI: the exit status is 1 below a --min, or where --not-worse-than names what is significantly better.

    \b
    Example:
      esvector evaluate papers --queries queries.jsonl --qrels qrels.tsv --run-out today.run
      esvector evaluate papers --beir scifact --min nDCG@10=0.64 --not-worse-than last.run
      esvector evaluate --run-in today.run --qrels qrels.tsv --compare-with last.run
    """
    from esvector.cli.evaluate_report import Report, print_report
    from esvector.errors import QualityError
    from esvector.evaluate import compare, write_run

    asking = _Asking(url, hits, device, query_cache, options)
    others = [name for name in dict.fromkeys((compare_with, not_worse_than)) if name]
    _check_usage(alias, run_in, run_out, others, asking)
    named, floors = _read_measures(measures, minima)
    collection = _read_collection(queries_file, qrels_file, beir, named)
    baselines = {name: _evaluate(name, collection, asking) for name in others}
    judged = _evaluate(alias or str(run_in), collection, asking, is_run=run_in is not None)
    comparisons = {name: compare(judged, baseline) for name, baseline in baselines.items()}
    failures = list(_below(judged, floors))
    if not_worse_than:
        failures += _worse(not_worse_than, comparisons[not_worse_than], alpha, tolerance)
    report = Report(
        alias or str(run_in), judged, collection.queries or {}, collection.qrels, baselines, comparisons, failures
    )
    print_report(report, per_query=per_query, alpha=alpha, as_json=wants_json(as_json))
    if run_out:
        write_run(run_out, judged.run)
    if failures:
        raise QualityError("; ".join(failures), "look at the queries that lost most: --per-query --json")


def _check_usage(
    alias: str | None, run_in: Path | None, run_out: Path | None, others: Sequence[str], asking: _Asking
) -> None:
    from esvector.search.options import SearchOptions

    if (alias is None) == (run_in is None):
        raise click.UsageError("name ALIAS, or a run file to judge instead: --run-in FILE")
    if run_out and not run_out.parent.is_dir():  # found now rather than after all the searching
        raise click.BadParameter(f"there is no folder {run_out.parent}", param_hint="--run-out")
    searched = alias is not None or not all(Path(other).is_file() for other in others)
    if not searched and (asking.k or SearchOptions(**asking.options) != SearchOptions()):
        raise click.UsageError("these options say how to search, but only run files are judged")


def _read_measures(said: str | None, minima: Sequence[str]) -> tuple[tuple[str, ...], list[tuple[str, float]]]:
    """Return the measures, those of ``--min`` included, and the floors, by the names that ir-measures gives them."""
    from esvector.evaluate.measures import DEFAULT_MEASURES, parse_measures

    floors = [_floor(minimum) for minimum in minima]
    asked = (DEFAULT_MEASURES if said is None else said).split()
    measures = parse_measures([*asked, *(name for name, _ in floors)])
    return tuple(map(str, measures)), [(str(parse_measures([name])[0]), value) for name, value in floors]


def _floor(said: str) -> tuple[str, float]:
    name, _, value = said.rpartition("=")
    try:
        floor = float(value)
    except ValueError:
        floor = math.nan
    if not name or not math.isfinite(floor):
        raise click.BadParameter(f"{said!r} is not like nDCG@10=0.64", param_hint="--min")
    return name, floor


def _read_collection(
    queries: Path | None, qrels: Path | None, beir: Path | None, measures: tuple[str, ...]
) -> _Collection:
    from esvector.evaluate import find_beir, read_qrels, read_queries

    if beir is not None and not (queries and qrels):
        found = find_beir(beir)
        queries, qrels = queries or found[0], qrels or found[1]
    if qrels is None:
        raise click.UsageError("name the judgements: --qrels FILE, or --beir FOLDER with both")
    return _Collection(None if queries is None else read_queries(queries), read_qrels(qrels), measures)


def _evaluate(name: str, collection: _Collection, asking: _Asking, *, is_run: bool | None = None) -> Evaluation:
    """Judge the run file, else the search of the alias or index, that ``name`` is."""
    from esvector.evaluate import evaluate, judge, read_run
    from esvector.search.searcher import Searcher

    if is_run or (is_run is None and Path(name).is_file()):
        return judge(read_run(name), collection.qrels, collection.measures, queries=collection.queries)
    if collection.queries is None:
        raise click.UsageError("name the queries: --queries FILE, or --beir FOLDER with both")
    searcher = Searcher(open_client(asking.url), name, device=asking.device, query_cache=asking.query_cache)
    if is_run is None:
        _refuse_neither(searcher)
    with _show_progress(name) as progress:
        return evaluate(
            searcher,
            collection.queries,
            collection.qrels,
            collection.measures,
            k=asking.k,
            options=asking.options,
            progress=progress,
        )


def _refuse_neither(searcher: Searcher) -> None:
    """Of what may be a file or an index, say that it is neither."""
    from esvector.errors import ConfigError, IndexNotFoundError

    try:
        _ = searcher.target
    except IndexNotFoundError as error:
        raise ConfigError(f"no file is named {searcher.alias}, and {error.message}", "check the name") from error


def _below(judged: Evaluation, floors: Sequence[tuple[str, float]]) -> Iterator[str]:
    for measure, floor in floors:
        if judged.values[measure] < floor:
            yield f"{measure} is {judged.values[measure]:.4f}, below the {floor:g} of --min"


def _worse(name: str, comparisons: Sequence[Comparison], alpha: float, tolerance: float) -> Iterator[str]:
    for found in comparisons:
        if found.is_worse(alpha=alpha, tolerance=tolerance):
            yield (
                f"{found.measure} is {found.value:.4f}, significantly worse than the {found.other:.4f} of {name} "
                f"(p = {found.p:.2g}, {found.losses:,} queries lost and {found.wins:,} won)"
            )


@contextmanager
def _show_progress(name: str) -> Iterator[Callable[[int, int], None]]:
    """Give what shows the number of queries done, on stderr: a bar on a terminal, a line now and then elsewhere."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(name)
        return
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(f"searching {name}")
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _lines(name: str) -> Callable[[int, int], None]:
    last = time.monotonic()

    def line(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            tell(f"searching {name}: {done:,} of {total:,} queries")

    return line
