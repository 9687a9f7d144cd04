"""Documents that are never taken cost only themselves; a target that is gone ends the run and does not come back."""

from __future__ import annotations

import pytest
from elasticsearch import Elasticsearch

from esvector.errors import IndexingError
from esvector.index.bulk import BulkWriter
from tests.support.proxy import Proxy
from tests.support.proxy_faults import ApplyThenLose
from tests.support.writing import QUICK, Batch, assert_holds, batch_of, create_target, write


def test_documents_that_do_not_fit_the_mapping_cost_only_themselves(es: Elasticsearch, alias: str) -> None:
    create_target(es, alias, fields={"day": {"type": "date"}}, dynamic="strict")
    batch = batch_of(1000, fields={7: {"n": "many"}, 400: {"day": "yesterday"}, 999: {"surprise": 1}})
    result = write(BulkWriter(es, alias, retry=QUICK), batch)
    assert result.created == 997
    reasons = dict(result.refused)
    assert sorted(reasons) == [7, 400, 999]
    assert "[n] of type [integer]" in reasons[7]
    assert "yesterday" in reasons[400]
    assert "surprise" in reasons[999]
    assert_holds(es, alias, batch, without=[7, 400, 999])


def test_operations_that_fail_their_whole_request_are_found(es: Elasticsearch, target: str) -> None:
    """An id over 512 bytes; the indexer checks it before."""
    batch = batch_of(500)
    ids = list(batch.ids)
    ids[37], ids[412] = "x" * 513, "ü" * 257
    batch = Batch(ids, batch.versions, batch.sources, batch.vectors)
    result = write(BulkWriter(es, target, retry=QUICK), batch)
    assert result.created == 498
    assert result.repeated_ids == []
    assert sorted(position for position, _ in result.refused) == [37, 412]
    assert all("512" in reason for _, reason in result.refused)
    assert_holds(es, target, batch, without=[37, 412])


def test_a_later_version_stays_whatever_comes_after_it(es: Elasticsearch, target: str) -> None:
    old, new = batch_of(300), batch_of(300, version=1000)
    writer = BulkWriter(es, target, retry=QUICK)
    assert write(writer, new[:200]).created == 200
    result = write(writer, old)
    assert (len(result.superseded), result.created) == (200, 100)
    assert write(writer, new).replaced == 300
    assert_holds(es, target, new)


def test_an_index_deleted_meanwhile_ends_the_run_and_does_not_come_back(
    es: Elasticsearch, behind: Elasticsearch, proxy: Proxy, target: str
) -> None:
    writer = BulkWriter(behind, target, retry=QUICK, body_bytes=20_000)
    write(writer, batch_of(500))
    es.indices.delete(index=f"{target}-1")
    with pytest.raises(IndexingError, match="nothing can be written to"):
        write(writer, batch_of(500, version=1000))
    with pytest.raises(IndexingError, match="nothing can be written to"):
        writer.delete(["d1"], [2000])
    assert not es.indices.exists(index=target)


def test_a_closed_index_ends_the_run(es: Elasticsearch, target: str) -> None:
    es.indices.close(index=f"{target}-1")
    with pytest.raises(IndexingError, match="nothing can be written to"):
        write(BulkWriter(es, target, retry=QUICK), batch_of(10))


def test_deletes_are_counted_and_leave_later_versions_alone(
    es: Elasticsearch, behind: Elasticsearch, proxy: Proxy, target: str
) -> None:
    batch = batch_of(400)
    writer = BulkWriter(behind, target, retry=QUICK, body_bytes=5_000)
    write(writer, batch)
    ids = [*batch.ids[:100], "never there", *batch.ids[300:]]
    result = writer.delete(ids, [100] * len(ids))
    assert (result.deleted, result.absent, len(result.superseded)) == (100, 1, 100)
    assert_holds(es, target, batch, without=range(100))
    result = writer.delete(batch.ids[:100], [100] * 100)
    assert (result.deleted, result.absent) == (0, 100)


def test_deletes_whose_answers_are_lost(es: Elasticsearch, behind: Elasticsearch, proxy: Proxy, target: str) -> None:
    batch = batch_of(400)
    writer = BulkWriter(behind, target, retry=QUICK, body_bytes=5_000)
    write(writer, batch)
    proxy.every(2, ApplyThenLose())
    result = writer.delete(batch.ids[:200], [1000] * 200)
    assert proxy.faults > 0
    assert result.deleted + result.uncertain == 200
    assert_holds(es, target, batch, without=range(200))
