"""``esvector evaluate`` on run files, without a server: what it prints and how it exits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import esvector.cli.evaluate
from esvector.cli import app
from esvector.evaluate.measures import DEFAULT_MEASURES

Run = Callable[..., Result]
QUERIES = 20


def run_file(name: str, lost: int) -> None:
    """Each query finds its document first; the first ``lost`` find it second."""
    lines = []
    for n in range(QUERIES):
        first, second = ("other", f"d{n}") if n < lost else (f"d{n}", "other")
        lines += [f"q{n} Q0 {first} 1 0.9 t", f"q{n} Q0 {second} 2 0.8 t"]
    Path(name).write_text("\n".join(lines))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Piped: what programs get."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    numbers = range(QUERIES)
    Path("queries.jsonl").write_text("".join(json.dumps({"_id": f"q{n}", "text": f"text {n}"}) + "\n" for n in numbers))
    Path("qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(f"q{n}\td{n}\t1\n" for n in numbers))
    run_file("best.run", 0)
    run_file("good.run", 5)
    run_file("bad.run", 11)

    def run(*args: str) -> Result:
        env = {"ESVECTOR_URL": "http://127.0.0.1:1"}
        result = CliRunner().invoke(app, ["evaluate", *args], env=env, prog_name="esvector")
        assert "Traceback" not in result.output
        return result

    return run


@pytest.fixture
def show(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """On a terminal: what people get."""
    monkeypatch.setattr(esvector.cli.evaluate, "wants_json", lambda as_json: as_json)
    return run


def found(result: Result, status: int = 0) -> dict[str, Any]:
    assert result.exit_code == status, result.output
    (line,) = result.stdout.splitlines()
    report: dict[str, Any] = json.loads(line)
    return report


def rows(result: Result) -> list[list[str]]:
    return [line.split() for line in result.stdout.splitlines()]


def test_programs_get_one_object(run: Run) -> None:
    report = found(run("--run-in", "good.run", "--beir", ".", "--measures", "RR@10 P@1"))
    assert report["measures"] == {"RR@10": 0.875, "P@1": 0.75}
    assert report["counts"]["judged"] == QUERIES
    assert report["failures"] == report["remarks"] == []
    assert "by_query" not in report
    report = found(run("--run-in", "good.run", "--qrels", "qrels.tsv", "--measures", "RR@10", "--per-query"))
    assert report["by_query"]["q0"] == {"RR@10": 0.5}
    assert len(report["by_query"]) == QUERIES


def test_the_measures_without_being_told(run: Run) -> None:
    assert " ".join(found(run("--run-in", "good.run", "--beir", "."))["measures"]) == DEFAULT_MEASURES
    assert DEFAULT_MEASURES in " ".join(run("--help").stdout.split())


def test_people_get_tables_and_the_worst_queries(show: Run) -> None:
    result = show("--run-in", "bad.run", "--beir", ".", "--measures", "RR@10 P@1")
    lines = rows(result)
    assert ["RR@10", "0.7250"] in lines
    assert ["q4", "0.5000", "rank", "2", "text", "4"] in lines
    assert "20 queries, 20 relevant documents" in result.stdout
    assert sum(line[:1] == ["q9"] for line in lines) == 0
    everything = rows(show("--run-in", "bad.run", "--beir", ".", "--measures", "RR@10", "--per-query"))
    assert ["q19", "1.0000", "text", "19"] in everything


def test_markup_in_the_text_of_others_is_text(show: Run) -> None:
    Path("odd.tsv").write_text("q0\t[/b] [red]x :smile:\n")
    result = show("--run-in", "good.run", "--qrels", "qrels.tsv", "--queries", "odd.tsv", "--measures", "RR")
    assert result.exit_code == 0, result.output
    assert "[/b] [red]x :smile:" in result.stdout


def test_remarks_are_seen_by_programs_and_people(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("few.jsonl").write_text('{"_id": "q0", "text": "x"}\n{"_id": "new", "text": "y"}\n')
    args = ("--run-in", "good.run", "--qrels", "qrels.tsv", "--queries", "few.jsonl")
    result = run(*args)
    assert found(result)["remarks"] == [
        "queries without judgements, left out: 1",
        "queries of the judgements that were not asked, left out: 19",
        "queries of the run that are none of the queries, left out: 19",
    ]
    assert "queries of the judgements that were not asked, left out: 19" in result.stderr
    monkeypatch.setattr(esvector.cli.evaluate, "wants_json", lambda as_json: as_json)
    assert "queries of the judgements that were not asked, left out: 19" in run(*args).stdout


def test_two_runs_are_compared(show: Run) -> None:
    args = ("--run-in", "bad.run", "--beir", ".", "--measures", "RR@10 P@1", "--compare-with", "good.run")
    result = show(*args)
    assert result.exit_code == 0
    assert ["RR@10", "0.7250", "0.8750", "-0.1500", "0.031", "0", "14", "6"] in rows(result)
    assert ["P@1", "0.4500", "0.7500", "-0.3000", "0.031", "0", "14", "6"] in rows(result)
    assert ["q5", "0.5000", "1.0000", "rank", "2", "text", "5"] in rows(result)
    assert "for all 2 at once, compare p with 0.025" in " ".join(result.stdout.split())
    (rr, p1) = found(show(*args, "--json"))["comparisons"]["good.run"]
    assert (rr["measure"], rr["p"], rr["losses"]) == ("RR@10", 2 / 64, 6)
    assert (p1["measure"], p1["difference"]) == ("P@1", pytest.approx(-0.3))


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["good.run", "--min", "P@1=0.75"], []),
        (["good.run", "--min", "P@1=0.76"], ["P@1 is 0.7500, below the 0.76 of --min"]),
        (["good.run", "--min", "MRR@10=0.9", "--min", "P@1=1"], ["RR@10 is 0.8750, below", "P@1 is 0.7500, below"]),
        (["good.run", "--not-worse-than", "bad.run"], []),
        (["bad.run", "--not-worse-than", "bad.run"], []),
        (["bad.run", "--not-worse-than", "good.run"], ["RR@10 is 0.7250, significantly worse than the 0.8750 of good"]),
        (["bad.run", "--not-worse-than", "good.run", "--alpha", "0.03"], []),
        (["bad.run", "--not-worse-than", "good.run", "--tolerance", "0.15"], []),
        (["bad.run", "--not-worse-than", "good.run", "--tolerance", "0.14"], ["(p = 0.031, 6 queries lost and 0 won)"]),
        (["good.run", "--not-worse-than", "best.run"], []),
    ],
)
def test_the_exit_status_for_ci(run: Run, args: list[str], said: list[str]) -> None:
    """Five queries that are all worse are not significant: p is 2 of 32."""
    result = run("--run-in", *args, "--beir", ".", "--measures", "RR@10")
    report = found(result, status=1 if said else 0)
    assert len(report["failures"]) == len(said)
    for sentence in said:
        assert sentence in result.stderr
        assert any(sentence in failure for failure in report["failures"])
    assert result.stderr.startswith("error: ") == bool(said)


def test_a_run_file_can_be_written_over_the_one_it_is_compared_with(run: Run) -> None:
    report = found(run("--run-in", "good.run", "--beir", ".", "--not-worse-than", "bad.run", "--run-out", "bad.run"))
    assert report["comparisons"]["bad.run"][0]["wins"] == 6
    assert found(run("--run-in", "bad.run", "--beir", ".", "--measures", "P@1"))["measures"] == {"P@1": 0.75}


@pytest.mark.parametrize(
    ("args", "status", "said"),
    [
        (["--beir", "."], 2, "name ALIAS, or a run file"),
        (["papers", "--run-in", "good.run", "--beir", "."], 2, "name ALIAS, or a run file"),
        (["papers", "--queries", "queries.jsonl"], 2, "name the judgements: --qrels FILE"),
        (["papers", "--qrels", "qrels.tsv"], 2, "name the queries: --queries FILE"),
        (["papers", "--beir", "."], 4, "http://127.0.0.1:1"),
        (["--run-in", "good.run", "--beir", ".", "--measures", "foo R@5 bar"], 2, "no such measure: foo, bar"),
        (["--run-in", "good.run", "--beir", ".", "--measures", "foo", "--min", "bar=1"], 2, "measure: foo, bar"),
        (["--run-in", "good.run", "--beir", ".", "--min", "=1"], 2, "'=1' is not like nDCG@10=0.64"),
        (["--run-in", "good.run", "--beir", ".", "--min", "P@1"], 2, "'P@1' is not like nDCG@10=0.64"),
        (["--run-in", "good.run", "--beir", ".", "--min", "P@1=x"], 2, "'P@1=x' is not like nDCG@10=0.64"),
        (["--run-in", "good.run", "--beir", ".", "--min", "P@1=nan"], 2, "'P@1=nan' is not like nDCG@10=0.64"),
        (["--run-in", "good.run", "--beir", ".", "--where", "year > 1"], 2, "these options say how to search"),
        (["--run-in", "qrels.tsv", "--beir", "."], 1, "qrels.tsv:1: 3 columns"),
        (["--run-in", "no.run", "--beir", "."], 2, "no.run"),
        (["papers", "--beir", ".", "-k", "0"], 2, "-k"),
        (["papers", "--beir", ".", "--run-out", "nowhere/x.run"], 2, "there is no folder nowhere"),
    ],
)
def test_what_cannot_be_evaluated(run: Run, args: list[str], status: int, said: str) -> None:
    result = run(*args)
    assert result.exit_code == status, result.output
    assert said in result.stderr
