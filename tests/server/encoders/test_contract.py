"""One contract for every kind of encoder, on a real Elasticsearch: found by the alias alone, ranked as by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from elasticsearch import Elasticsearch

from esvector import Indexer
from esvector.encode.probes import PROBES
from esvector.encode.profile import EncoderProfile
from tests.server.encoders.cases import CASES, DOCUMENTS, QUERIES, RECORDS, Indexed, assert_ranking, reference

SEARCH = """
import json, sys
from esvector import Searcher
from esvector.client import connect
job = json.load(sys.stdin)
answers = {}
with connect(job["url"], environ={}) as client:
    for alias in job["aliases"]:
        found = Searcher(client, alias, query_cache=job["queries"]).search(job["texts"], k=job["k"], num_candidates=500)
        answers[alias] = [[(hit.id, hit.score) for hit in hits] for hits in found]
heavy = sorted({"torch", "transformers", "sentence_transformers"} & sys.modules.keys())
json.dump({"answers": answers, "heavy": heavy}, sys.stdout)
"""


def in_a_new_process(url: str, aliases: Sequence[str], queries: Path) -> tuple[dict[str, Any], list[str], str]:
    """The answers by alias, which of the heavy packages were imported, and what was said."""
    job = {"url": url, "aliases": list(aliases), "queries": str(queries), "texts": QUERIES, "k": DOCUMENTS}
    done = subprocess.run([sys.executable, "-c", SEARCH], input=json.dumps(job), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return found["answers"], found["heavy"], done.stderr


@pytest.fixture(scope="module")
def light(indexed: Indexed, server_url: str) -> dict[str, Any]:
    """What a new process answers with the towers that indexing exported."""
    answers, heavy, said = in_a_new_process(server_url, [indexed.alias(name) for name in CASES], indexed.queries)
    assert heavy == []
    assert said == ""
    return answers


@pytest.fixture(scope="module")
def loaded(indexed: Indexed, server_url: str) -> dict[str, Any]:
    """The same with the models themselves, where the folder of exported towers cannot be one."""
    (no_folder := indexed.root / "no-folder").touch()
    answers, heavy, said = in_a_new_process(server_url, [indexed.alias(name) for name in CASES], no_folder)
    assert "torch" in heavy
    assert said.count("are encoded by torch, which starts slowly") == len(CASES)
    return answers


@pytest.mark.parametrize("name", CASES)
def test_a_new_process_ranks_as_brute_force_by_the_alias_alone(
    name: str, indexed: Indexed, light: dict[str, Any]
) -> None:
    for hits, expected in zip(light[indexed.alias(name)], indexed.expected(name), strict=True):
        assert_ranking(hits, expected)


@pytest.mark.parametrize("name", CASES)
def test_so_does_one_that_has_to_load_the_model(name: str, indexed: Indexed, loaded: dict[str, Any]) -> None:
    for hits, expected in zip(loaded[indexed.alias(name)], indexed.expected(name), strict=True):
        assert_ranking(hits, expected)


@pytest.mark.parametrize("name", CASES)
def test_the_mapping_suits_the_vectors(name: str, indexed: Indexed) -> None:
    field = indexed.facts(name)[1]
    assert field["dims"] == CASES[name].dims
    assert field["similarity"] == {"cosine": "cosine", "dot": "max_inner_product"}[CASES[name].similarity]
    assert field.get("element_type", "float") == "float"


@pytest.mark.parametrize("name", CASES)
def test_the_passport_says_what_made_the_vectors(name: str, indexed: Indexed) -> None:
    case, (passport, _) = CASES[name], indexed.facts(name)
    encoder, profile = passport["encoder"], indexed.encoder(name).profile
    assert encoder["kind"] == case.kind
    assert (passport["space_id"], passport["query_id"]) == (profile.space_id, profile.query_id)
    assert (encoder["query_prompt"], encoder["document_prompt"]) == (case.query_prompt, case.document_prompt)
    assert encoder["separator"] == case.separator
    assert ("query_weights" in encoder) == bool(case.query)
    assert len(passport["probes"]) == len(PROBES)
    assert passport["text_fields"] == ["title", "text"]
    # Nobody knows what computed vectors that came along.
    computed = ("torch", "float32") if case.given is None else (None, None)
    assert (encoder.get("backend"), encoder.get("dtype")) == computed


def test_given_vectors_are_stored_in_the_vector_field_only(indexed: Indexed) -> None:
    answer = indexed.es.search(index=indexed.alias("given"), size=DOCUMENTS, source={"exclude_vectors": False})
    stored = {name for hit in answer["hits"]["hits"] for name in hit["_source"]}
    assert stored == {"id", "title", "text", "vector", "esvector_hash"}
    (mapping,) = indexed.es.indices.get_mapping(index=indexed.alias("given")).values()
    assert "embedding" not in mapping["mappings"]["properties"]


# Titles


@pytest.mark.parametrize(
    ("asked", "titled", "untitled"),
    [
        ({"family": "embeddinggemma"}, "title: {title} | text: {text}", "title: none | text: {text}"),
        ({"document_prompt": "{title}: "}, "{title}: {text}", "none: {text}"),
        ({"family": "specter"}, "{title}[SEP]{text}", "{text}"),
        ({"family": "e5"}, "passage: {title} {text}", "passage: {text}"),
    ],
    ids=["embeddinggemma", "a prompt of one's own", "specter", "e5"],
)
def test_a_title_goes_where_the_model_was_trained_to_find_it(
    asked: dict[str, str], titled: str, untitled: str, indexed: Indexed, es: Elasticsearch, alias: str, tmp_path: Path
) -> None:
    folder = indexed.folder("symmetric")
    profile = EncoderProfile(str(folder), **asked)  # type: ignore[arg-type]
    Indexer(es, alias, profile=profile, devices="cpu", dead_letters=tmp_path / "dead.jsonl").run(RECORDS[:10])
    source = {"includes": ["vector"], "exclude_vectors": False}
    stored = {hit["_id"]: hit["_source"]["vector"] for hit in es.search(index=alias, source=source)["hits"]["hits"]}
    for record in RECORDS[:10]:
        text = (titled if "title" in record else untitled).format(**record)
        expected = reference(folder).encode([text], prompt="", show_progress_bar=False)[0]
        assert stored[record["id"]] == pytest.approx(expected, abs=1e-5), text
