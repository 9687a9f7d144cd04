"""Starting the server's process: folders, configuration, environment, account."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from esvector.errors import NodeError
from esvector.local.account import PLAIN_ENVIRON, Account
from esvector.local.distribution import VERSION
from esvector.local.layout import Layout
from esvector.local.process import launch_options
from esvector.local.settings import write_config
from esvector.local.state import State, write_state

__all__ = ["LEAST_FREE_BYTES", "Launch", "launch"]

LEAST_FREE_BYTES = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Launch:
    """Everything that a start needs. ``heap_mb`` in MB, ``jvm_options`` besides those that every node gets."""

    layout: Layout
    account: Account
    distribution: Path
    java_home: Path
    port: int
    heap_mb: int
    settings: Mapping[str, str]
    jvm_options: Sequence[str] = ()


def launch(this: Launch) -> State:
    """Start the server and return at once. Raises NodeError when its folders cannot be used or the disk is full."""
    layout = this.layout
    try:
        write_state(layout, _planned(this))  # from now on, what is in the folders is known to be a node's
        _prepare_folders(layout, this.account)
        write_config(layout, this.account, this.distribution, this.port, this.heap_mb, this.settings, this.jvm_options)
        output = _new_log(layout.startup_log)
    except OSError as error:
        raise NodeError(
            f"the node's folder {layout.home} cannot be prepared: {error}",
            "make room or correct the permissions there, or choose another folder with ESVECTOR_HOME",
        ) from error
    command = [str(this.distribution / "bin" / "elasticsearch"), *launch_options(layout)]
    launched = time.time()
    with output:
        process = this.account.launch(command, _environ(layout, this.java_home), output)
    # The launcher ends when the server is up; someone has to collect it.
    threading.Thread(target=process.wait, name="esvector-node-launcher", daemon=True).start()
    return replace(_planned(this), pid=process.pid, launched=launched)


def _planned(this: Launch) -> State:
    return State(
        pid=None,
        port=this.port,
        version=VERSION,
        heap_mb=this.heap_mb,
        launched=time.time(),
        uid=this.account.number,
    )


def _new_log(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")


def _environ(layout: Layout, java_home: Path) -> dict[str, str]:
    """Nothing of the caller's environment: variables like ES_JAVA_OPTS would change the node without a trace."""
    return {
        **PLAIN_ENVIRON,
        "HOME": str(layout.temporary),
        "ES_JAVA_HOME": str(java_home),
        "ES_PATH_CONF": str(layout.config),
        "ES_TMPDIR": str(layout.temporary),
        # Of the launcher, which is gone before code that is compiled at length would pay.
        "CLI_JAVA_OPTS": "-XX:TieredStopAtLevel=1",
    }


def _prepare_folders(layout: Layout, account: Account) -> None:
    account.own(layout.server_folders)
    account.check_can_enter(layout.data)
    for folder in (layout.temporary, layout.run):
        account.empty(folder)
    free = shutil.disk_usage(layout.data).free
    if free < LEAST_FREE_BYTES:
        raise NodeError(
            f"only {free / 1e6:.0f} MB are free at {layout.data}, and the node needs {LEAST_FREE_BYTES / 1e6:.0f} MB",
            "make room (esvector node reset deletes the node's data), or set ESVECTOR_HOME to a larger disk",
        )
