"""A chain of stages in threads, joined by bounded channels. It knows nothing of what flows through it.

A stage is a function from an iterator to an iterator. Each runs in threads of its own; a full channel blocks the stage
before it, so a slow end slows the reader and memory stays bounded. The first error stops every stage and is raised.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from esvector.types import StageTime

__all__ = ["Pipeline", "Stage", "Stopped"]

_LOOK = 0.2  # seconds between two looks at whether a stage has failed
_ABANDON = 2.0  # seconds that a failed pipeline waits for stages that hang, such as a reader of a silent pipe

StageFunction = Callable[[Iterator[Any]], Iterable[Any]]


@dataclass(frozen=True, slots=True)
class Stage:
    """One step: ``function`` runs in each of ``workers`` threads, which share the input."""

    name: str
    function: StageFunction
    workers: int = 1


class Pipeline:
    """Runs ``stages`` over ``source``; what the last stage yields is dropped.

    ``depth`` items wait between two stages at most. Use ``start``, then ``join`` in slices, so that the calling
    thread can show progress; ``stop`` ends everything early. ``stopping`` is set then, for stages that wait elsewhere.
    """

    def __init__(
        self, source: Iterable[Any], stages: list[Stage], depth: int = 2, stopping: threading.Event | None = None
    ) -> None:
        self.stopping = stopping or threading.Event()
        self._error: BaseException | None = None
        self._failed_at = 0.0
        self._lock = threading.Lock()
        first = Stage("read", lambda _: source)
        channels = [_Channel(depth, workers) for workers in (stage.workers for stage in [first, *stages])]
        self._channels = channels
        self._clocks = {stage.name: _Clock(stage) for stage in [first, *stages]}
        self._threads: list[threading.Thread] = []
        inputs: list[_Channel | None] = [None, *channels]
        for position, stage in enumerate([first, *stages]):
            outlet = channels[position] if position < len(stages) else None
            for number in range(stage.workers):
                self._threads.append(
                    threading.Thread(
                        target=self._work,
                        args=(stage, inputs[position], outlet),
                        name=f"esvector-{stage.name}-{number}",
                        daemon=True,
                    )
                )

    def start(self) -> None:
        """Start every thread."""
        for thread in self._threads:
            thread.start()

    def join(self, timeout: float | None = None) -> bool:
        """Wait up to ``timeout`` seconds; True when every stage has ended.

        Raises the first error of any stage, at the latest 2 seconds after it: threads are daemons, so one that hangs is
        left.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while alive := [thread for thread in self._threads if thread.is_alive()]:
            now = time.monotonic()
            if self._error is not None and now >= self._failed_at + _ABANDON:
                break
            if now >= deadline:
                return False
            alive[0].join(min(deadline - now, _LOOK))
        if self._error is not None:
            raise self._error
        return True

    def stop(self) -> None:
        """Make every stage end as soon as it looks at its channels; what is under way in a stage is finished."""
        self.stopping.set()
        for channel in self._channels:
            channel.abort()

    def times(self) -> tuple[StageTime, ...]:
        """Return what each stage did with its time, in seconds summed over its workers."""
        return tuple(clock.read() for clock in self._clocks.values())

    def _work(self, stage: Stage, inlet: _Channel | None, outlet: _Channel | None) -> None:
        clock = self._clocks[stage.name]
        clock.start()
        try:
            for item in stage.function(_receive(inlet, clock)):
                if outlet is not None:
                    with clock.blocked():
                        outlet.put(item)
                elif self.stopping.is_set():
                    break
        except Stopped:
            pass
        except BaseException as error:  # every error of a thread must reach the caller
            with self._lock:
                if self._error is None:
                    self._error, self._failed_at = error, time.monotonic()
            self.stop()
        finally:
            clock.stop()
            if outlet is not None:
                outlet.leave()


class Stopped(Exception):
    """The pipeline is stopping: raised at a channel, or by a stage that looks at ``stopping`` amid its work."""


def _receive(inlet: _Channel | None, clock: _Clock) -> Iterator[Any]:
    while inlet is not None:
        with clock.starved():
            item = inlet.get()
        if item is _END:
            return
        yield item


_END = object()


class _Channel:
    """A bounded queue that ends when all its writers have left, or at once when aborted."""

    def __init__(self, size: int, writers: int) -> None:
        self._items: deque[Any] = deque()
        self._size = size
        self._writers = writers
        self._aborted = False
        self._changed = threading.Condition()

    def put(self, item: object) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._aborted or len(self._items) < self._size)
            if self._aborted:
                raise Stopped
            self._items.append(item)
            self._changed.notify_all()

    def get(self) -> Any:  # noqa: ANN401
        with self._changed:
            self._changed.wait_for(lambda: self._aborted or self._items or not self._writers)
            if self._aborted:
                raise Stopped
            if not self._items:
                return _END
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def leave(self) -> None:
        with self._changed:
            self._writers -= 1
            self._changed.notify_all()

    def abort(self) -> None:
        with self._changed:
            self._aborted = True
            self._items.clear()
            self._changed.notify_all()


class _Clock:
    """Adds up a stage's time over its workers: total, starved (waiting for input), blocked (waiting for output)."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._lock = threading.Lock()
        self._total = self._starved = self._blocked = 0.0
        self._local = threading.local()

    def start(self) -> None:
        self._local.started = time.perf_counter()

    def stop(self) -> None:
        with self._lock:
            self._total += time.perf_counter() - self._local.started

    def starved(self) -> _Span:
        return _Span(self._add_starved)

    def blocked(self) -> _Span:
        return _Span(self._add_blocked)

    def read(self) -> StageTime:
        with self._lock:
            busy = max(0.0, self._total - self._starved - self._blocked)
            return StageTime(self._stage.name, self._stage.workers, busy, self._starved, self._blocked)

    def _add_starved(self, seconds: float) -> None:
        with self._lock:
            self._starved += seconds

    def _add_blocked(self, seconds: float) -> None:
        with self._lock:
            self._blocked += seconds


class _Span:
    """Measures a ``with`` block and hands its seconds over."""

    def __init__(self, add: Callable[[float], None]) -> None:
        self._add = add
        self._started = 0.0

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._add(time.perf_counter() - self._started)
