"""Real servers that a test pauses, kills and starts again, alone or three of them as one cluster.

    with three_nodes() as cluster:
        cluster.wait("green", nodes=3)
        cluster.primary_of("papers-000001").kill()

They are gone with the block, and with the process that runs it, ``kill -9`` included: each has a guard of its own.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import elasticsearch
from elasticsearch import Elasticsearch

from esvector.local.account import server_account
from esvector.local.distribution import installed_distribution
from esvector.local.ephemeral import guarded_home
from esvector.local.failures import startup_error, tail
from esvector.local.health import ask_health
from esvector.local.java import find_java
from esvector.local.launch import Launch, launch
from esvector.local.layout import Layout, default_downloads
from esvector.local.ports import free_port, wait_until_free
from esvector.local.process import our_pids
from tests.support.jvm import QUICK

__all__ = ["Cluster", "RealNode", "Server", "real_node", "three_nodes"]

START_SECONDS = 240.0  # until three of them answer, on a busy machine with two cores
_log = logging.getLogger(__name__)


class Server:
    """The server of ``home``, by its process; whoever started it, such as a ``Node``."""

    def __init__(self, home: Path) -> None:
        self.layout = Layout(home)

    @property
    def pids(self) -> list[int]:
        """Its processes, found by their command lines: the server, and what launches it while it starts."""
        return our_pids(self.layout)

    def pause(self) -> None:
        """Stand still, as in a long garbage collection: connections stay, nothing answers."""
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        """Go on after ``pause``."""
        self._send(signal.SIGCONT)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stand still for the length of the block."""
        self.pause()
        try:
            yield
        finally:
            self.resume()

    def kill(self) -> None:
        """Die at once (SIGKILL); returns when it is gone."""
        self._send(signal.SIGKILL)
        self._await_end(30)

    def terminate(self) -> None:
        """End in good order (SIGTERM); returns when it is gone."""
        self._send(signal.SIGTERM)
        self._await_end(90)

    def _send(self, number: signal.Signals) -> None:
        pids = self.pids
        assert pids, f"no server runs in {self.layout.home}"
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _await_end(self, seconds: float) -> None:
        _poll(lambda: not self.pids, seconds, f"the server in {self.layout.home} did not end")


class RealNode(Server):
    """A server on a port of its own of loopback, with its data below ``home``; ``settings`` go over the usual ones."""

    def __init__(self, home: Path, port: int, settings: Mapping[str, str], heap_mb: int = 512) -> None:
        super().__init__(home)
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._settings = dict(settings)
        self._heap_mb = heap_mb

    @property
    def name(self) -> str:
        """Its name in the cluster."""
        return self._settings.get("node.name", "local")

    def start(self) -> None:
        """Start it, again on the same data and port where it ran before; returns at once."""
        assert not self.pids, "it runs already"
        wait_until_free(self.port)
        account, downloads = server_account(self.layout), default_downloads()
        launch(
            Launch(
                layout=self.layout,
                account=account,
                distribution=installed_distribution(downloads, _log.info),
                java_home=find_java(account, downloads, _log.info, None).home,
                port=self.port,
                heap_mb=self._heap_mb,
                settings=self._settings,
                jvm_options=QUICK,
            )
        )

    @property
    def answers(self) -> bool:
        """Whether it answers requests now."""
        return ask_health(self.url) is not None

    def wait(self, seconds: float = START_SECONDS) -> None:
        """Return when it answers with all primary shards in place. Raises NodeError when it ends before that."""
        _poll(self._is_usable, seconds, f"{self.name} is not healthy")

    def _is_usable(self) -> bool:
        if not self.pids:
            raise startup_error(tail(self.layout.startup_log, 400), self.layout.startup_log)
        health = ask_health(self.url)
        return health is not None and health.usable


class Cluster:
    """Nodes that know each other. ``url`` names those of all, separated by commas."""

    def __init__(self, nodes: Sequence[RealNode]) -> None:
        self.nodes = tuple(nodes)
        self.url = ",".join(node.url for node in nodes)

    def wait(self, status: str, *, nodes: int, seconds: float = START_SECONDS) -> None:
        """Return when ``nodes`` of them are in the cluster and answer, and its health is ``status`` or better."""
        wanted: dict[str, Any] = {"wait_for_status": status, "wait_for_nodes": str(nodes), "timeout": "1s"}
        seen: dict[str, Any] = {}

        def is_so() -> bool:
            seen.update(self._ask(lambda client: client.options(ignore_status=408).cluster.health(**wanted)) or {})
            # A node joins the cluster before it listens for requests.
            return seen.get("timed_out") is False and sum(node.answers for node in self.nodes) >= nodes

        _poll(is_so, seconds, f"no {status} cluster of {nodes} nodes", seen)

    def master(self) -> RealNode:
        """The node that is the elected master."""
        state = self._ask(lambda client: client.cluster.state(metric="master_node"))
        assert state is not None, "no node answers"
        names = self._names()
        return self._named(names[state["master_node"]])

    def primary_of(self, index: str, shard: int = 0) -> RealNode:
        """The node that holds the primary copy of a shard of ``index``."""
        state = self._ask(lambda client: client.cluster.state(metric="routing_table", index=index))
        assert state is not None, "no node answers"
        (facts,) = state["routing_table"]["indices"].values()
        (copy,) = (copy for copy in facts["shards"][str(shard)] if copy["primary"])
        return self._named(self._names()[copy["node"]])

    def _names(self) -> dict[str, str]:
        answer = self._ask(lambda client: client.nodes.info(filter_path="nodes.*.name"))
        assert answer is not None, "no node answers"
        return {key: node["name"] for key, node in answer["nodes"].items()}

    def _named(self, name: str) -> RealNode:
        return next(node for node in self.nodes if node.name == name)

    def _ask(self, question: Callable[[Elasticsearch], Any]) -> Any:
        """What the first node that answers says; None when none does."""
        for node in self.nodes:
            unanswered = suppress(elasticsearch.ApiError, elasticsearch.TransportError)
            with unanswered, Elasticsearch(node.url, request_timeout=5, max_retries=0) as client:
                return question(client)
        return None


@contextmanager
def real_node(settings: Mapping[str, str] | None = None, *, heap_mb: int = 512) -> Iterator[RealNode]:
    """Yield a healthy node of the test's own."""
    with guarded_home() as home:
        node = RealNode(home, free_port(), settings or {}, heap_mb)
        node.start()
        node.wait()
        yield node


@contextmanager
def three_nodes(settings: Mapping[str, str] | None = None, *, heap_mb: int = 512) -> Iterator[Cluster]:
    """Yield a cluster of three nodes that may all be master, with all of them in it."""
    with ExitStack() as stack:
        homes = [stack.enter_context(guarded_home()) for _ in range(3)]
        ports = _ports(6)
        cluster = Cluster([_member(homes, ports, number, settings or {}, heap_mb) for number in range(3)])
        for node in cluster.nodes:
            node.start()
        cluster.wait("green", nodes=3)
        yield cluster


def _member(
    homes: Sequence[Path], ports: Sequence[int], number: int, settings: Mapping[str, str], heap_mb: int
) -> RealNode:
    http, transport = ports[:3], ports[3:]
    names = [f"c{n}" for n in range(3)]
    joined = {
        "cluster.name": Layout(homes[0]).cluster_name,
        "node.name": names[number],
        "transport.port": str(transport[number]),
        "discovery.type": "multi-node",
        "discovery.seed_hosts": ",".join(f"127.0.0.1:{port}" for port in transport),
        "cluster.initial_master_nodes": ",".join(names),  # of no effect once the cluster has formed
    }
    return RealNode(homes[number], http[number], {**joined, **settings}, heap_mb)


def _ports(count: int) -> list[int]:
    """As many different free ports."""
    found: set[int] = set()
    while len(found) < count:
        found.add(free_port())
    return sorted(found)


def _poll(condition: Callable[[], bool], seconds: float, otherwise: str, seen: Mapping[str, Any] | None = None) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{otherwise} within {seconds:g} s{f': {seen}' if seen else ''}"
        time.sleep(0.2)
