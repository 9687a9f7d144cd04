"""The local node: start, wait, stop, look, reset."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from esvector.errors import NodeError, require
from esvector.local.account import delete_server_folders, server_account
from esvector.local.distribution import installed_distribution
from esvector.local.failures import LOG_BYTES, PortTakenError, last_lines, startup_error, tail
from esvector.local.health import ask_health
from esvector.local.java import find_java
from esvector.local.launch import Launch, launch
from esvector.local.layout import Layout, default_downloads, default_home, make_folder, private_lock, trusted
from esvector.local.memory import machine_memory_mb
from esvector.local.ports import choose_port, wait_until_free
from esvector.local.process import POLL_SECONDS, end, live_pid
from esvector.local.settings import check_settings, default_heap_mb
from esvector.local.state import check_ours, read_state, write_state
from esvector.local.status import NodeStatus, bytes_below, look

__all__ = ["Node", "NodeStatus"]

_log = logging.getLogger(__name__)

_LOCK_SECONDS = 120.0
_PORT_ATTEMPTS = 3


class Node:
    """A real single-node Elasticsearch on this machine, for demos, development and tests; listens on loopback only.

    ``home`` is where it keeps everything (default: a folder of this user). ``port`` None means the port it used last if
    that is free, else 9200, else a free one. ``heap_mb`` is the Java heap in MB (default: by the machine's memory).
    ``settings`` are more lines for elasticsearch.yml, ``jvm_options`` more options of its JVM. ``downloads`` is where
    Elasticsearch and, if need be, a JDK are fetched to (default: below ``home`` if that is given, else a cache folder
    of this user). ``say`` receives one-line messages for a person (default: the log). ``environ`` gives ES_JAVA_HOME,
    JAVA_HOME and PATH (default: the environment of this process).
    """

    def __init__(
        self,
        home: Path | None = None,
        *,
        port: int | None = None,
        heap_mb: int | None = None,
        settings: Mapping[str, str] | None = None,
        jvm_options: Sequence[str] = (),
        downloads: Path | None = None,
        say: Callable[[str], None] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        require("local", "cjdk", "filelock", "jgo", "psutil")
        self._layout = Layout(trusted(home or default_home()))
        default = default_downloads() if home is None else self._layout.home / "downloads"
        self._downloads = trusted(downloads or default)
        self._port = port
        self._heap_mb = heap_mb
        self._settings = check_settings(settings or {})
        self._jvm_options = tuple(jvm_options)
        self._say = say or _log.info
        self._environ = environ
        self._started_pid: int | None = None

    @property
    def home(self) -> Path:
        """The folder that holds the node's data, logs and state."""
        return self._layout.home

    @property
    def url(self) -> str | None:
        """The URL of the last start, None if there was none."""
        state = read_state(self._layout)
        return state.url if state else None

    @property
    def log_path(self) -> Path:
        """The log of the last start: the server's own or, if it did not get so far, what was printed until then."""
        server, startup = self._layout.server_log, self._layout.startup_log
        # The server appends to its log across starts; the other file is new with each.
        begun = read_state(self._layout)
        with suppress(OSError):
            if begun and server.lstat().st_mtime >= begun.launched:
                return server
        return startup if startup.exists() else server

    def start(self, wait: bool = True, timeout: float = 60) -> NodeStatus:
        """Start the node unless it runs, and return its status; two starts at once give one node.

        With ``wait``, return when it is healthy: at most ``timeout`` seconds after its launch (fetching Elasticsearch,
        the first time, is not counted). Without, return at once; call ``wait_healthy`` later. Raises NodeError.
        """
        for attempt in range(_PORT_ATTEMPTS):
            self._ensure_launched()
            if not wait:
                break
            try:
                return self.wait_healthy(timeout)
            except PortTakenError:
                if self._port is not None or attempt == _PORT_ATTEMPTS - 1:
                    raise
        return self.status()

    def _ensure_launched(self) -> None:
        check_ours(self._layout)
        server_account(self._layout).check_can_run()
        distribution = installed_distribution(self._downloads, self._say)
        java_home = find_java(server_account(self._layout), self._downloads, self._say, self._environ).home
        with self._locked():
            if live_pid(self._layout) is not None:
                self._check_running_suits()
                return
            last = read_state(self._layout)
            if last is not None and last.pid is not None:
                self._say("The node ended without being stopped (killed, failed, or a restart); its data is kept.")
                wait_until_free(last.port)
            check_ours(self._layout)
            this = Launch(
                layout=self._layout,
                account=server_account(self._layout),  # not that of above: another start may have chosen meanwhile
                distribution=distribution,
                java_home=java_home,
                port=choose_port(self._port, last.port if last else None),
                heap_mb=self._heap_mb or default_heap_mb(*machine_memory_mb()),
                settings=self._settings,
                jvm_options=self._jvm_options,
            )
            started = launch(this)
            write_state(self._layout, started)
            self._started_pid = started.pid

    def _check_running_suits(self) -> None:
        state = read_state(self._layout)
        if state is None:
            return
        for name, wanted, actual in (("port", self._port, state.port), ("heap_mb", self._heap_mb, state.heap_mb)):
            if wanted is not None and wanted != actual:
                raise NodeError(
                    f"the node already runs with {name} {actual}, and {wanted} was asked for",
                    "stop it first: esvector node stop",
                )

    def wait_healthy(self, timeout: float = 60) -> NodeStatus:
        """Return when the node answers and all its primary shards are there.

        Raises NodeError, with the reason that it printed, when it ends before that; or after ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            state = read_state(self._layout)
            if state is None or live_pid(self._layout) is None:
                raise startup_error(tail(self._layout.startup_log, 400), self.log_path)
            health = ask_health(state.url)
            if health and health.cluster_name == self._layout.cluster_name and health.usable:
                return self.status()
            if time.monotonic() > deadline:
                seen = f"its health is {health.status}" if health else "it does not answer"
                raise NodeError(
                    f"the node is not healthy after {timeout:g} s: {seen}",
                    f"give it more time (esvector node status), or look into its log: {self.log_path}",
                )
            time.sleep(POLL_SECONDS)

    def stop(self, timeout: float = 30) -> NodeStatus:
        """Stop the node in good order; after ``timeout`` seconds, kill it. Data is kept. Raises NodeError."""
        if self.home.is_dir():
            with self._locked():
                self._end(timeout)
        return self.status()

    def _end(self, timeout: float) -> None:
        pid = live_pid(self._layout)
        if pid is not None and not end(self._layout, signal.SIGTERM, timeout):
            self._say(f"The node did not stop within {timeout:g} s; killing it. Acknowledged writes are not lost.")
            if not end(self._layout, signal.SIGKILL, 10):
                raise NodeError(f"the node (process {pid}) cannot be stopped", f"look at it: ps -fp {pid}")
        state = read_state(self._layout)
        if state is not None:
            if pid is not None:
                wait_until_free(state.port)
            write_state(self._layout, replace(state, pid=None))

    def status(self) -> NodeStatus:
        """Look at the node now."""
        return look(self._layout, self._started_pid)

    def logs(self, lines: int = 50) -> str:
        """Return the last ``lines`` lines of the log; empty when there is none."""
        path = self.log_path
        if path == self._layout.startup_log:
            return "\n".join(tail(path, lines))
        return "\n".join(last_lines(server_account(self._layout).read_end(path.parent, path.name, LOG_BYTES), lines))

    def reset(self) -> int:
        """Stop the node and delete its data and logs; return the bytes of data deleted. Downloads are kept.

        Raises NodeError when something cannot be deleted.
        """
        if not self.home.is_dir():
            return 0
        check_ours(self._layout)
        with self._locked():
            self._end(timeout=10)
            freed = bytes_below(self._layout.data)
            try:
                delete_server_folders(self._layout)
                for file in (self._layout.startup_log, self._layout.state_file):
                    file.unlink(missing_ok=True)
            except OSError as error:
                raise NodeError(
                    f"not everything below {self.home} can be deleted: {error}", "do it as the account that owns it"
                ) from error
            return freed

    @contextmanager
    def _locked(self) -> Iterator[None]:
        from filelock import Timeout

        try:
            make_folder(self.home)
            lock = private_lock(self._layout.lock_file, _LOCK_SECONDS)
            lock.acquire()
        except Timeout:
            raise NodeError(
                f"another esvector has been starting or stopping this node for {_LOCK_SECONDS:g} s",
                f"wait for it, or end it (it holds {self._layout.lock_file})",
            ) from None
        except OSError as error:
            raise NodeError(
                f"the node's folder {self.home} cannot be used: {error}",
                "correct its permissions, or choose another folder with ESVECTOR_HOME",
            ) from error
        try:
            yield
        finally:
            lock.release()
