"""A job: one process of one machine that may change what is behind an alias."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from esvector.client import address
from esvector.errors import NotElasticsearchError
from esvector.index.checkpoint import JobFolder, default_state
from esvector.index.lease import Lease
from esvector.index.repeating import Repeating, once
from esvector.index.retries import RetryPolicy
from esvector.index.versions import check_alias

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = ["job"]

_CLUSTER = re.compile(r"[A-Za-z0-9_-]{1,50}")  # as Elasticsearch makes them: 22 letters of URL-safe base64


@contextmanager
def job(
    client: Elasticsearch, alias: str, state: Path | None, lost: threading.Event, retry: RetryPolicy | None = None
) -> Iterator[JobFolder]:
    """Hold ``alias`` for the length of the block: on this machine by a lock, and on the server by a lease.

    ``lost`` is set when another run took the lease meanwhile. ``retry`` says how long a server in trouble is waited
    for; without it, an error is raised at once. Raises LeaseError when another run holds it, ConfigError for a name
    that no alias can have, NotElasticsearchError when the server gives no valid id of its cluster.
    """
    check_alias(alias)
    repeat = once(client) if retry is None else Repeating(client, retry, threading.Event())
    answer = repeat(lambda: client.cluster.state(metric="version", filter_path="cluster_uuid")).body
    cluster = answer.get("cluster_uuid") if isinstance(answer, dict) else None
    # Both become the name of a folder, which must not lead out of ``state``.
    if not (isinstance(cluster, str) and _CLUSTER.fullmatch(cluster)):
        raise NotElasticsearchError(
            f"the server at {address(client)} gives no valid id of its cluster (cluster_uuid)", "check ESVECTOR_URL"
        )
    folder = JobFolder(state or default_state(), f"{cluster}-{alias}")
    with folder.locked(), Lease(client, alias, owner=folder.owner(), on_lost=lost.set, repeat=repeat):
        yield folder
