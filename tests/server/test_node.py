"""A real node: started, found, killed, started again, stopped, reset. Few starts, because each costs many seconds."""

from __future__ import annotations

import json
import os
import pwd
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from esvector.errors import NodeError
from esvector.local import Node, running_url
from esvector.local.ephemeral import ephemeral_node, guarded_home
from esvector.local.layout import Layout, default_downloads
from esvector.local.ports import free_port, is_free
from esvector.local.state import read_state, write_state
from tests.support.jvm import QUICK

START_SECONDS = 150  # on a busy machine; alone it takes 15 to 20
START = """
import json, sys
from pathlib import Path
from esvector.local import Node
status = Node(Path(sys.argv[1]), heap_mb=512, downloads=Path(sys.argv[2])).start(timeout=float(sys.argv[3]))
print(json.dumps([status.pid, status.state, status.started_here]))
"""
OWNER = """
import sys
from esvector.local.ephemeral import ephemeral_node
options = {"settings": {"node.attr.owner": "test"}, "jvm_options": sys.argv[2:]}
with ephemeral_node(timeout=float(sys.argv[1]), **options) as node:
    print(node.home, node.url, flush=True)
    sys.stdin.read()
"""


def call(url: str | None, path: str, body: dict[str, Any] | None = None, method: str = "GET") -> dict[str, Any]:
    assert url is not None
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, {"Content-Type": "application/json"}, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=30) as response:
        answer: dict[str, Any] = json.load(response)
        return answer


def count(url: str | None) -> int:
    found: int = call(url, "/kept/_count")["count"]
    return found


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Poll for what another process does; fail after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        select.select([], [], [], 0.1)


def gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with guarded_home() as folder:
        yield folder


@pytest.fixture(scope="module")
def said() -> list[str]:
    return []


@pytest.fixture(scope="module")
def node(home: Path, said: list[str]) -> Node:
    return Node(home, heap_mb=512, jvm_options=QUICK, downloads=default_downloads(), say=said.append)


@pytest.fixture(scope="module")
def started(home: Path, node: Node) -> list[tuple[int, str, bool]]:
    """What two starts at once, in two processes, gave."""

    def start(_: int) -> tuple[int, str, bool]:
        arguments = [str(home), str(default_downloads()), str(START_SECONDS)]
        done = subprocess.run([sys.executable, "-c", START, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        pid, state, here = json.loads(done.stdout)
        return pid, state, here

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(start, range(2)))


def test_two_starts_at_once_give_one_node(started: list[tuple[int, str, bool]]) -> None:
    (first, state, here), (second, other_state, other_here) = started
    assert first == second
    assert state == other_state == "running"
    assert sorted((here, other_here)) == [False, True]


@pytest.mark.usefixtures("started")
class TestRunning:
    """The node as the two starts left it."""

    def test_it_is_found_by_others(self, home: Path, node: Node) -> None:
        status = node.status()
        assert status.state == "running"
        assert status.url == running_url(home) == f"http://127.0.0.1:{status.port}"
        assert status.version == "9.5.3"
        assert status.heap_mb == 512
        assert status.data_bytes > 0
        assert not status.started_here

    def test_it_does_not_run_as_root(self, node: Node) -> None:
        pid = node.status().pid
        assert pid is not None
        (uid,) = set(psutil.Process(pid).uids())
        assert uid == node.home.joinpath("data").stat().st_uid
        if os.geteuid() != 0:
            assert uid == os.geteuid()
        else:
            assert uid not in {0, *(user.pw_uid for user in pwd.getpwall())}, "it shares its account"
            assert Path(f"/proc/{pid}/status").read_text().split("Groups:")[1].split("\n")[0].split() == []

    def test_it_listens_on_loopback_only(self, node: Node) -> None:
        pid = node.status().pid
        assert pid is not None
        listening = [c.laddr.ip for c in psutil.Process(pid).net_connections() if c.status == psutil.CONN_LISTEN]
        assert len(listening) >= 2
        assert {address.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}

    def test_the_log_is_shown(self, home: Path, node: Node) -> None:
        assert node.log_path.name == f"{Layout(home).cluster_name}.log"
        assert len(node.logs(3).splitlines()) == 3
        assert "started" in node.logs(200)

    def test_it_cannot_be_started_on_another_port(self, home: Path) -> None:
        wanted = free_port()
        with pytest.raises(NodeError, match=f"{wanted} was asked for") as caught:
            Node(home, port=wanted, downloads=default_downloads()).start()
        assert "esvector node stop" in caught.value.remedy

    def test_the_command_line_sees_it(self, home: Path, node: Node) -> None:
        code = "from esvector.cli.node import node; node()"
        environ = {**os.environ, "ESVECTOR_HOME": str(home)}
        done = subprocess.run(
            [sys.executable, "-c", code, "status"], capture_output=True, text=True, check=False, env=environ
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["pid"] == node.status().pid


@pytest.mark.usefixtures("started")
def test_after_a_kill_it_starts_on_another_port_if_need_be_and_keeps_its_data(
    home: Path, node: Node, said: list[str]
) -> None:
    before = node.status()
    assert before.pid is not None
    assert before.port is not None
    call(before.url, "/kept/_doc/1?refresh=true", {"title": "still here"}, "PUT")
    assert count(before.url) == 1
    os.kill(before.pid, signal.SIGKILL)
    until(lambda: gone(before.pid or 0) and is_free(before.port or 0), 10, "the node survived kill -9")
    assert node.status().state == "dead"
    assert running_url(home) is None

    with (
        socket.create_server(("127.0.0.1", before.port)),
        subprocess.Popen(["sleep", "600"], start_new_session=True) as bystander,
    ):
        last = read_state(Layout(home))
        assert last is not None
        # As after a reboot: the number belongs to another now.
        write_state(Layout(home), replace(last, pid=bystander.pid))
        try:
            assert node.status().state == "dead"
            after = node.start(timeout=START_SECONDS)
            assert bystander.poll() is None
        finally:
            bystander.kill()
    assert any("without being stopped" in line for line in said)
    assert after.started_here
    assert after.port != before.port
    assert count(after.url) == 1


@pytest.mark.usefixtures("started")
def test_stop_is_in_good_order_and_keeps_the_data(home: Path, node: Node) -> None:
    before = node.status()
    assert before.state == "running", "the tests of this file go in order"
    assert before.pid is not None
    after = node.stop()
    assert after.state == "stopped"
    assert gone(before.pid)
    assert before.port is not None
    assert is_free(before.port)
    assert "closed" in node.logs(3)
    assert after.data_bytes > 0
    remembered = read_state(Layout(home))
    assert remembered is not None
    assert remembered.port == before.port
    assert node.stop().state == "stopped"


@pytest.mark.usefixtures("started")
def test_a_heap_that_cannot_be_reserved_says_so(home: Path) -> None:
    huge = Node(home, heap_mb=10**9, downloads=default_downloads())
    with pytest.raises(NodeError, match="heap cannot be reserved") as caught:
        huge.start(timeout=START_SECONDS)
    assert "--heap-mb" in caught.value.remedy
    assert huge.status().state == "dead"
    assert str(huge.log_path) in caught.value.remedy
    assert huge.log_path.name == "startup.log"


@pytest.mark.usefixtures("started")
def test_reset_deletes_the_data(home: Path, node: Node) -> None:
    assert node.reset() > 0
    assert not Layout(home).data.exists()
    assert node.status().state == "stopped"
    assert node.status().data_bytes == 0
    assert node.status().url is None


def test_an_ephemeral_node_is_gone_after_its_owner_was_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(START_SECONDS), *QUICK],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as owner:
        assert owner.stdout is not None
        home_text, url = owner.stdout.readline().split()
        pid = Node(Path(home_text)).status().pid
        facts = call(url, "/_nodes/_local")["nodes"].popitem()[1]
        owner.kill()
    assert pid is not None
    assert facts["attributes"]["owner"] == "test"
    assert set(QUICK) <= set(facts["jvm"]["input_arguments"])
    until(lambda: is_free(int(url.rsplit(":", 1)[1])), 30, "the port is still open")
    until(lambda: gone(pid), 30, "the server still runs")
    until(lambda: not Path(home_text).exists(), 30, "the folder is still there")


def test_a_home_may_have_any_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    with guarded_home() as outer:
        folder = outer / "müller ☕"
        folder.mkdir(mode=0o755)
        monkeypatch.setattr("tempfile.tempdir", str(folder))
        with ephemeral_node(jvm_options=QUICK, timeout=START_SECONDS) as node:
            assert node.home.parent == folder
            call(node.url, "/kept/_doc/1?refresh=true", {"title": "still here"}, "PUT")
            assert count(node.url) == 1
            assert "started" in node.logs(200)
        assert not node.home.exists()
