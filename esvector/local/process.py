"""The processes of a node: telling them from others, and ending them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from esvector.errors import NodeError
from esvector.local.layout import Layout, default_home
from esvector.local.state import read_state

__all__ = ["POLL_SECONDS", "end_group", "is_ours", "leads", "live_pid", "marker", "our_pids", "running_url"]

POLL_SECONDS = 0.1


def marker(home: Path) -> str:
    """Return the JVM argument that the server of ``home`` carries on its command line."""
    return f"-Desvector.home={home}"


def is_ours(pid: int, layout: Layout) -> bool:
    """Whether ``pid`` is the launcher or the server of this home.

    The command line says so, which a number in a file does not: after a crash or a reboot the same pid may belong to
    anything. A process that has ended but was not collected by its parent has no command line and does not count.
    """
    import psutil

    try:
        command = psutil.Process(pid).cmdline()
    except (psutil.Error, ValueError):
        return False
    return marker(layout.home) in command or str(layout.pid_file) in command


def our_pids(layout: Layout) -> list[int]:
    """Return every process of this home, found without any file."""
    import psutil

    return [pid for pid in psutil.pids() if is_ours(pid, layout)]


def live_pid(layout: Layout) -> int | None:
    """Return the pid of the server or, before it has one, of its launcher; None when neither lives."""
    state = read_state(layout)
    candidates = [_pid_in(layout.pid_file), state.pid if state else None]
    return next((pid for pid in candidates if pid is not None and is_ours(pid, layout)), None)


def _pid_in(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def leads(leader: int, pid: int) -> bool:
    """Whether ``pid`` is in the process group that ``leader`` opened."""
    try:
        return os.getpgid(pid) == leader
    except OSError:
        return False


def end_group(pid: int, layout: Layout, number: signal.Signals, timeout: float) -> bool:
    """Send a signal to the process group of ``pid``, a process of this home; whether it is gone within ``timeout`` s.

    Raises NodeError when it belongs to another account.
    """
    try:
        os.killpg(os.getpgid(pid), number)
    except ProcessLookupError:
        return True
    except PermissionError as error:
        raise NodeError(f"the node (process {pid}) belongs to another account", "stop it as that account") from error
    deadline = time.monotonic() + timeout
    while is_ours(pid, layout):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def running_url(home: Path | None = None) -> str | None:
    """Return the URL of the node in ``home`` if its process lives (it may still be starting), else None. Quick."""
    layout = Layout((home or default_home()).expanduser().resolve())
    state = read_state(layout)
    if state is None or state.pid is None or live_pid(layout) is None:
        return None
    return state.url
