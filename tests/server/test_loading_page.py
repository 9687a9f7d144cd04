"""Every example of docs/loading.md; its roles are in test_privileges.py."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from elasticsearch import Elasticsearch

from esvector.cli import app
from tests.support import models
from tests.support.commands import as_lines, lines_of, run_command

PAGE = (Path(__file__).parents[2] / "docs" / "loading.md").read_text(encoding="utf-8")
ROLES: dict[str, Any] = json.loads(re.findall(r"^```json\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[0])
COMMANDS = re.findall(r"^\$ esvector (.*)$", PAGE, re.MULTILINE)
PAPERS = [{"id": f"p{n}", "text": text} for n, text in enumerate(models.words(20, seed=2))]
MENDED = {"id": "new", "place": "papers.jsonl:9", "number": 9, "reason": "no text", "record": {"id": "n", "text": "x"}}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("papers.jsonl").write_text(as_lines(PAPERS))
    Path("papers.dead.jsonl").write_text(as_lines([MENDED]))


@pytest.fixture
def gone(es: Elasticsearch) -> Iterator[None]:
    yield
    for index in es.indices.get(index="papers-*"):
        es.indices.delete(index=index)


@pytest.mark.usefixtures("files", "gone")
def test_the_commands_of_the_page(server_url: str) -> None:
    assert len(COMMANDS) == 5
    done = [run_command(server_url, *command.split()) for command in COMMANDS]
    assert [result.exit_code for result in done] == [0] * 5, [result.output for result in done]
    reports = [lines_of(result)[0] for result in done]
    assert [(report["index"][-1], report["indexed"], report["unchanged"]) for report in reports] == [
        ("1", 20, 0),
        ("1", 0, 20),
        ("1", 0, 20),
        ("2", 20, 0),
        ("2", 1, 0),
    ]


def test_what_the_page_names_exists() -> None:
    said = CliRunner().invoke(app, ["index", "--help"]).output + CliRunner().invoke(app, ["prune", "--help"]).output
    for option in re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", PAGE):
        assert option in said or option == "--json", option
