"""The folder of query towers: complete entries or none, races, damage, and nothing heavy imported."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import pytest

from esvector.encode.query_cache import LightFacts, cache_folder, discard, find, is_intact, save

_FACTS = LightFacts("q" * 64, "onnx", 384, True, 256, True, 0)


def write(path: Path) -> None:
    path.write_bytes(b"graph")
    path.with_name("model.onnx.data").write_bytes(b"weights")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "queries"


def test_finds_what_was_saved(folder: Path) -> None:
    assert find(folder, _FACTS.query_id) is None
    saved = save(folder, _FACTS, '{"é": 1}', write)
    found = find(folder, _FACTS.query_id)
    assert found == saved
    assert found.facts == _FACTS
    assert found.tower.read_bytes() == b"graph"
    assert found.tokenizer.read_text(encoding="utf-8") == '{"é": 1}'
    assert is_intact(found)
    assert find(folder, "another") is None


def test_a_static_tower_is_a_table(folder: Path) -> None:
    facts = replace(_FACTS, kind="static", max_length=None)
    files = save(folder, facts, "{}", write)
    assert files.tower.name == "table.npy"
    assert find(folder, facts.query_id) == files


def test_is_private(folder: Path) -> None:
    files = save(folder, _FACTS, "{}", write)
    for path in (folder, files.folder, *files.folder.iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_an_id_is_no_path(folder: Path) -> None:
    facts = replace(_FACTS, query_id="../../outside")
    assert save(folder, facts, "{}", write).folder.parent == folder
    assert find(folder, facts.query_id) is not None
    discard(folder, facts.query_id)
    assert find(folder, facts.query_id) is None
    assert list(folder.iterdir()) == []


def test_a_failed_write_leaves_nothing(folder: Path) -> None:
    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save(folder, _FACTS, "{}", fail)
    assert list(folder.iterdir()) == []


def test_what_a_crash_leaves_is_not_read_and_goes_after_a_day(folder: Path) -> None:
    crashed, running = folder / ".unfinished-crashed", folder / ".unfinished-running"
    for path in (crashed, running):
        path.mkdir(parents=True)
        (path / "model.onnx").write_bytes(b"half")
    os.utime(crashed, (0, 0))
    assert find(folder, _FACTS.query_id) is None
    save(folder, _FACTS, "{}", write)
    assert not crashed.exists()
    assert running.exists()


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data", "tokenizer.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_damage_is_noticed_and_repaired_by_saving_again(folder: Path, name: str, damage: str) -> None:
    path = save(folder, _FACTS, "{}", write).folder / name
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        path.unlink()
    assert find(folder, _FACTS.query_id) is None
    save(folder, _FACTS, "{}", write)
    files = find(folder, _FACTS.query_id)
    assert files is not None
    assert is_intact(files)
    assert len(list(folder.iterdir())) == 1


def test_contents_of_the_right_size_are_checked_on_request(folder: Path) -> None:
    files = save(folder, _FACTS, "{}", write)
    files.tower.write_bytes(b"GRAPH")
    assert find(folder, _FACTS.query_id) == files
    assert not is_intact(files)
    assert is_intact(save(folder, _FACTS, "{}", write))
    discard(folder, _FACTS.query_id)
    assert not is_intact(files)
    assert find(folder, _FACTS.query_id) is None


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"facts": None},
        {"facts": {"query_id": _FACTS.query_id}},
        {"facts": {**dict.fromkeys(_FACTS.__slots__), "kind": "magic"}},
        {"files": {}},
        {"files": [1]},
    ],
)
def test_an_unknown_manifest_is_no_entry(folder: Path, change: dict[str, object]) -> None:
    path = save(folder, _FACTS, "{}", write).folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert find(folder, _FACTS.query_id) is None


@pytest.mark.parametrize("text", ["", "[]", "null", "{"])
def test_a_manifest_that_is_none_is_no_entry(folder: Path, text: str) -> None:
    (save(folder, _FACTS, "{}", write).folder / "manifest.json").write_text(text)
    assert find(folder, _FACTS.query_id) is None


def test_of_two_that_race_one_entry_remains(folder: Path) -> None:
    together = Barrier(8)

    def race(number: int) -> None:
        def write_together(path: Path) -> None:
            path.write_bytes(bytes([number]) * (number + 1))
            together.wait(20)

        save(folder, _FACTS, "{}", write_together)

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(race, number) for number in range(8)]:
            future.result(20)
    files = find(folder, _FACTS.query_id)
    assert files is not None
    assert is_intact(files)
    assert list(folder.iterdir()) == [files.folder]


def test_discarding_what_is_not_there(folder: Path) -> None:
    discard(folder, "nothing")
    assert not folder.exists()


def test_the_usual_folder_belongs_to_the_user() -> None:
    assert cache_folder().parts[-2:] == ("esvector", "queries")


def test_reading_imports_nothing_heavy(folder: Path) -> None:
    save(folder, _FACTS, "{}", write)
    code = (
        "import sys; from pathlib import Path; from esvector.encode.query_cache import find\n"
        "assert find(Path(sys.argv[1]), sys.argv[2])\n"
        "print(*{'torch', 'transformers', 'sentence_transformers', 'onnxruntime', 'numpy'} & set(sys.modules))"
    )
    arguments = [sys.executable, "-c", code, str(folder), _FACTS.query_id]
    assert subprocess.run(arguments, check=True, capture_output=True, text=True).stdout.split() in ([], ["numpy"])
