"""How much memory this machine, or the container around us, has."""

from __future__ import annotations

from pathlib import Path

__all__ = ["machine_memory_mb"]

# Where the limit of a container is found: control groups of version 2 and 1.
_CONTAINER_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def machine_memory_mb() -> tuple[int, int]:
    """Return (total, available) memory in MB, within the limit of the container if there is one."""
    import psutil

    memory = psutil.virtual_memory()
    total = min([memory.total, *_limits()])
    return total // 2**20, min(memory.available, total) // 2**20


def _limits() -> list[int]:
    found = []
    for path in _CONTAINER_LIMITS:
        try:
            found.append(int(path.read_text()))
        except (OSError, ValueError):  # absent, or the word "max"
            continue
    return found
