"""``esvector doctor``: the twin of ``examine``."""

from __future__ import annotations

import shutil
import sys
import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from esvector.cli.measuring import show_measuring
from esvector.cli.options import open_client, output_option, server_option, wants_json

if TYPE_CHECKING:
    from esvector.evaluate.findings import Finding

__all__ = ["doctor"]

_COLOURS = {"ok": "green", "note": "cyan", "warning": "yellow", "alarm": "red"}
_WIDEST = 120


@click.command()
@click.argument("alias")
@click.option(
    "--sample",
    type=click.IntRange(1, 10_000),
    default=200,
    show_default=True,
    help="So many documents are looked at closely.",
)
@click.option("--encode/--no-encode", default=True, help="Encode their texts again, and compare [default: yes].")
@click.option("--device", "devices", multiple=True, help="Where to encode [default: a GPU where there is one].")
@click.option("--seed", type=int, default=0, show_default=True, help="The same one draws the same sample.")
@server_option
@output_option
def doctor(
    alias: str, sample: int, encode: bool, devices: tuple[str, ...], seed: int, url: str | None, as_json: bool
) -> None:
    r"""Look ALIAS over: what is missing, wrong, slow or in danger, and what to do about it. Nothing is changed.

    Exit status 1 when there is an alarm: answers are wrong, or documents cannot be found.

    \b
    Example:
      esvector doctor papers
    """
    from esvector.cli.report import print_json
    from esvector.evaluate.doctor import examine

    with show_measuring() as progress:
        diagnosis = examine(
            open_client(url), alias, sample=sample, seed=seed, encode=encode, devices=devices, progress=progress
        )
    if wants_json(as_json):
        for finding in diagnosis.findings:
            print_json({"index": diagnosis.index} | asdict(finding))
    else:
        for finding in diagnosis.findings:
            _print(finding)
    if diagnosis.alarmed:
        from esvector.cli.app import EXIT_FAILED

        sys.exit(EXIT_FAILED)


def _print(finding: Finding) -> None:
    width = min(_WIDEST, shutil.get_terminal_size().columns)
    label = click.style(f"{finding.level:8}", fg=_COLOURS[finding.level], bold=finding.level == "alarm")
    lines = textwrap.wrap(finding.value, max(20, width - 21), break_long_words=False, break_on_hyphens=False)
    click.echo(f"{label} {finding.check:11} " + f"\n{' ' * 21}".join(lines))
    if finding.remedy:
        remedy = textwrap.wrap(finding.remedy, max(20, width - 26), break_long_words=False, break_on_hyphens=False)
        click.echo(click.style(f"{' ' * 21}try: " + f"\n{' ' * 26}".join(remedy), dim=True))
