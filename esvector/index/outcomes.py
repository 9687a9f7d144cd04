"""What an answer to a bulk request means for a document: one table, read by the one writer."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

from esvector.client import error_reason, error_type

if TYPE_CHECKING:
    from elasticsearch import ApiError

__all__ = ["Outcome", "classify_answer", "classify_item"]


class Outcome(Enum):
    """What to do with an operation, or with a whole request."""

    DONE = "the document is indexed"
    SUPERSEDED = "a later record of the same id is indexed already"
    AGAIN = "the server is busy or in trouble: send the same bytes later"
    UNKNOWN = "it may or may not have been applied: send the same bytes later"
    SPLIT = "too much at once: send it in halves, a single one is refused"
    REFUSED = "this document will never be taken"
    FATAL = "nothing can be written: stop"


# 9.5.3: an operation over indexing_pressure.memory.max_operation_size looks like back-pressure, but is for good.
_TOO_BIG = ("exceeds the maximum allowed limit", "max_operation_size")


def classify_item(status: int, error: Mapping[str, Any]) -> Outcome:
    """Return the outcome of one item of a 200 answer. ``error`` is the item's error object, empty for a success."""
    if status < 300:
        return Outcome.DONE
    kind, reason = str(error.get("type", "")), str(error.get("reason", ""))
    match status:
        case 409:
            return Outcome.SUPERSEDED
        case 404:
            return Outcome.FATAL
        case 429 if any(words in reason for words in _TOO_BIG):
            return Outcome.REFUSED
        case 403:
            return Outcome.AGAIN if kind == "cluster_block_exception" else Outcome.FATAL
        case 429 | 502 | 503 | 504:
            return Outcome.AGAIN
        case _:
            return Outcome.REFUSED if status < 500 else Outcome.AGAIN


def classify_answer(error: ApiError) -> Outcome:
    """Return the outcome of a request that failed as a whole."""
    kind, reason = error_type(error), error_reason(error)
    match error.status_code:
        case 413:
            return Outcome.SPLIT
        case 400:
            # One malformed action fails its whole request; halving finds it.
            return Outcome.FATAL if kind == "media_type_header_exception" else Outcome.SPLIT
        case 429 if any(words in reason for words in _TOO_BIG) or kind == "circuit_breaking_exception":
            return Outcome.SPLIT
        case 429 | 503:
            return Outcome.AGAIN
        case 403:
            return Outcome.AGAIN if kind == "cluster_block_exception" else Outcome.FATAL
        case 401 | 404:
            return Outcome.FATAL
        case _:
            return Outcome.UNKNOWN if error.status_code >= 500 else Outcome.FATAL
