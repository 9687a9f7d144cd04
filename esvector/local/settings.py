"""The files that configure the server, and how much memory it gets."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from esvector.errors import ConfigError
from esvector.local.account import Account
from esvector.local.layout import Layout
from esvector.local.process import marker

__all__ = ["check_settings", "default_heap_mb", "elasticsearch_yml", "jvm_options", "write_config"]

_SMALLEST_HEAP_MB = 512
_LARGEST_HEAP_MB = 4096

# Another value would open the node to the network, or hide it from the commands that manage it.
_RESERVED = frozenset({"cluster.name", "http.port", "path.data", "path.logs", "node.name"})
_RESERVED_ENDINGS = (".host", ".bind_host", ".publish_host")


def default_heap_mb(total_mb: int, available_mb: int) -> int:
    """Return the heap in MB for a machine with that memory: an eighth of it, and never over half of what is available.

    Vectors are searched through the page cache of the operating system, outside of the heap, and the encoder lives on
    the same machine: both need the memory more.
    """
    return max(_SMALLEST_HEAP_MB, min(total_mb // 8, available_mb // 2, _LARGEST_HEAP_MB))


def check_settings(settings: Mapping[str, str]) -> dict[str, str]:
    """Return a copy of ``settings``. Raises ConfigError for a key that esvector has to decide itself, or is none."""
    for key in settings:
        if not re.fullmatch(r"[A-Za-z0-9_$-]+(\.[A-Za-z0-9_$-]+)*", key):
            raise ConfigError(f"{key!r} is not a valid name of a setting", "write it like: node.attr.rack")
        if key in _RESERVED or key.endswith(_RESERVED_ENDINGS):
            raise ConfigError(f"the setting {key!r} cannot be changed on the local node", "leave it out")
    return dict(settings)


def elasticsearch_yml(layout: Layout, port: int, settings: Mapping[str, str]) -> str:
    """Return the text of elasticsearch.yml."""
    lines = {
        "cluster.name": layout.cluster_name,
        "node.name": "local",
        "path.data": str(layout.data),
        "path.logs": str(layout.logs),
        "network.host": "127.0.0.1",
        "http.port": str(port),
        # A range: it takes the first free one, nobody else needs to know which.
        "transport.port": "9300-9400",
        "discovery.type": "single-node",
        "xpack.security.enabled": "false",
        # The defaults are shares of the disk (an index becomes read-only at 95 %), which a developer's nearly full but
        # large disk exceeds with tens of GB free. Off altogether, a disk that really fills would break the index in
        # the middle of a write. So: on, in bytes left. esvector refuses to start the node below 1 GB.
        "cluster.routing.allocation.disk.watermark.low": "500mb",
        "cluster.routing.allocation.disk.watermark.high": "400mb",
        "cluster.routing.allocation.disk.watermark.flood_stage": "200mb",
    }
    lines.update(settings)
    # A JSON string is a YAML scalar whatever is in it.
    body = "".join(f"{key}: {json.dumps(value)}\n" for key, value in lines.items())
    return f"# Written by esvector at every start of the node; changes made here are lost.\n{body}"


def jvm_options(layout: Layout, heap_mb: int, more: Sequence[str] = ()) -> str:
    """Return the JVM options of this node, one a line; ``more`` are its last."""
    return "\n".join(
        (
            f"-Xms{heap_mb}m",
            f"-Xmx{heap_mb}m",
            marker(layout.home),
            # Elasticsearch touches the whole heap at start; a small index never needs most of it.
            "-XX:-AlwaysPreTouch",
            # The shipped options keep up to 2 GB of collector logs and a dump as large as the heap.
            "-Xlog:disable",
            "-Xlog:all=warning:stderr:utctime,level,tags",
            "-XX:-HeapDumpOnOutOfMemoryError",
            *more,
            "",
        )
    )


def write_config(
    layout: Layout,
    account: Account,
    distribution: Path,
    port: int,
    heap_mb: int,
    settings: Mapping[str, str],
    more_options: Sequence[str] = (),
) -> None:
    """Write the configuration as ``account``; ``distribution`` gives what esvector has no opinion on."""
    shipped = {name: (distribution / "config" / name).read_text() for name in ("jvm.options", "log4j2.properties")}
    written = {
        "jvm.options.d/esvector.options": jvm_options(layout, heap_mb, more_options),
        "elasticsearch.yml": elasticsearch_yml(layout, port, settings),
    }
    for name, text in (shipped | written).items():
        account.write(layout.config, name, text)
