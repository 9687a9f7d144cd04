"""Giving a folder to the account of root's server, without being led anywhere by the account that had it before."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from esvector.errors import NodeError

__all__ = ["hand_over"]

_AS_IT_IS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # no link is followed, no pipe is waited for


def hand_over(folder: Path, uid: int) -> None:
    """Make ``folder`` a folder of the account ``uid`` alone. Only root can change the folder that it is in.

    A folder of root is new, or root has put files there for the server to read. A folder of ``nobody`` is one of an
    older esvector, whose data are handed over. Raises NodeError when it belongs to anybody else, or is a link.
    """
    owner = _owner(folder)
    if owner == _nobody():
        _hand_over_tree(folder, owner, uid)
    elif owner in (0, uid):
        os.chown(folder, uid, uid, follow_symlinks=False)
        folder.chmod(0o700)
    else:
        raise NodeError(
            f"the folder {folder} of root's node belongs to another account (uid {owner})",
            "run esvector as that account, or choose another folder with ESVECTOR_HOME",
        )


def _owner(folder: Path) -> int:
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode):
        raise NodeError(
            f"{folder} is not a folder, and root's node does not follow links",
            "move it away, and set ESVECTOR_HOME to a folder on the disk that you want to use",
        )
    return facts.st_uid


def _nobody() -> int | None:
    with suppress(KeyError):
        return pwd.getpwnam("nobody").pw_uid
    return None


def _hand_over_tree(folder: Path, old: int, uid: int) -> None:
    """Give everything of ``old`` at and below ``folder`` to ``uid``, who alone can then read it.

    Processes of ``old`` may be changing it meanwhile. Therefore each thing is opened first, without following a link,
    and changed by its descriptor if it is ``old``'s. A hard link to a file of root is a file of root, and stays so. Two
    links to a file of ``old`` are usual: Elasticsearch clones an index by them.

    ``folder`` itself comes last: that it belongs to ``uid`` says that all was handed over, if this ends half-way.
    """
    for path, _, names, descriptor in _walk(folder):
        for name in names:
            _hand_over_file(name, descriptor, old, uid)
        # Old versions made one folder as root; another account cannot have moved a folder of root's here.
        if os.fstat(descriptor).st_uid not in (old, 0, uid):
            raise NodeError(f"{path} belongs to neither root nor nobody", "move it away, then start again")
        os.fchown(descriptor, uid, uid)
        os.fchmod(descriptor, 0o700)


def _walk(folder: Path) -> Iterator[tuple[str, list[str], list[str], int]]:
    try:
        yield from os.fwalk(folder, topdown=False, onerror=_fail)
    except RecursionError:
        raise NodeError(f"the folders in {folder} are nested too deeply", "delete them, then start again") from None


def _fail(error: OSError) -> None:
    raise error


def _hand_over_file(name: str, folder: int, old: int, uid: int) -> None:
    if not stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        return
    descriptor = os.open(name, _AS_IT_IS, dir_fd=folder)
    try:
        facts = os.fstat(descriptor)
        if stat.S_ISREG(facts.st_mode) and facts.st_uid == old:
            os.fchown(descriptor, uid, uid)
            os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)
