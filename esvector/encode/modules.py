"""One side of a model from its folder: modules, tokenizer and what they say of themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from esvector.encode.layout import RAW_DPR, Layout, ModuleRef
from esvector.encode.probes import PROBES
from esvector.encode.profile import Side
from esvector.encode.tokens import TextTokenizer
from esvector.errors import ConfigError, EncoderError
from esvector.forks import torch_threads

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer
    from torch import nn

    from esvector.encode.backends.torch import Embedder

__all__ = ["SideModules", "as_sentence_transformer", "default_device", "load_side", "position_limit"]


@dataclass(frozen=True, slots=True)
class SideModules:
    """The modules of one side of a model, on the CPU, and what they say of themselves.

    ``tokenizer`` is None for a model that does more with a text than to tokenize it: such a one runs through
    sentence-transformers, whole. ``skips_prompt`` says that pooling leaves the prompt's tokens out.
    """

    modules: tuple[nn.Module, ...]
    tokenizer: TextTokenizer | None
    pooling: str
    normalizes: bool
    skips_prompt: bool
    raw_dims: int
    max_length: int | None

    def embedder(self, prompt: str) -> Embedder:
        """Return the modules as one, for inputs that begin with ``prompt``."""
        from esvector.encode.backends.torch import Embedder

        skipped = self.tokenizer.prompt_length(prompt) if self.tokenizer and self.skips_prompt and prompt else None
        return Embedder(self.modules, flat=_is_static(self.modules[0]), prompt_length=skipped).eval()


def default_device() -> str:
    """Return the device to use where none is named: a GPU where there is one."""
    from sentence_transformers.util import get_device_name

    return str(get_device_name())


def load_side(
    layout: Layout, side: Side, *, dtype: str, max_length: int | None, pool_prompt: bool = True
) -> SideModules:
    """Load the modules that a text of ``side`` passes through, and no others.

    ``dtype`` is torch's name of the number format; ``pool_prompt=False`` keeps the prompt's tokens out of pooling,
    whatever the files say. Raises EncoderError when the model cannot be loaded, ConfigError when it cannot read
    ``max_length`` tokens.
    """
    modules = _load(layout, side, dtype)
    poolings = [module for module in modules if hasattr(module, "pooling_mode")]
    if not pool_prompt:
        for module in poolings:
            module.include_prompt = False  # type: ignore[assignment]  # torch declares every attribute a tensor
    first = modules[0]
    length = _length(first, max_length)
    tokenizer = _tokenizer(first, length)
    skips = any(not getattr(module, "include_prompt", True) for module in poolings)
    if skips and tokenizer is None:
        raise EncoderError(
            f"{layout.path} leaves the prompt out of pooling, but tokenizes in a way of its own",
            "use a model with a tokenizer.json that truncates on the right",
        )
    loaded = SideModules(
        modules=tuple(modules),
        tokenizer=tokenizer,
        pooling=_pooling(first, poolings) + (" without prompt" if skips else ""),
        normalizes=any(type(module).__name__ == "Normalize" for module in modules),
        skips_prompt=skips,
        raw_dims=0,
        max_length=length,
    )
    return replace(loaded, raw_dims=_raw_dims(loaded))


def _load(layout: Layout, side: Side, dtype: str) -> list[nn.Module]:
    import torch
    from transformers.utils import logging as transformers_logging

    torch_threads()  # to load takes them, too
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    _check_activations(layout, side)
    kwargs = {"dtype": getattr(torch, dtype), "use_safetensors": True}
    try:
        if layout.modules[0].type == RAW_DPR:
            modules: list[nn.Module] = [_load_dpr(layout, kwargs["dtype"])]
        elif layout.routes is not None:
            modules = [_load_module(layout, ref, kwargs) for ref in layout.side(side)]
        else:
            modules = list(_load_all(layout, kwargs))
    except EncoderError:
        raise
    except Exception as error:  # a model folder can fail in any way its modules can
        raise EncoderError(
            f"cannot load the model in {layout.path}: {type(error).__name__}: {error}",
            "check that the folder is a complete model; one with code of its own is refused",
        ) from error
    for module in modules:
        _cast(module, kwargs["dtype"])
    return modules


def _cast(module: nn.Module, dtype: torch.dtype) -> None:
    """Cast what transformers did not load: from_pretrained leaves in float32 what half precision would spoil.

    Rotary frequencies are such buffers: rounded to bfloat16 they turn a token 1,000 places away by a radian too much.
    """
    from transformers import PreTrainedModel

    if not any(isinstance(part, PreTrainedModel) for part in module.modules()):
        module.to(dtype)


def _check_activations(layout: Layout, side: Side) -> None:
    """Refuse a Dense layer whose activation is not torch's: sentence-transformers would put Tanh in its place."""
    for ref in layout.side(side):
        config = layout.path / ref.folder / "config.json"
        if ref.name == "Dense" and config.is_file():
            activation = str(orjson.loads(config.read_bytes()).get("activation_function", "torch."))
            if not activation.startswith("torch."):
                raise EncoderError(f"{config} wants the activation {activation}, which is code of its own")


def _load_all(layout: Layout, model_kwargs: dict[str, Any]) -> SentenceTransformer:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(layout.path), device="cpu", local_files_only=True, model_kwargs=model_kwargs)


def _load_module(layout: Layout, ref: ModuleRef, model_kwargs: dict[str, Any]) -> nn.Module:
    """Load one module as a Router does, without the routes that are not asked for."""
    from sentence_transformers.util import import_module_class

    loader: Any = import_module_class(ref.type, model_name_or_path=str(layout.path), trust_remote_code=False)
    module: nn.Module = loader.load(
        str(layout.path),
        subfolder=ref.folder,
        local_files_only=True,
        trust_remote_code=False,
        model_kwargs=dict(model_kwargs),
    )
    return module


def _load_dpr(layout: Layout, dtype: torch.dtype) -> nn.Module:
    from esvector.encode.dpr import load_dpr

    return load_dpr(layout.path, layout.config, dtype)


def _is_static(module: nn.Module) -> bool:
    return type(module).__name__ == "StaticEmbedding"


def _length(first: nn.Module, asked: int | None) -> int | None:
    if _is_static(first):
        return asked
    own, positions = getattr(first, "max_seq_length", None), position_limit(first)
    if asked is None:
        # sentence-transformers reads max_position_embeddings, which RoBERTa and its kin cannot use in full.
        limits = [int(limit) for limit in (own, positions) if limit and limit < 10**6]
        asked = min(limits, default=None)
    elif positions is not None and asked > positions:
        raise ConfigError(
            f"max_length is {asked}, but the model has positions for {positions} tokens",
            f"use at most {positions}, or a model made for longer texts",
        )
    if own is not None and asked is not None:
        first.max_seq_length = asked  # type: ignore[assignment]  # as above
    return asked


def position_limit(first: nn.Module) -> int | None:
    """How many tokens the position table of a transformer takes; None where positions are computed."""
    config = getattr(getattr(first, "model", first), "config", None)
    if getattr(config, "position_embedding_type", "absolute") not in (None, "absolute"):
        return None
    positions = getattr(config, "max_position_embeddings", None)
    offset = 2 if getattr(config, "model_type", "") in ("roberta", "xlm-roberta", "camembert", "mpnet") else 0
    return int(positions) - offset if positions else None


def _tokenizer(first: nn.Module, max_length: int | None) -> TextTokenizer | None:
    """Return the Rust tokenizer to use directly; None where the model does more with a text than to tokenize it."""
    wrapped = getattr(first, "tokenizer", None)
    if _is_static(first):
        return TextTokenizer(wrapped, max_length, special_tokens=False)  # type: ignore[arg-type]
    rust = getattr(wrapped, "backend_tokenizer", None)
    if rust is None or type(first).__name__ not in ("Transformer", "DprEncoder"):
        return None
    if getattr(wrapped, "truncation_side", "right") != "right":  # no probe is as long as some models read
        return None
    own = TextTokenizer(rust, max_length, pad_id=getattr(wrapped, "pad_token_id", None) or 0)
    return own if _same_ids(first, own) else None


def _same_ids(first: nn.Module, tokenizer: TextTokenizer) -> bool:
    """Whether tokenizing directly gives what the model's own way gives, cut included."""
    preprocess: Callable[..., dict[str, Any]] | None = getattr(first, "preprocess", None)
    if preprocess is None:
        return True
    for text in (*PROBES, 40 * PROBES[-1]):  # the last is longer than nearly every encoder reads
        tokens, theirs = tokenizer([text]), preprocess([text])["input_ids"]
        if not np.array_equal(tokens.ids, np.asarray(theirs[0])):
            return False
    return True


def _pooling(first: nn.Module, poolings: list[nn.Module]) -> str:
    if _is_static(first):
        return "static"
    if not poolings:
        return "cls" if type(first).__name__ == "DprEncoder" else "none"
    modes: list[Any] = [module.pooling_mode for module in poolings]
    return "+".join(mode if isinstance(mode, str) else "+".join(mode) for mode in modes)


def _raw_dims(loaded: SideModules) -> int:
    import torch

    if loaded.tokenizer is None:
        return int(as_sentence_transformer(loaded).get_embedding_dimension() or 0)
    ids, mask = loaded.tokenizer(["a"]).padded(np.array([0]))
    with torch.inference_mode():
        return int(loaded.embedder("")(torch.from_numpy(ids), torch.from_numpy(mask)).shape[1])


def as_sentence_transformer(loaded: SideModules) -> SentenceTransformer:
    """Return the modules as a model of sentence-transformers, whose plain ``encode`` is that of this side."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(modules=list(loaded.modules), device="cpu")
