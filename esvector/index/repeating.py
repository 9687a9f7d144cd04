"""Requests other than bulk ones, repeated while the server is in trouble. Only for those that may be repeated.

A request may be applied and only its answer lost. So what is repeated has to be the same when done twice, or to find
out what became of it before.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import tenacity

from esvector.client import explain_errors
from esvector.errors import ConnectError, IndexingError
from esvector.index.outcomes import Outcome, classify_answer, classify_lost
from esvector.index.pipeline import Stopped
from esvector.index.retries import RetryPolicy, Trouble

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = ["Repeating", "once"]

_T = TypeVar("_T")


class Repeating:
    """Calls what may be called again until it succeeds, for as long as the policy says of the trouble that it meets.

    What is called raises an error of the client, or Trouble of its own. ``stopping`` ends the waiting: then Stopped is
    raised. An error that does not pass, or not in time, is raised as ours.
    """

    def __init__(self, client: Elasticsearch, policy: RetryPolicy, stopping: threading.Event) -> None:
        self._client = client
        self._policy = policy
        self._stopping = stopping

    def __call__(self, call: Callable[[], _T]) -> _T:
        """Return what ``call`` returns."""
        began = time.monotonic()

        def too_long(state: tenacity.RetryCallState) -> bool:
            outcome = _outcome(state.outcome.exception() if state.outcome else None)
            late = outcome is None or time.monotonic() - began >= self._policy.deadline(outcome)
            return late or self._stopping.is_set()

        def wait(state: tenacity.RetryCallState) -> float:
            outcome = _outcome(state.outcome.exception() if state.outcome else None)
            return 0.0 if outcome is None else self._policy.wait(outcome, state)

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda error: _outcome(error) is not None),
            wait=wait,
            stop=too_long,
            sleep=tenacity.sleep_using_event(self._stopping),
            reraise=True,
        )
        with explain_errors(self._client):
            try:
                return retrying(call)
            except Exception as error:
                outcome = _outcome(error)
                if self._stopping.is_set() and outcome is not None:
                    raise Stopped from error
                if outcome is not None and isinstance(error, Trouble):
                    raise IndexingError(
                        f"{outcome.waiting} for {self._policy.deadline(outcome):g} s was in vain: {error.reason}",
                        "see 'esvector status' and the server's log, then run the same command again",
                    ) from error
                raise


def once(client: Elasticsearch) -> Repeating:
    """Return what calls once, and raises errors as ours."""
    return Repeating(client, RetryPolicy(give_up_after=0), threading.Event())


def _outcome(error: BaseException | None) -> Outcome | None:
    """The kind of trouble behind ``error`` if it is one that passes, else None."""
    import elasticsearch

    if isinstance(error, ConnectError):  # ours already, by explain_errors within the call
        error = error.__cause__
    outcome = error.outcome if isinstance(error, Trouble) else None
    if isinstance(error, elasticsearch.ApiError):
        outcome = classify_answer(error, 1)
    elif isinstance(error, elasticsearch.TransportError):
        outcome = classify_lost(error)
    return outcome if outcome is not None and outcome.patience else None
