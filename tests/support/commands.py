"""The command line: in this process, and in one of its own that waits for more input and can be interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from click.testing import CliRunner, Result

from esvector.cli import app

__all__ = ["Command", "Records", "as_lines", "lines_of", "run_command", "until", "waiting_index"]

Records = Iterable[Mapping[str, Any]]


def run_command(url: str, *args: str, **more: Any) -> Result:
    """Run ``esvector ARGS`` here. It must not end in a traceback."""
    result = CliRunner().invoke(app, args, env={"ESVECTOR_URL": url}, prog_name="esvector", **more)
    assert "Traceback" not in result.output, result.output
    return result


def lines_of(result: Result) -> list[dict[str, Any]]:
    """The JSON lines that it wrote."""
    return [json.loads(line) for line in result.stdout.splitlines()]


def as_lines(records: Records) -> str:
    """Records as JSON lines."""
    return "".join(json.dumps(record) + "\n" for record in records)


def until(condition: Callable[[], object], what: str, seconds: float = 90) -> None:
    """Return as soon as ``condition`` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.05)


class Command:
    """A process that reads records from its stdin, which stays open."""

    def __init__(self, process: subprocess.Popen[bytes], stdin: IO[bytes], log: Path) -> None:
        self.process = process
        self._stdin = stdin
        self._log = log

    @property
    def said(self) -> str:
        """What it wrote so far, on both streams."""
        return self._log.read_text(errors="replace")

    def write(self, records: Records) -> None:
        """Give it more to read."""
        self._stdin.write(as_lines(records).encode())
        self._stdin.flush()

    def finish(self, seconds: float = 90) -> int:
        """End its input, and return its exit status."""
        self._stdin.close()
        return self.process.wait(seconds)

    def interrupt(self, number: signal.Signals, seconds: float = 60) -> int:
        """Send it a signal, and return its exit status; its input stays open."""
        self.process.send_signal(number)
        return self.process.wait(seconds)


@contextmanager
def waiting_index(url: str, folder: Path, *args: str) -> Iterator[Command]:
    """Run ``esvector index - ARGS`` in ``folder``, in a process of its own."""
    log = folder / "said.txt"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "esvector", "index", "-", *args],
            cwd=folder,
            env=os.environ | {"ESVECTOR_URL": url},
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    assert process.stdin is not None
    try:
        yield Command(process, process.stdin, log)
    finally:
        process.kill()
        process.stdin.close()
        process.wait()
