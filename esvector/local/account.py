"""Under which account the server runs, and what is done as that account.

Elasticsearch refuses to run as root. Root's server runs as an account that owns nothing else: a number which no user,
group or process of this machine has, one for each home. That needs no entry in /etc/passwd, and no other service can
read the data or signal the server, as services could that run as ``nobody``, too. The number is chosen at the first
start; from then on the owner of the node's folders is the record of it.

Root does nothing at a path below those folders: what their owner may change may lead anywhere, such as to /etc/shadow.
Processes of the account write, read and delete what is in them, and reach only what the account may reach.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import subprocess
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from esvector.errors import NodeError
from esvector.local.handover import hand_over
from esvector.local.layout import Layout

__all__ = ["PLAIN_ENVIRON", "Account", "delete_server_folders", "server_account"]

# No user, container or service is given one of these: https://systemd.io/UIDS-GIDS (as of v257). They are below 65536,
# so that they also exist in a container with a range of its own.
_NUMBERS = range(60578, 61184)
_DELETE_SECONDS = 600
_EMPTY = r"""
find . -type d ! -perm -700 -exec chmod u+rwx {} \; 2>/dev/null
find . -mindepth 1 -delete
"""

# Of every process of the account. Java can open a path with other characters than ASCII only in a locale that has them.
PLAIN_ENVIRON = {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}


@dataclass(frozen=True, slots=True)
class Account:
    """Who runs the server. ``uid`` (and group) None means: whoever runs esvector."""

    name: str
    uid: int | None = None

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
            umask=0o077,
            user=self.uid,
            group=self.uid,
            extra_groups=None if self.uid is None else [],
        )

    def try_run(self, command: Sequence[str], timeout: float = 30, *, given: str = "", folder: Path = Path("/")) -> str:
        """Return what ``command`` prints (both outputs). Raise OSError when this account cannot run it.

        ``given`` is its input. Its current ``folder`` may be below one that this account cannot enter. It has no
        terminal: a process of another account could type into that.
        """
        done = subprocess.run(  # noqa: S603
            command,
            env=PLAIN_ENVIRON,
            input=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            check=False,
            cwd=folder,  # entered before it becomes this account
            start_new_session=True,
            umask=0o077,
            user=self.uid,
            group=self.uid,
            extra_groups=None if self.uid is None else [],
        )
        if done.returncode != 0:
            raise OSError(f"exit status {done.returncode}: {done.stdout.strip()[:200]}")
        return done.stdout

    @property
    def number(self) -> int:
        """The uid of its processes."""
        return os.geteuid() if self.uid is None else self.uid

    def check_can_run(self) -> None:
        """Raise NodeError when this process cannot start another one as this account."""
        try:
            self.try_run(["/bin/sh", "-c", ":"])
        except OSError as error:
            raise NodeError(
                f"Elasticsearch refuses to run as root, and here root cannot start a process of another account "
                f"({self.name}): {error.strerror or error}",
                "run this command as an ordinary user. In a container, give root the capabilities SETUID, SETGID, "
                "CHOWN and KILL, and at least 65536 user ids",
            ) from None

    def check_can_enter(self, path: Path) -> None:
        """Raise NodeError when this account cannot reach the folder ``path``."""
        try:
            self.try_run(["/bin/sh", "-c", 'cd -- "$1"', "sh", str(path)])
        except OSError:
            raise NodeError(
                f"Elasticsearch refuses to run as root, and the account that runs it instead ({self.name}) "
                f"cannot enter {path}",
                f"choose a folder that every account can enter (ESVECTOR_HOME), or: chmod o+x {path} and its parents",
            ) from None

    def own(self, folders: Iterable[Path]) -> None:
        """Make ``folders`` where they are missing; they are this account's then, and closed to all others.

        Their parents are folders that only root can change. What an older esvector gave to ``nobody`` is handed over.
        Raises NodeError when a folder belongs to anybody else, OSError when one cannot be made.
        """
        for folder in folders:
            with suppress(FileExistsError):
                folder.mkdir(mode=0o700)
            if self.uid is None:
                folder.chmod(0o700)
            else:
                hand_over(folder, self.uid)

    def empty(self, folder: Path) -> None:
        """Delete all that is in ``folder``, which belongs to this account: any number, at any depth. Raises OSError."""
        self._run_in(folder, _EMPTY, timeout=_DELETE_SECONDS)

    def write(self, folder: Path, name: str, text: str) -> None:
        """Replace a file of ``folder``, which belongs to this account, or of one below it. Raises OSError."""
        self._run_in(folder, 'mkdir -p "${1%/*}" && rm -rf "$1" && cat > "$1"', f"./{name}", given=text)

    def read_end(self, folder: Path, name: str, most: int) -> str:
        """Return the last ``most`` bytes of a file of ``folder``, as far as this account can read it."""
        try:
            return self._run_in(folder, '[ -f "$1" ] && exec tail -c "$2" "$1" 2>/dev/null', f"./{name}", str(most))
        except OSError:
            return ""

    def _run_in(self, folder: Path, script: str, *arguments: str, timeout: float = 30, given: str = "") -> str:
        try:
            return self.try_run(["/bin/sh", "-c", script, "sh", *arguments], timeout, given=given, folder=folder)
        except subprocess.TimeoutExpired as error:
            raise OSError(f"a command of the account {self.name} did not end within {timeout:g} s") from error


def server_account(layout: Layout) -> Account:
    """Return the account that has to run the server of this home: for root one of its own, otherwise the current one.

    Raises NodeError when there is none left.
    """
    if os.geteuid() != 0:
        return Account(name="current user")
    chosen = [owner for owner in _owners(layout) if owner in _NUMBERS]
    uid = chosen[0] if chosen else _unused_number(layout)
    return Account(name=f"uid {uid}", uid=uid)


def _owners(layout: Layout) -> Iterator[int]:
    for folder in layout.server_folders:
        with suppress(FileNotFoundError):
            yield folder.lstat().st_uid


def _unused_number(layout: Layout) -> int:
    """Return a number that no user, group or process has; where possible another for each home."""
    import psutil

    running: set[int] = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            running.update(process.uids())
    first = zlib.crc32(os.fsencode(layout.home)) % len(_NUMBERS)
    numbers: list[int] = [*_NUMBERS[first:], *_NUMBERS[:first]]
    for number in numbers:
        if number not in running and not _has_name(number):
            return number
    raise NodeError(
        f"Elasticsearch refuses to run as root. Instead, an account with a number from {_NUMBERS[0]} to "
        f"{_NUMBERS[-1]} would run it, and all of those are in use",
        "run this command as an ordinary user",
    )


def _has_name(number: int) -> bool:
    with suppress(KeyError):
        return bool(pwd.getpwuid(number))
    with suppress(KeyError):
        return bool(grp.getgrgid(number))
    return False


def delete_server_folders(layout: Layout) -> None:
    """Delete what belongs to the server: its account deletes what is in the folders.

    A folder on another disk, by a mount or a link, is emptied and stays. Raises OSError; NodeError, and then nothing is
    deleted yet.
    """
    account = server_account(layout)
    folders = [folder for folder in layout.server_folders if os.path.lexists(folder)]
    account.own(folders)
    for folder in folders:
        account.empty(folder)
        try:
            folder.rmdir()
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.ENOTDIR):  # a mount; a link
                raise
