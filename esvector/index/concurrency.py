"""What the sender threads of one writer share: how many may send at once, and whether they all have to pause."""

from __future__ import annotations

import threading
import time

from esvector.index.pipeline import Stopped

__all__ = ["Blockade", "Limiter"]

_POLL = 0.1  # seconds; how soon a waiting sender sees that it has to stop


class Limiter:
    """How many requests may be under way: one more after each round of good answers, half as many after a refusal.

    Additive increase, multiplicative decrease, as TCP does it. Of the requests under way together only the first one
    refused counts: they all say the same. The limit grows only while it is what holds the senders back.
    """

    def __init__(self, stopping: threading.Event, most: int = 64) -> None:
        self._stopping = stopping
        self._most = most
        self._changed = threading.Condition()
        self._limit = float(most)
        self._active = 0
        self._lowered = 0  # how often; a request remembers the number it started under

    @property
    def limit(self) -> int:
        """Requests that may be under way at once."""
        return int(self._limit)

    def enter(self) -> int:
        """Wait for a place and return a ticket for ``leave``. Raises Stopped."""
        with self._changed:
            while self._active >= int(self._limit):
                if self._stopping.is_set():
                    raise Stopped
                self._changed.wait(_POLL)
            self._active += 1
            return self._lowered

    def leave(self, ticket: int, *, refused: bool | None) -> None:
        """Give the place back. ``refused``: the server had too much to do; None says nothing about that."""
        with self._changed:
            if refused and ticket == self._lowered:
                self._limit = max(1.0, min(self._limit, self._active) / 2)
                self._lowered += 1
            elif refused is False and self._active >= int(self._limit):
                self._limit = min(float(self._most), self._limit + 1 / self._limit)
            self._active -= 1
            self._changed.notify_all()


class Blockade:
    """Holds all senders back while the index is blocked, but for one request every ``probe_every`` seconds.

    The probe is a sender's own next request. ``deadline`` in seconds: the last probe goes out no later than that.
    """

    def __init__(self, stopping: threading.Event, probe_every: float, deadline: float) -> None:
        self._stopping = stopping
        self._probe_every = probe_every
        self._deadline = deadline
        self._changed = threading.Condition()
        self._began: float | None = None
        self._next_probe = 0.0
        self.count = 0

    def wait(self) -> bool:
        """Return when the index is not blocked, or it is the caller's turn to ask; whether it had to wait.

        Raises Stopped.
        """
        waited = False
        with self._changed:
            while self._began is not None:
                now = time.monotonic()
                if now >= self._next_probe:
                    self._schedule(now)
                    break
                if self._stopping.is_set():
                    raise Stopped
                waited = True
                self._changed.wait(min(_POLL, self._next_probe - now))
        return waited

    def begin(self) -> float:
        """The index is blocked; return since when (monotonic)."""
        with self._changed:
            if self._began is None:
                self._began = time.monotonic()
                self.count += 1
                self._schedule(self._began)
            return self._began

    def end(self, sent: float) -> None:
        """A request that was sent at ``sent`` (monotonic) met no block: it has gone, unless it came only afterwards."""
        with self._changed:
            if self._began is not None and sent >= self._began:
                self._began = None
                self._changed.notify_all()

    def _schedule(self, now: float) -> None:
        assert self._began is not None  # noqa: S101
        last = self._began + self._deadline
        self._next_probe = min(now + self._probe_every, last) if now < last else now + self._probe_every
