"""Whether the writer keeps a server busy: against a raw replay, on a server that takes a fixed time for each byte.

A real server takes a different time for the same bytes in every round, and more when the client computes beside it on
the same machine. This one answers bulk requests itself, one at a time, each after its bytes divided by ``--rate``, and
hands everything else on to a node. What is missing from 1 is the time in which it had nothing to do.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from threading import Lock
from typing import Any

import click
import urllib3
from common import folder, in_turn, post_all, ratio, say_load, server, spread, url_of
from load import ALIAS, SENDERS, SERVER_CORE, Wire, corpus, ours, set_apart

from esvector.client import connect

HOP_BY_HOP = {"host", "connection", "accept-encoding", "content-length", "transfer-encoding", "content-encoding"}


@click.command()
@click.option("--documents", default=60_000, show_default=True)
@click.option("--dims", default=384, show_default=True)
@click.option("--rate", default=55.0, show_default=True, help="Megabytes that the server takes in a second.")
@click.option("--rounds", default=10, show_default=True)
def main(documents: int, dims: int, rate: float, rounds: int) -> None:
    """Print the share of the replay's rate that the writer reaches."""
    say_load("before")
    vectors = corpus(documents, dims)
    with server(None) as (node, process), folder() as here:
        set_apart(process)
        near, far = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        steady = context.Process(target=serve, args=(url_of(node), rate * 1e6, far), daemon=True)
        steady.start()
        with connect(near.recv(), environ={}) as client:
            bodies: list[bytes] = []
            ours(client, process, vectors, here, "deferred", stop=True, wire=Wire(bodies))

            def replay() -> float:
                started = time.perf_counter()
                post_all(url_of(client), ALIAS, bodies, SENDERS)
                return time.perf_counter() - started

            found = in_turn(
                {
                    "esvector": lambda: ours(client, process, vectors, here, "deferred", stop=True).writing,
                    "replay": replay,
                },
                rounds,
            )
        steady.terminate()
    size = sum(map(len, bodies))
    print(f"{documents:,} documents, {len(bodies)} requests, {size / rate / 1e6:.2f} s of the server's time")
    print(f"replay {spread(found['replay'])} s; esvector writes for {spread(found['esvector'])} s")
    print(f"esvector's writing reaches {ratio(found['replay'], found['esvector'])} of the replay's rate")
    say_load("after")


def serve(node: str, rate: float, ready: Connection) -> None:
    """Take bulk requests at ``rate`` bytes/s, one at a time, and hand all others to ``node``, on the server's core."""
    os.sched_setaffinity(0, {SERVER_CORE})
    upstream, turn = urllib3.PoolManager(maxsize=SENDERS), Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def log_message(self, *_: Any) -> None:  # noqa: ANN401
            """Say nothing."""

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            if "/_bulk" in self.path:
                with turn:
                    end = time.perf_counter() + len(body) / rate
                    while (left := end - time.perf_counter()) > 0:
                        time.sleep(left)
                items = b",".join([b'{"index":{"status":201}}'] * (body.count(b"\n") // 2))
                self.reply(200, self.headers.get("accept") or "application/json", b'{"items":[%b]}' % items)
                return
            headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
            answer = upstream.request(self.command, node + self.path, body=body, headers=headers)
            self.reply(answer.status, answer.headers.get("content-type", "application/json"), answer.data)

        def reply(self, status: int, kind: str, data: bytes) -> None:
            self.send_response(status)
            self.send_header("x-elastic-product", "Elasticsearch")
            self.send_header("content-type", kind if "json" in kind else "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = answer  # noqa: N815

    steady = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    ready.send(f"http://127.0.0.1:{steady.server_port}")
    steady.serve_forever()


if __name__ == "__main__":
    main()
