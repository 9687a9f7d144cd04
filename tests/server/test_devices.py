"""A load on two devices (CPUs here), each in a process of its own, and with a backend chosen or named."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from elasticsearch import Elasticsearch

from esvector import EncoderProfile, Indexer, Searcher
from esvector.encode.loading import load_encoder
from esvector.encode.workers import ProcessEngine
from esvector.errors import ConfigError
from esvector.index import encoding
from tests.support import models
from tests.support.encoders import HashEncoder

RECORDS = [{"id": str(n), "text": text} for n, text in enumerate(models.words(400, 8))]


def neighbours(es: Elasticsearch, alias: str, folder: Path) -> None:
    """Each of some documents is its own nearest: its vector is that of its text, whatever came before or beside it."""
    encoder = load_encoder(EncoderProfile(str(folder)), device="cpu")
    some = RECORDS[::40]
    expected = encoder.encode_document([record["text"] for record in some])
    for record, vector in zip(some, expected, strict=True):
        body = {"query": {"ids": {"values": [record["id"]]}}, "_source": ["vector"]}
        found = es.search(index=alias, body=body)["hits"]["hits"]
        assert np.allclose(found[0]["_source"]["vector"], vector, atol=1e-5)


def test_two_devices_load_one_index(
    es: Elasticsearch, alias: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of the two processes is killed on the way: what it had in hand is encoded by its successor."""
    folder = models.prompted(tmp_path / "model")
    opened: list[ProcessEngine] = []
    plain = ProcessEngine.encode

    def kill_once(self: ProcessEngine, *args: object) -> object:
        if not opened:
            opened.append(self)
            child = self._child
            assert child is not None
            child.kill()
        return plain(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(ProcessEngine, "encode", kill_once)
    monkeypatch.setattr(encoding, "_GPU_WINDOW", 64)
    indexer = Indexer(
        es,
        alias,
        profile=EncoderProfile(str(folder)),
        devices=("cpu", "cpu"),
        dead_letters=tmp_path / "dead.jsonl",
    )
    report = indexer.run(RECORDS)
    assert (report.indexed, report.dead) == (400, 0)
    assert opened[0].restarts == 1
    assert next(stage.workers for stage in report.stages if stage.name == "encode") == 4, "two for each"
    neighbours(es, alias, folder)
    assert Searcher(es, alias).search(RECORDS[7]["text"], k=1)


def test_a_backend_is_named_in_the_passport(es: Elasticsearch, alias: str, tmp_path: Path) -> None:
    folder = models.symmetric(tmp_path / "model")
    report = Indexer(
        es, alias, profile=EncoderProfile(str(folder)), backend="onnx", dead_letters=tmp_path / "dead.jsonl"
    ).run(RECORDS)
    assert report.indexed == 400
    searcher = Searcher(es, alias)
    assert searcher.target.passport.encoder.backend == "onnx"
    neighbours(es, alias, folder)


def test_the_choice_of_a_backend_is_said(
    es: Elasticsearch, alias: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = models.symmetric(tmp_path / "model")
    with caplog.at_level(logging.INFO, "esvector"):
        Indexer(
            es, alias, profile=EncoderProfile(str(folder)), backend="auto", dead_letters=tmp_path / "dead.jsonl"
        ).run(RECORDS)
    chosen = Searcher(es, alias).target.passport.encoder.backend
    assert f"encoding by {chosen}" in caplog.messages
    assert sum("times the speed of torch" in message for message in caplog.messages) == 3


def test_backends_are_for_models_of_our_own(es: Elasticsearch, alias: str, tmp_path: Path) -> None:
    indexer = Indexer(es, alias, encoder=HashEncoder(), backend="onnx", dead_letters=tmp_path / "dead.jsonl")
    with pytest.raises(ConfigError, match="backend 'onnx' runs models of esvector's own, in float32 on one CPU"):
        indexer.run(RECORDS)
    assert not es.indices.get(index=f"{alias}*")
    left = Indexer(es, alias, encoder=HashEncoder(), backend="auto", dead_letters=tmp_path / "dead.jsonl")
    assert left.run(RECORDS).indexed == 400
