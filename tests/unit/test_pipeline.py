from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from esvector.index.pipeline import Pipeline, Stage, Stopped


def test_every_item_passes_every_stage_once() -> None:
    seen: list[int] = []
    lock = threading.Lock()

    def double(items: Iterator[int]) -> Iterator[int]:
        for item in items:
            yield 2 * item

    def keep(items: Iterator[int]) -> Iterator[None]:
        for item in items:
            with lock:
                seen.append(item)
            yield None

    pipeline = Pipeline(range(500), [Stage("double", double), Stage("keep", keep, workers=4)])
    pipeline.start()
    assert pipeline.join()
    assert sorted(seen) == list(range(0, 1000, 2))


def test_a_slow_end_stops_the_reader() -> None:
    """Memory must not grow with the input: at most what the channels and the workers hold is read ahead."""
    read = 0
    release = threading.Event()
    stuck = threading.Semaphore(0)

    def source() -> Iterator[int]:
        nonlocal read
        for n in range(1000):
            read += 1
            yield n

    def wait(items: Iterator[int]) -> Iterator[None]:
        for _ in items:
            stuck.release()
            release.wait(10)
            yield None

    pipeline = Pipeline(source(), [Stage("pass", lambda items: items), Stage("wait", wait)], depth=2)
    pipeline.start()
    assert stuck.acquire(timeout=5)
    assert not pipeline.join(0.1)
    assert read <= 1 + 2 + 1 + 2 + 1  # in each stage's hands and in each channel
    release.set()
    assert pipeline.join(10)
    assert read == 1000


@pytest.mark.parametrize("failing", ["read", "first", "second"])
def test_an_error_in_any_stage_reaches_the_caller_and_ends_the_others(failing: str) -> None:
    def maybe_fail(name: str, items: Iterator[int]) -> Iterator[int]:
        for n in items:
            if name == failing and n == 50:
                raise ValueError(f"{name} failed")
            yield n

    def stage(name: str) -> Stage:
        return Stage(name, lambda items: maybe_fail(name, items))

    endless = iter(lambda: 50, None)
    pipeline = Pipeline(maybe_fail("read", endless), [stage("first"), stage("second")])
    pipeline.start()
    with pytest.raises(ValueError, match=f"{failing} failed"):
        pipeline.join(10)


def test_stop_ends_everything_without_an_error() -> None:
    running = threading.Event()

    def work(items: Iterator[int]) -> Iterator[int]:
        for item in items:
            running.set()
            yield item

    pipeline = Pipeline(iter(lambda: 1, None), [Stage("work", work)])
    pipeline.start()
    assert running.wait(5)
    pipeline.stop()
    assert pipeline.join(10)


def test_a_stage_may_stop_by_itself_when_told_to() -> None:
    def work(items: Iterator[int]) -> Iterator[int]:
        for item in items:
            if pipeline.stopping.wait(10):
                raise Stopped
            yield item

    pipeline = Pipeline(range(10), [Stage("work", work)])
    pipeline.start()
    pipeline.stop()
    assert pipeline.join(10)


def test_times_tell_who_worked_and_who_waited() -> None:
    pace = threading.Event()

    def slow(items: Iterator[int]) -> Iterator[int]:
        for item in items:
            pace.wait(0.02)  # never set: a stage that is busy for this long
            yield item

    pipeline = Pipeline(range(20), [Stage("slow", slow), Stage("quick", lambda items: items)])
    pipeline.start()
    pipeline.join()
    read, busy, starved = pipeline.times()
    assert (read.name, busy.name, starved.name) == ("read", "slow", "quick")
    assert busy.busy > 0.3 > starved.busy
    assert starved.starved > 0.3
    assert read.blocked > 0.2


def test_an_error_is_raised_although_another_stage_hangs() -> None:
    """Such as a reader of a pipe to which nobody writes."""
    released = threading.Event()

    def source() -> Iterator[int]:
        yield 1
        released.wait()

    def fail(items: Iterator[int]) -> Iterator[None]:
        for _ in items:
            raise ValueError("it failed")
        yield None

    pipeline = Pipeline(source(), [Stage("fail", fail)])
    pipeline.start()
    try:
        with pytest.raises(ValueError, match="it failed"):
            pipeline.join()
    finally:
        released.set()
