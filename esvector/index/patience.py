"""Requests other than bulk ones, repeated while the server is in trouble. Only for those that may be repeated."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import tenacity

from esvector.client import explain_errors
from esvector.index.pipeline import Stopped

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = ["Patience"]

_T = TypeVar("_T")
_TROUBLE = frozenset({429, 502, 503, 504})


class Patience:
    """Calls what may be called again until it succeeds, for up to ``seconds``; an error that stays is raised as ours.

    ``stopping`` ends the waiting: then Stopped is raised.
    """

    def __init__(self, client: Elasticsearch, seconds: float, stopping: threading.Event) -> None:
        self._client = client
        self._seconds = seconds
        self._stopping = stopping

    def __call__(self, call: Callable[[], _T]) -> _T:
        """Return what ``call`` returns."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_may_pass),
            wait=tenacity.wait_random_exponential(0.2, 10),
            stop=tenacity.stop_after_delay(self._seconds) | tenacity.stop_when_event_set(self._stopping),
            sleep=tenacity.sleep_using_event(self._stopping),
            reraise=True,
        )
        with explain_errors(self._client):
            try:
                return retrying(call)
            except Exception as error:
                if self._stopping.is_set() and _may_pass(error):
                    raise Stopped from error
                raise


def _may_pass(error: BaseException) -> bool:
    import elasticsearch
    from elastic_transport import TlsError

    if isinstance(error, elasticsearch.ApiError):
        return error.status_code in _TROUBLE
    return isinstance(error, elasticsearch.TransportError) and not isinstance(error, TlsError)
