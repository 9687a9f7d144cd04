"""Ports on the loopback interface."""

from __future__ import annotations

import socket
import time

from esvector.errors import NodeError

__all__ = ["DEFAULT_PORT", "choose_port", "free_port", "is_free", "wait_until_free"]

DEFAULT_PORT = 9200


def is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:``port`` now."""
    with socket.socket() as probe:
        # As servers do: without it a port counts as taken for a minute after its last connection.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError:
            return False
    return True


def free_port() -> int:
    """Return a port that nothing uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_free(port: int, timeout: float = 3) -> bool:
    """Give a process that was just killed up to ``timeout`` seconds to let go of ``port``; whether it is free then.

    The system closes a killed process's ports a moment after the process has ceased to look alive.
    """
    deadline = time.monotonic() + timeout
    while not is_free(port):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def choose_port(wanted: int | None, last: int | None) -> int:
    """Return ``wanted``, or if that is None the first free of: the ``last`` used, 9200, any.

    Raises NodeError when ``wanted`` is taken.
    """
    if wanted is not None:
        if not is_free(wanted):
            raise NodeError(
                f"port {wanted} is taken by another program",
                "stop that program, choose another port with --port, or leave the option out to get a free one",
            )
        return wanted
    candidates = [port for port in (last, DEFAULT_PORT) if port is not None]
    return next((port for port in candidates if is_free(port)), None) or free_port()
