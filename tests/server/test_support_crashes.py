"""The harness of the fault tests: a job that dies where it is told to, and a judge that sees what is wrong."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from elasticsearch import Elasticsearch

from tests.support.crash_points import CrashPoint
from tests.support.crashing import Job, run_until_done
from tests.support.encoders import HashEncoder
from tests.support.judge import judge

# 20 words each, so that a window takes several calls of the encoder.
RECORDS: list[dict[str, Any]] = [{"id": n, "text": f"document {n}" + " word" * 18, "year": 2000} for n in range(600)]
REPEATED = RECORDS[:100] + [{**record, "text": f"newer {record['text']}"} for record in RECORDS[:30]] + RECORDS[100:]
NO_TEXT = {"id": "no text", "year": 1999}
SMALL = {"body_bytes": 20_000, "senders": 2}  # many requests


def write_source(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture
def job(server_url: str, alias: str, tmp_path: Path) -> Job:
    return Job(server_url, alias, write_source(tmp_path / "source.jsonl", RECORDS), tmp_path, options=SMALL)


def test_an_undisturbed_job_passes_the_judge(job: Job, es: Elasticsearch, alias: str) -> None:
    write_source(job.source, [*REPEATED, NO_TEXT])
    assert job.done().seconds > 0
    held = judge(
        es,
        alias,
        [*REPEATED, NO_TEXT],
        HashEncoder(),
        dead={631},
        report=job.report,
        letters=job.folder / "dead.jsonl",
        acked=job.acked,
        encoded=job.encoded,
    )
    assert len(job.acked) == 600
    assert held.fields["7"]["text"] == f"newer {RECORDS[7]['text']}"


@pytest.mark.parametrize(
    ("point", "documents", "encoded"),
    [
        ("after:create:1", range(1), range(601)),
        ("before:encode:2", range(1), range(101, 300)),
        ("before:bulk:3", range(10, 599), range(600, 601)),
        ("after:bulk:2", range(10, 599), range(600, 601)),
        ("before:swap:1", range(600, 601), range(600, 601)),
    ],
)
def test_it_dies_at_its_point_and_readers_see_nothing(
    point: str, documents: range, encoded: range, job: Job, es: Elasticsearch, alias: str
) -> None:
    attempt = job.run(point)
    assert attempt.killed
    assert not es.indices.exists_alias(name=alias)
    (index,) = es.indices.get(index=f"{alias}-*")
    es.indices.refresh(index=index)
    held = {hit["_id"] for hit in es.search(index=index, size=1000, source=False)["hits"]["hits"]}
    assert job.acked <= held  # another sender may be between its answer and the journal
    assert len(held) in documents
    assert job.encoded.total() in encoded
    assert not (job.folder / "report.json").exists()


def test_after_the_swap_readers_see_it_all(job: Job, es: Elasticsearch, alias: str) -> None:
    assert job.run("after:swap:1").killed
    judge(es, alias, RECORDS, HashEncoder(), acked=job.acked)


def test_other_signals_reach_it_too(job: Job, es: Elasticsearch, alias: str) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        attempt = job.run("after:bulk:2", number)
        assert attempt.status == 130, attempt
        assert "interrupted" in attempt.said
        assert not es.indices.exists_alias(name=alias)


def test_one_that_stands_still_goes_on(job: Job, es: Elasticsearch, alias: str) -> None:
    with job.running("before:bulk:2", signal.SIGSTOP) as running:
        status = Path(f"/proc/{running.process.pid}/status")
        while "T (stopped)" not in status.read_text():
            assert running.process.poll() is None
        assert not es.indices.exists_alias(name=alias)
        running.send(signal.SIGCONT)
        assert running.wait().status == 0
    judge(es, alias, RECORDS, HashEncoder(), report=job.report)


def test_a_job_that_fails_is_no_success(job: Job) -> None:
    write_source(job.source, [NO_TEXT])
    with pytest.raises(AssertionError, match="could be indexed"):
        run_until_done(job, seed=1, seconds=60)


def test_a_point_that_does_not_exist_is_refused() -> None:
    assert CrashPoint.parse("after:bulk:3") == CrashPoint("after", "bulk", 3)
    for text in ("during:bulk:1", "after:bluk:1", "after:bulk:0"):
        with pytest.raises(ValueError, match="no crash point"):
            CrashPoint.parse(text)
