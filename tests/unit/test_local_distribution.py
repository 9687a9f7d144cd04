"""A download arrives complete and verified, or not at all."""

from __future__ import annotations

import hashlib
import os
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from esvector.errors import NodeError
from esvector.local.distribution import installed_distribution


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A small zip of the shape of the real one: private files, one of them executable."""
    path = tmp_path / "elasticsearch.zip"
    with zipfile.ZipFile(path, "w") as opened:
        for name, mode in (("bin/elasticsearch", 0o100755), ("config/jvm.options", 0o100660)):
            member = zipfile.ZipInfo(f"elasticsearch-9/{name}")
            member.external_attr = mode << 16
            opened.writestr(member, name * 100)
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def copying(content: bytes) -> Callable[[Path], Path]:
    """Return what stands in for the download: it writes ``content`` where the real one writes."""

    def fetch(folder: Path) -> Path:
        target = folder / "repository" / "elasticsearch.zip"
        target.parent.mkdir(parents=True)
        target.write_bytes(content)
        return target

    return fetch


def quiet(_: str) -> None:
    pass


def left_in(downloads: Path) -> list[str]:
    return [path.name for path in downloads.iterdir() if path.suffix != ".lock"]


def test_it_is_unpacked_for_every_account_and_fetched_once(tmp_path: Path, archive: Path) -> None:
    said: list[str] = []
    downloads = tmp_path / "downloads"
    old_mask = os.umask(0o077)
    try:
        folder = installed_distribution(downloads, said.append, copying(archive.read_bytes()), sha256(archive))
    finally:
        os.umask(old_mask)
    modes = {
        name: (folder / name).stat().st_mode & 0o777 for name in ("bin/elasticsearch", "config/jvm.options", "bin")
    }
    assert modes == {"bin/elasticsearch": 0o755, "config/jvm.options": 0o644, "bin": 0o755}
    assert folder.stat().st_mode & 0o777 == 0o755
    assert left_in(downloads) == [folder.name]
    assert "132 MB" in said[0]

    def never(_: Path) -> Path:
        raise AssertionError("fetched again")

    assert installed_distribution(downloads, said.append, never) == folder
    assert len(said) == 1


@pytest.mark.parametrize("damage", ["cut", "changed", "empty"])
def test_a_broken_download_leaves_nothing_and_the_next_start_works(tmp_path: Path, archive: Path, damage: str) -> None:
    good = archive.read_bytes()
    bad = {"cut": good[:-100], "changed": good[:50] + b"?" + good[51:], "empty": b""}[damage]
    downloads = tmp_path / "downloads"
    with pytest.raises(NodeError) as caught:
        installed_distribution(downloads, quiet, copying(bad), sha256(archive))
    assert f"{len(bad)} bytes" in caught.value.message
    assert sha256(archive) in caught.value.message
    assert "start again" in caught.value.remedy
    assert left_in(downloads) == []
    assert installed_distribution(downloads, quiet, copying(good), sha256(archive)).is_dir()


def test_a_failing_connection_is_a_clear_error(tmp_path: Path) -> None:
    from requests import ConnectionError as NoConnection

    def fetch(folder: Path) -> Path:
        (folder / "partial").write_text("half")
        raise NoConnection("no route to host")

    with pytest.raises(NodeError, match="cannot be downloaded: no route to host") as caught:
        installed_distribution(tmp_path / "downloads", quiet, fetch)
    assert "Maven Central" in caught.value.remedy
    assert left_in(tmp_path / "downloads") == []


def test_what_a_killed_download_left_is_removed(tmp_path: Path, archive: Path) -> None:
    leftover = tmp_path / "downloads" / ".fetch-killed"
    leftover.mkdir(parents=True)
    (leftover / "half.zip").write_text("half")
    folder = installed_distribution(tmp_path / "downloads", quiet, copying(archive.read_bytes()), sha256(archive))
    assert left_in(tmp_path / "downloads") == [folder.name]


def test_a_full_disk_is_refused_before_the_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(10**9, 10**9 - 12_000_000, 12_000_000))
    with pytest.raises(NodeError, match=r"12 MB are free at .* needs 600 MB") as caught:
        installed_distribution(tmp_path / "downloads", quiet)
    assert "make room" in caught.value.remedy


def test_two_at_once_fetch_once(tmp_path: Path, archive: Path) -> None:
    fetched: list[Path] = []
    both_ready = threading.Barrier(2)

    def fetch(folder: Path) -> Path:
        fetched.append(folder)
        return copying(archive.read_bytes())(folder)

    def start() -> None:
        both_ready.wait()
        installed_distribution(tmp_path / "downloads", quiet, fetch, sha256(archive))

    threads = [threading.Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fetched) == 1
