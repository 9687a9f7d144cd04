"""How long the writer keeps trying, and what it waits for meanwhile."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import tenacity

from esvector.index.outcomes import Action, Outcome

__all__ = ["Patience", "RetryPolicy", "Trouble", "Waits"]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long to keep trying, in seconds, for each kind of trouble; ``give_up_after`` sets all of them at once.

    A time counts from when that trouble began and starts anew with every document that gets through. Waits between
    two attempts grow from ``first_wait`` to ``longest_wait``, with full jitter, where the server has too much to do,
    and to ``longest_absence`` where it is away: knocking costs it nothing then, and every second after its return is
    lost. A blocked index is asked every ``probe_every``. ``unreachable``: no connection. ``unanswered``: connections
    break, answers are lost or not understood. ``busy``: queues are full. ``memory``: a circuit breaker is open.
    ``trouble``: a shard or node is missing. ``blocked``: the index takes no writes, as over a full disk, which a person
    has to mend.
    """

    give_up_after: float | None = None
    unreachable: float = 600.0
    unanswered: float = 600.0
    busy: float = 600.0
    memory: float = 600.0
    trouble: float = 600.0
    blocked: float = 3600.0
    first_wait: float = 0.5
    longest_wait: float = 30.0
    longest_absence: float = 2.0
    probe_every: float = 5.0
    request_timeout: float = 120.0

    def deadline(self, outcome: Outcome) -> float:
        """Return the seconds after which ``outcome``, one that is waited for, ends the run."""
        if self.give_up_after is not None:
            return self.give_up_after
        return float(getattr(self, outcome.patience))

    def wait(self, outcome: Outcome, state: tenacity.RetryCallState) -> float:
        """Return the seconds before the next attempt after ``outcome``, which has no other pause."""
        longest = self.longest_wait if outcome in _TOO_MUCH else min(self.longest_wait, self.longest_absence)
        return tenacity.wait_random_exponential(self.first_wait, longest)(state)


_TOO_MUCH = (Outcome.BUSY, Outcome.BREAKER)


class Trouble(Exception):
    """Something has no outcome yet, such as some documents; ``reason`` is the last thing the server or network said."""

    def __init__(self, outcome: Outcome, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.reason = reason


class Patience:
    """The clocks of one batch, one for each kind of trouble; tells tenacity when to stop and how long to wait."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._began: dict[Outcome, float] = {}

    def renew(self) -> None:
        """Something went through: every clock starts anew."""
        self._began.clear()

    def start(self, outcome: Outcome, began: float | None = None) -> float:
        """Note trouble, which may have begun before this batch met it; return when it began (monotonic)."""
        return self._began.setdefault(outcome, time.monotonic() if began is None else began)

    def stop(self, state: tenacity.RetryCallState) -> bool:
        """Whether the trouble of the last attempt has lasted too long."""
        outcome = _trouble(state).outcome
        return time.monotonic() - self._began[outcome] >= self._policy.deadline(outcome)

    def wait(self, state: tenacity.RetryCallState) -> float:
        """Return the seconds before the next attempt; for a blocked index, the pause of all senders is the wait."""
        outcome = _trouble(state).outcome
        return 0.0 if outcome.action is Action.PAUSE else self._policy.wait(outcome, state)


def _trouble(state: tenacity.RetryCallState) -> Trouble:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, Trouble)  # noqa: S101  # the only error that is retried
    return error


class Waits:
    """What each sender waits for at the moment, for the progress line."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waits: dict[int, tuple[float, Outcome, str]] = {}

    def begin(self, began: float, outcome: Outcome, reason: str) -> None:
        """Note that the calling thread waits since ``began`` (monotonic)."""
        with self._lock:
            self._waits[threading.get_ident()] = (began, outcome, reason)

    def end(self) -> None:
        """Note that the calling thread waits no longer."""
        with self._lock:
            self._waits.pop(threading.get_ident(), None)

    def __str__(self) -> str:
        """The longest wait, as in "waiting for Elasticsearch for 12 s: connection refused"; "" when none waits."""
        with self._lock:
            waits = list(self._waits.values())
        if not waits:
            return ""
        began, outcome, reason = min(waits, key=lambda wait: wait[0])
        return f"{outcome.waiting} for {time.monotonic() - began:.0f} s: {reason}"
