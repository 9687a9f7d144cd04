"""``esvector search`` and ``esvector similar``: the twins of ``Searcher.search`` and ``Searcher.similar``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from esvector.cli.options import open_client, output_option, query_cache_option, server_option, wants_json
from esvector.cli.search_options import example_options, search_options

if TYPE_CHECKING:
    from esvector.search.options import SearchKeywords

__all__ = ["search", "similar"]


@click.command()
@click.argument("alias")
@click.argument("query")
@search_options
@click.option("--device", help="Encode with torch there, such as cuda:0 [default: cpu, without torch].")
@query_cache_option
@server_option
@output_option
def search(
    alias: str,
    query: str,
    options: SearchKeywords,
    device: str | None,
    query_cache: Path | None,
    url: str | None,
    as_json: bool,
) -> None:
    r"""Find the documents of ALIAS that fit QUERY best, encoded as the index itself says.

    \b
    Example:
      esvector search papers "graph neural networks" --where "year >= 2020 and venue in (ACL, EMNLP)"
    """
    from esvector.cli.hits import print_results
    from esvector.search.searcher import Searcher

    searcher = Searcher(open_client(url), alias, device=device, query_cache=query_cache)
    results = searcher.search(query, **options)
    print_results(results, searcher.target.passport.text_fields, as_json=wants_json(as_json))


@click.command()
@click.argument("alias")
@click.argument("document_ids", metavar="[ID]...", nargs=-1)
@click.option("--unlike", multiple=True, metavar="ID", help="Document that is not wanted.")
@click.option("--text", multiple=True, help="Text that is wanted, encoded as a document.")
@example_options
@click.option("--device", help="Encode texts with torch there, such as cuda:0.")
@query_cache_option
@server_option
@output_option
def similar(
    alias: str,
    document_ids: tuple[str, ...],
    unlike: tuple[str, ...],
    text: tuple[str, ...],
    options: SearchKeywords,
    device: str | None,
    query_cache: Path | None,
    url: str | None,
    as_json: bool,
) -> None:
    r"""Find the documents of ALIAS that are nearest to its documents ID, or to texts; several are taken together.

    \b
    Example:
      esvector similar papers 2104.08663 -k 5
    """
    from esvector.cli.hits import print_results
    from esvector.search.searcher import Searcher

    searcher = Searcher(open_client(url), alias, device=device, query_cache=query_cache)
    results = searcher.similar(document_ids, unlike=unlike, text=text, **options)
    print_results(results, searcher.target.passport.text_fields, as_json=wants_json(as_json))
