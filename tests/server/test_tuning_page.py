"""Every example of docs/tuning.md."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from elasticsearch import Elasticsearch

from esvector import EncoderProfile, Indexer
from esvector.evaluate.live import look_up
from tests.support.commands import run_command

pytestmark = pytest.mark.nightly  # minutes of two cores: five of the eight examples measure with a real model
PAGE = Path(__file__).parents[2] / "docs" / "tuning.md"
TOPICS = ("graphs", "birds", "cooking", "music", "engines", "rivers")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module", autouse=True)
def papers(es: Elasticsearch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    records = [
        {
            "id": f"p{n}",
            "text": f"A paper on {TOPICS[n % 6]} and {TOPICS[n // 6 % 6]}, number {n}",
            "year": 2000 + n % 25,
        }
        for n in range(300)
    ]
    dead = tmp_path_factory.mktemp("dead") / "dead.jsonl"
    Indexer(es, "papers", profile=EncoderProfile("all-MiniLM-L6-v2"), dead_letters=dead).run(records)
    yield
    for index in es.indices.get(index="papers-*", expand_wildcards="all"):
        es.indices.delete(index=index)


def test_the_commands_of_the_page(
    es: Elasticsearch, server_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("queries.txt").write_text("birds at rivers\nhow engines make music\n")
    commands = [line.removeprefix("$ esvector ") for block in blocks("console") for line in block.splitlines()]
    assert len(commands) == 7
    for command in commands:
        done = run_command(server_url, *shlex.split(command))
        assert done.exit_code == 0, (command, done.output)
    assert Path("frontier.png").stat().st_size > 10_000
    assert look_up(es, "papers").passport.search is not None


def test_the_python_of_the_page(server_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    (python,) = blocks("python")
    namespace: dict[str, Any] = {}
    exec(python.replace("http://localhost:9200", server_url), namespace)
    namespace["es"].close()
    assert capsys.readouterr().out.splitlines() == ["10 20 100 True", "10 100 100 True", "True"]
