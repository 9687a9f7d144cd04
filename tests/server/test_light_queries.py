"""Searching without torch: exported towers in new processes, damaged or missing ones, and many threads at once."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier, Lock
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from elasticsearch import Elasticsearch
from numpy.typing import NDArray

from esvector import Indexer, Searcher
from esvector.cli import app
from esvector.encode import query_cache as towers
from esvector.encode.encoder import ModelEncoder
from esvector.encode.loading import load_encoder
from esvector.encode.profile import EncoderProfile
from esvector.encode.query_cache import LightFiles
from esvector.errors import EncoderError
from tests.support import models
from tests.support.encoders import HashEncoder

Vectors = NDArray[np.float32]
TEXTS = models.words(30, seed=21)
RECORDS = [{"id": f"d{i}", "text": text} for i, text in enumerate(TEXTS)]
QUERIES = ["which river runs through the old town", "apple", " ".join(models.words(5, seed=22))]


def pair(folder: Path, document: str, query: str) -> EncoderProfile:
    return EncoderProfile(str(folder / document), query_model=str(folder / query))


PROFILES: dict[str, Callable[[Path], EncoderProfile]] = {
    "symmetric": lambda folder: EncoderProfile(str(models.symmetric(folder))),
    "prompted": lambda folder: EncoderProfile(str(models.prompted(folder))),
    "dual": lambda folder: pair(models.dual(folder), "document", "query"),
    "router": lambda folder: EncoderProfile(str(models.router(folder))),
    "dpr": lambda folder: pair(models.dpr_pair(folder), "context", "question"),
}


class Made:
    """An index of one kind, and what torch makes of the queries."""

    def __init__(self, es: Elasticsearch, name: str, root: Path) -> None:
        self.alias = f"light-{name}"
        self.encoder = load_encoder(PROFILES[name](root / name), device="cpu")
        self.profile = self.encoder.profile
        self.queries = root / "queries"
        Indexer(es, self.alias, encoder=self.encoder, dead_letters=root / "dead.jsonl", query_cache=self.queries).run(
            RECORDS
        )
        self.documents = self.encoder.encode_document(TEXTS)

    @property
    def files(self) -> LightFiles:
        found = towers.find(self.queries, self.profile.query_id)
        assert found is not None
        return found

    def best(self, query: str) -> str:
        return f"d{int(np.argmax(self.documents @ self.encoder.encode_query([query])[0]))}"


@pytest.fixture(scope="module")
def made(es: Elasticsearch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Made]]:
    root = tmp_path_factory.mktemp("light")
    yield {name: Made(es, name, root) for name in PROFILES}
    for index in es.indices.get(index="light-*"):
        es.indices.delete(index=index)


SEARCH = """
import json, sys
from esvector import Searcher
from esvector.client import connect
job = json.load(sys.stdin)
found = {}
with connect(job["url"], environ={}) as client:
    for alias in job["aliases"]:
        searcher = Searcher(client, alias, query_cache=job["queries"])
        hits = [[hit.id for hit in hits] for hits in searcher.search(job["texts"], k=1)]
        found[alias] = [hits, [searcher.request(text)["knn"]["query_vector"] for text in job["texts"]]]
heavy = sorted({"torch", "transformers", "sentence_transformers"} & sys.modules.keys())
json.dump({"found": found, "heavy": heavy}, sys.stdout)
"""


def test_a_new_process_searches_every_kind_without_torch(made: dict[str, Made], server_url: str) -> None:
    queries = next(iter(made.values())).queries
    job = {"url": server_url, "aliases": [it.alias for it in made.values()], "queries": str(queries), "texts": QUERIES}
    done = subprocess.run([sys.executable, "-c", SEARCH], input=json.dumps(job), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    answer = json.loads(done.stdout)
    assert answer["heavy"] == []
    for name, it in made.items():
        hits, vectors = answer["found"][it.alias]
        np.testing.assert_allclose(vectors, it.encoder.encode_query(QUERIES), atol=1e-5, err_msg=name)
        assert hits == [[it.best(query)] for query in QUERIES], name


def test_indexing_leaves_the_tower_in_the_cache(made: dict[str, Made]) -> None:
    assert {name: it.files.facts.kind for name, it in made.items()} == {
        "symmetric": "onnx", "prompted": "onnx", "dual": "onnx", "router": "static", "dpr": "onnx",
    }  # fmt: skip
    assert all(towers.is_intact(it.files) for it in made.values())


def test_the_cache_of_the_user_is_the_default_on_both_sides(es: Elasticsearch, alias: str, query_cache: Path) -> None:
    """The folder of the test session stands in for it."""
    shutil.rmtree(query_cache, ignore_errors=True)
    profile = EncoderProfile(str(models.router(query_cache.parent / "model")))
    Indexer(es, alias, profile=profile, devices="cpu", dead_letters=query_cache.parent / "dead.jsonl").run(RECORDS)
    (entry,) = query_cache.iterdir()
    shutil.rmtree(profile.model)
    assert len(Searcher(es, alias).search("apple", k=3)) == 3
    shutil.rmtree(entry)
    with pytest.raises(EncoderError, match="no such folder"):
        Searcher(es, alias).search("apple")


# Damage


def truncated_graph(it: Made, files: LightFiles) -> None:
    files.tower.write_bytes(files.tower.read_bytes()[:1000])


def garbage_tokenizer(it: Made, files: LightFiles) -> None:
    files.tokenizer.write_bytes(b"?" * files.tokenizer.stat().st_size)


def graph_of_another_model(other: Made, files: LightFiles) -> None:
    """Under this query_id, with a manifest that agrees."""
    shutil.copy(other.files.tower, files.tower)
    (files.folder / "manifest.json").unlink()
    towers._seal(files.folder, files.facts)


@pytest.mark.parametrize("damage", [truncated_graph, garbage_tokenizer, graph_of_another_model])
def test_a_damaged_cache_is_made_anew_and_finds_the_right_documents(
    damage: Callable[[Made, LightFiles], None], made: dict[str, Made], es: Elasticsearch, tmp_path: Path
) -> None:
    it = made["symmetric"]
    cache = Path(shutil.copytree(it.queries, tmp_path / "queries"))
    files = towers.find(cache, it.profile.query_id)
    assert files is not None
    damage(made["dual"], files)
    searcher = Searcher(es, it.alias, query_cache=cache)
    assert [hits[0].id for hits in searcher.search(QUERIES, k=1)] == [it.best(query) for query in QUERIES]
    mended = towers.find(cache, it.profile.query_id)
    assert mended is not None
    assert towers.is_intact(mended)
    assert mended.tower.stat().st_size == it.files.tower.stat().st_size


def test_a_cache_that_cannot_be_written_leaves_torch_and_says_so(
    made: dict[str, Made], es: Elasticsearch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    it = made["symmetric"]
    (cache := tmp_path / "queries").touch()
    searcher = Searcher(es, it.alias, query_cache=cache)
    assert [hits[0].id for hits in searcher.search(QUERIES, k=1)] == [it.best(query) for query in QUERIES]
    assert "are encoded by torch, which starts slowly" in caplog.text


def test_a_run_whose_cache_cannot_be_written_is_no_failure(
    made: dict[str, Made], es: Elasticsearch, alias: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    it = made["router"]
    (cache := tmp_path / "queries").touch()
    report = Indexer(es, alias, encoder=it.encoder, dead_letters=tmp_path / "dead.jsonl", query_cache=cache).run(
        RECORDS
    )
    assert report.indexed == len(RECORDS)
    assert f"searching {it.profile.model} will load torch" in caplog.text


def test_a_tower_that_cannot_be_exported_is_searched_with_torch(
    made: dict[str, Made],
    es: Elasticsearch,
    alias: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_export(*_: Any, **__: Any) -> None:
        raise EncoderError("no graph for this model")

    monkeypatch.setattr("esvector.encode.export.export_onnx", no_export)
    it, cache = made["prompted"], tmp_path / "queries"
    Indexer(es, alias, encoder=it.encoder, dead_letters=tmp_path / "dead.jsonl", query_cache=cache).run(RECORDS)
    assert "will load torch, which starts slowly: no graph for this model" in caplog.text
    caplog.clear()
    searcher = Searcher(es, alias, query_cache=cache)
    assert [hits[0].id for hits in searcher.search(QUERIES, k=1)] == [it.best(query) for query in QUERIES]
    assert "are encoded by torch, which starts slowly: no graph for this model" in caplog.text


# The command line


def cold(server_url: str, *args: str, flags: Sequence[str] = ()) -> tuple[dict[str, Any], str]:
    """The first hit that a new process prints, and what it says beside."""
    command = [sys.executable, *flags, "-m", "esvector", "search", *args, "--url", server_url]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[0]), done.stderr


def test_a_cold_search_with_the_packaged_model_answers_in_two_seconds(
    server_url: str, alias: str, tmp_path: Path
) -> None:
    (source := tmp_path / "some.jsonl").write_text(
        '{"id": "cat", "text": "A cat sleeps on the sofa."}\n{"id": "car", "text": "An electric car charges."}\n'
    )
    queries, dead = str(tmp_path / "queries"), str(tmp_path / "dead.jsonl")
    arguments = ["index", str(source), "--into", alias, "--model", "all-MiniLM-L6-v2", "--devices", "cpu"]
    result = CliRunner().invoke(
        app, [*arguments, "--query-cache", queries, "--dead-letters", dead], env={"ESVECTOR_URL": server_url}
    )
    assert result.exit_code == 0, result.output
    assert any(Path(queries).rglob("model.onnx"))

    search = (server_url, alias, "a pet that naps on furniture", "--query-cache", queries)
    hit, said = cold(*search, flags=("-X", "importtime"))
    imported = {line.rpartition("|")[2].strip() for line in said.splitlines()}
    assert hit["id"] == "cat"
    assert "esvector.search.searcher" in imported
    assert not imported & {"torch", "transformers", "sentence_transformers"}

    seconds, worked = [], []
    for _ in range(3):  # the best of three: others may have the cores
        before, started = processor_seconds(), time.perf_counter()
        assert cold(*search) == (hit, "")
        seconds.append(time.perf_counter() - started)
        worked.append(processor_seconds() - before)
        if seconds[-1] < 2:
            break
    busy = os.getloadavg()[0] > (os.cpu_count() or 1)
    assert min(seconds) < 2 or (busy and min(worked) < 3), (seconds, worked)


def processor_seconds() -> float:
    """What all processes that this one started, and that have ended, have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


# Many at once


def test_each_of_32_threads_gets_its_own_answer(made: dict[str, Made], es: Elasticsearch) -> None:
    it = made["symmetric"]
    searcher = Searcher(es, it.alias, query_cache=it.queries)
    queries = models.words(32 * 4, seed=33)
    expected = {
        query: f"d{int(best)}"
        for query, best in zip(queries, np.argmax(it.encoder.encode_query(queries) @ it.documents.T, 1), strict=True)
    }
    together = Barrier(32)

    def ask(number: int) -> list[str]:
        together.wait()
        return [searcher.search(query, k=1)[0].id for query in queries[number::32]]

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(ask, range(32)))
    for number, answer in enumerate(answers):
        assert answer == [expected[query] for query in queries[number::32]]


class Counting(HashEncoder):
    """Counts calls and texts of queries, and how many threads are in it at once."""

    def __init__(self) -> None:
        super().__init__(32)
        self.texts: list[str] = []
        self.calls = self.inside = self.most_inside = 0
        self._lock = Lock()

    def encode_query(self, texts: Sequence[str]) -> Vectors:
        with self._lock:
            self.calls += 1
            self.inside += 1
            self.most_inside = max(self.most_inside, self.inside)
            self.texts += texts
        vectors = super().encode_query(texts)
        with self._lock:
            self.inside -= 1
        return vectors


def test_a_query_is_encoded_once_whoever_asks_and_one_thread_is_in_an_encoder(
    es: Elasticsearch, alias: str, tmp_path: Path
) -> None:
    Indexer(es, alias, encoder=HashEncoder(32), dead_letters=tmp_path / "dead.jsonl").run(RECORDS)
    encoder = Counting()
    searcher = Searcher(es, alias, encoder=encoder)
    assert searcher.search(TEXTS[0], k=1)[0].id == "d0"
    probes = len(encoder.texts) - 1
    together = Barrier(32)

    def ask(number: int) -> list[str]:
        together.wait()
        return [searcher.search(TEXTS[(number + n) % len(TEXTS)], k=1)[0].id for n in range(4)]

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(ask, range(32)))
    assert answers == [[f"d{(number + n) % len(TEXTS)}" for n in range(4)] for number in range(32)]
    assert encoder.most_inside == 1
    assert set(TEXTS) <= set(encoder.texts)
    calls = encoder.calls
    assert calls - 1 <= len(encoder.texts) - probes < 32 * 4
    for _ in range(3):
        assert [hits[0].id for hits in searcher.search(TEXTS, k=1)] == [f"d{n}" for n in range(len(TEXTS))]
    assert encoder.calls == calls, "all of them are remembered"


def test_a_searcher_of_another_version_opens_its_encoder_anew(es: Elasticsearch, alias: str, tmp_path: Path) -> None:
    """A new version by another model: the next search is encoded by that one."""
    first = load_encoder(EncoderProfile(str(models.symmetric(tmp_path / "first"))), device="cpu")
    second = load_encoder(EncoderProfile(str(models.router(tmp_path / "second"))), device="cpu")
    cache, dead = tmp_path / "queries", tmp_path / "dead.jsonl"
    searcher = Searcher(es, alias, query_cache=cache)
    for encoder in (first, second, first):
        assert isinstance(encoder, ModelEncoder)
        Indexer(es, alias, encoder=encoder, dead_letters=dead, query_cache=cache).run(RECORDS)
        scores = encoder.encode_document(TEXTS) @ encoder.encode_query([QUERIES[0]])[0]
        hit = searcher.search(QUERIES[0], k=1)[0]
        assert hit.id == f"d{scores.argmax()}"
        assert hit.score == pytest.approx(scores.max(), abs=1e-5)


def test_the_device_of_queries_is_no_part_of_the_match(made: dict[str, Made], es: Elasticsearch) -> None:
    it = made["symmetric"]
    on_cpu = Searcher(es, it.alias, device="cpu", query_cache=it.queries).search(QUERIES, k=5)
    half = load_encoder(replace(it.profile, dtype="bfloat16"), device="cpu")
    for ours, theirs in zip(on_cpu, Searcher(es, it.alias, encoder=half).search(QUERIES, k=5), strict=True):
        assert [hit.score for hit in ours] == pytest.approx([hit.score for hit in theirs], abs=2e-2)
