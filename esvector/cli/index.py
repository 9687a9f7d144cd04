"""``esvector index``: the twin of ``Indexer.run``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from esvector.cli.options import (
    DocumentOptions,
    EncoderOptions,
    document_options,
    encoder_options,
    open_client,
    output_option,
    query_cache_option,
    server_option,
    state_option,
    wants_json,
)

if TYPE_CHECKING:
    from esvector.index.run_options import Graph

__all__ = ["index"]


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("--into", "alias", required=True, metavar="ALIAS", help="Name to search under.")
@encoder_options(model_required=False)
@document_options
@click.option(
    "--graph",
    type=click.Choice(["deferred", "inline"]),
    default="deferred",
    show_default=True,
    help="Build a new version's graph once at the end, or as documents come.",
)
@click.option("--rebuild", is_flag=True, help="Build a new version, also where the live one could be updated.")
@click.option("--prune", is_flag=True, help="Delete documents that are not in SOURCE.")
@click.option("--force", is_flag=True, help="Let the run delete more than a tenth of the documents that are there.")
@click.option("--take-over", is_flag=True, help="Move ALIAS away from an index that esvector did not make.")
@click.option("--skip-empty", is_flag=True, help="Leave records without text out, instead of rejecting them.")
@query_cache_option
@state_option
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="Time to finish what is under way when interrupted.",
)
@click.option("--senders", type=click.IntRange(1, 32), default=4, show_default=True, help="Bulk requests at once.")
@click.option(
    "--dead-letters", type=click.Path(path_type=Path), help="File for rejected records [default: ALIAS.dead.jsonl]."
)
@server_option
@output_option
def index(
    sources: tuple[str, ...],
    alias: str,
    encoder: EncoderOptions,
    document: DocumentOptions,
    graph: Graph,
    rebuild: bool,
    prune: bool,
    force: bool,
    take_over: bool,
    skip_empty: bool,
    query_cache: Path | None,
    state: Path | None,
    grace: float,
    senders: int,
    dead_letters: Path | None,
    url: str | None,
    as_json: bool,
) -> None:
    r"""Encode documents and load them into ALIAS: what is there and unchanged is left alone.

    The first time, and after a change of the model or of options that decide what the index looks like, a new version
    is built, which readers see once it is verified. A run that was interrupted is continued by the same command.

    A SOURCE is a file of JSON lines (also gzipped), CSV or Parquet, a pattern such as 'data/*.jsonl', or - for stdin.

    \b
    Example:
      esvector index papers.jsonl --into papers --model sentence-transformers/all-MiniLM-L6-v2
    """
    from esvector.cli.progress import show_progress
    from esvector.cli.report import print_report
    from esvector.index.indexer import Indexer
    from esvector.index.sources import read_documents

    documents = read_documents(*sources)
    indexer = Indexer(
        open_client(url),
        alias,
        profile=encoder.profile(),
        text_fields=document.text_fields,
        id_field=document.id_field,
        mapping=document.mapping,
        field_types=document.field_types,
        vector_field=document.vector_field,
        dead_letters=dead_letters,
        senders=senders,
        devices=encoder.devices,
        backend=encoder.backend,
        task=encoder.task,
        passages=document.passages,
        given=document.given,
        element_type=document.element_type,
        query_cache=query_cache,
        graph=graph,
        rebuild=rebuild,
        prune=prune,
        most_pruned=1.0 if force else 0.1,
        take_over=take_over,
        skip_empty=skip_empty,
        state=state,
        grace=grace,
    )
    with show_progress(documents) as progress:
        report = indexer.run(documents, progress)
    print_report(report, as_json=wants_json(as_json))
    if report.dead:
        from esvector.cli.app import EXIT_REJECTED

        sys.exit(EXIT_REJECTED)
