"""Requests other than bulk ones, repeated while the server is in trouble. Only for those that may be repeated."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import tenacity

from esvector.client import explain_errors
from esvector.index.outcomes import Outcome, classify_answer, classify_lost
from esvector.index.pipeline import Stopped
from esvector.index.retries import RetryPolicy

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = ["Repeating"]

_T = TypeVar("_T")


class Repeating:
    """Calls what may be called again until it succeeds, for as long as the policy says of the trouble that it meets.

    ``stopping`` ends the waiting: then Stopped is raised. An error that does not pass is raised as ours.
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
                if self._stopping.is_set() and _outcome(error) is not None:
                    raise Stopped from error
                raise


def _outcome(error: BaseException | None) -> Outcome | None:
    """The kind of trouble behind ``error`` if it is one that passes, else None."""
    import elasticsearch

    outcome = None
    if isinstance(error, elasticsearch.ApiError):
        outcome = classify_answer(error, 1)
    elif isinstance(error, elasticsearch.TransportError):
        outcome = classify_lost(error)
    return outcome if outcome is not None and outcome.patience else None
