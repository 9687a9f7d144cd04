"""What the commands that measure an index share: their options, progress, and how numbers are written."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from esvector.cli.progress import tell

__all__ = ["milliseconds", "query_options", "seconds_option", "show_measuring"]

_F = TypeVar("_F", bound=Callable[..., Any])
_UNITS = {"ms": 1e-3, "s": 1.0}


def query_options(sample: int) -> Callable[[_F], _F]:
    """Return what adds ``--queries``, ``--sample`` (by default so many), ``--seed``, ``--where`` and ``--device``."""

    def add(command: _F) -> _F:
        for option in (
            click.option("--device", help="Encode with torch there, such as cuda:0 [default: cpu, without torch]."),
            click.option("--seed", type=int, default=0, show_default=True, help="The same one draws the same sample."),
            click.option(
                "--where",
                multiple=True,
                metavar="EXPR",
                help='Measure under this filter, too, such as "year >= 2020". Repeatable.',
            ),
            click.option(
                "--sample",
                type=click.IntRange(1, 10_000),
                default=sample,
                show_default=True,
                help="Without --queries: so many documents are searched for by their own vectors.",
            ),
            click.option(
                "--queries",
                type=click.Path(path_type=Path, dir_okay=False),
                help='Queries: a text file with one a line, or JSON lines with "text" or "query".',
            ),
        ):
            command = option(command)
        return command

    return add


def seconds_option(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    """Read a time such as 30ms or 0.5s. Raises click.BadParameter for anything else."""
    if value is None:
        return None
    for unit, size in _UNITS.items():
        number = value.strip().removesuffix(unit)
        if number != value.strip():
            try:
                return float(number) * size
            except ValueError:
                break
    raise click.BadParameter(f"{value!r} is no time: write it like 30ms or 0.5s")


def milliseconds(seconds: float) -> str:
    """Seconds as milliseconds, with as many digits as mean something."""
    return f"{1000 * seconds:.1f}" if seconds < 0.1 else f"{1000 * seconds:,.0f}"


@contextmanager
def show_measuring() -> Iterator[Callable[[str, int, int], None]]:
    """Give a callback for phase, done and total: a bar on a terminal, a line for each phase elsewhere."""
    if not sys.stderr.isatty():
        said: set[str] = set()

        def name(phase: str, done: int, total: int) -> None:
            if phase not in said:
                said.add(phase)
                tell(phase)

        yield name
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def update(phase: str, done: int, total: int) -> None:
            if bar.tasks[task].description != phase:
                bar.reset(task, description=phase, total=total)
            bar.update(task, completed=done)

        yield update
