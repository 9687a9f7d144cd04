"""What is remembered about a node between commands."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from esvector.errors import NodeError
from esvector.local.layout import Layout

__all__ = ["State", "check_ours", "read_state", "write_state"]


@dataclass(frozen=True, slots=True)
class State:
    """The last start. ``pid`` leads the process group of the node; None after a ``stop``, and before a launch.

    ``launched`` is in seconds since 1970, ``heap_mb`` in MB. ``uid`` is the account that runs the server; None where an
    older esvector wrote this.
    """

    pid: int | None
    port: int
    version: str
    heap_mb: int
    launched: float
    uid: int | None = None

    @property
    def url(self) -> str:
        """Not ``localhost``, which some machines try over IPv6 first, where the node does not listen."""
        return f"http://127.0.0.1:{self.port}"


def read_state(layout: Layout) -> State | None:
    """Return the last start; None when there was none, or the file is not readable as one.

    Raises NodeError when it is the node of another account, which keeps this to itself.
    """
    try:
        fields = json.loads(layout.state_file.read_bytes())
        pid, uid = fields["pid"], fields.get("uid")
        return State(
            pid=None if pid is None else int(pid),
            port=int(fields["port"]),
            version=str(fields["version"]),
            heap_mb=int(fields["heap_mb"]),
            launched=float(fields["launched"]),
            uid=None if uid is None else int(uid),
        )
    except PermissionError as error:
        raise NodeError(
            f"this account cannot read {layout.state_file}, and so cannot look at this node",
            "run this command as the account that started it, or set ESVECTOR_URL to the address of the node",
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write_state(layout: Layout, state: State) -> None:
    """Replace the state file as a whole, so that a reader never sees half of it.

    It decides where commands connect and what they stop: no other account may change it, whatever the umask.
    """
    partial = layout.state_file.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(asdict(state), file)
    os.replace(partial, layout.state_file)


def check_ours(layout: Layout) -> None:
    """Raise NodeError when something here has a name that esvector uses, but esvector never started a node here.

    A start would take those folders over and empty some of them, and a reset would delete them all.
    """
    if read_state(layout) is not None:
        return
    for path in (*layout.server_folders, layout.startup_log, layout.state_file):
        if _holds_something(path):
            raise NodeError(
                f"{path} is not empty, and esvector never started a node in {layout.home} (it has no valid state.json)",
                "set ESVECTOR_HOME to an empty folder. Put files for the server there after its first start",
            )


def _holds_something(path: Path) -> bool:
    try:
        return any(path.iterdir()) if path.is_dir() else path.stat().st_size > 0
    except FileNotFoundError:
        return False
    except OSError:  # closed to us, and so not ours
        return True
