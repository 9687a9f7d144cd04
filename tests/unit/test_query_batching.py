"""Sharing batches between threads, remembering, and what becomes of errors and interrupts."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from esvector.encode.batching import QueryBatcher
from esvector.errors import EncoderError

_PATIENCE = 20.0


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
            assert self.gate.wait(_PATIENCE)
            if any(text == "interrupt" for text in texts):
                raise KeyboardInterrupt
            if bad := [text for text in texts if text.startswith("bad")]:
                raise EncoderError(f"cannot encode {bad}")
            return expected(texts)
        finally:
            with self._lock:
                self.at_once -= 1

    def wait_entered(self) -> None:
        assert self.entered.acquire(timeout=_PATIENCE)


def expected(texts: list[str]) -> NDArray[np.float32]:
    return np.array([[len(text), sum(map(ord, text)), hash(text) % 1000] for text in texts], np.float32)


@pytest.fixture
def encoder() -> Encoder:
    return Encoder()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(64) as executor:
        yield executor


def wait_until_queued(batcher: QueryBatcher, count: int) -> None:
    """Look until ``count`` callers wait: they queue themselves, and say so to nobody."""
    deadline = time.monotonic() + _PATIENCE
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


def test_answers_in_order_with_repeated_texts(encoder: Encoder) -> None:
    batcher = QueryBatcher(encoder, remembered=0)
    texts = ["b", "a", "b", "ccc"]
    vectors = batcher(texts)
    np.testing.assert_array_equal(vectors, expected(texts))
    assert vectors.dtype == np.float32
    assert encoder.batches == [["b", "a", "ccc"]]


def test_a_long_call_runs_in_slices(encoder: Encoder) -> None:
    texts = [f"text {n}" for n in range(70)]
    np.testing.assert_array_equal(QueryBatcher(encoder, largest=32)(texts), expected(texts))
    assert [len(batch) for batch in encoder.batches] == [32, 32, 6]


def test_remembers_the_latest_and_hands_out_copies(encoder: Encoder) -> None:
    batcher = QueryBatcher(encoder, remembered=2)
    batcher(["a"])[:] = -1
    batcher(["b"])
    batcher(["a"])  # now the latest
    batcher(["c"])  # forgets b
    assert encoder.batches == [["a"], ["b"], ["c"]]
    vectors = batcher(["a", "b"])
    np.testing.assert_array_equal(vectors, expected(["a", "b"]))
    assert encoder.batches[3:] == [["b"]]
    assert len(batcher._memory) == 2


def test_remembering_nothing(encoder: Encoder) -> None:
    batcher = QueryBatcher(encoder, remembered=0)
    batcher(["a"])
    batcher(["a"])
    assert encoder.batches == [["a"], ["a"]]
    assert not batcher._memory


def test_those_who_wait_share_the_next_batch(encoder: Encoder, pool: ThreadPoolExecutor) -> None:
    batcher = QueryBatcher(encoder)
    calls = [["a"], ["b", "c"], ["a"]]
    leader, waiting = queue_behind(batcher, encoder, pool, calls, ["first"])
    encoder.gate.set()
    np.testing.assert_array_equal(leader.result(_PATIENCE), expected(["first"]))
    for texts, future in zip(calls, waiting, strict=True):
        np.testing.assert_array_equal(future.result(_PATIENCE), expected(texts))
    assert encoder.batches == [["first"], ["a", "b", "c"]]
    assert_idle(batcher)


def test_a_shared_batch_is_no_larger_than_allowed(encoder: Encoder, pool: ThreadPoolExecutor) -> None:
    batcher = QueryBatcher(encoder, largest=3)
    leader, waiting = queue_behind(batcher, encoder, pool, [["a", "b"], ["c", "d"], ["e"]], ["first"])
    encoder.gate.set()
    for future in (leader, *waiting):
        future.result(_PATIENCE)
    assert encoder.batches == [["first"], ["a", "b", "e"], ["c", "d"]]


def test_two_workers_run_two_batches_at_once(encoder: Encoder, pool: ThreadPoolExecutor) -> None:
    batcher = QueryBatcher(encoder, workers=2)
    encoder.gate.clear()
    first, second = pool.submit(batcher, ["a"]), pool.submit(batcher, ["b"])
    encoder.wait_entered()
    encoder.wait_entered()
    third = pool.submit(batcher, ["c"])
    wait_until_queued(batcher, 1)
    encoder.gate.set()
    for text, future in (("a", first), ("b", second), ("c", third)):
        np.testing.assert_array_equal(future.result(_PATIENCE), expected([text]))
    assert encoder.most_at_once == 2
    assert_idle(batcher)


def test_a_worker_takes_its_share_and_leaves_the_rest_to_others(encoder: Encoder, pool: ThreadPoolExecutor) -> None:
    batcher = QueryBatcher(encoder, workers=2)
    encoder.gate.clear()
    running = [pool.submit(batcher, [text]) for text in ("first", "second")]
    encoder.wait_entered()
    encoder.wait_entered()
    waiting = []
    for count in range(1, 9):
        waiting.append(pool.submit(batcher, [f"text {count}"]))
        wait_until_queued(batcher, count)
    encoder.gate.set()
    for future in (*running, *waiting):
        future.result(_PATIENCE)
    assert len(encoder.batches[2]) == 4
    assert sorted(text for batch in encoder.batches[2:] for text in batch) == [f"text {n}" for n in range(1, 9)]


def test_an_error_reaches_those_who_caused_it_and_nobody_else(encoder: Encoder, pool: ThreadPoolExecutor) -> None:
    batcher = QueryBatcher(encoder)
    calls = [["a"], ["bad 1", "b"], ["c"], ["bad 2"]]
    _, waiting = queue_behind(batcher, encoder, pool, calls, ["first"])
    encoder.gate.set()
    for texts, future in zip(calls, waiting, strict=True):
        if texts[0].startswith("bad"):
            with pytest.raises(EncoderError, match=texts[0]):
                future.result(_PATIENCE)
        else:
            np.testing.assert_array_equal(future.result(_PATIENCE), expected(texts))
    assert encoder.batches[1] == ["a", "bad 1", "b", "c", "bad 2"]
    assert sorted(encoder.batches[2:]) == sorted(calls)
    assert_idle(batcher)
    np.testing.assert_array_equal(batcher(["after"]), expected(["after"]))


def test_an_error_of_the_leader_alone_leaves_the_others_running(encoder: Encoder, pool: ThreadPoolExecutor) -> None:
    batcher = QueryBatcher(encoder)
    leader, (waiting,) = queue_behind(batcher, encoder, pool, [["a"]], ["bad"])
    encoder.gate.set()
    with pytest.raises(EncoderError):
        leader.result(_PATIENCE)
    np.testing.assert_array_equal(waiting.result(_PATIENCE), expected(["a"]))
    assert_idle(batcher)


def test_an_interrupted_leader_hands_its_batch_to_another(encoder: Encoder, pool: ThreadPoolExecutor) -> None:
    batcher = QueryBatcher(encoder)
    calls = [["interrupt"], ["a"], ["b"]]
    _, waiting = queue_behind(batcher, encoder, pool, calls, ["first"])
    encoder.gate.set()
    with pytest.raises(KeyboardInterrupt):
        waiting[0].result(_PATIENCE)
    for texts, future in zip(calls[1:], waiting[1:], strict=True):
        np.testing.assert_array_equal(future.result(_PATIENCE), expected(texts))
    assert encoder.batches == [["first"], ["interrupt", "a", "b"], ["a", "b"]]
    assert_idle(batcher)


def interrupt_main() -> None:
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, signal.SIGINT)


def test_a_waiter_that_is_interrupted_leaves_the_queue(encoder: Encoder, pool: ThreadPoolExecutor) -> None:
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
    leader.result(_PATIENCE)
    np.testing.assert_array_equal(waiting.result(_PATIENCE), expected(["a"]))
    assert encoder.batches == [["first"], ["a"]]


def test_a_waiter_that_is_gone_is_not_queued_again_when_its_batch_fails(
    encoder: Encoder, pool: ThreadPoolExecutor
) -> None:
    gone = threading.Event()

    def encode(texts: list[str]) -> NDArray[np.float32]:
        if "mine" in texts:
            interrupt_main()
            assert gone.wait(_PATIENCE)
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
    leader.result(_PATIENCE)
    with pytest.raises(EncoderError):
        bad.result(_PATIENCE)
    assert encoder.batches == [["first"], ["bad", "mine"], ["bad"]]
    assert_idle(batcher)


@pytest.mark.parametrize("give", [lambda _: np.zeros((3, 2)), lambda texts: np.zeros(len(texts))])
def test_refuses_an_encoder_that_gives_another_shape(give: Callable[[list[str]], NDArray[np.float32]]) -> None:
    with pytest.raises(EncoderError, match="for 2 queries"):
        QueryBatcher(give)(["a", "b"])


@pytest.mark.parametrize(("largest", "workers", "remembered"), [(0, 1, 1), (1, 0, 1), (1, 1, -1)])
def test_refuses_impossible_sizes(largest: int, workers: int, remembered: int, encoder: Encoder) -> None:
    with pytest.raises(ValueError, match="cannot be"):
        QueryBatcher(encoder, largest=largest, workers=workers, remembered=remembered)


@pytest.mark.parametrize("workers", [1, 2])
def test_many_threads_all_get_their_own(encoder: Encoder, pool: ThreadPoolExecutor, workers: int) -> None:
    batcher = QueryBatcher(encoder, largest=8, remembered=16, workers=workers)
    together = threading.Barrier(32)

    def ask(thread: int) -> None:
        rng = np.random.default_rng(thread)
        together.wait(_PATIENCE)
        for _ in range(50):
            texts = [f"text {n}" for n in rng.integers(0, 200, rng.integers(1, 13))]
            if rng.random() < 0.1:
                with pytest.raises(EncoderError):
                    batcher([*texts, f"bad {thread}"])
            else:
                np.testing.assert_array_equal(batcher(texts), expected(texts))

    for future in [pool.submit(ask, thread) for thread in range(32)]:
        future.result(_PATIENCE)
    assert encoder.most_at_once <= workers
    assert max(map(len, encoder.batches)) <= 8
    assert_idle(batcher)
