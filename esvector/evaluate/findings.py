"""What an examination of an index found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding", "Level", "named"]

Level = Literal["ok", "note", "warning", "alarm"]

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: "ok"; "note": worth knowing; "warning": costs quality, speed or safety; "alarm": answers are wrong.
        check: what was looked at.
        value: what was found.
        remedy: what to do about it; empty where nothing is.
    """

    level: Level
    check: str
    value: str
    remedy: str = ""


def named(names: Sequence[str], count: int | None = None) -> str:
    """Return a few of ``names``, and how many more there are; ``count`` is of all, where ``names`` are the first."""
    rest = (len(names) if count is None else count) - len(names[:_SHOWN])
    return ", ".join(names[:_SHOWN]) + (f" and {rest:,} more" if rest > 0 else "")
