"""How the client of ``connect`` sends: over connections of this process alone, and bodies of bytes as they are."""

from __future__ import annotations

import queue
import weakref
from contextlib import suppress
from typing import Any

from elastic_transport import NdjsonSerializer, NodeConfig, Urllib3HttpNode

__all__ = ["BulkSerializer", "OwnNode"]


class BulkSerializer(NdjsonSerializer):
    """Sends bodies that are bytes as they are; the default copies them twice (elastic-transport 9.4)."""

    def dumps(self, data: Any) -> bytes:  # noqa: ANN401
        """Return the body to send."""
        return data if isinstance(data, bytes) else super().dumps(data)


class OwnNode(Urllib3HttpNode):
    """A node whose connections can be left behind in a forked child without a lock that another thread may hold.

    urllib3 (2.8) takes connections out of their queue to close them when they are no longer used, or the process ends:
    a child would wait for ever where a thread of its parent used the queue at the moment of the fork.
    """

    def __init__(self, config: NodeConfig) -> None:
        super().__init__(config)
        idle: queue.LifoQueue[Any] = queue.LifoQueue(config.connections_per_node)
        for _ in range(config.connections_per_node):
            idle.put(None)  # a connection that is to be opened
        self.pool.pool = idle
        weakref.finalize(self.pool, _close, idle.queue)

    @property
    def base_url(self) -> str:
        """The address for logs, without its path, which may be a secret of a gateway."""
        return f"{self.scheme}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def _close(connections: list[Any]) -> None:
    """Close connections; in a child this ends the child's hold on them only, as nothing is sent."""
    with suppress(IndexError):  # another thread took the last one
        while connections:
            if (connection := connections.pop()) is not None:
                connection.close()
