"""Attention over texts laid end to end, without padding between them: for GPUs, where torch has a kernel for it.

Elsewhere each text attends to itself in turn: slow, but the same, so that the rest can be tried without a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

__all__ = ["EndToEnd"]

_NAME = "esvector_unpadded"
_Ids = NDArray[np.int64]


class EndToEnd:
    """Runs the modules of one side over texts laid end to end.

    Args:
        modules: a Transformer of sentence-transformers, pooling, and what follows.
        prompt_length: tokens at the beginning that pooling leaves out; None where it takes all.
        before: name of the attention that was replaced; "" while none is.
    """

    def __init__(self, modules: Sequence[nn.Module], prompt_length: int | None, before: str = "") -> None:
        self._modules = modules
        self._prompt_length = prompt_length
        self._model: Any = getattr(modules[0], "model", None)
        self.before = before
        self._offset = _position_offset(self._model) if self._model is not None else 0

    @property
    def possible(self) -> bool:
        """Whether the model lets its attention be replaced, and what follows can do without padding."""
        takes = getattr(self._model, "_supports_attention_backend", False)
        pools = any(hasattr(module, "pooling_mode") for module in self._modules)
        return type(self._modules[0]).__name__ == "Transformer" and bool(takes) and pools

    def replace_attention(self) -> None:
        """Replace the model's attention by one within texts. Padded batches must not be run until it is restored."""
        from transformers import AttentionInterface, AttentionMaskInterface

        AttentionInterface.register(_NAME, _attend)
        AttentionMaskInterface.register(_NAME, lambda *_, **__: None)
        self.before = self._model.config._attn_implementation
        self._model.set_attn_implementation(_NAME)

    def restore_attention(self) -> None:
        """Give the model its attention back."""
        self._model.set_attn_implementation(self.before)

    @contextmanager
    def padded(self) -> Iterator[None]:
        """Have the model as it was, for a while."""
        self.restore_attention()
        try:
            yield
        finally:
            self.replace_attention()

    def forward(self, ids: _Ids, mask: _Ids, move: Callable[[NDArray[Any]], Tensor]) -> Tensor:
        """Embeddings of a padded batch, (n, length), run without its padding; ``move`` takes arrays to the device."""
        kept = mask.astype(bool)
        positions = np.broadcast_to(np.arange(self._offset, self._offset + ids.shape[1]), ids.shape)
        starts = move(np.concatenate([[0], np.cumsum(mask.sum(axis=1))]).astype(np.int32))
        features: dict[str, Any] = {
            "input_ids": move(ids[kept][None]),
            "position_ids": move(positions[kept][None]),
            "cu_seq_lens_q": starts,
            "cu_seq_lens_k": starts,
            "max_length_q": ids.shape[1],
            "max_length_k": ids.shape[1],
        }
        if self._prompt_length is not None:
            features["prompt_length"] = self._prompt_length
        for module in self._modules:
            features = module(features)
        embeddings: Tensor = features["sentence_embedding"]
        return embeddings


def _position_offset(model: nn.Module) -> int:
    """First position of a text: RoBERTa and its kin begin after the padding index."""
    for module in model.modules():
        padding = getattr(module, "padding_idx", None)
        if isinstance(padding, int) and isinstance(getattr(module, "position_embeddings", None), nn.Embedding):
            return padding + 1
    return 0


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int = 0,
    sliding_window: int | None = None,
    **_: Any,  # noqa: ANN401
) -> tuple[Tensor, None]:
    """Attention of (1, heads, total, head dims) within the texts that ``cu_seq_lens_q`` (n + 1,) int32 delimits."""
    if cu_seq_lens_q is None or attention_mask is not None:
        raise ValueError("this model does not pass on where its texts begin")
    causal = bool(getattr(module, "is_causal", False))
    if sliding_window is not None:
        raise ValueError("this model attends within a window")
    rows = [part[0].transpose(0, 1) for part in (query, key, value)]
    if query.is_cuda:
        from torch.nn.attention.varlen import varlen_attn

        found: Any = varlen_attn(
            rows[0].contiguous(),
            rows[1].contiguous(),
            rows[2].contiguous(),
            cu_seq_lens_q,
            cu_seq_lens_q,
            max_length_q,
            max_length_q,
            scale=scaling,
            window_size=(-1, 0) if causal else (-1, -1),
            enable_gqa=rows[0].shape[1] != rows[1].shape[1],
        )
        return found[None], None
    lengths = cu_seq_lens_q.diff().tolist()
    parts = zip(*(torch.split(row.transpose(0, 1), lengths, dim=1) for row in rows), strict=True)
    grouped = rows[0].shape[1] != rows[1].shape[1]
    attended = [
        scaled_dot_product_attention(q[None], k[None], v[None], scale=scaling, is_causal=causal, enable_gqa=grouped)[0]
        for q, k, v in parts
    ]
    return torch.cat(attended, dim=1).transpose(0, 1)[None], None
