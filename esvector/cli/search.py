"""``esvector search`` and ``esvector similar``: the twins of ``Searcher.search`` and ``Searcher.similar``."""

from __future__ import annotations

from pathlib import Path

import click

from esvector.cli.options import (
    filter_options,
    open_client,
    output_option,
    parse_raw_filter,
    query_cache_option,
    server_option,
    wants_json,
)

__all__ = ["search", "similar"]


@click.command()
@click.argument("alias")
@click.argument("query")
@filter_options
@click.option("--device", help="Encode with torch there, such as cuda:0 [default: cpu, without torch].")
@query_cache_option
@server_option
@output_option
def search(
    alias: str,
    query: str,
    k: int,
    where: str | None,
    raw_filter: str | None,
    device: str | None,
    query_cache: Path | None,
    url: str | None,
    as_json: bool,
) -> None:
    r"""Find the documents of ALIAS that are nearest to QUERY, encoded as the index itself says.

    \b
    Example:
      esvector search papers "graph neural networks" --where "year >= 2020 and venue in (ACL, EMNLP)"
    """
    from esvector.cli.report import print_hits
    from esvector.search.searcher import Searcher

    searcher = Searcher(open_client(url), alias, device=device, query_cache=query_cache)
    hits = searcher.search(query, k=k, where=where, filter=parse_raw_filter(raw_filter))
    print_hits(hits, searcher.target.passport.text_fields, as_json=wants_json(as_json))


@click.command()
@click.argument("alias")
@click.argument("document_id", metavar="ID")
@filter_options
@server_option
@output_option
def similar(
    alias: str, document_id: str, k: int, where: str | None, raw_filter: str | None, url: str | None, as_json: bool
) -> None:
    r"""Find the documents of ALIAS that are nearest to its document ID, without encoding anything.

    \b
    Example:
      esvector similar papers 2104.08663 -k 5
    """
    from esvector.cli.report import print_hits
    from esvector.search.searcher import Searcher

    searcher = Searcher(open_client(url), alias)
    hits = searcher.similar(document_id, k=k, where=where, filter=parse_raw_filter(raw_filter))
    print_hits(hits, searcher.target.passport.text_fields, as_json=wants_json(as_json))
