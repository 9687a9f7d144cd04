"""An exported graph, run by onnxruntime on the CPU: what searching needs instead of torch."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from esvector.errors import EncoderError, require

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
        import onnxruntime

        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        # Never 0: onnxruntime would then pin its threads to cores, and complains where a container forbids it.
        options.intra_op_num_threads = threads or _cores()
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what matters is raised as well
        # Spinning for the next batch takes the core from whoever shares the machine: two threads were half as fast.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has a dozen of classes for a file that it cannot run
            raise EncoderError(
                f"cannot load the graph in {path}: {type(error).__name__}: {error}", "export the model again"
            ) from error
        self._inputs = {node.name for node in self._session.get_inputs()}

    def forward(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        """Run one batch; ``ids`` and ``mask`` are (n, length), padded on the right. (n, dims) float32."""
        feed = {"input_ids": ids, "attention_mask": mask}
        (vectors,) = self._session.run(None, {name: feed[name] for name in feed if name in self._inputs})
        floats: NDArray[np.float32] = vectors
        return floats

    def collect(self, outputs: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return what ``forward`` gave for several batches, one after the other: (sum of n, dims) float32."""
        return np.concatenate(outputs)

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether a smaller batch may help against ``error``."""
        return isinstance(error, MemoryError) or any(text in str(error) for text in _OUT_OF_MEMORY)

    def is_lost(self, error: BaseException) -> bool:
        """Whether nothing more can be run after ``error`` in this process."""
        return False


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
