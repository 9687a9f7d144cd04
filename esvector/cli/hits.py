"""What a search prints: JSON lines for programs, a list for people."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from esvector.cli.report import print_json

if TYPE_CHECKING:
    from esvector.search.results import Results
    from esvector.types import Hit

__all__ = ["print_hits", "print_results"]

_WIDEST = 110
_MARK = re.compile(r"<em>(.*?)</em>", re.DOTALL)


def print_results(results: Results, text_fields: Sequence[str], *, as_json: bool) -> None:
    """Write hits, best first, then what was asked for beside them.

    As JSON it is one object for each hit; facets, explanation and whether the results are partial follow in a last one,
    ``{"about": ...}``, where there is any of it.
    """
    print_hits(results, text_fields, as_json=as_json)
    if as_json:
        if about := _about(results):
            print_json({"about": about})
        return
    if results.partial:
        click.echo("partial: shards failed or ran out of time, and hits may be missing", err=True)
    for name, facet in results.facets.items():
        counts = [f"{value} {count:,}" for value, count in facet.values.items()]
        others = [f"others {facet.others:,}"] if facet.others else []
        click.echo(f"\n{click.style(name, bold=True)}: {', '.join(counts + others) or 'no values'}")
    if results.explanation is not None:
        click.echo(f"\n{results.explanation}\n\n{results.explanation.console}")


def print_hits(hits: Sequence[Hit], text_fields: Sequence[str], *, as_json: bool) -> None:
    """Write hits, best first: one JSON object each, or score, id and the beginning of the text."""
    if as_json:
        for hit in hits:
            print_json(asdict(hit))
        return
    if not hits:
        click.echo("no hits", err=True)
    for hit in hits:
        legs = f"  {click.style(_legs(hit), dim=True)}" if hit.legs else ""
        click.echo(f"{click.style(f'{hit.score:6.3f}', fg='green', bold=True)}  {click.style(hit.id, bold=True)}{legs}")
        for line in _lines(hit, text_fields):
            click.echo(line)


def _about(results: Results) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if results.facets:
        found["facets"] = {
            name: {"values": {str(value): count for value, count in facet.values.items()}, "others": facet.others}
            for name, facet in results.facets.items()
        }
    if results.partial:
        found["partial"] = True
    if results.explanation is not None:
        found["explanation"] = asdict(results.explanation) | {"console": results.explanation.console}
    return found


def _legs(hit: Hit) -> str:
    return ", ".join(f"{name} {leg.rank} ({leg.score:.3f})" for name, leg in hit.legs.items())


def _lines(hit: Hit, text_fields: Sequence[str]) -> Iterator[str]:
    """The text of a hit: the places that were asked for, else its passage or its beginning."""
    if hit.highlights:
        for places in hit.highlights.values():
            for place in places:
                yield _filled(_MARK.sub(lambda found: click.style(found[1], bold=True), " ".join(place.split())))
        return
    beginning = _beginning(hit, text_fields) if hit.passage is None else _shorten(hit.passage.text)
    if beginning:
        yield click.style(_filled(beginning), dim=True)


def _filled(text: str) -> str:
    width = min(_WIDEST, shutil.get_terminal_size().columns)
    return textwrap.fill(text, width, initial_indent=" " * 8, subsequent_indent=" " * 8)


def _beginning(hit: Hit, text_fields: Sequence[str]) -> str:
    texts = [str(hit.source[name]) for name in text_fields if hit.source.get(name)]
    return _shorten(" ".join(text for text in texts if text != hit.id))


def _shorten(text: str, length: int = 160) -> str:
    return textwrap.shorten(" ".join(text.split()), length, placeholder=" …")
