"""``esvector estimate``: what a load would take, from a sample, without writing anything."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from esvector.cli.options import (
    DocumentOptions,
    EncoderOptions,
    document_options,
    encoder_options,
    open_client,
    output_option,
    server_option,
    wants_json,
)

if TYPE_CHECKING:
    from esvector.client import Server
    from esvector.index.estimate import Estimate

__all__ = ["estimate"]

_WIDEST = 110
_PATIENCE = 5.0  # seconds that a server has to tell its version


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@encoder_options()
@document_options
@click.option(
    "--sample", type=click.IntRange(min=1), metavar="N", help="Records to look at [default: a first window of 1,024]."
)
@click.option("--records", type=click.IntRange(min=1), metavar="N", help="Records in all, where it is known.")
@server_option
@output_option
def estimate(
    sources: tuple[str, ...],
    encoder: EncoderOptions,
    document: DocumentOptions,
    sample: int | None,
    records: int | None,
    url: str | None,
    as_json: bool,
) -> None:
    r"""Tell what loading SOURCE would take: time, disk and memory by vector type, texts cut, the mapping.

    Nothing is written, and no server is needed: one that answers is asked for its version, which decides the mapping.
    The options are those of 'esvector index'.

    \b
    Example:
      esvector estimate papers.jsonl --model sentence-transformers/all-MiniLM-L6-v2
    """
    from esvector.index.documents import TEXT_FIELDS
    from esvector.index.estimate import estimate_load
    from esvector.index.sources import read_documents

    documents = read_documents(*sources)
    profile = encoder.profile()
    if profile is None:
        raise click.UsageError("name the model: --model NAME_OR_PATH")
    server, assumed = _server(url)
    found = estimate_load(
        documents,
        profile,
        server,
        text_fields=document.text_fields or TEXT_FIELDS,
        id_field=document.id_field,
        mapping=document.mapping,
        field_types=document.field_types,
        vector_field=document.vector_field or "vector",
        passages=document.passages or None,
        devices=encoder.devices,
        backend=encoder.backend,
        task=encoder.task,
        given=document.given,
        element_type=document.element_type,
        sample=sample,
        records=records,
    )
    if wants_json(as_json):
        _print_json(found, assumed)
    else:
        _print(found, assumed)


def _server(url: str | None) -> tuple[Server, str]:
    """The server's version, else that of the local node; and in the second case why it had to be assumed."""
    from esvector.client import Server, describe_server
    from esvector.errors import ConnectError
    from esvector.local.distribution import VERSION

    try:
        return describe_server(open_client(url).options(request_timeout=_PATIENCE, max_retries=0)), ""
    except ConnectError as error:
        major, minor, patch = map(int, VERSION.split("."))
        return Server((major, minor, patch)), error.message


def _print_json(found: Estimate, assumed: str) -> None:
    from esvector.cli.report import print_json
    from esvector.index.estimate import ASSUMPTIONS

    more = {"encoder": found.encoder.to_dict(), "server_assumed": assumed or None, "assumptions": ASSUMPTIONS}
    print_json(asdict(found) | more)


def _print(found: Estimate, assumed: str) -> None:
    """Write sentences, the table of types, the fields of the mapping and what was assumed."""
    from esvector.index.estimate import ASSUMPTIONS

    for line in _lines(found):
        click.echo(line)
    click.echo()
    _print_sizes(found)
    why = f", assumed: {assumed}" if assumed else ""
    click.echo(f"\nmapping, for Elasticsearch {found.server}{why}")
    _print_fields(found)
    click.echo("all of it, and the settings: --json\n")
    width = min(_WIDEST, shutil.get_terminal_size().columns)
    for sentence in ASSUMPTIONS:
        click.secho(textwrap.fill(sentence, width, initial_indent="- ", subsequent_indent="  "), dim=True)


def _print_sizes(found: Estimate) -> None:
    from rich.console import Console
    from rich.filesize import decimal
    from rich.table import Table

    table = Table("element type", "index type", "disk", "memory", "", box=None, header_style="dim", pad_edge=False)
    for column in table.columns[2:4]:
        column.justify = "right"
    for size in found.sizes:
        sizes = (decimal(size.disk_bytes), decimal(size.memory_bytes))
        own = ("this mapping", "bold") if size.chosen else ("", None)
        table.add_row(size.element_type, size.index_type, *sizes, own[0], style=own[1])
    Console().print(table)


def _print_fields(found: Estimate) -> None:
    import orjson

    properties = found.body["mappings"]["properties"]
    width = max(map(len, properties))
    for name, spec in properties.items():
        click.echo(f"  {name:{width}}  {orjson.dumps(spec).decode()}")


def _lines(found: Estimate) -> Iterator[str]:
    yield (
        f"sample: the first {found.sampled:,} records = {found.usable:,} documents + {found.rejected:,} rejected; "
        f"{found.timed:,} of them were encoded"
    )
    for reason, count in found.reasons.items():
        yield f"  {count:,} x {reason}"
    limit = found.encoder.max_length
    cut = (
        f"{100 * found.truncated / found.usable:.1f} % of the texts are longer than the {limit:,} tokens that are read"
    )
    yield (
        f"tokens: {found.tokens / found.usable:,.0f} a text, {found.longest:,} in the longest ({found.longest_place})"
        + (f"; {cut}" if limit and found.truncated else "; none is cut")
    )
    each = f", {found.vectors:.1f} passages each" if found.vectors > 1 else ""
    yield f"documents: {_documents(found)}, {found.source_bytes:,.0f} bytes of JSON each{each}"
    costs = ", ".join(f"{stage.name} {1000 * stage.seconds:.2f}" for stage in found.stages)
    yield (
        f"time: {click.style(_duration(found.seconds), bold=True)} at {found.documents_per_second:,.0f} documents/s "
        f"(ms for each: {costs})"
    )


def _documents(found: Estimate) -> str:
    match found.records_from:
        case "unknown":
            return f"how many is not known; what follows is for {found.documents:,}"
        case "extrapolated":
            return f"about {found.documents:,}, by the share of the files that was read"
        case _:
            return f"{found.documents:,}"


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    if not hours:
        return f"{rest // 60} min {rest % 60} s" if rest >= 60 else f"{max(seconds, 0.1):.1f} s"
    return f"{hours:,} h {rest // 60} min"
