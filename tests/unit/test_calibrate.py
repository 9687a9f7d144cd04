"""Choosing a backend: by speed among those that agree with torch, and never one that minds its neighbours."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from esvector.encode import calibrate
from esvector.encode.backends import Backend
from esvector.encode.calibrate import BackendTrial, choose_backend, use_backend
from esvector.encode.encoder import LoadedTower, ModelEncoder
from esvector.encode.loading import load_encoder
from esvector.encode.probes import agreement
from esvector.encode.profile import EncoderProfile
from esvector.encode.tower import ModelTower
from esvector.errors import ConfigError, EncoderError
from tests.support import models

TEXTS = models.words(450, 11)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> ModelEncoder:
    return load_encoder(EncoderProfile(str(models.symmetric(tmp_path_factory.mktemp("models") / "tiny"))), device="cpu")


class Imitation:
    """torch's vectors after ``change``, with the delay of a slower or quicker backend."""

    dtype = "float32"
    token_budget = 2048

    def __init__(self, torch_backend: Any, change: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> None:
        self.name = "imitation"
        self._torch = torch_backend
        self._change = change
        self._remembered: dict[bytes, NDArray[np.float32]] = {}

    def forward(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        key = ids.tobytes()  # the second time costs nothing: quicker than torch
        if key not in self._remembered:
            self._remembered[key] = self._change(self._torch.collect([self._torch.forward(ids, mask)]))
        return self._remembered[key]

    def collect(self, outputs: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        return np.concatenate(outputs)

    def is_out_of_memory(self, error: BaseException) -> bool:
        return False

    def is_lost(self, error: BaseException) -> bool:
        return False


def noisy(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    noise = np.random.default_rng(1).standard_normal(vectors.shape).astype(np.float32)
    return vectors + 0.05 * noise


def minds_its_neighbours(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """A range taken from the batch, as dynamic quantization does: nearly right, but another one alone."""
    step = np.abs(vectors).max() / (6 if len(vectors) == 1 else 127)
    quantized: NDArray[np.float32] = np.round(vectors / step) * step
    return quantized


def choose_among(
    monkeypatch: pytest.MonkeyPatch, encoder: ModelEncoder, **changes: Callable[[Any], Any]
) -> tuple[ModelEncoder, dict[str, BackendTrial]]:
    def build(name: str, tower: ModelTower, inputs: list[str]) -> Backend:
        if name not in changes:
            raise EncoderError(f"{name} cannot run this model")
        return Imitation(tower.backend, changes[name])

    trials: list[BackendTrial] = []
    monkeypatch.setattr(calibrate, "_build", build)
    chosen = choose_backend(encoder, TEXTS, report=trials.append)
    return chosen, {trial.name: trial for trial in trials}


def test_the_fastest_that_agrees_is_chosen(monkeypatch: pytest.MonkeyPatch, encoder: ModelEncoder) -> None:
    chosen, trials = choose_among(monkeypatch, encoder, onnx=lambda v: v, openvino=noisy)
    assert chosen.profile.backend == "onnx"
    assert trials["onnx"].refused == ""
    assert trials["onnx"].mean > 0.99999
    assert "mean cosine" in trials["openvino"].refused
    assert trials["openvino-int8"].refused == "openvino-int8 cannot run this model"
    assert chosen.profile.space_id == encoder.profile.space_id


def test_one_that_minds_its_neighbours_is_refused(monkeypatch: pytest.MonkeyPatch, encoder: ModelEncoder) -> None:
    chosen, trials = choose_among(monkeypatch, encoder, onnx=minds_its_neighbours)
    assert trials["onnx"].mean > calibrate.LEAST_MEAN
    assert "depends on the texts beside it" in trials["onnx"].refused
    assert chosen.profile.backend == "torch"


def test_a_slower_one_is_not_chosen(monkeypatch: pytest.MonkeyPatch, encoder: ModelEncoder) -> None:
    def slowly(name: str, tower: ModelTower, inputs: list[str]) -> Backend:
        backend = Imitation(tower.backend, lambda v: v)
        quick = backend.forward

        def forward(ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
            time.sleep(0.1)
            return quick(ids, mask)

        backend.forward = forward  # type: ignore[method-assign]
        return backend

    monkeypatch.setattr(calibrate, "_build", slowly)
    trials: list[BackendTrial] = []
    assert choose_backend(encoder, TEXTS, report=trials.append).profile.backend == "torch"
    assert all(trial.speed < 1 for trial in trials)


def test_a_few_texts_are_nothing_to_choose_by(encoder: ModelEncoder) -> None:
    assert choose_backend(encoder, TEXTS[:20]).profile.backend == "torch"


@pytest.mark.parametrize("name", ["onnx", "openvino", "openvino-int8"])
def test_each_backend_gives_the_models_vectors(encoder: ModelEncoder, name: Any) -> None:
    ours = use_backend(encoder, name, TEXTS)
    assert ours.profile.backend == name
    found = agreement(ours.encode_document(TEXTS[300:350]), encoder.encode_document(TEXTS[300:350]))
    assert found.min() > (0.97 if name == "openvino-int8" else 0.99999)
    assert np.allclose(ours.encode_query(TEXTS[:3]), encoder.encode_query(TEXTS[:3]), atol=1e-6)


def test_a_backend_that_nobody_knows(encoder: ModelEncoder) -> None:
    with pytest.raises(ConfigError, match="backend 'tensorrt' is not known"):
        use_backend(encoder, "tensorrt", TEXTS)  # type: ignore[arg-type]


def test_a_model_that_tokenizes_by_itself_is_run_by_torch_only(tmp_path: Path) -> None:
    class Whole:
        dims = 4

    encoder = load_encoder(EncoderProfile(str(models.symmetric(tmp_path / "model"))), device="cpu")
    encoder.towers["document"] = LoadedTower(Whole())  # type: ignore[arg-type]
    with pytest.raises(EncoderError, match="only torch can run"):
        use_backend(encoder, "onnx", TEXTS)
