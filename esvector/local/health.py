"""Asking a server on this machine who it is and how it does."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException

__all__ = ["Health", "ask_health"]


@dataclass(frozen=True, slots=True)
class Health:
    """What ``/_cluster/health`` says: ``status`` is green, yellow or red."""

    cluster_name: str
    status: str

    @property
    def usable(self) -> bool:
        """Every primary shard is there; replicas never are on a single node."""
        return self.status in ("yellow", "green")


def ask_health(url: str, timeout: float = 5) -> Health | None:
    """Return the health of the server at ``url``; None when nothing that looks like Elasticsearch answers.

    Without elasticsearch-py, which takes longer to import than the answer takes; and past any proxy that the
    environment names, because those do not lead to this machine's loopback interface.
    """
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}/_cluster/health", timeout=timeout) as response:
            body = json.load(response)
        return Health(cluster_name=body["cluster_name"], status=body["status"])
    except (OSError, HTTPException, ValueError, KeyError, TypeError):
        return None
