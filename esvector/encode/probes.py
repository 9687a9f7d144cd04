"""Probes: a few texts whose query vectors the passport keeps, so that an encoder can be tried and not only compared.

Ids say which files and settings made a vector; a library's version, a device or an override at run time can still
change it. Measured on MiniLM: another backend or bfloat16 reproduces a probe with a cosine of at least 0.9999, while a
forgotten prompt gives 0.72 to 0.89 in the mean and never more than 0.986.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from esvector.errors import ConfigError, EncoderError

__all__ = ["LEAST_AGREEMENT", "PROBES", "agreement", "pack_probes", "unpack_probes"]

LEAST_AGREEMENT = 0.999
"""Cosine with which a probe must be reproduced."""

PROBES: tuple[str, ...] = (
    "how long can cooked rice be kept in the fridge",
    "graph neural networks for molecular property prediction",
    "Who wrote 'The Left Hand of Darkness', and in which year (1969?) did it win the Hugo Award?",
    "Größe, façade, naïve; Привет мир; 人工知能の歴史; السلام عليكم",
    "def f(x): return {k: v ** 2 for k, v in x.items() if v > 0.5}  # O(n)",
    "ERROR 4xx: Connection refused at 10.0.0.1:9200 after 30 s\n\tretrying ...",
    "x",
    # About 150 tokens: long enough to show a length cut to 128 or less, short enough to try before every first search.
    " ".join(
        f"Paragraph {n} of a long report tells how the {a} {b} was {c} before the {d} meeting in room {n * 7}."
        for n, (a, b, c, d) in enumerate(
            [
                ("annual", "budget", "approved", "first"),
                ("northern", "bridge", "repaired", "public"),
                ("new", "vaccine", "tested", "scientific"),
                ("old", "library", "reopened", "local"),
            ]
            * 2
        )
    ),
)


def agreement(vectors: NDArray[np.float32], recorded: NDArray[np.float32]) -> NDArray[np.float64]:
    """Cosine of each pair of rows: (n,) float64. A vector of another length (beyond 1 %) counts as its ratio, at most.

    Cosine alone would not see a lost normalization, which changes every dot product.
    """
    a, b = vectors.astype(np.float64), recorded.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = np.nan_to_num((a * b).sum(axis=1) / (lengths[0] * lengths[1]), nan=-1.0)
        ratios = np.nan_to_num(np.minimum(*lengths) / np.maximum(*lengths), nan=1.0)
    both_zero = (lengths[0] == 0) & (lengths[1] == 0)
    found: NDArray[np.float64] = np.where(both_zero, 1.0, np.where(ratios > 0.99, cosines, np.minimum(cosines, ratios)))
    return found


def pack_probes(vectors: NDArray[np.float32]) -> list[str]:
    """Vectors (n, dims) as text: base64 of little-endian float16, which is far more exact than the check.

    Raises EncoderError when a component is beyond what float16 holds.
    """
    if (largest := float(np.abs(vectors).max(initial=0))) > np.finfo(np.float16).max:
        raise EncoderError(f"the encoder gives components of {largest:.0f}, beyond what a probe holds (65,504)")
    return [base64.b64encode(row.tobytes()).decode() for row in vectors.astype("<f2")]


def unpack_probes(packed: Sequence[str], dims: int) -> NDArray[np.float32]:
    """Read back what ``pack_probes`` wrote: (n, dims) float32. Raises ConfigError where it is damaged."""
    try:
        rows = [np.frombuffer(base64.b64decode(text, validate=True), "<f2") for text in packed]
    except (binascii.Error, ValueError, TypeError) as error:
        raise ConfigError(f"the probes of the passport cannot be read: {error}", "index the documents again") from error
    if any(len(row) != dims for row in rows):
        raise ConfigError(f"the probes of the passport do not have {dims} dims", "index the documents again")
    return np.array(rows, np.float32).reshape(len(rows), dims)
