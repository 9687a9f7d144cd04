"""What the proxy of the tests can do to a request. The names are toxiproxy's where it has the fault.

A fault serves one exchange: it decides what reaches the server and what reaches the client.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

__all__ = [
    "ApplyThenLose",
    "Bandwidth",
    "CutResponse",
    "CutUpload",
    "Exchange",
    "Fault",
    "Inject",
    "Latency",
    "Reset",
    "ResetPeer",
    "Timeout",
    "Upstream",
    "content_length",
    "read_head",
]

_PIECE = 16 * 1024


class Reset(Exception):
    """End the connection to the client, and to the server, with RST."""


@dataclass(slots=True)
class Exchange:
    """One request under way: its bytes, and the two ends. ``pause`` waits, but no longer than the proxy lives."""

    head: bytes
    body: bytes
    client: socket.socket
    server: Upstream
    pause: Callable[[float], bool]

    def forward(self) -> bytes:
        """Send the request on and return the server's whole answer."""
        with contextlib.suppress(OSError):  # a server may answer, and hang up, before it has read all of a body
            self.server.send(self.head + self.body)
        return self.server.answer(head_only=self.head.startswith(b"HEAD "))


class Fault(Protocol):
    """What happens to a request: serves it itself, or raises Reset."""

    def __call__(self, exchange: Exchange) -> None: ...


@dataclass(frozen=True, slots=True)
class Latency:
    """The answer comes ``seconds`` later."""

    seconds: float

    def __call__(self, exchange: Exchange) -> None:
        answer = exchange.forward()
        exchange.pause(self.seconds)
        exchange.client.sendall(answer)


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """The request goes on at ``bytes_per_second``."""

    bytes_per_second: int

    def __call__(self, exchange: Exchange) -> None:
        data = exchange.head + exchange.body
        for start in range(0, len(data), _PIECE):
            exchange.server.send(data[start : start + _PIECE])
            exchange.pause(len(data[start : start + _PIECE]) / self.bytes_per_second)
        exchange.client.sendall(exchange.server.answer())


@dataclass(frozen=True, slots=True)
class ResetPeer:
    """The connection is reset; the server sees nothing of the request."""

    def __call__(self, exchange: Exchange) -> None:
        raise Reset


@dataclass(frozen=True, slots=True)
class CutUpload:
    """The first ``after`` bytes of the body reach the server, then both connections are reset."""

    after: int

    def __call__(self, exchange: Exchange) -> None:
        exchange.server.send(exchange.head + exchange.body[: self.after])
        raise Reset


@dataclass(frozen=True, slots=True)
class CutResponse:
    """The request is applied; the first ``after`` bytes of the answer arrive, then the connection ends, or is reset."""

    after: int
    reset: bool = False

    def __call__(self, exchange: Exchange) -> None:
        exchange.client.sendall(exchange.forward()[: self.after])
        if self.reset:
            raise Reset
        raise ConnectionAbortedError


@dataclass(frozen=True, slots=True)
class ApplyThenLose:
    """The request is applied and its whole answer read; then the client's connection is reset: the unknown outcome."""

    def __call__(self, exchange: Exchange) -> None:
        exchange.forward()
        raise Reset


@dataclass(frozen=True, slots=True)
class Timeout:
    """Nothing goes on and nothing comes back: the client has to give up by itself."""

    def __call__(self, exchange: Exchange) -> None:
        while exchange.pause(0.05) and not _closed(exchange.client):
            pass
        raise Reset


@dataclass(frozen=True, slots=True)
class Inject:
    """The server sees nothing; the answer is this one. ``body``: JSON where it is no str."""

    status: int
    body: Any = field(default_factory=dict)
    content_type: str = "application/vnd.elasticsearch+json;compatible-with=9"

    def __call__(self, exchange: Exchange) -> None:
        data = self.body.encode() if isinstance(self.body, str) else json.dumps(self.body).encode()
        head = (
            f"HTTP/1.1 {self.status} Injected\r\nX-elastic-product: Elasticsearch\r\n"
            f"Content-Type: {self.content_type}\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        exchange.client.sendall(head.encode() + data)


class Upstream:
    """A connection to the server."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address)
        self._reader = self.socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self, *, head_only: bool = False) -> bytes:
        """Read one whole answer, as it comes."""
        head = read_head(self._reader)
        if not head:
            raise ConnectionAbortedError
        if head_only:
            return head
        if b"transfer-encoding: chunked" not in head.lower():
            return head + self._reader.read(content_length(head))
        chunks = [head]
        while True:
            size = self._reader.readline()
            chunks += [size, self._reader.read(int(size, 16) + 2)]
            if int(size, 16) == 0:
                return b"".join(chunks)

    def close(self) -> None:
        self._reader.close()
        self.socket.close()


def read_head(reader: Any) -> bytes:
    lines = []
    while (line := reader.readline()) not in (b"\r\n", b""):
        lines.append(line)
    return b"".join([*lines, b"\r\n"]) if lines else b""


def content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def _closed(connection: socket.socket) -> bool:
    """Whether the other end has closed the connection."""
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
