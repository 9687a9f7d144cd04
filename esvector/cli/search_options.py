"""The options of a search, shared by the commands that search: they become the keywords of ``Searcher.search``."""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, TypeVar

import click

from esvector.cli.options import parse_raw_filter

if TYPE_CHECKING:
    from esvector.search.options import SearchKeywords

__all__ = ["example_options", "judged_options", "search_options"]

_F = TypeVar("_F", bound=Callable[..., Any])


def _raw_filter(_: click.Context, __: click.Parameter, value: str | None) -> Any:  # noqa: ANN401  # JSON
    return parse_raw_filter(value)


def _weights(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, float] | None:
    found = {}
    for value in values:
        name, _, number = value.partition("=")
        try:
            found[name] = float(number)
        except ValueError as error:
            raise click.BadParameter(f"{value!r} is not like vector=2", context, parameter) from error
    return found or None


_OF_ANY = (
    click.option("-k", type=int, default=10, show_default=True, help="How many hits."),
    click.option("--offset", type=int, default=0, help="Hits to leave out before them, for a next page."),
    click.option("--where", metavar="EXPR", help='A filter, such as "year >= 2020 and lang in (en, fr)".'),
    click.option("--filter", metavar="JSON", callback=_raw_filter, help="A filter in Query DSL, as JSON."),
    click.option("--num-candidates", type=int, help="Candidates on each shard [default: by the plan]."),
    click.option("--oversample", type=float, help="Times k quantized hits compared again exactly."),
    click.option("--min-similarity", type=float, help="Leave out hits below this cosine or dot product."),
    click.option("--diversity", type=float, help="0 to 1: how much hits must differ from those before them."),
    click.option("--field", "fields", multiple=True, metavar="NAME", help="Stored field to bring [default: all]."),
    click.option("--facet", "facets", multiple=True, metavar="NAME", help="Field whose values to count."),
    click.option(
        "--facets-of", type=click.Choice(["matches", "hits"]), default="matches", help="Count over all, or the hits."
    ),
    click.option("--timeout", type=float, metavar="SECONDS", help="After which shards stop searching."),
    click.option("--allow-partial", is_flag=True, help="Take the hits of the shards that answered, where some failed."),
    click.option("--explain", is_flag=True, help="Say how the search was done, with its requests."),
)
_OF_WORDS = (
    click.option(
        "--mode",
        type=click.Choice(["vector", "text", "hybrid", "exact"]),
        default="vector",
        show_default=True,
        help="By meaning, by words (BM25), by both, or by comparing with every document.",
    ),
    click.option("--fusion", type=click.Choice(["rrf", "weighted"]), default="rrf", help="How hybrid joins them."),
    click.option(
        "--weight", "weights", multiple=True, callback=_weights, metavar="vector|text=N", help="Of each, there."
    ),
    click.option("--rerank", metavar="NAME_OR_PATH", help="Cross-encoder that ranks the first hits anew."),
    click.option("--rerank-depth", type=int, default=50, show_default=True, help="How many of them."),
    click.option("--highlight", is_flag=True, help="Show the places with words of the query."),
)


def search_options(command: _F) -> _F:
    """Add the options of a search by a query; the command gets them as ``options``, the keywords of ``search``."""
    return _keywords(command, _OF_ANY[:4] + _OF_WORDS + _OF_ANY[4:])


def example_options(command: _F) -> _F:
    """Add those of a search by examples, which have no words; the command gets them as ``options``."""
    return _keywords(command, _OF_ANY)


def judged_options(command: _F) -> _F:
    """Add those that decide which hits come and in which order; the command gets them as ``options``.

    Without ``-k``, for which a judgement has a default of its own, and without what is only shown.
    """
    return _keywords(command, _OF_WORDS[:5] + _OF_ANY[2:8])


def _keywords(command: _F, options: tuple[Callable[[Any], Any], ...]) -> _F:
    def collected(**values: Any) -> Any:  # noqa: ANN401  # click's own; each is an option of the command
        from esvector.search.options import SearchKeywords

        own: SearchKeywords = {name: values.pop(name) for name in SearchKeywords.__annotations__ if name in values}  # type: ignore[assignment]
        own["fields"] = own.get("fields") or None
        return command(**values, options=own)

    wrapped: Any = update_wrapper(collected, command)
    for option in reversed(options):
        wrapped = option(wrapped)
    found: _F = wrapped
    return found
