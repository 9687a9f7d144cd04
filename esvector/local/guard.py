"""The guard of an ephemeral node: ends it and deletes its folder when its owner is gone, however it went.

The home is its argument. Standard input is a pipe whose other end only the owner holds, and which therefore ends with
the owner, also after ``kill -9``, when no code of the owner runs any more.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from esvector.errors import NodeError
from esvector.local.account import delete_server_folders
from esvector.local.layout import Layout
from esvector.local.process import POLL_SECONDS, our_pids

__all__ = ["clean_up", "main"]


def clean_up(home: Path, timeout: float = 30) -> None:
    """Kill every process of the node in ``home`` and delete the folder; give up after ``timeout`` seconds."""
    layout = Layout(home)
    deadline = time.monotonic() + timeout
    # Found by command line, not by a file: the owner may have died between starting the node and writing down its pid.
    while time.monotonic() < deadline:
        pids = our_pids(layout)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not pids:
            with suppress(OSError, NodeError):
                delete_server_folders(layout)
                shutil.rmtree(home)
            if not home.exists():
                return
        time.sleep(POLL_SECONDS)


def main() -> None:
    """Wait for the end of standard input, then clean up."""
    home = Path(sys.argv[1])
    sys.stdin.buffer.read()
    clean_up(home)
