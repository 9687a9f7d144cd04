"""The one writer: sends documents and vectors in bulk requests, and accounts for every single one of them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import tenacity
from numpy.typing import NDArray

from esvector.client import error_reason, explain_errors
from esvector.errors import IndexingError
from esvector.index.outcomes import Outcome, classify_answer, classify_item
from esvector.index.packing import Block, pack

if TYPE_CHECKING:
    from elasticsearch import ApiError, Elasticsearch

    from esvector.index.passages import PassageWindow

__all__ = ["BulkWriter", "RetryPolicy", "WriteResult"]


@dataclass(slots=True)
class WriteResult:
    """What became of the documents of one ``write``.

    ``created`` documents are new to the index; ``replaced`` ones took the place of an earlier record of their id;
    ``uncertain`` ones are one or the other, because an answer was lost; ``superseded`` ones came too late.
    ``refused`` has (position, reason).
    """

    created: int = 0
    replaced: int = 0
    uncertain: int = 0
    superseded: int = 0
    repeated_ids: list[str] = field(default_factory=list)
    refused: list[tuple[int, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long to keep trying, in seconds: waits grow from ``first_wait`` to ``longest_wait``, with full jitter."""

    give_up_after: float = 300.0
    first_wait: float = 0.5
    longest_wait: float = 30.0
    request_timeout: float = 120.0


class _Trouble(Exception):
    """Some documents have no outcome yet; ``reason`` is the last thing the server or the network said."""

    def __init__(self, pending: list[int], reason: str) -> None:
        super().__init__(reason)
        self.pending = pending
        self.reason = reason


class BulkWriter:
    """Writes to ``target``, an alias that must exist; safe to use from several threads at once.

    ``target`` is never created by a write: a deleted index must not come back with a guessed mapping.
    """

    def __init__(
        self,
        client: Elasticsearch,
        target: str,
        *,
        vector_field: str = "vector",
        packed: bool = True,
        body_bytes: int = 4 * 2**20,
        retry: RetryPolicy | None = None,
        stopping: threading.Event | None = None,
    ) -> None:
        self._retry = retry or RetryPolicy()
        self._client = client.options(
            request_timeout=self._retry.request_timeout, max_retries=0, retry_on_status=(), retry_on_timeout=False
        )
        self._target = target
        self._vector_field = vector_field
        self._packed = packed
        self._body_bytes = body_bytes
        self._stopping = stopping or threading.Event()

    def write(
        self,
        ids: Sequence[str],
        versions: Sequence[int],
        sources: Sequence[bytes],
        vectors: NDArray[np.float32] | NDArray[np.int8],
        passages: PassageWindow | None = None,
    ) -> WriteResult:
        """Index documents, waiting and repeating as needed until each is acknowledged or refused.

        ``sources`` are JSON objects as UTF-8; ``vectors`` is (n, dims), one of each document, or with ``passages`` one
        of each passage; of two documents of one id the one with the higher version stays, in whatever order they
        arrive. Raises IndexingError when the server takes
        nothing for ``give_up_after`` seconds or the target is gone, CredentialsError when it refuses us.
        """
        result = WriteResult()
        block = pack(ids, versions, sources, vectors, self._vector_field, packed=self._packed, passages=passages)
        for part in block.parts(self._body_bytes):
            self._deliver(block, part, result)
        return result

    def _deliver(self, block: Block, part: Sequence[int], result: WriteResult) -> None:
        """Send until every document has an outcome; the waiting is tenacity's."""
        pending = part
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_Trouble),
            wait=tenacity.wait_random_exponential(self._retry.first_wait, self._retry.longest_wait),
            stop=tenacity.stop_after_delay(self._retry.give_up_after) | tenacity.stop_when_event_set(self._stopping),
            sleep=tenacity.sleep_using_event(self._stopping),
            reraise=True,
        )
        try:
            for attempt in retrying:
                with attempt:
                    try:
                        self._send(block, pending, result)
                    except _Trouble as trouble:
                        pending = trouble.pending
                        raise
        except _Trouble as trouble:
            raise IndexingError(
                f"Elasticsearch took no writes for {self._retry.give_up_after:g} s: {trouble.reason}",
                "see 'esvector status' and the server's log, then run the same command again",
            ) from trouble

    def _send(self, block: Block, batch: Sequence[int], result: WriteResult) -> None:
        """Send once, in halves where it is too much at once. Raises _Trouble with what has no outcome yet."""
        pending: list[int] = []
        reason = ""
        stack = [batch]
        while stack:
            part = stack.pop()
            outcome, said, left = self._post(block, part, result)
            if outcome is Outcome.SPLIT and len(part) > 1:
                middle = len(part) // 2
                stack += [part[middle:], part[:middle]]
            elif outcome is Outcome.SPLIT:
                result.refused.append((part[0], said))
            elif left:
                pending += left
                reason = said
        if pending:
            raise _Trouble(pending, reason)

    def _post(self, block: Block, part: Sequence[int], result: WriteResult) -> _Answer:
        import elasticsearch
        from elastic_transport import TlsError

        body = block.body(part)
        try:
            answer = self._client.bulk(
                index=self._target,
                operations=body,  # type: ignore[arg-type]  # bytes pass through unchanged (9.5.1)
                require_alias=True,
                include_source_on_error=False,
                filter_path=_FILTER_PATH,
            )
        except elasticsearch.ApiError as error:
            return self._failed(block, part, error)
        except TlsError:
            raise
        except (elasticsearch.TransportError, elasticsearch.SerializationError) as error:
            return _unknown(block, part, f"{type(error).__name__}: {error.message}")
        items = answer.get("items", [])
        if len(items) != len(part):
            return _unknown(block, part, f"an answer of {len(items)} items to a request of {len(part)}")
        return self._settle(block, part, items, result)

    def _failed(self, block: Block, part: Sequence[int], error: ApiError) -> _Answer:
        outcome = classify_answer(error)
        said = f"{error.status_code} {error_reason(error)}"
        if outcome is Outcome.FATAL:
            with explain_errors(self._client):
                raise error
        return _unknown(block, part, said) if outcome is Outcome.UNKNOWN else (outcome, said, part)

    def _settle(self, block: Block, part: Sequence[int], items: list[dict[str, Any]], result: WriteResult) -> _Answer:
        if [item["index"]["status"] for item in items].count(_CREATED) == len(part):
            result.created += len(part)
            return Outcome.DONE, "", []
        left: list[int] = []
        said = ""
        for position, item in zip(part, items, strict=True):
            fate = item["index"]
            error = fate.get("error") or {}
            match classify_item(fate["status"], error):
                case Outcome.DONE:
                    _count(block, position, fate["status"], result)
                case Outcome.SUPERSEDED:
                    result.superseded += 1
                    result.repeated_ids.append(block.ids[position])
                case Outcome.REFUSED:
                    result.refused.append((position, _explain(error)))
                case Outcome.AGAIN:
                    left.append(position)
                    said = _explain(error)
                case _:
                    raise IndexingError(
                        f"nothing can be written to {self._target}: {_explain(error)}",
                        "the index being loaded was deleted or closed meanwhile: run the same command again",
                    )
        return Outcome.AGAIN if left else Outcome.DONE, said, left


# The outcome of a request as a whole, what was said, and the positions to send again.
_Answer = tuple[Outcome, str, Sequence[int]]
_FILTER_PATH = ["items.*.status", "items.*.error"]
_CREATED = 201  # status of an item whose id was new; 200 is one that took another's place


def _unknown(block: Block, part: Sequence[int], said: str) -> _Answer:
    block.uncertain.update(part)
    return Outcome.UNKNOWN, said, part


def _count(block: Block, position: int, status: int, result: WriteResult) -> None:
    if status == _CREATED:
        result.created += 1
    elif position in block.uncertain:
        result.uncertain += 1
    else:
        result.replaced += 1
        result.repeated_ids.append(block.ids[position])


def _explain(error: dict[str, Any]) -> str:
    cause = error.get("caused_by") or {}
    reason = str(error.get("reason", "no reason given"))
    return f"{reason} ({cause['reason']})" if cause.get("reason") and cause["reason"] not in reason else reason
