"""Every example of docs/versions.md."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from elasticsearch import Elasticsearch

from esvector import Indexer
from esvector.index.versions import list_versions
from tests.support.commands import run_command
from tests.support.encoders import HashEncoder

PAGE = Path(__file__).parents[2] / "docs" / "versions.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def papers(es: Elasticsearch, tmp_path: Path) -> Iterator[None]:
    for text in ("one", "two"):
        indexer = Indexer(es, "papers", encoder=HashEncoder(), rebuild=True, dead_letters=tmp_path / "dead.jsonl")
        indexer.run([{"id": text, "text": text}])
    yield
    for index in es.indices.get(index="papers-*"):
        es.indices.delete(index=index)


@pytest.mark.usefixtures("papers")
def test_the_commands_of_the_page(es: Elasticsearch, server_url: str) -> None:
    versions, reembed = (
        [line.removeprefix("$ esvector ") for line in block.splitlines()] for block in blocks("console")
    )
    assert (len(versions), len(reembed)) == (5, 1)
    for command in versions:
        assert run_command(server_url, *command.split()).exit_code == 0
    assert [(version.index, version.live) for version in list_versions(es, "papers")] == [("papers-000002", True)]
    done = run_command(server_url, *reembed[0].split())
    assert done.exit_code == 0, done.output
    assert [(version.index, version.live) for version in list_versions(es, "papers")] == [
        ("papers-000002", False),
        ("papers-000003", True),
    ]


@pytest.mark.usefixtures("papers")
def test_the_python_of_the_page(es: Elasticsearch, server_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    (python,) = blocks("python")
    namespace: dict[str, Any] = {}
    exec(python.replace("http://localhost:9200", server_url), namespace)
    namespace["es"].close()
    assert capsys.readouterr().out.splitlines() == [
        "papers-000001 live 1 None",
        "papers-000002 kept 1 papers-000001",
    ]
    assert [version.index for version in list_versions(es, "papers")] == ["papers-000001"]
