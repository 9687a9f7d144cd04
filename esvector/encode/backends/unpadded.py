"""Attention over texts laid end to end, without padding between them: for GPUs, where torch has a kernel for it.

Elsewhere each text attends to itself in turn: slow, but the same, so that the rest can be tried without a GPU.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

__all__ = ["EndToEnd"]

_NAME = "esvector_unpadded"
# What transformers hands to every attention and this one can do without. Anything else would change the result.
_HARMLESS = frozenset(
    {"cu_seq_lens_k", "max_length_k", "seq_idx", "position_ids", "use_cache", "output_attentions", "deterministic"}
)


class EndToEnd:
    """Runs the modules of one side over texts laid end to end. Nothing here waits for the device.

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
    def obstacle(self) -> str:
        """Why these modules need padding; "" where they can do without."""
        if type(self._modules[0]).__name__ != "Transformer" or self._model is None:
            return f"{type(self._modules[0]).__name__} takes padded texts only"
        if not getattr(self._model, "_supports_attention_backend", False):
            return f"the attention of {type(self._model).__name__} cannot be replaced"
        if not any(hasattr(module, "pooling_mode") for module in self._modules):
            return "what follows the transformer takes padded texts only"
        return ""

    def replace_attention(self) -> None:
        """Replace the model's attention by one within texts. Padded batches must not be run until it is restored."""
        from transformers import AttentionInterface

        # It has no mask function on purpose: transformers then makes no mask at all. With one, it would look for packed
        # texts first, and wait for the device to see them.
        AttentionInterface.register(_NAME, _attend)
        self.before = self._model.config._attn_implementation
        self._model.set_attn_implementation(_NAME)

    def restore_attention(self) -> None:
        """Give the model its attention back."""
        if self.before:
            self._model.set_attn_implementation(self.before)

    @contextmanager
    def padded(self) -> Iterator[None]:
        """Have the model as it was, for a while."""
        self.restore_attention()
        try:
            yield
        finally:
            self.replace_attention()

    def forward(
        self, ids: NDArray[np.integer[Any]], lengths: NDArray[np.int64], move: Callable[[NDArray[Any]], Tensor]
    ) -> Tensor:
        """Embeddings (n, raw dims) of texts laid end to end.

        Args:
            ids: token ids of all texts, (total,).
            lengths: tokens of each text, (n,) int64.
            move: takes an array to the device.
        """
        ends = np.cumsum(lengths)
        starts = np.concatenate([[0], ends]).astype(np.int32)
        positions = np.arange(self._offset, self._offset + len(ids)) - np.repeat(starts[:-1], lengths)
        borders, longest = move(starts), int(lengths.max(initial=0))
        features: dict[str, Any] = {
            "input_ids": move(ids.astype(np.int64)[None]),
            "position_ids": move(positions.astype(np.int64)[None]),
            "cu_seq_lens_q": borders,
            "cu_seq_lens_k": borders,
            "max_length_q": longest,
            "max_length_k": longest,
            # Which text each token belongs to. Pooling would have to wait for the device in order to count that itself.
            "seq_idx": move(np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)[None]),
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
    is_causal: bool | None = None,
    **others: Any,  # noqa: ANN401
) -> tuple[Tensor, None]:
    """Attention of (1, heads, total, head dims) within the texts that ``cu_seq_lens_q`` (n + 1,) int32 delimits.

    ``sliding_window`` places on each side are seen, the text's own included; on the left only where attention is
    causal. Raises ValueError for what it does not know, rather than to leave it out.
    """
    if cu_seq_lens_q is None or attention_mask is not None:
        raise ValueError("this model does not pass on where its texts begin")
    if odd := sorted(name for name, given in others.items() if given is not None and name not in _HARMLESS):
        raise ValueError(f"this model's attention takes {', '.join(odd)}, which is not known here")
    causal = bool(getattr(module, "is_causal", True)) if is_causal is None else is_causal
    left = -1 if sliding_window is None else sliding_window - 1
    window = (left, 0) if causal else (left, left)
    q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))
    kernel = _varlen if _has_kernel(query) else _one_by_one
    return kernel(q, k, v, cu_seq_lens_q, max_length_q, scaling, window)[None], None


def _has_kernel(query: Tensor) -> bool:
    return query.is_cuda


@cache
def _varlen_attention() -> tuple[Callable[..., Any], bool]:
    """The kernel of torch, and whether it takes fewer heads of keys than of queries.

    Raises NotImplementedError where this torch has none that is told the scale and the window.
    """
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError as error:
        raise NotImplementedError(f"torch {torch.__version__} has no attention without padding: 2.11 has") from error
    names = inspect.signature(varlen_attn).parameters
    if not {"scale", "window_size"} <= names.keys():
        raise NotImplementedError(f"attention without padding takes no scale in torch {torch.__version__}: 2.11 does")
    return varlen_attn, "enable_gqa" in names


def _varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    borders: Tensor,
    longest: int,
    scaling: float | None,
    window: tuple[int, int],
) -> Tensor:
    """Attention by torch's kernel, (total, heads, head dims)."""
    kernel, grouped = _varlen_attention()
    options: dict[str, Any] = {}
    if (groups := query.shape[1] // key.shape[1]) > 1:
        if grouped:
            options["enable_gqa"] = True
        else:
            key, value = (part.repeat_interleave(groups, dim=1) for part in (key, value))
    parts = [part.contiguous() for part in (query, key, value)]
    found: Tensor = kernel(*parts, borders, borders, longest, longest, scale=scaling, window_size=window, **options)
    return found


def _one_by_one(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    borders: Tensor,
    longest: int,
    scaling: float | None,
    window: tuple[int, int],
) -> Tensor:
    """The same, one text after the other."""
    lengths = borders.diff().tolist()
    places = torch.arange(longest, device=query.device)
    away = places[None, :] - places[:, None]
    left, right = (longest if side < 0 else side for side in window)
    seen = (away >= -left) & (away <= right)
    parts = zip(*(torch.split(rows.transpose(0, 1), lengths, dim=1) for rows in (query, key, value)), strict=True)
    attended = [
        scaled_dot_product_attention(
            q[None], k[None], v[None], attn_mask=seen[: q.shape[1], : q.shape[1]], scale=scaling, enable_gqa=True
        )[0]
        for q, k, v in parts
    ]
    return torch.cat(attended, dim=1).transpose(0, 1)
