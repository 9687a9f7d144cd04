"""Encoding a window of texts: sorted by length, in batches of bounded size, back in input order, losing none."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esvector.encode.tokens import token_batches
from esvector.encode.tower import Inputs, Tower
from esvector.errors import DeviceLostError, EncoderError

__all__ = ["Batcher", "EncodedWindow"]

_EMPTY = "the text is empty"
_LOST = "run the same command again; if it happens again, try another device or fewer tokens at once"
_Rows = NDArray[np.intp]
# Batches that have to run before a budget that was cut grows by a quarter: twice as many each time that it is cut
# again, so that a budget at its limit does not run into it for ever.
_GOOD_BATCHES = 50
# Single texts that fail before any is done, until the shortest is asked: when it fails, too, no text is at fault.
_FAILURES = 32
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EncodedWindow:
    """What became of n inputs.

    Attributes:
        vectors: (n, dims) float32 in input order; rows of refused inputs mean nothing.
        tokens: (n,) int64, tokens before any cut.
        truncated: how many inputs were cut.
        refused: why an input has no vector, by its position.
    """

    vectors: NDArray[np.float32]
    tokens: NDArray[np.int64]
    truncated: int
    refused: dict[int, str]


class Batcher:
    """Runs inputs through a tower in batches of bounded size. One thread uses it at a time.

    What it learns stays: running out of memory halves the budget, which grows again while batches run.

    Args:
        tower: what encodes.
        zero_allowed: whether a zero vector is an answer; it has no direction, so cosine cannot take one.
        exact: gives a tower of the same vectors in float32, to try once more what came back as NaN.
        token_budget: padded tokens of a batch; None is what suits the tower.
    """

    def __init__(
        self,
        tower: Tower,
        *,
        zero_allowed: bool = False,
        exact: Callable[[], Tower] | None = None,
        token_budget: int | None = None,
    ) -> None:
        self.tower = tower
        self.token_budget = self._most = token_budget or tower.token_budget
        self._good, self._wanted, self._grown = 0, _GOOD_BATCHES, False
        self._zero_allowed = zero_allowed
        self._exact = exact
        self._exact_loaded: Tower | None = None
        self._exact_failed = ""
        self._warned = False

    def encode(self, inputs: Inputs, on_batch: Callable[[int, int], None] | None = None) -> EncodedWindow:
        """Encode ``inputs``; ``on_batch`` is told the inputs and tokens of each batch, and may raise to stop.

        Raises EncoderError when the tower gives another shape than it says, or fails on every input.
        """
        counts, refused = inputs.counts, dict(inputs.refused)
        vectors = np.zeros((len(counts), self.tower.dims), np.float32)
        rows = self._worth_encoding(inputs, refused)
        batches, outputs = [], []
        for batch, output in self._run(inputs, rows, refused):
            batches.append(batch)
            outputs.append(output)
            if on_batch is not None:
                on_batch(len(batch), int(counts[batch].sum()))
        if batches:
            done = np.concatenate(batches)
            collected = self._collect(self.tower, outputs, len(done))
            vectors[done] = collected
            self._mend(inputs, done[self._unusable(collected)], vectors, refused)
        truncated = int((counts > inputs.lengths).sum())
        return EncodedWindow(vectors, counts, truncated, refused)

    def _worth_encoding(self, inputs: Inputs, refused: dict[int, str]) -> _Rows:
        for row in np.flatnonzero(inputs.lengths == 0):
            refused.setdefault(int(row), _EMPTY)
        keep = np.ones(len(inputs.counts), bool)
        keep[list(refused)] = False
        return np.flatnonzero(keep)

    def _run(self, inputs: Inputs, rows: _Rows, refused: dict[int, str]) -> Iterator[tuple[_Rows, Any]]:
        """Yield each batch that ran with its output; what fails is tried in halves, down to the single input."""
        waiting: deque[_Rows] = deque(self._batches(inputs, rows))
        failure: Exception | None = None
        any_done, failed = False, 0
        while waiting and (any_done or failed <= _FAILURES):
            if failed == _FAILURES and not any_done:
                left = np.concatenate([*waiting])
                waiting = deque([left[-1:], *self._batches(inputs, left[:-1])])
            batch = waiting.popleft()
            try:
                output = self.tower.forward(inputs, batch)
            except Exception as error:  # a model can fail in any way on any text
                self._check_lost(error)
                failure = _without_frames(error)
                if len(batch) == 1:
                    failed += 1
                    refused[int(batch[0])] = f"the encoder failed on this text: {_say(error)}"
                elif self.tower.is_out_of_memory(error):
                    self._shrink(len(batch) * int(inputs.lengths[batch].max()))
                    waiting = deque(self._batches(inputs, np.concatenate([batch, *waiting])))
                else:
                    waiting.extendleft([batch[len(batch) // 2 :], batch[: len(batch) // 2]])
            else:
                any_done = True
                if self._grow() and waiting:
                    waiting = deque(self._batches(inputs, np.concatenate([*waiting])))
                yield batch, output
        if failure is not None and not any_done and len(rows) > 1:
            raise EncoderError(
                f"the encoder failed on every one of {failed if waiting else len(rows)} texts: {_say(failure)}",
                "try the model by itself: esvector models check NAME",
            ) from failure

    def _shrink(self, tokens: int) -> None:
        """Lower the budget: ``tokens`` were too many. Where it has just grown, what it was before is enough."""
        if self._good or self._grown:  # several cuts on end are one lesson
            self._wanted *= 2
        self.token_budget = max(1, tokens * 4 // 5 if self._grown else tokens // 2)
        self._good, self._grown = 0, False

    def _grow(self) -> bool:
        """Count a batch that ran; whether the budget is larger now, since another's use of the memory can end."""
        self._good, self._grown = self._good + 1, False
        if self.token_budget >= self._most or self._good < self._wanted:
            return False
        self.token_budget = min(self._most, self.token_budget + max(1, self.token_budget // 4))
        self._good, self._grown = 0, True
        return True

    def _batches(self, inputs: Inputs, rows: _Rows) -> list[_Rows]:
        return [rows[batch] for batch in token_batches(inputs.lengths[rows], self.token_budget)]

    def _collect(self, tower: Tower, outputs: Sequence[Any], count: int) -> NDArray[np.float32]:
        try:
            vectors = tower.collect(list(outputs))
        except Exception as error:
            self._check_lost(error)
            raise
        if vectors.shape != (count, tower.dims):
            raise EncoderError(
                f"the encoder gave an array of shape {vectors.shape} for {count} texts, but says {tower.dims} dims",
                "the encoder and its profile do not belong together",
            )
        return vectors

    def _mend(self, inputs: Inputs, rows: _Rows, vectors: NDArray[np.float32], refused: dict[int, str]) -> None:
        """Encode ``rows`` once more, in float32; refuse what still is NaN, infinite or zero."""
        if not len(rows):
            return
        if not self._warned:
            self._warned = True
            _log.warning(
                "the encoder gave no usable vector for %d of %d texts: they are encoded once more in float32. If that "
                "happens often, use another number format (--dtype)",
                len(rows),
                len(vectors),
            )
        waiting = self._batches(inputs, rows) if self._exact is not None else list(rows[:, None])
        while waiting:
            batch = waiting.pop()
            try:
                tower = self._exact_tower()
                vectors[batch] = self._collect(tower, [tower.forward(inputs, batch)], len(batch))
            except EncoderError:
                raise
            except Exception as error:  # float32 may not fit where half of it did
                self._check_lost(error)
                if len(batch) > 1 and not self._exact_failed:
                    waiting += [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
                else:
                    refused |= {int(row): f"the encoder failed on this text: {_say(error)}" for row in batch}
                continue
            for row in batch[self._unusable(vectors[batch])]:
                finite = bool(np.isfinite(vectors[row]).all())
                fault = "a zero vector" if finite else "NaN or infinity in its vector"
                refused[int(row)] = f"the encoder gave {fault} for this text"

    def _exact_tower(self) -> Tower:
        """The tower in float32, made once. Raises MemoryError, and makes no other, when there is no room for one."""
        if self._exact is not None and self._exact_loaded is None:
            if self._exact_failed:
                raise MemoryError(self._exact_failed)
            try:
                self._exact_loaded = self._exact()
            except Exception as error:
                self._exact_failed = str(error)
                raise
        return self._exact_loaded or self.tower

    def _check_lost(self, error: Exception) -> None:
        if self.tower.is_lost(error):
            raise DeviceLostError(f"the device failed: {_say(error)}", _LOST) from error

    def _unusable(self, vectors: NDArray[np.float32]) -> NDArray[np.bool_]:
        bad: NDArray[np.bool_] = ~np.all(np.isfinite(vectors), axis=1)
        if not self._zero_allowed:
            bad |= ~np.any(vectors != 0, axis=1)
        return bad


def _without_frames(error: Exception) -> Exception:
    """The error alone. Its traceback holds every frame, and so all that the failed batch has put on the device."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def _say(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:300]}"
