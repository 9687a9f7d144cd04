"""What an answer to a bulk request means, and what to do about it: one table, read by the one writer."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

from esvector.client import error_details, error_reason, error_type

if TYPE_CHECKING:
    from elastic_transport import TransportError
    from elasticsearch import ApiError

__all__ = ["Action", "Outcome", "classify_answer", "classify_item", "classify_lost", "lost_reason"]


class Action(Enum):
    """What the writer does about an outcome."""

    COUNT = "it is settled: count it"
    REFUSE = "hand the document back; of several, find the one that it is"
    ISOLATE = "send the largest document alone, and the others without it"
    HALVE = "send it in halves of bytes, and no later request as large"
    SHRINK = "wait, then send it in halves of bytes"
    AGAIN = "wait, then send the same bytes"
    PAUSE = "all senders wait, and one asks from time to time"
    RENEW = "read the credentials again, once, and send the same bytes with them"
    STOP = "nothing can be written: end the run"


class Outcome(Enum):
    """The kinds of answers: what it means, what to do, for how long (a field of RetryPolicy), how to tell the user."""

    DONE = ("the document is indexed, or deleted", Action.COUNT)
    ABSENT = ("there is nothing to delete", Action.COUNT)
    SUPERSEDED = ("a later version of the document is indexed already", Action.COUNT)
    POISON = ("this document will never be taken", Action.REFUSE)
    POISON_REQUEST = ("something in the request is malformed: one operation fails all", Action.REFUSE)
    TOO_BIG_ALONE = ("an operation is larger than the server takes, ever", Action.ISOLATE)
    TOO_BIG_TOGETHER = ("the request is larger than the server takes", Action.HALVE)
    NOT_SENT = ("no connection: nothing was sent", Action.AGAIN, "unreachable", "waiting for Elasticsearch")
    UNKNOWN = ("it may or may not have been applied", Action.AGAIN, "unanswered", "waiting for Elasticsearch")
    TROUBLE = ("a node or shard is not available", Action.AGAIN, "trouble", "waiting for Elasticsearch")
    BUSY = ("the server has too much to do", Action.AGAIN, "busy", "Elasticsearch is busy")
    BREAKER = ("the server is short of memory", Action.SHRINK, "memory", "Elasticsearch is short of memory")
    BLOCKED = ("the index takes no writes now, such as over a full disk", Action.PAUSE, "blocked", "blocked")
    CREDENTIALS = ("the server does not know these credentials", Action.RENEW)
    RIGHTS = ("the credentials do not allow this", Action.STOP)
    UNTRUSTED = ("the other end of the connection is not who it should be", Action.STOP)
    GONE = ("the index is deleted or closed", Action.STOP)
    NOT_UNDERSTOOD = ("the server takes no such request", Action.STOP)

    def __init__(self, means: str, action: Action, patience: str = "", waiting: str = "") -> None:
        self.means = means
        self.action = action
        self.patience = patience
        self.waiting = waiting


_DELETED_OR_CLOSED = ("index_not_found_exception", "index_closed_exception")


def classify_item(status: int, error: Mapping[str, Any]) -> Outcome:
    """Return the outcome of one item of a 200 answer. ``error`` is the item's error object, empty for a success."""
    if status < 300:
        return Outcome.DONE
    kind, reason = str(error.get("type", "")), str(error.get("reason", ""))
    if kind in _DELETED_OR_CLOSED:
        return Outcome.GONE
    match status:
        case 404 if not error:  # the answer to a delete
            return Outcome.ABSENT
        case 404:
            return Outcome.GONE
        case 409:
            return Outcome.SUPERSEDED
        case 403 | 429:
            return _held_back(status, kind, reason)
        case _:
            return Outcome.POISON if status < 500 else Outcome.TROUBLE


def classify_answer(error: ApiError, documents: int) -> Outcome:
    """Return the outcome of a request of so many ``documents`` that failed as a whole."""
    status, kind, reason = error.status_code, error_type(error), error_reason(error)
    if kind in _DELETED_OR_CLOSED:
        return Outcome.GONE
    match status:
        case 413:
            return Outcome.TOO_BIG_TOGETHER if documents > 1 else Outcome.TOO_BIG_ALONE
        case 400 if kind == "media_type_header_exception":
            return Outcome.NOT_UNDERSTOOD
        case 400 if kind:
            return Outcome.POISON_REQUEST if documents > 1 else Outcome.POISON
        case 401:
            return Outcome.CREDENTIALS
        case 429 if documents == 1 and error_details(error).get("durability") == "PERMANENT":
            return Outcome.TOO_BIG_ALONE
        case 403 | 429:
            return _held_back(status, kind, reason)
        case 503:
            return Outcome.TROUBLE
        # Not from Elasticsearch, whose errors have a type: a proxy on the way, which may have passed the request on.
        # 408, 425 and 499 are what load balancers say of a request that was too slow for them.
        case 400 | 404 | 408 | 425 | 499 if not kind:
            return Outcome.UNKNOWN
        case _:
            return Outcome.UNKNOWN if status >= 500 else Outcome.NOT_UNDERSTOOD


def classify_lost(error: TransportError) -> Outcome:
    """Return the outcome of a request that got no answer: only a failed connect proves that nothing was sent."""
    from elastic_transport import TlsError
    from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

    causes = list(_causes(error))
    if isinstance(error, TlsError) and not any(isinstance(cause, _TLS_CUT) for cause in causes):
        return Outcome.UNTRUSTED
    unsent = any(isinstance(cause, ConnectTimeoutError | NewConnectionError) for cause in causes)
    return Outcome.NOT_SENT if unsent else Outcome.UNKNOWN


def lost_reason(error: TransportError) -> str:
    """Return why there was no answer, in the system's words where it has any, such as "Connection refused"."""
    words = (cause.strerror for cause in _causes(error) if isinstance(cause, OSError) and cause.strerror)
    return next(words, error.message)


# A connection that ends in the middle is no matter of trust, whatever the class of its error says.
_TLS_CUT = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Every error that led to this one; the client and urllib3 keep them in several places."""
    seen: set[int] = set()
    found = [error]
    while found:
        if id(one := found.pop()) in seen:
            continue
        seen.add(id(one))
        yield one
        linked = (one.__cause__, one.__context__, *getattr(one, "errors", ()), *one.args)
        found += [other for other in linked if isinstance(other, BaseException)]


def _held_back(status: int, kind: str, reason: str) -> Outcome:
    if kind == "cluster_block_exception":  # 429 over a full disk, 403 for a block that someone has set
        return Outcome.BLOCKED
    if status == 403:
        return Outcome.RIGHTS
    if kind == "circuit_breaking_exception":
        return Outcome.BREAKER
    # 9.5.3: over indexing_pressure.memory.max_operation_size looks like back-pressure, but is for good. All the items
    # of the shard have this error then, the small ones too.
    return Outcome.TOO_BIG_ALONE if "exceeds the maximum allowed limit" in reason else Outcome.BUSY
