"""Under which account the server runs: Elasticsearch refuses to run as root."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from esvector.errors import NodeError

__all__ = ["Account", "server_account"]


@dataclass(frozen=True, slots=True)
class Account:
    """Who runs the server. ``uid`` None means: whoever runs esvector."""

    name: str
    uid: int | None = None
    gid: int | None = None

    def own(self, *paths: Path) -> None:
        """Give ``paths`` (not what is below them) to this account."""
        if self.uid is not None and self.gid is not None:
            for path in paths:
                os.chown(path, self.uid, self.gid)

    def launch(self, command: Sequence[str], environ: Mapping[str, str], output: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start ``command`` as this account in a session of its own; both its outputs go to ``output``."""
        return subprocess.Popen(  # noqa: S603
            command,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",  # the account may not be able to enter the current folder
            start_new_session=True,
            user=self.uid,
            group=self.gid,
            extra_groups=None if self.uid is None else [],
        )

    def try_run(self, command: Sequence[str], timeout: float = 30) -> str:
        """Return what ``command`` prints (both outputs). Raise OSError when this account cannot run it."""
        done = subprocess.run(  # noqa: S603
            command,
            env={"PATH": os.defpath},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
            cwd="/",
            user=self.uid,
            group=self.gid,
            extra_groups=None if self.uid is None else [],
        )
        if done.returncode != 0:
            raise OSError(f"exit status {done.returncode}: {done.stdout.strip()[:200]}")
        return done.stdout

    def check_can_enter(self, path: Path) -> None:
        """Raise NodeError when this account cannot reach the folder ``path``."""
        try:
            self.try_run(["/bin/sh", "-c", 'cd -- "$1"', "sh", str(path)])
        except OSError:
            raise NodeError(
                f"the account {self.name!r}, which has to run Elasticsearch because it refuses to run as root, "
                f"cannot enter {path}",
                f"choose a folder that every account can enter (ESVECTOR_HOME), or: chmod o+x {path} and its parents",
            ) from None


def server_account() -> Account:
    """Return the account that has to run the server: ``nobody`` for root, otherwise the current one."""
    if os.geteuid() != 0:
        return Account(name="current user")
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        raise NodeError(
            "Elasticsearch refuses to run as root, and this machine has no account 'nobody' to run it instead",
            "run this command as an ordinary user",
        ) from None
    return Account(name="nobody", uid=entry.pw_uid, gid=entry.pw_gid)
