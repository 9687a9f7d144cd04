"""An asynchronous client for code that waits: what it calls in a thread is done by the loop that the client is of."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

__all__ = ["Forwarding"]


class Forwarding:
    """Has what ``client`` (an ``AsyncElasticsearch``) has; its methods return when ``loop`` has done what they ask.

    For use in other threads than the loop's, which would wait for itself.
    """

    def __init__(self, client: Any, loop: asyncio.AbstractEventLoop) -> None:  # noqa: ANN401  # or a part of one
        self._client = client
        self._loop = loop

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # what the client has
        found = getattr(self._client, name)
        if name == "transport":  # for messages
            return found
        if not callable(found):
            return Forwarding(found, self._loop)

        def call(*args: Any, **options: Any) -> Any:  # noqa: ANN401  # the client's own
            asked = found(*args, **options)
            if not inspect.isawaitable(asked):  # a client with other options
                return Forwarding(asked, self._loop)
            return asyncio.run_coroutine_threadsafe(_result(asked), self._loop).result()

        return call


async def _result(asked: Any) -> Any:  # noqa: ANN401  # the client's own
    return await asked
