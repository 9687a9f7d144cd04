"""``esvector demo``: the whole way on this machine, from nothing to hits, with a real corpus and a real model."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from elasticsearch import Elasticsearch

    from esvector.encode.encoder import Encoder
    from esvector.search.searcher import Searcher
    from esvector.types import Hit, IndexReport

__all__ = ["demo"]

ALIAS = "python-docs"
MODEL = "all-MiniLM-L6-v2"
QUERY = "run several functions at the same time"
FILTERED_QUERY = "make a file smaller"
FILTER = "kind = function and module in (gzip, bz2, lzma, zlib, shutil)"
EXAMPLE = "json.dumps"
_HITS = 3


@click.command()
@click.option(
    "--export", type=click.Path(path_type=Path, dir_okay=False), help="Only write the corpus there, as JSON lines."
)
def demo(export: Path | None) -> None:
    r"""Index the documentation of Python's standard library and search it, on this machine.

    Starts a local Elasticsearch unless ESVECTOR_URL names another one. Nothing is asked, nothing leaves the machine.

    \b
    Example:
      esvector demo
    """
    from esvector.demo import python_docs

    if export is not None:
        _export(export)
        return
    documents = list(python_docs())
    _say(f"{len(documents):,} pieces of documentation read from the Python standard library.")
    client, encoder = _client_and_encoder()
    report = _index(client, encoder, documents)
    _say(
        f"{report.indexed:,} documents encoded by {MODEL} and indexed in {report.seconds:.1f} s "
        f"({report.indexed / report.seconds:,.0f} documents/s, {report.tokens / report.seconds:,.0f} tokens/s)."
    )
    _search(client)
    _what_next(client)


def _export(path: Path) -> None:
    import orjson

    from esvector.demo import python_docs

    count = 0
    with path.open("wb") as file:
        for document in python_docs():
            file.write(orjson.dumps(document) + b"\n")
            count += 1
    click.echo(f"{count:,} documents written to {path}", err=True)


def _client_and_encoder() -> tuple[Elasticsearch, Encoder]:
    """The server starts while the model loads: each takes seconds, and neither needs the other."""
    from esvector.cli.options import open_client
    from esvector.encode.loading import load_encoder
    from esvector.encode.profile import EncoderProfile
    from esvector.errors import require

    node = None
    if not os.environ.get("ESVECTOR_URL"):
        require("local", "jgo", "cjdk", "psutil", "filelock")
        from esvector.cli.node import local_node

        node = local_node()
        _say("Starting a local Elasticsearch (fetched on the first run) ...")
        node.start(wait=False)
    _say(f"Loading the model {MODEL} ...")
    encoder = load_encoder(EncoderProfile(MODEL))
    if node is not None:
        status = node.wait_healthy()
        _say(f"Elasticsearch {status.version} is running at {status.url}.")
    return open_client(None), encoder


def _index(client: Elasticsearch, encoder: Encoder, documents: list[dict[str, object]]) -> IndexReport:
    from esvector.cli.progress import show_progress
    from esvector.index.indexer import Indexer
    from esvector.index.versions import delete_version

    _say("Encoding and indexing ...")
    with show_progress() as progress:
        report = Indexer(client, ALIAS, encoder=encoder, rebuild=True).run(documents, progress)
    if report.previous is not None:
        delete_version(client, report.previous)  # of an earlier demo
    return report


def _search(client: Elasticsearch) -> None:
    from esvector.search.searcher import Searcher

    searcher = Searcher(client, ALIAS)
    searcher.search(QUERY, k=1)  # what the first request pays for connecting is no part of the timings
    _show(searcher, f'esvector search {ALIAS} "{QUERY}"', lambda: searcher.search(QUERY, k=_HITS))
    _show(
        searcher,
        f'esvector search {ALIAS} "{FILTERED_QUERY}" --where "{FILTER}"',
        lambda: searcher.search(FILTERED_QUERY, k=_HITS, where=FILTER),
    )
    _show(searcher, f"esvector similar {ALIAS} {EXAMPLE}", lambda: searcher.similar(EXAMPLE, k=_HITS))


def _show(searcher: Searcher, command: str, ask: Callable[[], Sequence[Hit]]) -> None:
    from esvector.cli.hits import print_hits

    started = time.perf_counter()
    hits = ask()
    seconds = time.perf_counter() - started
    click.echo(f"\n{click.style('$ ' + command, bold=True)}   ({1000 * seconds:.0f} ms)")
    print_hits(hits, searcher.target.passport.text_fields, as_json=False)


def _what_next(client: Elasticsearch) -> None:
    from esvector.client import address

    local = not os.environ.get("ESVECTOR_URL")
    left = (
        f"The local Elasticsearch stays running, with {ALIAS} in it."
        if local
        else f"The index {ALIAS} stays at {address(client)}."
    )
    click.echo(f"\n{left} Try next:")
    click.echo(f'  esvector search {ALIAS} "your own words" --where "kind = class"')
    click.echo(f"  esvector status {ALIAS}")
    click.echo("  esvector index yours.jsonl --into yours --model sentence-transformers/all-MiniLM-L6-v2")
    if local:
        click.echo("Stop it with 'esvector node stop'; 'esvector node reset' also deletes its data.")


def _say(message: str) -> None:
    click.echo(message, err=True)
