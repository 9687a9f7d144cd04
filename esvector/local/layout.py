"""Where a node keeps its things, and its name."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Layout", "default_downloads", "default_home", "make_folder"]

# Root's own folders are closed to the account that runs the server for it, so root's node lives where all can read.
_ROOT_HOME = Path("/var/lib/esvector")


def default_home() -> Path:
    """Return where the node of this user lives unless told otherwise."""
    if os.geteuid() == 0:
        return _ROOT_HOME
    from platformdirs import user_data_path

    return user_data_path("esvector")


def default_downloads() -> Path:
    """Return where what was fetched (Elasticsearch, a JDK) is kept unless told otherwise."""
    if os.geteuid() == 0:
        return _ROOT_HOME / "downloads"
    from platformdirs import user_cache_path

    return user_cache_path("esvector")


def make_folder(path: Path) -> None:
    """Create a folder and the missing ones above it; for root so that the account of the server can enter them."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0:
        for folder in missing:
            folder.chmod(0o755)  # whatever the umask


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
        """Written by esvector at every start."""
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
        """Holds the server's pid file."""
        return self.home / "run"

    @property
    def server_folders(self) -> tuple[Path, ...]:
        """What the server writes to, and therefore owns."""
        return (self.config, self.data, self.logs, self.temporary, self.run)

    @property
    def pid_file(self) -> Path:
        """Written by the server itself; removed by it when it ends in good order."""
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
        return self.logs / "startup.log"

    @property
    def server_log(self) -> Path:
        """The server's own log; it goes on across starts."""
        return self.logs / f"{self.cluster_name}.log"
