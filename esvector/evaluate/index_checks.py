"""Whether the index and its nodes are in a state to answer well: shards, segments, mapping, memory, settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from esvector.client import explain_errors
from esvector.evaluate.findings import Finding, Level, named
from esvector.evaluate.live import Live
from esvector.evaluate.sample_copy import COPY_MARK
from esvector.index.inspect import memory_bytes
from esvector.index.sizes import vector_bytes

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = ["check_leftovers", "check_mapping", "check_memory", "check_segments", "check_settings", "check_shards"]

_DELETED = 0.25  # share of deleted documents; Elasticsearch's merges keep it under about a fifth (9.5.3)
_SEGMENTS = 30  # of a shard; each is searched through a graph of its own
_SMALL_SHARD = 50_000  # documents, below which several shards only cost
_FLAT = 50_000  # vectors, above which comparing all of them for each query is slow
_FEW_DIMS = 384  # below which a bit for each says too little; Elasticsearch's own default from there on is bbq (9.1)
_M = range(8, 65)
_FULL, _TIGHT = 1.0, 0.7  # share of the memory beside the heaps
_FIELDS = 0.9  # of the limit on fields


def check_shards(client: Elasticsearch, live: Live) -> list[Finding]:
    """Whether every shard answers and takes writes, and would after the loss of a node."""
    with explain_errors(client):
        health = client.cluster.health(index=live.name)
        answer = client.search(index=live.name, size=0, allow_partial_search_results=True)
    shards = answer["_shards"]
    silent, nodes = shards["total"] - shards["successful"], health["number_of_data_nodes"]
    if silent:
        said = f"{silent} of {shards['total']} shards do not answer: hits are missing"
        remedy = "see the server's log, and GET _cluster/allocation/explain"
        found = [Finding("alarm", "shards", said, remedy)]
    elif health["status"] != "green":
        said = f"the index is {health['status']}: {health['unassigned_shards']} copies of shards are on no node"
        remedy = "see GET _cluster/allocation/explain; until they are, a lost node may take documents with it"
        found = [Finding("warning", "shards", said, remedy)]
    elif int(live.settings.get("number_of_replicas", 0)) == 0 and nodes > 1:
        said = f"there is one copy of each shard, on {nodes} nodes: a lost node loses documents"
        remedy = f'PUT {live.name}/_settings {{"index.number_of_replicas": 1}}'
        found = [Finding("warning", "shards", said, remedy)]
    else:
        copies = health["active_shards"] // max(1, health["active_primary_shards"])
        said = f"{_many(health['active_primary_shards'], 'shard')}, {_many(copies, 'copy')} of each"
        found = [Finding("ok", "shards", f"{health['status']}: {said}")]
    if str(live.settings.get("blocks.write", "false")) == "true":
        remedy = f'the next esvector run lifts its own; else PUT {live.name}/_settings {{"index.blocks.write": null}}'
        found.append(Finding("warning", "writes", "the index takes no writes (index.blocks.write)", remedy))
    return found


def check_segments(client: Elasticsearch, live: Live) -> list[Finding]:
    """Whether deleted documents and many segments slow searches down."""
    with explain_errors(client):
        stats = client.indices.stats(index=live.name, metric="docs,segments")["_all"]["primaries"]
    documents, deleted = int(stats["docs"]["count"]), int(stats["docs"]["deleted"])
    segments, shards = int(stats["segments"]["count"]), int(live.settings.get("number_of_shards", 1))
    said = (
        f"{_many(segments, 'segment')} in {_many(shards, 'shard')}, {deleted:,} deleted documents beside {documents:,}"
    )
    found = []
    if deleted > _DELETED * (documents + deleted):
        found.append(
            Finding(
                "warning",
                "segments",
                f"{said}: their vectors are still in the graph, and searches walk past them",
                f"POST {live.name}/_forcemerge?only_expunge_deletes=true (outside of busy hours)",
            )
        )
    elif segments > _SEGMENTS * shards:
        found.append(
            Finding(
                "note",
                "segments",
                f"{said}: each segment has a graph of its own to search",
                f"when nothing is written: POST {live.name}/_forcemerge?max_num_segments=1",
            )
        )
    else:
        found.append(Finding("ok", "segments", said))
    if shards > 1 and documents < _SMALL_SHARD * shards:
        found.append(
            Finding(
                "note",
                "shards",
                f"{documents:,} documents are in {shards} shards, and every search asks each of them",
                "one shard does for some millions: set number_of_shards in the --mapping and esvector reembed",
            )
        )
    return found


def check_mapping(live: Live, vectors: int) -> list[Finding]:
    """Whether the vector field suits its ``vectors``, and which fields cannot be filtered by."""
    options = live.vector.get("index_options", {})
    kind, dims = live.vector_type, live.passport.encoder.dims or 0
    reembed = f"esvector reembed {live.alias} --mapping FILE"
    advice: list[tuple[Level, str, str]] = []
    if kind.endswith("flat") and vectors > _FLAT:
        advice.append(("warning", f"{kind}: every query is compared with {vectors:,} vectors", f"{reembed}: int8_hnsw"))
    if kind.startswith("bbq") and dims < _FEW_DIMS:
        said = f"{kind} keeps a bit for each of {dims} dims: from {_FEW_DIMS} on that says enough of a vector"
        advice.append(("warning", said, f"measure: esvector recall {live.alias}; or {reembed}: int8_hnsw"))
    if live.target.quantized and options.get("rescore_vector", {}).get("oversample", 2) == 0:
        said = f"{kind} with an oversample of 0: scores are of quantized vectors, and off"
        advice.append(("warning", said, "set rescore_vector.oversample to 1 or more, which can be done in place"))
    m, ef = int(options.get("m", 16)), int(options.get("ef_construction", 100))
    if kind.endswith("hnsw") and m not in _M:
        advice.append(("note", f"m is {m}: {_M[0]} to {_M[-1]} suit most", f"try others: esvector tune {live.alias}"))
    if kind.endswith("hnsw") and ef < 2 * m:
        said = f"ef_construction is {ef}, less than twice m ({m}): the graph is built carelessly"
        advice.append(("note", said, f"try more: esvector tune {live.alias} --sample-copy 20000 --ef-construction 100"))
    found = [Finding(level, "mapping", said, remedy) for level, said, remedy in advice]
    return [*(found or [Finding("ok", "mapping", f"{kind}, {dims} dims")]), *_fields(live)]


def check_memory(client: Elasticsearch, live: Live) -> Finding:
    """Whether what a fast search reads again and again fits beside the heaps of the nodes."""
    with explain_errors(client):
        stats = client.indices.stats(index=live.name, metric="dense_vector")["_all"]["total"]["dense_vector"]
        nodes = client.nodes.stats(metric="os,jvm")["nodes"]
    needed = memory_bytes(stats.get("off_heap"), live.vector_type)
    if needed is None:  # before 9.2
        m = int(live.vector.get("index_options", {}).get("m", 16))
        one = vector_bytes(live.passport.encoder.dims or 0, live.passport.element_type, live.vector_type, m)
        needed = one.memory * int(stats["value_count"])
    room = sum(max(0, _room(node)) for node in nodes.values() if _holds_data(node))
    share = needed / room if room else float("inf")
    said = f"vectors and graphs of all copies take {_size(needed)} of the {_size(room)} beside the heaps of the nodes"
    less = "quantize (int8_hnsw, bbq_hnsw: esvector tune --sample-copy), add memory, or give the heap less"
    if share > _FULL:
        return Finding("alarm", "memory", f"{said}: every search waits for the disk", less)
    if share > _TIGHT:
        return Finding("warning", "memory", f"{said}, which all else that is read has to share", less)
    return Finding("ok", "memory", said)


def check_settings(live: Live) -> Finding:
    """Whether the settings of searches were measured."""
    if (settings := live.passport.search) is None:
        said = "searches ask for what suits most indices: nobody has measured this one"
        return Finding("note", "settings", said, f"esvector tune {live.alias}")
    over = "" if settings.oversample is None else f", oversample {settings.oversample:g}"
    recall = "" if settings.recall is None else f": recall@{settings.k} was {settings.recall:.3f}"
    return Finding("ok", "settings", f"num_candidates {settings.num_candidates}{over}{recall}")


def check_leftovers(client: Elasticsearch, live: Live) -> list[Finding]:
    """Whether a run that was killed has left something behind."""
    pattern = f"{live.alias}{COPY_MARK}*"
    with explain_errors(client):
        copies = sorted(client.indices.get(index=pattern, expand_wildcards="all", features="aliases"))
    found = []
    if copies:
        said = f"sample copies of a tune that was killed, or is at work: {named(copies)}"
        found.append(Finding("note", "leftovers", said, f"when none is at work: DELETE {copies[0]}"))
    if live.passport.state != "ready":
        said = "the passport says that the index is still being built"
        found.append(Finding("warning", "leftovers", said, "run the esvector index command that made it again"))
    return found


def _fields(live: Live) -> list[Finding]:
    found = []
    analysed = [name for name, field in live.target.fields.items() if field.type == "text" and field.exact is None]
    if analysed:
        said = f"analysed text without a keyword sub-field, which no filter can compare: {named(analysed)}"
        found.append(Finding("note", "fields", said, "add the sub-field in the --mapping if you want to filter by it"))
    hidden = [name for name, field in live.target.fields.items() if not field.searchable and field.type != "text"]
    hidden = [name for name in hidden if name != live.passport.vector_field]
    if hidden:
        said = f"fields with neither an index nor doc values, which no filter can use: {named(hidden)}"
        found.append(
            Finding("note", "fields", said, "turn one of them on in the --mapping if you want to filter by them")
        )
    limit, count = int(live.settings.get("mapping.total_fields.limit", 1000)), len(live.target.fields)
    if count > _FIELDS * limit:
        said = f"{count:,} fields, and the limit is {limit:,}: documents with new ones will be refused"
        remedy = 'map what is not filtered by as one field of type "flattened", or raise mapping.total_fields.limit'
        found.append(Finding("warning", "fields", said, remedy))
    return found


def _room(node: Mapping[str, Any]) -> int:
    return int(node["os"]["mem"]["total_in_bytes"]) - int(node["jvm"]["mem"]["heap_max_in_bytes"])


def _holds_data(node: Mapping[str, Any]) -> bool:
    return any(role.startswith("data") for role in node.get("roles", ["data"]))


def _size(count: int) -> str:
    from rich.filesize import decimal

    return decimal(count)


def _many(count: int, what: str) -> str:
    plural = f"{what[:-1]}ies" if what.endswith("y") else f"{what}s"
    return f"{count:,} {what if count == 1 else plural}"
