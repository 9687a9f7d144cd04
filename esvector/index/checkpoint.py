"""What a job keeps on this machine: a lock, and how far it has come. Losing it costs time, never documents."""

from __future__ import annotations

import json
import os
import time
import uuid
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from esvector.errors import ConfigError, IndexingError, LeaseError
from esvector.index.window import Counts

__all__ = ["Checkpoint", "JobFolder", "default_state"]

EVERY = 1.0  # seconds between two checkpoints


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Every record up to the one numbered ``place`` has its fate, for good.

    Attributes:
        index: name of the index that is loaded.
        index_uuid: its id: another index of this name has another.
        generation: of the attempt that wrote it.
        since: generation of the job's first attempt.
        place: number of the last record, from 1.
        digest: of the input up to that record.
        counts: the account of these records.
        dead_letters: the file with those that were refused; None for none.
        plain: whether a later attempt may pass over them, if the input is the same up to there: no id came twice, and
            each document was written. Otherwise what is written behind the checkpoint may take the place of what was
            before it, so that all has to be compared with the index.
    """

    index: str
    index_uuid: str
    generation: int
    since: int
    place: int
    digest: str
    counts: Counts
    dead_letters: str | None
    plain: bool = True


def default_state() -> Path:
    """Return where jobs keep their checkpoints unless told otherwise."""
    from platformdirs import user_state_path

    return user_state_path("esvector") / "jobs"


class JobFolder:
    """The folder of one job: of one alias of one cluster. ``locked`` first; then only this process uses it."""

    def __init__(self, state: Path, name: str) -> None:
        self.path = state / name
        self._file = self.path / "checkpoint"
        self._previous = self.path / "checkpoint.previous"
        self._owner = self.path / "owner"
        self._saved = -EVERY

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder against other processes of this machine; the system lets go of it when a process dies.

        Raises LeaseError when another one has it, ConfigError when nothing can be written here.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self.path / "lock", timeout=0)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            raise LeaseError(
                f"another run on this machine is changing the same alias: it holds {self.path / 'lock'}",
                "wait until it has ended, or stop it",
            ) from None
        except OSError as error:
            raise ConfigError(
                f"a job cannot keep its checkpoint in {self.path}: {error.strerror or error}",
                "name a folder that can be written to with --state",
            ) from error
        try:
            yield
        finally:
            lock.release()

    def owner(self) -> str:
        """Id of this folder. Who holds a lease by it has ended: else the folder would still be locked."""
        with suppress(OSError):
            if owner := self._owner.read_text():
                return owner
        owner = uuid.uuid4().hex
        self._write(self._owner, owner.encode())
        return owner

    def load(self) -> Checkpoint | None:
        """Return the newest checkpoint that is whole, None where there is none."""
        for file in (self._file, self._previous):
            with suppress(OSError, ValueError, TypeError, KeyError):
                return _parse(file.read_bytes())
        return None

    def save(self, checkpoint: Checkpoint, *, now: bool = False) -> None:
        """Replace the checkpoint, at most once a second unless ``now``. The one before is kept beside it.

        Raises IndexingError when it cannot be written: then nothing more may count as done.
        """
        if not now and time.monotonic() - self._saved < EVERY:
            return
        if self._file.exists():
            with suppress(FileNotFoundError):
                os.replace(self._file, self._previous)
        self._write(self._file, _format(checkpoint))
        self._saved = time.monotonic()

    def clear(self) -> None:
        """Forget the job: it is done, or has to begin anew."""
        for file in (self._file, self._previous):
            file.unlink(missing_ok=True)

    def _write(self, file: Path, content: bytes) -> None:
        temporary = file.with_suffix(".new")
        try:
            with temporary.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, file)
            _sync_folder(self.path)
        except OSError as error:
            raise IndexingError(
                f"the checkpoint {file} cannot be written: {error.strerror or error}",
                "make room, or name another folder with --state, then run the same command again",
            ) from error


def _sync_folder(folder: Path) -> None:
    """Make renames last through a power cut, where the system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _format(checkpoint: Checkpoint) -> bytes:
    content = json.dumps(asdict(checkpoint)).encode()  # orjson refuses a path that is not UTF-8
    return b"%08x %s\n" % (zlib.crc32(content), content)


def _parse(data: bytes) -> Checkpoint:
    crc, _, content = data.rstrip(b"\n").partition(b" ")
    if int(crc, 16) != zlib.crc32(content):
        raise ValueError("the checkpoint is damaged")
    facts: Mapping[str, Any] = json.loads(content)
    return Checkpoint(**{**facts, "counts": Counts(**facts["counts"])})
