"""``esvector reembed``: a new version out of what the live one stores."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from esvector.cli.options import (
    EncoderOptions,
    encoder_options,
    open_client,
    output_option,
    query_cache_option,
    server_option,
    state_option,
    wants_json,
)

if TYPE_CHECKING:
    from esvector.index.reembed import ReembedReport

__all__ = ["reembed"]


@click.command()
@click.argument("alias")
@encoder_options(model_required=False)
@click.option("--mapping", type=click.Path(path_type=Path, dir_okay=False), help="A copy of one in mappings/.")
@click.option(
    "--element-type", type=click.Choice(["float", "bfloat16", "byte"]), help="How vectors are kept [default: as now]."
)
@click.option(
    "--least-recall",
    type=click.FloatRange(0, 1),
    default=0.9,
    show_default=True,
    help="Do not move readers to a version that finds less of what an exact search finds.",
)
@query_cache_option
@state_option
@click.option(
    "--dead-letters", type=click.Path(path_type=Path), help="File for rejected documents [default: ALIAS.dead.jsonl]."
)
@server_option
@output_option
def reembed(
    alias: str,
    encoder: EncoderOptions,
    mapping: Path | None,
    element_type: str | None,
    least_recall: float,
    query_cache: Path | None,
    state: Path | None,
    dead_letters: Path | None,
    url: str | None,
    as_json: bool,
) -> None:
    r"""Build a new version of ALIAS from its own stored texts, with another model or mapping, and move readers to it.

    The source is not needed. What others write to the live index meanwhile is caught up. The version before is kept:
    'esvector rollback ALIAS' goes back to it.

    \b
    Example:
      esvector reembed papers --model intfloat/e5-small-v2
      esvector reembed papers --mapping quantized.json
    """
    from esvector.cli.progress import show_progress
    from esvector.cli.report import print_report
    from esvector.index.indexer import Indexer
    from esvector.index.reembed import reembed as build

    indexer = Indexer(
        open_client(url),
        alias,
        profile=encoder.profile(),
        mapping=mapping,
        element_type=element_type,  # type: ignore[arg-type]  # one of the choices
        devices=encoder.devices,
        backend=encoder.backend,
        task=encoder.task,
        query_cache=query_cache,
        state=state,
        dead_letters=dead_letters,
        rebuild=True,
    )
    with show_progress() as progress:
        report = build(indexer, least_recall=least_recall, progress=progress)
    print_report(report.load, as_json=wants_json(as_json), more={"recall": report.recall, "passes": report.passes})
    click.echo(_verified(report), err=True)
    if report.load.dead:
        from esvector.cli.app import EXIT_REJECTED

        sys.exit(EXIT_REJECTED)


def _verified(report: ReembedReport) -> str:
    meanwhile = "nothing was written meanwhile"
    if report.passes:
        meanwhile = "what was written meanwhile is in it" + (f" ({report.passes} passes)" if report.passes > 1 else "")
    return f"a search finds {report.recall:.1%} of what an exact one does, in a sample; {meanwhile}"
