"""Progress of a run on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from esvector.index.sources import Documents
    from esvector.types import Progress as RunProgress

__all__ = ["show_progress", "tell"]

_SECONDS_BETWEEN_LINES = 10.0


def tell(text: str) -> None:
    """Write a line to stderr. That nobody reads it any more, as in ``2>&1 | head -1``, is no reason to end a run."""
    try:
        click.echo(text, err=True)
    except BrokenPipeError:
        nobody = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nobody, sys.stderr.fileno())
        os.close(nobody)


@contextmanager
def show_progress(documents: Documents | None = None) -> Iterator[Callable[[RunProgress], None]]:
    """Give a callback for ``Indexer.run``; ``documents`` tells how much of the files is read, for the time left."""
    if not sys.stderr.isatty():
        yield _lines(documents)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[say]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("loading the encoder", total=None, say="")

        def update(progress: RunProgress) -> None:
            share = _share(progress, documents)
            bar.update(
                task,
                description=progress.phase,
                total=1.0 if share else None,
                completed=share or 0,
                say=_say(progress, share),
            )

        yield update


def _lines(documents: Documents | None) -> Callable[[RunProgress], None]:
    last = time.monotonic()

    def line(progress: RunProgress) -> None:
        nonlocal last
        if time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            tell(f"{progress.phase}: {_say(progress, _share(progress, documents))}")

    return line


def _share(progress: RunProgress, documents: Documents | None) -> float | None:
    """Share of the input that is encoded: what is read of the files, less what still waits to be encoded."""
    if documents is None or not progress.read or (read := documents.share_read()) is None:
        return None
    return min(1.0, read * (progress.encoded + progress.dead) / progress.read)


def _say(progress: RunProgress, share: float | None) -> str:
    seconds = max(progress.seconds, 1e-9)
    parts = [f"{progress.encoded:,} encoded, {progress.indexed:,} indexed"]
    if progress.dead:
        parts.append(f"{progress.dead:,} rejected")
    parts.append(f"{progress.encoded / seconds:,.0f} documents/s")
    parts.append(f"{progress.tokens / seconds:,.0f} tokens/s")
    if progress.waiting:
        return f"{parts[0]}, {progress.waiting}"
    if share:
        left = int(progress.seconds * (1 - share) / share)
        parts.append(f"{100 * share:.0f} % encoded, {left // 60}:{left % 60:02d} left")
    return ", ".join(parts)
