"""``esvector evaluate`` on a real Elasticsearch with the packaged model, and the examples of docs/evaluation.md."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from elasticsearch import Elasticsearch

from esvector import EncoderProfile, Indexer, PassageOptions, Searcher
from esvector.errors import ConfigError, IndexNotFoundError
from esvector.evaluate import evaluate, read_qrels, read_queries, read_run
from tests.support.commands import run_command
from tests.support.encoders import HashEncoder

PAGE = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
PAPERS = [
    ("cat", "A cat sleeps on the sofa.", 2021),
    ("dog", "The dog runs after the ball in the park.", 2022),
    ("car", "An electric car charges its battery overnight.", 2023),
    ("bread", "The bakery sells warm bread in the morning.", 2019),
    ("rain", "Heavy rain floods the streets of the town.", 2020),
    ("bank", "The central bank raises interest rates.", 2024),
    ("heart", "Regular exercise protects the heart.", 2018),
    ("star", "Astronomers watch a distant star explode.", 2023),
]
# The last two ask for another document than the one that is nearest.
QUESTIONS = {
    "q1": ("a pet lying on furniture", "cat"),
    "q2": ("vehicles without fuel", "car"),
    "q3": ("where to buy something to eat", "bread"),
    "q4": ("bad weather", "rain"),
    "q5": ("monetary policy", "bank"),
    "q6": ("supernova in the sky", "star"),
    "q7": ("sport is healthy", "bread"),
    "q8": ("an animal plays outside", "bank"),
}


@pytest.fixture(scope="module")
def papers(es: Elasticsearch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    dead = tmp_path_factory.mktemp("dead") / "dead.jsonl"
    records = [{"id": id_, "text": text, "year": year} for id_, text, year in PAPERS]
    for _ in range(2):
        indexer = Indexer(es, "papers", profile=EncoderProfile("all-MiniLM-L6-v2"), rebuild=True, dead_letters=dead)
        indexer.run(records)
    yield "papers"
    for index in es.indices.get(index="papers-*"):
        es.indices.delete(index=index)


@pytest.fixture
def collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The judgements in the working folder, and as a BEIR folder of one's own."""
    monkeypatch.chdir(tmp_path)
    lines = [json.dumps({"_id": query, "text": text}) + "\n" for query, (text, _) in QUESTIONS.items()]
    judged = [f"{query}\t{document}\t1\n" for query, (_, document) in QUESTIONS.items()]
    (tmp_path / "collection" / "qrels").mkdir(parents=True)
    for queries, qrels in (
        ("queries.jsonl", "qrels.tsv"),
        ("collection/queries.jsonl", "collection/qrels/test.tsv"),
    ):
        Path(queries).write_text("".join(lines))
        Path(qrels).write_text("query-id\tcorpus-id\tscore\n" + "".join(judged))


def found(url: str, *args: str, status: int = 0) -> dict[str, Any]:
    result = run_command(url, "evaluate", *args)
    assert result.exit_code == status, result.output
    report: dict[str, Any] = json.loads(result.stdout)
    return report


@pytest.mark.usefixtures("collection")
def test_an_index_is_evaluated_as_it_is_searched(server_url: str, es: Elasticsearch, papers: str) -> None:
    args = (papers, "--beir", "collection", "--measures", "RR@10 P@1", "--run-out", "out.run", "--per-query")
    report = found(server_url, *args)
    searcher = Searcher(es, papers)
    ranks = {}
    for query, (text, document) in QUESTIONS.items():
        hits = searcher.search(text, k=10)
        ranks[query] = [hit.id for hit in hits].index(document) + 1
        written = read_run("out.run")[query]
        assert list(written) == [hit.id for hit in hits]
        assert written == pytest.approx({hit.id: hit.score for hit in hits}, abs=1e-6)  # of cosines in float32
    assert [ranks[f"q{n}"] for n in range(1, 7)] == [1] * 6
    assert min(ranks["q7"], ranks["q8"]) > 1
    assert {query: values["RR@10"] for query, values in report["by_query"].items()} == {
        query: pytest.approx(1 / rank) for query, rank in ranks.items()
    }
    assert report["measures"]["P@1"] == 6 / 8
    assert report["counts"]["missing"] == 0
    again = found(server_url, "--run-in", "out.run", "--qrels", "qrels.tsv", "--measures", "RR@10 P@1", "--per-query")
    assert (again["measures"], again["by_query"]) == (report["measures"], report["by_query"])


@pytest.mark.usefixtures("collection")
def test_filter_and_k_are_those_of_the_search(server_url: str, papers: str) -> None:
    args = (papers, "--queries", "queries.jsonl", "--qrels", "qrels.tsv", "--measures", "R@100 P@1")
    report = found(server_url, *args, "--where", "year >= 2020", "-k", "1", "--run-out", "out.run")
    years = {id_: year for id_, _, year in PAPERS}
    run = read_run("out.run")
    assert all(len(hits) == 1 and years[document] >= 2020 for hits in run.values() for document in hits)
    assert report["remarks"] == ["R@100 looks at 100 hits, but only k = 1 were asked for"]
    assert report["measures"]["R@100"] == report["measures"]["P@1"] <= 5 / 8


@pytest.mark.usefixtures("collection")
def test_each_mode_is_evaluated(server_url: str, papers: str) -> None:
    """No word of "vehicles without fuel" or "monetary policy" is in any document."""
    found_by = {
        mode: found(server_url, papers, "--beir", "collection", "--measures", "P@1", "--mode", mode)
        for mode in ("vector", "exact", "text", "hybrid")
    }
    assert found_by["vector"]["measures"] == found_by["exact"]["measures"] == {"P@1": 6 / 8}
    assert found_by["text"]["measures"]["P@1"] < found_by["hybrid"]["measures"]["P@1"]
    assert found_by["text"]["counts"]["empty"] >= 2
    assert any("found nothing" in remark for remark in found_by["text"]["remarks"])
    assert found_by["hybrid"]["counts"]["empty"] == 0


@pytest.mark.usefixtures("collection")
def test_two_versions_of_an_index_are_compared(server_url: str, papers: str) -> None:
    report = found(server_url, papers, "--beir", "collection", "--not-worse-than", "papers-000001")
    assert [one["difference"] for one in report["comparisons"]["papers-000001"]] == [0, 0, 0]
    neither = run_command(server_url, "evaluate", papers, "--beir", "collection", "--compare-with", "typo.run")
    assert neither.exit_code == 2
    assert "no file is named typo.run, and there is no index typo.run" in neither.stderr
    failed = found(server_url, papers, "--beir", "collection", "--min", "P@1=0.8", status=1)
    assert failed["failures"] == ["P@1 is 0.7500, below the 0.8 of --min"]


@pytest.mark.usefixtures("collection")
def test_judgements_of_documents_that_are_not_there(es: Elasticsearch, alias: str, tmp_path: Path) -> None:
    """Of an index in passages, too, where Elasticsearch keeps the passages under the ids of their documents."""
    records = [{"id": id_, "text": text} for id_, text, _ in PAPERS[:4]]
    encoder = HashEncoder()
    Indexer(es, alias, encoder=encoder, dead_letters=tmp_path / "dead.jsonl").run(records)
    searcher = Searcher(es, alias, encoder=encoder)
    queries, qrels = read_queries("queries.jsonl"), read_qrels("qrels.tsv")
    counted = evaluate(searcher, queries, qrels, "AP")
    assert counted.counts.missing == 3
    assert counted.remarks == (
        "relevant documents that are not in the index, so that nothing finds them: 3",
        "AP has no cutoff: it sees the first 100 hits",
    )
    with pytest.raises(ConfigError, match=r"none of the 1 relevant documents is in .*: the judgements name 'star'"):
        evaluate(searcher, queries, {"q6": {"star": 1, "cat": 0}})
    with pytest.raises(IndexNotFoundError):
        evaluate(Searcher(es, "nothing-here", encoder=encoder), queries, qrels)


@pytest.mark.usefixtures("collection")
def test_documents_in_passages_are_counted_once(es: Elasticsearch, alias: str, tmp_path: Path) -> None:
    profile = EncoderProfile("all-MiniLM-L6-v2")
    options = PassageOptions(24, 0)
    indexer = Indexer(es, alias, profile=profile, passages=options, dead_letters=tmp_path / "dead.jsonl")
    indexer.run([{"id": id_, "text": f"{text} " * 12} for id_, text, _ in PAPERS if id_ != "car"])
    report = evaluate(Searcher(es, alias), read_queries("queries.jsonl"), read_qrels("qrels.tsv"), "P@1")
    assert report.counts.missing == 1
    assert report.values["P@1"] >= 4 / 8


@pytest.mark.usefixtures("collection")
def test_the_examples_of_the_page(
    server_url: str, papers: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (console,) = re.findall(r"^```console\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    commands = re.findall(r"^\$ esvector (.*)$", console, re.MULTILINE)
    assert len(commands) == 8
    for command in commands:
        args = [arg.replace('"', "") for arg in re.findall(r'"[^"]*"|\S+', command)]
        result = run_command(server_url, *args)
        assert result.exit_code == 0, (command, result.output)
        assert json.loads(result.stdout)["counts"]["judged"] == 8
    (python,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    namespace: dict[str, Any] = {}
    exec(python.replace("http://localhost:9200", server_url), namespace)
    namespace["es"].close()
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == ["nDCG@10", "R@10"]
    assert (tmp_path / "now.run").is_file()
