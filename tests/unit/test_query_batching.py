"""Sharing batches between threads, remembering, and what becomes of errors and interrupts."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from esvector.encode.batching import QueryBatcher
from esvector.errors import EncoderError
from tests.support.batching import PATIENCE, Encoder, assert_idle, expected, queue_behind, wait_until_queued


@pytest.fixture
def encoder() -> Encoder:
    return Encoder()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(64) as executor:
        yield executor


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
    np.testing.assert_array_equal(leader.result(PATIENCE), expected(["first"]))
    for texts, future in zip(calls, waiting, strict=True):
        np.testing.assert_array_equal(future.result(PATIENCE), expected(texts))
    assert encoder.batches == [["first"], ["a", "b", "c"]]
    assert_idle(batcher)


def test_a_shared_batch_is_no_larger_than_allowed(encoder: Encoder, pool: ThreadPoolExecutor) -> None:
    batcher = QueryBatcher(encoder, largest=3)
    leader, waiting = queue_behind(batcher, encoder, pool, [["a", "b"], ["c", "d"], ["e"]], ["first"])
    encoder.gate.set()
    for future in (leader, *waiting):
        future.result(PATIENCE)
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
        np.testing.assert_array_equal(future.result(PATIENCE), expected([text]))
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
        future.result(PATIENCE)
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
                future.result(PATIENCE)
        else:
            np.testing.assert_array_equal(future.result(PATIENCE), expected(texts))
    assert encoder.batches[1] == ["a", "bad 1", "b", "c", "bad 2"]
    assert sorted(encoder.batches[2:]) == sorted(calls)
    assert_idle(batcher)
    np.testing.assert_array_equal(batcher(["after"]), expected(["after"]))


def test_an_error_of_the_leader_alone_leaves_the_others_running(encoder: Encoder, pool: ThreadPoolExecutor) -> None:
    batcher = QueryBatcher(encoder)
    leader, (waiting,) = queue_behind(batcher, encoder, pool, [["a"]], ["bad"])
    encoder.gate.set()
    with pytest.raises(EncoderError):
        leader.result(PATIENCE)
    np.testing.assert_array_equal(waiting.result(PATIENCE), expected(["a"]))
    assert_idle(batcher)


def test_an_interrupted_leader_hands_its_batch_to_another(encoder: Encoder, pool: ThreadPoolExecutor) -> None:
    batcher = QueryBatcher(encoder)
    calls = [["interrupt"], ["a"], ["b"]]
    _, waiting = queue_behind(batcher, encoder, pool, calls, ["first"])
    encoder.gate.set()
    with pytest.raises(KeyboardInterrupt):
        waiting[0].result(PATIENCE)
    for texts, future in zip(calls[1:], waiting[1:], strict=True):
        np.testing.assert_array_equal(future.result(PATIENCE), expected(texts))
    assert encoder.batches == [["first"], ["interrupt", "a", "b"], ["a", "b"]]
    assert_idle(batcher)


@pytest.mark.parametrize("case", ["leaves_the_queue", "not_queued_again"])
def test_a_waiter_that_ctrl_c_interrupts_is_gone(case: str) -> None:
    """In a process of its own: this one may hold any library, and is nobody's to interrupt."""
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.support.interrupted", case]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, f"{case} done\n"), done.stderr


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
        together.wait(PATIENCE)
        for _ in range(50):
            texts = [f"text {n}" for n in rng.integers(0, 200, rng.integers(1, 13))]
            if rng.random() < 0.1:
                with pytest.raises(EncoderError):
                    batcher([*texts, f"bad {thread}"])
            else:
                np.testing.assert_array_equal(batcher(texts), expected(texts))

    for future in [pool.submit(ask, thread) for thread in range(32)]:
        future.result(PATIENCE)
    assert encoder.most_at_once <= workers
    assert max(map(len, encoder.batches)) <= 8
    assert_idle(batcher)
