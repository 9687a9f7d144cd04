"""Credentials that expire, and rights that are missing. The node has no security: the proxy answers for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from elasticsearch import Elasticsearch

from esvector.client import connect
from esvector.errors import CredentialsError
from esvector.index.bulk import BulkWriter
from tests.support.proxy import Proxy
from tests.support.proxy_faults import Exchange, Fault, Inject
from tests.support.writing import QUICK, assert_holds, batch_of, write

BATCH = batch_of(1000)
EXPIRED = Inject(401, {"error": {"type": "security_exception", "reason": "api key is expired"}, "status": 401})
WORDS = "action [indices:data/write/bulk[s]] is unauthorized for API key, this action is granted by [create_doc,index]"
FORBIDDEN = {"type": "security_exception", "reason": WORDS}


class Expires:
    """Takes a request only with the key ``valid``."""

    def __init__(self, valid: str) -> None:
        self.valid = valid

    def __call__(self, exchange: Exchange) -> None:
        if f"authorization: apikey {self.valid}\r\n" in exchange.head.decode().lower():
            exchange.client.sendall(exchange.forward())
        else:
            EXPIRED(exchange)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "key"
    file.write_text("first\n")
    return file


@pytest.fixture
def keyed(proxy: Proxy, key_file: Path) -> Iterator[Elasticsearch]:
    with connect(proxy.url, environ={"ESVECTOR_API_KEY_FILE": str(key_file)}) as client:
        yield client


def test_a_key_renewed_in_its_file_is_used_from_then_on(
    es: Elasticsearch, proxy: Proxy, target: str, keyed: Elasticsearch, key_file: Path
) -> None:
    gate = Expires("first")
    proxy.every(1, gate)
    writer = BulkWriter(keyed, target, retry=QUICK, body_bytes=20_000)
    assert write(writer, BATCH[:500]).created == 500
    key_file.write_text("second\n")
    gate.valid = "second"
    assert write(writer, BATCH).created == 500
    assert writer.traffic.renewals == 1
    assert_holds(es, target, BATCH)


def test_a_key_that_stays_refused_ends_the_run_with_one_more_look_and_no_secret(
    proxy: Proxy, target: str, keyed: Elasticsearch
) -> None:
    proxy.every(1, EXPIRED)
    writer = BulkWriter(keyed, target, retry=QUICK)
    with pytest.raises(CredentialsError, match="refuses the credentials") as error:
        writer.deliver(writer.pack(BATCH.ids, BATCH.versions, BATCH.sources, BATCH.vectors))
    assert proxy.bulks == 1
    assert "first" not in str(error.value)


def test_a_client_of_the_users_own_is_not_given_other_credentials(
    proxy: Proxy, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.every(1, EXPIRED)
    monkeypatch.setenv("ESVECTOR_API_KEY", "secret")
    with Elasticsearch(proxy.url) as client, pytest.raises(CredentialsError):
        write(BulkWriter(client, target, retry=QUICK), BATCH[:10])
    assert proxy.bulks == 1


@pytest.mark.parametrize(
    "fault",
    [
        Inject(403, {"error": {**FORBIDDEN, "root_cause": [FORBIDDEN]}, "status": 403}),
        Inject(200, {"items": [{"index": {"status": 403, "error": FORBIDDEN}}]}),
    ],
    ids=["the request", "a document"],
)
def test_a_missing_privilege_is_named(behind: Elasticsearch, proxy: Proxy, target: str, fault: Fault) -> None:
    proxy.every(1, fault)
    with pytest.raises(CredentialsError, match=r"granted by \[create_doc,index\]"):
        write(BulkWriter(behind, target, retry=QUICK), BATCH[:1])
    assert proxy.bulks == 1
