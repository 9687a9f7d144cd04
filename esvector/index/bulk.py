"""The one writer: sends documents and vectors in bulk requests, and accounts for every single one of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import tenacity
from numpy.typing import NDArray

from esvector.client import address, error_reason, explain_errors, refreshed_credentials
from esvector.errors import CredentialsError, IndexingError
from esvector.index.bodies import BodySize, deletions
from esvector.index.concurrency import Blockade, Limiter
from esvector.index.delivery import Answer, Delivery, WriteResult, read_fates
from esvector.index.outcomes import Action, Outcome, classify_answer, classify_lost, lost_reason
from esvector.index.packing import pack
from esvector.index.pipeline import Stopped
from esvector.index.retries import Patience, RetryPolicy, Trouble, Waits

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

    from esvector.index.passages import PassageWindow

__all__ = ["BulkWriter", "RetryPolicy", "Traffic", "WriteResult"]

_FILTER_PATH = ["items.*.status", "items.*.result", "items.*.error"]
_LONGEST_REASON = 1000  # characters; an id of 512 bytes fits, and a proxy's page of HTML can be anything


@dataclass(slots=True)
class Traffic:
    """What a writer has sent so far, lost requests included; ``bytes`` of bodies.

    ``sent_again`` documents were sent more than once, counted once for each further time. ``busy`` requests were
    refused at least in part because the server had too much to do, ``unknown`` ones have no answer that can be used.
    ``blocks`` is how often the index began to take no writes, ``renewals`` how often new credentials were found.
    """

    requests: int = 0
    bytes: int = 0
    sent_again: int = 0
    busy: int = 0
    unknown: int = 0
    blocks: int = 0
    renewals: int = 0


class BulkWriter:
    """Writes to ``target``, an alias that must exist; safe to use from several threads at once.

    ``target`` is never created by a write: a deleted index must not come back with a guessed mapping. The threads share
    what is learned: how many may send at once, how large a request may be, that the index is blocked, new credentials.

    ``pipeline`` is the ingest pipeline of every document; None is the index's own default, which a template of the
    cluster may name for indices that are not esvector's.
    """

    def __init__(
        self,
        client: Elasticsearch,
        target: str,
        *,
        vector_field: str = "vector",
        packed: bool = True,
        pipeline: str | None = "_none",
        body_bytes: int = 4 * 2**20,
        retry: RetryPolicy | None = None,
        stopping: threading.Event | None = None,
    ) -> None:
        self._retry = retry or RetryPolicy()
        # There is one layer of retries, and it is here.
        self._client = client.options(
            request_timeout=self._retry.request_timeout, max_retries=0, retry_on_status=(), retry_on_timeout=False
        )
        self._target = target
        self._vector_field = vector_field
        self._packed = packed
        self._pipeline = pipeline
        self._stopping = stopping or threading.Event()
        self._bodies = BodySize(body_bytes)
        self._limiter = Limiter(self._stopping)
        self._blockade = Blockade(self._stopping, self._retry.probe_every, self._retry.deadline(Outcome.BLOCKED))
        self._waits = Waits()
        self._lock = threading.Lock()
        self._traffic = Traffic()

    @property
    def waiting_for(self) -> str | None:
        """What is waited for, such as "waiting for Elasticsearch for 12 s: Connection refused"; None where nothing."""
        return str(self._waits) or None

    @property
    def traffic(self) -> Traffic:
        """What was sent so far, by all threads."""
        with self._lock:
            return replace(self._traffic, blocks=self._blockade.count)

    def pack(
        self,
        ids: Sequence[str],
        versions: Sequence[int],
        sources: Sequence[bytes],
        vectors: NDArray[np.float32] | NDArray[np.int8],
        passages: PassageWindow | None = None,
    ) -> Delivery:
        """Return documents as ``deliver`` sends them: made beforehand, they let a sender keep the server busy.

        ``sources`` are JSON objects as UTF-8; ``vectors`` is (n, dims), one of each document, or with ``passages`` one
        of each passage. Of two documents of one id the one with the higher version stays, in whatever order they
        arrive.
        """
        block = pack(ids, versions, sources, vectors, self._vector_field, packed=self._packed, passages=passages)
        return Delivery(block, self._bodies.limit, deletes=False)

    def delete(self, ids: Sequence[str], versions: Sequence[int]) -> WriteResult:
        """Delete documents of which the index has no version later than ``versions``. As ``deliver`` in all else."""
        return self.deliver(Delivery(deletions(ids, versions), self._bodies.limit, deletes=True))

    def deliver(self, delivery: Delivery) -> WriteResult:
        """Send, waiting and repeating as needed, until every document is acknowledged or refused.

        Raises IndexingError when the server takes nothing for as long as the policy says or the target is gone,
        CredentialsError when it refuses us, ServerUnreachableError over TLS that cannot be trusted, and Stopped when
        ``stopping`` is set during a wait.
        """
        patience = Patience(self._retry)  # the waiting itself is tenacity's
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Trouble),
            wait=patience.wait,
            stop=patience.stop,
            sleep=tenacity.sleep_using_event(self._stopping),
            reraise=True,
        )
        try:
            for attempt in retrying:
                with attempt:
                    before = delivery.pending
                    try:
                        self._send_all(delivery, patience)
                    finally:
                        if delivery.pending < before:
                            attempt.retry_state.attempt_number = 1  # waits are short again
        except Trouble as trouble:
            raise self._given_up(trouble) from trouble
        finally:
            self._waits.end()
        return delivery.result

    def _send_all(self, delivery: Delivery, patience: Patience) -> None:
        """Send part after part. Raises Trouble when something has to be waited for."""
        while part := delivery.next_part(self._bodies.limit):
            client, before = self._client, delivery.pending
            answer = self._send(client, delivery, part, patience)
            if delivery.pending < before:
                patience.renew()
                self._waits.end()
            action = answer.outcome.action
            if answer.left == 1 and action in (Action.REFUSE, Action.ISOLATE):
                delivery.refuse(answer.reason)
                continue
            with self._lock:
                self._traffic.sent_again += answer.left
            match action:
                case Action.REFUSE | Action.HALVE | Action.SHRINK:
                    delivery.halve()
                case Action.ISOLATE:
                    delivery.isolate()
                case Action.RENEW:
                    self._renew(client, answer)
                case Action.STOP:
                    self._stop(answer)
            if answer.outcome.patience:
                self._wait_out(answer, patience)

    def _send(self, client: Elasticsearch, delivery: Delivery, part: Sequence[int], patience: Patience) -> Answer:
        """Send one request as soon as it may be, account for its answer, and let the other senders know of it."""
        refused = None
        ticket = self._limiter.enter()
        try:
            if self._blockade.wait():
                patience.renew()
            sent = time.monotonic()
            answer = self._post(client, delivery, part)
            seconds = time.monotonic() - sent
            if answer.fates is not None:
                answer = delivery.settle(answer.fates)
            elif answer.outcome is not Outcome.NOT_SENT:
                delivery.doubt()
            if answer.fates is not None and answer.outcome is not Outcome.BLOCKED:
                self._blockade.end(sent)
            self._learn(answer.outcome, delivery.size(part), seconds)
            refused = {Outcome.BUSY: True, Outcome.BREAKER: True, Outcome.DONE: False}.get(answer.outcome)
        finally:
            self._limiter.leave(ticket, refused=refused)
        return answer

    def _post(self, client: Elasticsearch, delivery: Delivery, part: Sequence[int]) -> Answer:
        import elasticsearch

        try:
            # A delete with an external version creates a missing index, whatever require_alias says (9.5.3).
            if delivery.deletes and not client.indices.exists_alias(name=self._target):
                return Answer(Outcome.GONE, f"there is no alias {self._target}", len(part))
            body = client.bulk(
                index=self._target,
                operations=delivery.block.body(part),  # type: ignore[arg-type]  # bytes pass through unchanged (9.5.1)
                require_alias=True,
                pipeline=self._pipeline,
                include_source_on_error=False,
                filter_path=_FILTER_PATH,
            ).body
        except elasticsearch.UnsupportedProductError:
            return Answer(Outcome.UNKNOWN, "an answer that is not Elasticsearch's", len(part))
        except elasticsearch.ApiError as error:
            reason = f"{error.status_code} {error_reason(error)}"[:_LONGEST_REASON]
            return Answer(classify_answer(error, len(part)), reason, len(part), error=error)
        except elasticsearch.TransportError as error:
            return Answer(classify_lost(error), lost_reason(error)[:_LONGEST_REASON], len(part), error=error)
        fates = read_fates(body, len(part))
        said = "" if fates else f"an answer that does not say what became of each of {len(part)} documents"
        return Answer(Outcome.UNKNOWN, said, len(part), fates)

    def _learn(self, outcome: Outcome, size: int, seconds: float) -> None:
        with self._lock:
            traffic = self._traffic
            traffic.requests += 1
            traffic.bytes += size
            traffic.busy += outcome in (Outcome.BUSY, Outcome.BREAKER)
            traffic.unknown += outcome is Outcome.UNKNOWN
        match outcome:
            case Outcome.DONE:
                self._bodies.took(size, seconds)
            case Outcome.BREAKER:
                self._bodies.shrink(size)
            case Outcome.TOO_BIG_TOGETHER:
                self._bodies.too_big(size)

    def _wait_out(self, answer: Answer, patience: Patience) -> NoReturn:
        if self._stopping.is_set():
            raise Stopped
        blocked = self._blockade.begin() if answer.outcome is Outcome.BLOCKED else None
        began = patience.start(answer.outcome, blocked)
        self._waits.begin(began, answer.outcome, answer.reason)
        raise Trouble(answer.outcome, answer.reason)

    def _renew(self, refused: Elasticsearch, answer: Answer) -> None:
        """Go on with new credentials. Raises CredentialsError when there are none but those that were refused."""
        with self._lock:
            if self._client is not refused:  # another sender has them already
                return
            renewed = refreshed_credentials(refused)
            if renewed is not None:
                self._client = renewed
                self._traffic.renewals += 1
                return
        self._stop(answer)

    def _stop(self, answer: Answer) -> NoReturn:
        if answer.outcome is Outcome.GONE:
            raise IndexingError(
                f"nothing can be written to {self._target}: {answer.reason}",
                "the index being loaded was deleted or closed meanwhile: run the same command again",
            )
        if answer.error is None:
            raise CredentialsError(
                f"{address(self._client)} refuses the action: {answer.reason}", "ask for the missing privilege"
            )
        with explain_errors(self._client):
            raise answer.error

    def _given_up(self, trouble: Trouble) -> IndexingError:
        seconds = self._retry.deadline(trouble.outcome)
        remedy = "see 'esvector status' and the server's log, then run the same command again"
        if trouble.outcome is Outcome.BLOCKED:
            remedy = "make room on the server's disk, or lift the block of the index, then run the same command again"
        return IndexingError(f"Elasticsearch took no writes for {seconds:g} s: {trouble.reason}", remedy)
