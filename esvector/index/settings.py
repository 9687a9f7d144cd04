"""What searches of an index ask for unless told otherwise: kept in its passport."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from esvector.errors import IndexingError, LeaseError
from esvector.index.job import job
from esvector.index.reembed import live_target
from esvector.index.target import update_meta
from esvector.types import SearchSettings

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = ["store_settings"]


def store_settings(
    client: Elasticsearch,
    alias: str,
    settings: SearchSettings | None,
    *,
    index: str | None = None,
    state: Path | None = None,
) -> str:
    """Write ``settings`` (None: forget them) into the passport of what is behind ``alias``; return its index.

    They are of that version only: a new one, with another encoder or vector type, begins without. ``index`` is the one
    that they were measured on, ``state`` the folder of jobs. Raises LeaseError while a run is changing the alias,
    IndexingError when it leads to another index than that by now, IndexNotFoundError when it leads nowhere.
    """
    lost = threading.Event()
    # The server replaces _meta as a whole: what a run writes there at the same moment, such as its generation, would
    # be undone.
    with job(client, alias, state, lost):
        target = live_target(client, alias)
        if index is not None and target.index != index:
            raise IndexingError(
                f"{alias} leads to {target.index} by now, and the settings were measured on {index}", "tune again"
            )
        if lost.is_set():
            raise LeaseError(f"another run took over {alias} meanwhile", "try again when it has ended")
        update_meta(client, target.index, replace(target.passport, search=settings).to_meta())
    return target.index
