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
        task, words = bar.add_task("starting", total=None, say=""), _Words(documents)

        def update(progress: RunProgress) -> None:
            share, said = words(progress)
            bar.update(task, description=progress.phase, total=1.0 if share else None, completed=share or 0, say=said)

        yield update


def _lines(documents: Documents | None) -> Callable[[RunProgress], None]:
    last, words = time.monotonic(), _Words(documents)

    def line(progress: RunProgress) -> None:
        nonlocal last
        _, said = words(progress)
        if time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            tell(f"{progress.phase}: {said}" if said else progress.phase)

    return line


class _Words:
    """Says where a run stands; of one that goes on with an earlier one, the rates are its own."""

    def __init__(self, documents: Documents | None) -> None:
        self._documents = documents
        self._first: RunProgress | None = None
        self._first_share = 0.0

    def __call__(self, progress: RunProgress) -> tuple[float | None, str]:
        """Return the share of the input that is done, where it is known, and what to say."""
        if progress.phase not in ("comparing", "indexing"):
            return None, progress.waiting or ""
        share = _share(progress, self._documents)
        if self._first is None or self._first.phase != progress.phase:
            self._first, self._first_share = progress, share or 0.0
        parts = [f"{progress.read:,} read"]
        if progress.encoded or progress.indexed:
            parts += [f"{progress.encoded:,} encoded", f"{progress.indexed:,} indexed"]
        if progress.dead:
            parts.append(f"{progress.dead:,} rejected")
        return share, ", ".join(parts + ([progress.waiting] if progress.waiting else self._rates(progress, share)))

    def _rates(self, progress: RunProgress, share: float | None) -> list[str]:
        first = self._first or progress
        seconds = progress.seconds - first.seconds
        if seconds <= 0:
            return []
        if progress.encoded > first.encoded:
            documents, tokens = progress.encoded - first.encoded, progress.tokens - first.tokens
            parts = [f"{documents / seconds:,.0f} documents/s", f"{tokens / seconds:,.0f} tokens/s"]
        else:
            parts = [f"{(progress.read - first.read) / seconds:,.0f} records/s"]
        if share is not None and share > self._first_share:
            left = int(seconds * (1 - share) / (share - self._first_share))
            parts.append(f"{100 * share:.0f} % done, {left // 60}:{left % 60:02d} left")
        return parts


def _share(progress: RunProgress, documents: Documents | None) -> float | None:
    """Share of the input that is done: what is read of the files, less what still waits to be encoded.

    Of what is unchanged nothing is encoded; it is settled.
    """
    if documents is None or not progress.read or (read := documents.share_read()) is None:
        return None
    return min(1.0, read * max(progress.encoded + progress.dead, progress.settled) / progress.read)
