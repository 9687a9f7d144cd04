"""The Elasticsearch distribution: fetched once, verified, unpacked for reading only."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from esvector.errors import NodeError
from esvector.local.layout import make_folder, private_lock

__all__ = ["SHA256", "VERSION", "fetch_with_jgo", "installed_distribution"]

VERSION = "9.5.3"
SHA256 = "bec49f3b8d00e75c8d1cec85c35298635ec9fbd3ae80ef5aeb6bc05abdb3db2d"

# The official distribution that Elastic publishes for integration tests: the server without most optional modules.
_GROUP, _ARTIFACT = "org.elasticsearch.distribution.integ-test-zip", "elasticsearch"
_NEEDED_BYTES = 600_000_000  # the zip (132 MB), its content (153 MB), and room to work
_SECONDS_BEFORE_BAR = 1.0

Fetch = Callable[[Path], Path]


def fetch_with_jgo(folder: Path) -> Path:
    """Download the distribution below ``folder`` and return the path of the zip, which is not verified yet."""
    from jgo.maven import MavenContext, PythonResolver

    context = MavenContext(repo_cache=folder, timeout=60, resolver=PythonResolver(progress_callback=_progress))
    artifact = context.project(_GROUP, _ARTIFACT).at_version(VERSION).artifact(packaging="zip")
    path: Path = artifact.resolve()
    return path


def installed_distribution(
    downloads: Path, say: Callable[[str], None], fetch: Fetch | None = None, sha256: str = SHA256
) -> Path:
    """Return the folder of the unpacked distribution below ``downloads``, fetching it the first time.

    Everything happens in a private folder and arrives by one rename, so that what is there is complete; a broken
    download leaves nothing. Raises NodeError when it cannot be fetched, verified or unpacked.
    """
    target = downloads / f"elasticsearch-{VERSION}"
    if target.is_dir():
        return target
    _prepare(downloads)
    with private_lock(downloads / "distribution.lock"):
        if target.is_dir():
            return target
        say(f"Fetching Elasticsearch {VERSION} (132 MB, once) into {downloads}.")
        _remove_leftovers(downloads)
        work = Path(tempfile.mkdtemp(prefix=".fetch-", dir=downloads))
        try:
            os.rename(_unpack(_verified(fetch or fetch_with_jgo, work, sha256), work / "unpacked"), target)
        except OSError as error:
            raise NodeError(
                f"Elasticsearch {VERSION} cannot be unpacked into {downloads}: {error}",
                "make room or correct the permissions there, then start again",
            ) from error
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return target


def _prepare(downloads: Path) -> None:
    try:
        make_folder(downloads)
        free = shutil.disk_usage(downloads).free
    except OSError as error:
        raise NodeError(
            f"the folder {downloads} cannot be prepared: {error}", "correct its permissions, or set ESVECTOR_HOME"
        ) from error
    if free < _NEEDED_BYTES:
        raise NodeError(
            f"{free / 1e6:.0f} MB are free at {downloads}; fetching Elasticsearch needs {_NEEDED_BYTES / 1e6:.0f} MB",
            "make room, or set ESVECTOR_HOME to a folder on a larger disk",
        )


def _remove_leftovers(downloads: Path) -> None:
    """Remove what a killed process left; the lock says that nobody works there now."""
    for leftover in downloads.glob(".fetch-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _verified(fetch: Fetch, work: Path, sha256: str) -> Path:
    try:
        path = fetch(work)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, RuntimeError) as error:  # requests' errors are OSErrors, jgo's "not found" is a RuntimeError
        raise NodeError(
            f"Elasticsearch {VERSION} cannot be downloaded: {error}",
            "check the connection to Maven Central (and the proxy settings), then start again; nothing was kept",
        ) from error
    if digest != sha256:
        raise NodeError(
            f"the download of Elasticsearch {VERSION} is broken: {path.stat().st_size} bytes with SHA-256 {digest}, "
            f"expected {sha256}",
            "start again (nothing was kept); if it happens again, something on the way changes files",
        )
    return path


def _unpack(archive: Path, folder: Path) -> Path:
    """Unpack and return the one folder inside, which every account can read, whatever the umask."""
    try:
        with zipfile.ZipFile(archive) as opened:
            for member in opened.infolist():
                executable = bool((member.external_attr >> 16) & 0o100)
                Path(opened.extract(member, folder)).chmod(0o755 if executable else 0o644)
    except zipfile.BadZipFile as error:
        raise NodeError(f"the download of Elasticsearch {VERSION} is not a zip file: {error}", "start again") from error
    for path, _, _ in os.walk(folder):
        os.chmod(path, 0o755)  # noqa: S103
    (unpacked,) = folder.iterdir()
    return unpacked


@contextmanager
def _progress(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on stderr if that is a terminal and the download takes long; the result is called with bytes."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    console = Console(stderr=True)
    bar = Progress(
        "{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=console, transient=True
    )
    task = bar.add_task(name, total=total)
    begun = time.monotonic()

    with contextlib.ExitStack() as stack:
        shown = False

        def advance(received: int) -> None:
            nonlocal shown
            if not shown and console.is_terminal and time.monotonic() - begun > _SECONDS_BEFORE_BAR:
                stack.enter_context(bar)
                shown = True
            bar.advance(task, received)

        yield advance
