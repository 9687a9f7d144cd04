"""Encoding in a process of its own, one for each device: a failure there costs a restart, not the load.

A CUDA error poisons its whole process, running out of memory can kill it, and several devices need several GILs. So the
model lives in a child; this process has its tokenizer, no torch, and sends token ids.
"""

from __future__ import annotations

import logging
import pickle
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from esvector.encode.batcher import EncodedWindow
from esvector.encode.child import Child, Loaded, Overtaken
from esvector.encode.encoder import ModelEncoder, check_match
from esvector.encode.profile import EncoderProfile
from esvector.encode.tokens import TextTokenizer, Tokens
from esvector.errors import DeviceLostError, EncoderError, EsvectorError
from esvector.types import Document

__all__ = ["ProcessEngine"]

# Losses in a row, beyond the halvings that lead to one text, after which the device is at fault and no text.
_LOSSES = 8
_log = logging.getLogger(__name__)


class ProcessEngine:
    """A ``DocumentEngine`` whose encoder is loaded in a child process, from the moment this is made.

    When the child dies, or its device is lost, a new one gets the same window once more, then its halves, down to the
    single text, which is refused. As many threads as ``at_once`` keep the device busy: while one window is encoded, the
    next waits in the child, and the one before is on its way back.

    Args:
        open_encoder: loads the encoder of documents, in the child; it must be possible to pickle it.
        device: what to call the child by in messages.
    """

    at_once = 2

    def __init__(self, open_encoder: Callable[[], ModelEncoder], device: str = "") -> None:
        self.restarts = 0
        self._who = f"the encoder's process on {device}" if device else "the encoder's process"
        self._opening = pickle.dumps(open_encoder)
        self._lock = threading.Lock()
        self._closed = False
        self._loaded: Loaded | None = None
        self._child: Child | None = Child(self._opening, self._who)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def profile(self) -> EncoderProfile:
        """The complete profile, once the encoder is loaded."""
        return self._wait().profile

    @property
    def sources(self) -> dict[str, str]:
        """For a fact of the profile, where it came from, once the encoder is loaded."""
        return self._wait().sources

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user should look at, once the encoder is loaded."""
        return self._wait().warnings

    @property
    def attention(self) -> str:
        """How texts are run, and why, once the encoder is loaded."""
        return self._wait().attention

    @property
    def tokenizer(self) -> TextTokenizer:
        """What tokenizes, in this process, once the encoder is loaded."""
        return self._wait().tokenizer

    def wait_ready(self) -> None:
        """Wait until the encoder is loaded. Raises what loading raised, EncoderError when the child died of it."""
        self._wait()

    def tokenize(self, documents: Sequence[Document]) -> Tokens:
        """Tokenize what the encoder reads of ``documents``, in this process."""
        loaded = self._wait()
        return loaded.tokenizer([loaded.profile.document_input(d.text, d.title) for d in documents])

    def encode(self, inputs: Tokens, on_batch: Callable[[int, int], None] | None = None) -> EncodedWindow:
        """Encode tokenized documents; ``on_batch`` is told the documents and tokens of each batch, and may raise.

        What it was told before a child was lost it is told as zeros after that. Raises EncoderError when no text at
        all is encoded before the child dies, when it dies 8 times in a row and once more for each halving of the
        window, when it cannot be started again, or when this is closed meanwhile.
        """
        return self._encode(inputs, _Tally(on_batch))

    def close(self) -> None:
        """End the child. Whoever waits for it in another thread gets an EncoderError."""
        self._closed = True
        if child := self._child:
            if not child.idle:  # whoever waits for it gets to know
                child.kill()
            if self._lock.acquire(blocking=False):  # else it is being loaded, and ended by who waits for that
                try:
                    self._discard(child)
                finally:
                    self._lock.release()

    def _encode(self, inputs: Tokens, tally: _Tally) -> EncodedWindow:
        count = len(inputs)
        vectors = np.zeros((count, self._wait().dims), np.float32)
        plan = _Plan(count)
        while (rows := plan.next()) is not None:
            try:
                answer = self._ask(inputs if len(rows) == count else inputs.select(rows), tally)
            except _Lost as loss:
                plan.lost(rows, str(loss))
                if plan.hopeless:
                    raise EncoderError(
                        f"{self._who} was lost {plan.losses} times over {count} texts; the last time: {loss}",
                        "try another device, or fewer tokens at once; the system's log may say what ended it",
                    ) from None
            else:
                plan.answered(rows, answer.refused)
                if len(rows) == count:
                    vectors = answer.vectors
                else:
                    vectors[rows] = answer.vectors
        return EncodedWindow(vectors, inputs.counts, int((inputs.counts > inputs.lengths).sum()), plan.refused)

    def _ask(self, tokens: Tokens, tally: _Tally) -> EncodedWindow:
        """Let the child encode ``tokens``. Raises _Lost when that cost the child; the next call starts another."""
        while True:
            with self._lock:
                child = self._running()
            try:
                answer = child.encode(tokens, tally.batch)
                break
            except Overtaken:  # by another thread's tokens, which have cost the child
                self._check_open()
            except BaseException:
                self._discard(child)
                raise
        if answer is None or isinstance(answer, DeviceLostError):
            ending = self._discard(child)
            self._check_open()
            tally.lost()
            raise _Lost(f"{self._who} died on this text ({ending})" if answer is None else answer.message)
        if isinstance(answer, EsvectorError):
            raise answer
        tally.done()
        return answer

    def _wait(self) -> Loaded:
        if self._loaded is None:
            with self._lock:
                return self._running().loaded()
        return self._loaded

    def _running(self) -> Child:
        """Return the child, its encoder loaded; start one where there is none. The caller holds the lock."""
        self._check_open()
        if self._child is not None and self._child.lost:
            self._discard(self._child)
        if self._child is None:
            self.restarts += 1
            self._child = Child(self._opening, self._who)
        child = self._child
        try:
            loaded = child.loaded()
            if self._loaded is None:
                self._loaded = loaded
                _log.info("%s encodes in %s, texts %s", self._who, loaded.profile.dtype, loaded.attention)
            check_match(self._loaded.profile, loaded.profile)  # files can change before a restart
        except BaseException:
            self._discard(child)
            self._check_open()
            raise
        return child

    def _check_open(self) -> None:
        if self._closed:
            raise EncoderError(f"{self._who} is closed")

    def _discard(self, child: Child) -> str:
        """End ``child``, which is idle, lost or of no more use, and say how it ended. Any thread may, and several."""
        if self._child is child:
            self._child = None
        if child.lost or not child.idle:
            child.kill()
        return child.end()


class _Lost(Exception):
    """The child died or lost its device; the message is a reason to refuse a text, if that text was alone."""


class _Plan:
    """What of a window to encode next: all of it; after a loss, once more; then halves, down to the single text."""

    def __init__(self, count: int) -> None:
        self.refused: dict[int, str] = {}
        self.losses = 0
        self._count = count
        self._waiting: deque[NDArray[np.intp]] = deque([np.arange(count)])
        self._in_a_row = 0
        self._any_answer = False

    @property
    def hopeless(self) -> bool:
        """Whether no text is at fault, but the device: too many losses in a row, or nothing but losses."""
        too_many = self._in_a_row >= _LOSSES + self._count.bit_length()
        return too_many or not (self._waiting or self._any_answer or self._count == 1)

    def next(self) -> NDArray[np.intp] | None:
        """Take the positions (n,) to encode now; None when all is done."""
        return self._waiting.popleft() if self._waiting else None

    def lost(self, rows: NDArray[np.intp], reason: str) -> None:
        """Plan anew for ``rows``, on which a child was lost."""
        self.losses += 1
        self._in_a_row += 1
        if self.losses == 1:
            self._waiting.append(rows)
        elif len(rows) > 1:
            self._waiting.extendleft([rows[len(rows) // 2 :], rows[: len(rows) // 2]])
        else:
            self.refused[int(rows[0])] = reason

    def answered(self, rows: NDArray[np.intp], refused: dict[int, str]) -> None:
        """Note that ``rows`` are encoded, but for the positions among them that are ``refused``."""
        self._in_a_row = 0
        self._any_answer = True
        self.refused |= {int(rows[place]): reason for place, reason in refused.items()}


class _Tally:
    """Tells of each document once, however often its batch is tried."""

    def __init__(self, on_batch: Callable[[int, int], None] | None) -> None:
        self._on_batch = on_batch
        self._told, self._done, self._running = (np.zeros(2, np.int64) for _ in range(3))

    def batch(self, documents: int, tokens: int) -> None:
        """Note a batch of what runs now."""
        self._running += (documents, tokens)
        news = np.maximum(self._done + self._running - self._told, 0)
        self._told += news
        if self._on_batch is not None:
            self._on_batch(int(news[0]), int(news[1]))

    def done(self) -> None:
        """Note that what ran has its vectors."""
        self._done += self._running
        self._running[:] = 0

    def lost(self) -> None:
        """Note that what ran has none."""
        self._running[:] = 0
