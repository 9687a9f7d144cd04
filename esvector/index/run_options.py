"""What a run is told: by the user, and by what it is part of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from esvector.encode.encoder import Encoder
from esvector.encode.profile import EncoderProfile
from esvector.index.load import RecordOptions
from esvector.index.retries import RetryPolicy
from esvector.index.target import Target
from esvector.types import BadRecord, Record

if TYPE_CHECKING:
    from esvector.encode.advice import Task
    from esvector.encode.calibrate import BackendName

__all__ = ["Graph", "Records", "RunOptions", "Serving", "serve_at_once"]

Graph = Literal["deferred", "inline"]
Serving = Callable[[Target], AbstractContextManager[None]]
Records = Iterable[Mapping[str, Any] | Record | BadRecord]


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What a run is told, beside its target.

    Attributes:
        made_by: the encoder, or the profile to load it by.
        devices: where to encode; none is a GPU where there is one.
        backend: what runs the model on a CPU.
        task: what the index is for, for the warnings.
        records: how records become documents.
        dead_letters: file for the records that are refused.
        senders: bulk requests under way at once.
        body_bytes: largest body of a bulk request.
        graph: "deferred" builds the graph of a new version once, when everything is loaded; "inline" as it comes.
        query_cache: folder of exported query towers.
        retry: how long to keep trying.
        grace: seconds to finish what is under way when interrupted.
        prune: delete documents that no record has from the index that readers see.
        most_pruned: share of the documents of an index that may be deleted.
    """

    made_by: EncoderProfile | Encoder
    devices: tuple[str, ...]
    backend: BackendName | Literal["auto"]
    task: Task | None
    records: RecordOptions
    dead_letters: Path
    senders: int
    body_bytes: int
    graph: Graph
    query_cache: Path | None
    retry: RetryPolicy
    grace: float
    prune: bool
    most_pruned: float


def serve_at_once(_target: Target) -> AbstractContextManager[None]:
    """Move readers without further ado."""
    return nullcontext()
