"""``esvector index`` again and again, interrupted, refused and mended: what it prints, and how it exits."""

from __future__ import annotations

import json
import shlex
import signal
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from elasticsearch import Elasticsearch

from esvector import IndexReport
from esvector.index.segments import look_at_shards
from tests.support import models
from tests.support.commands import as_lines, lines_of, run_command, until, waiting_index

Run = Callable[..., Result]
TEXTS = models.words(3_000, seed=5)


def papers(n: int) -> list[dict[str, Any]]:
    return [{"id": f"p{i}", "text": TEXTS[i], "year": 1990 + i % 30} for i in range(n)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(models.symmetric(tmp_path_factory.mktemp("models") / "one"))


@pytest.fixture(scope="module")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(models.symmetric(tmp_path_factory.mktemp("models") / "other", seed=9))


@pytest.fixture
def run(server_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run ``esvector ARGS`` in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    return lambda *args, **more: run_command(server_url, *args, **more)


@pytest.fixture
def index(run: Run, alias: str) -> Callable[..., tuple[dict[str, Any], str]]:
    """Index records into the alias: the report, and what was said beside it."""

    def index(records: list[dict[str, Any]], *args: str, status: int = 0) -> tuple[dict[str, Any], str]:
        Path("papers.jsonl").write_text(as_lines(records))
        result = run("index", "papers.jsonl", "--into", alias, *args)
        assert result.exit_code == status, result.output
        reports = lines_of(result)
        return (reports[0] if reports else {}), result.stderr

    return index


Index = Callable[..., tuple[dict[str, Any], str]]


def test_the_report_has_every_field(index: Index, model: str) -> None:
    report, _ = index(papers(3), "--model", model)
    assert set(report) == {field.name for field in fields(IndexReport)} | {"bottleneck"}


def test_running_again_encodes_what_changed_and_needs_no_model_name(
    index: Index, es: Elasticsearch, alias: str, model: str
) -> None:
    first, said = index(papers(40), "--model", model)
    assert (first["indexed"], first["unchanged"]) == (40, 0)
    assert f"readers of {alias} now see {alias}-000001" in said
    again, said = index(papers(40))
    assert (again["read"], again["indexed"], again["unchanged"], again["encoded"]) == (40, 0, 40, 0)
    assert "40 records read = 0 indexed + 40 unchanged, in " in said
    assert "none encoded" in said
    assert f"{alias} ({alias}-000001) is up to date" in said
    assert "now see" not in said
    records = papers(41)
    records[3]["text"], records[4]["year"] = "another text", 2026
    changed, said = index(records, "--model", model)
    assert (changed["indexed"], changed["unchanged"], changed["encoded"]) == (3, 38, 2)
    assert "41 records read = 3 indexed + 38 unchanged" in said
    es.indices.refresh(index=alias)
    assert es.get(index=alias, id="p4")["_source"]["year"] == 2026


def test_another_model_is_a_new_version_and_can_be_taken_back(
    index: Index, run: Run, alias: str, model: str, other_model: str
) -> None:
    index(papers(5), "--model", model)
    report, said = index(papers(5), "--model", other_model)
    assert (report["index"], report["previous"], report["encoded"]) == (f"{alias}-000002", f"{alias}-000001", 5)
    assert f"{alias}-000001 was made by another encoder or with other options: a new version is built" in said
    assert f"now see {alias}-000002; {alias}-000001 is kept for 'esvector rollback {alias}'" in said
    assert f"readers of {alias} now see {alias}-000001" in run("rollback", alias).stderr
    assert [line["state"] for line in lines_of(run("versions", alias))] == ["live", "kept"]
    assert index(papers(5))[0]["unchanged"] == 5  # by the model of the version that is live again


def test_rebuild(index: Index, alias: str, model: str) -> None:
    index(papers(5), "--model", model)
    report, said = index(papers(5), "--rebuild")
    assert (report["index"], report["indexed"], report["unchanged"]) == (f"{alias}-000002", 5, 0)
    assert f"now see {alias}-000002" in said


def test_prune_deletes_what_left_the_source_but_not_most_of_it(
    index: Index, run: Run, es: Elasticsearch, alias: str, model: str
) -> None:
    records = papers(30)
    index(records, "--model", model)
    kept, _ = index(records[1:])
    assert (kept["pruned"], es.count(index=alias)["count"]) == (0, 30)
    pruned, said = index(records[1:], "--prune")
    assert pruned["pruned"] == 1
    assert "1 documents that are not in the source were deleted" in said
    assert es.count(index=alias)["count"] == 29
    _, said = index(records[1:10], "--prune", status=1)
    assert f"20 of the 29 documents of {alias}-000001 are not in the source, more than the 10%" in said
    assert "run the same command again with --force" in said
    assert es.count(index=alias)["count"] == 29
    forced, _ = index(records[1:10], "--prune", "--force")
    assert (forced["pruned"], es.count(index=alias)["count"]) == (20, 9)


def test_skip_empty(index: Index, model: str) -> None:
    report, said = index([*papers(3), {"id": "none"}], "--model", model, "--skip-empty")
    assert (report["filtered"], report["dead"]) == (1, 0)
    assert "4 records read = 3 indexed + 1 left out" in said


@pytest.mark.parametrize(("graph", "graphed"), [("inline", 5), ("deferred", 0)])
def test_graph(index: Index, es: Elasticsearch, alias: str, model: str, graph: str, graphed: int) -> None:
    """Few vectors do without a graph where it is left to the end."""
    report, _ = index(papers(5), "--model", model, "--graph", graph)
    shards = look_at_shards(es, report["index"], "vector")
    assert sum(shard.graphed for shard in shards) == graphed
    mapping = es.indices.get_mapping(index=alias)[report["index"]]["mappings"]
    assert mapping["properties"]["vector"]["index_options"]["type"] == "int8_hnsw"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_goes_on_by_the_same_command(
    run: Run, server_url: str, es: Elasticsearch, alias: str, model: str, tmp_path: Path, number: Any, status: int
) -> None:
    """Also while its input neither goes on nor ends."""
    args = ["--into", alias, "--model", model, "--state", "state", "--grace", "1", "--dead-letters", "dead.jsonl"]
    with waiting_index(server_url, tmp_path, *args) as command:
        command.write(papers(2_500))
        until(lambda: list(tmp_path.glob("state/*/checkpoint")), "something is settled")
        assert command.interrupt(number) == status, command.said
        said = command.said
    assert "interrupted: finishing what is under way (up to 1 s; again to stop at once)" in said
    assert f"records; readers of {alias} see what they saw before" in said
    assert "run the same command again: it goes on where it stopped" in said
    assert "Traceback" not in said
    assert "Fatal" not in said
    assert not es.indices.exists_alias(name=alias)
    (unfinished,) = lines_of(run("versions", alias))
    assert (unfinished["index"], unfinished["state"]) == (f"{alias}-000001", "unfinished")
    result = run("index", "-", *args, input=as_lines(papers(3_000)))
    assert result.exit_code == 0, result.output
    assert "going on where the interrupted run stopped: after " in result.stderr
    (report,) = lines_of(result)
    assert (report["index"], report["read"], report["indexed"]) == (f"{alias}-000001", 3_000, 3_000)
    assert es.count(index=alias)["count"] == 3_000


def test_a_second_run_is_refused_and_the_first_goes_on(
    run: Run, server_url: str, es: Elasticsearch, alias: str, model: str, tmp_path: Path
) -> None:
    Path("more.jsonl").write_text(as_lines(papers(2)))
    with waiting_index(server_url, tmp_path, "--into", alias, "--model", model, "--state", "state") as command:
        command.write(papers(2_500))
        until(lambda: list(tmp_path.glob("state/*/checkpoint")), "something is settled")
        here = run("index", "more.jsonl", "--into", alias, "--model", model, "--state", "state")
        elsewhere = run("index", "more.jsonl", "--into", alias, "--model", model, "--state", "another")
        for refused in (here, elsewhere, run("rollback", alias)):
            assert refused.exit_code == 1, refused.output
        assert command.finish() == 0, command.said
    assert "another run on this machine is changing the same alias" in here.stderr
    assert f"another run is changing {alias} (on " in elsewhere.stderr
    for refused in (here, elsewhere):
        assert "wait until it has ended, or stop it" in refused.stderr
    assert es.count(index=alias)["count"] == 2_500


def test_rejected_records_are_mended_and_retried_as_the_report_says(
    index: Index, run: Run, es: Elasticsearch, alias: str, model: str
) -> None:
    records = [*papers(20), {"id": "bad", "text": "fine", "year": "n.d."}, {"id": "empty"}]
    report, said = index(records, "--model", model, "--field", "year:integer", status=3)
    assert report["dead"] == 2
    letters = Path(report["dead_letters"])
    assert f"rejected records are in {letters}:\n  1 x " in said
    (command,) = [line.partition("esvector ")[2] for line in said.splitlines() if line.startswith("mend them there")]
    letters.write_text(letters.read_text().replace('"n.d."', "2001"))
    result = run(*shlex.split(command))
    assert result.exit_code == 3, result.output
    (report,) = lines_of(result)
    assert (report["read"], report["indexed"], report["dead"]) == (2, 1, 1)
    assert report["dead_letters"] == f"{alias}.dead.1.jsonl"
    assert f"{alias} ({alias}-000001) is up to date" in result.stderr
    es.indices.refresh(index=alias)
    assert es.get(index=alias, id="bad")["_source"]["year"] == 2001
    assert es.count(index=alias)["count"] == 21


def test_what_cannot_be_retried(index: Index, run: Run, es: Elasticsearch, alias: str, model: str) -> None:
    letter = {"id": "a", "place": "a:1", "number": 1, "reason": "no text", "record": {"id": "a", "text": "fine"}}
    Path("dead.jsonl").write_text(json.dumps(letter))
    unknown = run("retry", "dead.jsonl", "--into", alias)
    assert unknown.exit_code == 1
    assert f"there is no live index {alias}" in unknown.stderr
    index(papers(3), "--model", model)
    missing = run("retry", "nothere.jsonl", "--into", alias)
    assert missing.exit_code == 1
    assert "nothere.jsonl is no file" in missing.stderr
    other = run("retry", "papers.jsonl", "--into", alias)
    assert other.exit_code == 1
    assert "papers.jsonl:1 is no dead letter" in other.stderr
    assert "goes on where" not in other.stderr
    # A version that is being built has nothing to do with it.
    body = es.indices.get_mapping(index=alias)[f"{alias}-000001"]
    body["mappings"]["_meta"]["esvector"]["state"] = "building"
    es.indices.create(index=f"{alias}-000002", body=body)
    assert lines_of(run("retry", "dead.jsonl", "--into", alias))[0]["index"] == f"{alias}-000001"
    assert es.count(index=alias)["count"] == 4


def test_reembed(index: Index, run: Run, es: Elasticsearch, alias: str, model: str, other_model: str) -> None:
    unknown = run("reembed", alias, "--model", model)
    assert unknown.exit_code == 1
    assert f"there is no live index {alias}" in unknown.stderr
    index(papers(60), "--model", model)
    Path("papers.jsonl").unlink()
    result = run("reembed", alias, "--model", other_model)
    assert result.exit_code == 0, result.output
    (report,) = lines_of(result)
    assert (report["index"], report["previous"], report["encoded"]) == (f"{alias}-000002", f"{alias}-000001", 60)
    assert (report["recall"], report["passes"]) == (1.0, 0)
    assert f"readers of {alias} now see {alias}-000002; {alias}-000001 is kept" in result.stderr
    assert (
        "a search finds 100.0% of what an exact one does, in a sample; nothing was written meanwhile" in result.stderr
    )
    same = run("reembed", alias, "--element-type", "bfloat16")
    assert same.exit_code == 0, same.output
    (report,) = lines_of(same)
    assert (report["index"], report["encoded"], report["indexed"]) == (f"{alias}-000003", 0, 60)
    refused = run("reembed", alias, "--least-recall", "1.5")
    assert refused.exit_code == 2


@pytest.mark.parametrize(
    ("args", "status", "said"),
    [
        ([], 2, "so its encoder has to be named"),
        (["--dims", "16"], 2, "--dims says how a model is used: name --model"),
        (["--model", "x", "--passages", "many"], 2, "'many' is not auto, off, TOKENS or TOKENS:OVERLAP"),
        (["--model", "x", "--graph", "later"], 2, "'later' is not one of 'deferred', 'inline'"),
        (["--model", "x", "--state", "papers.jsonl"], 2, "papers.jsonl"),
    ],
)
def test_options_that_cannot_be_used(
    index: Index, es: Elasticsearch, alias: str, args: list[str], status: int, said: str
) -> None:
    assert said in index(papers(2), *args, status=status)[1]
    assert not es.indices.exists(index=f"{alias}-000001")


def test_an_estimate_asks_the_server_for_its_version(index: Index, run: Run, alias: str, model: str) -> None:
    Path("papers.jsonl").write_text(as_lines(papers(200)))
    result = run("estimate", "papers.jsonl", "--model", model, "--sample", "100")
    assert result.exit_code == 0, result.output
    (found,) = lines_of(result)
    assert (found["server"], found["server_assumed"]) == ("9.5.3", None)
    index(papers(200), "--model", model)
    (status,) = lines_of(run("status", alias))
    assert found["body"]["mappings"]["properties"]["vector"]["index_options"]["type"] == status["vector_type"]
