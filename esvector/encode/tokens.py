"""Texts to token ids with the Rust tokenizer directly, cut to what the encoder reads. No torch, no transformers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

__all__ = ["TextTokenizer", "Tokens", "token_batches"]


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token ids of n texts, one after the other.

    Attributes:
        ids: (total,) int32, the ids of all texts, special tokens included, cut to the encoder's length.
        starts: (n + 1,) int64, where in ``ids`` each text begins; the last one is the total.
        counts: (n,) int64, tokens of each text before the cut.
        refused: why a text could not be tokenized, by its position; such a text has no ids.
    """

    ids: NDArray[np.int32]
    starts: NDArray[np.int64]
    counts: NDArray[np.int64]
    refused: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each text that the encoder reads: (n,) int64."""
        return np.diff(self.starts)

    def select(self, rows: NDArray[np.intp]) -> Tokens:
        """Tokens of the texts at the positions ``rows`` (m,), in that order."""
        lengths = self.lengths[rows]
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        places = np.repeat(self.starts[rows] - starts[:-1], lengths) + np.arange(starts[-1])
        refused = {new: self.refused[old] for new, old in enumerate(rows.tolist()) if old in self.refused}
        return Tokens(self.ids[places], starts, self.counts[rows], refused)

    def padded(self, rows: NDArray[np.intp], pad: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Ids and attention mask of the texts ``rows`` (m,), padded on the right: two (m, longest) int64."""
        starts, lengths = self.starts[rows], self.lengths[rows]
        places = np.arange(int(lengths.max(initial=0)), dtype=np.int64)
        mask = places < lengths[:, None]
        ids = np.full(mask.shape, pad, np.int64)
        ids[mask] = self.ids[(starts[:, None] + places)[mask]]
        return ids, mask.astype(np.int64)


class TextTokenizer:
    """Tokenizes complete inputs (prompt included). Threads may share one: tokenizing releases the GIL.

    Args:
        tokenizer: a Rust tokenizer; a copy of it is used.
        max_length: tokens that the encoder reads, special tokens included; None for all.
        special_tokens: whether the encoder wants those that the tokenizer adds, such as [CLS].
        pad_id: the id to pad with.
    """

    def __init__(
        self, tokenizer: Tokenizer, max_length: int | None, *, special_tokens: bool = True, pad_id: int = 0
    ) -> None:
        own = type(tokenizer).from_str(tokenizer.to_str())
        # Lengths are counted before any cut, so that no text is shortened silently; a tokenizer.json can bring both.
        own.no_truncation()
        own.no_padding()
        own.encode_special_tokens = tokenizer.encode_special_tokens  # no part of the file
        self._tokenizer = own
        self._special = special_tokens
        self.max_length = max_length
        self.pad_id = pad_id
        self._before, self._after = _affixes(own) if special_tokens else (0, 0)

    @property
    def json(self) -> str:
        """The tokenizer as the content of a tokenizer.json."""
        return str(self._tokenizer.to_str())

    @property
    def special_tokens(self) -> bool:
        """Whether special tokens are added."""
        return self._special

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """Tokenize ``texts``; one that cannot be (a lone surrogate, no tokens) is ``refused`` and costs no other."""
        refused: dict[int, str] = {}
        try:
            encodings: list[Encoding | None] = list(self._encode(texts))
        except (TypeError, UnicodeEncodeError):
            encodings = [self._encode_one(text, position, refused) for position, text in enumerate(texts)]
        counts = np.fromiter((0 if e is None else len(e) for e in encodings), np.int64, len(encodings))
        lengths = counts if self.max_length is None else np.minimum(counts, self.max_length)
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        ids = np.empty(int(starts[-1]), np.int32)
        for position, encoding in enumerate(encodings):
            if encoding is not None:
                ids[starts[position] : starts[position + 1]] = self._cut(encoding.ids, int(lengths[position]))
        return Tokens(ids, starts, counts, refused)

    def spans(self, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        """Where each token of each text stands in it, special tokens left out: (start, end) in characters, in order."""
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [encoding.offsets for encoding in encodings]

    def prompt_length(self, prompt: str) -> int:
        """Tokens of ``prompt`` at the beginning of an input, with the special tokens before it."""
        return len(self._tokenizer.encode(prompt, add_special_tokens=self._special)) - self._after

    def _encode(self, texts: Sequence[str]) -> list[Encoding]:
        return self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=self._special)

    def _encode_one(self, text: str, position: int, refused: dict[int, str]) -> Encoding | None:
        try:
            return self._encode([text])[0]
        except (TypeError, UnicodeEncodeError):
            what = f"a {type(text).__name__}" if not isinstance(text, str) else "text with half a surrogate pair"
            refused[position] = f"{what} cannot be tokenized"
            return None

    def _cut(self, ids: list[int], length: int) -> list[int]:
        """The first ``length`` ids, with the special tokens of the end kept at the end."""
        if len(ids) <= length:
            return ids
        tail = ids[len(ids) - self._after :] if self._after else []
        return ids[: length - len(tail)] + tail


def token_batches(lengths: NDArray[np.int64], budget: int) -> Iterator[NDArray[np.intp]]:
    """Positions of ``lengths`` (n,) in batches whose padded size (rows x longest row) is at most ``budget`` tokens.

    Longest first, so that running out of memory shows at once; a row longer than the budget is a batch of its own.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        rows = max(1, budget // max(1, int(lengths[order[start]])))
        yield order[start : start + rows]
        start += rows


def _affixes(tokenizer: Tokenizer) -> tuple[int, int]:
    """Special tokens that the tokenizer puts before and after a text."""
    encoding = tokenizer.encode("a")
    inner = [place for place, special in enumerate(encoding.special_tokens_mask) if not special]
    return (inner[0], len(encoding) - 1 - inner[-1]) if inner else (len(encoding), 0)
