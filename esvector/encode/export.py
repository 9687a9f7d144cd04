"""A torch model as an ONNX graph that gives the same vectors, checked before anyone reads it."""

from __future__ import annotations

import logging
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from esvector.encode.backends.onnx import OnnxBackend
from esvector.encode.tokens import Tokens
from esvector.errors import EncoderError, require

if TYPE_CHECKING:
    import torch

__all__ = ["export_onnx"]

_Batch = tuple[NDArray[np.int64], NDArray[np.int64]]

# A protobuf message ends at 2 GiB; above this the weights lie in a file beside the graph.
_ONE_FILE_BYTES = 1_800_000_000
_TOLERANCE = 1e-5
_REMEDY = "encode with torch instead, which runs every model"


def export_onnx(model: torch.nn.Module, path: Path, probes: Tokens, *, pad_id: int = 0) -> None:
    """Write ``model`` to ``path`` as an ONNX graph for ``OnnxBackend``.

    The graph is compared with the model on every probe alone and on all of them in one padded batch: no component may
    differ by more than 1e-5 (of the largest component where that exceeds 1). Nobody else may use the model meanwhile;
    it is handed back in eval mode, its attention as it was. Above 1.8 GB the weights are in ``<path>.data`` beside it.

    The graph is the plain one: what onnxruntime.transformers fuses on top was 4% faster for one query, and 15-25%
    slower for batches (onnxruntime 1.31).

    Args:
        model: ``model(input_ids, attention_mask)`` gives the (n, dims) embeddings, in float32.
        path: the file to write, usually ``*.onnx``.
        probes: at least two texts of different lengths, the longest about as long as the encoder reads.
        pad_id: the id to pad with.

    Raises EncoderError when the model cannot be exported, or its graph does not give the model's vectors.
    """
    require("encode", "torch", "onnx", "onnxruntime")
    batches = _batches(probes, pad_id)
    model.eval()
    _check_float32(model)
    try:
        with TemporaryDirectory(prefix=".export-", dir=path.parent) as folder, _quiet():
            expected = [_run(model, batch) for batch in batches]
            graph = _export(model, batches[-1], Path(folder), path.name)
            _verify(graph, batches, expected)
            for file in sorted(graph.parent.iterdir(), reverse=True):  # the graph last, for a reader that looks for it
                file.replace(path.parent / file.name)
    except EncoderError:
        raise
    except Exception as error:  # the exporter fails in any way that tracing a model's code can
        reason = str(error).partition("\n")[0]  # the rest may be the whole graph
        raise EncoderError(f"cannot export the model to ONNX: {type(error).__name__}: {reason}", _REMEDY) from error


def _batches(probes: Tokens, pad_id: int) -> list[_Batch]:
    """Every probe alone, and all together."""
    if len(np.unique(probes.lengths)) < 2:
        raise ValueError("probes of one length do not show whether padding changes a vector")
    rows = np.arange(len(probes))
    return [probes.padded(chosen, pad_id) for chosen in (*rows[:, None], rows)]


def _check_float32(model: torch.nn.Module) -> None:
    dtypes = {str(weight.dtype).removeprefix("torch.") for weight in model.parameters() if weight.is_floating_point()}
    if odd := sorted(dtypes - {"float32"}):
        raise EncoderError(f"the model computes in {', '.join(odd)}, a graph in float32", "load the model in float32")


def _run(model: torch.nn.Module, batch: _Batch) -> NDArray[np.float32]:
    import torch

    with torch.no_grad():
        vectors: NDArray[np.float32] = model(*_tensors(model, batch)).float().cpu().numpy()
    return vectors


def _tensors(model: torch.nn.Module, batch: _Batch) -> tuple[torch.Tensor, ...]:
    import torch

    weight = next(model.parameters(), None)
    return tuple(torch.from_numpy(array).to("cpu" if weight is None else weight.device) for array in batch)


def _export(model: torch.nn.Module, example: _Batch, folder: Path, name: str) -> Path:
    """Trace the model; return the graph, alone in its folder but for its weights."""
    import torch

    large = sum(weight.numel() * weight.element_size() for weight in model.parameters()) > _ONE_FILE_BYTES
    traced = folder / "traced" / name
    traced.parent.mkdir()
    with torch.no_grad(), _eager_attention(model):
        try:
            torch.onnx.export(
                model,
                _tensors(model, example),
                str(traced),
                input_names=["input_ids", "attention_mask"],
                output_names=["embedding"],
                dynamic_axes={
                    "input_ids": {0: "n", 1: "length"},
                    "attention_mask": {0: "n", 1: "length"},
                    "embedding": {0: "n"},
                },
                opset_version=17,
                dynamo=False,
            )
        finally:
            model.eval()  # the exporter leaves the model in train mode
    return _gather_weights(traced, folder / "gathered") if large else traced


def _gather_weights(traced: Path, folder: Path) -> Path:
    """Put the weights, of which the exporter makes a file each, into one."""
    import onnx

    folder.mkdir()
    graph = folder / traced.name
    onnx.save_model(
        onnx.load(traced),
        graph,
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=f"{graph.name}.data",
    )
    shutil.rmtree(traced.parent)
    return graph


def _verify(graph: Path, batches: list[_Batch], expected: list[NDArray[np.float32]]) -> None:
    backend = OnnxBackend(graph)
    for batch, wanted in zip(batches, expected, strict=True):
        found = backend.forward(*batch)
        if found.shape != wanted.shape:
            raise EncoderError(f"the exported graph gives {found.shape} for the model's {wanted.shape}", _REMEDY)
        apart = float(np.abs(found - wanted).max())
        if not apart <= _TOLERANCE * max(1.0, float(np.abs(wanted).max())):  # NaN is no agreement either
            raise EncoderError(f"the exported graph differs from the model by {apart:.2g}", _REMEDY)


@contextmanager
def _eager_attention(model: torch.nn.Module) -> Iterator[None]:
    """Attention in plain operations: flash attention and the like have no ONNX form."""
    # Where transformers was never imported, no part of the model can be one of its own.
    transformers: Any = sys.modules.get("transformers")
    parts = [part for part in model.modules() if transformers and isinstance(part, transformers.PreTrainedModel)]
    before = [part.config._attn_implementation for part in parts]
    try:
        for part in parts:
            part.set_attn_implementation("eager")
        yield
    finally:
        for part, implementation in zip(parts, before, strict=True):
            part.set_attn_implementation(implementation)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporter says about its own deprecation and about traced branches to itself; we verify."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "transformers")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
