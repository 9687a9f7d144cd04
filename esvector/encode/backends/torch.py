"""torch: every model and every device."""

from __future__ import annotations

import contextlib
import copy
import itertools
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from esvector.encode.backends.unpadded import EndToEnd
from esvector.encode.tower import looks_out_of_memory
from esvector.forks import torch_threads

__all__ = ["Embedder", "TorchBackend"]

# Padded tokens of a batch. CPU, for each thread: the best of 256 to 8192 for a MiniLM-sized model. GPU: enough for the
# matrix products to fill the device; not measured on one yet.
_CPU_BUDGET = 2048
_GPU_BUDGET = 32_768
_SAME = 0.999  # cosine of a vector run end to end to the one run with padding, in half precision
_TRIALS = 4
_log = logging.getLogger(__name__)


class Embedder(nn.Module):
    """The modules of one side of a model, from padded ids to embeddings.

    Args:
        modules: modules of sentence-transformers, or any that turn features into ``sentence_embedding``.
        flat: whether the first one takes ids end to end with offsets, as a table of token vectors does.
        prompt_length: tokens at the beginning that pooling leaves out; None where it takes all.
    """

    def __init__(self, modules: Sequence[nn.Module], *, flat: bool = False, prompt_length: int | None = None) -> None:
        super().__init__()
        self.steps = nn.ModuleList(modules)
        self._flat = flat
        self._prompt_length = prompt_length

    def end_to_end(self, before: str = "") -> EndToEnd:
        """Return what runs the same modules without padding; ``before`` is the attention it has replaced already."""
        return EndToEnd(list(self.steps), self._prompt_length, before)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embeddings of a batch: (n, raw dims); ``input_ids`` and ``attention_mask`` are (n, length)."""
        features: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self._flat:
            ends = attention_mask.sum(dim=1).cumsum(dim=0)
            features = {"input_ids": input_ids[attention_mask.bool()], "offsets": ends - attention_mask.sum(dim=1)}
        if self._prompt_length is not None:
            features["prompt_length"] = self._prompt_length
        for step in self.steps:
            features = step(features)
        embeddings: Tensor = features["sentence_embedding"]
        return embeddings


class TorchBackend:
    """Runs an ``Embedder`` on one device. On a GPU nothing waits for the device before ``collect``.

    On a CPU a batch is cut into a share for each of torch's threads: 1.4 times as fast on two cores (MiniLM) as two
    threads in every matrix product.
    """

    name = "torch"

    def __init__(self, embedder: Embedder, device: str) -> None:
        self.device = torch.device(device)
        self.embedder = embedder.to(self.device).eval()
        self._pinned = self.device.type == "cuda"
        self._end_to_end: EndToEnd | None = None
        self._threads = torch.get_num_threads() if self.device.type == "cpu" else 1
        self.token_budget = _CPU_BUDGET * self._threads if self.device.type == "cpu" else _GPU_BUDGET

    @property
    def dtype(self) -> str:
        """Number format of the computation, such as "float32"."""
        kinds = {parameter.dtype for parameter in self.embedder.parameters() if parameter.is_floating_point()}
        return "+".join(sorted(str(kind).removeprefix("torch.") for kind in kinds)) or "float32"

    def forward(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> Tensor:
        """Start one batch; ``ids`` and ``mask`` are (n, length), padded on the right."""
        torch_threads()
        with torch.inference_mode():
            if self._end_to_end is not None:
                return self._end_to_end.forward(ids, mask, self._move)
            shares = _shares(mask, self._threads)
            if len(shares) > 1:
                return self._side_by_side(ids, mask, shares)
            output: Tensor = self.embedder(self._move(ids), self._move(mask))
        return output

    def _side_by_side(self, ids: NDArray[np.int64], mask: NDArray[np.int64], shares: list[slice]) -> Tensor:
        """Run each share in a thread of its own, cut to its longest text; torch's own threads rest meanwhile."""

        def run(rows: slice) -> Tensor:
            with torch.inference_mode():
                length = int(mask[rows].sum(axis=1).max())
                output: Tensor = self.embedder(self._move(ids[rows, :length]), self._move(mask[rows, :length]))
            return output

        torch.set_num_threads(1)
        try:
            with ThreadPoolExecutor(len(shares)) as pool:
                return torch.cat(list(pool.map(run, shares)))
        finally:
            torch.set_num_threads(torch_threads())

    def collect(self, outputs: list[Tensor]) -> NDArray[np.float32]:
        """Wait for the device and copy everything back at once: (sum of n, raw dims) float32."""
        with torch.inference_mode():
            vectors: NDArray[np.float32] = torch.cat(outputs).float().cpu().numpy()
        return vectors

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether a smaller batch may help against ``error``."""
        return isinstance(error, torch.OutOfMemoryError) or looks_out_of_memory(error)

    def is_lost(self, error: BaseException) -> bool:
        """Whether nothing more can be run after ``error`` in this process: CUDA errors stick to its context."""
        accelerator = isinstance(error, torch.AcceleratorError) and not self.is_out_of_memory(error)
        return accelerator or (isinstance(error, RuntimeError) and str(error).startswith("CUDA error"))

    def exact(self) -> TorchBackend:
        """Return the same model in float32: itself where it is."""
        if self.dtype == "float32":
            return self
        with contextlib.nullcontext() if self._end_to_end is None else self._end_to_end.padded():
            return TorchBackend(copy.deepcopy(self.embedder).float(), str(self.device))

    def choose_attention(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> None:
        """On a GPU: run texts end to end from now on, if a batch shows that it is faster and gives the same vectors."""
        candidate = self.embedder.end_to_end()
        if self.device.type != "cuda" or not candidate.possible:
            return
        padded, seconds = self._time(ids, mask)
        candidate.replace_attention()
        self._end_to_end = candidate
        try:
            found, shorter = self._time(ids, mask)
            cosines = torch.nn.functional.cosine_similarity(found.float(), padded.float())
            if shorter < seconds and float(cosines.min()) >= _SAME:
                return
        except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
            _log.debug("texts cannot be run end to end: %s", error)
        candidate.restore_attention()
        self._end_to_end = None

    def attend_as(self, other: TorchBackend) -> None:
        """Run texts end to end where ``other`` does, which has the same model: its attention is replaced for both."""
        if other._end_to_end is not None:
            self._end_to_end = self.embedder.end_to_end(other._end_to_end.before)

    def _time(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> tuple[Tensor, float]:
        """The vectors of a batch, and the seconds of the quickest of a few runs."""
        quickest = float("inf")
        for _ in range(_TRIALS):
            torch.cuda.synchronize(self.device)
            started = time.perf_counter()
            output = self.forward(ids, mask)
            torch.cuda.synchronize(self.device)
            quickest = min(quickest, time.perf_counter() - started)
        return output, quickest

    def _move(self, array: NDArray[Any]) -> Tensor:
        tensor = torch.from_numpy(array)
        return tensor.pin_memory().to(self.device, non_blocking=True) if self._pinned else tensor.to(self.device)


def _shares(mask: NDArray[np.int64], count: int) -> list[slice]:
    """Cut the rows of ``mask`` (n, length) into up to ``count`` runs of about as many tokens each."""
    ends = np.cumsum(mask.sum(axis=1))
    wanted = ends[-1] * np.arange(1, count) / count if len(ends) else []
    borders = sorted({0, *(int(row) + 1 for row in np.searchsorted(ends, wanted)), len(ends)})
    return [slice(start, end) for start, end in itertools.pairwise(borders)]
