"""How large a request should be, and cutting documents into requests by their bytes."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import orjson
from numpy.typing import NDArray

from esvector.index.packing import Block

__all__ = ["BodySize", "cut", "deletions", "document_bytes", "halves"]

_FIRST = 2**20
_LEAST = 2**14
_SAMPLES = 8  # requests of a size before it is judged
_SLOWER = 0.9  # of the rate with half the size: then the larger size does not pay
_MARGIN = 0.9  # of what a limit allows: other bytes may count, such as headers


class BodySize:
    """How many bytes a request may have: from 1 MiB it doubles to ``most`` unless that makes the server slower.

    Judged by the bytes per second that are acknowledged within a request. A server that is short of memory halves it,
    and it grows again; one that says where its limit is has the last word. Safe to use from several threads.
    """

    def __init__(self, most: int) -> None:
        self._lock = threading.Lock()
        self._most = most
        self._settled = False
        self._rate = 0.0
        self.limit = min(_FIRST, most)
        self._start_over()

    def took(self, sent: int, seconds: float) -> None:
        """A request of ``sent`` bytes was acknowledged after ``seconds``."""
        with self._lock:
            if self._settled or sent <= 0.6 * self.limit:  # one of the size before, or the end of a window
                return
            self._sent += sent
            self._seconds += seconds
            self._count += 1
            if self._count == _SAMPLES:
                self._judge(self._sent / self._seconds)

    def shrink(self, sent: int) -> None:
        """A request of ``sent`` bytes was too much for the server's memory at the moment."""
        with self._lock:
            self.limit = max(_LEAST, min(self.limit, sent) // 2)
            self._rate, self._settled = 0.0, False
            self._start_over()

    def too_big(self, sent: int) -> None:
        """A request of ``sent`` bytes is over the server's limit: no later one comes near it."""
        with self._lock:
            self._most = self.limit = min(self.limit, int(_MARGIN * sent / 2))
            self._settled = True

    def _judge(self, rate: float) -> None:
        if rate < _SLOWER * self._rate:
            self.limit, self._settled = self.limit // 2, True
        elif self.limit >= self._most:
            self._settled = True
        else:
            self._rate, self.limit = rate, min(2 * self.limit, self._most)
        self._start_over()

    def _start_over(self) -> None:
        self._sent = self._count = 0
        self._seconds = 0.0


def deletions(ids: Sequence[str], versions: Sequence[int]) -> Block:
    """Return the lines of a bulk request that deletes documents, unless the index has a later version."""
    heads = [
        b'{"delete":{"_id":%b,"version":%d,"version_type":"external_gte"}}\n' % (orjson.dumps(id_), version)
        for id_, version in zip(ids, versions, strict=True)
    ]
    return Block(ids, heads, [b""] * len(heads), b"")


def document_bytes(block: Block) -> NDArray[np.int64]:
    """Return the bytes of each document of ``block`` in a request."""
    heads, vectors = (np.fromiter(map(len, lines), np.int64, len(lines)) for lines in (block.heads, block.vectors))
    return heads + vectors + len(block.tail)


def cut(part: Sequence[int], sizes: NDArray[np.int64], limit: int) -> list[Sequence[int]]:
    """Cut ``part`` into parts of about equal bytes, none over ``limit`` but for single documents that are."""
    ends = np.cumsum(sizes[part])
    if not len(part) or ends[-1] <= limit:
        return [part] if len(part) else []
    count = -(-int(ends[-1]) // limit)
    # A part ends before the document that would exceed this; without some room the last part would be a small rest.
    most = min(limit, int(ends[-1]) // count + int(sizes[part].max()))
    parts, start = [], 0
    while start < len(part):
        before = int(ends[start - 1]) if start else 0
        end = max(start + 1, int(np.searchsorted(ends, before + most, side="right")))
        parts.append(part[start:end])
        start = end
    return parts


def halves(part: Sequence[int], sizes: NDArray[np.int64]) -> list[Sequence[int]]:
    """Cut ``part``, of two documents or more, into two parts of about equal bytes."""
    ends = np.cumsum(sizes[part])
    middle = min(max(1, int(np.searchsorted(ends, ends[-1] / 2))), len(part) - 1)
    return [part[:middle], part[middle:]]
