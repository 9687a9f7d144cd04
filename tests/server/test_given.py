"""Vectors that documents bring along: checked against the model, taken as they are, or refused with a reason."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from elasticsearch import Elasticsearch
from numpy.typing import NDArray

from esvector import Indexer, Searcher, read_documents
from esvector.cli import app
from esvector.cli.app import EXIT_REJECTED
from esvector.encode.encoder import ModelEncoder
from esvector.encode.loading import load_encoder
from esvector.encode.profile import EncoderProfile
from esvector.errors import ConfigError, EncoderError, EncoderMismatchError, IndexingError
from esvector.types import IndexReport
from tests.support import models
from tests.support.encoders import HashEncoder

Vectors = NDArray[np.float32]
Records = list[dict[str, Any]]
Index = Callable[..., IndexReport]

TEXTS = models.words(40, seed=41)
QUERY = "which river runs through the old town"
SERVICE = "some-service/its-model"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> ModelEncoder:
    """A model with prompts."""
    folder = models.prompted(tmp_path_factory.mktemp("given") / "model")
    return load_encoder(EncoderProfile(str(folder)), device="cpu")


@pytest.fixture(scope="module")
def vectors(encoder: ModelEncoder) -> Vectors:
    return encoder.encode_document(TEXTS)


@pytest.fixture
def dead(tmp_path: Path) -> Path:
    return tmp_path / "dead.jsonl"


@pytest.fixture
def index(es: Elasticsearch, alias: str, dead: Path, encoder: ModelEncoder) -> Index:
    def run(documents: Any, profile: EncoderProfile | None = None, **options: Any) -> IndexReport:
        if "encoder" not in options:
            options["profile"] = profile or EncoderProfile(encoder.profile.model)
        return Indexer(es, alias, given="embedding", dead_letters=dead, **options).run(documents)

    return run


def bringing(vectors: Any, texts: list[str] = TEXTS) -> Records:
    return [
        {"id": f"d{i}", "text": text, "embedding": vector}
        for i, (text, vector) in enumerate(zip(texts, vectors, strict=True))
    ]


def letters(dead: Path) -> dict[str, dict[str, Any]]:
    """Dead letters by id."""
    return {letter["id"]: letter for letter in map(json.loads, dead.read_text().splitlines())}


def assert_found(searcher: Searcher, encoder: ModelEncoder, vectors: Vectors) -> None:
    scores = vectors @ encoder.encode_query([QUERY])[0]
    hits = searcher.search(QUERY, k=len(vectors), num_candidates=500)
    assert {hit.id: hit.score for hit in hits} == pytest.approx(
        {f"d{i}": float(score) for i, score in enumerate(scores)}, abs=1e-5
    )


def nothing_of(es: Elasticsearch, alias: str) -> bool:
    return not es.indices.get(index=f"{alias}*", expand_wildcards="all")


# Good ones


def as_lists(vectors: Vectors) -> Any:
    return vectors.tolist()


def as_arrays(vectors: Vectors) -> Any:
    return list(vectors)


def as_tuples(vectors: Vectors) -> Any:
    return [tuple(vector) for vector in vectors.tolist()]


def as_numbers(vectors: Vectors) -> Any:
    return [list(vector) for vector in vectors]


def in_half_precision(vectors: Vectors) -> Any:
    return vectors.astype(np.float16).astype(np.float32).tolist()


def of_any_length(vectors: Vectors) -> Any:
    return (vectors * np.linspace(0.1, 9, len(vectors), dtype=np.float32)[:, None]).tolist()


@pytest.mark.parametrize("form", [as_lists, as_arrays, as_tuples, as_numbers, of_any_length])
def test_given_vectors_are_searched_with_the_model_they_are_of(
    form: Callable[[Vectors], Any],
    index: Index,
    es: Elasticsearch,
    alias: str,
    encoder: ModelEncoder,
    vectors: Vectors,
    caplog: pytest.LogCaptureFixture,
) -> None:
    report = index(bringing(form(vectors)))
    assert (report.indexed, report.dead, report.tokens, report.truncated) == (len(TEXTS), 0, 0, 0)
    assert_found(Searcher(es, alias), encoder, vectors)
    assert not caplog.records
    (found,) = es.indices.get_mapping(index=alias).values()
    assert "embedding" not in found["mappings"]["properties"]
    assert found["mappings"]["_meta"]["esvector"]["space_id"] == encoder.profile.space_id


def test_vectors_rounded_on_their_way_are_accepted(
    index: Index, es: Elasticsearch, alias: str, encoder: ModelEncoder, vectors: Vectors
) -> None:
    index(bringing(in_half_precision(vectors)))
    hits = Searcher(es, alias).search(QUERY, k=3)
    scores = vectors @ encoder.encode_query([QUERY])[0]
    assert hits[0].score == pytest.approx(scores.max(), abs=1e-2)


def test_vectors_are_stored_at_unit_length_for_a_cosine(
    index: Index, es: Elasticsearch, alias: str, vectors: Vectors
) -> None:
    index(bringing(of_any_length(vectors)))
    stored = es.search(index=alias, size=100, source={"includes": ["vector"], "exclude_vectors": False})["hits"]["hits"]
    assert {hit["_id"]: hit["_source"]["vector"] for hit in stored} == {
        f"d{i}": pytest.approx(vector, abs=1e-6) for i, vector in enumerate(vectors.tolist())
    }


def test_vectors_for_a_dot_product_keep_their_length(
    index: Index, es: Elasticsearch, alias: str, tmp_path: Path
) -> None:
    dot = load_encoder(EncoderProfile(str(models.dot_trained(tmp_path / "dot"))), device="cpu")
    vectors = dot.encode_document(TEXTS)
    index(bringing(vectors.tolist()), dot.profile)
    scores = vectors @ dot.encode_query([QUERY])[0]
    found = {hit.id: hit.score for hit in Searcher(es, alias).search(QUERY, k=len(TEXTS), num_candidates=500)}
    expected = {f"d{i}": float(score) for i, score in enumerate(scores)}
    assert found == pytest.approx(expected, abs=1e-5 * float(np.abs(scores).max()))
    with pytest.raises(EncoderMismatchError, match="the documents' vectors are not those of"):
        index(bringing((vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).tolist()), dot.profile)


def test_an_encoder_of_ones_own_checks_and_searches(index: Index, es: Elasticsearch, alias: str) -> None:
    own = HashEncoder(32)
    index(bringing(own.encode_document(TEXTS).tolist()), encoder=own)
    assert Searcher(es, alias, encoder=own).search(TEXTS[7], k=1)[0].id == "d7"
    with pytest.raises(EncoderMismatchError, match="not those of hash-32"):
        index(bringing(HashEncoder(32, "other").encode_document(TEXTS).tolist()), encoder=own)


def test_a_document_may_be_a_vector_alone(
    index: Index, es: Elasticsearch, alias: str, vectors: Vectors, caplog: pytest.LogCaptureFixture
) -> None:
    records = [{"id": f"d{i}", "year": 2000 + i, "embedding": vector} for i, vector in enumerate(vectors.tolist())]
    report = index(records)
    assert (report.indexed, report.dead) == (len(TEXTS), 0)
    assert "unchecked: none that fits has a text beside it" in caplog.text
    assert Searcher(es, alias).similar("d3", k=1, where="year >= 2010")[0].source["year"] >= 2010


# Bad ones


def test_bad_vectors_are_dead_letters_with_reasons_and_places(
    index: Index, es: Elasticsearch, alias: str, dead: Path, encoder: ModelEncoder, vectors: Vectors, tmp_path: Path
) -> None:
    good = vectors.tolist()
    records = bringing(good)
    records[1]["embedding"] = good[1][:31]
    records[2]["embedding"] = [*good[2], 0.5]
    records[3].pop("embedding")
    records[4]["embedding"] = None
    records[5]["embedding"] = [float("nan"), *good[5][1:]]
    records[6]["embedding"] = [float("inf"), *good[6][1:]]
    records[7]["embedding"] = [0] * 32
    records[8]["embedding"] = "0.1 0.2 0.3"
    records[9]["embedding"] = ["0.1"] * 32
    records[10]["embedding"] = [True] * 32
    records[11]["embedding"] = [1e60] * 32
    records[12]["embedding"] = []
    records[13]["embedding"] = [good[13]]
    records[14]["vector"] = good[14]
    records[15]["embedding"] = [1e-60] * 32
    report = index(records)
    assert (report.read, report.indexed, report.dead) == (40, 25, 15)
    assert report.adds_up
    found = letters(dead)
    reasons = {id_: letter["reason"] for id_, letter in found.items()}
    assert reasons == {
        "d1": "the document has a vector of 31 dims, and the index wants 32 dims",
        "d2": "the document has a vector of 33 dims, and the index wants 32 dims",
        "d3": "field 'embedding' is absent, and holds the vector",
        "d4": "field 'embedding' is absent, and holds the vector",
        "d5": "field 'embedding[0]' is nan, which JSON has no word for",
        "d6": "field 'embedding[0]' is inf, which JSON has no word for",
        "d7": "the document has a zero vector, which cosine cannot compare",
        "d8": "field 'embedding' is no list of numbers, and holds the vector",
        "d9": "field 'embedding' is no list of numbers, and holds the vector",
        "d10": "field 'embedding' is no list of numbers, and holds the vector",
        "d11": "field 'embedding' has numbers that no float32 holds",
        "d12": "the document has a vector of 0 dims, and the index wants 32 dims",
        "d13": "field 'embedding' is no list of numbers, and holds the vector",
        "d14": "field 'vector' is where the vector goes; rename it, or choose another with --vector-field",
        "d15": "the document has a zero vector, which cosine cannot compare",
    }
    assert {id_: letter["place"] for id_, letter in found.items()} == {
        id_: f"record {int(id_[1:]) + 1}" for id_ in found
    }
    kept = [i for i in range(40) if f"d{i}" not in found]
    scores = vectors @ encoder.encode_query([QUERY])[0]
    hits = Searcher(es, alias).search(QUERY, k=40, num_candidates=500)
    assert {hit.id: hit.score for hit in hits} == pytest.approx({f"d{i}": float(scores[i]) for i in kept}, abs=1e-5)


def test_a_zero_vector_has_a_dot_product(index: Index, es: Elasticsearch, alias: str, tmp_path: Path) -> None:
    dot = load_encoder(EncoderProfile(str(models.dot_trained(tmp_path / "dot"))), device="cpu")
    given = dot.encode_document(TEXTS).tolist()
    given[5] = [0.0] * 32
    report = index(bringing(given), dot.profile)
    assert report.dead == 0
    scores = {hit.id: hit.score for hit in Searcher(es, alias).search(QUERY, k=40, num_candidates=500)}
    assert scores["d5"] == pytest.approx(0, abs=1e-6)


def test_vectors_all_of_another_length_end_the_run(
    index: Index, es: Elasticsearch, alias: str, vectors: Vectors
) -> None:
    with pytest.raises(IndexingError, match="a vector of 24 dims, and the index wants 32 dims"):
        index(bringing(vectors[:, :24].tolist()))
    assert nothing_of(es, alias)


@pytest.mark.parametrize("wrong", ["another model", "a forgotten prompt", "the query's prompt", "rows that slipped"])
def test_vectors_of_another_making_are_refused_before_anything_is_created(
    wrong: str,
    index: Index,
    es: Elasticsearch,
    alias: str,
    encoder: ModelEncoder,
    vectors: Vectors,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if wrong == "another model":
        other = load_encoder(EncoderProfile(str(models.prompted(tmp_path / "other", seed=1))), device="cpu")
        given = other.encode_document(TEXTS)
    elif wrong == "a forgotten prompt":
        bare = EncoderProfile(encoder.profile.model, document_prompt="")
        given = load_encoder(bare, device="cpu").encode_document(TEXTS)
    elif wrong == "the query's prompt":
        given = encoder.encode_query(TEXTS)
    else:
        given = np.roll(vectors, 1, axis=0)
    monkeypatch.setattr("esvector.index.run.create_version", lambda *_: pytest.fail("an index was created"))
    with pytest.raises(EncoderMismatchError) as error:
        index(bringing(given.tolist()))
    assert f"the documents' vectors are not those of {encoder.profile.model}: of 16 compared" in error.value.message
    assert "the farthest is d" in error.value.message
    assert "--document-prompt" in error.value.remedy
    assert nothing_of(es, alias)


def test_a_refused_run_leaves_what_readers_see(index: Index, es: Elasticsearch, alias: str, vectors: Vectors) -> None:
    index(bringing(vectors.tolist()))
    with pytest.raises(EncoderMismatchError):
        index(bringing(np.roll(vectors, 1, axis=0).tolist()))
    assert list(es.indices.get_alias(name=alias)) == [f"{alias}-000001"]
    assert list(es.indices.get(index=f"{alias}*")) == [f"{alias}-000001"]


def test_settings_of_the_vectors_can_be_stated(
    index: Index, es: Elasticsearch, alias: str, encoder: ModelEncoder, vectors: Vectors
) -> None:
    """Vectors made without a prompt are good where that is said, and are searched so."""
    stated = EncoderProfile(encoder.profile.model, document_prompt="", max_length=20, dims=16)
    made = load_encoder(stated, device="cpu")
    given = made.encode_document(TEXTS)
    index(bringing(given.tolist()), stated)
    assert_found(Searcher(es, alias), made, given)
    with pytest.raises(EncoderMismatchError, match="document_prompt"):
        Searcher(es, alias, encoder=encoder).search(QUERY)


# A model that is not at hand


def test_a_model_that_is_not_at_hand_is_taken_at_its_word_and_searched_with_what_is_brought(
    index: Index,
    es: Elasticsearch,
    alias: str,
    encoder: ModelEncoder,
    vectors: Vectors,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    absent(monkeypatch)
    index(bringing(of_any_length(vectors)), EncoderProfile(SERVICE, kind="given", dims=32, similarity="cosine"))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"taken as {SERVICE}'s unchecked: it is not at hand" in record.getMessage()
    with pytest.raises(EncoderError, match=f"does not say how {SERVICE} encodes queries") as error:
        Searcher(es, alias).search(QUERY)
    assert "encoder=" in error.value.remedy
    assert Searcher(es, alias).similar("d3", k=1)
    assert_found(Searcher(es, alias, encoder=encoder), encoder, vectors)
    with pytest.raises(EncoderMismatchError, match="dims: 32 expected, 64 found"):
        Searcher(es, alias, encoder=HashEncoder(64)).search(QUERY)


def test_what_is_stated_of_a_model_that_is_not_at_hand_binds(
    index: Index,
    es: Elasticsearch,
    alias: str,
    encoder: ModelEncoder,
    vectors: Vectors,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    absent(monkeypatch)
    stated = EncoderProfile(SERVICE, kind="given", dims=32, similarity="cosine", query_prompt="Query: ")
    index(bringing(vectors.tolist()), stated)
    with pytest.raises(EncoderMismatchError, match="query_prompt: 'Query: ' expected, 'query: ' found"):
        Searcher(es, alias, encoder=encoder).search(QUERY)


@pytest.mark.parametrize("stated", [{}, {"dims": 32}, {"similarity": "cosine"}])
def test_a_model_that_is_not_at_hand_must_be_described(
    stated: dict[str, Any],
    index: Index,
    es: Elasticsearch,
    alias: str,
    vectors: Vectors,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    absent(monkeypatch)
    with pytest.raises(EncoderError, match=f"cannot get the model {SERVICE}") as error:
        index(bringing(vectors.tolist()), EncoderProfile(SERVICE, **stated))
    assert "--dims and --similarity" in error.value.remedy
    assert nothing_of(es, alias)


def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub has no such model, or cannot be reached."""

    def fail(*_: Any, **__: Any) -> str:
        raise OSError("no route to the hub")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)


def test_bytes_of_given_vectors(
    index: Index, es: Elasticsearch, alias: str, encoder: ModelEncoder, vectors: Vectors
) -> None:
    index(bringing(vectors.tolist()), element_type="byte")
    scores = vectors @ encoder.encode_query([QUERY])[0]
    hits = Searcher(es, alias).search(QUERY, k=40, num_candidates=500)
    assert {hit.id: hit.score for hit in hits} == pytest.approx(
        {f"d{i}": float(score) for i, score in enumerate(scores)}, abs=1e-2
    )


def test_a_dot_product_in_bytes_is_refused(index: Index, es: Elasticsearch, alias: str, vectors: Vectors) -> None:
    with pytest.raises(ConfigError, match="bytes lose their length"):
        index(bringing(vectors.tolist()), EncoderProfile(SERVICE, dims=32, similarity="dot"), element_type="byte")
    assert nothing_of(es, alias)


# Files and the command line


@pytest.fixture
def run(server_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.chdir(tmp_path)

    def run(*args: str) -> Result:
        result = CliRunner().invoke(app, args, env={"ESVECTOR_URL": server_url}, prog_name="esvector")
        assert "Traceback" not in result.output
        return result

    return run


def written(path: Path, records: Records) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def test_from_json_lines_by_the_command_line(
    run: Callable[..., Result], es: Elasticsearch, alias: str, encoder: ModelEncoder, vectors: Vectors, tmp_path: Path
) -> None:
    records = bringing(vectors.tolist())
    records[4]["embedding"] = records[4]["embedding"][:5]
    source = written(tmp_path / "some.jsonl", records)
    with Path(source).open("a") as file:
        file.write('{"id": "nan", "text": "x", "embedding": [NaN, 1]}\n')
    result = run("index", source, "--into", alias, "--model", encoder.profile.model, "--given", "embedding")
    assert result.exit_code == EXIT_REJECTED, result.output
    report = json.loads(result.stdout)
    assert (report["read"], report["indexed"], report["dead"], report["tokens"]) == (41, 39, 2, 0)
    found = [json.loads(line) for line in (tmp_path / f"{alias}.dead.jsonl").read_text().splitlines()]
    assert [letter["place"].rpartition(":")[2] for letter in found] == ["5", "41"]
    hits = [json.loads(line) for line in run("search", alias, QUERY, "-k", "1").stdout.splitlines()]
    scores = vectors @ encoder.encode_query([QUERY])[0]
    scores[4] = -1
    assert (hits[0]["id"], hits[0]["score"]) == (f"d{scores.argmax()}", pytest.approx(scores.max(), abs=1e-5))


def test_the_command_line_refuses_vectors_of_another_making(
    run: Callable[..., Result], es: Elasticsearch, alias: str, encoder: ModelEncoder, vectors: Vectors, tmp_path: Path
) -> None:
    source = written(tmp_path / "some.jsonl", bringing(np.roll(vectors, 1, axis=0).tolist()))
    result = run("index", source, "--into", alias, "--model", encoder.profile.model, "--given", "embedding")
    assert result.exit_code != 0
    assert "the documents' vectors are not those of" in result.stderr
    assert f"{source}:" in result.stderr
    assert nothing_of(es, alias)


def test_the_command_line_takes_a_service_at_its_word(
    run: Callable[..., Result],
    es: Elasticsearch,
    alias: str,
    encoder: ModelEncoder,
    vectors: Vectors,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    absent(monkeypatch)
    source = written(tmp_path / "some.jsonl", bringing(vectors.tolist()))
    arguments = ("index", source, "--into", alias, "--model", SERVICE, "--given", "embedding")
    refused = run(*arguments)
    assert refused.exit_code != 0
    assert "--dims and --similarity" in refused.stderr
    result = run(*arguments, "--dims", "32", "--similarity", "cosine")
    assert result.exit_code == 0, result.output
    assert "unchecked" in result.stderr
    searched = run("search", alias, QUERY)
    assert searched.exit_code != 0
    assert f"does not say how {SERVICE} encodes queries" in searched.stderr
    assert_found(Searcher(es, alias, encoder=encoder), encoder, vectors)


def test_parquet_brings_vectors_too(
    index: Index, es: Elasticsearch, alias: str, encoder: ModelEncoder, vectors: Vectors, tmp_path: Path
) -> None:
    import pyarrow
    from pyarrow import parquet

    ids, lists = [f"d{i}" for i in range(len(TEXTS))], vectors.tolist()
    kind = pyarrow.list_(pyarrow.float32(), 32)
    table = pyarrow.table({"id": ids, "text": TEXTS, "embedding": pyarrow.array(lists, kind)})
    parquet.write_table(table, tmp_path / "some.parquet")
    report = index(read_documents(str(tmp_path / "some.parquet")))
    assert (report.indexed, report.dead) == (len(TEXTS), 0)
    assert_found(Searcher(es, alias), encoder, vectors)
