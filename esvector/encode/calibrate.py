"""Choosing what runs the document tower: each backend tried on a sample of the texts at hand, against torch in float32.

Speed alone would choose wrongly: dynamic int8 is onnxruntime's fastest graph, and its vectors depend on which texts
share a batch (cosines down to 0.82). A backend is accepted when it agrees with torch and does not mind its neighbours.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from esvector.encode.backends import Backend
from esvector.encode.batcher import Batcher
from esvector.encode.encoder import LoadedTower, ModelEncoder
from esvector.encode.probes import agreement
from esvector.encode.tokens import token_batches
from esvector.encode.tower import ModelTower
from esvector.errors import ConfigError, EncoderError

__all__ = ["LEAST_MEAN", "BackendName", "BackendTrial", "choose_backend", "spread", "use_backend"]

_T = TypeVar("_T")
BackendName = Literal["torch", "onnx", "openvino", "openvino-int8"]

LEAST_MEAN = 0.995
"""Mean cosine to torch in float32 below which ``choose_backend`` takes no backend."""

_STEADY = 0.9999  # cosine of a text's vector alone to the one beside longer neighbours
_CALIBRATION = 300  # texts that quantization sees
_HELD_OUT = 128  # texts that speed and agreement are measured on
_ROUNDS = 3
_FEWEST = 64


@dataclass(frozen=True, slots=True)
class BackendTrial:
    """How one backend did.

    Attributes:
        name: the backend.
        speed: texts per second, as a ratio to torch; 0 where it could not be tried.
        mean: mean cosine to torch's vectors, in float32.
        least: the least of them.
        steady: the least cosine of a text alone to itself in a batch.
        refused: why it was not accepted; "" where it was.
    """

    name: BackendName
    speed: float
    mean: float
    least: float
    steady: float
    refused: str = ""


def choose_backend(
    encoder: ModelEncoder,
    inputs: Sequence[str],
    *,
    least_mean: float = LEAST_MEAN,
    report: Callable[[BackendTrial], None] = lambda _: None,
) -> ModelEncoder:
    """Return ``encoder`` with the fastest backend that agrees with torch on ``inputs`` (complete document inputs).

    ``report`` is told of each trial. torch stays where there are too few texts to try on, or nothing is faster.
    """
    tower = _torch_tower(encoder)
    if len(inputs) < _FEWEST or encoder.profile.dtype != "float32":
        return encoder
    sample = _Sample.of(tower, inputs)
    best, best_speed = encoder, 1.0
    for name in get_args(BackendName):
        if name == "torch" or not _installed(name):
            continue
        try:
            candidate = use_backend(encoder, name, inputs)
        except EncoderError as error:
            report(BackendTrial(name, 0, 0, 0, 0, error.message))
            continue
        trial = sample.judge(name, _model_tower(candidate), least_mean)
        report(trial)
        if not trial.refused and trial.speed > best_speed:
            best, best_speed = candidate, trial.speed
    return best


def use_backend(encoder: ModelEncoder, name: BackendName, inputs: Sequence[str]) -> ModelEncoder:
    """Return ``encoder`` with its document tower run by the backend called ``name``.

    ``inputs`` are complete document inputs: "openvino-int8" is calibrated on some of them. Raises EncoderError when the
    model cannot be run this way, MissingExtraError when a package is missing, ConfigError for an unknown name.
    """
    if name not in get_args(BackendName):
        raise ConfigError(f"backend {name!r} is not known", f"use one of auto, {', '.join(get_args(BackendName))}")
    if name == "torch":
        return encoder
    torch_tower = _torch_tower(encoder)
    backend = _build(name, torch_tower, inputs)
    tower = ModelTower(torch_tower.tokenizer, backend, torch_tower.dims, normalize=torch_tower.normalize)
    towers = encoder.towers | {"document": LoadedTower(tower, lambda: torch_tower)}
    return ModelEncoder(
        replace(encoder.profile, backend=name), towers, encoder.sources, encoder.warnings, encoder.base_model
    )


@dataclass(frozen=True, slots=True)
class _Sample:
    """Texts held out of calibration, with torch's vectors of them and the time that these took."""

    tower: ModelTower
    inputs: list[str]
    vectors: NDArray[np.float32]

    @classmethod
    def of(cls, tower: ModelTower, inputs: Sequence[str]) -> _Sample:
        held_out = spread(inputs[_CALIBRATION:] if len(inputs) >= _CALIBRATION + _FEWEST else inputs, _HELD_OUT)
        return cls(tower, held_out, _encode(tower, held_out))

    def judge(self, name: BackendName, tower: ModelTower, least_mean: float) -> BackendTrial:
        """Compare ``tower`` with torch, in turn, by the quickest round of each: others may use the machine, too."""
        vectors = _encode(tower, self.inputs)
        seconds = [np.inf, np.inf]
        for _ in range(_ROUNDS):
            for side, candidate in enumerate((self.tower, tower)):
                started = time.perf_counter()
                _encode(candidate, self.inputs)
                seconds[side] = min(seconds[side], time.perf_counter() - started)
        found = agreement(vectors, self.vectors)
        alone = np.concatenate([_encode(tower, [text]) for text in self.inputs[:16]])
        steady = float(agreement(alone, vectors[:16]).min())
        mean = float(found.mean())
        refused = ""
        if mean < least_mean:
            refused = f"its vectors differ from torch's: mean cosine {mean:.4f}, wanted {least_mean}"
        elif steady < _STEADY:
            refused = f"a vector depends on the texts beside it: cosine {steady:.4f} to itself alone"
        return BackendTrial(name, float(seconds[0] / seconds[1]), mean, float(found.min()), steady, refused)


def _build(name: BackendName, tower: ModelTower, inputs: Sequence[str]) -> Backend:
    embedder: Any = tower.backend.embedder  # type: ignore[attr-defined]  # it is torch's
    if name == "onnx":
        from esvector.encode.backends.onnx import OnnxBackend
        from esvector.encode.export import export_onnx

        probes = tower.tokenize(spread(inputs, 8))
        with TemporaryDirectory(prefix="esvector-") as folder:
            path = Path(folder) / "model.onnx"
            export_onnx(embedder, path, probes, pad_id=tower.tokenizer.pad_id)
            return OnnxBackend(path)
    from esvector.encode.backends.openvino import OpenVinoBackend, convert, quantize

    model = convert(embedder)
    if name == "openvino":
        return OpenVinoBackend(model)
    tokens = tower.tokenize(spread(inputs[:_CALIBRATION], _CALIBRATION))
    batches = token_batches(tokens.lengths, tower.token_budget)
    return OpenVinoBackend(quantize(model, [tokens.padded(rows, tower.tokenizer.pad_id) for rows in batches]))


def spread(items: Sequence[_T], count: int) -> list[_T]:
    """Up to ``count`` of ``items``, evenly from first to last."""
    return [items[row] for row in np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).astype(int))]


def _encode(tower: ModelTower, inputs: Sequence[str]) -> NDArray[np.float32]:
    return Batcher(tower, zero_allowed=True).encode(tower.tokenize(inputs)).vectors


def _model_tower(encoder: ModelEncoder) -> ModelTower:
    tower = encoder.towers["document"].tower
    if not isinstance(tower, ModelTower):
        raise EncoderError(
            f"{encoder.profile.model} tokenizes in a way of its own, which only torch can run", "use --backend torch"
        )
    return tower


def _torch_tower(encoder: ModelEncoder) -> ModelTower:
    """The document tower as torch runs it, in float32: what every other backend is made from and compared with."""
    tower = _model_tower(encoder)
    exact = encoder.towers["document"].exact
    return tower if exact is None or tower.backend.name == "torch" else exact()  # type: ignore[return-value]


def _installed(name: BackendName) -> bool:
    wanted = {"onnx": ("onnxruntime", "onnx"), "openvino": ("openvino",), "openvino-int8": ("openvino", "nncf")}
    return all(find_spec(module) is not None for module in wanted.get(name, ()))
