"""Threads that share a QueryBatcher, brought into known places."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from esvector.encode.batching import QueryBatcher
from esvector.errors import EncoderError

PATIENCE = 20.0


class Encoder:
    """Vectors told by the text; can be held up inside a batch, and refuses texts that say so."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.at_once = 0
        self.most_at_once = 0
        self._lock = threading.Lock()

    def __call__(self, texts: list[str]) -> NDArray[np.float32]:
        with self._lock:
            self.batches.append(texts)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        self.entered.release()
        try:
            assert self.gate.wait(PATIENCE)
            if any(text == "interrupt" for text in texts):
                raise KeyboardInterrupt
            if bad := [text for text in texts if text.startswith("bad")]:
                raise EncoderError(f"cannot encode {bad}")
            return expected(texts)
        finally:
            with self._lock:
                self.at_once -= 1

    def wait_entered(self) -> None:
        assert self.entered.acquire(timeout=PATIENCE)


def expected(texts: list[str]) -> NDArray[np.float32]:
    return np.array([[len(text), sum(map(ord, text)), hash(text) % 1000] for text in texts], np.float32)


def wait_until_queued(batcher: QueryBatcher, count: int) -> None:
    """Look until ``count`` callers wait: they queue themselves, and say so to nobody."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with batcher._lock:
            if len(batcher._waiting) == count:
                return
    raise AssertionError(f"{len(batcher._waiting)} callers wait instead of {count}")


def queue_behind(
    batcher: QueryBatcher, encoder: Encoder, pool: ThreadPoolExecutor, calls: list[list[str]], first: list[str]
) -> tuple[Future[NDArray[np.float32]], list[Future[NDArray[np.float32]]]]:
    """Hold up ``first`` inside the encoder, and have ``calls`` queue behind it in that order."""
    encoder.gate.clear()
    leader = pool.submit(batcher, first)
    encoder.wait_entered()
    waiting = []
    for count, texts in enumerate(calls, 1):
        waiting.append(pool.submit(batcher, texts))
        wait_until_queued(batcher, count)
    return leader, waiting


def assert_idle(batcher: QueryBatcher) -> None:
    assert not batcher._waiting
    assert not batcher._running
