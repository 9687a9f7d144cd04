"""torch on a CPU: shares of a batch side by side, with the application's threads given back."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from esvector.encode.backends.torch import TorchBackend
from esvector.encode.loading import load_encoder
from esvector.encode.profile import EncoderProfile
from esvector.encode.tower import ModelTower
from tests.support import models


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def tower(folder: Path) -> tuple[ModelTower, TorchBackend]:
    found = load_encoder(EncoderProfile(str(folder)), device="cpu").towers["document"].tower
    assert isinstance(found, ModelTower)
    assert isinstance(found.backend, TorchBackend)
    return found, found.backend


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 40])
def test_vectors_do_not_depend_on_the_shares(tmp_path: Path, rows: int) -> None:
    ours, backend = tower(models.symmetric(tmp_path / "model"))
    ids, mask = ours.tokenize(models.words(rows, 4)).padded(np.arange(rows))
    together = backend.collect([backend.forward(ids, mask)])
    alone = backend.collect([backend.forward(ids[n : n + 1], mask[n : n + 1]) for n in range(rows)])
    assert together.shape == (rows, 32)
    assert np.allclose(together, alone, atol=1e-6)


def test_the_threads_of_the_application_are_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, backend = tower(models.symmetric(tmp_path / "model"))
    ids, mask = ours.tokenize(models.words(9, 4)).padded(np.arange(9))
    seen: list[int] = []
    whole = backend.embedder.forward

    def watched(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        seen.append(torch.get_num_threads())
        return whole(input_ids, attention_mask)

    monkeypatch.setattr(backend.embedder, "forward", watched)
    backend.forward(ids, mask)
    assert seen == [1, 1, 1]
    assert torch.get_num_threads() == 3

    def failing(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(backend.embedder, "forward", failing)
    with pytest.raises(RuntimeError, match="out of memory"):
        backend.forward(ids, mask)
    assert torch.get_num_threads() == 3


LOST = [
    RuntimeError("CUDA error: device-side assert triggered"),
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx(...)`"),
    torch.AcceleratorError("CUDA error: unspecified launch failure"),
]
NO_ROOM = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("CUDA error: out of memory"),
    torch.AcceleratorError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    MemoryError(),
]
ORDINARY = [IndexError("index out of range in self"), ValueError("CUDA error"), RuntimeError("shapes do not fit")]


@pytest.mark.parametrize("error", [*LOST, *NO_ROOM, *ORDINARY], ids=str)
@pytest.mark.parametrize("old", [False, True], ids=["torch", "torch<2.8"])
def test_which_error_is_which(error: Exception, old: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory of the device that is short may do for a smaller batch; an error that sticks leaves nothing to try."""
    _, backend = tower(models.symmetric(tmp_path / "model"))
    if old:
        monkeypatch.delattr(torch, "AcceleratorError")
    assert backend.is_lost(error) == (error in LOST)
    assert backend.is_out_of_memory(error) == (error in NO_ROOM)


_FORKED = """
import os, sys, time
import numpy as np
import torch
from esvector.encode.backends.torch import Embedder, TorchBackend

class Large(torch.nn.Module):
    def forward(self, features):
        work = torch.ones(4_000_000).exp()  # enough to be cut among torch's threads
        return {"sentence_embedding": work[: len(features["input_ids"])].unsqueeze(1)}

ids = np.ones((1, 4), np.int64)
backend = TorchBackend(Embedder([Large()]), "cpu")
backend.forward(ids, ids)
if (child := os.fork()) == 0:
    backend.forward(ids, ids)
    TorchBackend(Embedder([Large()]), "cpu").forward(ids, ids)
    sys.exit(7)
ends = time.monotonic() + 120
while not (done := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < ends:
    time.sleep(0.01)
if not done[0]:
    os.kill(child, 9)
print(os.waitstatus_to_exitcode(done[1]) if done[0] else "hung", torch.get_num_threads(), flush=True)
"""


def test_a_forked_child_does_not_wait_for_torchs_threads_of_its_parent() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FORKED],
        env=os.environ | {"OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["7", "2"], done.stderr
