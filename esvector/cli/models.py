"""``esvector models``: the families of models that are known, and a look at one before it is used."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from esvector.cli.check import KINDS, TASKS, check_model, print_checked, print_wrapped
from esvector.cli.options import output_option, wants_json

if TYPE_CHECKING:
    from esvector.encode.advice import Task
    from esvector.encode.presets import Preset
    from esvector.encode.profile import Similarity

__all__ = ["models"]

_COLUMNS = (("family", 24), ("suits", 15), ("similarity", 10), ("dims", 18), ("tokens", 6), ("licence", 12))
_LEGEND = (
    "tokens: the most that is read of a text. ≤: vectors may be cut to fewer dims. from: ST is sentence-transformers, "
    "mteb the settings of its loaders, card and files the models' own; what follows 'unverified' was read nowhere."
)


def _example(*commands: str) -> str:
    """End of a help text; the first character keeps click from joining the lines."""
    return "\b\n" + "\n".join(["Example:", *(f"  esvector {command}" for command in commands)])


class _Listing(click.Group):
    """Lists, unless the first word is another command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group(
    cls=_Listing,
    options_metavar="[--json] [FILTER]",
    subcommand_metavar="| check [OPTIONS] NAME",
    epilog=_example("models e5", "models check all-MiniLM-L6-v2"),
)
def models() -> None:
    """List the families of models whose prompts, similarity and limits are known; or check one model.

    FILTER is a part of a family's or a model's name. A model of no family works, too, where its own files say what is
    needed: `esvector models check` shows what was found, and where.
    """


@models.command("list", hidden=True, epilog=_example("models e5"))
@click.argument("wanted", metavar="FILTER", required=False, default="")
@output_option
def list_(wanted: str, as_json: bool) -> None:
    """List the families of models whose names hold FILTER."""
    found = _find(wanted)
    if wants_json(as_json):
        from esvector.cli.report import print_json

        for preset in found:
            print_json(asdict(preset) | {"suits": sorted(preset.suits)})
        return
    click.secho("  " + _columns([name for name, _ in _COLUMNS]), dim=True)
    for kind, meaning in KINDS.items():
        if group := [preset for preset in found if preset.kind == kind]:
            click.echo(f"\n{click.style(kind.upper(), fg='cyan', bold=True)}  {meaning}")
            for preset in group:
                _print_preset(preset)
    click.echo()
    print_wrapped(_LEGEND, indent=0, dim=True)
    click.echo("To see what a model is, and try it: esvector models check NAME")


@models.command(epilog=_example("models check intfloat/e5-base-v2 --for search"))
@click.argument("name")
@click.option("--query-model", metavar="NAME", help="The model of the queries, where they have one of their own.")
@click.option("--family", help="Family whose prompts and similarity it takes [default: by its name].")
@click.option("--query-prompt", metavar="TEXT", help="Text before every query [default: the model's].")
@click.option("--document-prompt", metavar="TEXT", help="Text before every document [default: the model's].")
@click.option("--similarity", type=click.Choice(["cosine", "dot"]), help="Similarity [default: the model's].")
@click.option("--dims", type=click.IntRange(min=1), help="Cut vectors to so many [default: the model's].")
@click.option("--max-length", type=click.IntRange(min=1), help="Tokens read of a text [default: the model's].")
@click.option("--for", "--task", "task", type=click.Choice(list(TASKS)), help="What it is to be used for.")
@click.option("--device", help="Where to encode, such as cuda:0 [default: a GPU where there is one].")
@output_option
def check(
    name: str,
    query_model: str | None,
    family: str | None,
    query_prompt: str | None,
    document_prompt: str | None,
    similarity: Similarity | None,
    dims: int | None,
    max_length: int | None,
    task: Task | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Load the model NAME as index and search would, show what was found, and try it on a few texts."""
    from esvector.encode.profile import EncoderProfile

    asked = EncoderProfile(
        name,
        query_model=query_model,
        family=family,
        query_prompt=query_prompt,
        document_prompt=document_prompt,
        similarity=similarity,
        dims=dims,
        max_length=max_length,
    )
    as_json = wants_json(as_json)
    if not as_json:
        click.echo(f"Loading {name} ...", err=True)
    print_checked(check_model(asked, task, device), as_json=as_json)


def _find(wanted: str) -> list[Preset]:
    """Presets whose family or example holds ``wanted``, and that of a model so called."""
    from esvector.encode.presets import PRESETS, find_preset
    from esvector.errors import ConfigError

    part = wanted.lower()
    found = [preset for preset in PRESETS if part in preset.family or part in preset.example.lower()]
    if not found and (preset := find_preset(wanted)) is not None:
        found = [preset]
    if not found:
        import difflib

        names = {
            name.rpartition("/")[2].lower(): preset for preset in PRESETS for name in (preset.family, preset.example)
        }
        near = dict.fromkeys(names[name].family for name in difflib.get_close_matches(part, names, n=3, cutoff=0.5))
        raise ConfigError(
            f"no known family or model has {wanted!r} in its name",
            (f"did you mean {' or '.join(near)}? " if near else "") + "'esvector models' lists all; a model of no "
            "family works, too: esvector models check NAME",
        )
    return found


def _columns(texts: Iterable[str]) -> str:
    return "  ".join(text.ljust(width) for text, (_, width) in zip(texts, _COLUMNS, strict=True)).rstrip()


def _print_preset(preset: Preset) -> None:
    dims = ("≤ " if preset.matryoshka else "") + ", ".join(map(str, preset.dims))
    tokens = "any" if preset.max_length is None else str(preset.max_length)
    suits = ", ".join(task for task in TASKS if task in preset.suits)
    line = _columns([preset.family, suits, preset.similarity, dims, tokens, preset.licence])
    width = len(preset.family)
    click.echo(f"  {click.style(line[:width], bold=True)}{line[width:]}")
    for label, prompt in (("queries", preset.query_prompt), ("documents", preset.document_prompt)):
        if prompt:
            print_wrapped(f"before {label}: {prompt!r}", fg="green")
    if preset.separator != " ":
        print_wrapped(f"between title and text: {preset.separator!r}", fg="green")
    print_wrapped(f"{preset.example}, from {preset.source}", dim=True)
