"""The ids that a run has met, in eight bytes each."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["SeenIds"]

_LONGER = 8  # times as long as the next is a run at least


class SeenIds:
    """A set of ids, kept as 64-bit hashes: two of ten million ids fall together with a probability of 3 in a million.

    What is new is sorted into runs, each far longer than the next, so that adding costs little. Memory is 8 bytes an
    id, and an eighth more for a moment when two runs become one.
    """

    def __init__(self) -> None:
        self._runs: list[NDArray[np.uint64]] = []

    def __len__(self) -> int:
        return sum(map(len, self._runs))

    def add(self, ids: Sequence[str]) -> list[bool]:
        """Add ``ids``, and return for each whether it was there, or came earlier among them."""
        hashes = _hashes(ids)
        known = self._holds(hashes)
        new, first = np.unique(hashes, return_index=True)
        repeated = np.ones(len(ids), bool)
        repeated[first] = False
        self._insert(new[~known[first]])
        return [bool(flag) for flag in known | repeated]

    def holds(self, ids: Sequence[str]) -> list[bool]:
        """Whether each of ``ids`` was added."""
        return [bool(flag) for flag in self._holds(_hashes(ids))]

    def _holds(self, hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
        found = np.zeros(len(hashes), bool)
        for run in self._runs:
            at = np.searchsorted(run, hashes)
            found |= run[np.minimum(at, len(run) - 1)] == hashes
        return found

    def _insert(self, run: NDArray[np.uint64]) -> None:
        while self._runs and len(self._runs[-1]) <= _LONGER * len(run):
            longer = self._runs.pop()
            longer.resize(len(longer) + len(run), refcheck=False)  # grows where it is; nobody else has it
            longer[-len(run) :] = run
            longer.sort()
            run = longer
        if len(run):
            self._runs.append(run)


def _hashes(ids: Sequence[str]) -> NDArray[np.uint64]:
    digests = b"".join(hashlib.blake2b(id_.encode("utf-8", "surrogatepass"), digest_size=8).digest() for id_ in ids)
    return np.frombuffer(digests, np.uint64)
