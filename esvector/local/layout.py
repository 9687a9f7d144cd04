"""Where a node keeps its things, and its name."""

from __future__ import annotations

import hashlib
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from esvector.errors import NodeError

if TYPE_CHECKING:
    from filelock import BaseFileLock

__all__ = ["Layout", "default_downloads", "default_home", "make_folder", "private_lock", "trusted"]


def default_home() -> Path:
    """Return where the node of this user lives unless told otherwise.

    Root's own folders are closed to the account that runs the server for it, so root's node lives where all can read.
    """
    if os.geteuid() == 0:
        return Path("/var/lib").resolve() / "esvector"  # on macOS, /var is a link of the system
    from platformdirs import user_data_path

    return user_data_path("esvector")


def default_downloads() -> Path:
    """Return where what was fetched (Elasticsearch, a JDK) is kept unless told otherwise."""
    if os.geteuid() == 0:
        return default_home() / "downloads"
    from platformdirs import user_cache_path

    return user_cache_path("esvector")


def make_folder(path: Path) -> None:
    """Create a folder and the missing ones above it; for root so that the account of the server can enter them.

    Raises NodeError when it could be another account's work (``trusted``).
    """
    if os.geteuid() != 0:
        path.mkdir(parents=True, exist_ok=True)
        return
    trusted(path)
    for folder in reversed([folder for folder in (path, *path.parents) if not folder.exists()]):
        with suppress(FileExistsError):
            folder.mkdir(mode=0o755)
            folder.chmod(0o755)  # whatever the umask
        trusted(folder)  # in /tmp, another account may have been quicker
    path.mkdir(exist_ok=True)  # raises when it is a file


def private_lock(path: Path, timeout: float = -1) -> BaseFileLock:
    """Return a lock for ``with``. Whoever can open its file can hold it, so that other accounts cannot."""
    from filelock import FileLock

    with suppress(FileNotFoundError, PermissionError):
        path.chmod(0o600)  # older versions left it to the umask
    return FileLock(path, timeout=timeout, mode=0o600)


def trusted(path: Path) -> Path:
    """Return ``path`` without links. For root, raise NodeError when another account could put something in its place.

    Root reads, writes and signals by what is in its node's folder, which therefore only root may change; likewise all
    folders above it, except that others may have entries of their own there, as in /tmp. A link may be such an entry,
    and root follows none. Raises NodeError, too, when the system cannot look up the path.
    """
    try:
        path = Path(os.path.abspath(path.expanduser()))
        resolved = path.resolve()
        with suppress(FileNotFoundError):
            resolved.lstat()
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a loop of links, an unknown ~user
        raise NodeError(
            f"{str(path)!r} cannot be the folder of a node: {error}", "set ESVECTOR_HOME to another folder"
        ) from error
    if os.geteuid() != 0:
        return resolved
    if resolved != path:
        raise NodeError(
            f"root's node does not follow links, and a link leads from {path} to {resolved}",
            f"if that is the folder you want, set ESVECTOR_HOME={resolved}",
        )
    for folder in (path, *path.parents):
        with suppress(FileNotFoundError):
            facts = folder.lstat()
            open_to_others = facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
            own_entries_only = folder != path and facts.st_mode & stat.S_ISVTX
            if facts.st_uid != 0 or (open_to_others and not own_entries_only):
                raise NodeError(
                    f"other accounts than root can change the folder {folder}, so root cannot use {path} for its node",
                    f"set ESVECTOR_HOME to a folder that only root can change, or: chown root {folder} && "
                    f"chmod go-w {folder}",
                )
    return path


@dataclass(frozen=True, slots=True)
class Layout:
    """The folders and files below one home."""

    home: Path

    @property
    def cluster_name(self) -> str:
        """The name by which a server is recognised as the one of this home."""
        return f"esvector-{hashlib.sha256(str(self.home).encode()).hexdigest()[:8]}"

    @property
    def config(self) -> Path:
        """The server's configuration; esvector replaces its own files in it at every start."""
        return self.home / "config"

    @property
    def data(self) -> Path:
        """The indices."""
        return self.home / "data"

    @property
    def logs(self) -> Path:
        """The logs of the last starts."""
        return self.home / "logs"

    @property
    def temporary(self) -> Path:
        """Emptied at every start."""
        return self.home / "tmp"

    @property
    def run(self) -> Path:
        """Holds the server's pid file; emptied at every start."""
        return self.home / "run"

    @property
    def server_folders(self) -> tuple[Path, ...]:
        """What the server writes to, and therefore owns; root does nothing at a path below them."""
        return (self.config, self.data, self.logs, self.temporary, self.run)

    @property
    def pid_file(self) -> Path:
        """Written by the server itself, for people: it names the home on the command line of the launcher."""
        return self.run / "server.pid"

    @property
    def state_file(self) -> Path:
        """What is remembered between commands."""
        return self.home / "state.json"

    @property
    def lock_file(self) -> Path:
        """Held while starting, stopping and deleting."""
        return self.home / "lock"

    @property
    def startup_log(self) -> Path:
        """Everything that is printed before the server has its own log, errors of the JVM included."""
        return self.home / "startup.log"

    @property
    def server_log(self) -> Path:
        """The server's own log; it goes on across starts."""
        return self.logs / f"{self.cluster_name}.log"
