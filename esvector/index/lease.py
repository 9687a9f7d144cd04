"""One run at a time on one alias: a lease in a document of the server, kept without a clock.

The holder changes the document every few seconds. Whoever finds it held watches it: a change means that the holder
lives, and none for several beats that it is gone. Only the server's sequence numbers decide who holds it; no time of
day is compared, on this machine or another.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from esvector.errors import LeaseError
from esvector.index.repeating import Repeating, once

if TYPE_CHECKING:
    from types import TracebackType

    from elasticsearch import Elasticsearch

__all__ = ["LEASES_INDEX", "Lease", "is_held"]

LEASES_INDEX = "esvector-leases"
BEAT = 4.0  # seconds between two changes of the document
_GOODBYE = 2.0  # seconds that giving it back may take after an error: whoever wants it next can take it over
MISSED_BEATS = 4  # without a change, after which the holder is gone
_BODY = {
    "settings": {"index": {"hidden": True, "number_of_shards": 1, "auto_expand_replicas": "0-1"}},
    "mappings": {"dynamic": False, "properties": {}},
}
_log = logging.getLogger(__name__)


def is_held(client: Elasticsearch, alias: str, owner: str) -> bool:
    """Whether the lease of ``alias`` is held by ``owner`` at this moment."""
    found = client.options(ignore_status=404).get(index=LEASES_INDEX, id=alias)
    return bool(found.get("found")) and found["_source"]["owner"] == owner


class Lease:
    """The right to change what is behind ``alias``, for the length of a ``with`` block.

    Args:
        client: the Elasticsearch client.
        alias: what the lease is for.
        owner: id of this run. A lease that is held by the same id was left by a run that has ended.
        on_lost: called, by another thread, when somebody else took the lease, because this process stood still.
        beat: seconds between two signs of life.
        repeat: how long a server in trouble is waited for at the beginning; without it, an error is raised at once.

    Entering raises LeaseError when another run holds it.
    """

    def __init__(
        self,
        client: Elasticsearch,
        alias: str,
        *,
        owner: str,
        on_lost: Callable[[], None] = lambda: None,
        beat: float = BEAT,
        repeat: Repeating | None = None,
    ) -> None:
        self._client = client
        self._alias = alias
        self._owner = owner
        self._on_lost = on_lost
        self._beat = beat
        self._repeat = repeat or once(client)
        self._beats = 0
        self._at: tuple[int, int] | None = None  # sequence number and primary term of what was written last
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="esvector-lease", daemon=True)

    def __enter__(self) -> Lease:
        # Each may be repeated: a lease that was written, and only the answer lost, is held by the same owner.
        self._repeat(self._ensure_index)
        self._repeat(self._acquire)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if error is not None:  # a run that fails or is stopped does not wait for a server that hangs
            self._client = self._client.options(request_timeout=_GOODBYE)
        self._thread.join(_GOODBYE)
        try:
            self._write(None)
        except Exception as problem:  # the run's own outcome matters more, and others take the lease over soon
            _log.debug("the lease of %s was not given back: %s", self._alias, problem)

    def _ensure_index(self) -> None:
        import elasticsearch

        if self._client.indices.exists(index=LEASES_INDEX):
            return
        try:
            self._client.indices.create(index=LEASES_INDEX, body=_BODY)
        except elasticsearch.BadRequestError as error:
            if error.error != "resource_already_exists_exception":
                raise

    def _acquire(self) -> None:
        import elasticsearch

        while True:
            held = self._read()
            self._at = None  # gone, unless it was read
            if held is not None:
                self._at = held["_seq_no"], held["_primary_term"]
                if held["_source"]["owner"] not in (None, self._owner):
                    self._watch(held)
            try:
                self._write(self._owner)
            except elasticsearch.ConflictError:
                continue  # another run was quicker: look again
            return

    def _read(self) -> dict[str, Any] | None:
        answer = self._client.options(ignore_status=404).get(index=LEASES_INDEX, id=self._alias)
        return dict(answer) if answer.get("found") else None

    def _watch(self, held: dict[str, Any]) -> None:
        """Return when the holder is gone. Raises LeaseError as soon as it shows that it lives."""
        source = held["_source"]
        patience = self._beat * MISSED_BEATS
        _log.info(
            "%s is held by a run on %s (process %s): waiting up to %g s for a sign that it lives",
            self._alias,
            source.get("host"),
            source.get("pid"),
            patience,
        )
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            self._ended.wait(self._beat / 4)
            now = self._read()
            if now is None or now["_source"]["owner"] is None or now["_source"]["owner"] != source["owner"]:
                return
            if now["_seq_no"] != held["_seq_no"]:
                raise LeaseError(
                    f"another run is changing {self._alias} (on {source.get('host')}, process {source.get('pid')})",
                    "wait until it has ended, or stop it",
                )
        _log.info("the run that held %s is gone: this one takes over", self._alias)

    def _write(self, owner: str | None) -> None:
        self._beats += 1
        document = {"owner": owner, "host": socket.gethostname(), "pid": os.getpid(), "beats": self._beats}
        # Whatever changed the document since it was read or written here makes this fail.
        guard: dict[str, Any] = {"op_type": "create"}
        if self._at is not None:
            guard = {"if_seq_no": self._at[0], "if_primary_term": self._at[1]}
        answer = self._client.index(index=LEASES_INDEX, id=self._alias, document=document, **guard)
        self._at = answer["_seq_no"], answer["_primary_term"]

    def _keep(self) -> None:
        import elasticsearch

        while not self._ended.wait(self._beat):
            try:
                self._write(self._owner)
            except elasticsearch.ConflictError:
                if self._still_ours():
                    continue
                self._on_lost()
                return
            except (elasticsearch.ApiError, elasticsearch.TransportError) as error:
                # Nobody else can take it either while the server does not answer.
                _log.debug("the lease of %s could not be renewed: %s", self._alias, error)

    def _still_ours(self) -> bool:
        """Whether the conflict was with our own write, whose answer was lost."""
        import elasticsearch

        try:
            held = self._read()
        except (elasticsearch.ApiError, elasticsearch.TransportError):
            return True
        if held is None or held["_source"]["owner"] != self._owner:
            return False
        self._at = held["_seq_no"], held["_primary_term"]
        return True
