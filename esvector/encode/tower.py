"""A tower: one side of an encoder. Complete inputs go in, finished vectors come out. Needs numpy only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from esvector.encode.backends import Backend
from esvector.encode.tokens import TextTokenizer, Tokens

__all__ = ["Inputs", "ModelTower", "TextTower", "Tower", "finish", "looks_out_of_memory", "unit_length"]


class Inputs(Protocol):
    """Tokenized inputs: what the engine has to know of them to sort and to count."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens that the encoder reads: (n,) int64."""

    @property
    def counts(self) -> NDArray[np.int64]:
        """Tokens before the cut: (n,) int64."""

    @property
    def refused(self) -> dict[int, str]:
        """Why an input cannot be encoded, by its position."""


class Tower(Protocol):
    """Encodes complete inputs: the prompt is part of them.

    ``tokenize`` may run in any thread, beside the rest; one thread at a time uses ``forward`` and ``collect``.
    """

    @property
    def dims(self) -> int:
        """Length of a vector."""

    @property
    def token_budget(self) -> int:
        """Padded tokens of a batch that suit the device."""

    def tokenize(self, inputs: Sequence[str]) -> Inputs:
        """Tokenize complete inputs."""

    def forward(self, inputs: Any, rows: NDArray[np.intp]) -> Any:  # noqa: ANN401
        """Run one batch, the ``rows`` (m,) of ``inputs``; may return before the device is done."""

    def collect(self, outputs: list[Any]) -> NDArray[np.float32]:
        """Return the vectors of several batches, one after the other: (sum of m, dims) float32, finished."""

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether a smaller batch may help against ``error``."""

    def is_lost(self, error: BaseException) -> bool:
        """Whether nothing more can be run after ``error`` in this process."""


@runtime_checkable
class LayingBackend(Protocol):
    """A backend that may run texts laid end to end, so that nobody has to pad them first."""

    @property
    def lays(self) -> bool:
        """Whether it does."""

    def forward_laid(self, ids: NDArray[np.int32], lengths: NDArray[np.int64]) -> Any:  # noqa: ANN401
        """Run one batch: ``ids`` (total,) of texts of ``lengths`` (n,), one after the other."""


class ModelTower:
    """A tokenizer and a backend. Vectors are cut to ``dims``, and unit length where ``normalize``."""

    def __init__(self, tokenizer: TextTokenizer, backend: Backend, dims: int, *, normalize: bool) -> None:
        self.tokenizer = tokenizer
        self.backend = backend
        self.dims = dims
        self.normalize = normalize
        self._laying = backend if isinstance(backend, LayingBackend) else None

    @property
    def token_budget(self) -> int:
        """Padded tokens of a batch that suit the device."""
        return self.backend.token_budget

    def tokenize(self, inputs: Sequence[str]) -> Tokens:
        """Tokenize complete inputs."""
        return self.tokenizer(inputs)

    def forward(self, inputs: Tokens, rows: NDArray[np.intp]) -> Any:  # noqa: ANN401
        """Run one batch, the ``rows`` (m,) of ``inputs``."""
        if self._laying is not None and self._laying.lays:
            some = inputs.select(rows)
            return self._laying.forward_laid(some.ids, some.lengths)
        return self.backend.forward(*inputs.padded(rows, self.tokenizer.pad_id))

    def collect(self, outputs: list[Any]) -> NDArray[np.float32]:
        """Return the vectors of several batches: (sum of m, dims) float32, finished."""
        return finish(self.backend.collect(outputs), self.dims, normalize=self.normalize)

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether a smaller batch may help against ``error``."""
        return self.backend.is_out_of_memory(error)

    def is_lost(self, error: BaseException) -> bool:
        """Whether nothing more can be run after ``error`` in this process."""
        return self.backend.is_lost(error)


class TextTower:
    """A tower of something that takes texts only: an encoder of an application's own.

    Args:
        encode: texts to vectors, (n, dims) float32.
        count: texts to their numbers of tokens, (n,) int64.
        dims: length of a vector.
        max_length: tokens that it reads; None for all.
        token_budget: padded tokens of a batch.
    """

    def __init__(
        self,
        encode: Callable[[Sequence[str]], NDArray[np.float32]],
        count: Callable[[Sequence[str]], NDArray[np.int64]],
        dims: int,
        max_length: int | None,
        token_budget: int,
    ) -> None:
        self._encode = encode
        self._count = count
        self.dims = dims
        self._max_length = max_length
        self.token_budget = token_budget

    def tokenize(self, inputs: Sequence[str]) -> _Texts:
        """Count the tokens of complete inputs."""
        counts = self._count(inputs)
        lengths = counts if self._max_length is None else np.minimum(counts, self._max_length)
        return _Texts(list(inputs), lengths, counts)

    def forward(self, inputs: _Texts, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """Run one batch, the ``rows`` (m,) of ``inputs``."""
        return np.asarray(self._encode([inputs.texts[row] for row in rows]), np.float32)

    def collect(self, outputs: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return the vectors of several batches: (sum of m, dims) float32."""
        return np.concatenate(outputs)

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether a smaller batch may help against ``error``."""
        return looks_out_of_memory(error)

    def is_lost(self, error: BaseException) -> bool:
        """Whether nothing more can be run after ``error`` in this process."""
        return False


class _Texts:
    """Texts with their numbers of tokens."""

    def __init__(self, texts: list[str], lengths: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
        self.texts = texts
        self.lengths = lengths
        self.counts = counts
        self.refused: dict[int, str] = {}


def looks_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says so: torch's own class for a GPU is a RuntimeError, and its CPU has no class at all."""
    said = str(error).lower()
    out = "out of memory" in said or "can't allocate memory" in said
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and out)


def finish(vectors: NDArray[np.float32], dims: int, *, normalize: bool) -> NDArray[np.float32]:
    """Cut (n, more) to (n, dims), then scale to unit length: in this order, or cut vectors would not be unit."""
    cut = vectors[:, :dims]
    return unit_length(cut) if normalize else np.ascontiguousarray(cut)


def unit_length(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors scaled to length 1 in float32: (n, dims). A zero vector stays zero; NaN stays NaN.

    Half precision cannot do this itself: its "unit" vectors have squared lengths of 0.993 to 1.008, and
    Elasticsearch refuses what is off by 0.001.
    """
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity are found, and named, by the engine
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        scaled: NDArray[np.float32] = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms != 0)
    return scaled
