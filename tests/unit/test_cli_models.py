"""``esvector models``: the list, and the check of real tiny models and of the packaged one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import esvector.cli.models
from esvector.cli import app
from esvector.encode.presets import PRESETS, Preset
from tests.support import models as tiny

Run = Callable[..., Result]


@pytest.fixture
def run() -> Run:
    """Piped: what programs get."""

    def run(*args: str) -> Result:
        result = CliRunner().invoke(app, ["models", *args], prog_name="esvector")
        assert "Traceback" not in result.output
        return result

    return run


@pytest.fixture
def show(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """On a terminal of 100 columns: what people get."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(esvector.cli.models, "wants_json", lambda as_json: as_json)
    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny.prompted(folder / "prompted")
    tiny.router(folder / "router")
    tiny.dual(folder / "dual")
    tiny.dot_trained(folder / "dot")
    tiny.symmetric(folder / "symmetric")
    tiny.symmetric(folder / "copy")
    (folder / "copy" / "README.md").write_text("---\nbase_model: intfloat/e5-small-v2\n---\n")
    return folder


def checked(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    (line,) = result.stdout.splitlines()
    report: dict[str, Any] = json.loads(line)
    return report


def flat(text: str) -> str:
    return " ".join(text.split())


def test_the_list_for_programs_has_every_fact(run: Run) -> None:
    lines = [json.loads(line) for line in run().stdout.splitlines()]
    assert [line["family"] for line in lines] == [preset.family for preset in PRESETS]
    (e5,) = (line for line in lines if line["family"] == "e5")
    assert set(e5) == {field.name for field in fields(Preset)}
    assert (e5["query_prompt"], e5["document_prompt"], e5["suits"]) == ("query: ", "passage: ", ["search"])


def test_the_list_for_people_fits_the_terminal_and_keeps_prompts_exact(show: Run) -> None:
    result = show()
    assert result.exit_code == 0
    text = flat(result.stdout)
    assert max(map(len, result.stdout.splitlines())) <= 100
    for preset in PRESETS:
        assert preset.example in text
        assert flat(f"from {preset.source}") in text
        for prompt in filter(None, (preset.query_prompt, preset.document_prompt)):
            assert flat(repr(prompt)) in text
    headings = [line.split()[0] for line in result.stdout.splitlines() if line[:1].isupper()]
    assert headings[:5] == ["SYMMETRIC", "ASYMMETRIC", "PROMPTED", "DUAL", "ROUTER"]
    assert "≤ 1024, 2560, 4096" in text
    assert "between title and text: ' [SEP] '" in text


@pytest.mark.parametrize(
    ("wanted", "families"),
    [
        ("nomic", {"nomic-v1", "nomic-v1.5", "nomic-v2", "modernbert-embed"}),
        ("LaBSE", {"labse"}),
        ("intfloat/e5-large", {"e5"}),
        ("/models/bge-small-zh", {"bge-zh"}),
    ],
)
def test_a_filter_is_a_part_of_a_name_or_a_model(run: Run, wanted: str, families: set[str]) -> None:
    for args in ([wanted], ["--json", wanted], [wanted, "--json"], ["list", wanted]):
        found = {json.loads(line)["family"] for line in run(*args).stdout.splitlines()}
        assert found == families


@pytest.mark.parametrize(("wanted", "near"), [("minilm-all", "all-minilm"), ("bgem3", "bge-m3"), ("zzz", "lists all")])
def test_an_unknown_filter_is_refused_with_near_names(run: Run, wanted: str, near: str) -> None:
    result = run(wanted)
    assert result.exit_code == 2
    assert repr(wanted) in result.stderr
    assert near in result.stderr


def test_the_list_imports_nothing_heavy() -> None:
    code = (
        "import sys, json\n"
        "from esvector.cli import app\n"
        "app(['models'], standalone_mode=False)\n"
        "heavy = {'torch', 'numpy', 'elasticsearch', 'transformers', 'pyarrow', 'rich'}\n"
        "print(json.dumps(sorted(heavy & set(sys.modules))), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stderr) == []
    assert len(done.stdout.splitlines()) == len(PRESETS)


@pytest.mark.parametrize("args", [["--help"], ["check", "--help"], ["e5", "--help"]])
def test_help_keeps_the_lines_of_its_example(run: Run, args: list[str]) -> None:
    text = run(*args).stdout
    assert "Usage:" in text
    assert "\n  Example:\n    esvector models " in text


def test_a_model_with_its_own_prompts(run: Run, folder: Path) -> None:
    report = checked(run("check", str(folder / "prompted")))
    profile = report["profile"]
    assert (profile["kind"], profile["query_prompt"], profile["document_prompt"]) == (
        "prompted",
        "query: ",
        "passage: ",
    )
    assert report["sources"]["query_prompt"] == report["sources"]["max_length"] == "the model"
    assert (report["sources"]["similarity"], report["sources"]["kind"]) == ("assumed", "by its prompts")
    assert report["space_id"] != report["query_id"]
    assert len(report["trials"]) == 8
    assert report["suits_from"] == "the trials"
    assert report["warnings"] == []


def test_what_is_given_is_said_to_be(run: Run, folder: Path) -> None:
    given = ["--query-prompt", "", "--dims", "16", "--max-length", "32", "--similarity", "dot"]
    report = checked(run("check", str(folder / "prompted"), *given))
    assert (report["profile"]["dims"], report["profile"]["max_length"], report["profile"]["query_prompt"]) == (
        16,
        32,
        "",
    )
    facts = ("dims", "max_length", "query_prompt", "similarity")
    assert {report["sources"][fact] for fact in facts} == {"given"}


def test_a_family_brings_its_prompts_and_says_what_it_suits(show: Run, folder: Path) -> None:
    result = show("check", str(folder / "symmetric"), "--family", "e5", "--for", "similar")
    assert result.exit_code == 0, result.output
    text = flat(result.stdout)
    assert "query prompt 'query: ' preset e5" in text
    assert "document prompt 'passage: ' preset e5" in text
    assert "It suits search (questions to passages), says the preset e5." in text
    assert "warning: e5 models are for search" in text


def test_a_router_for_people(show: Run, folder: Path) -> None:
    result = show("check", str(folder / "router"))
    text = flat(result.stdout)
    assert "kind router: one model with a tower for each side the model" in text
    assert "pooling mean (queries: static)" in text
    assert "reads 64 tokens, about " in text
    assert "of a query all of it" in text
    assert "No preset knows this model" in text
    assert "a smoke test in English, not a measurement" in text
    assert max(map(len, result.stdout.splitlines()[2:])) <= 100
    assert result.stderr == f"Loading {folder / 'router'} ...\n"


def test_two_models(run: Run, folder: Path) -> None:
    document, query = str(folder / "dual" / "document"), str(folder / "dual" / "query")
    report = checked(run("check", document, "--query-model", query))
    assert (report["profile"]["kind"], report["sources"]["kind"]) == ("dual", "given")
    assert (report["profile"]["model"], report["profile"]["query_model"]) == (document, query)
    assert (report["profile"]["similarity"], report["warnings"]) == ("dot", [])


def test_the_same_model_twice_is_warned_of(run: Run, folder: Path) -> None:
    document = str(folder / "dual" / "document")
    report = checked(run("check", document, "--query-model", document))
    assert [warning[:21] for warning in report["warnings"]] == ["there are two towers,"]


def test_a_model_trained_for_the_dot_product(run: Run, folder: Path) -> None:
    report = checked(run("check", str(folder / "dot")))
    assert (report["profile"]["kind"], report["profile"]["similarity"]) == ("asymmetric", "dot")
    assert (report["profile"]["normalize"], report["sources"]["kind"]) == (False, "assumed")


def test_a_copy_of_a_model_with_prompts_is_warned_of(run: Run, folder: Path) -> None:
    report = checked(run("check", str(folder / "copy")))
    assert ["--family e5" in warning for warning in report["warnings"]] == [True, True]


def test_a_model_that_is_not_there_is_an_error(run: Run, folder: Path) -> None:
    result = run("check", str(folder / "nothing"))
    assert result.exit_code == 1
    assert "no such folder" in result.stderr
    assert run("check", str(folder / "symmetric"), "--family", "e55").exit_code == 2
    assert run("check").exit_code == 2


def test_the_packaged_model_puts_all_answers_first_and_suits_both(show: Run) -> None:
    result = show("check", "all-MiniLM-L6-v2")
    assert result.exit_code == 0, result.output
    text = flat(result.stdout)
    assert "on 4 of 4 questions the answer came first, and on 4 of 4 sentences the one that means the same" in text
    assert "It suits search (questions to passages) and similar (like with like), says the preset all-minilm." in text
    assert "reads 256 tokens, about 213 English words the model" in text
    assert "query prompt '' preset all-minilm" in text
    assert "warning" not in text
    report = checked(show("check", "all-MiniLM-L6-v2", "--json"))
    assert report["suits"] == ["search", "similar"]
    assert all(trial["first"] and trial["right_score"] > trial["best_other_score"] for trial in report["trials"])
