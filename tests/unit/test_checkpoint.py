"""What a job keeps on disk: whole or not at all, whatever happens to it."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
from dataclasses import replace
from pathlib import Path

import pytest

from esvector.errors import ConfigError, IndexingError, LeaseError
from esvector.index.checkpoint import Checkpoint, JobFolder
from esvector.index.window import Counts


def at(place: int) -> Checkpoint:
    counts = Counts(read=place, indexed=place - 1, dead=1)
    return Checkpoint("papers-000001", "uuid", 3, 2, place, "abc", counts, "papers.dead.jsonl")


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    made = JobFolder(tmp_path, "job")
    with made.locked():
        return made


def test_comes_back_as_it_was(folder: JobFolder) -> None:
    assert folder.load() is None
    folder.save(at(7), now=True)
    assert folder.load() == at(7)


def test_a_path_that_is_not_utf8_comes_back_too(folder: JobFolder) -> None:
    """As Python has the name of a file that a system with another encoding has written."""
    saved = replace(at(7), dead_letters="caf\udce9.jsonl")
    folder.save(saved, now=True)
    assert folder.load() == saved


def test_is_written_at_most_once_a_second_unless_asked(folder: JobFolder) -> None:
    folder.save(at(1))
    folder.save(at(2))
    assert folder.load() == at(1)
    folder.save(at(3), now=True)
    assert folder.load() == at(3)


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "gone"])
def test_a_damaged_checkpoint_is_never_believed_and_the_one_before_is(folder: JobFolder, damage: str) -> None:
    folder.save(at(1), now=True)
    folder.save(at(2), now=True)
    file = folder.path / "checkpoint"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    match damage:
        case "flip":
            file.write_bytes(data)
        case "cut":
            file.write_bytes(data[:-20])
        case "empty":
            file.write_bytes(b"")
        case _:
            file.unlink()
    assert folder.load() == at(1)


def test_every_single_flipped_bit_is_noticed(folder: JobFolder) -> None:
    folder.save(at(5), now=True)
    file = folder.path / "checkpoint"
    whole = file.read_bytes()
    for bit in range(8 * (len(whole) - 1)):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        file.write_bytes(data)
        found = folder.load()
        assert found is None or found == at(5)  # the case of a hex digit does not matter


def test_a_full_disk_stops_the_run_and_spares_the_old_checkpoint(
    folder: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.save(at(1), now=True)
    (folder.path / "checkpoint.new").symlink_to("/dev/full")
    with pytest.raises(IndexingError, match=r"cannot be written: No space left"):
        folder.save(at(2), now=True)
    (folder.path / "checkpoint.new").unlink()
    assert folder.load() == at(1)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "job").write_text("a file")
    with pytest.raises(ConfigError, match="--state"), JobFolder(tmp_path, "job").locked():
        pass


def test_another_process_is_kept_out_and_its_death_lets_us_in(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_hold, args=(tmp_path, theirs))
    process.start()
    try:
        assert ours.recv() == "locked"
        with pytest.raises(LeaseError, match="another run on this machine"), JobFolder(tmp_path, "job").locked():
            pass
    finally:
        process.kill()
        process.join()
    with JobFolder(tmp_path, "job").locked():
        pass


def _hold(path: Path, pipe: multiprocessing.connection.Connection) -> None:
    with JobFolder(path, "job").locked():
        pipe.send("locked")
        pipe.recv()


def test_its_id_stays(folder: JobFolder, tmp_path: Path) -> None:
    assert folder.owner() == folder.owner() == JobFolder(tmp_path, "job").owner()


def test_forgetting(folder: JobFolder) -> None:
    folder.save(at(1), now=True)
    folder.save(at(2), now=True)
    folder.clear()
    assert folder.load() is None
    folder.clear()
