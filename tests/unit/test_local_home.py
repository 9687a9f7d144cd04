"""Which folders can be a node's home, what is done there, and what is not; without a server."""

from __future__ import annotations

import errno
import os
import pwd
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cjdk
import pytest

from esvector.errors import NodeError
from esvector.local import Node, running_url
from esvector.local.account import Account, server_account
from esvector.local.java import find_java
from esvector.local.layout import Layout, make_folder
from esvector.local.process import marker
from esvector.local.state import State, read_state, write_state

ROOT = os.geteuid() == 0
STRANGER = 12_345
OTHER = 60_600  # an account of the kind that servers get
DEEP = "i=0; while [ $i -lt 1500 ]; do mkdir d && cd -P d || exit 1; i=$((i+1)); done"
STOPPED = State(pid=None, port=9200, version="9.5.3", heap_mb=512, launched=0.0)
WITHOUT_ACCOUNTS = """
import sys
from pathlib import Path
import esvector.local.node as node
from esvector.errors import NodeError

def too_early(*_):
    sys.exit("Elasticsearch or a JDK was looked for first")

node.installed_distribution = node.find_java = too_early
try:
    node.Node(Path(sys.argv[1])).start()
except NodeError as error:
    print(error.message, error.remedy)
"""


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    (tmp_path / "home").mkdir(mode=0o755)
    return Layout(tmp_path.resolve() / "home")


@pytest.fixture
def ours(layout: Layout) -> Layout:
    """A home in which a node was started before, with the folders of its server."""
    write_state(layout, STOPPED)
    server_account(layout).own(layout.server_folders)
    return layout


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def as_effective(uid: int) -> Iterator[None]:
    """As root: with the rights of another account."""
    if not ROOT:
        yield
        return
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


def as_account(uid: int | None, folder: Path, script: str) -> None:
    subprocess.run(
        ["/bin/sh", "-c", script],
        cwd=folder,
        user=uid,
        group=uid,
        extra_groups=None if uid is None else [],
        check=True,
    )


def below(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    found = {}
    for path in sorted([folder, *folder.rglob("*")]):
        facts = path.lstat()
        found[str(path)] = (facts.st_uid, facts.st_mode, path.read_bytes() if path.is_file() else b"")
    return found


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class TestLinks:
    @pytest.fixture
    def sticky(self, tmp_path: Path) -> Path:
        """A folder like /tmp."""
        folder = tmp_path / "sticky"
        folder.mkdir()
        folder.chmod(0o1777)
        return folder

    @pytest.fixture
    def target(self, tmp_path: Path) -> Path:
        """A folder of root that another account may want root to use."""
        folder = tmp_path / "target"
        folder.mkdir(mode=0o755)
        return folder

    @staticmethod
    def link(at: Path, to: Path) -> None:
        at.symlink_to(to)
        if ROOT:
            os.chown(at, STRANGER, STRANGER, follow_symlinks=False)

    @pytest.mark.parametrize("depth", ["", "below/deeper"])
    def test_a_link_of_another_account_does_not_decide_where_roots_node_is(
        self, sticky: Path, target: Path, depth: str
    ) -> None:
        self.link(sticky / "es", target)
        for act in (Node, running_url, make_folder):
            if not ROOT:
                act(sticky / "es" / depth)
                continue
            with pytest.raises(NodeError) as caught:
                act(sticky / "es" / depth)
            assert str(target.resolve() / depth) in caught.value.remedy
            assert list(target.iterdir()) == []

    @pytest.mark.parametrize("depth", ["", "below/deeper"])
    def test_nor_does_a_link_that_is_made_later(self, sticky: Path, target: Path, depth: str) -> None:
        node = Node(sticky / "es" / depth)
        self.link(sticky / "es", target)
        if not ROOT:
            make_folder(node.home)
            return
        with pytest.raises(NodeError):
            make_folder(node.home)
        assert list(target.iterdir()) == []

    @pytest.mark.parametrize("depth", ["es", "es/below/deeper"])
    def test_nor_does_one_that_is_quicker_than_root(
        self, sticky: Path, target: Path, depth: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real_mkdir = os.mkdir

        def slow_mkdir(path: Path, *args: int, **kwargs: int) -> None:
            if Path(path) == sticky / "es" and not os.path.lexists(path):
                self.link(sticky / "es", target)
            real_mkdir(path, *args, **kwargs)

        monkeypatch.setattr("os.mkdir", slow_mkdir)
        if not ROOT:
            make_folder(sticky / "none")
            return
        with pytest.raises(NodeError):
            make_folder(sticky / depth)
        assert list(target.iterdir()) == []

    def test_a_plain_user_may_use_links(self, tmp_path: Path, target: Path) -> None:
        (tmp_path / "link").symlink_to(target)
        if ROOT:
            with pytest.raises(NodeError):
                Node(tmp_path / "link")
        else:
            assert Node(tmp_path / "link").home == target.resolve()


class TestOddHomes:
    @pytest.fixture(params=["below a file", "too long", "nobody's", "loop", "zero"])
    def odd(self, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
        (tmp_path / "loop").symlink_to(tmp_path / "loop")
        (tmp_path / "file").touch()
        return {
            "below a file": tmp_path / "file/x",
            "too long": tmp_path / ("x" * 300),
            "nobody's": Path("~no-such-account/x"),
            "loop": tmp_path / "loop/x",
            "zero": Path("/tmp/a\0b"),
        }[request.param]

    @pytest.mark.parametrize("act", [Node, running_url])
    def test_it_is_refused_in_words(self, odd: Path, act: Callable[[Path], object]) -> None:
        with pytest.raises(NodeError) as caught:
            act(odd)
        assert "ESVECTOR_HOME" in caught.value.remedy


class TestFoldersOfAnApplication:
    """As where the home is a container's /app."""

    FILES = ("config/app.yml", "data/customers.csv", "logs/app.log", "tmp/x", "run/app.pid", "startup.log")

    @pytest.mark.parametrize("name", [*FILES, "state.json"])
    @pytest.mark.parametrize("act", ["start", "reset"])
    def test_it_is_left_as_it_is(self, layout: Layout, name: str, act: str) -> None:
        path = layout.home / name
        path.parent.mkdir(exist_ok=True)
        path.write_text('{"mine": 1}')
        before = below(layout.home)
        with pytest.raises(NodeError) as caught:
            getattr(Node(layout.home), act)()
        assert str(layout.home) in caught.value.message
        assert "ESVECTOR_HOME" in caught.value.remedy
        assert below(layout.home) == before

    def test_empty_folders_and_those_of_a_node_are_taken(self, layout: Layout) -> None:
        layout.data.mkdir()
        assert Node(layout.home).reset() == 0
        assert not layout.data.exists()
        write_state(layout, STOPPED)
        layout.data.mkdir()
        (layout.data / "segment").write_text("12345")
        assert Node(layout.home).reset() == 5
        assert not layout.data.exists()


class TestPrivateFiles:
    def test_other_accounts_cannot_change_what_is_remembered(self, layout: Layout) -> None:
        with umask(0):
            write_state(layout, STOPPED)
        assert mode(layout.state_file) == 0o600
        left = layout.state_file.with_suffix(".partial")
        left.touch()
        left.chmod(0o666)
        write_state(layout, STOPPED)
        assert mode(layout.state_file) == 0o600

    def test_a_node_of_another_account_is_not_said_to_be_stopped(self, layout: Layout) -> None:
        write_state(layout, STOPPED)
        layout.home.parent.chmod(0o755)
        if not ROOT:
            layout.state_file.chmod(0)
        with as_effective(STRANGER), pytest.raises(NodeError) as caught:
            read_state(layout)
        assert "ESVECTOR_URL" in caught.value.remedy

    @pytest.mark.parametrize("older", [True, False])
    def test_other_accounts_cannot_hold_the_lock(self, layout: Layout, older: bool) -> None:
        if older:
            layout.lock_file.touch()
            layout.lock_file.chmod(0o644)
        with umask(0):
            Node(layout.home).stop()
        assert mode(layout.lock_file) == 0o600

    def test_other_accounts_cannot_change_a_jdk_that_was_fetched(
        self, layout: Layout, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fetch(cache_dir: Path, **_: object) -> Path:
            (cache_dir / "jdk/bin").mkdir(parents=True)
            java = cache_dir / "jdk/bin/java"
            java.write_text("#!/bin/sh\necho 'openjdk version \"25.0.1\"'\n")
            java.chmod(0o755)
            return cache_dir / "jdk"

        monkeypatch.setattr(cjdk, "java_home", fetch)
        for mask in (0, 0o077):
            downloads = layout.home / f"downloads-{mask}"
            with umask(mask):
                found = find_java(Account("current user"), downloads, lambda _: None, {}, ())
            assert found.version == 25
            # The lock is private; the JDK has to be open to the account of root's server.
            modes = {mode(path) for path in downloads.rglob("*") if path.is_dir()}
            assert modes == {0o755}
            assert mode(downloads / "jdk.lock") == 0o600


class TestAccount:
    def test_a_root_that_cannot_change_accounts_is_told_so_first(self, layout: Layout) -> None:
        command = [sys.executable, "-c", WITHOUT_ACCOUNTS, str(layout.home)]
        limited = ["setpriv", "--bounding-set=-setuid,-setgid"] if ROOT else []
        done = subprocess.run([*limited, *command], capture_output=True, text=True, check=False)
        if ROOT:
            assert (done.returncode, done.stderr) == (0, "")
            assert "account" in done.stdout
            assert "SETUID" in done.stdout
        else:
            assert "looked for first" in done.stderr, "a plain user changes no account"

    def test_a_node_is_found_while_its_data_are_moved_away(self, layout: Layout) -> None:
        uid = OTHER if ROOT else os.geteuid()
        command = ["java", "-c", "read x; exit", marker(layout.home)]
        with subprocess.Popen(
            command,
            executable="/bin/sh",
            stdin=subprocess.PIPE,
            user=uid if ROOT else None,
            extra_groups=[] if ROOT else None,
            start_new_session=True,
            cwd="/",
        ) as server:
            try:
                write_state(layout, State(server.pid, 1, "9.5.3", 512, 0.0, uid=uid))
                assert running_url(layout.home) is not None
                assert Node(layout.home).stop().state == "stopped"
                assert server.wait(timeout=30) < 0
                assert running_url(layout.home) is None
            finally:
                server.kill()
                server.communicate()


class TestOddData:
    @pytest.fixture(autouse=True)
    def leave_nothing_deep(self, layout: Layout) -> Iterator[None]:
        """Pytest itself cannot delete such folders."""
        yield
        subprocess.run(["rm", "-rf", layout.data], check=True)

    def test_any_depth_is_measured_and_deleted(self, ours: Layout) -> None:
        uid = server_account(ours).uid
        as_account(uid, ours.data, DEEP)
        (ours.data / "segment").write_text("12345")
        node = Node(ours.home)
        assert node.status().data_bytes == 5
        assert node.stop().state == "stopped"
        assert node.reset() == 5
        assert not any(folder.exists() for folder in ours.server_folders)

    def test_closed_folders_are_deleted(self, ours: Layout) -> None:
        uid = server_account(ours).uid
        as_account(uid, ours.data, "mkdir -p x/y .z; touch x/y/f .z/f; chmod 0 x/y; chmod 0 x .z; chmod 0 .")
        Node(ours.home).reset()
        assert not any(folder.exists() for folder in ours.server_folders)

    def test_more_files_than_a_command_line_holds_are_deleted(self, ours: Layout) -> None:
        account = server_account(ours)
        for number in range(40_000):
            (ours.temporary / f"a-temporary-file-of-the-server-with-a-long-name-{number:08}-{'x' * 20}").touch()
        account.empty(ours.temporary)
        assert list(ours.temporary.iterdir()) == []

    def test_what_was_nobodys_and_is_too_deep_is_refused_in_words(self, ours: Layout) -> None:
        as_account(None, ours.data, DEEP)
        if ROOT:
            nobody = pwd.getpwnam("nobody").pw_uid
            subprocess.run(["chown", "-R", str(nobody), ours.data], check=True)
            with pytest.raises(NodeError):
                Node(ours.home).reset()
            assert ours.data.stat().st_uid == nobody

    def test_data_on_another_disk_by_a_link_are_measured_and_deleted(self, layout: Layout, tmp_path: Path) -> None:
        write_state(layout, STOPPED)
        layout.config.mkdir()
        (layout.config / "kept").touch()
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere/segment").write_text("12345")
        layout.data.symlink_to(tmp_path / "elsewhere")
        assert Node(layout.home).status().data_bytes == 5
        if ROOT:
            with pytest.raises(NodeError):
                Node(layout.home).reset()
            assert (layout.config / "kept").exists(), "nothing is deleted before that is said"
        else:
            assert Node(layout.home).reset() == 5
            assert list(layout.data.iterdir()) == []
            assert not layout.config.exists()
            assert not layout.state_file.exists()

    def test_data_on_another_disk_by_a_mount_are_deleted(self, ours: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
        """Not everyone may mount: what the system answers to the removal of a mount is put in its place."""
        server_account(ours).write(ours.data, "indices/segment", "12345")
        real_rmdir = os.rmdir

        def rmdir(path: Path) -> None:
            if Path(path) == ours.data:
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(path))
            real_rmdir(path)

        monkeypatch.setattr("os.rmdir", rmdir)
        assert Node(ours.home).reset() == 5
        assert list(ours.data.iterdir()) == []
        assert not ours.config.exists()
        assert not ours.state_file.exists()
