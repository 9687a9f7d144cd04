"""Ctrl-C in a thread that waits for its query: run as ``python -m tests.support.interrupted CASE``."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
from numpy.typing import NDArray

from esvector.encode.batching import QueryBatcher
from esvector.errors import EncoderError
from tests.support.batching import PATIENCE, Encoder, assert_idle, expected, queue_behind, wait_until_queued

Interrupt = Callable[[], None]


@contextmanager
def one_interrupt() -> Iterator[Interrupt]:
    """Yield what raises one KeyboardInterrupt in the main thread, to be called by another thread while it waits.

    CPython does not wake a thread that a signal reaches on its way to sleep on a lock, so that one signal is not
    enough: they are sent until one is handled, and those that come later do nothing.
    """
    handled = threading.Event()

    def handle(*_: object) -> None:
        if not handled.is_set():
            handled.set()
            raise KeyboardInterrupt

    def interrupt() -> None:
        main = threading.main_thread().ident
        assert main is not None
        while not handled.is_set():
            signal.pthread_kill(main, signal.SIGINT)
            handled.wait(0.05)

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)


def leaves_the_queue(interrupt_main: Interrupt, pool: ThreadPoolExecutor) -> None:
    encoder = Encoder()
    batcher = QueryBatcher(encoder)
    leader, (waiting,) = queue_behind(batcher, encoder, pool, [["a"]], ["first"])

    def interrupt() -> None:
        wait_until_queued(batcher, 2)
        interrupt_main()

    pool.submit(interrupt)
    with pytest.raises(KeyboardInterrupt):
        batcher(["mine"])
    assert len(batcher._waiting) == 1
    encoder.gate.set()
    leader.result(PATIENCE)
    np.testing.assert_array_equal(waiting.result(PATIENCE), expected(["a"]))
    assert encoder.batches == [["first"], ["a"]]


def not_queued_again(interrupt_main: Interrupt, pool: ThreadPoolExecutor) -> None:
    """The batch that it shares fails after it has left: the others are queued again, it is not."""
    encoder, gone = Encoder(), threading.Event()

    def encode(texts: list[str]) -> NDArray[np.float32]:
        if "mine" in texts:
            interrupt_main()
            assert gone.wait(PATIENCE)
        return encoder(texts)

    batcher = QueryBatcher(encode)
    leader, (bad,) = queue_behind(batcher, encoder, pool, [["bad"]], ["first"])

    def open_gate() -> None:
        wait_until_queued(batcher, 2)
        encoder.gate.set()

    pool.submit(open_gate)
    with pytest.raises(KeyboardInterrupt):
        batcher(["mine"])
    gone.set()
    leader.result(PATIENCE)
    with pytest.raises(EncoderError):
        bad.result(PATIENCE)
    assert encoder.batches == [["first"], ["bad", "mine"], ["bad"]]
    assert_idle(batcher)


def main() -> None:
    case = {"leaves_the_queue": leaves_the_queue, "not_queued_again": not_queued_again}[sys.argv[1]]
    with one_interrupt() as interrupt, ThreadPoolExecutor() as pool:
        case(interrupt, pool)
    print(f"{sys.argv[1]} done")  # noqa: T201


if __name__ == "__main__":
    main()
