"""Why a server died while starting, and what to do, read from what it printed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from esvector.errors import NodeError

__all__ = ["LOG_BYTES", "PortTakenError", "last_lines", "startup_error", "tail"]

LOG_BYTES = 256 * 1024  # as much of a log is read, from its end


class PortTakenError(NodeError):
    """Between the choice of a port and its use by the server, another program took it."""


@dataclass(frozen=True, slots=True)
class _Cause:
    pattern: str
    message: str
    remedy: str


_CAUSES = (
    _Cause(
        r"BindHttpException|BindException|Address already in use",
        "another program took its port",
        "start again, or choose another port with --port",
    ),
    _Cause(
        r"No space left on device|not enough space",
        "the disk is full",
        "make room, or set ESVECTOR_HOME to a folder on a larger disk",
    ),
    _Cause(
        r"Could not reserve enough space|Cannot allocate memory|insufficient memory|Invalid (maximum|initial) heap size"
        r"|Too small (maximum|initial) heap",
        "the Java heap cannot be reserved",
        "free some memory, or give it a smaller heap with --heap-mb (512 is enough for small indices)",
    ),
    _Cause(
        r"failed to obtain node lock|LockObtainFailedException",
        "another server uses the same data",
        "find it (ps aux | grep esvector.home) and stop it",
    ),
    _Cause(r"bootstrap check", "a bootstrap check failed", "correct what the lines above name"),
    _Cause(
        r"AccessDeniedException|Permission denied",
        "it may not read or write one of its files",
        "give the folder to the account that runs the node, or choose another with ESVECTOR_HOME",
    ),
    _Cause(
        r"unknown setting|SettingsException|failed to parse value|Failed to parse value",
        "a setting is not one that it accepts",
        "correct or leave out that setting",
    ),
    _Cause(
        r"UnsupportedClassVersionError|Unrecognized VM option|Unrecognized option|requires Java|java version",
        "the JDK does not suit it",
        "set ES_JAVA_HOME to a JDK of version 21 to 25",
    ),
    _Cause(
        r"cannot downgrade a node|cannot upgrade a node|IndexFormatTooNewException|IndexFormatTooOldException",
        "its data was written by another version of Elasticsearch",
        "delete the data with: esvector node reset",
    ),
)


def tail(path: Path, lines: int) -> list[str]:
    """Return the last ``lines`` lines of a text file, none when there is no such file. Reads at most 256 KB."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - LOG_BYTES))
            return last_lines(file.read().decode(errors="replace"), lines)
    except OSError:
        return []


def last_lines(text: str, lines: int) -> list[str]:
    """Return the last ``lines`` lines of a log, which do nothing to a terminal but appear on it."""
    chosen = text.splitlines()[-lines:] if lines > 0 else []
    return [
        "".join(c if c.isprintable() or c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in line) for line in chosen
    ]


def startup_error(printed: Sequence[str], log_path: Path) -> NodeError:
    """Return the error for a server that ended while starting; ``printed`` is what it wrote, in order."""
    text = "\n".join(printed)
    cause = next((cause for cause in _CAUSES if re.search(cause.pattern, text)), None)
    shown = "".join(f"\n  {line[:300]}" for line in _relevant(printed, cause))
    if cause is None:
        reason = f"its last lines:{shown}" if shown else "it printed nothing (killed, perhaps for lack of memory?)"
        return NodeError(f"Elasticsearch ended while starting; {reason}", f"the whole log: {log_path}")
    message = f"Elasticsearch ended while starting: {cause.message}:{shown}"
    kind = PortTakenError if cause is _CAUSES[0] else NodeError
    return kind(message, f"{cause.remedy}. The whole log: {log_path}")


def _relevant(printed: Sequence[str], cause: _Cause | None, most: int = 8) -> list[str]:
    """Return the lines that name the cause, or the last ones that are not part of a stack trace."""
    if cause is not None:
        naming = [line.strip() for line in printed if re.search(cause.pattern, line)]
        return naming[:most]
    return [line.strip() for line in printed if line.strip() and not re.match(r"\s+at |\s+\.\.\. ", line)][-most:]
