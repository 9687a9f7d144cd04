"""Completing a profile: each fact from the user, else the model's files, else a preset, and where it came from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast, get_args

from esvector.encode.layout import Layout
from esvector.encode.models import ModelFiles
from esvector.encode.presets import Preset, find_preset, preset_named
from esvector.encode.profile import TITLE_SLOT, EncoderProfile, Kind, Side, Similarity
from esvector.errors import ConfigError, EncoderError

__all__ = ["Facts", "TowerFacts", "complete", "stated"]

_PROMPT_NAMES: dict[Side, tuple[str, ...]] = {
    "query": ("query", "search_query", "retrieval.query", "s2p_query", "web_search_query"),
    "document": ("document", "passage", "corpus", "search_document", "retrieval.passage"),
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known before any weight is loaded; ``sources`` says for a fact where it came from."""

    preset: Preset | None
    query_prompt: str | None
    document_prompt: str | None
    separator: str
    similarity: Similarity
    truncate_dim: int | None
    sources: dict[str, str]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TowerFacts:
    """What is known of one loaded tower."""

    files: ModelFiles
    weights: str
    pooling: str
    max_length: int | None
    raw_dims: int
    normalizes: bool
    dtype: str


def stated(asked: EncoderProfile, layouts: Mapping[Side, Layout], names: Mapping[Side, str]) -> Facts:
    """Collect what ``asked``, the models' files and the preset of their names state.

    A model that serves both sides is there for both. Of a side that is not there, only what ``asked`` says is known.
    Raises EncoderError when the two models of a dual encoder contradict each other.
    """
    main: Side = "document" if "document" in layouts else "query"
    layout, preset = layouts[main], _preset(asked, names[main])
    sources: dict[str, str] = {}
    prompts: dict[Side, str | None] = {"query": asked.query_prompt, "document": asked.document_prompt}
    for side, own in layouts.items():
        prompts[side] = _prompt(side, asked, own, _preset(asked, names[side]), sources)
    similarities = {_similarity(asked, layouts[side], preset, sources) for side in layouts}
    if len(similarities) > 1:
        raise EncoderError(
            f"the document model {names['document']} and the query model {names['query']} state different similarities",
            "use two models that were trained together, or state --similarity",
        )
    similarity = similarities.pop()
    separator = asked.separator if asked.separator is not None else preset.separator if preset else " "
    warnings = [*_unused_prompts(asked, layout, sources), *_odd_similarity(asked, layout, preset, similarity)]
    return Facts(
        preset=preset,
        query_prompt=prompts["query"],
        document_prompt=prompts["document"],
        separator=separator,
        similarity=similarity,
        truncate_dim=layout.truncate_dim,
        sources=sources,
        warnings=tuple(warnings),
    )


def complete(
    asked: EncoderProfile, facts: Facts, document: TowerFacts | None, query: TowerFacts | None
) -> EncoderProfile:
    """Fill in what ``asked`` leaves open. ``query`` is that of a tower of its own; None where one serves both sides.

    What is not loaded is taken from ``asked``. Raises EncoderError when two towers have different dims, ConfigError
    when more dims are asked for than there are.
    """
    towers = [tower for tower in (document, query) if tower is not None]
    raw = {tower.raw_dims for tower in towers}
    if len(raw) > 1:
        raise EncoderError(
            f"the document tower has {document and document.raw_dims} dims, the query tower {query and query.raw_dims}",
            "use two models that were trained together",
        )
    most = raw.pop()
    dims = asked.dims or min(most, facts.truncate_dim or most)
    if dims > most:
        raise ConfigError(f"dims is {dims}, but {asked.model} gives {most}", f"ask for {most} or fewer")
    profile = replace(
        asked,
        family=facts.preset.family if facts.preset else "",
        query_prompt=facts.query_prompt,
        document_prompt=facts.document_prompt,
        separator=facts.separator,
        similarity=facts.similarity,
        normalize=facts.similarity == "cosine" or any(t.normalizes for t in towers) or bool(asked.normalize),
        dims=dims,
        dtype=towers[0].dtype,
    )
    if document is not None:
        profile = replace(
            profile,
            model=document.files.name,
            revision=document.files.revision,
            weights=document.weights,
            pooling=document.pooling,
            max_length=document.max_length,
        )
    if query is not None:
        dual = asked.query_model is not None
        profile = replace(
            profile,
            query_model=query.files.name if dual else None,
            query_revision=query.files.revision if dual else None,
            query_weights=query.weights,
            query_pooling=query.pooling,
            query_max_length=query.max_length,
        )
    return replace(profile, kind=asked.kind or _kind(profile, facts.preset))


def _kind(profile: EncoderProfile, preset: Preset | None) -> Kind:
    if profile.two_towers:
        return "dual" if profile.query_model is not None else "router"
    if profile.query_prompt or profile.document_prompt:
        return "prompted"
    if preset is not None and preset.kind in ("symmetric", "asymmetric"):
        return preset.kind
    return "asymmetric" if profile.similarity == "dot" else "symmetric"


def _preset(asked: EncoderProfile, name: str) -> Preset | None:
    if asked.family is not None:
        return preset_named(asked.family) if asked.family else None
    return find_preset(name)


def _prompt(side: Side, asked: EncoderProfile, layout: Layout, preset: Preset | None, sources: dict[str, str]) -> str:
    fact = f"{side}_prompt"
    given = asked.query_prompt if side == "query" else asked.document_prompt
    from_preset = "" if preset is None else preset.query_prompt if side == "query" else preset.document_prompt
    shipped = _shipped(side, layout.prompts)
    if given is not None:
        sources[fact] = "given"
        return given
    if preset is not None and (asked.family is not None or not _ships_any(layout.prompts)):
        sources[fact] = f"preset {preset.family}"
        return from_preset
    # A model can only ship a prompt for documents without a title; the preset knows where a title would go.
    if shipped is not None and shipped == from_preset.replace(TITLE_SLOT, "none"):
        shipped = from_preset
    sources[fact] = "the model" if shipped is not None else "nowhere"
    return shipped or ""


def _ships_any(prompts: dict[str, str]) -> bool:
    return any(_shipped(side, prompts) is not None for side in get_args(Side))


def _shipped(side: Side, prompts: dict[str, str]) -> str | None:
    return next((prompts[name] for name in _PROMPT_NAMES[side] if name in prompts), None)


def _similarity(asked: EncoderProfile, layout: Layout, preset: Preset | None, sources: dict[str, str]) -> Similarity:
    if asked.similarity is not None:
        sources["similarity"] = "given"
        return asked.similarity
    if layout.similarity is not None:
        if layout.similarity not in get_args(Similarity):
            raise EncoderError(
                f"the model's similarity is {layout.similarity!r}, which has no exact counterpart here",
                "state similarity='cosine' or 'dot' in the profile (--similarity) if the model works with it",
            )
        sources["similarity"] = "the model"
        return cast(Similarity, layout.similarity)
    sources["similarity"] = f"preset {preset.family}" if preset else "assumed"
    return preset.similarity if preset else "cosine"


def _odd_similarity(
    asked: EncoderProfile, layout: Layout, preset: Preset | None, similarity: Similarity
) -> Iterable[str]:
    known: Any = layout.similarity or (preset.similarity if preset else None)
    if asked.similarity is not None and known is not None and known != asked.similarity:
        yield (
            f"similarity {asked.similarity!r} was asked for, but the model was trained for {known!r}: "
            "the ranking will be another. Leave --similarity out unless you have measured it"
        )
    elif asked.similarity is None and preset and preset.similarity != similarity:
        yield (
            f"the model's files say {similarity!r}, but {preset.family} models are trained for {preset.similarity!r}: "
            f"if it is one, use --similarity {preset.similarity}"
        )


def _unused_prompts(asked: EncoderProfile, layout: Layout, sources: dict[str, str]) -> Iterable[str]:
    """Prompts whose names do not say which side they are for."""
    unclear = layout.prompts and not _ships_any(layout.prompts)
    if unclear and asked.query_prompt is None and "nowhere" in sources.values():
        names = ", ".join(sorted(layout.prompts)[:6])
        yield (
            f"the model ships prompts ({names}), but none says that it is for queries or documents: "
            "choose with --query-prompt and --document-prompt"
        )
