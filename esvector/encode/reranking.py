"""Cross-encoders: models that read a query and a text together and give the pair one score."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from esvector.encode.layout import read_json
from esvector.encode.models import find_model
from esvector.errors import ConfigError, EncoderError, require
from esvector.forks import PerProcess, torch_threads

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

__all__ = ["CrossEncoderReranker", "PairReranker", "Reranker", "open_reranker"]

_DTYPES = ("float32", "bfloat16", "float16")
_ORGANIZATION = "cross-encoder"  # of names without one, as sentence-transformers takes them
_USE_ONE = "use a cross-encoder, such as cross-encoder/ms-marco-MiniLM-L6-v2 or BAAI/bge-reranker-v2-m3"


class Reranker(Protocol):
    """What judges texts for a query; an application may bring its own. Several threads may use it at once."""

    def score(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return how well each of ``texts`` answers ``query``: (n,) float32, larger is better, none of them NaN."""


@runtime_checkable
class PairReranker(Protocol):
    """A ``Reranker`` that takes the pairs of several queries at once."""

    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """Return how well the text of each (query, text) answers its query: (n,) float32."""


class CrossEncoderReranker:
    """A cross-encoder of sentence-transformers. Threads may share it: they take turns on the device.

    Args:
        model: gives one score for a pair.
        name: what to call it in messages.
        batch_size: pairs of a batch.
    """

    def __init__(self, model: CrossEncoder, name: str, batch_size: int = 32) -> None:
        self.name = name
        self.model = model
        self._batch_size = batch_size
        self._lock = PerProcess(lambda _: threading.Lock())

    def score(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the model's own score of each of ``texts`` with ``query``: (n,) float32, as ``CrossEncoder.rank``.

        A pair that is longer than the model reads is cut, the longer of the two first. Raises EncoderError when the
        model fails, or gives a score that is no number.
        """
        return self.score_pairs([(query, text) for text in texts])

    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """Return the scores of (query, text) pairs, of several queries in the same batches: (n,) float32."""
        if not pairs:
            return np.zeros(0, np.float32)
        with self._lock():
            torch_threads()
            try:
                found = self.model.predict(list(pairs), batch_size=self._batch_size, show_progress_bar=False)
            except Exception as error:  # a model can fail in any way its modules can
                raise EncoderError(
                    f"{self.name} cannot judge {len(pairs)} pairs: {type(error).__name__}: {error}",
                    "if memory ran out, open it with a smaller batch_size, or re-rank fewer hits",
                ) from error
        scores = np.asarray(found, np.float32)
        if len(bad := np.flatnonzero(~np.isfinite(scores))):
            query, text = pairs[int(bad[0])]
            raise EncoderError(
                f"{self.name} gave {scores[bad[0]]} as the score of {text!r:.100} for the query {query!r:.100}",
                "open it with dtype='float32', or use another model",
            )
        return scores


def open_reranker(
    name: str,
    device: str | None = None,
    *,
    revision: str | None = None,
    max_length: int | None = None,
    batch_size: int = 32,
    dtype: str = "float32",
) -> CrossEncoderReranker:
    """Load the cross-encoder ``name``, a hub name or a folder, on ``device`` (None: a GPU where there is one).

    Its files are held to what encoders are: safetensors only, no code of the model's own, the hub asked only for what
    is not on this machine.

    Args:
        name: "cross-encoder/ms-marco-MiniLM-L6-v2", the same without its organization, or a folder.
        device: such as "cuda:0".
        revision: commit of the hub repository.
        max_length: tokens read of a pair; None is what the model reads.
        batch_size: pairs of a batch.
        dtype: number format to compute in. In half precision scores have three digits or less, so near ones are equal.

    Raises EncoderError when there is no such model, or it is not one that gives a pair one score; ConfigError when it
    cannot read ``max_length`` tokens; MissingExtraError where sentence-transformers is not installed.
    """
    require("encode", "sentence_transformers", "torch")
    if dtype not in _DTYPES:
        raise ConfigError(f"dtype {dtype!r} is not one to compute in", f"use one of {', '.join(_DTYPES)}")
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}, but must be at least 1", "32 suits most models")
    short = "/" not in name and not Path(name).expanduser().is_dir()
    files = find_model(f"{_ORGANIZATION}/{name}" if short else name, revision)
    _check_kind(files.path, files.name)
    model = _load(files.path, files.name, device, dtype)
    if model.num_labels != 1:
        raise EncoderError(f"{files.name} gives {model.num_labels} labels for a pair, not one score", _USE_ONE)
    _set_length(model, max_length)
    return CrossEncoderReranker(model, files.name, batch_size)


def _check_kind(path: Path, name: str) -> None:
    """Refuse what sentence-transformers would take and put a head of random weights on, such as a bi-encoder."""
    if (path / "modules.json").is_file():
        kind = (read_json(path / "config_sentence_transformers.json") or {}).get("model_type", "SentenceTransformer")
        if kind == "CrossEncoder":
            return
        raise EncoderError(f"{name} is no cross-encoder, but encodes single texts ({kind})", _USE_ONE)
    architectures = (read_json(path / "config.json") or {}).get("architectures") or []
    if not architectures or not str(architectures[0]).endswith("ForSequenceClassification"):
        what = str(architectures[0]) if architectures else "nothing that says what it is"
        raise EncoderError(f"{name} is no cross-encoder ({what}): it has no head that scores a pair", _USE_ONE)


def _load(path: Path, name: str, device: str | None, dtype: str) -> CrossEncoder:
    import torch
    from sentence_transformers import CrossEncoder
    from transformers.utils import logging as transformers_logging

    from esvector.encode.modules import default_device

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model: CrossEncoder = CrossEncoder(
            str(path),
            device=device or default_device(),
            local_files_only=True,
            model_kwargs={"dtype": getattr(torch, dtype), "use_safetensors": True},
        )
    except Exception as error:  # a model folder can fail in any way its modules can
        raise EncoderError(
            f"cannot load the model {name}: {type(error).__name__}: {error}",
            "check that it is complete, and the device; one with code of its own is refused",
        ) from error
    return model


def _set_length(model: CrossEncoder, asked: int | None) -> None:
    """Let ``model`` read ``asked`` tokens; where nobody says, not more than it has positions for."""
    from esvector.encode.modules import position_limit

    limit, own = position_limit(model[0]), model.max_seq_length
    if asked is not None and limit is not None and asked > limit:
        raise ConfigError(
            f"max_length is {asked}, but the model has positions for {limit} tokens", f"use at most {limit}"
        )
    if asked is not None:
        model.max_seq_length = asked
    elif limit is not None and (own is None or own > limit):
        model.max_seq_length = limit
