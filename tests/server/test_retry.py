"""Dead letters, mended and indexed again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from elasticsearch import Elasticsearch

from esvector import Indexer
from esvector.errors import SourceError
from esvector.index.deadletters import DeadLetters
from tests.support.encoders import HashEncoder


def test_mended_letters_are_indexed_and_the_others_rejected_again(
    es: Elasticsearch, alias: str, tmp_path: Path
) -> None:
    letters = tmp_path / "dead.jsonl"
    indexer = Indexer(es, alias, encoder=HashEncoder(), dead_letters=letters)
    records: list[dict[str, Any]] = [
        {"id": "a", "text": "fine", "year": 2001},
        {"id": "b", "text": "fine", "year": "n.d."},
        {"id": "c"},
    ]
    records += [{"id": str(n), "text": f"text {n}", "year": 2000} for n in range(40)]
    assert indexer.run(records).dead == 2
    lines = [json.loads(line) for line in letters.read_text().splitlines()]
    by_id = {line["id"]: line for line in lines}
    by_id["b"]["record"]["year"] = 1999
    letters.write_text("".join(json.dumps(line) + "\n" for line in lines))
    report = indexer.run(DeadLetters(letters))
    assert (report.read, report.indexed, report.dead) == (2, 1, 1)
    es.indices.refresh(index=alias)
    assert es.get(index=alias, id="b")["_source"]["year"] == 1999
    assert es.count(index=alias)["count"] == 42
    again = tmp_path / "dead.1.jsonl"
    assert report.dead_letters == str(again)
    assert [json.loads(line)["id"] for line in again.read_text().splitlines()] == ["c"]


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is no file"):
        DeadLetters(tmp_path / "nothing.jsonl")
    other = tmp_path / "papers.jsonl"
    other.write_text('{"id": "a", "text": "b"}\n')
    with pytest.raises(SourceError, match=r"papers\.jsonl:1 is no dead letter"):
        list(DeadLetters(other))
