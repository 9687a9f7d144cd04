"""A real single-node Elasticsearch on this machine, fetched and started for you.

``Node`` and ``NodeStatus`` are loaded when first used: asking for the URL of a running node should cost nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from esvector.local.process import running_url

if TYPE_CHECKING:
    from esvector.local.node import Node, NodeStatus

__all__ = ["Node", "NodeStatus", "running_url"]


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name in ("Node", "NodeStatus"):
        from esvector.local import node

        return getattr(node, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
