"""The processes of a node: telling them from others, and ending them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from esvector.errors import NodeError
from esvector.local.layout import Layout, default_home, trusted
from esvector.local.state import read_state

__all__ = ["POLL_SECONDS", "end", "launch_options", "leads", "live_pid", "marker", "our_pids", "running_url"]

POLL_SECONDS = 0.1


def marker(home: Path) -> str:
    """Return the JVM argument that the server of ``home`` carries on its command line."""
    return f"-Desvector.home={home}"


def launch_options(layout: Layout) -> list[str]:
    """Return the arguments of the launcher, by which it is known until the server has its own command line."""
    return ["-d", "-p", str(layout.pid_file)]


def our_pids(layout: Layout) -> list[int]:
    """Return every process of this home, found without a pid from any file: its server first, then what launches it."""
    import psutil

    return _ours(psutil.pids(), layout)


def live_pid(layout: Layout) -> int | None:
    """Return the pid of the server or, before it has one, of its launcher; None when neither lives."""
    import psutil

    state, pids = read_state(layout), psutil.pids()
    session = state.pid if state else None
    # The launcher has opened a session, which its server stays in: few processes to look at closely.
    started = [pid for pid in pids if session is not None and _session(pid) == session]
    return next(iter(_ours(started, layout) or _ours(pids, layout)), None)


def _ours(pids: Iterable[int], layout: Layout) -> list[int]:
    """Return those of ``pids`` that are the server of this home or its launcher, the server first.

    Their account and command line say so, which a number in a file does not: after a crash or a reboot the same pid may
    belong to anything. Whatever else names the home or the pid file (``tail -f``, an editor) is not ours. A process
    that has ended but was not collected by its parent has no command line and does not count.
    """
    owner = _owner(layout)
    if owner is None:
        return []
    kinds = {pid: _kind(pid, owner, layout) for pid in pids}
    return [pid for kind in ("server", "launcher") for pid in kinds if kinds[pid] == kind]


def _owner(layout: Layout) -> int | None:
    """Return the account that runs the server of this home; None when nothing was ever started.

    The state says so, even while the data are moved away; without it, or where it is old, the owner of the data does.
    """
    state = read_state(layout)
    if state is not None and state.uid is not None:
        return state.uid
    with suppress(OSError):
        return layout.data.lstat().st_uid
    return None


def _kind(pid: int, owner: int, layout: Layout) -> str | None:
    import psutil

    try:
        process = psutil.Process(pid)
        command = process.cmdline() if process.uids().real == owner else []
    except (psutil.Error, ValueError):
        return None
    if command[-3:] == launch_options(layout):
        return "launcher"
    return "server" if command and Path(command[0]).name == "java" and marker(layout.home) in command else None


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def leads(leader: int, pid: int) -> bool:
    """Whether ``pid`` is in the process group that ``leader`` opened."""
    try:
        return os.getpgid(pid) == leader
    except OSError:
        return False


def end(layout: Layout, number: signal.Signals, timeout: float) -> bool:
    """Send a signal to the processes of this home; whether they are gone within ``timeout`` seconds.

    Raises NodeError when they belong to another account.
    """
    for pid in our_pids(layout):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
        except PermissionError as error:
            raise NodeError(
                f"the node (process {pid}) belongs to another account", "stop it as that account"
            ) from error
    deadline = time.monotonic() + timeout
    while our_pids(layout):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def running_url(home: Path | None = None) -> str | None:
    """Return the URL of the node in ``home`` if its process lives (it may still be starting), else None. Quick."""
    layout = Layout(trusted(home or default_home()))
    state = read_state(layout)
    if state is None or state.pid is None or live_pid(layout) is None:
        return None
    return state.url
