"""What a process has to have of its own: a fork copies connections, locks and models, and few can be shared.

A connection that two processes write to gives each the other's answers. A lock that another thread holds at the moment
of the fork is held in the child for ever, because that thread does not exist there.
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary, WeakSet

from esvector.errors import ConfigError

__all__ = ["OwnTransport", "PerProcess", "leave_to_parent", "refuse_inherited", "torch_threads"]

_T = TypeVar("_T")


class PerProcess(Generic[_T]):
    """A value that each process makes when it first asks for it, so that a forked child has its own.

    It takes no lock, which a fork could leave held: threads that ask at the same time may each make one, and all of
    them get the same.

    Args:
        make: is given the value of the process that was forked, to take over what can be shared; None at first.
    """

    def __init__(self, make: Callable[[_T | None], _T]) -> None:
        self._make = make
        self._made: dict[int, _T] = {}  # by process

    def __call__(self) -> _T:
        """Return this process's value."""
        process = os.getpid()
        if process in self._made:
            return self._made[process]
        inherited = next((value for owner, value in list(self._made.items()) if owner != process), None)
        value = self._made.setdefault(process, self._make(inherited))
        for owner in list(self._made):
            if owner != process:
                self._made.pop(owner, None)
        return value


class OwnTransport:
    """Stands for a ``Transport`` of each process, so that no fork shares its connections, or waits for its locks.

    A client hands it on to all clients that are derived from it.
    """

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401  # those of a Transport
        from elastic_transport import Transport

        self._own = PerProcess(lambda _: Transport(*args, **options))
        self._own()  # raises what a Transport does

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # what a Transport has
        if name == "_own":  # of a copy that is being made
            raise AttributeError(name)
        return getattr(self._own(), name)


class _Inherited:
    """The sockets that were open when this process was forked; none in a process that was not."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._sockets: frozenset[int] = frozenset()

    def note(self) -> None:
        self._process = os.getpid()
        self._sockets = frozenset(_open_sockets())

    def __contains__(self, connection: Any) -> bool:  # noqa: ANN401  # of urllib3; None is one to be opened
        if self._process != os.getpid():  # a fork that Python was not told of, such as uWSGI's
            self._process = os.getpid()
            self._sockets = frozenset(_sockets_of_parent())  # those of our own may be among ours by now
        with suppress(AttributeError, OSError):
            return os.fstat(connection.sock.fileno()).st_ino in self._sockets
        return False


_inherited = _Inherited()
_used: WeakKeyDictionary[Any, int] = WeakKeyDictionary()  # by transport, the process in which esvector used it
_parents: WeakSet[Any] = WeakSet()


def leave_to_parent(held: object) -> None:
    """Never destroy ``held`` in a forked child: it would wait there for threads that only the parent has."""
    _parents.add(held)


def _after_fork() -> None:
    _inherited.note()
    for held in list(_parents):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(held))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def refuse_inherited(transport: Any) -> None:  # noqa: ANN401  # of either kind of client
    """Raise ConfigError when an application's own client was used before this process was forked, or in another loop.

    Clients of ``connect`` are never refused, nor is one that was made before the fork and is first used after it.
    """
    if isinstance(transport, OwnTransport):
        return
    process = os.getpid()
    if (loop := getattr(transport, "_loop", None)) is not None and loop is not _running_loop(loop):
        raise ConfigError(
            "this asynchronous Elasticsearch client was used in another event loop, or before this process was forked",
            "make the client in each process and in each event loop, where it is used",
        )
    owner = _used.get(transport)
    if owner == process:
        return
    if owner is not None or any(connection in _inherited for connection in _idle_connections(transport)):
        raise ConfigError(
            "this Elasticsearch client was used before this process was forked, so two processes share its "
            "connections and would get each other's answers",
            "make the client in each process, after the fork, or use one of esvector.connect(), which opens "
            "connections of its own in each process",
        )
    _used[transport] = process


def torch_threads() -> int:
    """Return how many threads torch has on the CPU; ask before each use, as a forked child has to do with one.

    OpenMP would wait in a child, for ever, for the threads that it had in its parent.
    """
    return _torch_threads()


def _count_torch_threads(inherited: int | None) -> int:
    import torch

    if inherited is not None:
        torch.set_num_threads(1)
    return torch.get_num_threads()


_torch_threads = PerProcess(_count_torch_threads)


def _running_loop(otherwise: Any) -> Any:  # noqa: ANN401
    """Return the event loop of this thread and process, ``otherwise`` where there is none."""
    try:
        import asyncio

        return asyncio.get_running_loop()
    except RuntimeError:
        return otherwise


def _idle_connections(transport: Any) -> list[Any]:  # noqa: ANN401
    """Return the connections that wait in the pools of urllib3, which the client has by default, and of requests."""
    pools = []
    for node in transport.node_pool.all():
        pools.append(getattr(node, "pool", None))
        for adapter in getattr(getattr(node, "session", None), "adapters", {}).values():
            by_host = getattr(getattr(adapter, "poolmanager", None), "pools", None)
            pools += [by_host.get(key) for key in by_host.keys()] if by_host is not None else []  # noqa: SIM118
    return [connection for pool in pools if pool is not None and pool.pool for connection in list(pool.pool.queue)]


def _open_sockets() -> list[int]:
    """Return the inodes of the sockets that this process has open; none where the system does not list them."""
    found = []
    with suppress(OSError):
        for name in os.listdir("/dev/fd"):
            with suppress(OSError, ValueError):
                status = os.fstat(int(name))
                if stat.S_ISSOCK(status.st_mode) and status.st_ino:  # some systems have no numbers for sockets
                    found.append(status.st_ino)
    return found


def _sockets_of_parent() -> list[int]:
    """Return the inodes of the sockets that the parent process has open; none where the system does not say."""
    folder, found = f"/proc/{os.getppid()}/fd", []
    with suppress(OSError):
        for name in os.listdir(folder):
            with suppress(OSError, ValueError):
                kind, _, number = os.readlink(f"{folder}/{name}").partition(":[")
                if kind == "socket":
                    found.append(int(number.rstrip("]")))
    return found
