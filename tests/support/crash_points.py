"""Named points in the life of an indexing process at which it can be made to die, or to get a signal.

They lie at its borders (requests to the server, renames of files, calls of the encoder), so that they stay where they
are whatever becomes of the code between, and the product has no trace of them. A point is written
``after:bulk:3``: after the third bulk request was answered, before anybody hears of it.
"""

from __future__ import annotations

import os
import re
import signal
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from elastic_transport import Transport

__all__ = ["POINTS", "CrashPoint", "Reached", "install"]

# What a request is called: its method, and its path.
REQUESTS = {
    "alias": ("PUT", r"/[^/]+/_alias/[^/]+"),  # an alias of one index, such as the one to load through
    "bulk": ("PUT", r"/[^/]+/_bulk"),
    "count": ("POST", r"/[^/]+/_count"),
    "create": ("PUT", r"/[^/_][^/]*-\d{6,}"),  # a new version
    "delete": ("DELETE", r"/[^/_][^/]*-\d{6,}"),
    "lease": ("PUT", r"/[^/]*leases?/_(doc|create)/[^/]+"),
    "lookup": ("POST", r"(/[^/]+)?/_(mget|msearch|search)"),
    "merge": ("POST", r"/[^/]+/_forcemerge"),
    "meta": ("PUT", r"/[^/]+/_mapping"),
    "refresh": ("POST", r"/[^/]+/_refresh"),
    "settings": ("PUT", r"/[^/]+/_settings"),
    "swap": ("POST", r"/_aliases"),
}
POINTS = (*REQUESTS, "checkpoint", "encode")

Act = Callable[[], None]


@dataclass(frozen=True, slots=True)
class CrashPoint:
    """Before or after the ``count``-th time, from 1, that something happens in a process."""

    when: Literal["before", "after"]
    what: str
    count: int

    @classmethod
    def parse(cls, text: str) -> CrashPoint:
        """Read ``after:bulk:3``. Raises ValueError."""
        when, what, count = text.split(":")
        if when not in ("before", "after") or what not in POINTS or int(count) < 1:
            raise ValueError(f"{text} is no crash point: (before|after):({'|'.join(POINTS)}):NUMBER")
        return cls(cast(Literal["before", "after"], when), what, int(count))


class Reached:
    """Counts what happens, and acts at ``point``; from any thread."""

    def __init__(self, point: CrashPoint | None, act: Act) -> None:
        self._point = point
        self._act = act
        self._counts: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def __call__(self, when: Literal["before", "after"], what: str) -> None:
        """Note that ``what`` is about to happen, or has happened."""
        with self._lock:
            self._counts[when, what] += 1
            count = self._counts[when, what]
        if self._point == CrashPoint(when, what, count):
            self._act()


def send_self(number: signal.Signals) -> Act:
    """What sends a signal to this process: SIGKILL ends it there and then."""
    return lambda: os.kill(os.getpid(), number)


def install(reached: Reached, on_answer: Callable[[str, Any, Any], None]) -> None:
    """Have every request and every checkpoint of this process noted.

    ``on_answer`` is told (name of the request, its body, the body of the answer) before the point after it.
    """
    request, rename = Transport.perform_request, os.replace

    def perform_request(self: Transport, method: str, target: str, **options: Any) -> Any:
        name = request_name(method, target)
        reached("before", name)
        answer = request(self, method, target, **options)
        on_answer(name, options.get("body"), answer.body)
        reached("after", name)
        return answer

    def replace(source: Any, target: Any, **options: Any) -> None:
        is_checkpoint = Path(target).name == "checkpoint"
        if is_checkpoint:
            reached("before", "checkpoint")
        rename(source, target, **options)
        if is_checkpoint:
            reached("after", "checkpoint")

    Transport.perform_request = perform_request  # type: ignore[method-assign]
    os.replace = replace  # type: ignore[assignment]


def request_name(method: str, target: str) -> str:
    """What a request is called in a crash point; "" where it has no name."""
    path = target.partition("?")[0]
    names = (name for name, (verb, form) in REQUESTS.items() if verb == method and re.fullmatch(form, path))
    return next(names, "")
