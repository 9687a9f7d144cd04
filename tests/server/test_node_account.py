"""What the account of root's server may change leads root nowhere: not to write, not to read, not to delete.

The attack: all that this account may replace in the node's folders becomes a link to what only root may read and write.
A plain user's node has no such border, because everything is the user's; there the tests see whose everything is.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from esvector.errors import NodeError
from esvector.local import Node
from esvector.local.ephemeral import guarded_home
from esvector.local.layout import default_downloads
from tests.support.jvm import QUICK

START_SECONDS = 150
SECRET = "canary-4711"
ROOT = os.geteuid() == 0
# As the server's account: each file below the folders given, then each folder in them, becomes a link. Then what is not
# there, but was while the server ran, or would be at the next start.
ATTACKS = {
    "files": 'find "$@" ! -type d -exec sh -c \'for f; do ln -sfn "$CANARY/file" "$f"; done\' sh {} + 2>/dev/null',
    "folders": """
        for top; do for entry in "$top"/* "$top"/.[!.]*; do
          [ -d "$entry" ] && mv "$entry" "$entry.away" && ln -s "$CANARY" "$entry"
        done; done
    """,
}
ADD = 'for f; do [ -e "$f" ] || [ -L "$f" ] || ln -s "$CANARY/file" "$f"; done 2>/dev/null'
WRITTEN = ("startup.log", "server.pid", "jvm.options.d", "esvector.options", "elasticsearch.keystore.tmp", "node.lock")

Facts = tuple[int, int, int, int, bytes]


def facts_below(folder: Path) -> dict[str, Facts]:
    """Owner, group, mode, links and content of everything at and below ``folder``."""
    found: dict[str, Facts] = {}
    for path in sorted([folder, *folder.rglob("*")]):
        facts = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[str(path)] = (facts.st_uid, facts.st_gid, facts.st_mode, facts.st_nlink, content)
    return found


def owners_below(folders: list[Path]) -> set[int]:
    return {path.lstat().st_uid for folder in folders for path in [folder, *folder.rglob("*")]}


def as_account(uid: int, script: str, *args: str, **environ: str) -> None:
    """Run a shell script as the server's account; what it may not do, it leaves."""
    subprocess.run(
        ["/bin/sh", "-c", script, "sh", *args],
        env={"PATH": os.defpath, **environ},
        user=uid,
        group=uid,
        extra_groups=[],
        cwd="/",
        check=False,
    )


def call(node: Node, path: str, body: dict[str, Any] | None = None, method: str = "GET") -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{node.url}{path}", data, {"Content-Type": "application/json"}, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=30) as response:
        answer: dict[str, Any] = json.load(response)
        return answer


def node_in(home: Path) -> Node:
    return Node(home, heap_mb=512, jvm_options=QUICK, downloads=default_downloads())


def folders_of(uid: int, home: Path) -> list[Path]:
    return [path for path in home.iterdir() if path.is_dir() and path.lstat().st_uid == uid]


@pytest.fixture(scope="module")
def stopped() -> Iterator[tuple[Path, int]]:
    """The home of a node that was started, has a document, and was stopped; and as whom it ran."""
    with guarded_home() as home:
        node = node_in(home)
        pid = node.start(timeout=START_SECONDS).pid
        assert pid is not None
        uid = psutil.Process(pid).uids().real
        assert pwd_name(uid) is None if ROOT else uid == os.geteuid()
        call(node, "/kept/_doc/1?refresh=true", {"title": "still here"}, "PUT")
        call(node, "/kept/_settings", {"index.blocks.write": True}, "PUT")
        call(node, "/kept/_clone/cloned?wait_for_active_shards=1", method="PUT")  # files with two links
        node.stop()
        yield home, uid


def pwd_name(uid: int) -> str | None:
    with suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return None


@pytest.fixture
def home(stopped: tuple[Path, int]) -> Iterator[Path]:
    """A copy of it, links and owners included."""
    with guarded_home() as folder:
        subprocess.run(["cp", "-a", f"{stopped[0]}/.", str(folder)], check=True)
        yield folder


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A folder that only its owner may enter, with files of the names that a node writes."""
    folder = tmp_path / "canary"
    folder.mkdir(mode=0o700)
    for name in ("file", "elasticsearch.yml", "jvm.options", *WRITTEN):
        (folder / name).write_text(f"{SECRET}\n")
        (folder / name).chmod(0o600)
        os.utime(folder / name, (time.time() + 86_400,) * 2)  # newer than any start: the log that `logs` would choose
    return folder


def test_what_the_server_wrote_is_its_own_and_closed_to_others(stopped: tuple[Path, int]) -> None:
    home, uid = stopped
    folders = [home / name for name in ("config", "data", "logs", "tmp", "run")]
    assert owners_below(folders) == {uid}
    assert {path.stat().st_mode & 0o777 for path in folders} == {0o700}
    for path in (path for folder in folders for path in folder.rglob("*")):
        assert path.stat().st_mode & 0o007 == 0, path
    assert (home / "config/elasticsearch.yml").stat().st_mode & 0o777 == 0o600
    assert (home / "startup.log").stat().st_mode & 0o777 == 0o600
    assert owners_below([home / "startup.log"]) == {os.geteuid()}


@pytest.mark.parametrize("attack", ATTACKS)
def test_links_of_the_server_lead_root_nowhere(
    stopped: tuple[Path, int], home: Path, canary: Path, attack: str, capfd: pytest.CaptureFixture[str]
) -> None:
    uid, folders = stopped[1], folders_of(stopped[1], home)
    node = node_in(home)
    if not ROOT:
        assert owners_below([home]) == {uid} == {os.geteuid()}
        return
    assert len(folders) == 5
    before = facts_below(canary)
    more = [str(path / name) for top in folders for path in [top, *top.rglob("*/")] for name in WRITTEN]
    logs = [str(folder / node.log_path.name) for folder in folders]
    as_account(uid, ATTACKS[attack], *map(str, folders), CANARY=str(canary))
    as_account(uid, ADD, *more, *logs, CANARY=str(canary))
    links = [path for folder in folders for path in folder.rglob("*") if path.is_symlink()]
    assert len(links) > 20

    shown = [repr(node.status()), node.logs(400)]
    for act in (lambda: node.start(timeout=START_SECONDS), node.stop, node.reset):
        try:
            act()
        except NodeError as error:  # that a server does not start on such folders is right, too
            shown.append(f"{error.message} {error.remedy}")
        shown += [repr(node.status()), node.logs(400)]
        assert facts_below(canary) == before
    assert not any(folder.exists() for folder in folders)
    assert SECRET not in "".join(shown) + "".join(capfd.readouterr())


def test_a_node_that_ran_as_nobody_keeps_its_data_and_takes_nothing_of_others(
    stopped: tuple[Path, int], home: Path, canary: Path
) -> None:
    uid, node = stopped[1], node_in(home)
    if ROOT:
        nobody = pwd.getpwnam("nobody")
        for folder in folders_of(uid, home):
            subprocess.run(["chown", "-R", f"{nobody.pw_uid}:{nobody.pw_gid}", str(folder)], check=True)
            folder.chmod(0o755)
        for name in ("jvm.options.d", "jvm.options.d/esvector.options", "elasticsearch.yml", "jvm.options"):
            shutil.chown(home / "config" / name, 0, 0)  # as older versions wrote them
        for place in (home / name for name in ("config", "data", "logs", "data/_state")):
            os.link(canary / "file", place / "linked")
            (place / "link").symlink_to(canary / "file")
            (place / "folder").symlink_to(canary)
            os.mkfifo(place / "pipe")
    before = facts_below(canary)
    node.start(timeout=START_SECONDS)
    assert call(node, "/kept/_count")["count"] == call(node, "/cloned/_count")["count"] == 1
    assert facts_below(canary) == before
    node.stop()
    if ROOT:
        owner = node.home.joinpath("data").stat().st_uid
        assert owner not in (0, nobody.pw_uid)
        assert pwd_name(owner) is None
        assert owners_below([home / "data"]) - {0, nobody.pw_uid} == {owner}
    node.reset()
    assert facts_below(canary).keys() == before.keys()
    assert (canary / "file").read_text() == f"{SECRET}\n"
