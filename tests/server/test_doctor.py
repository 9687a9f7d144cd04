"""What ``esvector doctor`` finds in a real index that somebody broke."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from elasticsearch import Elasticsearch

from esvector import Indexer, PassageOptions
from esvector.errors import ConfigError, IndexNotFoundError
from esvector.evaluate import index_checks
from esvector.evaluate.doctor import Diagnosis, examine
from esvector.evaluate.findings import Finding
from esvector.index.settings import store_settings
from esvector.types import SearchSettings
from tests.server.test_recall import mapping
from tests.support.commands import lines_of, run_command
from tests.support.encoders import HashEncoder

DIMS = 64
COUNT = 300


def records(count: int = COUNT) -> list[dict[str, Any]]:
    return [
        {"id": f"d{n}", "title": f"Title {n}", "text": f"text number {n}", "year": 2000 + n % 20} for n in range(count)
    ]


@pytest.fixture
def index(es: Elasticsearch, alias: str, tmp_path: Path) -> str:
    load(es, alias, tmp_path)
    return f"{alias}-000001"


def load(es: Elasticsearch, alias: str, folder: Path, rows: Any = None, **more: Any) -> None:
    indexer = Indexer(es, alias, encoder=HashEncoder(DIMS), dead_letters=folder / "dead.jsonl", **more)
    indexer.run(records() if rows is None else rows)


def look(es: Elasticsearch, alias: str, **more: Any) -> Diagnosis:
    return examine(es, alias, **{"encoder": HashEncoder(DIMS), "sample": COUNT, **more})


def of(diagnosis: Diagnosis, check: str) -> list[Finding]:
    return [finding for finding in diagnosis.findings if finding.check == check]


def one(diagnosis: Diagnosis, check: str) -> Finding:
    (finding,) = of(diagnosis, check)
    return finding


@pytest.mark.usefixtures("index")
def test_a_sound_index_has_nothing_but_a_note_that_it_is_not_tuned(es: Elasticsearch, alias: str) -> None:
    diagnosis = look(es, alias)
    assert {finding.check for finding in diagnosis.findings if finding.level != "ok"} == {"settings"}
    assert not diagnosis.alarmed
    assert one(diagnosis, "coverage").value == "all 300 documents have a vector"
    assert "cosine 1.00000" in one(diagnosis, "passport").value or "cosine 0.99999" in one(diagnosis, "passport").value
    store_settings(es, alias, SearchSettings(50, 10, 2.0, 0.987))
    assert one(look(es, alias), "settings").value == "num_candidates 50, oversample 2: recall@10 was 0.987"


def test_documents_without_a_vector(es: Elasticsearch, alias: str, index: str) -> None:
    es.index(index=index, id="bare", document={"title": "no vector"}, refresh=True)
    finding = one(look(es, alias), "coverage")
    assert (finding.level, "1 of 301 documents" in finding.value, "bare" in finding.value) == ("warning", True, True)
    assert f"esvector reembed {alias}" in finding.remedy
    assert one(look(es, alias), "origin").level == "warning"
    for n in range(5):
        es.index(index=index, id=f"bare{n}", document={"title": "no vector"}, refresh=True)
    diagnosis = look(es, alias)
    assert (one(diagnosis, "coverage").level, diagnosis.alarmed) == ("alarm", True)


def test_vectors_of_another_encoder_behind_the_passports_back(es: Elasticsearch, alias: str, index: str) -> None:
    wrong = HashEncoder(DIMS, "wrong").encode_document(["Title 7 text number 7"])[0]
    es.update(index=index, id="d7", doc={"vector": wrong.tolist()}, refresh=True)
    diagnosis = look(es, alias)
    finding = one(diagnosis, "passport")
    assert (finding.level, diagnosis.alarmed) == ("alarm", True)
    assert "1 of 300 documents drawn" in finding.value
    assert "d7 (" in finding.value
    assert one(look(es, alias, encode=False), "coverage").level == "ok"
    assert of(look(es, alias, encode=False), "passport") == []


def test_a_text_that_was_changed_without_its_vector(es: Elasticsearch, alias: str, index: str) -> None:
    es.update(index=index, id="d3", doc={"text": "something else by now"}, refresh=True)
    assert "d3 (" in one(look(es, alias), "passport").value


@pytest.mark.usefixtures("index")
def test_an_encoder_that_is_not_the_passports_or_not_to_be_had(es: Elasticsearch, alias: str) -> None:
    finding = one(look(es, alias, encoder=HashEncoder(DIMS, "other")), "passport")
    assert (finding.level, "is not the one expected" in finding.value) == ("alarm", True)
    finding = one(look(es, alias, encoder=None), "passport")  # there is no model of the name "hash-64"
    assert (finding.level, "could not be tried" in finding.value) == ("warning", True)


def test_odd_and_zero_lengths(es: Elasticsearch, alias: str, index: str) -> None:
    long = 3 * HashEncoder(DIMS).encode_document(["Title 5 text number 5"])[0]
    es.update(index=index, id="d5", doc={"vector": long.tolist()}, refresh=True)
    finding = one(look(es, alias), "norms")
    assert (finding.level, "d5 (3)" in finding.value) == ("warning", True)


def test_zero_vectors_where_the_server_takes_them(es: Elasticsearch, alias: str, tmp_path: Path) -> None:
    from tests.server.test_searching import DotEncoder

    encoder = DotEncoder()
    Indexer(es, alias, encoder=encoder, dead_letters=tmp_path / "dead.jsonl").run(records(20))
    assert one(examine(es, alias, encoder=encoder), "norms").level == "ok", "the lengths of this encoder differ"
    dims = encoder.profile.dims or 0
    es.update(index=f"{alias}-000001", id="d5", doc={"vector": np.zeros(dims).tolist()}, refresh=True)
    finding = one(examine(es, alias, encoder=encoder), "norms")
    assert (finding.level, "d5" in finding.value) == ("alarm", True)


def test_long_texts_and_equal_ones(es: Elasticsearch, alias: str, tmp_path: Path) -> None:
    rows = records(80)
    for row in rows[:20]:
        row["text"] = " ".join(f"w{n}" for n in range(100))
    for row in rows[:10]:
        row["title"] = "same"
    load(es, alias, tmp_path, rows)
    diagnosis = look(es, alias)
    finding = one(diagnosis, "truncation")
    assert finding.level == "warning"
    assert "20 of 80 texts drawn are longer than the 64 tokens" in finding.value
    finding = one(diagnosis, "duplicates")
    assert finding.level == "warning"
    assert "9 of 80 documents have the text of another one" in finding.value
    assert "d0, d1, d2 and 7 more" in finding.value


def test_deleted_documents(es: Elasticsearch, alias: str, index: str) -> None:
    for n in range(150):
        es.delete(index=index, id=f"d{n}")
    es.indices.refresh(index=index)
    finding = one(look(es, alias), "segments")
    assert (finding.level, "deleted documents beside 150:" in finding.value) == ("warning", True)


def test_passages_are_compared_one_by_one(es: Elasticsearch, alias: str, tmp_path: Path) -> None:
    rows = [{"id": f"p{n}", "title": f"T{n}", "text": " ".join(f"w{n}x{m}." for m in range(n + 1))} for n in range(60)]
    load(es, alias, tmp_path, rows, passages=PassageOptions(24, 4))
    diagnosis = look(es, alias)
    assert one(diagnosis, "passport").level == "ok", one(diagnosis, "passport").value
    assert one(diagnosis, "norms").level == "ok"
    assert of(diagnosis, "truncation") == []
    body = {"query": {"ids": {"values": ["p50"]}}, "_source": ["*"]}
    passages = es.search(index=alias, body=body)["hits"]["hits"][0]["_source"]["passages"]
    passages[1]["vector"] = HashEncoder(DIMS, "wrong").encode_document(["x"])[0].tolist()
    es.update(index=f"{alias}-000001", id="p50", doc={"passages": passages}, refresh=True)
    finding = one(look(es, alias), "passport")
    assert (finding.level, "p50 (" in finding.value) == ("alarm", True)


def test_shards_copies_and_blocks(es: Elasticsearch, alias: str, index: str) -> None:
    es.indices.put_settings(index=index, settings={"index.auto_expand_replicas": False, "index.number_of_replicas": 1})
    finding = one(look(es, alias), "shards")
    assert (finding.level, "the index is yellow: 1 copies" in finding.value) == ("warning", True)
    es.indices.put_settings(index=index, settings={"index.number_of_replicas": 0, "index.blocks.write": True})
    diagnosis = look(es, alias)
    assert one(diagnosis, "shards").level == "ok"
    assert one(diagnosis, "writes").level == "warning"


def test_a_mapping_that_does_not_suit(
    es: Elasticsearch, alias: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"type": "bbq_hnsw", "m": 4, "ef_construction": 6, "rescore_vector": {"oversample": 0}}
    template = mapping(options)
    template["mappings"]["properties"] |= {
        "notes": {"type": "text"},
        "raw": {"type": "keyword", "index": False, "doc_values": False},
    }
    load(es, alias, tmp_path, mapping=template)
    diagnosis = look(es, alias)
    said = " ".join(finding.value for finding in of(diagnosis, "mapping"))
    for expected in ("a bit for each of 64 dims", "oversample of 0", "m is 4", "ef_construction is 6"):
        assert expected in said
    fields = " ".join(finding.value for finding in of(diagnosis, "fields"))
    assert "no filter can compare: notes" in fields
    assert "no filter can use: raw" in fields
    load(es, f"{alias}-flat", tmp_path, mapping=mapping({"type": "flat"}))
    assert one(look(es, f"{alias}-flat"), "mapping").level == "ok"
    monkeypatch.setattr(index_checks, "_FLAT", 100)
    assert "every query is compared with 300 vectors" in one(look(es, f"{alias}-flat"), "mapping").value


@pytest.mark.usefixtures("index")
def test_memory(es: Elasticsearch, alias: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert one(look(es, alias), "memory").level == "ok"
    monkeypatch.setattr(index_checks, "_room", lambda node: 90_000)
    assert one(look(es, alias), "memory").level == "warning", "300 vectors of 64 floats are 76.8 kB"
    monkeypatch.setattr(index_checks, "_room", lambda node: 70_000)
    diagnosis = look(es, alias)
    assert (one(diagnosis, "memory").level, diagnosis.alarmed) == ("alarm", True)
    assert "76.8 kB of the 70.0 kB" in one(diagnosis, "memory").value


@pytest.mark.usefixtures("index")
def test_what_a_killed_tune_left(es: Elasticsearch, alias: str) -> None:
    es.indices.create(index=f"{alias}-tuning-1234", settings={"hidden": True})
    assert f"{alias}-tuning-1234" in one(look(es, alias), "leftovers").value


def test_what_cannot_be_examined(es: Elasticsearch) -> None:
    with pytest.raises(IndexNotFoundError):
        examine(es, "nothing-here")
    with pytest.raises(ConfigError):
        examine(es, "nothing-here", sample=0)


def test_the_command(es: Elasticsearch, server_url: str, alias: str, index: str) -> None:
    done = run_command(server_url, "doctor", alias, "--no-encode")
    assert done.exit_code == 0, done.output
    found = lines_of(done)
    assert {"index", "level", "check", "value", "remedy"} == set(found[0])
    assert {line["check"] for line in found} >= {"coverage", "norms", "duplicates", "shards", "segments", "memory"}
    for n in range(9):
        es.index(index=index, id=f"bare{n}", document={"title": "no vector"}, refresh=True)
    done = run_command(server_url, "doctor", alias, "--no-encode")
    assert done.exit_code == 1
    assert [line["check"] for line in lines_of(done) if line["level"] == "alarm"] == ["coverage"]
