"""What runs a model: torch, onnxruntime or OpenVINO, behind one protocol."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Backend"]


class Backend(Protocol):
    """Runs one tower on one device. One thread uses it at a time.

    ``forward`` may return before the device is done; ``collect`` waits for it.
    """

    @property
    def name(self) -> str:
        """What the passport records: "torch", "onnx", "openvino" or "openvino-int8"."""

    @property
    def dtype(self) -> str:
        """Number format of the computation, such as "float32"."""

    @property
    def token_budget(self) -> int:
        """Padded tokens of a batch that suit this device."""

    def forward(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> Any:  # noqa: ANN401
        """Run one batch; ``ids`` and ``mask`` are (n, length), padded on the right."""

    def collect(self, outputs: list[Any]) -> NDArray[np.float32]:
        """Return what ``forward`` gave for several batches, one after the other: (sum of n, dims) float32."""

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether a smaller batch may help against ``error``."""

    def is_lost(self, error: BaseException) -> bool:
        """Whether nothing more can be run after ``error`` in this process: a CUDA error that sticks, say."""
