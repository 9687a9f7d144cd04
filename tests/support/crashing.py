"""Running an indexing job in a process of its own, ending it at will, and running it again until it is done."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

__all__ = ["Attempt", "Finished", "Job", "run_until_done"]

_START_SECONDS = 60.0
_REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One process: its exit status (negative: the signal that ended it), seconds of the run, what it said at last."""

    status: int
    seconds: float
    said: str

    @property
    def killed(self) -> bool:
        """Whether SIGKILL ended it."""
        return self.status == -signal.SIGKILL


class Running:
    """A process that has begun its run."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self._log = log
        self._begun = time.monotonic()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal; nothing happens when it has ended."""
        self.process.send_signal(number)

    def wait(self, seconds: float = 120.0) -> Attempt:
        """Return how it ended. Raises subprocess.TimeoutExpired when it has not within ``seconds``."""
        status = self.process.wait(seconds)
        return Attempt(status, time.monotonic() - self._begun, self._log.read_text(errors="replace")[-4000:])


@dataclass(frozen=True, slots=True)
class Job:
    """What to index and where; ``python -m tests.support.crash_child`` does it, always by the same command.

    Attributes:
        url: of the server, or of a proxy before it.
        alias: to index into.
        source: JSON lines.
        folder: where everything that is left behind goes; exists.
        options: of the Indexer, JSON values; ``retry`` as an object of what a RetryPolicy has.
        delay: seconds that the encoder takes for a text.
        encoder: name of the encoder; another one gives other vectors.
        dims: of the vectors.
        reembed: make a new version of what the alias holds, instead of reading the source.
    """

    url: str
    alias: str
    source: Path
    folder: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    delay: float = 0.0
    encoder: str = "hash"
    dims: int = 64
    reembed: bool = False

    @contextmanager
    def running(self, crash: str | None = None, number: signal.Signals = signal.SIGKILL) -> Iterator[Running]:
        """Start it, to get ``number`` at the point ``crash`` (see crash_points); killed at the end of the block."""
        command = [sys.executable, "-X", "faulthandler", "-m", "tests.support.crash_child"]
        command += [self.url, self.alias, str(self.source.resolve()), str(self.folder.resolve())]
        command += ["--options", json.dumps(self.options), "--delay", str(self.delay)]
        command += ["--encoder", self.encoder, "--dims", str(self.dims)]
        if self.reembed:
            command += ["--reembed"]
        if crash is not None:
            command += ["--crash", crash, "--signal", number.name]
        log = self.folder / "said"
        with (
            log.open("w") as said,
            subprocess.Popen(command, cwd=_REPOSITORY, stdout=subprocess.PIPE, stderr=said, text=True) as process,
        ):
            try:
                assert process.stdout is not None
                first = process.stdout.readline()
                assert first == "running\n", f"it did not begin: {log.read_text()}"
                yield Running(process, log)
            finally:
                process.kill()

    def run(self, crash: str | None = None, number: signal.Signals = signal.SIGKILL, seconds: float = 120.0) -> Attempt:
        """Run it to its end."""
        with self.running(crash, number) as running:
            return running.wait(seconds)

    def done(self, seconds: float = 120.0) -> Attempt:
        """Run it to its end, which has to be a good one."""
        attempt = self.run(seconds=seconds)
        assert attempt.status == 0, attempt
        return attempt

    @property
    def report(self) -> dict[str, Any]:
        """The report of the attempt that got to the end."""
        report: dict[str, Any] = json.loads((self.folder / "report.json").read_bytes())
        return report

    @property
    def letters(self) -> Path | None:
        """The dead letters of the attempt that got to the end; None where there are none."""
        path = self.report["dead_letters"]
        return None if path is None else Path(path)

    @property
    def encoded(self) -> Counter[str]:
        """How often each text was given to the encoder, over all attempts."""
        return Counter(_journal(self.folder / "encoded"))

    @property
    def acked(self) -> frozenset[str]:
        """Ids of the documents that the server said it has written, over all attempts."""
        return frozenset(_journal(self.folder / "acked"))


@dataclass(frozen=True, slots=True)
class Finished:
    """A job that was killed ``kills`` times and then got to its end; ``attempts`` are all of them, in order."""

    kills: int
    attempts: tuple[Attempt, ...]


def run_until_done(
    job: Job,
    seed: int,
    seconds: float,
    *,
    most_kills: int = 5,
    limit: float = 120.0,
    after_kill: Callable[[], None] = lambda: None,
) -> Finished:
    """Kill ``job`` at random times of its run, and run the same command again until one gets to its end.

    Args:
        job: what to run.
        seed: decides the times; a slow machine is elsewhere in its work then, so that it repeats the times only.
        seconds: that an undisturbed run takes: the times are drawn from them.
        most_kills: after as many an attempt is left alone.
        limit: seconds that one attempt may take.
        after_kill: called when an attempt has been killed.

    Raises AssertionError when an attempt ends in another way than by the kill or well.
    """
    chance = random.Random(seed)
    attempts: list[Attempt] = []
    while True:
        kills = len(attempts)
        with job.running() as running:
            if kills < most_kills:
                with suppress(subprocess.TimeoutExpired):
                    running.process.wait(chance.uniform(0, seconds))
                running.send(signal.SIGKILL)
            attempt = running.wait(limit)
        attempts.append(attempt)
        if attempt.status == 0:
            return Finished(kills, tuple(attempts))
        assert attempt.killed, f"seed {seed}, attempt {len(attempts)}: {attempt}"
        after_kill()


def _journal(path: Path) -> Iterator[Any]:
    """Values of a journal; what a kill has cut off is left out."""
    if not path.exists():
        return
    for line in path.read_bytes().split(b"\n"):
        with suppress(orjson.JSONDecodeError):
            yield orjson.loads(line)
