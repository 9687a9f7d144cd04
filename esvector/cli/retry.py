"""``esvector retry``: index what was rejected, once it is fixed."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from esvector.cli.options import open_client, output_option, server_option, state_option, wants_json

__all__ = ["retry"]


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--into", "alias", required=True, metavar="ALIAS", help="Where the records were to go.")
@click.option(
    "--dead-letters", type=click.Path(path_type=Path), help="File for what is rejected again [default: beside FILE]."
)
@state_option
@server_option
@output_option
def retry(
    file: Path, alias: str, dead_letters: Path | None, state: Path | None, url: str | None, as_json: bool
) -> None:
    r"""Index the records of a dead-letter FILE into the live index of ALIAS, with its own encoder and options.

    Edit FILE first: fix the "record" of a line. Each record is indexed under the id that it has in the source. An
    object {"not JSON": ..., "value": ...} stands for a value that JSON cannot hold; replace it with one that it can. A
    line that is not a dead letter is rejected with its place in FILE. FILE is left as it is; what is rejected again
    goes into a file of its own.

    \b
    Example:
      esvector retry papers.dead.jsonl --into papers
    """
    from esvector.cli.progress import show_progress
    from esvector.cli.report import print_report
    from esvector.index.deadletters import DeadLetters
    from esvector.index.indexer import Indexer
    from esvector.index.reembed import live_target

    letters, client = DeadLetters(file), open_client(url)
    next(iter(letters), None)  # a file of something else is refused before anything begins
    live_target(client, alias)  # what is retried is a part of an index, never all of one
    # However many are still bad: whoever retries has mended some of them.
    indexer = Indexer(client, alias, dead_letters=dead_letters or file, state=state, most_refused=1.0)
    with show_progress() as progress:
        report = indexer.run(letters, progress)
    print_report(report, as_json=wants_json(as_json))
    if report.dead:
        from esvector.cli.app import EXIT_REJECTED

        sys.exit(EXIT_REJECTED)
