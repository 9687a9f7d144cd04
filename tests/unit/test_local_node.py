"""The parts of the local node that need no server: configuration, ports, memory, failures, stale files."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner

from esvector.cli.node import node as command
from esvector.errors import ConfigError, NodeError
from esvector.local import Node, running_url
from esvector.local.failures import PortTakenError, startup_error, tail
from esvector.local.guard import clean_up
from esvector.local.java import Jdk
from esvector.local.layout import Layout
from esvector.local.ports import choose_port, free_port, is_free
from esvector.local.process import launch_options, marker
from esvector.local.settings import default_heap_mb, elasticsearch_yml, jvm_options
from esvector.local.state import State, read_state, write_state


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path.resolve())


def state(pid: int | None, port: int = 9200) -> State:
    return State(pid=pid, port=port, version="9.5.3", heap_mb=512, launched=0.0)


def parsed(text: str) -> dict[str, str]:
    """Read elasticsearch.yml as esvector writes it: one ``key: "value"`` a line."""
    pairs = (line.split(": ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {key: json.loads(value) for key, value in pairs}


class TestConfiguration:
    def test_it_listens_on_loopback_only_with_its_own_name(self, layout: Layout) -> None:
        settings = parsed(elasticsearch_yml(layout, 9201, {}))
        assert settings["network.host"] == "127.0.0.1"
        assert settings["http.port"] == "9201"
        assert settings["cluster.name"] == layout.cluster_name
        assert settings["discovery.type"] == "single-node"

    def test_each_home_has_its_own_name(self) -> None:
        assert Layout(Path("/a")).cluster_name != Layout(Path("/b")).cluster_name

    def test_the_disk_thresholds_are_bytes_and_on(self, layout: Layout) -> None:
        settings = parsed(elasticsearch_yml(layout, 9201, {}))
        assert "cluster.routing.allocation.disk.threshold_enabled" not in settings
        for mark in ("low", "high", "flood_stage"):
            assert settings[f"cluster.routing.allocation.disk.watermark.{mark}"].endswith("mb")

    def test_a_setting_of_the_user_wins_and_odd_characters_survive(self, layout: Layout) -> None:
        given = {"transport.port": "9555", "node.attr.note": 'a: "b" #c ü'}
        settings = parsed(elasticsearch_yml(layout, 9201, given))
        assert settings["transport.port"] == "9555"
        assert settings["node.attr.note"] == 'a: "b" #c ü'

    @pytest.mark.parametrize(
        "key",
        [
            *("network.host", "http.host", "http.publish_host", "http.port", "path.data"),
            *("http.host: 0.0.0.0\nnode.attr.x", "\nhttp.host", "http.host\r", "{http.host", "http.host ", "a..b", ""),
        ],
    )
    def test_a_setting_that_would_open_or_hide_the_node_is_refused(self, tmp_path: Path, key: str) -> None:
        with pytest.raises(ConfigError) as caught:
            Node(tmp_path, settings={key: "0.0.0.0"})
        assert repr(key) in caught.value.message

    def test_a_value_stays_one_value_whatever_is_in_it(self, layout: Layout) -> None:
        text = elasticsearch_yml(layout, 9201, {"node.attr.note": "x\nhttp.host: 0.0.0.0"})
        assert parsed(text)["node.attr.note"] == "x\nhttp.host: 0.0.0.0"
        assert "\nhttp.host" not in text

    def test_the_jvm_gets_the_heap_and_the_mark_of_its_home(self, layout: Layout) -> None:
        options = jvm_options(layout, 700).splitlines()
        assert {"-Xms700m", "-Xmx700m", marker(layout.home)} <= set(options)

    @pytest.mark.parametrize(
        ("total", "available", "heap"),
        [(2048, 1500, 512), (8192, 6000, 1024), (16384, 3000, 1500), (262144, 200000, 4096)],
    )
    def test_the_heap_follows_the_machine(self, total: int, available: int, heap: int) -> None:
        assert default_heap_mb(total, available) == heap


class TestPorts:
    def test_a_port_asked_for_that_is_taken_is_an_error(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            assert not is_free(port)
            with pytest.raises(NodeError, match=f"port {port} is taken") as caught:
                choose_port(port, None)
            assert "--port" in caught.value.remedy

    def test_a_port_taken_on_every_interface_is_taken(self) -> None:
        with socket.create_server(("0.0.0.0", 0)) as taken:
            assert not is_free(taken.getsockname()[1])

    def test_the_last_port_comes_before_another(self) -> None:
        last = free_port()
        assert choose_port(None, last) == last
        with socket.create_server(("127.0.0.1", last)):
            chosen = choose_port(None, last)
            assert chosen != last
            assert is_free(chosen)


class TestFailures:
    @pytest.mark.parametrize(
        ("line", "words", "remedy"),
        [
            ("BindHttpException[Failed to bind to 127.0.0.1:9200]", "port", "--port"),
            ("java.io.IOException: No space left on device", "disk is full", "ESVECTOR_HOME"),
            ("Error: Could not reserve enough space for 9 object heap", "heap", "--heap-mb"),
            ("IllegalArgumentException: unknown setting [a.b]", "setting", "correct"),
            ("bootstrap check failure [1] of [1]: memory locking", "bootstrap check", "correct"),
            ("failed to obtain node locks, tried [/x]", "same data", "stop it"),
        ],
    )
    def test_the_cause_is_named_with_its_line_and_remedy(self, line: str, words: str, remedy: str) -> None:
        error = startup_error(["starting", f"[ERROR] {line}", "\tat java.base/x"], Path("/logs/es.log"))
        assert words in error.message
        assert line in error.message
        assert "starting\n" not in error.message
        assert remedy in error.remedy
        assert "/logs/es.log" in error.remedy

    def test_a_taken_port_can_be_told_apart(self) -> None:
        assert isinstance(startup_error(["java.net.BindException"], Path("x")), PortTakenError)

    def test_an_unknown_cause_shows_the_last_lines_without_stack_traces(self) -> None:
        printed = [f"line {n}" for n in range(20)] + ["Exception: odd", "\tat a.b.C(D.java)", "\t... 3 more"]
        message = startup_error(printed, Path("x")).message
        assert "Exception: odd" in message
        assert "line 19" in message
        assert "line 3" not in message
        assert "D.java" not in message

    def test_silence_is_an_error_too(self) -> None:
        assert "printed nothing" in startup_error([], Path("x")).message

    def test_tail(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        log.write_text("".join(f"{n}\n" for n in range(100_000)))
        assert tail(log, 2) == ["99998", "99999"]
        assert tail(tmp_path / "missing", 2) == []

    def test_a_log_line_does_nothing_to_a_terminal(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        log.write_text("\x1b]0;title\x07\tünder\x9b2J\n")
        assert tail(log, 1) == [
            "\N{REPLACEMENT CHARACTER}]0;title\N{REPLACEMENT CHARACTER}\tünder\N{REPLACEMENT CHARACTER}2J"
        ]


class TestStaleFiles:
    def test_a_pid_of_another_process_is_not_the_node(self, layout: Layout) -> None:
        layout.data.mkdir()
        write_state(layout, state(pid=os.getpid()))
        assert running_url(layout.home) is None
        assert Node(layout.home).status().state == "dead"

    @pytest.mark.parametrize("end", ["stop", "reset", "clean_up"])
    def test_what_merely_names_the_node_is_not_touched(self, layout: Layout, end: str) -> None:
        layout.data.mkdir()
        layout.run.mkdir()
        layout.pid_file.write_text("1")
        waiting = [sys.executable, "-c", "input()"]
        named: tuple[list[str], ...] = (
            ["-d", "-p", str(layout.pid_file), "-n"],
            [str(layout.pid_file)],
            [marker(layout.home)],
            [],
        )
        bystanders = [
            subprocess.Popen([*waiting, *words], stdin=subprocess.PIPE, start_new_session=True) for words in named
        ]
        write_state(layout, state(pid=bystanders[1].pid))
        try:
            if end == "clean_up":
                clean_up(layout.home)
                assert not layout.home.exists()
            else:
                getattr(Node(layout.home), end)()
                assert Node(layout.home).status().state == "stopped"
            assert [process.poll() for process in bystanders] == [None] * len(bystanders)
        finally:
            for process in bystanders:
                process.kill()
                process.communicate()

    @pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}', '{"pid": "x", "port": 1}'])
    def test_a_damaged_state_file_counts_as_none(self, layout: Layout, content: str) -> None:
        layout.state_file.write_text(content)
        assert read_state(layout) is None
        assert Node(layout.home).status().state == "stopped"

    def test_nothing_was_ever_started(self, tmp_path: Path) -> None:
        local = Node(tmp_path / "none")
        assert local.status().state == "stopped"
        assert local.stop().state == "stopped"
        assert local.logs() == ""
        assert local.reset() == 0
        assert running_url(tmp_path / "none") is None
        assert not (tmp_path / "none").exists()


def test_a_full_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from esvector.local.account import Account
    from esvector.local.launch import Launch, launch

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(10**12, 10**12, 300_000_000))
    with pytest.raises(NodeError, match=r"only 300 MB are free .* needs 1000 MB") as caught:
        launch(Launch(Layout(tmp_path), Account("me"), tmp_path, tmp_path, 9200, 512, {}))
    assert "make room" in caught.value.remedy


def test_a_second_start_waits_for_the_first_and_finds_its_node(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    launched: list[subprocess.Popen[bytes]] = []
    both_inside = threading.Barrier(2)
    layout.data.mkdir()

    def launch(_: object) -> State:
        with suppress(threading.BrokenBarrierError):
            both_inside.wait(timeout=1)  # what must not happen has a second to happen
        command = [sys.executable, "-c", "input()", *launch_options(layout)]
        launched.append(subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True))
        return state(launched[-1].pid)

    monkeypatch.setattr("esvector.local.node.launch", launch)
    monkeypatch.setattr("esvector.local.node.installed_distribution", lambda *_: layout.home)
    monkeypatch.setattr("esvector.local.node.find_java", lambda *_: Jdk(layout.home, 25, "test"))
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: Node(layout.home).start(wait=False), range(2)))
    for process in launched:
        process.communicate()
    assert [status.pid for status in found] == [launched[0].pid] * 2
    assert len(launched) == 1


def test_asking_for_the_url_imports_nothing_heavy() -> None:
    code = (
        "import sys; from esvector.local import running_url; import esvector.cli.node;"
        "print([m for m in ('psutil', 'jgo', 'cjdk', 'elasticsearch', 'rich', 'requests') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class TestCommand:
    def test_status_of_nothing_is_one_json_object_and_exit_status_1(self, tmp_path: Path) -> None:
        result = CliRunner().invoke(command, ["status"], env={"ESVECTOR_HOME": str(tmp_path)})
        assert result.exit_code == 1
        assert json.loads(result.stdout)["state"] == "stopped"

    def test_reset_without_a_terminal_needs_yes(self, layout: Layout) -> None:
        layout.data.mkdir()
        result = CliRunner().invoke(command, ["reset"], env={"ESVECTOR_HOME": str(layout.home)})
        assert result.exit_code == 2
        assert "--yes" in result.stderr
        assert layout.data.exists()
        assert CliRunner().invoke(command, ["reset", "--yes"], env={"ESVECTOR_HOME": str(layout.home)}).exit_code == 0
        assert not layout.data.exists()

    def test_a_setting_without_a_value_is_a_usage_error(self, tmp_path: Path) -> None:
        result = CliRunner().invoke(command, ["start", "--setting", "a"], env={"ESVECTOR_HOME": str(tmp_path)})
        assert result.exit_code == 2
        assert "KEY=VALUE" in result.stderr

    @pytest.mark.parametrize("name", ["start", "stop", "status", "logs", "reset"])
    def test_every_command_has_help_with_an_example(self, name: str) -> None:
        shown = CliRunner().invoke(command, [name, "--help"]).stdout
        assert f"esvector node {name}" in shown
