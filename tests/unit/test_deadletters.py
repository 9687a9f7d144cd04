from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import deque
from io import FileIO
from pathlib import Path
from typing import Any

import pytest

from esvector.errors import IndexingError
from esvector.index.deadletters import MAX_KINDS, DeadLetterFile, reason_kind
from esvector.types import DeadLetter


def lines(path: Path | None) -> list[dict[str, Any]]:
    assert path is not None
    return [json.loads(line) for line in path.read_text().splitlines()]


def letter(record: Any = None, reason: str = "no text", id_: str | None = "1") -> DeadLetter:
    return DeadLetter(id_, "a.jsonl:1", reason, {"a": 1} if record is None else record)


def test_a_letter_is_a_line_at_once(tmp_path: Path) -> None:
    with DeadLetterFile(tmp_path / "dead.jsonl") as file:
        file.write(letter(), 7)
        file.write(letter("raw line", id_=None), 8)
        assert lines(tmp_path / "dead.jsonl") == [
            {"id": "1", "place": "a.jsonl:1", "number": 7, "reason": "no text", "record": {"a": 1}},
            {"id": None, "place": "a.jsonl:1", "number": 8, "reason": "no text", "record": "raw line"},
        ]
        assert (file.count, file.reasons, file.path) == (2, {"no text": 2}, tmp_path / "dead.jsonl")


def test_no_letter_no_file(tmp_path: Path) -> None:
    with DeadLetterFile(tmp_path / "dead.jsonl") as file:
        pass
    assert (file.path, file.count, list(tmp_path.iterdir())) == (None, 0, [])


def test_an_earlier_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "papers.dead.jsonl"
    for _ in range(3):
        with DeadLetterFile(path) as file:
            file.write(letter())
    assert sorted(found.name for found in tmp_path.iterdir()) == [
        "papers.dead.1.jsonl",
        "papers.dead.2.jsonl",
        "papers.dead.jsonl",
    ]
    assert all(len(lines(found)) == 1 for found in tmp_path.iterdir())


def test_a_dangling_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "dead.jsonl").symlink_to(tmp_path / "elsewhere")
    with DeadLetterFile(tmp_path / "dead.jsonl") as file:
        file.write(letter())
    assert file.path == tmp_path / "dead.1.jsonl"
    assert not (tmp_path / "elsewhere").exists()


def test_threads_do_not_mix_lines(tmp_path: Path) -> None:
    with DeadLetterFile(tmp_path / "dead.jsonl") as file:
        threads = [
            threading.Thread(target=lambda n=n: deque(map(file.write, [letter({"n": n, "x": "y" * 5_000})] * 50), 0))
            for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(lines(file.path)) == file.count == 400


class SlowFile(FileIO):
    """Opens slowly, so that threads meet there, and writes a part at a time."""

    def __init__(self, path: Path, mode: str) -> None:
        time.sleep(0.05)
        super().__init__(path, mode)

    def write(self, data: Any, /) -> int:
        return super().write(data[:7])


def test_threads_share_one_file_and_partial_writes_are_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("esvector.index.deadletters.FileIO", SlowFile)
    with DeadLetterFile(tmp_path / "dead.jsonl") as file:
        threads = [threading.Thread(target=file.write, args=(letter({"n": n}),)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [found.name for found in tmp_path.iterdir()] == ["dead.jsonl"]
    assert sorted(line["record"]["n"] for line in lines(file.path)) == [0, 1, 2, 3]


def test_records_that_json_cannot_hold(tmp_path: Path) -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    records = [{"a": {1}}, {"a": "\ud800"}, {"a": 2**70}, {5: b"\xff"}, {(1, 2): 3}, {"a": deep}, {"a": 10**5_000}]
    with DeadLetterFile(tmp_path / "dead.jsonl") as file:
        for record in records:
            file.write(letter(record))
    written = [line["record"] for line in lines(file.path)]
    assert written[:5] == [{"a": "{1}"}, {"a": "\ud800"}, {"a": 2**70}, {"5": "b'\\xff'"}, "{(1, 2): 3}"]
    assert written[5:] == ["it cannot be written", "it cannot be written"]


@pytest.mark.parametrize("record", [{"a": "é" * 2_000_000}, "é" * 2_000_000])
def test_a_long_record_is_cut_with_a_note(tmp_path: Path, record: object) -> None:
    with DeadLetterFile(tmp_path / "dead.jsonl") as file:
        file.write(letter(record))
    (line,) = lines(file.path)
    assert 990_000 < len(line["record"].encode()) <= 1_000_000
    assert line["note"].startswith("the record is cut: it has 2,000,0")


def test_a_full_disk_stops_the_run(tmp_path: Path) -> None:
    code = """
import resource, sys
from esvector.errors import IndexingError
from esvector.index.deadletters import DeadLetterFile
from esvector.types import DeadLetter
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
file = DeadLetterFile(sys.argv[1])
try:
    for n in range(100):
        file.write(DeadLetter(str(n), "p", "r", {"x": "y" * 50}))
except IndexingError as error:
    print(n, file.count, error.message)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "d.jsonl"], capture_output=True, text=True, check=True
    )
    failed, count, message = done.stdout.split(" ", 2)
    assert failed == count
    assert 5 < int(count) < 15
    assert "File too large" in message


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(IndexingError, match="No such file or directory"):
        DeadLetterFile(tmp_path / "no" / "dead.jsonl").write(letter())


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("field 'text' is a list, not a string", "field 'text' is a list, not a string"),
        ("the id in 'id' is longer than 512 bytes (514)", "the id in 'id' is longer than N bytes"),
        (
            "no text: none of 'title', 'text' has any; name one (there are: 'a')",
            "no text: none of 'title', 'text' has any",
        ),
        ("the row has 12 cells where the header has 3", "the row has N cells where the header has N"),
        ("not JSON (unexpected character, character 7 of the line)", "not JSON"),
        (
            "document_parsing_exception: [1:27] failed to parse field [year] of type [integer] in document with id 'a'"
            ". Preview of field's value: 'abc'",
            "document_parsing_exception: failed to parse field [year] of type [integer]",
        ),
        ("field 'x1' is nan, which JSON has no word for", "field 'x1' is nan, which JSON has no word for"),
        ("", "no reason given"),
    ],
)
def test_kinds_of_reasons(reason: str, kind: str) -> None:
    assert reason_kind(reason) == kind


def test_kinds_are_bounded_and_the_frequent_come_first(tmp_path: Path) -> None:
    with DeadLetterFile(tmp_path / "dead.jsonl") as file:
        for n in range(MAX_KINDS + 50):
            file.write(letter(reason=f"reason x{n}"))
    assert len(file.reasons) == MAX_KINDS + 1
    assert next(iter(file.reasons.items())) == ("other reasons", 50)
    assert sum(file.reasons.values()) == file.count == MAX_KINDS + 50
