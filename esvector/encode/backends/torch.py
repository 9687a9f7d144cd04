"""torch: every model and every device."""

from __future__ import annotations

import contextlib
import copy
import itertools
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from esvector.encode.backends.unpadded import EndToEnd
from esvector.encode.probes import PROBES
from esvector.encode.tokens import TextTokenizer, Tokens
from esvector.encode.tower import looks_out_of_memory
from esvector.forks import torch_threads

__all__ = ["Embedder", "TorchBackend"]

# Padded tokens of a batch. CPU, for each thread: the best of 256 to 8192 for a MiniLM-sized model. GPU: enough for the
# matrix products to fill the device; not measured on one yet.
_CPU_BUDGET = 2048
_GPU_BUDGET = 32_768
# How texts are run is tried before the first one: on two shapes, as often as this, never the same shape twice, because
# in a load no shape comes back. A round costs 40 TFLOP at most, which is 0.1 s of an H100 and 2 s of a T4.
_ROUNDS = 3
_TRIAL_WORK = 4e13
_LEAST_TRIAL = 1024  # tokens
_WIN = 1.1  # how much slower than padding, timed on a few batches, may be: padding is not timed at its worst
# Cosines of vectors run end to end to those run with padding, in half precision: in the mean, and of any text.
_SAME_MEAN, _SAME_LEAST = 0.9995, 0.99
# How running out of memory shows when cuBLAS allocates: as an error of CUDA, which does not stick.
_NO_ROOM = ("CUBLAS_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_NOT_INITIALIZED")


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

    Attributes:
        attention: how texts are run, and why, for people.
    """

    name = "torch"

    def __init__(self, embedder: Embedder, device: str) -> None:
        self.device = torch.device(device)
        self.embedder = embedder.to(self.device).eval()
        self.attention = "with padding"
        self._on_cuda = self.device.type == "cuda"
        self._end_to_end: EndToEnd | None = None
        self._threads = torch.get_num_threads() if self.device.type == "cpu" else 1
        self._process = os.getpid()
        self.token_budget = _CPU_BUDGET * self._threads if self.device.type == "cpu" else _GPU_BUDGET

    @property
    def dtype(self) -> str:
        """Number format of the computation, such as "float32"."""
        kinds = {parameter.dtype for parameter in self.embedder.parameters() if parameter.is_floating_point()}
        return "+".join(sorted(str(kind).removeprefix("torch.") for kind in kinds)) or "float32"

    def forward(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> Tensor:
        """Start one batch; ``ids`` and ``mask`` are (n, length), padded on the right."""
        torch_threads()
        if self._end_to_end is not None:
            return self.forward_laid(ids[mask.astype(bool)], mask.sum(axis=1))
        with torch.inference_mode(), self._without_cudnn():
            shares = _shares(mask, self._threads)
            if len(shares) > 1:
                return self._side_by_side(ids, mask, shares)
            output: Tensor = self.embedder(self._move(ids), self._move(mask))
        return output

    @property
    def lays(self) -> bool:
        """Whether texts are run end to end, so that ``forward_laid`` takes them without padding."""
        return self._end_to_end is not None

    def forward_laid(self, ids: NDArray[np.integer[Any]], lengths: NDArray[np.int64]) -> Tensor:
        """Start one batch of texts laid end to end: ``ids`` (total,), ``lengths`` (n,)."""
        assert self._end_to_end is not None  # noqa: S101  # whoever calls this has looked at ``lays``
        with torch.inference_mode(), self._without_cudnn():
            return self._end_to_end.forward(ids, lengths, self._move)

    @contextlib.contextmanager
    def _without_cudnn(self) -> Iterator[None]:
        """Keep torch from cuDNN's attention, which plans anew for each shape: 25 to 70 ms for nearly every batch.

        torch prefers it from Hopper on; the switch is the whole process's, so it is put back.
        """
        before = self._on_cuda and bool(torch.backends.cuda.cudnn_sdp_enabled())  # type: ignore[no-untyped-call]
        if before:
            torch.backends.cuda.enable_cudnn_sdp(False)
        try:
            yield
        finally:
            if before:
                torch.backends.cuda.enable_cudnn_sdp(True)

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
            # What the application has set; a forked child has one.
            torch.set_num_threads(self._threads if os.getpid() == self._process else 1)

    def collect(self, outputs: list[Tensor]) -> NDArray[np.float32]:
        """Wait for the device and copy everything back: (sum of n, raw dims) float32. Takes no memory of the device."""
        with torch.inference_mode():
            vectors: NDArray[np.float32] = torch.cat([output.cpu().float() for output in outputs]).numpy()
        return vectors

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether a smaller batch may help against ``error``."""
        if isinstance(error, torch.OutOfMemoryError) or looks_out_of_memory(error):
            return True
        return isinstance(error, RuntimeError) and any(text in str(error) for text in _NO_ROOM)

    def is_lost(self, error: BaseException) -> bool:
        """Whether nothing more can be run after ``error`` in this process: CUDA errors stick to its context."""
        if self.is_out_of_memory(error):
            return False
        accelerator: Any = getattr(torch, "AcceleratorError", ())  # since torch 2.8
        return isinstance(error, accelerator) or (
            isinstance(error, RuntimeError) and str(error).startswith("CUDA error")
        )

    def exact(self) -> TorchBackend:
        """Return the same model in float32: itself where it is."""
        if self.dtype == "float32":
            return self
        with contextlib.nullcontext() if self._end_to_end is None else self._end_to_end.padded():
            return TorchBackend(copy.deepcopy(self.embedder).float(), str(self.device))

    def choose_attention(self, tokenizer: TextTokenizer) -> None:
        """Run texts end to end from now on, if a trial shows that it gives the same vectors and costs no more.

        ``attention`` says what was chosen, and why. Raises what the trial raised when that has cost the device.
        """
        candidate = self.embedder.end_to_end()
        reason = candidate.obstacle
        if not reason:
            try:
                batches = _trial_batches(tokenizer, self._trial_tokens())
                padded, slow = self._time(batches, tokenizer.pad_id)
                candidate.replace_attention()
                self._end_to_end = candidate
                laid, quick = self._time(batches, tokenizer.pad_id)
                reason = _objection(laid, padded, quick / slow)
            except Exception as error:  # whatever it is, padding can do without
                if self.is_lost(error):
                    raise
                reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
        if reason:
            candidate.restore_attention()
            self._end_to_end = None
            self.attention = f"with padding ({reason})"
        else:
            self.attention = f"end to end ({slow / quick:.2f} times the speed of padding)"

    def attend_as(self, other: TorchBackend) -> None:
        """Run texts end to end where ``other`` does, which has the same model: its attention is replaced for both."""
        self.attention = other.attention
        if other._end_to_end is not None:
            self._end_to_end = self.embedder.end_to_end(other._end_to_end.before)

    def _trial_tokens(self) -> int:
        """Tokens of a batch of the trial: as many as in a load, fewer for a large model."""
        weights = sum(parameter.numel() for parameter in self.embedder.parameters())
        return min(self.token_budget, max(_LEAST_TRIAL, int(_TRIAL_WORK / (2 * _ROUNDS * max(1, weights)))))

    def _time(self, batches: Sequence[Tokens], pad: int) -> tuple[NDArray[np.float32], float]:
        """The vectors of ``batches``, and the seconds that the quickest round took. No shape comes twice."""
        vectors, quickest = [], float("inf")
        for left_out in range(_ROUNDS):
            seconds = 0.0
            for batch in batches:
                some = batch.select(np.arange(left_out, len(batch)))
                self._wait()
                started = time.perf_counter()
                if self.lays:
                    output = self.forward_laid(some.ids, some.lengths)
                else:
                    output = self.forward(*some.padded(np.arange(len(some)), pad))
                self._wait()
                seconds += time.perf_counter() - started
                if left_out == 0:
                    vectors.append(self.collect([output]))
            quickest = min(quickest, seconds)
        return np.concatenate(vectors), quickest

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _move(self, array: NDArray[Any]) -> Tensor:
        tensor = torch.from_numpy(array)
        return tensor.pin_memory().to(self.device, non_blocking=True) if self._on_cuda else tensor.to(self.device)


def _trial_batches(tokenizer: TextTokenizer, budget: int) -> list[Tokens]:
    """Texts as a load sorts them, up to ``budget`` padded tokens: long ones of about equal length, and short ones."""
    words = " ".join(PROBES).split()
    batches = []
    for longest in (len(words), len(words) // 6):
        rows = range(max(2 + _ROUNDS, budget // longest))
        texts = [" ".join([*words[row % 16 :], *words][: longest - longest * row // (5 * len(rows))]) for row in rows]
        tokens = tokenizer(texts)
        order = np.argsort(-tokens.lengths, kind="stable")
        batches.append(tokens.select(order[: max(2 + _ROUNDS, budget // max(1, int(tokens.lengths.max())))]))
    return batches


def _objection(found: NDArray[np.float32], padded: NDArray[np.float32], slower: float) -> str:
    """Why vectors that were ``found`` end to end, in ``slower`` times the time, will not do; "" if they will."""
    cosines = np.nan_to_num(
        (found * padded).sum(axis=1) / np.linalg.norm(found, axis=1) / np.linalg.norm(padded, axis=1)
    )
    mean, least = float(cosines.mean()), float(cosines.min())
    if mean < _SAME_MEAN or least < _SAME_LEAST:
        return f"end to end gives other vectors: cosine {mean:.4f} in the mean, {least:.4f} at least"
    return f"end to end takes {slower:.2f} times as long" if slower > _WIN else ""


def _shares(mask: NDArray[np.int64], count: int) -> list[slice]:
    """Cut the rows of ``mask`` (n, length) into up to ``count`` runs of about as many tokens each."""
    ends = np.cumsum(mask.sum(axis=1))
    wanted = ends[-1] * np.arange(1, count) / count if len(ends) else []
    borders = sorted({0, *(int(row) + 1 for row in np.searchsorted(ends, wanted)), len(ends)})
    return [slice(start, end) for start, end in itertools.pairwise(borders)]
