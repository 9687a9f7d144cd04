"""A run that is interrupted and run again: it goes on where it stopped, and ends as if nothing had happened."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from elasticsearch import Elasticsearch
from numpy.typing import NDArray

from esvector import EncoderProfile, Indexer, read_documents
from esvector.errors import HopelessInputError, IndexingError, InterruptedRun, SourceChangedError
from esvector.index.checkpoint import Checkpoint, JobFolder
from esvector.index.deadletters import DeadLetters
from esvector.index.versions import list_versions, live_index
from esvector.types import IndexReport, Progress
from tests.support.encoders import HashEncoder
from tests.support.models import symmetric

Records = list[Any]


class CountingEncoder(HashEncoder):
    """Remembers what it encoded of documents."""

    def __init__(self) -> None:
        super().__init__(16)
        self.texts: list[str] = []

    def encode_query(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return super().encode_document(texts)

    def encode_document(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.texts += texts
        return super().encode_document(texts)


@pytest.fixture
def encoder() -> CountingEncoder:
    return CountingEncoder()


@pytest.fixture
def indexer(es: Elasticsearch, alias: str, tmp_path: Path, encoder: CountingEncoder) -> Indexer:
    flat = {"mappings": {"properties": {"vector": {"type": "dense_vector", "index_options": {"type": "flat"}}}}}
    return Indexer(
        es, alias, encoder=encoder, mapping=flat, state=tmp_path / "state", dead_letters=tmp_path / "dead.jsonl"
    )


def papers(n: int, bad_every: int = 1000) -> Records:
    records: Records = [{"id": f"p{i}", "text": f"about subject {i}"} for i in range(n)]
    records[::bad_every] = [{"id": f"p{i}", "text": ["bad"]} for i in range(0, n, bad_every)]
    return records


def interrupt_after(indexed: int) -> Any:
    def progress(now: Progress) -> None:
        if now.phase == "indexing" and now.indexed >= indexed:
            raise KeyboardInterrupt

    return progress


def interrupted(indexer: Indexer, records: Any, indexed: int = 5_000) -> None:
    with pytest.raises(InterruptedRun, match="the same command again"):
        indexer.run(records, interrupt_after(indexed))


def assert_complete(es: Elasticsearch, alias: str, records: Records, report: IndexReport, letters: Path) -> None:
    wanted = {record["id"]: record["text"] for record in records if isinstance(record["text"], str)}
    es.indices.refresh(index=alias)
    found: dict[str, str] = {}
    for hit in _all(es, alias):
        found[hit["_id"]] = hit["_source"]["text"]
    assert found == wanted
    assert report.adds_up
    assert (report.read, report.indexed + report.unchanged) == (len(records), len(wanted))
    bad = [record["id"] for record in records if not isinstance(record["text"], str)]
    assert report.dead == len(bad)
    written = [json.loads(line) for line in letters.read_text().splitlines()]
    assert [letter["id"] for letter in written] == bad
    assert [letter["number"] for letter in written] == [
        n for n, record in enumerate(records, 1) if not isinstance(record["text"], str)
    ]


def _all(es: Elasticsearch, alias: str) -> Iterator[dict[str, Any]]:
    after: dict[str, Any] = {}
    while True:
        page = es.search(index=alias, size=10_000, sort=["_doc"], source={"includes": ["text"]}, **after)["hits"][
            "hits"
        ]
        if not page:
            return
        yield from page
        after = {"search_after": page[-1]["sort"]}


def test_goes_on_where_it_stopped_and_encodes_nothing_twice(
    es: Elasticsearch, alias: str, tmp_path: Path, indexer: Indexer, encoder: CountingEncoder
) -> None:
    records = papers(40_000)
    interrupted(indexer, iter(records))
    assert live_index(es, alias) is None
    assert [version.index for version in list_versions(es, alias)] == [f"{alias}-000001"]
    first = len(encoder.texts)
    report = indexer.run(iter(records))
    assert 5_000 <= first < 40_000 - 40
    assert len(encoder.texts) == 40_000 - 40  # all that was in flight was finished within the grace
    assert report.index == f"{alias}-000001"
    assert_complete(es, alias, records, report, tmp_path / "dead.jsonl")


def test_a_lost_checkpoint_costs_time_and_no_encoding(
    es: Elasticsearch, alias: str, tmp_path: Path, indexer: Indexer, encoder: CountingEncoder
) -> None:
    records = papers(20_000)
    interrupted(indexer, iter(records))
    for file in (tmp_path / "state").glob("*/checkpoint*"):
        file.unlink()
    (tmp_path / "dead.jsonl").unlink()
    report = indexer.run(iter(records))
    assert len(encoder.texts) == 20_000 - 20
    assert_complete(es, alias, records, report, tmp_path / "dead.jsonl")


def test_a_longer_input_is_gone_on_with(
    es: Elasticsearch, alias: str, tmp_path: Path, indexer: Indexer, encoder: CountingEncoder
) -> None:
    interrupted(indexer, iter(papers(15_000)))
    report = indexer.run(iter(papers(16_000)))
    assert len(encoder.texts) == 16_000 - 16
    assert_complete(es, alias, papers(16_000), report, tmp_path / "dead.jsonl")


def test_a_changed_input_is_noticed_and_compared_anew(
    es: Elasticsearch, alias: str, tmp_path: Path, indexer: Indexer, encoder: CountingEncoder, caplog: Any
) -> None:
    """What was changed is encoded, what is gone is not in the new version, and all else is left alone."""
    source = tmp_path / "papers.jsonl"
    records = papers(15_000)
    source.write_text("".join(json.dumps(record) + "\n" for record in records))
    interrupted(indexer, read_documents(source))
    (tmp_path / "dead.jsonl").unlink()
    records[17] = {"id": "p17", "text": "something else"}
    del records[30:50]
    source.write_text("".join(json.dumps(record) + "\n" for record in records))
    report = indexer.run(read_documents(source))
    assert "the input has changed since the interrupted run" in caplog.text
    assert len(encoder.texts) == 15_000 - 15 + 1
    assert report.pruned == 20
    assert_complete(es, alias, records, report, tmp_path / "dead.jsonl")


def test_a_changed_input_that_can_be_read_only_once_is_refused_once(
    es: Elasticsearch, alias: str, tmp_path: Path, indexer: Indexer
) -> None:
    interrupted(indexer, iter(papers(15_000)))
    (tmp_path / "dead.jsonl").unlink()
    other = papers(15_000, bad_every=3_000)
    with pytest.raises(SourceChangedError, match="differs within the first"):
        indexer.run(iter(other))
    assert_complete(es, alias, other, indexer.run(iter(other)), tmp_path / "dead.jsonl")


def test_an_interrupted_update_of_the_live_index_is_gone_on_with(
    es: Elasticsearch, alias: str, tmp_path: Path, indexer: Indexer, encoder: CountingEncoder
) -> None:
    indexer.run(papers(12_000, bad_every=20_000)[1:])
    for letters in tmp_path.glob("dead*"):
        letters.unlink()
    encoder.texts.clear()
    changed = [{**record, "text": f"{record['text']} anew"} for record in papers(12_000, bad_every=20_000)[1:]]
    interrupted(indexer, iter(changed), 3_000)
    report = indexer.run(iter(changed))
    assert len(encoder.texts) == len(changed)
    assert (report.indexed, report.unchanged, report.read) == (11_999, 0, 11_999)
    assert {hit["_source"]["text"] for hit in _all(es, alias)} == {record["text"] for record in changed}


def test_a_hopeless_build_leaves_nothing_behind(es: Elasticsearch, alias: str, indexer: Indexer) -> None:
    with pytest.raises(HopelessInputError):
        indexer.run([{"id": str(n), "text": "fine" if n < 1100 else ""} for n in range(10_000)])
    assert list_versions(es, alias) == []


@pytest.mark.parametrize("encoder_stated", [True, False])
def test_a_part_of_the_source_goes_into_the_live_index_beside_an_unfinished_version(
    es: Elasticsearch, alias: str, tmp_path: Path, encoder_stated: bool
) -> None:
    """An unfinished version would have this part only, and be of another encoder where none is stated."""
    one, two = (EncoderProfile(str(symmetric(tmp_path / name, seed=seed))) for name, seed in (("one", 1), ("two", 2)))
    records = papers(30, bad_every=100)[1:]
    stated: dict[str, Any] = {"state": tmp_path / "state", "dead_letters": tmp_path / "dead.jsonl"}
    Indexer(es, alias, profile=one, **stated).run(records)

    def interrupt(now: Progress) -> None:
        if now.phase == "verifying":
            raise KeyboardInterrupt

    unfinished = {"profile": one, "rebuild": True} if encoder_stated else {"profile": two}
    with pytest.raises(InterruptedRun):
        Indexer(es, alias, **unfinished, **stated).run(records, interrupt)
    known = {"profile": one} if encoder_stated else {}
    report = Indexer(es, alias, **known, **stated).run(records[:3])  # type: ignore[arg-type]
    assert (report.index, report.unchanged) == (f"{alias}-000001", 3)
    assert es.count(index=alias)["count"] == 29
    assert Indexer(es, alias, **unfinished, **stated).run(records).index == f"{alias}-000002"


@pytest.mark.parametrize(
    "wrong", [[], [{"id": f"q{n}", "title": ""} for n in range(1_500)], [{"id": "q", "text": "x"}] * 1_500]
)
def test_a_wrong_source_costs_nothing_of_an_earlier_runs_unfinished_version(
    es: Elasticsearch, alias: str, indexer: Indexer, encoder: CountingEncoder, wrong: Records
) -> None:
    records = papers(20_000)
    interrupted(indexer, records)
    es.indices.refresh(index=f"{alias}-000001")
    held = {hit["_source"]["text"] for hit in _all(es, f"{alias}-000001")}
    assert len(held) >= 5_000
    with pytest.raises(IndexingError):
        indexer.run(wrong)
    assert live_index(es, alias) is None
    encoder.texts.clear()
    report = indexer.run(records)
    assert (report.index, es.count(index=alias)["count"]) == (f"{alias}-000001", 20_000 - 20)
    assert not held.intersection(encoder.texts)


def test_most_of_an_unfinished_version_goes_where_that_is_said(es: Elasticsearch, alias: str, indexer: Indexer) -> None:
    interrupted(indexer, papers(20_000))
    other = [{"id": f"q{n}", "text": f"about subject {n}"} for n in range(300)]
    with pytest.raises(IndexingError, match="--force"):
        indexer.run(other)
    indexer._run_options["most_pruned"] = 1.0  # as with another Indexer of the same folder
    report = indexer.run(other)
    assert (report.index, report.indexed, report.read) == (f"{alias}-000001", 300, 300)
    assert es.count(index=alias)["count"] == 300


def test_a_run_that_made_an_index_for_nothing_takes_it_away_again(
    es: Elasticsearch, alias: str, tmp_path: Path, encoder: CountingEncoder
) -> None:
    indexer = Indexer(es, alias, encoder=encoder, field_types={"year": "integer"}, dead_letters=tmp_path / "dead.jsonl")
    with pytest.raises(HopelessInputError):
        indexer.run([{"id": f"p{n}", "text": f"about {n}", "year": "n.d."} for n in range(5)])
    assert encoder.texts
    assert list_versions(es, alias) == []


@pytest.mark.parametrize("bad", [{"text": ["bad"]}, {"text": "fine", "year": "n.d."}])
def test_a_record_that_is_rejected_by_now_leaves_nothing_of_an_earlier_attempt(
    es: Elasticsearch, alias: str, indexer: Indexer, bad: dict[str, Any]
) -> None:
    records: Records = [{"id": f"p{n}", "text": f"about {n}", "year": 2000} for n in range(40_000)]
    interrupted(indexer, records, 4_000)
    es.indices.refresh(index=f"{alias}-000001")
    assert es.exists(index=f"{alias}-000001", id="p5")
    assert es.exists(index=f"{alias}-000001", id="p7")
    records[5], records[7] = ({"id": f"p{row}", **bad} for row in (5, 7))
    records[6]["text"] = "a good one beside them"
    records.append({"id": "p5", "text": "again", "year": 2001})  # another record of an id that has a bad one
    report = indexer.run(records)
    assert (report.index, report.read, report.dead, report.indexed) == (f"{alias}-000001", 40_001, 2, 39_999)
    assert es.count(index=alias)["count"] == 39_999
    assert not es.exists(index=alias, id="p7")
    assert es.get(index=alias, id="p5")["_source"]["text"] == "again"


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("instead", [{"id": "p9000", "text": "other"}, {"id": "x", "text": ["bad"]}])
def test_what_took_the_place_of_an_earlier_record_and_is_not_in_the_input_any_more(
    es: Elasticsearch, alias: str, indexer: Indexer, monkeypatch: pytest.MonkeyPatch, live: bool, instead: Any
) -> None:
    """The record of the id that is left was settled before the checkpoint, so it is nothing that would be written."""
    if live:
        indexer.run([{"id": "seed", "text": "seed"}])
    records: Records = [{"id": f"p{n}", "text": f"about {n}"} for n in range(10_000)]
    records[10] = {"id": "x", "text": "first"}
    records[9_000] = {"id": "x", "text": "second"}
    with monkeypatch.context() as patch:
        only_checkpoints_until(patch, 5_000)
        with pytest.raises(InterruptedRun):
            indexer.run(iter(records), stop_at("verifying"))
    index = next(version.index for version in list_versions(es, alias))
    es.indices.refresh(index=index)
    assert es.get(index=index, id="x")["_source"]["text"] == "second"
    records[9_000] = instead
    report = indexer.run(iter(records))
    assert es.get(index=alias, id="x")["_source"]["text"] == "first"
    assert (report.index, report.read, report.superseded) == (index, 10_000, 0)


@pytest.mark.parametrize("repeated", [False, True])
def test_a_document_that_the_server_refuses_by_now_is_gone_after_two_interruptions(
    es: Elasticsearch, alias: str, indexer: Indexer, repeated: bool
) -> None:
    records: Records = [{"id": f"p{n}", "text": f"about {n}", "year": 2000} for n in range(3_000)]
    for changed in ({}, {"year": "n.d."}):
        records[5] |= changed
        with pytest.raises(InterruptedRun):
            indexer.run(records, stop_at("verifying"))
    records += [{"id": "p9", "text": "about 9", "year": 2000}] * repeated
    report = indexer.run(records)
    assert (report.dead, report.superseded, report.indexed) == (1, int(repeated), 2_999)
    assert not es.exists(index=alias, id="p5")


def test_a_retry_of_an_interrupted_runs_letters_costs_none_of_them(
    es: Elasticsearch, alias: str, tmp_path: Path, indexer: Indexer, monkeypatch: pytest.MonkeyPatch
) -> None:
    indexer.run(papers(3, bad_every=10))
    letters = tmp_path / "dead.jsonl"
    letters.unlink()
    with monkeypatch.context() as patch:
        only_checkpoints_until(patch, 5_000)
        with pytest.raises(InterruptedRun):
            indexer.run(papers(10_000, bad_every=4_000), stop_at("verifying"))
    mended = [json.loads(line) for line in letters.read_text().splitlines()]
    for letter in mended:
        letter["record"]["text"] = "mended"
    content = "".join(json.dumps(letter) + "\n" for letter in mended)
    letters.write_text(content)
    report = indexer.run(DeadLetters(letters))
    assert (report.read, report.dead, letters.read_text()) == (3, 0, content)


def test_letters_are_gone_on_with_from_another_folder(
    es: Elasticsearch, alias: str, tmp_path: Path, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    indexer = Indexer(es, alias, encoder=encoder, state=tmp_path / "state")
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "first")
    with pytest.raises(InterruptedRun):
        indexer.run(papers(100, bad_every=50), stop_at("verifying"))
    monkeypatch.chdir(tmp_path / "second")
    report = indexer.run(papers(100, bad_every=50))
    assert (report.dead, report.dead_letters) == (2, str(tmp_path / "first" / f"{alias}.dead.jsonl"))


def stop_at(phase: str) -> Any:
    def progress(now: Progress) -> None:
        if now.phase == phase:
            raise KeyboardInterrupt

    return progress


def only_checkpoints_until(patch: pytest.MonkeyPatch, place: int) -> None:
    """What is settled later is not noted, as when a run is killed within a second, but that it is not plain is."""
    save = JobFolder.save
    last: list[Any] = [None]

    def until(self: JobFolder, checkpoint: Checkpoint, *, now: bool = False) -> None:
        if checkpoint.place <= place:
            last[:] = [checkpoint]
        elif checkpoint.plain or last[0] is None:
            return
        save(self, replace(last[0], plain=checkpoint.plain), now=True)

    patch.setattr(JobFolder, "save", until)
