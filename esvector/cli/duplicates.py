"""``esvector duplicates``: the pairs of documents that are nearly the same, or the clusters that they form."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING

import click

from esvector.cli.options import open_client, output_option, parse_raw_filter, server_option, wants_json
from esvector.cli.progress import tell

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

    from esvector.search.duplicates import Pair

__all__ = ["duplicates"]

_SECONDS_BETWEEN_LINES = 10.0
_SHOWN = 80  # characters of a text
_IN_CLUSTER = 20  # documents of a cluster that are shown on a terminal


@click.command()
@click.argument("alias")
@click.option("--min-score", type=float, default=0.9, show_default=True, help="Least cosine (or dot product).")
@click.option("--where", metavar="EXPR", help='Compare only these, such as "lang = en".')
@click.option("--filter", "raw_filter", metavar="JSON", help="The same in Query DSL, as JSON.")
@click.option("--clusters", "by_cluster", is_flag=True, help="Documents that hang together, instead of pairs.")
@click.option("--limit", type=click.IntRange(min=1), help="Stop after so many pairs, or show so many clusters.")
@server_option
@output_option
def duplicates(
    alias: str,
    min_score: float,
    where: str | None,
    raw_filter: str | None,
    by_cluster: bool,
    limit: int | None,
    url: str | None,
    as_json: bool,
) -> None:
    r"""List the pairs of documents of ALIAS that are nearly the same, by the vectors that are there.

    Pairs come as they are found. With --clusters, documents that hang together by pairs are one cluster; the largest
    come first, when all is compared.

    \b
    Example:
      esvector duplicates papers --min-score 0.95 --where "year >= 2020"
    """
    from esvector.search.duplicates import clusters
    from esvector.search.searcher import Searcher

    searcher = Searcher(open_client(url), alias)
    raw = parse_raw_filter(raw_filter)
    text_fields = searcher.target.passport.text_fields
    show = None if wants_json(as_json) else _texts(searcher.client, alias, text_fields)
    count = _Count()
    with closing(searcher.duplicates(min_score, where=where, filter=raw, progress=count.note)) as pairs:
        if by_cluster:
            found = clusters(count(pairs))
            _print_clusters(found[:limit], show)
            click.echo(f"{count.summary(None)}, in {len(found):,} clusters", err=True)
        else:
            _print_pairs(count(islice(pairs, limit)), show)
            click.echo(count.summary(limit), err=True)


class _Count:
    """Counts the pairs that pass, and tells now and then how far the comparison is."""

    def __init__(self) -> None:
        self._pairs = self._done = self._total = 0
        self._last = time.monotonic()

    def __call__(self, pairs: Iterable[Pair]) -> Iterator[Pair]:
        for pair in pairs:
            self._pairs += 1
            yield pair

    def note(self, done: int, total: int) -> None:
        """Note that ``done`` of ``total`` documents are compared."""
        self._done, self._total = done, total
        if time.monotonic() - self._last >= _SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            tell(f"{done:,} of {total:,} documents compared, {self._pairs:,} pairs")

    def summary(self, limit: int | None) -> str:
        """Say what was found."""
        if self._pairs == limit:
            return f"stopped after {self._pairs:,} pairs (--limit)"
        return f"{self._pairs:,} pairs among {self._total:,} documents"


def _texts(client: Elasticsearch, alias: str, text_fields: Sequence[str]) -> Callable[[Sequence[str]], dict[str, str]]:
    """Return what gives the beginnings of the texts of documents, by their ids."""

    def fetch(ids: Sequence[str]) -> dict[str, str]:
        body = {"query": {"ids": {"values": list(ids)}}, "size": len(ids), "_source": list(text_fields)}
        hits = client.search(index=alias, body=body)["hits"]["hits"]
        joined = {hit["_id"]: " ".join(str(hit["_source"].get(name) or "") for name in text_fields) for hit in hits}
        return {id_: textwrap.shorten(text, _SHOWN, placeholder=" …") for id_, text in joined.items()}

    return fetch


def _print_pairs(pairs: Iterable[Pair], texts: Callable[[Sequence[str]], dict[str, str]] | None) -> None:
    from esvector.cli.report import print_json

    for pair in pairs:
        if texts is None:
            print_json(asdict(pair))
        else:
            _print_group(f"{pair.score:6.3f}", (pair.first, pair.second), texts)


def _print_clusters(found: Sequence[Sequence[str]], texts: Callable[[Sequence[str]], dict[str, str]] | None) -> None:
    from esvector.cli.report import print_json

    for ids in found:
        if texts is None:
            print_json({"ids": ids})
        else:
            _print_group(f"{len(ids):6,}", ids, texts)


def _print_group(label: str, ids: Sequence[str], texts: Callable[[Sequence[str]], dict[str, str]]) -> None:
    """Write documents that are alike, a line each, ``label`` before the first."""
    shown = ids[:_IN_CLUSTER]
    beginnings = texts(shown)
    for n, id_ in enumerate(shown):
        left = click.style(label, fg="green", bold=True) if n == 0 else " " * len(label)
        click.echo(f"{left}  {click.style(id_, bold=True)}  {click.style(beginnings.get(id_, ''), dim=True)}".rstrip())
    if len(ids) > len(shown):
        click.echo(f"{' ' * len(label)}  and {len(ids) - len(shown):,} more (--json lists all)")
