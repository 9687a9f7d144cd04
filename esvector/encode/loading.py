"""From a profile to a loaded encoder: files found, facts collected, towers built for the sides that are needed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from esvector.encode.advice import base_model_of
from esvector.encode.encoder import LoadedTower, ModelEncoder, check_match
from esvector.encode.facts import Facts, TowerFacts, complete, stated
from esvector.encode.layout import Layout, read_layout
from esvector.encode.models import ModelFiles, find_model
from esvector.encode.modules import SideModules, as_sentence_transformer, default_device, load_side
from esvector.encode.presets import find_preset
from esvector.encode.profile import EncoderProfile, Side
from esvector.encode.tower import ModelTower, TextTower, finish
from esvector.errors import ConfigError, require

__all__ = ["load_encoder", "recognize"]

_log = logging.getLogger(__name__)
_DTYPES = ("float32", "bfloat16", "float16")
# Instructor's instructions take part in attention, but not in pooling; a copy of its files does not say so.
_NOT_POOLED = frozenset({"instructor"})


def load_encoder(profile: EncoderProfile, side: Side | None = None, device: str | None = None) -> ModelEncoder:
    """Load the encoder that ``profile`` describes, on ``device`` (None: a GPU where there is one).

    With ``side``, only the tower of that side is loaded, where each has its own. Raises EncoderError when the model
    cannot be found or loaded, EncoderMismatchError when the profile states a fact that the model at hand does not have
    (a changed weight, say), MissingExtraError where torch or sentence-transformers are not installed.
    """
    require("encode", "sentence_transformers", "torch")
    device = device or default_device()
    profile = _with_partner(profile)
    sides: tuple[Side, ...] = get_args(Side) if side is None else (side,)
    files = _find(profile, sides)
    layouts = {side: read_layout(found.path) for side, found in files.items()}
    facts = stated(profile, layouts, {side: found.name for side, found in files.items()})
    main: Side = "document" if "document" in files else "query"
    apart = profile.query_model is not None or layouts[main].routes is not None
    loaded: dict[Side, tuple[SideModules, TowerFacts]] = {
        side: _load(profile, side, facts, files[side], layouts[side], device)
        for side in (sides if apart else ("document",))
    }
    described = {side: tower for side, (_, tower) in loaded.items()}
    complete_profile = complete(profile, facts, described.get("document"), described.get("query"))
    check_match(replace(profile, dtype=None, backend=None), complete_profile)
    modules = {side: part for side, (part, _) in loaded.items()}
    base = base_model_of(files[main].path)
    towers = {side: _tower(part, side, complete_profile, device) for side, part in modules.items()}
    if not apart:  # one tower, which each side reads under its own prompt
        towers["query"] = _tower(modules["document"], "query", complete_profile, device, towers["document"])
    return ModelEncoder(replace(complete_profile, backend="torch"), towers, facts.sources, facts.warnings, base)


def recognize(asked: EncoderProfile, made: EncoderProfile) -> bool:
    """Whether ``asked`` describes the encoder ``made``, by what it states and by the model's files; loads no weights.

    What the files say of pooling and maximum length is not looked at: that is compared when the model is loaded.
    Raises EncoderError when the model cannot be found.
    """
    if any(value is not None for value, _ in asked.differences(made).values()):
        return False
    if made.kind == "given":  # nobody knows more of it than its name and what was stated
        return asked.model == made.model
    asked = _with_partner(asked)
    files = _find(asked, get_args(Side))
    layouts = {side: read_layout(found.path) for side, found in files.items()}
    facts = stated(asked, layouts, {side: found.name for side, found in files.items()})
    apart = asked.query_model is not None or layouts["document"].routes is not None
    same_facts = all(
        getattr(facts, name) == getattr(made, name)
        for name in ("query_prompt", "document_prompt", "separator", "similarity")
    )
    query_weights = layouts["query"].fingerprint("query") if apart else None
    weights = layouts["document"].fingerprint("document")
    return same_facts and (weights, query_weights) == (made.weights, made.query_weights)


def _with_partner(profile: EncoderProfile) -> EncoderProfile:
    """Name the question model of a passage model whose family is known to come in pairs."""
    preset = find_preset(profile.model)
    partner = preset.partner(profile.model) if preset is not None else None
    if profile.query_model is None and partner is not None and partner != profile.model:
        return replace(profile, query_model=partner)
    return profile


def _find(profile: EncoderProfile, sides: tuple[Side, ...]) -> dict[Side, ModelFiles]:
    """Files by side; where there is one model, they are the same for both, whatever side is asked for."""
    if profile.query_model is None:
        found = find_model(profile.model, profile.revision)
        return {"document": found, "query": found}
    names = {
        "document": (profile.model, profile.revision),
        "query": (profile.query_model, profile.query_revision),
    }
    return {side: find_model(*names[side]) for side in sides}


def _load(
    profile: EncoderProfile, side: Side, facts: Facts, files: ModelFiles, layout: Layout, device: str
) -> tuple[SideModules, TowerFacts]:
    own = side == "query" and (profile.query_model is not None or layout.routes is not None)
    dtype = profile.dtype or ("float32" if device == "cpu" else "bfloat16")
    if dtype not in _DTYPES:
        raise ConfigError(f"dtype {dtype!r} is not one to encode in", f"use one of {', '.join(_DTYPES)}")
    modules = load_side(
        layout,
        side,
        dtype=dtype,
        max_length=profile.query_max_length if own else profile.max_length,
        pool_prompt=facts.preset is None or facts.preset.family not in _NOT_POOLED,
    )
    tower = TowerFacts(
        files=files,
        weights=layout.fingerprint(side),
        pooling=modules.pooling,
        max_length=modules.max_length,
        raw_dims=modules.raw_dims,
        normalizes=modules.normalizes,
        dtype=dtype,
    )
    return modules, tower


def _tower(
    modules: SideModules, side: Side, profile: EncoderProfile, device: str, shared: LoadedTower | None = None
) -> LoadedTower:
    """Build the tower of ``side``; ``shared`` is one of the same modules, whose way to attend binds this one."""
    from esvector.encode.backends.torch import TorchBackend

    dims, normalize = profile.dims or 0, bool(profile.normalize)
    if modules.tokenizer is None:
        return LoadedTower(_whole_model(modules, dims, normalize=normalize, device=device))
    prompt = (profile.query_prompt if side == "query" else profile.document_prompt) or ""
    backend = TorchBackend(modules.embedder(prompt), device)
    if shared is not None:
        backend.attend_as(shared.tower.backend)  # type: ignore[attr-defined]  # built here, a moment ago
    elif backend.device.type == "cuda":
        backend.choose_attention(modules.tokenizer)
        _log.info("%s on %s runs texts %s", profile.model, device, backend.attention)
    build = partial(ModelTower, modules.tokenizer, dims=dims, normalize=normalize)
    return LoadedTower(build(backend), lambda: build(backend.exact()))


def _whole_model(modules: SideModules, dims: int, *, normalize: bool, device: str) -> TextTower:
    model = as_sentence_transformer(modules).to(device)

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = model.encode(list(texts), prompt="", batch_size=max(1, len(texts)), show_progress_bar=False)
        return finish(np.asarray(vectors, np.float32), dims, normalize=normalize)

    def count(texts: Sequence[str]) -> NDArray[np.int64]:
        return np.fromiter((1 + len(text) // 4 for text in texts), np.int64, len(texts))  # tokens are its own affair

    return TextTower(encode, count, dims, modules.max_length, token_budget=2048)
