"""Encoders for tests and benchmarks that need no model: real implementations of the protocol, quick and exact."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from esvector.encode.profile import EncoderProfile


class HashEncoder:
    """Unit vectors drawn from the hash of the text: equal texts have cosine 1, others about 0."""

    def __init__(self, dims: int = 64, name: str = "hash") -> None:
        self._name = name
        self.profile = EncoderProfile(
            model=f"{name}-{dims}",
            weights=hashlib.sha256(name.encode()).hexdigest(),
            query_prompt="",
            document_prompt="",
            pooling="none",
            normalize=True,
            similarity="cosine",
            dims=dims,
            max_length=64,
            dtype="float32",
        )
        self.encoded = 0

    def count_tokens(self, texts: Sequence[str]) -> NDArray[np.int64]:
        return np.fromiter((len(text.split()) for text in texts), np.int64, len(texts))

    def encode_query(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self.encode_document(texts)

    def encode_document(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.encoded += len(texts)
        return np.stack([self._vector(text) for text in texts])

    def _vector(self, text: str) -> NDArray[np.float32]:
        seed = int.from_bytes(hashlib.blake2b(f"{self._name}:{text}".encode(), digest_size=8).digest())
        vector = np.random.default_rng(seed).standard_normal(self.profile.dims or 1).astype(np.float32)
        unit: NDArray[np.float32] = vector / np.linalg.norm(vector)
        return unit
