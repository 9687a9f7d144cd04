"""Every command and example of docs/search.md that needs a server, with the real model."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from elasticsearch import Elasticsearch

from esvector import EncoderProfile, Indexer
from tests.support.commands import run_command

PAGE = Path(__file__).parents[2] / "docs" / "search.md"
PAPERS = [
    {"title": "Graph neural networks for molecules", "year": 2021, "venue": "ICML", "tenant": "acme", "lang": "en"},
    {"title": "Molecules and graph neural networks", "year": 2022, "venue": "ICML", "tenant": "acme", "lang": "en"},
    {"title": "Sailing alone around the world", "year": 2020, "venue": "Sea", "tenant": "other", "lang": "en"},
    {"title": "A history of graphs", "year": 1999, "venue": "Sea", "tenant": "other", "lang": "fr"},
]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module", autouse=True)
def indices(es: Elasticsearch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    dead = tmp_path_factory.mktemp("dead") / "dead.jsonl"
    for alias in ("papers", "questions"):
        indexer = Indexer(es, alias, profile=EncoderProfile("all-MiniLM-L6-v2"), dead_letters=dead)
        indexer.run([{"id": f"p{n}", **paper} for n, paper in enumerate(PAPERS)])
    yield
    for alias in ("papers", "questions"):
        for index in es.indices.get(index=f"{alias}-*"):
            es.indices.delete(index=index)


def test_the_commands_of_the_page(server_url: str) -> None:
    commands = [line.removeprefix("$ esvector ") for block in blocks("console") for line in block.splitlines()]
    assert len(commands) == 5
    for command in commands:
        done = run_command(server_url, *shlex.split(command))
        assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("language", "said"),
    [("searching", ["p0", "ICML", "scan: few match"]), ("scope", []), ("pairs", ["2 ("])],
)
def test_the_python_of_the_page(
    server_url: str, capsys: pytest.CaptureFixture[str], language: str, said: list[str]
) -> None:
    (block,) = blocks(language)
    namespace: dict[str, Any] = {}
    exec(block.replace("http://localhost:9200", server_url).replace("min_score=0.95", "min_score=0.9"), namespace)
    for name in ("searcher", "mine"):
        if name in namespace:
            assert namespace[name].search("graphs", k=2)
            namespace[name].client.close()
    if "es" in namespace:
        namespace["es"].close()
    printed = capsys.readouterr().out
    for part in said:
        assert part in printed
