"""What is remembered about a node between commands."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass

from esvector.local.layout import Layout

__all__ = ["State", "read_state", "write_state"]


@dataclass(frozen=True, slots=True)
class State:
    """The last start. ``pid`` leads the process group of the node; None after a ``stop``.

    ``launched`` is in seconds since 1970, ``heap_mb`` in MB.
    """

    pid: int | None
    port: int
    version: str
    heap_mb: int
    launched: float

    @property
    def url(self) -> str:
        """Not ``localhost``, which some machines try over IPv6 first, where the node does not listen."""
        return f"http://127.0.0.1:{self.port}"


def read_state(layout: Layout) -> State | None:
    """Return the last start; None when there was none, or the file is not readable as one."""
    try:
        fields = json.loads(layout.state_file.read_bytes())
        pid = fields["pid"]
        return State(
            pid=None if pid is None else int(pid),
            port=int(fields["port"]),
            version=str(fields["version"]),
            heap_mb=int(fields["heap_mb"]),
            launched=float(fields["launched"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_state(layout: Layout, state: State) -> None:
    """Replace the state file as a whole, so that a reader never sees half of it."""
    partial = layout.state_file.with_suffix(".partial")
    partial.write_text(json.dumps(asdict(state)))
    os.replace(partial, layout.state_file)
