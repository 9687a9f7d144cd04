"""A job: one process of one machine that may change what is behind an alias."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from esvector.index.checkpoint import JobFolder, default_state
from esvector.index.lease import Lease
from esvector.index.repeating import Repeating, once
from esvector.index.retries import RetryPolicy

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = ["job"]


@contextmanager
def job(
    client: Elasticsearch, alias: str, state: Path | None, lost: threading.Event, retry: RetryPolicy | None = None
) -> Iterator[JobFolder]:
    """Hold ``alias`` for the length of the block: on this machine by a lock, and on the server by a lease.

    ``lost`` is set when another run took the lease meanwhile. ``retry`` says how long a server in trouble is waited
    for; without it, an error is raised at once. Raises LeaseError when another run holds it.
    """
    repeat = once(client) if retry is None else Repeating(client, retry, threading.Event())
    cluster = repeat(lambda: client.cluster.state(metric="version", filter_path="cluster_uuid"))["cluster_uuid"]
    folder = JobFolder(state or default_state(), f"{cluster}-{alias}")
    with folder.locked(), Lease(client, alias, owner=folder.owner(), on_lost=lost.set, repeat=repeat):
        yield folder
