"""What ``esvector evaluate`` prints: one JSON object, or tables."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from esvector.cli.progress import tell

if TYPE_CHECKING:
    from rich.table import Table

    from esvector.evaluate import Comparison, Evaluation, Qrels, Queries

__all__ = ["Report", "print_report"]

_WORST = 5  # queries that are shown without being asked for
_TEXT = 60  # characters of a query
_SMALLEST_P = 0.001


@dataclass(frozen=True, slots=True)
class Report:
    """An evaluation under its name, what it was judged by, and what it was compared with, by name."""

    name: str
    judged: Evaluation
    queries: Queries
    qrels: Qrels
    baselines: Mapping[str, Evaluation]
    comparisons: Mapping[str, Sequence[Comparison]]
    failures: Sequence[str]


def print_report(report: Report, *, per_query: bool, alpha: float, as_json: bool) -> None:
    """Write ``report``: for programs with the measures of each query where ``per_query``, for people as tables."""
    if as_json:
        _print_json(report, per_query=per_query)
        return
    from rich.console import Console

    console = Console(markup=False, emoji=False, highlight=False)  # what is printed is others' text
    measures = _table(report.name, "", "!value")
    for measure, value in report.judged.values.items():
        measures.add_row(measure, f"{value:.4f}")
    console.print(measures)
    counts = report.judged.counts
    click.echo(f"\n{counts.judged:,} queries, {counts.relevant:,} relevant documents")
    for remark in report.judged.remarks:
        click.secho(remark, fg="yellow")
    for name, comparisons in report.comparisons.items():
        click.echo()
        console.print(_compared(report.name, name, comparisons))
        click.secho(textwrap.fill(_about_p(comparisons, alpha), console.width), dim=True)
        for remark in report.baselines[name].remarks:
            click.secho(f"{name}: {remark}", fg="yellow")
    for table in _queries(report, per_query=per_query):
        click.echo()
        console.print(table)


def _print_json(report: Report, *, per_query: bool) -> None:
    from esvector.cli.report import print_json

    found: dict[str, Any] = {
        "name": report.name,
        "measures": dict(report.judged.values),
        "counts": asdict(report.judged.counts),
        "remarks": report.judged.remarks,
        "comparisons": {name: [asdict(one) for one in found] for name, found in report.comparisons.items()},
        "failures": report.failures,
    }
    print_json(found | ({"by_query": report.judged.by_query} if per_query else {}))
    for remark in report.judged.remarks:
        tell(remark)
    for name, baseline in report.baselines.items():
        for remark in baseline.remarks:
            tell(f"{name}: {remark}")


def _compared(name: str, other: str, comparisons: Sequence[Comparison]) -> Table:
    table = _table("", f"!{name}", f"!{other}", "!difference", "!p", "!better", "!as good", "!worse")
    for one in comparisons:
        p = f"< {_SMALLEST_P}" if one.p < _SMALLEST_P else f"{one.p:.3f}"
        numbers = (f"{one.value:.4f}", f"{one.other:.4f}", f"{one.difference:+.4f}", p)
        table.add_row(one.measure, *numbers, *(f"{count:,}" for count in (one.wins, one.ties, one.losses)))
    return table


def _about_p(comparisons: Sequence[Comparison], alpha: float) -> str:
    about = "p: paired randomization test on the difference of each query, two-sided."
    if (tests := len(comparisons)) > 1:
        about += f" Each measure is tested by itself; for all {tests} at once, compare p with {alpha / tests:.2g}."
    return about


def _queries(report: Report, *, per_query: bool) -> list[Table]:
    """Tables of queries: all of them, or the worst, or those that lost most against what it is compared with."""
    judged = report.judged
    if per_query:
        table = _table("query", *(f"!{measure}" for measure in judged.values), "")
        for query, values in judged.by_query.items():
            table.add_row(query, *(f"{value:.4f}" for value in values.values()), _text(report, query))
        return [table]
    if report.baselines:
        return [lost for name, other in report.baselines.items() if (lost := _lost_most(report, name, other))]
    first = next(iter(judged.values))
    worst = judged.worst(first, _WORST)
    table = _table("worst queries", f"!{first}", "!first relevant", "")
    for query in worst:
        value = f"{judged.by_query[query][first]:.4f}"
        table.add_row(query, value, _first_relevant(report, query), _text(report, query))
    return [table] if worst else []


def _lost_most(report: Report, name: str, other: Evaluation) -> Table | None:
    measure = next(iter(report.judged.values))
    losses = {query: other.by_query[query][measure] - now[measure] for query, now in report.judged.by_query.items()}
    lost = sorted((query for query in losses if losses[query] > 0), key=losses.__getitem__, reverse=True)[:_WORST]
    table = _table("lost most", f"!{measure}", f"!{name}", "!first relevant", "")
    for query in lost:
        values = (report.judged.by_query[query][measure], other.by_query[query][measure])
        table.add_row(
            query, *(f"{value:.4f}" for value in values), _first_relevant(report, query), _text(report, query)
        )
    return table if lost else None


def _first_relevant(report: Report, query: str) -> str:
    """Rank of the first relevant document."""
    hits = report.judged.run.get(query, {})
    ranking = sorted(hits, key=hits.__getitem__, reverse=True)
    ranks = (rank for rank, document in enumerate(ranking, 1) if report.qrels[query].get(document, 0) > 0)
    rank = next(ranks, None)
    return "not found" if rank is None else f"rank {rank}"


def _text(report: Report, query: str) -> str:
    return textwrap.shorten(report.queries.get(query, ""), _TEXT, placeholder=" …")


def _table(*titles: str) -> Table:
    """A table whose columns have these titles; those with a ``!`` hold numbers."""
    from rich.table import Table

    table = Table(box=None, header_style="dim", pad_edge=False)
    for title in titles:
        number = title.startswith("!")
        table.add_column(title.removeprefix("!"), justify="right" if number else "left", no_wrap=number)
    return table
