"""The query side of an index: its own encoder, light where it can be, and tried on its probes before the first query.

Nothing here imports torch unless a tower has to be loaded, or exported for the first time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from esvector.encode import query_cache
from esvector.encode.batcher import Batcher
from esvector.encode.batching import QueryBatcher
from esvector.encode.encoder import Encoder, ModelEncoder, check_match
from esvector.encode.light import export_light, open_light, workers
from esvector.encode.probes import LEAST_AGREEMENT, PROBES, agreement
from esvector.encode.profile import EncoderProfile
from esvector.encode.tower import ModelTower, Tower
from esvector.errors import EncoderError, EncoderMismatchError, MissingExtraError
from esvector.forks import PerProcess

if TYPE_CHECKING:
    from esvector.encode.query_cache import LightFiles

__all__ = ["QueryEncoder", "export_query", "open_query_encoder", "probe_vectors", "use_encoder"]

_log = logging.getLogger(__name__)
_Vectors = NDArray[np.float32]


class QueryEncoder:
    """Encodes the queries of one index. Threads may share it: those that ask at the same time share a batch.

    ``how`` is what runs: "onnx" or "static" (light), "torch", or "own" for an application's encoder.
    """

    def __init__(self, encode: Callable[[list[str]], _Vectors], query_id: str, how: str, workers: int = 1) -> None:
        self.query_id = query_id
        self.how = how
        # Those who wait in a batcher of a process that was forked, and those it runs, do not exist in the child.
        self._batcher = PerProcess(lambda _: QueryBatcher(encode, workers=workers))

    def __call__(self, texts: Sequence[str]) -> _Vectors:
        """Embeddings of queries: (n, dims) float32. Raises EncoderError for one that has no usable vector."""
        return self._batcher()(texts)


def open_query_encoder(
    profile: EncoderProfile,
    probes: _Vectors,
    *,
    device: str | None = None,
    cache: Path | None = None,
) -> QueryEncoder:
    """Return what encodes queries for an index with the passport's ``profile`` and ``probes`` (p, dims).

    An exported tower from ``cache`` is used where there is one and no ``device`` but the CPU is asked for; else the
    model is loaded, and exported for the next time. Raises EncoderError when the model is not to be had, or nobody said
    how it encodes queries; EncoderMismatchError when it is not the one that made the index, or does not reproduce the
    probes.
    """
    if not profile.complete:
        raise EncoderError(
            f"the index does not say how {profile.model} encodes queries: it was not at hand when the index was made",
            "give what encodes them: Searcher(..., encoder=...)",
        )
    folder = cache or query_cache.cache_folder()
    light_wanted = device in (None, "cpu") and find_spec("onnxruntime") is not None
    if light_wanted and (files := query_cache.find(folder, profile.query_id)) is not None:
        if (light := _open(files, profile, probes)) is not None:
            return light
        _log.warning("the exported query encoder in %s is damaged: it is made anew", files.folder)
        with suppress(OSError):  # where nothing can be removed, nothing can be written either: torch will do
            query_cache.discard(folder, profile.query_id)
    try:
        encoder = _load(profile, "cpu" if light_wanted else device)
    except MissingExtraError as error:
        raise MissingExtraError(
            f"the query encoder of {profile.model} is not in {folder}, and to load the model {error.message}",
            f"{error.remedy}, or bring the folder from where the index was made (--query-cache)",
        ) from error
    _check_probes(probe_vectors(encoder), probes, profile)
    if light_wanted:
        try:
            light = _open(export_query(encoder, folder), profile, probes)
        except (EncoderError, OSError) as error:
            _log.warning("queries of %s are encoded by torch, which starts slowly: %s", profile.model, _first(error))
        else:
            if light is not None:
                return light
    return QueryEncoder(_encode(encoder.batcher("query").tower, encoder.profile), profile.query_id, "torch")


def use_encoder(encoder: Encoder, profile: EncoderProfile, probes: _Vectors) -> QueryEncoder:
    """Return what encodes queries with an application's ``encoder``, if it is the one of ``profile``.

    Raises EncoderMismatchError when it is another.
    """
    check_match(profile, encoder.profile)
    if len(probes):
        _check_probes(probe_vectors(encoder), probes, profile)
    return QueryEncoder(encoder.encode_query, profile.query_id, "own")


def probe_vectors(encoder: Encoder) -> _Vectors:
    """What ``encoder`` makes of the probe texts as queries: (p, dims) float32."""
    if isinstance(encoder, ModelEncoder):
        return _probe(encoder.batcher("query").tower, encoder.profile)
    return encoder.encode_query(PROBES)


def export_query(encoder: ModelEncoder, cache: Path | None = None) -> LightFiles:
    """Export the query tower of ``encoder`` into ``cache``, unless it is there, and return where it is.

    Raises EncoderError when the tower cannot be exported.
    """
    folder = cache or query_cache.cache_folder()
    profile = encoder.profile
    found = query_cache.find(folder, profile.query_id)
    if found is not None and query_cache.is_intact(found):
        return found
    loaded = encoder.towers["query"]
    tower = loaded.exact() if loaded.exact is not None else loaded.tower
    if not isinstance(tower, ModelTower):
        raise EncoderError(f"{profile.model} tokenizes in a way of its own, which cannot be exported")
    return export_light(tower, profile, folder)


def _open(files: LightFiles, profile: EncoderProfile, probes: _Vectors) -> QueryEncoder | None:
    """Open an exported tower; None where it is damaged, or does not reproduce the probes."""
    tower = open_light(files)
    if tower is None or _worst(_probe(tower, profile), probes) < LEAST_AGREEMENT:
        return None
    return QueryEncoder(_encode(tower, profile), profile.query_id, files.facts.kind, workers(files))


def _first(error: Exception) -> str:
    return (error.message if isinstance(error, EncoderError) else str(error)).partition("\n")[0]


def _load(profile: EncoderProfile, device: str | None) -> ModelEncoder:
    from esvector.encode.loading import load_encoder

    # What computed the documents does not bind the queries: the same weights give the same space on any device.
    return load_encoder(replace(profile, dtype=None, backend=None), "query", device)


def _encode(tower: Tower, profile: EncoderProfile) -> Callable[[list[str]], _Vectors]:
    zero_allowed = profile.similarity == "dot"

    def encode(texts: list[str]) -> _Vectors:
        window = Batcher(tower, zero_allowed=zero_allowed).encode(
            tower.tokenize([profile.query_input(text) for text in texts])
        )
        if window.refused:
            position, reason = min(window.refused.items())
            raise EncoderError(
                f"the encoder gave no usable vector for the query {texts[position]!r:.200}: {reason}",
                "ask with other words",
            )
        return window.vectors

    return encode


def _probe(tower: Tower, profile: EncoderProfile) -> _Vectors:
    inputs = tower.tokenize([profile.query_input(text) for text in PROBES])
    # Each alone: in one batch the short would be padded to the long one's length, four times the work of every opening.
    return Batcher(tower, zero_allowed=True, token_budget=1).encode(inputs).vectors


def _worst(vectors: _Vectors, probes: _Vectors) -> float:
    """Least agreement of any probe; 1 where the passport has none."""
    if not len(probes):
        return 1.0
    return float(agreement(vectors, probes).min()) if vectors.shape == probes.shape else -1.0


def _check_probes(vectors: _Vectors, probes: _Vectors, profile: EncoderProfile) -> None:
    worst = _worst(vectors, probes)
    if worst < LEAST_AGREEMENT:
        raise EncoderMismatchError(
            f"the query encoder of {profile.model} has the right files and settings, but gives other vectors than it "
            f"gave when the index was made: a probe comes back with a cosine of {worst:.3f}",
            "look for what changes it at run time (a prompt, a number format, a library's version), "
            "or index the documents again",
        )
