"""What ``esvector models check`` finds of a model, and how it shows it."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from esvector.encode.advice import Outcome, Task
    from esvector.encode.encoder import ModelEncoder
    from esvector.encode.profile import EncoderProfile

__all__ = ["KINDS", "TASKS", "Checked", "check_model", "print_checked", "print_wrapped"]

KINDS = {
    "symmetric": "one tower, no prompts",
    "asymmetric": "one tower, no prompts, trained on questions and passages",
    "prompted": "one tower, and a prompt before queries, documents or both",
    "dual": "two models, one for each side",
    "router": "one model with a tower for each side",
}
TASKS = {"search": "questions to passages", "similar": "like with like"}

_WIDEST = 100
_LABEL, _VALUE = 17, 50


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found of a model.

    Attributes:
        profile: the complete profile.
        sources: where each fact of it came from.
        warnings: what a user should look at.
        words: about how many words of an English document it reads; None for all.
        outcomes: of the trials.
    """

    profile: EncoderProfile
    sources: dict[str, str]
    warnings: list[str]
    words: int | None
    outcomes: list[Outcome]

    def of(self, task: str) -> list[Outcome]:
        """What came of the trials of ``task``."""
        return [outcome for outcome in self.outcomes if outcome.trial.task == task]

    @property
    def suits(self) -> tuple[list[str], str]:
        """Tasks that the model suits, and who says so."""
        from esvector.encode.presets import preset_named

        if self.profile.family:
            known = preset_named(self.profile.family).suits
            return [task for task in TASKS if task in known], f"preset {self.profile.family}"
        return [task for task in TASKS if all(outcome.first for outcome in self.of(task))], "the trials"


def check_model(asked: EncoderProfile, task: Task | None, device: str | None) -> Checked:
    """Load both sides of ``asked`` and try them. Raises EncoderError and ConfigError as ``load_encoder``."""
    from esvector.encode.advice import run_trials, words_read
    from esvector.encode.loading import load_encoder

    encoder = load_encoder(asked, device=device)
    sources = _sources(asked, encoder)
    warnings = _warnings(encoder, sources, task)
    return Checked(encoder.profile, sources, warnings, words_read(encoder), run_trials(encoder))


def _sources(asked: EncoderProfile, encoder: ModelEncoder) -> dict[str, str]:
    """Where facts came from, in the words of ``encoder.sources``, and of those that it leaves out."""
    profile = encoder.profile
    preset = f"preset {profile.family}"
    kind = preset if profile.family else "assumed"
    if profile.two_towers:
        kind = "the model" if profile.query_model is None else "given" if asked.query_model else preset
    elif profile.query_prompt or profile.document_prompt:
        kind = "by its prompts"
    sources = {"kind": kind, "pooling": "the model", "normalize": "the model"}
    if profile.similarity == "cosine":
        sources["normalize"] = "by cosine"
    for fact in ("dims", "max_length"):
        sources[fact] = "the model" if getattr(asked, fact) is None else "given"
    return sources | encoder.sources


def _warnings(encoder: ModelEncoder, sources: dict[str, str], task: Task | None) -> list[str]:
    from esvector.encode.advice import advise, base_model_of, same_sides
    from esvector.encode.models import find_model

    profile = encoder.profile
    base_model = base_model_of(find_model(profile.model, profile.revision).path)
    warnings = [*encoder.warnings, *advise(profile, task, base_model=base_model, sources=sources)]
    differ = profile.two_towers or profile.query_prompt != profile.document_prompt
    if differ and same_sides(encoder):
        what = "two towers" if profile.two_towers else "prompts that differ"
        warnings.append(
            f"there are {what}, but a text gets the same vector as a query and as a document: see that these models, "
            "prompts and tokenizers belong together"
        )
    return warnings


def print_checked(checked: Checked, *, as_json: bool) -> None:
    """Write what was found: one JSON object, or facts, trials and sentences for people."""
    if as_json:
        _print_json(checked)
        return
    click.secho(f"\n{checked.profile.model}", bold=True)
    for label, value, source in _facts(checked):
        first, *more = textwrap.wrap(value, _VALUE, break_on_hyphens=False) or [""]
        origin = f"  {click.style(source, dim=True)}" if source else ""
        click.echo(f"  {label:{_LABEL}}{first:{_VALUE if source else 0}}{origin}")
        for line in more:
            click.echo(" " * (2 + _LABEL) + line)
    _print_trials(checked)
    click.echo()
    print_wrapped(_verdict(checked), indent=0)
    for warning in checked.warnings:
        print_wrapped(f"warning: {warning}", indent=0, fg="yellow")


def print_wrapped(text: str, indent: int = 6, **style: Any) -> None:  # noqa: ANN401  # what click.style takes
    """Write ``text`` in lines that fit the terminal; where indented, those after the first one are so further."""
    width = min(_WIDEST, shutil.get_terminal_size().columns)
    hang = 2 if indent else 0
    for number, line in enumerate(textwrap.wrap(text, width - indent - hang, break_on_hyphens=False)):
        click.echo(" " * (indent + hang * (number > 0)) + click.style(line, **style))


def _print_json(checked: Checked) -> None:
    from esvector.cli.report import print_json

    suits, says = checked.suits
    trials = [
        asdict(each.trial) | {"right_score": each.right, "best_other_score": each.best_other, "first": each.first}
        for each in checked.outcomes
    ]
    print_json(
        {
            "profile": checked.profile.to_dict(),
            "sources": checked.sources,
            "space_id": checked.profile.space_id,
            "query_id": checked.profile.query_id,
            "words": checked.words,
            "suits": suits,
            "suits_from": says,
            "warnings": checked.warnings,
            "trials": trials,
        }
    )


def _print_trials(checked: Checked) -> None:
    for task, meaning in TASKS.items():
        click.echo(f"\n{click.style(task.upper(), fg='cyan', bold=True)}  {meaning}")
        click.secho("   right  best wrong", dim=True)
        for each in checked.of(task):
            place = click.style("first", fg="green") if each.first else click.style("no   ", fg="red")
            click.echo(f"  {each.right:6.3f}  {each.best_other:10.3f}  {place}  {each.trial.text}")


def _facts(checked: Checked) -> Iterator[tuple[str, str, str]]:
    """Label, value and source of what decides a vector, and of what else is good to know."""
    profile, sources = checked.profile, checked.sources
    yield "kind", f"{profile.kind}: {KINDS.get(profile.kind or '', '')}", sources["kind"]
    yield from _origin(profile)
    yield "query prompt", repr(profile.query_prompt), _stated(sources["query_prompt"])
    yield "document prompt", repr(profile.document_prompt), _stated(sources["document_prompt"])
    if profile.separator != " ":
        yield "title and text", f"joined by {profile.separator!r}", f"preset {profile.family}"
    yield "similarity", str(profile.similarity), sources["similarity"]
    yield "pooling", _by_side(profile, profile.pooling, profile.query_pooling), sources["pooling"]
    yield "unit length", "yes" if profile.normalize else "no", sources["normalize"]
    yield "dims", str(profile.dims), sources["dims"]
    yield "reads", _reads(checked), sources["max_length"]
    if profile.two_towers:
        yield "  of a query", _tokens(profile.query_max_length), "the model"
    yield "computes in", str(profile.dtype), "this device"
    yield "space id", profile.space_id, ""
    yield "query id", profile.query_id, ""


def _origin(profile: EncoderProfile) -> Iterator[tuple[str, str, str]]:
    from esvector.encode.presets import preset_named

    if profile.family:
        yield "family", f"{profile.family} (licence: {preset_named(profile.family).licence})", ""
    else:
        yield "family", "none that is known", ""
    for label, value in (
        ("revision", profile.revision),
        ("query model", profile.query_model),
        ("query revision", profile.query_revision),
    ):
        if value is not None:
            yield label, value, ""


def _stated(source: str) -> str:
    return "not stated" if source == "nowhere" else source


def _by_side(profile: EncoderProfile, document: str | None, query: str | None) -> str:
    return f"{document} (queries: {query})" if profile.two_towers and query != document else str(document)


def _tokens(most: int | None) -> str:
    return "all of it" if most is None else f"{most:,} tokens"


def _reads(checked: Checked) -> str:
    words = "" if checked.words is None else f", about {checked.words:,} English words"
    return _tokens(checked.profile.max_length) + words


def _verdict(checked: Checked) -> str:
    suits, says = checked.suits
    score = {task: f"{sum(each.first for each in checked.of(task))} of {len(checked.of(task))}" for task in TASKS}
    seen = (
        f"on {score['search']} questions the answer came first, and on {score['similar']} sentences the one that means "
        "the same; that is a smoke test in English, not a measurement."
    )
    named = " and ".join(f"{task} ({TASKS[task]})" for task in suits)
    if says != "the trials":
        return f"It suits {named}, says the {says}. Seen here: {seen}"
    if suits:
        return f"No preset knows this model. It may suit {named}: {seen}"
    return (
        f"No preset knows this model, and the trials do not say what it suits: {seen} If it is a model of English, "
        "look at its prompts, pooling and similarity above."
    )
