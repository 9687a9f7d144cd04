"""OpenVINO on the CPU: a torch model converted, in float32 or quantized to int8 on the user's own texts."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from esvector.errors import EncoderError, require
from esvector.forks import PerProcess, leave_to_parent

if TYPE_CHECKING:
    import openvino
    import torch

__all__ = ["OpenVinoBackend", "convert", "load", "quantize", "save"]

_Batch = tuple[NDArray[np.int64], NDArray[np.int64]]

_INPUTS = ("input_ids", "attention_mask")
# MiniLM, tokens per CPU second against torch with batches of 2,048 tokens: float32 1.21, 1.17, 1.08 and 0.90 with 512,
# 1,024, 2,048 and 4,096 tokens a stream; int8 2.61, 2.65, 2.52 and 2.05.
_BUDGET_PER_STREAM = 1024
# How much of the activations' range SmoothQuant moves into weights. MiniLM, 300 texts, mean and least cosine with
# float32 on 400 others: 0.9981 and 0.9937; nncf's own 0.95 gives 0.9977 and 0.9935.
_SMOOTHING = 0.8
_TOLERANCE = 1e-5
_OUT_OF_MEMORY = ("bad_alloc", "out of memory", "failed to allocate", "cannot allocate memory", "can't allocate memory")
_USE_TORCH = "encode with torch instead, which runs every model"


class OpenVinoBackend:
    """Runs a model that ``convert`` or ``quantize`` made. A vector does not depend on the other texts of its batch.

    A batch is split over as many streams of one thread as there are cores: two threads that share every layer take 7%
    more CPU time. ``forward`` waits for all streams, so that an error belongs to the batch that raised it.

    Args:
        model: the model, or the ``*.xml`` file that ``save`` wrote.
        threads: CPU threads of one ``forward``; None for one per core.

    Raises EncoderError when the file is no model that can be run, MissingExtraError without openvino.
    """

    def __init__(self, model: openvino.Model | Path | str, *, threads: int | None = None) -> None:
        _used()
        loaded = load(Path(model)) if isinstance(model, str | Path) else model
        quantized = any(op.get_type_name() == "FakeQuantize" for op in loaded.get_ordered_ops())
        self.name = "openvino-int8" if quantized else "openvino"
        self.dtype = "int8" if quantized else "float32"
        streams = threads or _cores()
        self.token_budget = _BUDGET_PER_STREAM * streams
        self._inputs = [port.get_any_name() for port in loaded.inputs]
        leave_to_parent(self)
        try:
            compiled = _openvino().Core().compile_model(loaded, "CPU", _settings(streams))
            self._requests = [compiled.create_infer_request() for _ in range(streams)]
        except Exception as error:  # openvino raises RuntimeError for whatever it cannot compile
            raise EncoderError(f"OpenVINO cannot run the model: {_first_line(error)}", _USE_TORCH) from error

    def forward(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        """Run one batch; ``ids`` and ``mask`` are (n, length), padded on the right. (n, dims) float32."""
        _used()
        feeds = [self._feed(ids[rows], mask[rows]) for rows in _shares(len(ids), len(self._requests))]
        used = self._requests[: len(feeds)]
        with ExitStack() as waiting:  # for all of them, whatever one raises: they read the inputs where they are
            for request, feed in zip(used, feeds, strict=True):
                request.start_async(feed, share_inputs=True)
                waiting.callback(request.wait)
        # Copied out of the requests, whose memory the next batch overwrites.
        vectors: NDArray[np.float32] = np.concatenate([request.get_output_tensor(0).data for request in used])
        return vectors

    def collect(self, outputs: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return what ``forward`` gave for several batches, one after the other: (sum of n, dims) float32."""
        return np.concatenate(outputs)

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether a smaller batch may help against ``error``."""
        if isinstance(error, MemoryError):
            return True
        return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _OUT_OF_MEMORY)

    def is_lost(self, error: BaseException) -> bool:
        """Whether nothing more can be run after ``error`` in this process: never on a CPU."""
        return False

    def _feed(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
        longest = max(1, int(mask.sum(axis=1).max()))
        feed = dict(zip(_INPUTS, (ids, mask), strict=True))
        return {name: np.ascontiguousarray(feed[name][:, :longest]) for name in self._inputs}


def convert(model: torch.nn.Module) -> openvino.Model:
    """Convert a torch model for ``OpenVinoBackend``, with any number and length of texts. Shares the weights' memory.

    The converted model is compared with the torch one: no component may differ by more than 1e-5 (of the largest
    component where that exceeds 1).

    Args:
        model: on the CPU, in float32; ``model(input_ids, attention_mask)`` gives (n, dims) embeddings.

    Raises EncoderError when the model cannot be converted, or would give other vectors.
    """
    _used()
    require("openvino", "openvino", "torch")
    _check_float32(model)
    import torch

    model.eval()
    batches = [_example(lengths) for lengths in ((8, 5), (12, 9, 4), (3,))]
    try:
        with torch.no_grad(), _quiet("transformers"):
            expected = [model(*map(torch.from_numpy, batch)).numpy() for batch in batches]
            example = dict(zip(_INPUTS, map(torch.from_numpy, batches[0]), strict=True))
            converted = _openvino().convert_model(model, example_input=example)
        backend = OpenVinoBackend(converted, threads=1)
        for batch, vectors in zip(batches, expected, strict=True):
            _compare(backend.forward(*batch), vectors)
    except EncoderError:
        raise
    except Exception as error:  # tracing runs the model's own code, which can fail in any way
        raise EncoderError(f"cannot convert the model to OpenVINO: {_first_line(error)}", _USE_TORCH) from error
    return converted


def quantize(model: openvino.Model, batches: Sequence[_Batch]) -> openvino.Model:
    """Quantize a model that ``convert`` made to int8: weights per channel, activations with ranges fixed here.

    Args:
        model: the float32 model; it stays as it is.
        batches: ids and attention mask, (n, length) int64 each, of about 300 texts like those to be encoded. How they
            are batched matters for the time only (mean cosine 0.9977 one by one and in batches of 2,048 tokens).

    Raises EncoderError when there are no texts or the model cannot be quantized, MissingExtraError without nncf.
    """
    require("openvino", "openvino", "nncf")
    if not batches:
        raise EncoderError("int8 needs texts to calibrate on, and there are none", "give some, or encode in float32")
    names = [port.get_any_name() for port in model.inputs]
    items = [dict(zip(_INPUTS, batch, strict=True)) for batch in batches]
    try:
        nncf = _nncf()
        with _quiet("nncf"), _no_progress():
            return nncf.quantize(
                model.clone(),
                nncf.Dataset([{name: item[name] for name in names} for item in items]),
                model_type=nncf.ModelType.TRANSFORMER,
                subset_size=len(items),
                advanced_parameters=nncf.AdvancedQuantizationParameters(
                    overflow_fix=_overflow_fix(nncf),
                    smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=_SMOOTHING),
                ),
            )
    except Exception as error:  # nncf runs the model, and has a dozen of classes of its own
        raise EncoderError(f"cannot quantize the model: {_first_line(error)}", "encode in float32 instead") from error


def _overflow_fix(nncf: Any) -> Any:  # noqa: ANN401
    """Weights of 7 bits where the CPU has no VNNI: sums of products of 8 bits overflow there (cosines from 0.93)."""
    flags = Path("/proc/cpuinfo").read_text().split() if Path("/proc/cpuinfo").exists() else []
    fixes = nncf.OverflowFix
    return fixes.FIRST_LAYER if {"avx512_vnni", "avx_vnni"}.intersection(flags) else fixes.ENABLE


def save(model: openvino.Model, path: Path) -> None:
    """Write ``model`` to ``path`` (``*.xml``) and its weights to a ``*.bin`` beside it, at once or not at all.

    Raises OSError where the folder cannot be written.
    """
    if path.suffix != ".xml":
        raise ValueError(f"an OpenVINO model is a file *.xml, not {path.name}")
    with TemporaryDirectory(prefix=".openvino-", dir=path.parent) as folder:
        # As it is: the default would round the weights to float16.
        _openvino().save_model(model, Path(folder) / path.name, compress_to_fp16=False)
        for suffix in (".bin", ".xml"):  # the model last, for a reader that looks for it
            (Path(folder) / path.name).with_suffix(suffix).replace(path.with_suffix(suffix))


def load(path: Path) -> openvino.Model:
    """Read the model that ``save`` wrote to ``path``.

    Raises EncoderError when the file is no such model, MissingExtraError without openvino.
    """
    _used()
    try:
        return _openvino().Core().read_model(path)
    except Exception as error:  # openvino raises RuntimeError for whatever it cannot read
        raise EncoderError(
            f"cannot load the model in {path}: {_first_line(error)}", "convert the model again"
        ) from error


def _settings(streams: int) -> dict[str, Any]:
    return {
        # CPUs that have bfloat16 would use it without asking.
        "INFERENCE_PRECISION_HINT": "f32",
        "NUM_STREAMS": streams,
        "INFERENCE_NUM_THREADS": streams,
        # Two processes that pin their threads to the same cores would leave the others idle.
        "ENABLE_CPU_PINNING": False,
    }


def _shares(rows: int, streams: int) -> list[slice]:
    """Rows of a batch in at most ``streams`` parts of about the same size."""
    parts = min(rows, streams)
    ends = [rows * part // parts for part in range(parts + 1)]
    return [slice(start, end) for start, end in pairwise(ends)]


def _example(lengths: Sequence[int]) -> _Batch:
    """Ids that every vocabulary has, padded: without padding a model's code may leave the mask out of the trace."""
    places = np.arange(max(lengths))
    mask = (places < np.array(lengths)[:, None]).astype(np.int64)
    return (1 + (places + np.arange(len(lengths))[:, None]) % 8) * mask, mask


def _check_float32(model: torch.nn.Module) -> None:
    dtypes = {str(weight.dtype).removeprefix("torch.") for weight in model.parameters() if weight.is_floating_point()}
    if odd := sorted(dtypes - {"float32"}):
        raise EncoderError(f"the model's weights are {', '.join(odd)}, not float32", "load the model in float32")


def _compare(found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    if found.shape != expected.shape:
        raise EncoderError(f"the converted model gives {found.shape} for the model's {expected.shape}", _USE_TORCH)
    apart = float(np.abs(found - expected).max())
    if not apart <= _TOLERANCE * max(1.0, float(np.abs(expected).max())):  # NaN is no agreement either
        raise EncoderError(f"the converted model differs from the model by {apart:.2g}", _USE_TORCH)


def _use(inherited: bool | None) -> bool:
    """Refuse a child whose parent used it: its threads are not there, and it aborts or waits for ever (2026.4)."""
    if inherited:
        raise EncoderError(
            "OpenVINO was used before this process was forked, so it cannot be used here",
            "use it in processes that are started anew (multiprocessing: 'spawn'), or encode with torch",
        )
    return True


_used = PerProcess(_use)


def _openvino() -> Any:  # noqa: ANN401
    require("openvino", "openvino")
    with _no_telemetry():
        import openvino
    return openvino


def _nncf() -> Any:  # noqa: ANN401
    before = logging.getLoggerClass()
    try:
        with _no_telemetry():
            import nncf
    finally:
        logging.setLoggerClass(before)  # nncf would make every logger of the process one of its own
    return nncf


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Hide warnings and what logger ``name`` says: it is of torch's tracer and untraced branches; we compare."""
    logger = logging.getLogger(name)
    level = logger.level
    with _no_telemetry(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            logger.setLevel(logging.CRITICAL)
            yield
        finally:
            logger.setLevel(level)


@contextmanager
def _no_telemetry() -> Iterator[None]:
    """No telemetry: openvino and nncf report imports and calls to Google, from a process that they fork for it."""
    missing = object()
    package = sys.modules.get("openvino_telemetry", missing)
    sender = getattr(sys.modules.get("openvino_telemetry.main"), "TelemetrySender", None)
    send = getattr(sender, "send", None)
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # import then fails, which both of them allow
    if sender is not None:  # somebody has imported openvino before us
        sender.send = lambda *_: None
    try:
        yield
    finally:
        if sender is not None:
            sender.send = send
        del sys.modules["openvino_telemetry"]
        if package is not missing:
            sys.modules["openvino_telemetry"] = package  # type: ignore[assignment]


@contextmanager
def _no_progress() -> Iterator[None]:
    """Disable nncf's progress bars, for which it has no switch."""
    from nncf.common.logging import track_progress

    shown = track_progress.Progress
    track_progress.Progress = lambda *columns, **options: shown(*columns, **{**options, "disable": True})
    try:
        yield
    finally:
        track_progress.Progress = shown


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
