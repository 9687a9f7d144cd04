"""Folders, processes and logs of the server's account, and where the border to root runs; without a server.

As a plain user there is no border: then the tests see that everything is the user's.
"""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from esvector.errors import NodeError
from esvector.local import Node, handover, running_url
from esvector.local.account import server_account
from esvector.local.handover import hand_over
from esvector.local.layout import Layout, make_folder
from esvector.local.state import State, write_state

ROOT = os.geteuid() == 0
SECRET = "canary-4711"
OTHER = 60_600  # an account of the kind that servers get
OWNER = """
import sys
from esvector.local.ephemeral import guarded_home
with guarded_home() as home:
    print(home, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    (tmp_path / "home").mkdir(mode=0o755)
    return Layout(tmp_path / "home")


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    path = tmp_path / "canary"
    path.write_text(f"{SECRET}\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def nobody() -> int:
    return pwd.getpwnam("nobody").pw_uid if ROOT else os.geteuid()


def owned(path: Path, uid: int, mode: int = 0o644, content: str | None = "") -> Path:
    """A file of that account, a folder when there is no content."""
    if content is None:
        path.mkdir()
    else:
        path.write_text(content)
    path.chmod(mode)
    if ROOT:
        os.chown(path, uid, uid)
    return path


def facts(path: Path) -> tuple[int, int, str]:
    seen = path.stat()
    return seen.st_uid, seen.st_mode & 0o777, path.read_text()


class TestAccount:
    def test_it_is_no_account_of_anything_else(self, layout: Layout) -> None:
        uid = server_account(layout).uid
        if not ROOT:
            assert uid is None
            return
        assert uid is not None
        with pytest.raises(KeyError):
            pwd.getpwuid(uid)
        assert uid not in {process.uids().real for process in psutil.process_iter()}

    def test_the_owner_of_the_folders_is_the_record_of_it(self, layout: Layout) -> None:
        account = server_account(layout)
        account.own(layout.server_folders)
        assert {(path.stat().st_uid, path.stat().st_mode & 0o777) for path in layout.server_folders} == {
            (account.uid or os.geteuid(), 0o700)
        }
        if ROOT:
            os.chown(layout.config, OTHER, OTHER)
            for folder in layout.server_folders:
                os.chown(folder, OTHER, OTHER)
            assert server_account(layout).uid == OTHER

    def test_a_number_in_use_is_passed_over(self, layout: Layout) -> None:
        first = server_account(layout)
        if not ROOT:
            assert first == server_account(layout)
            return
        with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, user=first.uid, extra_groups=[]) as running:
            assert server_account(layout).uid != first.uid
            running.communicate()
        assert server_account(layout) == first

    def test_it_writes_and_deletes_what_it_may_and_no_more(self, layout: Layout, canary: Path) -> None:
        account = server_account(layout)
        account.own(layout.server_folders)
        linked = layout.config / "elasticsearch.yml"
        linked.symlink_to(canary)
        account.write(layout.config, linked.name, "a: ü\n")
        assert facts(linked) == (account.uid or os.geteuid(), 0o600, "a: ü\n")
        (layout.temporary / ".hidden").symlink_to(canary)
        (layout.temporary / "folder").symlink_to(canary.parent)
        account.empty(layout.temporary)
        assert list(layout.temporary.iterdir()) == []
        assert facts(canary) == (os.geteuid(), 0o600, f"{SECRET}\n")

    def test_a_log_that_leads_elsewhere_is_not_shown(self, layout: Layout, canary: Path) -> None:
        server_account(layout).own(layout.server_folders)
        write_state(layout, State(pid=None, port=9200, version="9.5.3", heap_mb=512, launched=0.0))
        layout.server_log.symlink_to(canary)
        shown = Node(layout.home).logs()
        assert shown == ("" if ROOT else SECRET), "a plain user's log may lie where the user wants it"
        layout.server_log.unlink()
        server_account(layout).write(layout.logs, layout.server_log.name, "one\ntwo\n")
        assert Node(layout.home).logs(1) == "two"
        layout.server_log.unlink()
        os.mkfifo(layout.server_log)
        assert Node(layout.home).logs() == ""


class TestFoldersOfOthers:
    """As root: what another account could change is refused before anything in it is read."""

    @pytest.mark.parametrize("mode", [0o755, 0o775, 0o1777])
    @pytest.mark.parametrize("depth", ["home", "home/below", "home/below/deeper"])
    def test_a_home_that_another_account_could_change_is_refused(self, layout: Layout, depth: str, mode: int) -> None:
        if ROOT and mode == 0o755:
            os.chown(layout.home, OTHER, OTHER)
        layout.home.chmod(mode)
        home = layout.home.parent / depth
        allowed = not ROOT or (mode == 0o1777 and home != layout.home)
        for act in (Node, running_url, make_folder):
            if allowed:
                act(home)
            else:
                with pytest.raises(NodeError) as caught:
                    act(home)
                assert str(layout.home) in caught.value.message
                assert "ESVECTOR_HOME" in caught.value.remedy
        assert home.exists() == (allowed or home == layout.home)

    def test_a_folder_of_a_stranger_is_refused(self, layout: Layout) -> None:
        owned(layout.data, 12_345, 0o755, None)
        if ROOT:
            with pytest.raises(NodeError, match="12345"):
                server_account(layout).own(layout.server_folders)
            assert layout.data.stat().st_uid == 12_345
        else:
            server_account(layout).own(layout.server_folders)

    def test_a_folder_that_is_a_link_is_refused(self, layout: Layout, tmp_path: Path) -> None:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir(mode=0o755)
        layout.data.symlink_to(elsewhere)
        account = server_account(layout)
        if ROOT:
            with pytest.raises(NodeError, match="link"):
                account.own(layout.server_folders)
            assert elsewhere.stat().st_uid == 0
        else:
            account.own(layout.server_folders)


class TestHandOver:
    """From ``nobody``, as whom older versions ran root's server. A plain user hands over to itself."""

    @pytest.fixture
    def uid(self) -> int:
        return OTHER if ROOT else os.geteuid()

    @pytest.fixture
    def folder(self, layout: Layout, nobody: int, canary: Path) -> Path:
        """As an older version left it, with what an attacker could add."""
        owned(layout.data, nobody, 0o755, None)
        owned(layout.data / "segment", nobody, 0o644, "kept")
        os.link(layout.data / "segment", layout.data / "cloned")
        owned(layout.data / "inner", nobody, 0o755, None)
        owned(layout.data / "inner/.deep", nobody, 0o644, "kept")
        owned(layout.data / "by-root", 0, 0o755, None)
        os.link(canary, layout.data / "inner/hard")
        (layout.data / "inner/soft").symlink_to(canary)
        (layout.data / "inner/away").symlink_to(canary.parent)
        os.mkfifo(layout.data / "inner/pipe")
        return layout.data

    def test_what_was_nobodys_is_the_accounts_alone(self, folder: Path, uid: int, canary: Path) -> None:
        if not ROOT:
            server_account(Layout(folder.parent)).own([folder])
            assert folder.stat().st_mode & 0o777 == 0o700
            return
        hand_over(folder, uid)
        for name in ("segment", "cloned", "inner/.deep"):
            assert facts(folder / name) == (uid, 0o600, "kept")
        for path in (folder, folder / "inner", folder / "by-root"):
            assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (uid, 0o700)
        assert facts(canary) == (0, 0o600, f"{SECRET}\n")
        assert canary.parent.stat().st_uid == 0

    @pytest.mark.parametrize("kind", ["symbolic", "hard"])
    def test_what_is_swapped_at_the_last_moment_is_not_followed(
        self, folder: Path, uid: int, canary: Path, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real_open, target = os.open, folder / "inner/.deep"

        def swapping_open(path: str | Path, flags: int, *args: int, dir_fd: int | None = None) -> int:
            if path == ".deep":
                target.unlink()
                os.link(canary, target) if kind == "hard" else target.symlink_to(canary)
            return real_open(path, flags, *args, dir_fd=dir_fd)

        monkeypatch.setattr("os.open", swapping_open)
        if ROOT and kind == "symbolic":
            with pytest.raises(OSError):
                hand_over(folder, uid)
        elif ROOT:
            hand_over(folder, uid)
        assert facts(canary) == (os.geteuid(), 0o600, f"{SECRET}\n")

    def test_one_that_ended_half_way_goes_on(
        self, folder: Path, uid: int, nobody: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if not ROOT:
            assert folder.stat().st_uid == uid
            return

        def full(*_: int) -> None:
            raise OSError("Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr("os.fchmod", full)
            with pytest.raises(OSError):
                hand_over(folder, uid)
        assert folder.stat().st_uid == nobody
        hand_over(folder, uid)
        assert {path.lstat().st_uid for path in folder.rglob("*") if path.is_dir() and not path.is_symlink()} == {uid}
        assert facts(folder / "inner/.deep") == (uid, 0o600, "kept")


class TestGuard:
    @pytest.fixture
    def strange(self, tmp_path: Path) -> Path:
        """A folder of a stranger's: what it holds of the names that the guard imports leaves a mark when run."""
        folder = tmp_path / "strange"
        folder.mkdir()
        for name in ("psutil.py", "shutil.py", "signal.py", "pathlib.py", "esvector.py", "sitecustomize.py"):
            (folder / name).write_text(f"open({str(tmp_path / 'mark')!r}, 'a').write({name!r})\n")
        return folder

    @pytest.fixture
    def owner(self, strange: Path) -> Iterator[subprocess.Popen[str]]:
        package = str(Path(handover.__file__).parents[2])
        environ = os.environ | {
            "PYTHONPATH": os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])]),
            "ESVECTOR_PASSWORD": SECRET,
            "ESVECTOR_API_KEY": SECRET,
        }
        command = [sys.executable, "-P", "-c", OWNER]
        with subprocess.Popen(
            command, cwd=strange, env=environ, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            yield process
            process.kill()

    def test_it_knows_no_secret_and_runs_nothing_of_the_current_folder(
        self, owner: subprocess.Popen[str], tmp_path: Path
    ) -> None:
        assert owner.stdout is not None
        home = Path(owner.stdout.readline().strip())
        (guard,) = psutil.Process(owner.pid).children()
        assert home.is_dir()
        assert SECRET not in guard.environ().values()
        owner.kill()
        guard.wait(timeout=60)
        assert not home.exists()
        assert not (tmp_path / "mark").exists()
