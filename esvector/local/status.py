"""What a look at a node shows."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from esvector.local.distribution import VERSION
from esvector.local.health import ask_health
from esvector.local.layout import Layout
from esvector.local.process import leads, live_pid
from esvector.local.state import State, read_state

__all__ = ["NodeStatus", "bytes_below", "look"]

_DEEPEST = 50  # Elasticsearch: data/indices/<uuid>/<shard>/index

StateWord = Literal["running", "starting", "stopped", "dead"]


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One look at a node.

    ``running`` answers requests; ``starting`` has a process that does not answer yet; ``stopped`` was stopped, or never
    started; ``dead`` ended without having been stopped. ``url``, ``port`` and ``heap_mb`` are those of the last start.
    ``started_here`` says that the object which was asked also started it.
    """

    state: StateWord
    url: str | None
    port: int | None
    pid: int | None
    version: str
    home: Path
    heap_mb: int | None
    data_bytes: int
    started_here: bool


def look(layout: Layout, started_pid: int | None) -> NodeStatus:
    """Look at the node of this home; ``started_pid`` is the process that the caller started, if it did."""
    state, pid = read_state(layout), live_pid(layout)
    return NodeStatus(
        state=_state_word(layout, state, pid),
        url=state.url if state else None,
        port=state.port if state else None,
        pid=pid,
        version=state.version if state else VERSION,
        home=layout.home,
        heap_mb=state.heap_mb if state else None,
        data_bytes=bytes_below(layout.data),
        started_here=pid is not None and started_pid is not None and leads(started_pid, pid),
    )


def _state_word(layout: Layout, state: State | None, pid: int | None) -> StateWord:
    if state is None or (state.pid is None and pid is None):
        return "stopped"
    if pid is None:
        return "dead"
    health = ask_health(state.url)
    return "running" if health and health.cluster_name == layout.cluster_name else "starting"


def bytes_below(folder: Path) -> int:
    """Return the size of all files below ``folder`` in bytes: as deep as Elasticsearch has any, and more."""
    total = 0
    with suppress(OSError):  # it does not exist, or is closed to us
        top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)  # it may be a link to another disk
        try:
            for path, folders, names, descriptor in os.fwalk(".", dir_fd=top):  # follows no link in it
                if path.count("/") >= _DEEPEST:
                    folders.clear()
                for name in names:
                    with suppress(OSError):  # the server merges and deletes files meanwhile
                        total += os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_size
        finally:
            os.close(top)
    return total
