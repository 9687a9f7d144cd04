"""``esvector versions``, ``rollback`` and ``prune``: what is kept behind an alias, and going back to it."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from esvector.cli.options import open_client, output_option, server_option, state_option, wants_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from esvector.index.inspect import VersionStatus

__all__ = ["prune", "rollback", "versions"]


@click.command()
@click.argument("alias")
@server_option
@output_option
def versions(alias: str, url: str | None, as_json: bool) -> None:
    r"""List the versions of ALIAS, oldest first: which one readers see, and which one they saw before it.

    \b
    Example:
      esvector versions papers
    """
    from esvector.cli.report import print_json
    from esvector.index.history import versions as find

    found = find(open_client(url), alias)
    if wants_json(as_json):
        for version in found:
            print_json(asdict(version))
    else:
        _print_table(found)


@click.command()
@click.argument("alias")
@click.option("--to", metavar="INDEX", help="Version to go to [default: the one before the live one].")
@state_option
@server_option
@output_option
def rollback(alias: str, to: str | None, state: Path | None, url: str | None, as_json: bool) -> None:
    r"""Let readers of ALIAS see the version again that they saw before the live one, in one atomic step.

    A second rollback goes one further back; --to goes to any version that is kept, also forth again.

    \b
    Example:
      esvector rollback papers
    """
    from esvector.cli.report import print_json
    from esvector.index.history import rollback as go_back

    done = go_back(open_client(url), alias, to, state=state)
    if wants_json(as_json):
        print_json(asdict(done))
    if done.index == done.left:
        click.echo(f"readers of {alias} see {done.index} already; nothing was changed", err=True)
        return
    click.echo(
        f"readers of {alias} now see {done.index} ({done.documents:,} documents) instead of {done.left or 'nothing'}",
        err=True,
    )
    if done.left:
        click.echo(f"{done.left} is kept; to return: esvector rollback {alias} --to {done.left}", err=True)


@click.command()
@click.argument("alias")
@click.option("--keep", type=click.IntRange(0), default=1, show_default=True, help="Versions to keep beside the live.")
@click.option("--unfinished", is_flag=True, help="Also delete versions that were never verified: no run may need them.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@state_option
@server_option
@output_option
def prune(
    alias: str, keep: int, unfinished: bool, yes: bool, state: Path | None, url: str | None, as_json: bool
) -> None:
    r"""Delete old versions of ALIAS; never the live one. Those that rollbacks lead to are kept first.

    \b
    Example:
      esvector prune papers --keep 2
    """
    from esvector.cli.report import print_json
    from esvector.index.history import prunable
    from esvector.index.history import prune as delete
    from esvector.index.history import versions as find

    client = open_client(url)
    doomed = prunable(find(client, alias), keep, unfinished=unfinished)
    if not doomed:
        click.echo("nothing to delete", err=True)
        return
    if not yes:
        _ask(doomed)
    deleted = delete(
        client, alias, keep, unfinished=unfinished, only={version.index for version in doomed}, state=state
    )
    for version in deleted:
        if wants_json(as_json):
            print_json(asdict(version))
        click.echo(f"deleted {_line(version)}", err=True)


def _ask(doomed: Sequence[VersionStatus]) -> None:
    from esvector.errors import ConfigError

    for version in doomed:
        click.echo(f"  {_line(version)}", err=True)
    if not sys.stdin.isatty():
        raise ConfigError("nothing was deleted: there is no terminal to ask on", "add --yes")
    click.confirm("Delete?", abort=True, err=True)


def _line(version: VersionStatus) -> str:
    from rich.filesize import decimal

    return f"{version.index} ({version.state}, {version.documents:,} documents, {decimal(version.disk_bytes)})"


def _print_table(found: Sequence[VersionStatus]) -> None:
    from rich.console import Console
    from rich.filesize import decimal
    from rich.table import Table

    before = next((version.previous for version in found if version.state == "live"), None)
    table = Table(box=None, pad_edge=False)
    for title in ("index", "state", "documents", "size", "created", "encoder", "vectors"):
        number, fixed = title in ("documents", "size"), title in ("index", "state")
        table.add_column(title, justify="right" if number else "left", no_wrap=fixed, overflow="fold")
    for version in found:
        state = version.state + (" (rollback)" if version.index == before else "")
        table.add_row(
            version.index,
            state,
            f"{version.documents:,}",
            decimal(version.disk_bytes),
            version.created.removesuffix("+00:00") + "Z",
            version.model,
            version.vector_type,
            style="bold" if version.state == "live" else None,
        )
    Console().print(table)
