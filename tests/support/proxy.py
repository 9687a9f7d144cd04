"""A TCP proxy before a real node that breaks bulk requests on purpose (the faults are in proxy_faults.py).

    with Proxy(server_url) as proxy:
        proxy.on(3, ApplyThenLose())  # the third bulk request from now: applied, and its answer lost
        proxy.share(0.05, Inject(429), seed=1)
        BulkWriter(connect(proxy.url, environ={}), ...)
    assert proxy.faults == 1

It understands as much HTTP/1.1 as it takes to see requests. Requests other than ``_bulk`` pass untouched (but for
``down`` and ``once``), and so do bulk requests that no rule picks.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from tests.support.proxy_faults import Exchange, Fault, Reset, Upstream, content_length, read_head

__all__ = ["Proxy"]


class Proxy:
    """Listens on a port of its own of loopback until the ``with`` block ends.

    ``requests`` and ``bulks`` count what clients sent, ``bodies`` are the bulk bodies in order, ``faults`` the bulk
    requests that a rule picked, ``statuses`` what the server answered to the others. ``unmet`` are the requests given
    to ``once`` that have not come.
    """

    def __init__(self, upstream_url: str) -> None:
        parts = urlsplit(upstream_url)
        self._upstream = (parts.hostname or "127.0.0.1", parts.port or 9200)
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._rules: list[Callable[[int], Fault | None]] = []
        self._once: dict[str, Fault] = {}
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self.requests = self.bulks = self.faults = 0
        self.bodies: list[bytes] = []
        self.statuses: Counter[int] = Counter()
        self._listener = self._listen(0)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._hang_up()
        for thread in self._threads:
            thread.join(10)

    def on(self, number: int, fault: Fault) -> None:
        """Apply ``fault`` to the ``number``-th bulk request from now, counted from 1."""
        chosen = self.bulks + number
        self._rules.append(lambda bulk: fault if bulk == chosen else None)

    def every(self, number: int, fault: Fault) -> None:
        """Apply ``fault`` to each ``number``-th bulk request from now; 1 is all of them."""
        start = self.bulks
        self._rules.append(lambda bulk: fault if bulk > start and not (bulk - start) % number else None)

    def share(self, probability: float, fault: Fault, seed: int) -> None:
        """Apply ``fault`` to a share of the bulk requests from now, the same ones for the same seed."""
        chance = random.Random(seed)
        self._rules.append(lambda _: fault if chance.random() < probability else None)

    def once(self, request: str, fault: Fault) -> None:
        """Apply ``fault`` to the next request, of any kind, that begins as ``request``, such as "PUT /papers-"."""
        self._once[request] = fault

    def heal(self) -> None:
        """Forget all rules."""
        self._rules = []
        self._once = {}

    @contextmanager
    def down(self) -> Iterator[None]:
        """Refuse and end all connections for the length of the block."""
        self._hang_up()
        try:
            yield
        finally:
            self._listener = self._listen(self.port)

    @property
    def unmet(self) -> list[str]:
        return list(self._once)

    def wait_for(self, ready: Callable[[], bool], seconds: float = 30) -> None:
        """Wait until ``ready``, which is asked after each request, such as ``lambda: proxy.bulks > 3``."""
        with self._changed:
            assert self._changed.wait_for(ready, seconds), f"not within {seconds} s, after {self.bulks} bulk requests"

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", port))
        self._start(self._accept, listener)
        return listener

    def _hang_up(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()
        with self._changed:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _start(self, work: Callable[[socket.socket], None], argument: socket.socket) -> None:
        thread = threading.Thread(target=work, args=(argument,), name="proxy", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = listener.accept()[0]
                with self._changed:
                    self._open.add(client)
                self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        """Serve the requests of one connection, with one connection to the server."""
        server = None
        reader = client.makefile("rb")
        try:
            server = Upstream(self._upstream)
            while head := read_head(reader):
                self._handle(Exchange(head, reader.read(content_length(head)), client, server, self._pause))
        except Reset:
            reset(client)
            if server is not None:
                reset(server.socket)
        except OSError:  # either end has gone, which is what the other one gets to see
            pass
        finally:
            with self._changed:
                self._open.discard(client)
            reader.close()
            client.close()
            if server is not None:
                server.close()

    def _handle(self, exchange: Exchange) -> None:
        fault = None
        with self._changed:
            self.requests += 1
            if chosen := next((start for start in self._once if exchange.head.startswith(start.encode())), None):
                fault = self._once.pop(chosen)
            if b"/_bulk" in exchange.head.split(b"\r\n", 1)[0]:
                self.bulks += 1
                self.bodies.append(exchange.body)
                fault = next((fault for rule in self._rules if (fault := rule(self.bulks))), None)
                self.faults += fault is not None
            self._changed.notify_all()
        if fault is not None:
            fault(exchange)
            return
        answer = exchange.forward()
        with self._changed:
            self.statuses[int(answer[9:12])] += 1
            self._changed.notify_all()
        exchange.client.sendall(answer)

    def _pause(self, seconds: float) -> bool:
        """Wait; whether the proxy still lives."""
        return not self._closing.wait(seconds)


def reset(connection: socket.socket) -> None:
    """Close with RST, so that the other end gets an error instead of an end."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
