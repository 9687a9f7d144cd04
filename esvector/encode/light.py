"""Light query towers: exported once from a loaded one, then opened without torch."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from esvector.encode import query_cache
from esvector.encode.probes import PROBES
from esvector.encode.profile import EncoderProfile
from esvector.encode.query_cache import LightFacts, LightFiles
from esvector.encode.tokens import TextTokenizer
from esvector.encode.tower import ModelTower
from esvector.errors import EncoderError

if TYPE_CHECKING:
    from esvector.encode.backends.torch import Embedder

__all__ = ["export_light", "open_light", "workers"]

_MOST_WORKERS = 8
_LARGE_BYTES = 300 * 2**20
_log = logging.getLogger(__name__)


def open_light(files: LightFiles) -> ModelTower | None:
    """Open an exported tower; None where its files are damaged."""
    from tokenizers import Tokenizer

    facts = files.facts
    try:
        tokenizer = TextTokenizer(
            Tokenizer.from_str(files.tokenizer.read_text(encoding="utf-8")),
            facts.max_length,
            special_tokens=facts.special_tokens,
            pad_id=facts.pad_id,
        )
        return ModelTower(tokenizer, _backend(files), facts.dims, normalize=facts.normalize)
    except Exception as error:  # onnxruntime and tokenizers raise what they like for a file that they cannot read
        _log.debug("cannot open %s: %s", files.folder, error)
        return None


def export_light(tower: ModelTower, profile: EncoderProfile, folder: Path) -> LightFiles:
    """Write the query tower of ``profile``, loaded with torch in float32, into the cache at ``folder``.

    Raises EncoderError when it cannot be exported, or the graph does not give the same vectors to 1e-5.
    """
    embedder: Embedder = tower.backend.embedder  # type: ignore[attr-defined]  # it is torch's, by contract
    table = _static_table(embedder)
    facts = LightFacts(
        query_id=profile.query_id,
        kind="onnx" if table is None else "static",
        dims=tower.dims,
        normalize=tower.normalize,
        max_length=tower.tokenizer.max_length,
        special_tokens=tower.tokenizer.special_tokens,
        pad_id=tower.tokenizer.pad_id,
    )

    def write(path: Path) -> None:
        if table is not None:
            np.save(path, table)
        else:
            from esvector.encode.export import export_onnx

            probes = tower.tokenize([profile.query_input(text) for text in PROBES])
            export_onnx(embedder, path, probes, pad_id=tower.tokenizer.pad_id)

    return query_cache.save(folder, facts, tower.tokenizer.json, write)


def _backend(files: LightFiles) -> Any:  # noqa: ANN401
    if files.facts.kind == "static":
        from esvector.encode.backends.static import StaticBackend

        return StaticBackend(np.load(files.tower, mmap_mode="r"))
    from esvector.encode.backends.onnx import OnnxBackend

    return OnnxBackend(files.tower, threads=_threads(files))


def workers(files: LightFiles) -> int:
    """How many batches of queries to run at once: together they use the cores, up to 8."""
    return max(1, min(_MOST_WORKERS, os.cpu_count() or 1) // _threads(files))


def _threads(files: LightFiles) -> int:
    """Threads for one batch: a small model gains more from another batch beside it than from a second thread."""
    large = files.tower.stat().st_size > _LARGE_BYTES
    return min(4, os.cpu_count() or 1) if large else 1


def _static_table(embedder: Embedder) -> NDArray[np.float32] | None:
    """The table of a tower that is nothing but one; normalizing is done outside of it. None for any other."""
    first, *rest = (type(step).__name__ for step in embedder.steps)
    if first != "StaticEmbedding":
        return None
    if any(name != "Normalize" for name in rest):
        raise EncoderError("a table of token vectors with modules after it cannot be exported")
    static: Any = embedder.steps[0]
    table: NDArray[np.float32] = static.embedding.weight.detach().float().cpu().numpy()
    return table
