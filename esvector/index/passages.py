"""Long documents in passages: cut by the encoder's own tokens, at the borders of sentences where possible."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from esvector.encode.encoder import ModelEncoder
from esvector.encode.engine import LocalEngine
from esvector.encode.profile import EncoderProfile
from esvector.encode.tokens import TextTokenizer
from esvector.encode.tower import Inputs
from esvector.encode.workers import ProcessEngine
from esvector.errors import ConfigError, require
from esvector.types import Document, PassageOptions

if TYPE_CHECKING:
    from esvector.index.encoding import Encoding

__all__ = ["PassageSplitter", "PassageWindow", "complete_options", "open_splitter"]

# What the small models read at most, and more than the passages that most models for retrieval were trained on. A
# vector of several thousand tokens says what a text is about, and no longer what stands in it.
MOST_TOKENS = 256
_OVERLAP = 8  # the share of a passage that may stand in the one before it, too, is one of so many
_LEAST_ROOM = 16  # tokens that must be left for text in a passage
_MARGIN = 2  # tokens: a text that is cut out of another can have one more at either end
_GROUP = 2**20  # characters tokenized at a time
_BACK = 10_000  # characters before the last piece that the next one is looked for in; a passage is shorter


@dataclass(frozen=True, slots=True)
class PassageWindow:
    """The passages of n documents, one document's after the other's, m in all; no document is without one.

    Attributes:
        texts: (m) the passages.
        starts: (m) where each begins in its document's text, in characters.
        ends: (m) where each ends.
        first: (n + 1,) int64, the number of each document's first passage; the last one is m.
        shortened: how many documents have a title of which only the beginning goes before their passages.
    """

    texts: list[str]
    starts: list[int]
    ends: list[int]
    first: NDArray[np.int64]
    shortened: int = 0

    def __len__(self) -> int:
        """Number of documents."""
        return len(self.first) - 1

    def refused(self, reasons: dict[int, str]) -> dict[int, str]:
        """Return why a document cannot be indexed, by its position, from why a passage could not be encoded.

        A document is indexed with all of its passages or not at all: one that lacks a part would not be found by it.
        """
        refused: dict[int, str] = {}
        for passage, reason in sorted(reasons.items()):
            document = int(np.searchsorted(self.first, passage, "right")) - 1
            begin, end = self.first[document : document + 2].tolist()
            if end - begin > 1:
                place = f"characters {self.starts[passage]} to {self.ends[passage]}"
                reason = f"passage {passage - begin + 1} of {end - begin} ({place}): {reason}"
            refused.setdefault(document, reason)
        return refused

    def select(self, keep: NDArray[np.intp]) -> tuple[PassageWindow, NDArray[np.intp]]:
        """Return the window of the documents at the positions ``keep``, and the numbers of their passages (here)."""
        counts = np.diff(self.first)[keep]
        first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        rows = (np.repeat(self.first[keep] - first[:-1], counts) + np.arange(first[-1])).astype(np.intp)
        texts, starts, ends = ([values[row] for row in rows] for values in (self.texts, self.starts, self.ends))
        return PassageWindow(texts, starts, ends, first, self.shortened), rows


def complete_options(options: PassageOptions, profile: EncoderProfile) -> PassageOptions:
    """Return ``options`` with every number stated, as a passport records them.

    Raises ConfigError for more tokens than the encoder reads, or an overlap of more than half of them.
    """
    reads = profile.max_length
    tokens = options.tokens if options.tokens is not None else min(MOST_TOKENS, reads or MOST_TOKENS)
    if tokens < 1 or (reads is not None and tokens > reads):
        raise ConfigError(
            f"passages have {tokens} tokens, but {profile.model} reads 1 to {reads}",
            "use fewer, or leave it open",
        )
    overlap = tokens // _OVERLAP if options.overlap is None else options.overlap
    if not 0 <= overlap <= tokens // 2:
        raise ConfigError(f"passages of {tokens} tokens overlap by {overlap}", f"use 0 to {tokens // 2}")
    return PassageOptions(tokens, overlap)


def open_splitter(encoding: Encoding, options: PassageOptions) -> PassageSplitter:
    """Return what splits documents for ``encoding``.

    Raises ConfigError where there are no tokens to count, or ``options`` do not fit the encoder; MissingExtraError
    without semantic-text-splitter.
    """
    engine, profile = encoding.engines[0], encoding.profile
    if not isinstance(engine, LocalEngine | ProcessEngine):
        raise ConfigError("a document brings one vector along, so it cannot be cut into passages", "leave one out")
    if engine.tokenizer is None and isinstance(encoding.encoder, ModelEncoder):
        raise ConfigError(
            f"{profile.model} tokenizes in a way of its own, so it cannot be told where a passage has to end",
            "index without passages, or cut the documents before",
        )
    require("encode", "semantic_text_splitter")
    return PassageSplitter(engine, engine.tokenizer, complete_options(options, profile))


class PassageSplitter:
    """Splits documents into passages, and tokenizes them.

    A passage is encoded as its document would be: with the prompt, and with the title before it. A title that needs
    more than half of the room is shortened for that.

    Args:
        engine: what the passages will be encoded by.
        tokenizer: what it tokenizes with; None where only the engine can count tokens, which is slower.
        options: complete options.
    """

    def __init__(
        self, engine: LocalEngine | ProcessEngine, tokenizer: TextTokenizer | None, options: PassageOptions
    ) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._limit, self._overlap = options.tokens or MOST_TOKENS, options.overlap or 0
        self._base = self._beside_text([None])[0]
        self._room = self._limit - self._base - _MARGIN
        if self._room < _LEAST_ROOM:
            raise ConfigError(
                f"passages of {self._limit} tokens have no room for text: prompt and special tokens are {self._base}",
                f"use at least {self._base + _MARGIN + _LEAST_ROOM} tokens",
            )

    def split(self, documents: Sequence[Document]) -> tuple[PassageWindow, Inputs]:
        """Return the passages of ``documents``, and what the engine's ``encode`` takes for them: (m,) inputs.

        A document that the encoder can read at once is one passage: its text without the white space around it.
        """
        whole = [_trimmed(document) for document in documents]
        inputs = self._engine.tokenize(whole)
        rows = np.flatnonzero(inputs.counts > self._limit).tolist()
        longs = dict(zip(rows, self._open([documents[row] for row in rows]), strict=True))
        while True:
            window, flat = _lay_out(documents, whole, longs)
            if not longs:
                return window, inputs
            inputs = self._engine.tokenize(flat)
            # What a cut costs in tokens is not known before: where it was more than the margin, cut shorter.
            excess = np.maximum.reduceat(inputs.counts - self._limit, window.first[:-1])
            over = [long for row, long in longs.items() if excess[row] > 0 and long.capacity > 1]
            if not over:
                return window, inputs
            for row, long in longs.items():
                if excess[row] > 0:
                    long.cut(max(1, long.capacity - int(excess[row])))

    def _open(self, documents: Sequence[Document]) -> list[_Long]:
        """Cut documents that are too long for one passage."""
        titles = [document.title for document in documents]
        beside = self._beside_text(titles)
        for position, title in enumerate(titles):
            if title is not None and beside[position] - self._base > self._room // 2:
                titles[position] = self._shorten(title, self._room // 2)
        shortened = [title != document.title for title, document in zip(titles, documents, strict=True)]
        if any(shortened):
            beside = self._beside_text(titles)
        longs = []
        for number, size in enumerate(self._sizes([document.text for document in documents])):
            document = replace(documents[number], title=titles[number])
            long = _Long(document, size, self._overlap, shortened=shortened[number])
            long.cut(max(1, self._limit - beside[number] - _MARGIN))
            longs.append(long)
        return longs

    def _beside_text(self, titles: Sequence[str | None]) -> list[int]:
        """Tokens of an input beside those of its text, by the title: prompt, title and special tokens."""
        probes = [Document("", "a", {}, "", title) for title in titles]
        return [int(count) - 1 for count in self._engine.tokenize(probes).counts] if probes else []

    def _shorten(self, title: str, tokens: int) -> str | None:
        spans = _pieces(title, next(self._sizes([title])), tokens, 0)
        return title[: spans[0][1]] if spans else None

    def _sizes(self, texts: Sequence[str]) -> Iterator[Callable[[str], int]]:
        """For each text, what counts the tokens of a piece of it."""
        tokenizer = self._tokenizer
        if tokenizer is None:
            yield from [self._count] * len(texts)
            return
        # The places of a text's tokens take a hundred times its bytes, until they are packed.
        groups = np.cumsum([len(text) for text in texts]) // _GROUP
        for group in np.unique(groups):
            together = [texts[row] for row in np.flatnonzero(groups == group).tolist()]
            for text, spans in zip(together, tokenizer.spans(together), strict=True):
                yield _counter(text, spans)

    def _count(self, piece: str) -> int:
        return int(self._engine.tokenize([Document("", piece, {}, "")]).counts[0]) - self._base


class _Long:
    """A document that is cut: ``spans`` are its passages, (start, end) in characters of its text."""

    def __init__(self, document: Document, size: Callable[[str], int], overlap: int, *, shortened: bool) -> None:
        self.document = document
        self.shortened = shortened
        self.capacity = 0
        self.spans: list[tuple[int, int]] = []
        self._size = size
        self._overlap = overlap

    def cut(self, capacity: int) -> None:
        """Cut into passages of at most ``capacity`` tokens, the rest of an input not counted."""
        self.capacity = capacity
        text = self.document.text
        spans = _pieces(text, self._size, capacity, min(self._overlap, capacity // 2))
        self.spans = spans or [_trim(text)]


def _lay_out(
    documents: Sequence[Document], whole: Sequence[Document], longs: dict[int, _Long]
) -> tuple[PassageWindow, list[Document]]:
    """Return the window of ``documents``, of which some are ``longs``, and each passage as a document to encode."""
    flat: list[Document] = []
    spans: list[tuple[int, int]] = []
    first = [0]
    for row, document in enumerate(documents):
        if (long := longs.get(row)) is None:
            flat.append(whole[row])
            spans.append(_trim(document.text))
        else:
            owner = long.document
            flat += [Document(owner.id, owner.text[a:b], {}, owner.place, owner.title) for a, b in long.spans]
            spans += long.spans
        first.append(len(flat))
    texts, starts, ends = [passage.text for passage in flat], [a for a, _ in spans], [b for _, b in spans]
    shortened = sum(long.shortened for long in longs.values())
    return PassageWindow(texts, starts, ends, np.array(first, np.int64), shortened), flat


def _pieces(text: str, size: Callable[[str], int], capacity: int, overlap: int) -> list[tuple[int, int]]:
    """Cut ``text`` into (start, end) of at most ``capacity`` by ``size``; what has no size is left out."""
    from semantic_text_splitter import TextSplitter

    splitter = TextSplitter.from_callback(size, capacity, overlap)
    # Indices are characters (0.33), not bytes.
    return [(start, start + len(piece)) for start, piece in splitter.chunk_indices(text) if size(piece) > 0]


def _counter(text: str, spans: list[tuple[int, int]]) -> Callable[[str], int]:
    """Return what counts the tokens of a piece of ``text`` by looking them up.

    The splitter asks for the size of ten times as many characters as there are: to tokenize every piece anew, as it
    does by itself, takes eight times as long as tokenizing the text once. It names a piece and not its place; any place
    where the piece stands will do, and the last one is near.
    """
    starts, ends = array("i", [start for start, _ in spans]), array("i", [end for _, end in spans])
    last = 0

    def count(piece: str) -> int:
        nonlocal last
        at = text.find(piece, max(0, last - _BACK))
        last = at if at >= 0 else text.find(piece)
        return max(0, bisect_left(starts, last + len(piece)) - bisect_right(ends, last))

    return count


def _trim(text: str) -> tuple[int, int]:
    """Where ``text`` begins and ends without the white space around it."""
    start = len(text) - len(text.lstrip())
    return start, max(start, len(text.rstrip()))


def _trimmed(document: Document) -> Document:
    text = document.text.strip()
    return document if text == document.text else replace(document, text=text)
