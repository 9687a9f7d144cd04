"""Queries, judgements and runs: what is read, and what is refused with file, line and value."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from esvector.errors import ConfigError, SourceError
from esvector.evaluate import find_beir, read_qrels, read_queries, read_run, write_run

Write = Callable[[str], Path]


@pytest.fixture(params=["plain", "gzipped"])
def write(request: pytest.FixtureRequest, tmp_path: Path) -> Write:
    """A file with this text. What is gzipped is told by its content, whatever its name."""

    def write(text: str) -> Path:
        path = tmp_path / "file"
        path.write_bytes(gzip.compress(text.encode()) if request.param == "gzipped" else text.encode())
        return path

    return write


@pytest.mark.parametrize(
    "text",
    [
        '{"_id": "q1", "text": "a cat"}\n{"_id": "2", "text": "a\\tdog", "more": 1}\n',
        '{"id": "q1", "text": "a cat"}\r\n\r\n{"id": 2, "text": "a\\tdog"}',
        "\ufeffq1\ta cat\n2\ta\tdog\n",
    ],
)
def test_queries(write: Write, text: str) -> None:
    assert read_queries(write(text)) == {"q1": "a cat", "2": "a\tdog"}


@pytest.mark.parametrize(
    "text",
    [
        "query-id\tcorpus-id\tscore\nq1\tdoc one\t2\nq1\td2\t0\nq2\td1\t-1\n",
        "q1 0 doc-one 2\nq1 0 d2 0\n\nq2\t0\td1\t-1\n",
        "Query_ID\tCorpus_ID\tScore\r\nq1\tdoc-one\t2\r\nq1\td2\t0\r\nq2\td1\t-1",
    ],
)
def test_qrels(write: Write, text: str) -> None:
    one = "doc one" if "doc one" in text else "doc-one"
    assert read_qrels(write(text)) == {"q1": {one: 2, "d2": 0}, "q2": {"d1": -1}}


def test_a_run_is_ranked_by_score_and_among_equals_by_rank(write: Write) -> None:
    run = read_run(write("q1 Q0 a 3 0.5 t\nq1 Q0 b 2 0.5 t\nq2 Q0 a 1 -1e3 t\nq1 Q0 c 4 0.75 t\n"))
    assert {query: list(hits.items()) for query, hits in run.items()} == {
        "q1": [("c", 0.75), ("b", 0.5), ("a", 0.5)],
        "q2": [("a", -1000.0)],
    }


@pytest.mark.parametrize("name", ["x.run", "x.run.gz"])
def test_a_run_comes_back_as_it_was_written(tmp_path: Path, name: str) -> None:
    run = {"q1": {"b": 0.1 + 0.2, "a": 0.3, "z": 0.3, "c": 0.3}, "q2": {"ä": 1e-9}}
    write_run(tmp_path / name, run, tag="mine")
    back = read_run(tmp_path / name)
    assert [list(hits.items()) for hits in back.values()] == [list(hits.items()) for hits in run.values()]
    assert (tmp_path / name).read_bytes().startswith(b"\x1f\x8b") == name.endswith(".gz")
    if name == "x.run":
        assert (tmp_path / name).read_text().splitlines()[1] == "q1 Q0 a 2 0.3 mine"


def test_an_id_that_a_run_file_cannot_hold_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'New York' cannot stand in a run file"):
        write_run(tmp_path / "x.run", {"q1": {"a": 1.0, "New York": 0.5}})
    assert not list(tmp_path.iterdir())


def test_a_run_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be written to .*nowhere"):
        write_run(tmp_path / "nowhere" / "x.run", {"q1": {"a": 1.0}})


@pytest.mark.parametrize(
    ("read", "text", "line", "said"),
    [
        (read_queries, '{"_id": "q1", "text": "x"}\nq2\ty\n', 2, "not JSON"),
        (read_queries, '{"_id": "q1", "body": "x"}\n', 1, 'no _id and text in \'{"_id": "q1", "body": "x"}\''),
        (read_queries, '{"_id": null, "text": "x"}\n', 1, "no _id and text"),
        (read_queries, '{"_id": "q1", "text": "x"}\n["q2", "y"]\n', 2, "no _id and text"),
        (read_queries, "q1\tx\nq2 y\n", 2, "no tab in 'q2 y'"),
        (read_queries, "<top>\n<num> 1\n", 1, "no tab in '<top>'"),
        (read_queries, "q1\tx\nq2\ty\nq1\tz\n", 3, "the query 'q1' comes a second time"),
        (read_queries, '{"_id": "q1", "text": " "}\n', 1, "the query 'q1' has no text"),
        (read_qrels, "query-id\tcorpus-id\tscore\nq1\td1\tyes\n", 2, "the relevance 'yes' is not a whole number"),
        (read_qrels, "query-id\tcorpus-id\tscore\nq1\td1\t1.5\n", 2, "the relevance '1.5' is not a whole number"),
        (read_qrels, "question\tanswer\tgrade\nq1\td1\t1\n", 1, "the relevance 'grade' is not a whole number"),
        (read_qrels, "q1 0 d1 1\nq1 0 d2\n", 2, "3 columns in 'q1 0 d2', the lines before have 4"),
        (read_qrels, "q1 d1\n", 1, "2 columns in 'q1 d1'"),
        (read_qrels, "q1\t\t1\n", 1, "3 columns"),
        (read_qrels, "q1 0 d1 1\nq2 0 d1 1\nq1 0 d1 0\n", 3, "'d1' is judged a second time for the query 'q1'"),
        (read_run, "q1 Q0 d1 1 0.5 t\nq1 Q0 d2 2 high t\n", 2, "the score 'high' is not a finite number"),
        (read_run, "q1 Q0 d1 1 nan t\n", 1, "the score 'nan' is not a finite number"),
        (read_run, "q1 Q0 d1 first 0.5 t\n", 1, "the rank 'first' is not a finite number"),
        (read_run, "q1 Q0 d1 1 0.5 t\nq1 Q0 d1 2 0.4 t\n", 2, "'d1' is found a second time for the query 'q1'"),
        (read_run, "q1 Q0 d1 1 0.5\n", 1, "5 columns"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_place(
    write: Write, read: Callable[[Path], object], text: str, line: int, said: str
) -> None:
    path = write(text)
    with pytest.raises(SourceError) as error:
        read(path)
    assert error.value.message.startswith(f"{path}:{line}")
    assert said in error.value.message
    assert error.value.remedy


@pytest.mark.parametrize("read", [read_queries, read_qrels, read_run])
def test_files_that_are_no_files_of_text(tmp_path: Path, read: Callable[[Path], object]) -> None:
    path = tmp_path / "x"
    with pytest.raises(SourceError, match="no such file"):
        read(path)
    with pytest.raises(SourceError, match="cannot be read"):
        read(tmp_path)
    path.write_bytes(b"\n")
    with pytest.raises(SourceError, match="has no "):
        read(path)
    path.write_bytes(gzip.compress(b"\n" * 99)[:-9])
    with pytest.raises(SourceError, match="cannot be read after line"):
        read(path)
    path.write_bytes(b"\xff\xff\n")
    with pytest.raises(SourceError, match="x:1 is not UTF-8"):
        read(path)


def test_the_files_of_a_beir_folder(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"has no queries\.jsonl"):
        find_beir(tmp_path)
    (tmp_path / "queries.jsonl.gz").touch()
    with pytest.raises(SourceError, match=r"has no qrels\.tsv or qrels/test\.tsv"):
        find_beir(tmp_path)
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").touch()
    assert find_beir(tmp_path) == (tmp_path / "queries.jsonl.gz", tmp_path / "qrels" / "test.tsv")
