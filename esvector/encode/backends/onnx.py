"""An exported graph, run by onnxruntime on the CPU: what searching needs instead of torch."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from esvector.errors import EncoderError, require
from esvector.forks import PerProcess, leave_to_parent

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

__all__ = ["OnnxBackend"]

_OUT_OF_MEMORY = ("Failed to allocate memory", "bad_alloc")


class OnnxBackend:
    """Runs the graph in ``path`` as ``export_onnx`` writes it. Threads may share one.

    Args:
        path: the graph; large weights lie beside it.
        threads: CPU threads of one ``forward``; None for one per core. One serves queries best: they are too short to
            share, and several callers then run side by side.

    Raises EncoderError when the file is no graph that can be run, MissingExtraError without onnxruntime.
    """

    name = "onnx"
    dtype = "float32"
    # MiniLM, texts of 64 tokens, CPU ms per 1,000 tokens: 245 at 256..1,024 tokens a batch, 273 at 2,048, 338 at 4,096.
    token_budget = 1024

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        require("query", "onnxruntime")
        count = threads or _cores()

        def share_or_open(inherited: _Graph | None) -> _Graph:
            return inherited if inherited is not None and inherited.can_be_shared else _Graph(path, count)

        self._graph = PerProcess(share_or_open)
        self._graph()

    def forward(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        """Run one batch; ``ids`` and ``mask`` are (n, length), padded on the right. (n, dims) float32."""
        return self._graph().run({"input_ids": ids, "attention_mask": mask})

    def collect(self, outputs: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return what ``forward`` gave for several batches, one after the other: (sum of n, dims) float32."""
        return np.concatenate(outputs)

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether a smaller batch may help against ``error``."""
        return isinstance(error, MemoryError) or any(text in str(error) for text in _OUT_OF_MEMORY)

    def is_lost(self, error: BaseException) -> bool:
        """Whether nothing more can be run after ``error`` in this process."""
        return False


class _Graph:
    """A graph that is open, and the threads that are in it. A forked child shares its memory where it can."""

    def __init__(self, path: Path, threads: int) -> None:
        # Read when it is imported. Its thread for telemetry makes a forked child hang when that ends (1.32).
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        import onnxruntime

        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        # Never 0: onnxruntime would then pin its threads to cores, and complains where a container forbids it.
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what matters is raised as well
        # Spinning for the next batch takes the core from whoever shares the machine: two threads were half as fast.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session: InferenceSession = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime has a dozen of classes for a file that it cannot run
            raise EncoderError(
                f"cannot load the graph in {path}: {type(error).__name__}: {error}", "export the model again"
            ) from error
        self._inputs = {node.name for node in self._session.get_inputs()}
        self._threads = threads
        self._inside: set[int] = set()
        leave_to_parent(self)

    @property
    def can_be_shared(self) -> bool:
        """Whether a child may use it, too: no thread that the fork left behind is part of it, or holds its locks.

        One of 14 children hung whose parent was encoding when it was forked (MiniLM, onnxruntime 1.32).
        """
        return self._threads == 1 and not self._inside

    def run(self, feed: dict[str, Any]) -> NDArray[np.float32]:
        """Run one batch: (n, dims) float32."""
        thread = threading.get_ident()
        self._inside.add(thread)
        try:
            (vectors,) = self._session.run(None, {name: feed[name] for name in feed if name in self._inputs})
        finally:
            self._inside.discard(thread)
        floats: NDArray[np.float32] = vectors
        return floats


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
