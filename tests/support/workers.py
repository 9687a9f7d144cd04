"""Encoders for child processes, without torch: real towers over a tiny numpy backend, some words of which do harm.

Functions that open an encoder can be pickled; each notes its process in the file `pids` of the folder it is given.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from esvector.encode.encoder import LoadedTower, ModelEncoder
from esvector.encode.profile import EncoderProfile
from esvector.encode.tokens import TextTokenizer
from esvector.encode.tower import ModelTower, TextTower
from esvector.errors import EncoderMismatchError, MissingExtraError

DIMS = 8
HARMFUL = ("kill", "exit", "lost", "fail", "killonce", "lostonce", "slow", "held")
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "passage", *HARMFUL, *"abcdefghijklmnopqrstuvwxyz")


class NumpyBackend:
    """Weighted means of random token vectors; a harmful word acts when it is in a batch."""

    name = "numpy"
    dtype = "float32"
    token_budget = 16

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._table = np.random.default_rng(0).standard_normal((len(WORDS), DIMS))

    def forward(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        for word in HARMFUL:
            if WORDS.index(word) in ids:
                self._harm(word)
        weights = mask * (1.0 + np.arange(ids.shape[1]))
        vectors: NDArray[np.float64] = (self._table[ids] * weights[:, :, None]).sum(axis=1)
        return vectors.astype(np.float32)

    def collect(self, outputs: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        return np.concatenate(outputs)

    def is_out_of_memory(self, error: BaseException) -> bool:
        return isinstance(error, MemoryError)

    def is_lost(self, error: BaseException) -> bool:
        return str(error).startswith("CUDA error")

    def _harm(self, word: str) -> None:
        if word.endswith("once"):
            marker = self._folder / word
            if marker.exists():
                return
            marker.touch()
        match word.removesuffix("once"):
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "exit":
                os._exit(3)
            case "lost":
                raise RuntimeError("CUDA error: device-side assert triggered")
            case "fail":
                raise RuntimeError("an ordinary failure")
            case "held":
                (self._folder / "holds").touch()
                while not (self._folder / "released").exists():
                    time.sleep(0.01)
            case "slow":
                (self._folder / "slow").touch()
                time.sleep(60)


def pids(folder: Path) -> list[int]:
    """Processes that opened an encoder with this folder, in the order of their start."""
    return [int(line) for line in (folder / "pids").read_text().split()]


def open_tiny(folder: Path, weights: str = "0" * 64) -> ModelEncoder:
    with (folder / "pids").open("a") as file:
        file.write(f"{os.getpid()}\n")
    print("a library talks")  # noqa: T201
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tower = ModelTower(TextTokenizer(tokenizer, max_length=12), NumpyBackend(folder), DIMS, normalize=True)
    return ModelEncoder(_profile(weights), {"document": LoadedTower(tower)}, {"dims": "the model"}, ("a warning",))


def open_twice(folder: Path) -> ModelEncoder:
    """The same model, of which the second process finds other weights."""
    return open_tiny(folder, "1" * 64 if (folder / "pids").exists() else "0" * 64)


def open_whole() -> ModelEncoder:
    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        return np.ones((len(texts), DIMS), np.float32)

    def count(texts: Sequence[str]) -> NDArray[np.int64]:
        return np.ones(len(texts), np.int64)

    tower = TextTower(encode, count, DIMS, None, token_budget=64)
    return ModelEncoder(_profile(), {"document": LoadedTower(tower)})


def open_mismatched() -> ModelEncoder:
    raise EncoderMismatchError("another encoder", "take this one")


def open_missing() -> ModelEncoder:
    raise MissingExtraError("this needs torch", "install it")


def open_buggy() -> ModelEncoder:
    raise ValueError("a bug")


def open_dying() -> ModelEncoder:
    os._exit(7)


def _profile(weights: str = "0" * 64) -> EncoderProfile:
    return EncoderProfile(
        model="tiny",
        weights=weights,
        query_prompt="",
        document_prompt="passage ",
        separator=" ",
        pooling="mean",
        normalize=True,
        similarity="cosine",
        dims=DIMS,
        max_length=12,
        dtype="float32",
    )
