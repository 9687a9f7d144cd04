"""Kill -9 of an indexing process, at named points and at random times; the same command again finishes, each time.

After every kill readers see what they saw before, and nothing that the server had acknowledged is encoded again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from elasticsearch import Elasticsearch

from esvector.index.checkpoint import JobFolder
from esvector.index.versions import list_versions, live_index
from tests.support.crash_rounds import (
    DIMS,
    OPTIONS,
    SCENES,
    Ledger,
    Rounds,
    first_load,
    in_flight,
    papers,
    revised,
    write_source,
)
from tests.support.crashing import Job
from tests.support.encoders import HashEncoder
from tests.support.judge import judge

RECORDS = papers(6000)


@pytest.fixture
def job(server_url: str, alias: str, tmp_path: Path) -> Job:
    return Job(server_url, alias, write_source(tmp_path / "source.jsonl", RECORDS), tmp_path, OPTIONS, dims=DIMS)


@pytest.fixture(scope="module")
def rounds(server_url: str, es: Elasticsearch, tmp_path_factory: pytest.TempPathFactory) -> Rounds:
    return Rounds(es, server_url, tmp_path_factory.mktemp("rounds"))


def killed_at(job: Job, points: list[str]) -> Iterator[str]:
    """Run ``job`` to each of ``points`` in turn, where it is killed."""
    for point in points:
        attempt = job.run(point)
        assert attempt.killed, f"{point}: {attempt}"
        yield point


@pytest.mark.nightly
def test_a_build_killed_between_every_two_of_its_steps(job: Job, es: Elasticsearch, alias: str) -> None:
    ledger = Ledger(job)
    points = [
        "after:lease:1",
        "before:create:1",
        "after:delete:1",
        "after:create:2",
        "before:encode:2",
        "before:bulk:1",
        "after:bulk:3",
        "before:checkpoint:1",
        "after:checkpoint:1",
        "before:count:2",
        "before:merge:1",
        "after:merge:1",
        "before:settings:2",
        "before:swap:1",
    ]
    for point in killed_at(job, points):
        ledger.note()
        assert live_index(es, alias) is None, point
    assert job.run("after:swap:1").killed
    ledger.note()
    judge(es, alias, RECORDS, HashEncoder(DIMS), acked=job.acked)
    (index,) = list_versions(es, alias)
    job.done()
    report = job.report
    assert (report["index"], report["encoded"]) == (index.index, 0)
    judge(es, alias, RECORDS, HashEncoder(DIMS), report=report, acked=job.acked)
    assert ledger.encoded_in_vain(RECORDS) == []


@pytest.mark.nightly
def test_an_update_killed_between_every_two_of_its_steps(job: Job, es: Elasticsearch, alias: str) -> None:
    """Readers find every document at any moment, as it was or as it will be."""
    first_load(es, alias, job.folder, RECORDS)
    later = revised(RECORDS)
    write_source(job.source, later)
    updating = replace(job, options={**OPTIONS, "prune": True})
    ledger = Ledger(updating)
    kept = {record["id"] for record in RECORDS} & {record["id"] for record in later}
    points = [
        "before:meta:1",
        "after:meta:1",
        "after:alias:1",
        "before:encode:1",
        "before:bulk:1",
        "after:bulk:2",
        "after:checkpoint:1",
        "before:count:2",
        "before:bulk:1",  # what is left of the updates is none: this one prunes
        "after:bulk:1",
    ]
    for point in killed_at(updating, points):
        ledger.note()
        es.indices.refresh(index=alias)
        found = es.search(index=alias, query={"ids": {"values": sorted(kept)}}, size=0, track_total_hits=True)
        assert found["hits"]["total"]["value"] == len(kept), point
    updating.done()
    held = judge(
        es,
        alias,
        later,
        HashEncoder(DIMS),
        dead={number for number, record in enumerate(later, 1) if "text" not in record},
        report=updating.report,
        letters=updating.letters,
        acked=updating.acked,
    )
    assert ledger.encoded_in_vain(later) == []
    assert held.fields["p0"]["text"].endswith("revised")
    assert not es.indices.exists_alias(name=f"{alias}-000001-loading")


@pytest.mark.nightly
def test_a_reembedding_killed_between_every_two_of_its_steps(job: Job, es: Elasticsearch, alias: str) -> None:
    first_load(es, alias, job.folder, RECORDS)
    before = live_index(es, alias)
    again = replace(job, encoder="other", options={**OPTIONS, "rebuild": True}, reembed=True)
    ledger = Ledger(again)
    for point in killed_at(again, ["after:create:2", "after:bulk:3", "after:merge:1", "before:swap:1"]):
        ledger.note()
        assert live_index(es, alias) == before, point
    again.done()
    judge(es, alias, RECORDS, HashEncoder(DIMS, "other"), report=again.report, acked=again.acked)
    assert ledger.encoded_in_vain(RECORDS) == []
    assert live_index(es, alias) == f"{alias}-000002"
    assert before is not None
    es.index(index=before, id="written", document={"text": "the old version is open to writers again"})


def test_what_is_encoded_again_is_what_was_in_flight(job: Job, es: Elasticsearch, alias: str) -> None:
    records = papers(16_384)
    write_source(job.source, records)
    one = replace(job, options={**OPTIONS, "senders": 1})
    assert one.run("after:bulk:12").killed
    assert 1024 < len(one.acked) < len(records)
    one.done()
    judge(es, alias, records, HashEncoder(DIMS), acked=one.acked, encoded=one.encoded, most_again=in_flight(1, 1024))


@pytest.mark.parametrize("seed", range(4), ids=SCENES)
def test_killed_at_random_until_it_is_done(rounds: Rounds, seed: int) -> None:
    assert rounds.play(seed).kills > 0


def test_an_unfinished_version_is_not_gone_on_with_by_another_encoder(job: Job, es: Elasticsearch, alias: str) -> None:
    assert job.run("after:bulk:12").killed
    other = replace(job, encoder="other")
    other.done()
    judge(es, alias, RECORDS, HashEncoder(DIMS, "other"), report=other.report)
    assert json.loads((job.folder / "report.json").read_text())["index"] == f"{alias}-000002"


@pytest.mark.parametrize("reordered", [False, True])
def test_what_changed_behind_the_checkpoint_of_a_killed_run_is_as_the_input_says(
    job: Job, es: Elasticsearch, alias: str, reordered: bool
) -> None:
    """Of the documents that were acknowledged and that no checkpoint covers, one is gone, one changed, one bad."""
    slow = replace(job, delay=0.0003)
    assert slow.run("before:checkpoint:2").killed  # a whole window is behind the first one
    (state,) = (slow.folder / "state").iterdir()
    done = JobFolder(state.parent, state.name).load()
    assert done is not None
    place, acked = done.place, slow.acked
    behind = [n for n in range(place, len(RECORDS)) if RECORDS[n]["id"] in acked]
    gone, changed, bad = (behind[len(behind) // part] for part in (5, 3, 2))
    later = [dict(record) for record in RECORDS]
    later[changed]["text"] = "the new text of this one"
    later[bad] = {"id": later[bad]["id"], "text": ["not any more"]}
    if reordered:
        later[place:] = [later[changed], *(one for n, one in enumerate(later[place:], place) if n != changed)]
    later = [record for record in later if record["id"] != RECORDS[gone]["id"]]
    write_source(job.source, later)
    slow.done()
    dead = {number for number, record in enumerate(later, 1) if not isinstance(record.get("text"), str)}
    judge(es, alias, later, HashEncoder(DIMS), dead=dead, report=slow.report, letters=slow.letters, acked=acked)
