"""``esvector status``: what is there, what made it, and how large it is."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from esvector.cli.options import open_client, output_option, server_option, wants_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from esvector.index.inspect import VersionStatus

__all__ = ["status"]


@click.command()
@click.argument("alias", required=False)
@server_option
@output_option
def status(alias: str | None, url: str | None, as_json: bool) -> None:
    r"""Show the versions of ALIAS, or of everything esvector made: documents, encoder, vector type, size, health.

    \b
    Example:
      esvector status papers
    """
    from esvector.cli.report import print_json
    from esvector.index.inspect import describe_versions

    found = describe_versions(open_client(url), alias)
    if wants_json(as_json):
        for version in found:
            print_json(asdict(version))
    elif found:
        _print_table(found)
    else:
        click.echo("nothing indexed yet", err=True)


def _print_table(found: Sequence[VersionStatus]) -> None:
    from rich.table import Table

    from esvector.cli.report import console, human_bytes

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("alias", "index", "state", "documents", "encoder", "vectors", "on disk", "in memory", "health"):
        table.add_column(name, justify="right" if name in ("documents", "on disk", "in memory") else "left")
    for v in found:
        table.add_row(
            v.alias,
            v.index,
            v.state,
            f"{v.documents:,}",
            f"{v.model} ({v.similarity})",
            f"{v.dims} x {v.vector_type}",
            human_bytes(v.disk_bytes),
            "-" if v.memory_bytes is None else human_bytes(v.memory_bytes),
            v.health,
        )
    console().print(table)
