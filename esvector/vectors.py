"""Embeddings as the element type of a vector field: float, bfloat16 or byte. Pure; documents and queries alike."""

from __future__ import annotations

from typing import Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from esvector.errors import ConfigError

__all__ = ["ElementType", "check_element_type", "to_elements"]

ElementType = Literal["float", "bfloat16", "byte"]

_LARGEST = 127


def check_element_type(name: str) -> ElementType:
    """Return ``name`` if it is an element type that esvector writes. Raises ConfigError for any other."""
    if name not in get_args(ElementType):
        raise ConfigError(f"element type {name!r} is not known", f"use one of {', '.join(get_args(ElementType))}")
    return cast(ElementType, name)


def to_elements(vectors: NDArray[np.float32], element_type: ElementType) -> NDArray[np.float32] | NDArray[np.int8]:
    """Return what is sent to the server for ``vectors`` (n, dims) float32.

    Byte: each vector scaled so that its largest component is 127, and rounded: (n, dims) int8. Cosine does not mind
    the scale, and no range has to be learnt from a sample. The server rounds to bfloat16 itself.
    """
    if element_type != "byte":
        return vectors
    largest = np.abs(vectors).max(axis=1, keepdims=True, initial=0)
    scaled = np.divide(vectors * _LARGEST, largest, out=np.zeros_like(vectors), where=largest != 0)
    elements: NDArray[np.int8] = np.rint(scaled).astype(np.int8)
    return elements
