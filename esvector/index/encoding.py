"""What encodes a load: engines for its devices, the complete profile, and the probes of its query side."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from esvector.encode.advice import Task, advise
from esvector.encode.encoder import Encoder, ModelEncoder
from esvector.encode.engine import DocumentEngine, LocalEngine, document_engine
from esvector.encode.loading import load_encoder
from esvector.encode.modules import default_device
from esvector.encode.probes import pack_probes
from esvector.encode.profile import EncoderProfile
from esvector.encode.queries import export_query, probe_vectors
from esvector.encode.workers import ProcessEngine
from esvector.errors import ConfigError, EncoderError, require
from esvector.index.given import GivenEngine, check_sample
from esvector.types import Document

if TYPE_CHECKING:
    from esvector.encode.calibrate import BackendName, BackendTrial

__all__ = ["Encoding", "open_encoding", "open_given"]

# From about 500 documents sorting pays in full on a CPU; more would only make progress coarse.
_CPU_WINDOW = 1024
_GPU_WINDOW = 8192
_LOOKED_AT = 256  # documents that the warnings look at
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Encoding:
    """What encodes a load. ``engines`` has one for each device; ``probes`` are packed for the passport.

    ``encoder`` has the query side; None where nothing is at hand that could encode a query.
    """

    profile: EncoderProfile
    engines: tuple[DocumentEngine, ...]
    probes: tuple[str, ...]
    encoder: Encoder | None

    @property
    def window_documents(self) -> int:
        """Documents of a window: sorting by length needs several batches, and a GPU's batches are large."""
        return _GPU_WINDOW if any(isinstance(engine, ProcessEngine) for engine in self.engines) else _CPU_WINDOW

    def close(self) -> bool:
        """End the processes that encode; whether there were any."""
        processes = [engine for engine in self.engines if isinstance(engine, ProcessEngine)]
        for engine in processes:
            engine.close()
        return bool(processes)

    def export_query_side(self, cache: Path | None) -> None:
        """Export the query tower, so that searching needs no torch; where that cannot be, say so."""
        if not isinstance(self.encoder, ModelEncoder):
            return
        try:
            export_query(self.encoder, cache)
        except (EncoderError, OSError) as error:
            said = error.message if isinstance(error, EncoderError) else str(error)
            _log.warning("searching %s will load torch, which starts slowly: %s", self.profile.model, said)

    def settle(
        self,
        documents: Sequence[Document],
        backend: BackendName | Literal["auto"],
        task: Task | None,
        *,
        passages: bool = False,
    ) -> Encoding:
        """Return what encodes, now that the first ``documents`` are known; say what a user should look at.

        With ``passages`` they will be cut, so that none is too long. Raises EncoderMismatchError when the vectors that
        documents brought along are not those of the model, ConfigError or EncoderError when ``backend`` cannot run it.
        """
        if isinstance(self.engines[0], GivenEngine):
            self._check_given(documents)
            return self
        _log.info("%s", _describe(self.profile))
        for warning in self._warnings(documents, task, passages=passages):
            _log.warning("%s", warning)
        return self._with_backend(backend, documents)

    def _warnings(self, documents: Sequence[Document], task: Task | None, *, passages: bool) -> list[str]:
        inputs = self.engines[0].tokenize(documents[:_LOOKED_AT])
        counts = inputs.lengths if passages else inputs.counts
        loaded = self.encoder if isinstance(self.encoder, ModelEncoder) else None
        median = float(np.median(counts))
        if loaded is None:
            return advise(self.profile, task, median_tokens=median)
        advice = advise(self.profile, task, median_tokens=median, base_model=loaded.base_model, sources=loaded.sources)
        return list(dict.fromkeys([*loaded.warnings, *advice]))

    def _with_backend(self, name: BackendName | Literal["auto"], documents: Sequence[Document]) -> Encoding:
        """Change to the backend called ``name``; "auto" lets ``documents`` choose, and leaves GPUs to torch."""
        ours = self.encoder if isinstance(self.encoder, ModelEncoder) else None
        if not isinstance(self.engines[0], LocalEngine) or self.profile.dtype != "float32":
            ours = None
        if name == "torch" or (name == "auto" and ours is None):
            return self
        if ours is None:
            raise ConfigError(
                f"backend {name!r} runs models of esvector's own, in float32 on one CPU", "leave --backend out"
            )
        from esvector.encode.calibrate import choose_backend, use_backend

        profile = ours.profile
        inputs = [profile.document_input(document.text, document.title) for document in documents]
        if name == "auto":
            encoder = choose_backend(ours, inputs, report=_say_trial)
            _log.info("encoding by %s", encoder.profile.backend)
        else:
            encoder = use_backend(ours, name, inputs)
        return replace(self, profile=encoder.profile, engines=(document_engine(encoder),), encoder=encoder)

    def _check_given(self, documents: Sequence[Document]) -> None:
        if self.encoder is None:
            _log.warning("the documents' vectors are taken as %s's unchecked: it is not at hand", self.profile.model)
        elif not check_sample(self.encoder, documents):
            _log.warning(
                "the documents' vectors are taken as %s's unchecked: none that fits has a text beside it",
                self.profile.model,
            )


def _describe(profile: EncoderProfile) -> str:
    """What is about to be done, in a line: the prompts above all."""
    reads = "all tokens" if profile.max_length is None else f"{profile.max_length} tokens"
    prompts = f"{profile.query_prompt!r} before queries, {profile.document_prompt!r} before documents"
    said = prompts if profile.query_prompt or profile.document_prompt else "no prompts"
    return f"{profile.model}: {profile.kind}, {profile.similarity}, {profile.dims} dims, reads {reads}, {said}"


def _say_trial(trial: BackendTrial) -> None:
    _log.info(
        "backend %s: %.2f times the speed of torch, cosine to it %.4f (least %.4f), %s",
        trial.name,
        trial.speed,
        trial.mean,
        trial.least,
        f"refused: {trial.refused}" if trial.refused else "accepted",
    )


def open_encoding(made_by: EncoderProfile | Encoder, devices: Sequence[str]) -> Encoding:
    """Load what ``made_by`` describes onto ``devices`` (none: a GPU where there is one), or use it as it is."""
    encoder = made_by
    if isinstance(encoder, EncoderProfile):
        require("encode", "sentence_transformers", "torch")
        devices = devices or (default_device(),)
        if len(devices) > 1 or devices[0].startswith("cuda"):
            return _open_on(encoder, devices)
        encoder = load_encoder(encoder, device=devices[0])
    return Encoding(encoder.profile, (document_engine(encoder),), _probes(encoder), encoder)


def _open_on(profile: EncoderProfile, devices: Sequence[str]) -> Encoding:
    """Load the document side in a process for each device, and the query side here, on the CPU in float32."""
    engines = tuple(ProcessEngine(partial(load_encoder, profile, "document", device), device) for device in devices)
    try:
        loaded = engines[0].profile
        query = load_encoder(replace(loaded, dtype=None, backend=None), "query", "cpu")
        for engine in engines:
            engine.wait_ready()
    except BaseException:
        for engine in engines:
            engine.close()
        raise
    complete = replace(query.profile, dtype=loaded.dtype, backend=loaded.backend)
    return Encoding(complete, engines, _probes(query), query)


def open_given(made_by: EncoderProfile | Encoder) -> Encoding:
    """Return what takes the vectors that documents bring along. ``made_by`` is what made them.

    A model that is not at hand will do when ``dims`` and ``similarity`` are stated; else raises EncoderError.
    """
    encoder: Encoder | None
    if isinstance(made_by, EncoderProfile):
        encoder = _load_if_at_hand(replace(made_by, kind=None))
        profile = made_by if encoder is None else encoder.profile
    else:
        encoder, profile = made_by, made_by.profile
    # What nobody stated stays open: a prompt assumed here would refuse the right encoder of the queries, or bind it.
    profile = replace(
        profile,
        kind="given",
        normalize=profile.similarity == "cosine" or profile.normalize,
        dtype=None,  # nobody knows in what, and by what, the vectors were computed
        backend=None,
    )
    return Encoding(profile, (GivenEngine(profile),), _probes(encoder) if encoder else (), encoder)


def _load_if_at_hand(profile: EncoderProfile) -> Encoder | None:
    try:
        return load_encoder(profile)
    except EncoderError as error:
        if profile.dims is None or profile.similarity is None:
            remedy = f"{error.remedy}; or state what made the vectors: --dims and --similarity"
            raise type(error)(error.message, remedy) from error
        return None


def _probes(encoder: Encoder) -> tuple[str, ...]:
    return tuple(pack_probes(probe_vectors(encoder)))
