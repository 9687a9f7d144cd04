"""The command line on a real Elasticsearch with the real packaged model: what it prints and how it exits."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from elasticsearch import Elasticsearch

from esvector.passport import Passport
from tests.support.commands import lines_of, run_command
from tests.support.http import stub_server

MODEL = "all-MiniLM-L6-v2"
ANIMALS = [
    {"id": "cat", "text": "A cat sleeps on the sofa.", "legs": 4, "since": "2020-03-01"},
    {"id": "dog", "text": "The dog runs after the ball.", "legs": 4, "since": "2021-07-15"},
    {"id": "car", "text": "An electric car charges overnight.", "wheels": 4, "since": "2021-07-15"},
    {"id": "sparrow", "text": "Sparrows build a nest in spring.", "legs": 2, "since": "2019-01-01"},
]
Run = Callable[..., Result]


@pytest.fixture
def run(server_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)

    def run(*args: str, url: str = server_url, **more: Any) -> Result:
        return run_command(url, *args, **more)

    return run


@pytest.fixture(scope="module")
def animals(server_url: str, es: Elasticsearch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    source = tmp_path_factory.mktemp("animals") / "animals.jsonl"
    source.write_text("".join(json.dumps(record) + "\n" for record in ANIMALS))
    args = ["index", str(source), "--into", "animals", "--model", MODEL]
    result = run_command(server_url, *args)
    assert result.exit_code == 0, result.output
    yield "animals"
    for index in es.indices.get(index="animals*"):
        es.indices.delete(index=index)


def test_index_reports_on_both_streams(run: Run, alias: str, es: Elasticsearch) -> None:
    Path("a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in ANIMALS[:2]))
    Path("b.jsonl").write_text("".join(json.dumps(record) + "\n" for record in ANIMALS[2:]))
    result = run("index", "*.jsonl", "--into", alias, "--model", MODEL, "--field", "legs:byte")
    assert result.exit_code == 0, result.output
    (report,) = lines_of(result)
    assert (report["read"], report["indexed"], report["dead"], report["index"]) == (4, 4, 0, f"{alias}-000001")
    assert "4 records read = 4 indexed, in " in result.stderr
    assert f"readers of {alias} now see {alias}-000001" in result.stderr
    assert "bottleneck: " in result.stderr
    assert es.indices.get_mapping(index=alias)[f"{alias}-000001"]["mappings"]["properties"]["legs"]["type"] == "byte"


def test_index_reads_stdin(run: Run, alias: str, es: Elasticsearch) -> None:
    text = "".join(json.dumps(record) + "\n" for record in ANIMALS)
    result = run("index", "-", "--into", alias, "--model", MODEL, input=text)
    assert result.exit_code == 0, result.output
    assert es.count(index=alias)["count"] == 4


def test_search_finds_by_meaning_and_names_no_model(run: Run, animals: str) -> None:
    result = run("search", animals, "a pet that naps on furniture", "-k", "2")
    assert result.exit_code == 0, result.output
    hits = lines_of(result)
    assert hits[0]["id"] == "cat"
    assert hits[0]["source"] == ANIMALS[0]
    assert 0 < hits[1]["score"] < hits[0]["score"] < 1


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        ("legs = 4", {"cat", "dog"}),
        ("since >= 2021-01-01", {"dog", "car"}),
        ("since = 2021-07", {"dog", "car"}),
        ("exists wheels or legs < 3", {"car", "sparrow"}),
        ("not exists legs", {"car"}),
        ("id in (cat, sparrow)", {"cat", "sparrow"}),
    ],
)
def test_search_filters(run: Run, animals: str, where: str, ids: set[str]) -> None:
    assert {hit["id"] for hit in lines_of(run("search", animals, "anything", "--where", where))} == ids


def test_search_takes_a_raw_filter(run: Run, animals: str) -> None:
    assert [hit["id"] for hit in lines_of(run("search", animals, "x", "--filter", '{"term": {"legs": 2}}'))] == [
        "sparrow"
    ]
    refused = run("search", animals, "x", "--filter", "{")
    assert refused.exit_code == 2
    assert "not JSON" in refused.stderr


def test_similar_finds_documents_like_a_stored_one(run: Run, animals: str) -> None:
    hits = lines_of(run("similar", animals, "cat", "-k", "3"))
    assert hits[0]["id"] == "dog"
    assert "cat" not in [hit["id"] for hit in hits]


def test_status_tells_what_is_there(run: Run, animals: str) -> None:
    (status,) = lines_of(run("status", animals))
    assert status["index"] == "animals-000001"
    assert (status["state"], status["documents"], status["health"]) == ("live", 4, "green")
    assert (status["model"], status["vector_type"], status["dims"]) == (
        f"sentence-transformers/{MODEL}",
        "int8_hnsw",
        384,
    )
    assert status["disk_bytes"] > 0
    assert status["memory_bytes"] > 4 * 384
    assert animals in {status["alias"] for status in lines_of(run("status"))}


def test_a_terminal_gets_text_instead_of_json(animals: str, server_url: str) -> None:
    """On a pseudo-terminal, as a person sees it."""
    shown = b""
    for args in (["search", animals, "a pet that naps on furniture", "-k", "1"], ["status", animals]):
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "esvector", *args], stdout=theirs, env=os.environ | {"ESVECTOR_URL": server_url}
        )
        os.close(theirs)
        while True:
            try:
                data = os.read(ours, 65536)
            except OSError:  # how Linux says that the other side has closed
                break
            if not data:
                break
            shown += data
        os.close(ours)
        assert process.wait() == 0
    text = shown.decode()
    assert "A cat sleeps on the sofa." in text
    assert "live" in text
    assert "4 documents" in text
    assert "{" not in text


# Bad input: message, remedy, exit status, and nothing lost.


def test_no_server(run: Run) -> None:
    Path("a.jsonl").write_text('{"id": 1, "text": "x"}\n')
    for args in (["index", "a.jsonl", "--into", "x", "--model", MODEL], ["search", "x", "y"], ["status"]):
        result = run(*args, url="http://127.0.0.1:1")
        assert result.exit_code == 4
        assert "no Elasticsearch answers at http://127.0.0.1:1" in result.stderr
        assert "esvector node start" in result.stderr


@pytest.mark.parametrize(
    ("status", "body", "product", "said"),
    [
        (200, "<html>It works!</html>", None, "is not Elasticsearch"),
        (200, {"nodes": {"a": {"version": "7.17.0"}}}, None, "is not Elasticsearch"),
        (200, {"nodes": {"a": {"version": "8.10.2"}}}, "Elasticsearch", "is Elasticsearch 8.10.2; esvector needs 8.19"),
        (
            400,
            {"error": {"type": "media_type_header_exception", "reason": "Accept version must be either 8 or 7"}},
            "Elasticsearch",
            "pip install 'elasticsearch<",
        ),
    ],
    ids=["a web server", "no product header", "too old", "another major version"],
)
def test_a_server_that_cannot_be_used(run: Run, status: int, body: Any, product: str | None, said: str) -> None:
    Path("a.jsonl").write_text('{"id": 1, "text": "x"}\n')
    kind = "text/html" if isinstance(body, str) else "application/vnd.elasticsearch+json;compatible-with=9"
    headers = {"content-type": kind} | ({"x-elastic-product": product} if product else {})
    with stub_server(status, body, headers) as url:
        result = run("index", "a.jsonl", "--into", "x", "--model", MODEL, url=url)
    assert result.exit_code == 4
    assert said in result.stderr


def test_a_missing_file_is_named_before_anything_is_read(run: Run, alias: str, es: Elasticsearch) -> None:
    Path("a.jsonl").write_text('{"id": 1, "text": "x"}\n')
    result = run("index", "a.jsonl", "nothere.jsonl", "--into", alias, "--model", MODEL)
    assert result.exit_code == 1
    assert "no such file: nothere.jsonl" in result.stderr
    assert not es.indices.exists(index=alias)


def test_bad_records_are_told_by_place_and_kept(run: Run, alias: str, es: Elasticsearch) -> None:
    lines = [json.dumps(record) for record in ANIMALS]
    lines[1:1] = ['{"id": "broken", "text": ', '{"id": "empty"}', '{"id": "list", "text": ["a"]}']
    lines += [json.dumps({"id": "i" * 513, "text": "x"}), json.dumps({"id": "cat", "text": "The same cat again."})]
    Path("mixed.jsonl").write_text("\n".join(lines))
    result = run("index", "mixed.jsonl", "--into", alias, "--model", MODEL)
    assert result.exit_code == 3
    (report,) = lines_of(result)
    assert (report["read"], report["indexed"], report["dead"], report["superseded"]) == (9, 4, 4, 1)
    assert f"rejected records are in {alias}.dead.jsonl" in result.stderr
    assert "1 records came before another one of their id, which counts: cat" in result.stderr
    letters = [json.loads(line) for line in Path(f"{alias}.dead.jsonl").read_text().splitlines()]
    assert [letter["place"] for letter in letters] == [f"mixed.jsonl:{n}" for n in (2, 3, 4, 8)]
    assert letters[0]["record"].startswith('{"id": "broken"')
    assert "a list, not a string" in letters[2]["reason"]
    assert "512" in letters[3]["reason"]
    assert es.get(index=alias, id="cat")["_source"]["text"] == "The same cat again."


def test_a_document_of_50_mb_is_rejected_without_being_encoded(run: Run, alias: str, es: Elasticsearch) -> None:
    with Path("large.jsonl").open("w") as file:
        for record in [*ANIMALS, {"id": "large", "text": "word " * 10_000_000}]:
            file.write(json.dumps(record) + "\n")
    result = run("index", "large.jsonl", "--into", alias, "--model", MODEL)
    assert result.exit_code == 3
    assert "too large" in result.stderr
    assert es.count(index=alias)["count"] == 4


def test_a_model_that_is_not_there(run: Run, alias: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    Path("a.jsonl").write_text('{"id": 1, "text": "x"}\n')
    result = run("index", "a.jsonl", "--into", alias, "--model", "no-such/model")
    assert result.exit_code == 1
    assert "cannot get the model no-such/model" in result.stderr


def test_an_index_made_by_another_encoder(run: Run, es: Elasticsearch, alias: str) -> None:
    Path("a.jsonl").write_text('{"id": 1, "text": "x"}\n')
    assert run("index", "a.jsonl", "--into", alias, "--model", MODEL).exit_code == 0
    index = f"{alias}-000001"
    meta = es.indices.get_mapping(index=index)[index]["mappings"]["_meta"]
    passport = Passport.from_meta(meta)
    assert passport is not None
    other = replace(passport, encoder=replace(passport.encoder, weights="0" * 64))
    es.indices.put_mapping(index=index, meta=other.to_meta())
    result = run("search", alias, "x")
    assert result.exit_code == 1
    assert "is not the one expected" in result.stderr
    assert "0" * 64 in result.stderr


@pytest.mark.parametrize(
    ("args", "status", "said"),
    [
        (["--where", "legs >="], 1, "legs >="),
        (["--where", "legs = 4 and (since > 2020"], 1, "^"),
        (["--where", "lgs = 4"], 1, "legs"),
        (["--where", "legs = four"], 1, "four"),
        (["-k", "0"], 2, "k is 0"),
        (["-k", "10001"], 2, "k is 10001"),
    ],
)
def test_a_search_that_cannot_be_understood(run: Run, animals: str, args: list[str], status: int, said: str) -> None:
    result = run("search", animals, "x", *args)
    assert result.exit_code == status
    assert said in result.stderr


def test_unknown_names(run: Run) -> None:
    assert "there is no index nothing-here" in run("search", "nothing-here", "x").stderr
    assert "no index nothing-here" in run("status", "nothing-here").stderr
    unknown = run("no-such-command")
    assert unknown.exit_code == 2
    assert "No such command" in unknown.stderr
