"""Running the windows of a load through its stages, and ending that early in good order."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator

from esvector.encode.engine import DocumentEngine
from esvector.index.bulk import BulkWriter
from esvector.index.content import Comparison
from esvector.index.load import Load
from esvector.index.pipeline import Pipeline, Stage
from esvector.index.window import Window
from esvector.types import StageTime

__all__ = ["Filling"]

_TICK = 0.2  # seconds between two looks at how far it is
_ABANDON = 2.0  # seconds that stages get to notice that they are to stop
_SPANNED = 16  # windows of unchanged documents that are put together, before they move the checkpoint
_log = logging.getLogger(__name__)


class Filling:
    """Compares, tokenizes, encodes, packs and writes windows, each in threads of its own.

    Args:
        load: whose windows they are.
        first: the first window, which is compared already.
        windows: the others.
        compare: what drops documents that need no work; None where there is nothing to compare with.
        engines: what encodes, each in as many threads as keep it busy.
        writer: what writes.
        senders: how many threads write.
    """

    def __init__(
        self,
        load: Load,
        first: Window,
        windows: Iterator[Window],
        compare: Comparison | None,
        engines: tuple[DocumentEngine, ...],
        writer: BulkWriter,
        senders: int,
    ) -> None:
        self._load = load
        left = [engine for engine in engines for _ in range(engine.at_once)]  # each of the workers takes one
        stages = [
            Stage("compare", lambda windows: _compared(first, windows, compare)),
            Stage("tokenize", lambda windows: load.tokenize(windows, engines[0])),
            Stage("encode", lambda windows: load.encode(windows, left.pop()), workers=len(left)),
            Stage("pack", lambda encoded: load.pack(encoded, writer)),
            Stage("write", lambda packed: load.write(packed, writer), workers=senders),
        ]
        self._pipeline = Pipeline(windows, stages, stopping=load.stopping)

    @property
    def times(self) -> tuple[StageTime, ...]:
        """What each stage did with its time."""
        return self._pipeline.times()

    def run(self, tick: Callable[[], None], grace: float) -> None:
        """Run to the end; ``tick`` is called a few times a second.

        An interrupt ends the reading, and what was read is finished for up to ``grace`` seconds; a second one ends that
        at once. An error in ``tick`` or a stage ends it, too.
        """
        pipeline = self._pipeline
        pipeline.start()
        try:
            while not pipeline.join(_TICK):
                tick()
        except KeyboardInterrupt:
            self._drain(grace)
            raise
        except BaseException:
            pipeline.stop()
            self._let_end(_ABANDON)
            raise

    def _drain(self, grace: float) -> None:
        _log.warning("interrupted: finishing what is under way (up to %g s; again to stop at once)", grace)
        self._load.draining.set()
        try:
            self._let_end(grace)
        finally:
            self._pipeline.stop()
        self._let_end(_ABANDON)

    def _let_end(self, seconds: float) -> None:
        """Wait for the stages that are finishing what they have in hand; they are daemons, so a stuck one is left."""
        deadline = time.monotonic() + seconds
        try:
            while not self._pipeline.join(max(0.0, deadline - time.monotonic())) and time.monotonic() < deadline:
                pass
        except Exception as error:  # the error that stopped the run is raised already
            _log.debug("a stage ended with %s", error)


def _compared(first: Window, windows: Iterator[Window], compare: Comparison | None) -> Iterator[Window]:
    """Yield ``first``, which is compared already, and then the others; what is left of small ones is put together."""
    yield first
    if compare is None:
        yield from windows
        return
    gathered: Window | None = None
    for window in windows:
        compare(window)
        if gathered is None:
            gathered = window
        else:
            gathered.extend(window)
        if gathered.full or gathered.span >= _SPANNED:
            yield gathered
            gathered = None
    if gathered is not None:
        yield gathered
