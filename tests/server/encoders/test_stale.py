"""What changes after the index was made: models, passports, probes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from elasticsearch import Elasticsearch

from esvector import Indexer, Searcher
from esvector.encode.loading import load_encoder
from esvector.encode.profile import EncoderProfile
from esvector.errors import ConfigError, EncoderMismatchError
from tests.server.encoders.cases import CASES, DOCUMENTS, QUERIES, RECORDS, Indexed, assert_ranking, brute_force, pairs
from tests.support import models


def test_a_model_whose_folder_changed_is_refused_with_both_hashes(
    es: Elasticsearch, alias: str, tmp_path: Path, query_cache: Path
) -> None:
    folder = models.symmetric(tmp_path / "model")
    Indexer(es, alias, profile=EncoderProfile(str(folder)), devices="cpu", dead_letters=tmp_path / "dead.jsonl").run(
        RECORDS
    )
    before = load_encoder(EncoderProfile(str(folder)), device="cpu").profile
    models.change_weight(folder)
    after = load_encoder(EncoderProfile(str(folder)), device="cpu").profile
    with pytest.raises(EncoderMismatchError) as error:
        Searcher(es, alias, query_cache=tmp_path / "empty").search(QUERIES[0])
    assert f"weights: {before.weights!r} expected, {after.weights!r} found" in str(error.value)
    assert str(folder) in str(error.value)
    assert not (tmp_path / "empty").exists(), "what does not match is not exported"
    # The exported tower is still the one of the index, whatever became of the folder.
    case = CASES["symmetric"]
    model = models.symmetric(tmp_path / "again")
    hits = Searcher(es, alias, query_cache=query_cache).search(QUERIES[0], k=DOCUMENTS)
    assert_ranking(pairs(hits), brute_force(case, model)[0])


def test_a_model_that_is_gone_is_named(es: Elasticsearch, alias: str, tmp_path: Path) -> None:
    folder = models.symmetric(tmp_path / "model")
    Indexer(es, alias, profile=EncoderProfile(str(folder)), devices="cpu", dead_letters=tmp_path / "dead.jsonl").run(
        RECORDS[:5]
    )
    shutil.rmtree(folder)
    with pytest.raises(Exception, match=f"no such folder: {folder}"):
        Searcher(es, alias, query_cache=tmp_path / "empty").search(QUERIES[0])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"query_prompt": "query: "}, "was changed by hand"),
        ({"weights": "0" * 64}, "was changed by hand"),
        ({"similarity": "dot"}, "was changed by hand"),
        ({"dims": "many"}, "cannot be read"),
        ({"temperature": 0.7}, "temperature, which this version"),
    ],
)
def test_a_passport_changed_by_hand_is_refused(
    change: dict[str, Any], said: str, indexed: Indexed, es: Elasticsearch, alias: str
) -> None:
    passport, field = indexed.facts("symmetric")
    meta = {"esvector": passport | {"encoder": passport["encoder"] | change}}
    es.indices.create(index=alias, mappings={"_meta": meta, "properties": {"vector": field}})
    with pytest.raises(ConfigError, match=said):
        Searcher(es, alias).search(QUERIES[0])


def test_probes_changed_by_hand_are_no_encoders(
    indexed: Indexed, es: Elasticsearch, alias: str, tmp_path: Path
) -> None:
    passport, field = indexed.facts("symmetric")
    for probes, kind, said in (
        (passport["probes"][::-1], EncoderMismatchError, "gives other vectors"),
        (["?", *passport["probes"][1:]], ConfigError, "probes of the passport cannot be read"),
        ([text[:8] for text in passport["probes"]], ConfigError, "do not have 32 dims"),
    ):
        meta = {"esvector": passport | {"probes": probes}}
        es.indices.create(index=alias, mappings={"_meta": meta, "properties": {"vector": field}})
        with pytest.raises(kind, match=said):
            Searcher(es, alias, query_cache=tmp_path / "empty").search(QUERIES[0])
        es.indices.delete(index=alias)
