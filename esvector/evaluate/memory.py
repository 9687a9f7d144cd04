"""What the vectors of an index take in memory, as its server says, else by arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esvector.client import explain_errors
from esvector.evaluate.live import Live
from esvector.index.inspect import memory_bytes
from esvector.index.sizes import vector_bytes

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = ["bytes_per_million"]

_MILLION = 1_000_000
_ENOUGH = 5_000  # vectors of an index, up to which it may have no graph


def bytes_per_million(client: Elasticsearch, live: Live) -> int:
    """Return the bytes that a fast search of a million such vectors keeps in memory, beside the Java heap."""
    with explain_errors(client):
        stats = client.indices.stats(index=live.name, metric="dense_vector")["_all"]["primaries"]["dense_vector"]
    measured = memory_bytes(stats.get("off_heap"), live.vector_type)
    if measured is not None and stats["value_count"] >= _ENOUGH:
        return round(_MILLION * measured / int(stats["value_count"]))
    m = int(live.vector.get("index_options", {}).get("m", 16))
    each = vector_bytes(live.passport.encoder.dims or 0, live.passport.element_type, live.vector_type, m)
    return int(_MILLION * each.memory)
