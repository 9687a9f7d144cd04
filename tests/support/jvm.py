"""Options for the JVM of servers that only a test uses."""

from __future__ import annotations

__all__ = ["QUICK"]

QUICK = ("-XX:TieredStopAtLevel=1",)
"""Half the CPU time of a start: nothing is compiled at length for the few requests that follow."""
