"""A node for the length of a ``with`` block: own folder, own port, nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import esvector
from esvector.errors import NodeError
from esvector.local.failures import PortTakenError
from esvector.local.layout import default_downloads
from esvector.local.node import Node
from esvector.local.ports import free_port

__all__ = ["ephemeral_node", "guarded_home"]

_PORT_ATTEMPTS = 3
_GUARD = "import sys; sys.path[:] = {path!r}; from esvector.local.guard import main; main()"


@contextmanager
def ephemeral_node(
    *,
    settings: Mapping[str, str] | None = None,
    jvm_options: Sequence[str] = (),
    heap_mb: int = 512,
    timeout: float = 120,
    downloads: Path | None = None,
) -> Iterator[Node]:
    """Yield a healthy, empty node on a port of its own; it and its data go with the block, or with this process.

    ``settings`` are more lines for elasticsearch.yml, ``jvm_options`` more options of its JVM, ``heap_mb`` the heap in
    MB, ``timeout`` the seconds until it has to be healthy. Elasticsearch and the JDK are those of the usual node
    (``downloads``). Raises NodeError.

    For tests: with the option ``-XX:TieredStopAtLevel=1`` a start costs half the CPU time, but much data costs more.

    They go whatever ends this process, ``kill -9`` included; if it was forked without exec, with its last copy.
    """
    with guarded_home() as home:
        yield _started(home, settings or {}, jvm_options, heap_mb, timeout, downloads or default_downloads())


@contextmanager
def guarded_home() -> Iterator[Path]:
    """Yield a new folder to use as the home of nodes; after the block they are killed and the folder is deleted.

    The block ends the guard's input, and the guard does the rest: the same way as when this process dies.
    """
    home = Path(tempfile.mkdtemp(prefix="esvector-node-")).resolve()
    if os.geteuid() == 0:
        home.chmod(0o711)  # the server runs as another account
    guard = subprocess.Popen(  # noqa: S603
        [sys.executable, "-I", "-c", _GUARD.format(path=_import_path()), str(home)],
        env={name: value for name, value in os.environ.items() if not name.startswith("ESVECTOR_")},  # no secrets
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C in a terminal ends the owner first, and through it the guard
    )
    try:
        yield home
    finally:
        guard.communicate(timeout=60)


def _import_path() -> list[str]:
    """Return where the guard imports from: where this process does, but not from whatever the current folder holds."""
    package = str(Path(esvector.__file__).resolve().parents[1])
    return [*filter(os.path.isabs, sys.path), package]


def _started(
    home: Path,
    settings: Mapping[str, str],
    jvm_options: Sequence[str],
    heap_mb: int,
    timeout: float,
    downloads: Path,
) -> Node:
    for _ in range(_PORT_ATTEMPTS):
        node = Node(
            home, port=free_port(), heap_mb=heap_mb, settings=settings, jvm_options=jvm_options, downloads=downloads
        )
        try:
            node.start(timeout=timeout)
        except PortTakenError:
            continue
        return node
    raise NodeError(f"{_PORT_ATTEMPTS} free ports in a row were taken by other programs meanwhile", "try again")
