"""The one table of outcomes: what each answer to a bulk request means."""

from __future__ import annotations

import ssl

import pytest
from elastic_transport import ApiResponseMeta, HttpHeaders, NodeConfig, TlsError, TransportError
from elastic_transport import ConnectionError as LostError
from elasticsearch import ApiError
from urllib3.connection import HTTPConnection
from urllib3.exceptions import NewConnectionError, ProtocolError

from esvector.index.outcomes import Action, Outcome, classify_answer, classify_item, classify_lost, lost_reason
from esvector.index.retries import RetryPolicy


@pytest.mark.parametrize(
    ("status", "kind", "reason", "outcome"),
    [
        (200, "", "", Outcome.DONE),
        (201, "", "", Outcome.DONE),
        (400, "document_parsing_exception", "", Outcome.POISON),
        (400, "strict_dynamic_mapping_exception", "", Outcome.POISON),
        (400, "index_closed_exception", "", Outcome.GONE),
        (404, "", "", Outcome.ABSENT),
        (404, "index_not_found_exception", "", Outcome.GONE),
        (409, "version_conflict_engine_exception", "", Outcome.SUPERSEDED),
        (403, "security_exception", "", Outcome.RIGHTS),
        (403, "cluster_block_exception", "", Outcome.BLOCKED),
        (429, "cluster_block_exception", "disk usage exceeded flood-stage", Outcome.BLOCKED),
        (429, "es_rejected_execution_exception", "queue full", Outcome.BUSY),
        (429, "es_rejected_execution_exception", "size [9] exceeds the maximum allowed limit", Outcome.TOO_BIG_ALONE),
        (429, "circuit_breaking_exception", "Data too large", Outcome.BREAKER),
        (503, "unavailable_shards_exception", "", Outcome.TROUBLE),
        (500, "any", "", Outcome.TROUBLE),
    ],
)
def test_what_an_item_means(status: int, kind: str, reason: str, outcome: Outcome) -> None:
    assert classify_item(status, {"type": kind, "reason": reason} if kind else {}) is outcome


@pytest.mark.parametrize(
    ("status", "kind", "several", "alone"),
    [
        (413, "", Outcome.TOO_BIG_TOGETHER, Outcome.TOO_BIG_ALONE),
        (400, "action_request_validation_exception", Outcome.POISON_REQUEST, Outcome.POISON),
        (400, "", Outcome.UNKNOWN, Outcome.UNKNOWN),
        (400, "media_type_header_exception", Outcome.NOT_UNDERSTOOD, Outcome.NOT_UNDERSTOOD),
        (401, "security_exception", Outcome.CREDENTIALS, Outcome.CREDENTIALS),
        (403, "security_exception", Outcome.RIGHTS, Outcome.RIGHTS),
        (403, "cluster_block_exception", Outcome.BLOCKED, Outcome.BLOCKED),
        (404, "index_not_found_exception", Outcome.GONE, Outcome.GONE),
        (404, "", Outcome.UNKNOWN, Outcome.UNKNOWN),
        (408, "", Outcome.UNKNOWN, Outcome.UNKNOWN),
        (425, "", Outcome.UNKNOWN, Outcome.UNKNOWN),
        (499, "", Outcome.UNKNOWN, Outcome.UNKNOWN),
        (405, "", Outcome.NOT_UNDERSTOOD, Outcome.NOT_UNDERSTOOD),
        (429, "es_rejected_execution_exception", Outcome.BUSY, Outcome.BUSY),
        (429, "", Outcome.BUSY, Outcome.BUSY),
        (429, "circuit_breaking_exception", Outcome.BREAKER, Outcome.BREAKER),
        (500, "any", Outcome.UNKNOWN, Outcome.UNKNOWN),
        (502, "", Outcome.UNKNOWN, Outcome.UNKNOWN),
        (503, "master_not_discovered_exception", Outcome.TROUBLE, Outcome.TROUBLE),
        (504, "", Outcome.UNKNOWN, Outcome.UNKNOWN),
    ],
)
def test_what_a_failed_request_means(status: int, kind: str, several: Outcome, alone: Outcome) -> None:
    error = api_error(status, {"error": {"type": kind, "reason": "r"}} if kind else "<html>no</html>")
    assert (classify_answer(error, 7), classify_answer(error, 1)) == (several, alone)


def test_a_breaker_that_stays_open_for_one_document_is_the_documents_fault() -> None:
    body = {"error": {"type": "circuit_breaking_exception", "reason": "r", "durability": "PERMANENT"}}
    assert classify_answer(api_error(429, body), 2) is Outcome.BREAKER
    assert classify_answer(api_error(429, body), 1) is Outcome.TOO_BIG_ALONE


@pytest.mark.parametrize(
    ("cause", "kind", "outcome", "reason"),
    [
        (NewConnectionError(HTTPConnection("h"), "no"), LostError, Outcome.NOT_SENT, "it failed"),
        (ConnectionResetError(104, "Connection reset by peer"), LostError, Outcome.UNKNOWN, "reset by peer"),
        (ProtocolError("broken", ConnectionResetError(104, "reset")), LostError, Outcome.UNKNOWN, "reset"),
        (ssl.SSLCertVerificationError(1, "certificate verify failed"), TlsError, Outcome.UNTRUSTED, "verify failed"),
        (ssl.SSLEOFError(8, "EOF occurred"), TlsError, Outcome.UNKNOWN, "EOF"),
    ],
)
def test_what_no_answer_means(cause: Exception, kind: type[TransportError], outcome: Outcome, reason: str) -> None:
    error = kind("it failed", errors=(cause,))
    assert classify_lost(error) is outcome
    assert reason in lost_reason(error)


def test_whatever_is_waited_for_has_a_deadline_and_words_and_nothing_else_has() -> None:
    waited = {Action.AGAIN, Action.PAUSE, Action.SHRINK}
    policy = RetryPolicy()
    for outcome in Outcome:
        assert bool(outcome.patience) == bool(outcome.waiting) == (outcome.action in waited)
        if outcome.patience:
            assert policy.deadline(outcome) == getattr(policy, outcome.patience) > 0
            assert RetryPolicy(7).deadline(outcome) == 7


def api_error(status: int, body: object) -> ApiError:
    return ApiError(
        "no", ApiResponseMeta(status, "1.1", HttpHeaders(), 0.1, NodeConfig("http", "localhost", 9200)), body
    )
