"""Input that repeats itself or ends too early, files that are full, readers that are gone: whole runs."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from elasticsearch import Elasticsearch

from esvector import Indexer, read_documents
from esvector.errors import HopelessInputError, IndexingError, SourceError
from esvector.index import packing
from esvector.index.versions import list_versions
from esvector.types import IndexReport
from tests.support.crash_rounds import Records, papers, write_source
from tests.support.encoders import HashEncoder
from tests.support.judge import judge

Index = Callable[..., IndexReport]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def index(es: Elasticsearch, alias: str, tmp_path: Path) -> Index:
    def run(records: Any, **options: Any) -> IndexReport:
        options = {"into": alias, "state": tmp_path / "state", "dead_letters": tmp_path / "dead.jsonl", **options}
        return Indexer(es, options.pop("into"), encoder=HashEncoder(), **options).run(records)

    return run


def test_repeated_ids_end_as_with_one_sender(index: Index, es: Elasticsearch, alias: str) -> None:
    """A twentieth of the records repeat an id, near and far; eight senders make what one makes."""
    order = random.Random(30)
    records: Records = papers(4000)
    for number in range(4000, 4200):
        repeated = records[order.randrange(4000)]
        records.insert(order.randrange(len(records)), {**repeated, "text": f"edition {number}", "year": number})
    one = index(records, senders=1, into=f"{alias}-one", body_bytes=20_000)
    sequential = judge(es, f"{alias}-one", records, HashEncoder(), report=one)
    eight = index(records, senders=8, body_bytes=20_000)
    judge(es, alias, records, HashEncoder(), report=eight, undisturbed=sequential.digest)
    assert eight.superseded == 200


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_a_source_that_is_cut_prunes_nothing(
    index: Index, es: Elasticsearch, alias: str, tmp_path: Path, share: float
) -> None:
    index(papers(3000))
    source = tmp_path / "papers.jsonl.gz"
    whole = gzip.compress(write_source(tmp_path / "papers.jsonl", papers(3000)).read_bytes())
    source.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(SourceError, match="cannot be read on from line"):
        index(read_documents(source), prune=True, most_pruned=1.0)
    judge(es, alias, papers(3000), HashEncoder())
    source.write_bytes(whole)
    report = index(read_documents(source), prune=True)
    assert (report.unchanged, report.pruned) == (3000, 0)


def test_records_that_all_fail_end_the_run_with_one_message(index: Index, es: Elasticsearch, alias: str) -> None:
    taken = 0

    def source() -> Any:
        nonlocal taken
        for taken in range(1, 1_000_001):
            yield {"id": taken, "words": "no text in this field"}

    with pytest.raises(HopelessInputError, match=r"none of the first \d+ records could be indexed\. The first refused"):
        index(source())
    assert taken < 5000
    assert list_versions(es, alias) == []


FULL = """
import resource, sys
from pathlib import Path
from esvector import Indexer, connect
from esvector.errors import IndexingError
from tests.support.encoders import HashEncoder

url, alias, limit = sys.argv[1], sys.argv[2], int(sys.argv[3])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
records = [{"id": str(n)} | ({} if n % 4 == 3 else {"text": f"text {n}"}) for n in range(3000)]
indexer = Indexer(connect(url, {}), alias, encoder=HashEncoder(), state="state", dead_letters="dead.jsonl")
try:
    report = indexer.run(records)
    print(report.indexed, report.dead)
except IndexingError as error:
    print(error.message)
"""


def test_dead_letters_that_find_no_room_end_the_run(
    server_url: str, es: Elasticsearch, alias: str, tmp_path: Path
) -> None:
    """None is dropped; with room, the same run finishes and has all of them."""

    def run(limit: int) -> str:
        command = [sys.executable, "-c", FULL, server_url, alias, str(limit)]
        environ = {"PYTHONPATH": str(ROOT)}
        return subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=True).stdout

    assert "File too large" in run(20_000)
    assert not es.indices.exists_alias(name=alias)
    for letters in tmp_path.glob("dead*"):
        letters.unlink()
    assert run(0) == "2250 750\n"
    assert len((tmp_path / "dead.jsonl").read_text().splitlines()) == 750


def test_vectors_of_another_byte_order_do_not_pass_the_judge(
    index: Index, es: Elasticsearch, alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mutant that would be right on no machine: what is stored is read back and compared after every fault."""
    index(papers(50))
    judge(es, alias, papers(50), HashEncoder())
    right = packing._base64_rows
    monkeypatch.setattr(packing, "_base64_rows", lambda vectors: right(vectors.byteswap()))
    with pytest.raises((AssertionError, IndexingError)):
        judge(es, alias, papers(50), HashEncoder(), report=index(papers(50), rebuild=True))


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_nobody_who_reads_what_is_said(
    server_url: str, es: Elasticsearch, alias: str, tmp_path: Path, stream: str
) -> None:
    """As in ``esvector index ... | head -1`` and ``2>&1 | head -1``: the load is what counts, and it is finished."""
    write_source(tmp_path / "papers.jsonl", papers(100))
    command = [
        sys.executable,
        "-m",
        "esvector",
        "index",
        "papers.jsonl",
        "--into",
        alias,
        "--model",
        "all-MiniLM-L6-v2",
    ]
    reader, writer = os.pipe()
    os.close(reader)
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: writer}
    environ = os.environ | {"ESVECTOR_URL": server_url}
    try:
        done = subprocess.run(command, cwd=tmp_path, env=environ, check=False, **streams)
    finally:
        os.close(writer)
    assert done.returncode == 0, done.stderr
    assert es.count(index=alias)["count"] == 100
    if stream == "stderr":
        assert json.loads(done.stdout)["indexed"] == 100
