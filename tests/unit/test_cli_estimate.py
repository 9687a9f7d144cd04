"""``esvector estimate`` where no server answers, with a tiny model; and the page about it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from esvector.cli import app
from tests.support import models

PAGE = (Path(__file__).parents[2] / "docs" / "sizing.md").read_text(encoding="utf-8")
TEXTS = models.words(60, seed=3)
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(models.symmetric(tmp_path_factory.mktemp("estimate") / "model"))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    lines = [json.dumps({"id": n, "text": text, "year": 1990 + n}) for n, text in enumerate(TEXTS)]
    Path("papers.jsonl").write_text("\n".join(lines))

    def run(*args: str, stdin: str | None = None) -> Result:
        result = CliRunner().invoke(app, args, env={"ESVECTOR_URL": "http://127.0.0.1:1"}, input=stdin)
        assert "Traceback" not in result.output
        assert sorted(path.name for path in Path().iterdir()) == ["papers.jsonl"], "nothing is written"
        return result

    return run


def test_programs_get_all_of_it_as_json(run: Run, model: str) -> None:
    result = run("estimate", "papers.jsonl", "--model", model, "--devices", "cpu", "--field", "year:short")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["records"], found["records_from"], found["rejected"]) == (60, "counted", 0)
    assert found["truncated"] > 0
    assert found["longest"] > found["encoder"]["max_length"] == 64
    assert found["body"]["mappings"]["properties"]["year"] == {"type": "short"}
    assert found["body"]["mappings"]["_meta"]["esvector"]["encoder"] == found["encoder"]
    assert [size["index_type"] for size in found["sizes"] if size["chosen"]] == ["int8_hnsw"]
    assert "no Elasticsearch answers at http://127.0.0.1:1" in found["server_assumed"]
    assert found["server"] == "9.5.3"


def test_people_get_sentences_and_a_table(run: Run, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esvector.cli.estimate.wants_json", lambda _: False)
    text = "".join(json.dumps({"id": n, "text": text}) + "\n" for n, text in enumerate([*TEXTS, ""]))
    result = run("estimate", "-", "--model", model, "--devices", "cpu", "--records", "7000", stdin=text)
    assert result.exit_code == 0, result.output
    assert "the first 61 records = 60 documents + 1 rejected" in result.stdout
    assert "1 x no text" in result.stdout
    assert re.search(r"documents: 6,885, [\d,]+ bytes of JSON each", result.stdout)
    assert re.search(r"time: .* at [\d,]+ documents/s", result.stdout)
    assert re.search(r"% of the texts are longer than the 64 tokens that are read", result.stdout)
    assert re.search(r"float +int8_hnsw +\S+ MB +\S+ kB +this mapping", result.stdout)
    assert re.search(r"vector +{\"type\":\"dense_vector\"", result.stdout)
    assert "mapping, for Elasticsearch 9.5.3, assumed: no Elasticsearch answers" in result.stdout


@pytest.mark.parametrize(
    ("args", "status", "said"),
    [
        (["nothere.jsonl"], 1, "no such file: nothere.jsonl"),
        (["papers.jsonl", "--text", "abstract"], 1, "none of the first 60 records could be indexed"),
        (["papers.jsonl", "--element-type", "byte", "--similarity", "dot"], 2, "bytes lose their length"),
        (["papers.jsonl", "--field", "year"], 2, "--field 'year' is not name:type"),
        (["papers.jsonl", "--sample", "0"], 2, "0 is not in the range"),
    ],
)
def test_what_cannot_be_estimated(run: Run, model: str, args: list[str], status: int, said: str) -> None:
    result = run("estimate", *args, "--model", model, "--devices", "cpu")
    assert result.exit_code == status, result.output
    assert said in result.stderr


def test_it_takes_every_option_of_index_that_decides_an_index() -> None:
    def options(command: str) -> set[str]:
        done = subprocess.run([sys.executable, "-m", "esvector", command, "--help"], capture_output=True, text=True)
        return set(re.findall(r"^  (?:-h, )?(--[a-z-]+)", done.stdout, re.MULTILINE))

    missing = options("index") - options("estimate")
    of_a_run = {"--graph", "--rebuild", "--prune", "--force", "--take-over", "--skip-empty", "--state", "--grace"}
    assert missing == {"--into", "--query-cache", "--senders", "--dead-letters"} | of_a_run


@pytest.mark.parametrize("command", re.findall(r"^\$ esvector (estimate .*)$", PAGE, re.MULTILINE))
def test_the_commands_of_the_page_run(command: str, run: Run) -> None:
    result = run(*command.split())
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["usable"] == 60
