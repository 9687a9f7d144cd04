"""What a vector field keeps of a vector: scores near those of exact cosine on the real server, and refusals."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from elasticsearch import Elasticsearch
from numpy.typing import NDArray

from esvector import Indexer, Searcher
from esvector.cli import app
from esvector.client import Server
from esvector.encode.encoder import ModelEncoder
from esvector.encode.loading import load_encoder
from esvector.encode.profile import EncoderProfile
from esvector.errors import ConfigError
from esvector.mapping import build_index_body, load_template
from esvector.passport import Passport
from esvector.vectors import ElementType
from tests.support import models

TEXTS = models.words(80, seed=51)
RECORDS = [{"id": f"d{i}", "text": text, "year": 1990 + i % 30} for i, text in enumerate(TEXTS)]
QUERIES = ["which river runs through the old town", "apple", *models.words(8, seed=52)]
TOLERANCE: dict[ElementType, float] = {"float": 1e-5, "bfloat16": 1e-2, "byte": 1e-2}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> ModelEncoder:
    folder = models.symmetric(tmp_path_factory.mktemp("elements") / "model")
    return load_encoder(EncoderProfile(str(folder)), device="cpu")


@pytest.fixture(scope="module")
def dot(tmp_path_factory: pytest.TempPathFactory) -> ModelEncoder:
    folder = models.dot_trained(tmp_path_factory.mktemp("elements") / "dot")
    return load_encoder(EncoderProfile(str(folder)), device="cpu")


@pytest.fixture(scope="module")
def searchers(
    es: Elasticsearch, encoder: ModelEncoder, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[ElementType, Searcher]]:
    root = tmp_path_factory.mktemp("elements")
    found: dict[ElementType, Searcher] = {}
    for kind in TOLERANCE:
        alias = f"elements-{kind}"
        report = Indexer(
            es, alias, encoder=encoder, element_type=kind, dead_letters=root / "dead.jsonl", query_cache=root / "q"
        ).run(RECORDS)
        assert (report.indexed, report.dead) == (len(RECORDS), 0)
        found[kind] = Searcher(es, alias, query_cache=root / "q")
    yield found
    for index in es.indices.get(index="elements-*"):
        es.indices.delete(index=index)


def mapping_of(es: Elasticsearch, alias: str) -> dict[str, Any]:
    (found,) = es.indices.get_mapping(index=alias).values()
    mappings: dict[str, Any] = found["mappings"]
    return mappings


def assert_near(found: dict[str, float], best: str, exact: NDArray[np.float32], tolerance: float) -> None:
    """Every score within ``tolerance``; the first is the exact best, or as good as it within what was lost."""
    expected = {f"d{i}": float(score) for i, score in enumerate(exact) if f"d{i}" in found}
    assert found == pytest.approx(expected, abs=tolerance)
    assert expected[best] >= max(expected.values()) - 2 * tolerance


@pytest.mark.parametrize("kind", TOLERANCE)
def test_scores_are_near_those_of_exact_cosine(
    kind: ElementType, searchers: dict[ElementType, Searcher], encoder: ModelEncoder
) -> None:
    exact = encoder.encode_query(QUERIES) @ encoder.encode_document(TEXTS).T
    answers = searchers[kind].search(QUERIES, k=len(TEXTS), num_candidates=1000)
    for hits, row in zip(answers, exact, strict=True):
        assert len(hits) == len(TEXTS)
        assert_near({hit.id: hit.score for hit in hits}, hits[0].id, row, TOLERANCE[kind])
    worst = max(abs(hit.score - row[int(hit.id[1:])]) for hits, row in zip(answers, exact, strict=True) for hit in hits)
    assert kind == "float" or worst > 1e-5, "nothing was rounded"


@pytest.mark.parametrize("kind", TOLERANCE)
def test_a_document_finds_itself(kind: ElementType, searchers: dict[ElementType, Searcher]) -> None:
    long = [i for i, text in enumerate(TEXTS) if 5 < len(text.split()) < 40]
    answers = searchers[kind].search([TEXTS[i] for i in long], k=1)
    assert [hits[0].id for hits in answers] == [f"d{i}" for i in long]
    assert [hits[0].score for hits in answers] == pytest.approx([1.0] * len(long), abs=TOLERANCE[kind])


@pytest.mark.parametrize("kind", TOLERANCE)
def test_similar_documents(kind: ElementType, searchers: dict[ElementType, Searcher], encoder: ModelEncoder) -> None:
    documents = encoder.encode_document(TEXTS)
    for number in (3, 33):
        hits = searchers[kind].similar(f"d{number}", k=len(TEXTS), num_candidates=1000)
        found = {hit.id: hit.score for hit in hits}
        assert found.keys() == {record["id"] for record in RECORDS} - {f"d{number}"}
        assert_near(found, hits[0].id, documents @ documents[number], TOLERANCE[kind])
    filtered = searchers[kind].similar("d3", k=100, where="year = 2000")
    assert {hit.source["year"] for hit in filtered} == {2000}


@pytest.mark.parametrize("kind", TOLERANCE)
def test_the_mapping_and_the_passport_say_so(
    kind: ElementType, searchers: dict[ElementType, Searcher], es: Elasticsearch, encoder: ModelEncoder
) -> None:
    mappings = mapping_of(es, searchers[kind].alias)
    field, passport = mappings["properties"]["vector"], mappings["_meta"]["esvector"]
    assert field.get("element_type", "float") == passport["element_type"] == kind
    assert (field["dims"], field["similarity"]) == (models.DIMS, "cosine")
    assert passport["space_id"] == encoder.profile.space_id, "how a vector is kept is no part of the encoder"


def test_bytes_are_kept_as_bytes(searchers: dict[ElementType, Searcher], es: Elasticsearch) -> None:
    source = {"includes": ["vector"], "exclude_vectors": False}
    hits = es.search(index=searchers["byte"].alias, size=100, source=source)["hits"]["hits"]
    vectors = np.array([hit["_source"]["vector"] for hit in hits])
    assert np.array_equal(vectors, np.rint(vectors))
    assert (np.abs(vectors).max(axis=1) == 127).all()


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("dims", [1, 7, 32])
def test_bytes_of_any_length_arrive_as_they_are(
    packed: bool,
    dims: int,
    es: Elasticsearch,
    alias: str,
    encoder: ModelEncoder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As base64, and as lists for a server before 9.3."""
    monkeypatch.setattr("esvector.client.Server.takes_packed_vectors", packed)
    cut = load_encoder(EncoderProfile(encoder.profile.model, dims=dims), device="cpu")
    Indexer(es, alias, encoder=cut, element_type="byte", dead_letters=tmp_path / "dead.jsonl").run(RECORDS[:20])
    source = {"includes": ["vector"], "exclude_vectors": False}
    hits = es.search(index=alias, size=20, source=source)["hits"]["hits"]
    exact = {record["id"]: row for record, row in zip(RECORDS[:20], cut.encode_document(TEXTS[:20]), strict=True)}
    for hit in hits:
        expected = exact[hit["_id"]] * 127 / np.abs(exact[hit["_id"]]).max()
        assert np.abs(np.array(hit["_source"]["vector"]) - expected).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("kind", ["float", "bfloat16"])
def test_dot_products(kind: ElementType, es: Elasticsearch, alias: str, dot: ModelEncoder, tmp_path: Path) -> None:
    Indexer(es, alias, encoder=dot, element_type=kind, dead_letters=tmp_path / "dead.jsonl").run(RECORDS)
    exact = dot.encode_query(QUERIES) @ dot.encode_document(TEXTS).T
    answers = Searcher(es, alias, encoder=dot).search(QUERIES, k=len(TEXTS), num_candidates=1000)
    for hits, row in zip(answers, exact, strict=True):
        scale = float(np.abs(row).max())
        assert_near({hit.id: hit.score for hit in hits}, hits[0].id, row, TOLERANCE[kind] * scale)


# Refusals


def nothing_of(es: Elasticsearch, alias: str) -> bool:
    return not es.indices.get(index=f"{alias}*", expand_wildcards="all")


@pytest.mark.parametrize("by", ["option", "mapping"])
def test_a_dot_product_of_bytes_is_refused_before_anything_is_created(
    by: str, es: Elasticsearch, alias: str, dot: ModelEncoder, tmp_path: Path
) -> None:
    mapping = {"mappings": {"properties": {"vector": {"type": "dense_vector", "element_type": "byte"}}}}
    options: dict[str, Any] = {"element_type": "byte"} if by == "option" else {"mapping": mapping}
    with pytest.raises(ConfigError, match="bytes lose their length") as error:
        Indexer(es, alias, encoder=dot, dead_letters=tmp_path / "dead.jsonl", **options).run(RECORDS)
    assert "float or bfloat16" in error.value.remedy
    assert nothing_of(es, alias)


def test_bfloat16_is_refused_by_an_older_server(
    es: Elasticsearch, alias: str, encoder: ModelEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def body(version: tuple[int, int, int]) -> dict[str, Any]:
        passport = Passport(encoder.profile, ("text",), "vector", "0", element_type="bfloat16")
        return build_index_body(load_template(None), passport, Server(version))

    for version in ((8, 19, 0), (9, 2, 0)):
        with pytest.raises(ConfigError, match=r"Elasticsearch \d\.\d+\.0 has no bfloat16 vectors"):
            body(version)
    assert body((9, 3, 0))["mappings"]["properties"]["vector"]["element_type"] == "bfloat16"
    monkeypatch.setattr("esvector.index.indexer.describe_server", lambda _: Server((9, 2, 0)))
    with pytest.raises(ConfigError, match=r"Elasticsearch 9\.2\.0 has no bfloat16 vectors"):
        Indexer(es, alias, encoder=encoder, element_type="bfloat16", dead_letters=tmp_path / "dead.jsonl").run(RECORDS)
    assert nothing_of(es, alias)


def test_an_unknown_element_type_is_refused_at_once(es: Elasticsearch, encoder: ModelEncoder) -> None:
    with pytest.raises(ConfigError, match="'bit' is not known"):
        Indexer(es, "never", encoder=encoder, element_type="bit")  # type: ignore[arg-type]


def test_the_mapping_can_choose_and_the_option_wins(
    es: Elasticsearch, alias: str, encoder: ModelEncoder, tmp_path: Path
) -> None:
    mapping = {"mappings": {"properties": {"vector": {"type": "dense_vector", "element_type": "byte"}}}}
    options: Callable[..., Indexer] = lambda **more: Indexer(  # noqa: E731
        es, alias, encoder=encoder, mapping=mapping, dead_letters=tmp_path / "dead.jsonl", **more
    )
    options().run(RECORDS[:3])
    assert mapping_of(es, alias)["properties"]["vector"]["element_type"] == "byte"
    options(element_type="bfloat16").run(RECORDS[:3])
    assert mapping_of(es, alias)["properties"]["vector"]["element_type"] == "bfloat16"
    assert mapping_of(es, alias)["_meta"]["esvector"]["element_type"] == "bfloat16"


def test_the_command_line(
    server_url: str,
    es: Elasticsearch,
    alias: str,
    encoder: ModelEncoder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("some.jsonl").write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    model = ("--model", encoder.profile.model, "--devices", "cpu")

    def run(*args: str) -> Any:
        return CliRunner().invoke(app, args, env={"ESVECTOR_URL": server_url}, prog_name="esvector")

    made = run("index", "some.jsonl", "--into", alias, *model, "--element-type", "byte")
    assert made.exit_code == 0, made.output
    assert mapping_of(es, alias)["properties"]["vector"]["element_type"] == "byte"
    scores = encoder.encode_document(TEXTS) @ encoder.encode_query([QUERIES[0]])[0]
    hits = [json.loads(line) for line in run("search", alias, QUERIES[0], "-k", "5").stdout.splitlines()]
    assert [hit["score"] for hit in hits] == pytest.approx(np.sort(scores)[:-6:-1], abs=1e-2)
    similar = [json.loads(line) for line in run("similar", alias, hits[0]["id"], "-k", "3").stdout.splitlines()]
    assert hits[0]["id"] not in [hit["id"] for hit in similar]
    refused = run("index", "some.jsonl", "--into", alias, *model, "--element-type", "byte", "--similarity", "dot")
    assert refused.exit_code != 0
    assert "bytes lose their length" in refused.stderr
    assert list(es.indices.get(index=f"{alias}*")) == [f"{alias}-000001"]
    assert run("index", "some.jsonl", "--into", alias, *model, "--element-type", "bit").exit_code == 2
