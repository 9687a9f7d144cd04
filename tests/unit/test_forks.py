"""What was used before a fork, in the child: connections, locks that another thread held, models."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from elasticsearch import Elasticsearch
from numpy.typing import NDArray

from esvector.client import connect, describe_server
from esvector.encode.queries import QueryEncoder
from esvector.errors import ConfigError
from esvector.forks import PerProcess
from tests.support.forking import in_children

_VERSION = {"nodes": {"one": {"version": "9.5.3"}}}


@contextmanager
def keeping_alive(context: ssl.SSLContext | None = None) -> Iterator[tuple[str, list[Any]]]:
    """A server that keeps connections, and the other end of the connection that each request came by."""
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:  # the name of http.server
            asked.append(self.client_address)
            data = json.dumps(_VERSION).encode()
            self.send_response(200)
            for name, value in (("content-type", "application/json"), ("x-elastic-product", "Elasticsearch")):
                self.send_header(name, value)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"{'http' if context is None else 'https'}://localhost:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_threads_that_ask_at_the_same_time_get_the_same_and_a_child_its_own() -> None:
    together = threading.Barrier(8)

    def make(inherited: object) -> object:
        together.wait(30)  # all of them are making one
        return object()

    value = PerProcess(make)
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(value())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, found))) == 1

    passed_on = PerProcess(lambda inherited: [*(inherited or []), os.getpid()])
    assert passed_on() is passed_on()
    assert passed_on() == [os.getpid()]
    for pids in in_children(2, lambda _: passed_on()):
        assert pids[0] == os.getpid()
        assert len(set(pids)) == 2
    assert passed_on() == [os.getpid()]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    )
    subprocess.run([*command.split(), "-keyout", "key", "-out", "cert"], cwd=folder, check=True, capture_output=True)
    return folder / "cert", folder / "key"


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_a_child_opens_its_own_connection_and_leaves_the_parents_as_it_is(
    tls: bool, certificate: tuple[Path, Path]
) -> None:
    context = None
    environ = {}
    if tls:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*certificate)
        environ["ESVECTOR_CA_CERTS"] = str(certificate[0])
    with keeping_alive(context) as (url, asked), connect(url, environ) as client:
        describe_server(client)
        derived = client.options(request_timeout=30)
        [parents] = asked
        assert (
            in_children(3, lambda _: [str(describe_server(one)) for one in (client, derived, client)])
            == [["9.5.3"] * 3] * 3
        )
        childrens = asked[1:]
        assert len(childrens) == 9
        assert len(set(childrens)) == 3
        assert parents not in childrens
        describe_server(client)
        assert asked[-1] == parents


def test_a_child_that_ends_or_closes_the_client_leaves_the_parents_connection() -> None:
    with keeping_alive() as (url, asked), connect(url, {}) as client:
        describe_server(client)
        in_children(1, lambda _: client.close())
        describe_server(client)
        assert asked[0] == asked[1]


_HELD = """
import os, sys, time
from esvector.client import connect, describe_server

client = connect(sys.argv[1], {})
describe_server(client)
pool = client.transport.node_pool
pool._dead_nodes.mutex.acquire()  # as a thread does for a moment in each request
pool.all()[0].pool.pool.mutex.acquire()
child = os.fork()
if child == 0:
    if sys.argv[2] == "used":
        describe_server(client)
    sys.exit(7)
ends = time.monotonic() + 120
while not (done := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < ends:
    time.sleep(0.01)
if not done[0]:
    os.kill(child, 9)
    os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(done[1]) if done[0] else "hung", flush=True)
os._exit(0)
"""


@pytest.mark.parametrize("use", ["used", "unused"])
def test_a_child_does_not_wait_for_locks_that_threads_of_its_parent_held(use: str) -> None:
    with keeping_alive() as (url, _):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", _HELD, url, use], capture_output=True, text=True, check=False
        )
    assert (done.stdout.strip(), done.stderr) == ("7", "")


def test_queries_are_encoded_in_a_child_though_a_thread_of_its_parent_was_encoding() -> None:
    inside, leave, parent = threading.Event(), threading.Event(), os.getpid()

    def encode(texts: list[str]) -> NDArray[np.float32]:
        if os.getpid() == parent and texts == ["slow"]:
            inside.set()
            leave.wait(600)
        return np.full((len(texts), 2), len(texts[0]), np.float32)

    queries = QueryEncoder(encode, "id", "own")
    thread = threading.Thread(target=queries, args=(["slow"],))
    thread.start()
    try:
        assert inside.wait(60)
        assert in_children(2, lambda _: queries(["four"]).tolist()) == [[[4, 4]]] * 2
    finally:
        leave.set()
        thread.join()


# An application's own client


def test_a_client_of_ones_own_that_was_used_before_the_fork_is_refused() -> None:
    def ask(client: Elasticsearch) -> str:
        try:
            return str(describe_server(client))
        except ConfigError as error:
            return "refused" if "esvector.connect" in error.remedy else str(error)

    def ask_directly_then_here(client: Elasticsearch) -> str:
        client.nodes.info()
        return ask(client)

    with (
        keeping_alive() as (url, asked),
        Elasticsearch(url) as ours,
        Elasticsearch(url) as known,
        Elasticsearch(url) as new,
        Elasticsearch(url) as other,
        Elasticsearch(url) as late,
    ):
        ours.nodes.info()  # without esvector
        describe_server(known)
        assert in_children(1, lambda _: [ask(client) for client in (ours, known, new, other.options())]) == [
            ["refused", "refused", "9.5.3", "9.5.3"]
        ]
        # It was made in time, so its connections are the child's, whoever opened them.
        assert in_children(1, lambda _: [ask_directly_then_here(late), ask(late)]) == [["9.5.3"] * 2]
        assert [ask(client) for client in (ours, known, new, late)] == ["9.5.3"] * 4
        assert len(set(asked)) == 2 + 2 + 1 + 2
