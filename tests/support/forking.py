"""Work done in forked children of this process, as an application server with preloading has it done."""

from __future__ import annotations

import multiprocessing
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

_PATIENCE = 240  # seconds after which a child has hung; far more than any of them takes on a machine that is busy


def in_children(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Return what ``work`` of 0, 1 ... returns in ``count`` children that run at the same time."""
    context = multiprocessing.get_context("fork")
    pipes, children = [], []
    for number in range(count):
        ours, theirs = context.Pipe(duplex=False)
        child = context.Process(target=_work, args=(work, number, theirs), daemon=True)
        with warnings.catch_warnings():  # Python 3.12 warns of threads, which are what some of the tests are about
            warnings.simplefilter("ignore", DeprecationWarning)
            child.start()
        theirs.close()
        pipes.append(ours)
        children.append(child)
    try:
        return [_result(pipe) for pipe in pipes]
    finally:
        for child in children:
            child.kill()
            child.join()


def _work(work: Callable[[int], Any], number: int, pipe: Connection[Any, Any]) -> None:
    try:
        pipe.send((work(number), ""))
    except Exception:
        pipe.send((None, traceback.format_exc()))


def _result(pipe: Connection[Any, Any]) -> Any:
    assert pipe.poll(_PATIENCE), "a child has hung"
    result, failure = pipe.recv()
    assert not failure, failure
    return result
