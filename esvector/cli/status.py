"""``esvector status``: what is there, what made it, and how large it is."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from esvector.cli.options import open_client, output_option, server_option, wants_json

if TYPE_CHECKING:
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
        return
    for version in found:
        _print(version)
    if not found:
        click.echo("nothing indexed yet", err=True)


def _print(version: VersionStatus) -> None:
    from rich.filesize import decimal

    memory = "" if version.memory_bytes is None else f", {decimal(version.memory_bytes)} in memory for a fast search"
    state = click.style(version.state, fg="green" if version.state == "live" else "yellow")
    health = click.style(version.health, fg=version.health)  # its values are colours
    click.echo(f"{click.style(version.index, bold=True)}  {state}, {version.documents:,} documents, {health}")
    click.echo(f"    encoder  {version.model} ({version.kind}), {version.similarity}, {version.dims} dims")
    click.echo(f"    vectors  {version.vector_type}, {decimal(version.disk_bytes)} on disk{memory}")
