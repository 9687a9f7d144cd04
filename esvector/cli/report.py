"""What commands print: JSON lines for programs, tables for people."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from esvector.types import IndexReport

__all__ = ["print_json", "print_report"]

_LONG_GRAPH = 1.0  # seconds that are worth a word


def print_json(value: Mapping[str, Any]) -> None:
    """Write one JSON object as a line on stdout."""
    import orjson

    click.echo(orjson.dumps(value, default=str).decode())


def print_report(report: IndexReport, *, as_json: bool, more: Mapping[str, Any] | None = None) -> None:
    """Write what became of a run: one JSON object on stdout, with ``more`` in it, or sentences for people."""
    if as_json:
        print_json(asdict(report) | {"bottleneck": report.bottleneck} | dict(more or {}))
    for line in _report_lines(report):
        click.echo(line, err=as_json)


def _report_lines(report: IndexReport) -> Iterator[str]:
    yield _account(report)
    yield _outcome(report)
    if report.pruned:
        yield f"{report.pruned:,} documents that are not in the source were deleted"
    if report.sent_again:
        yield f"{report.sent_again:,} documents were sent again: the server was busy, or its answer was lost"
    if report.stages:
        shares = ", ".join(f"{s.name} {_share(s.busy, s.workers, report.seconds)}" for s in report.stages)
        yield f"bottleneck: {report.bottleneck} (busy: {shares})"
    if report.truncated:
        yield f"{report.truncated:,} documents are longer than the encoder reads: only their beginning counts"
    if report.superseded:
        named = f": {', '.join(report.repeated_ids)}" if report.repeated_ids else ""
        yield f"{report.superseded:,} records came before another one of their id, which counts{named}"
    if report.dead:
        yield from _rejected(report)


def _account(report: IndexReport) -> str:
    rate = report.read / report.seconds if report.seconds else 0
    states = {
        "indexed": report.indexed,
        "unchanged": report.unchanged,
        "superseded": report.superseded,
        "rejected": report.dead,
        "left out": report.filtered,
    }
    sums = " + ".join(f"{count:,} {name}" for name, count in states.items() if count or name == "indexed")
    encoded = f"{report.encoded:,} encoded, {report.tokens:,} tokens" if report.encoded else "none encoded"
    return f"{report.read:,} records read = {sums}, in {report.seconds:.1f} s ({rate:,.0f} records/s; {encoded})"


def _outcome(report: IndexReport) -> str:
    """What readers see now."""
    if report.segments is None:
        return f"{report.alias} ({report.index}) is up to date"
    kept = f"; {report.previous} is kept for 'esvector rollback {report.alias}'" if report.previous else ""
    graph = ""
    if report.graph_seconds >= _LONG_GRAPH:
        segments = "1 segment" if report.segments == 1 else f"{report.segments} segments"
        graph = f"; its graph took {report.graph_seconds:.1f} s ({segments})"
    return f"readers of {report.alias} now see {report.index}{kept}{graph}"


def _rejected(report: IndexReport) -> Iterator[str]:
    """Where the refused records are, why they were, and what to do."""
    yield f"rejected records are in {report.dead_letters or 'a file that is gone'}:"
    for reason, count in report.reasons.items():
        yield f"  {count:,} x {reason}"
    if report.dead_letters:
        yield f"mend them there, then: esvector retry {shlex.quote(report.dead_letters)} --into {report.alias}"


def _share(busy: float, workers: int, seconds: float) -> str:
    return f"{100 * busy / workers / seconds:.0f} %" if seconds else "-"
