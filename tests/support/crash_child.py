"""An indexing process that can be made to die: ``python -m tests.support.crash_child URL ALIAS SOURCE FOLDER ...``.

It brings ALIAS to what the JSON lines of SOURCE say, with a HashEncoder. In FOLDER it leaves, over all attempts,
``encoded`` (every text that was given to the encoder), ``acked`` (the id of every document that the server said it has
written), the job's state, the dead letters, and in the end ``report.json``. It prints ``running`` when the run begins.
With ``--reembed`` it makes a new version of what ALIAS holds instead, and SOURCE is not read.
Exit status: 0 done, 1 failed, 130 interrupted.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import orjson
from numpy.typing import NDArray

from esvector import Indexer, read_documents
from esvector.client import connect
from esvector.errors import EsvectorError, InterruptedRun
from esvector.index.reembed import reembed
from esvector.index.retries import RetryPolicy
from tests.support.crash_points import CrashPoint, Reached, install, send_self
from tests.support.encoders import HashEncoder


class Journal:
    """JSON values, one a line, that outlive the process as soon as they are written."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def write(self, values: Sequence[Any]) -> None:
        # Begun by a line end as well: the write before may be one that was cut by a kill.
        os.write(self._file, b"\n" + b"".join(orjson.dumps(value) + b"\n" for value in values))


class LoggingEncoder(HashEncoder):
    """A HashEncoder that takes ``delay`` seconds for a text, and notes each before it encodes it."""

    def __init__(self, dims: int, name: str, delay: float, journal: Journal, reached: Reached) -> None:
        super().__init__(dims, name)
        self._delay = delay
        self._journal = journal
        self._reached = reached

    def encode_document(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self._journal.write(texts)
        self._reached("before", "encode")
        time.sleep(self._delay * len(texts))
        vectors = super().encode_document(texts)
        self._reached("after", "encode")
        return vectors

    def encode_query(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return super().encode_document(texts)


def acknowledged(request: bytes, answer: Mapping[str, Any]) -> Iterator[str]:
    """Ids of the documents that a bulk request wrote, by its answer."""
    lines = iter(request.splitlines())
    for item in answer.get("items", ()):
        ((kind, action),) = orjson.loads(next(lines)).items()
        if kind != "delete":
            next(lines)
            if item[kind]["status"] < 300:
                yield action["_id"]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("alias")
    parser.add_argument("source", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--encoder", default="hash", help="another name gives other vectors")
    parser.add_argument("--dims", type=int, default=64)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds for each text")
    parser.add_argument("--options", type=json.loads, default={}, help="of the Indexer, as JSON")
    parser.add_argument("--reembed", action="store_true", help="from what ALIAS holds, not from SOURCE")
    parser.add_argument("--crash", type=CrashPoint.parse, help="where, such as after:bulk:3")
    parser.add_argument("--signal", default="SIGKILL", help="what it gets there")
    return parser.parse_args()


def interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def main() -> None:
    given = arguments()
    folder: Path = given.folder
    reached = Reached(given.crash, send_self(signal.Signals[given.signal]))
    acked = Journal(folder / "acked")

    def on_answer(name: str, request: Any, answer: Any) -> None:
        if name == "bulk" and isinstance(request, bytes):  # not the deletions of nothing that a merge is started by
            acked.write(list(acknowledged(request, answer)))

    install(reached, on_answer)
    signal.signal(signal.SIGTERM, interrupt)  # as the command line does
    encoder = LoggingEncoder(given.dims, given.encoder, given.delay, Journal(folder / "encoded"), reached)
    options = {"dead_letters": folder / "dead.jsonl", "state": folder / "state", **given.options}
    if "retry" in options:
        options["retry"] = RetryPolicy(**options["retry"])
    print("running", flush=True)  # noqa: T201
    try:
        with connect(given.url, environ={}) as client:
            indexer = Indexer(client, given.alias, encoder=encoder, **options)
            report = (
                reembed(indexer, least_recall=0.5).load if given.reembed else indexer.run(read_documents(given.source))
            )
    except InterruptedRun as error:
        print(error, file=sys.stderr)  # noqa: T201
        sys.exit(130)
    except EsvectorError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(1)
    (folder / "report.json").write_bytes(orjson.dumps(dataclasses.asdict(report)))


if __name__ == "__main__":
    main()
