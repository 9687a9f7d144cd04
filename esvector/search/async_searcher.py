"""The same searches for asyncio: what waits for the server is awaited, and models run in threads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, overload

from esvector.encode.encoder import Encoder
from esvector.search.conditions import Conditions, Where
from esvector.search.duplicates import Pair, find_pairs
from esvector.search.forwarding import Forwarding
from esvector.search.models import Models
from esvector.search.needs import EncodeDocuments, EncodeQueries, LookUp, Need, Rerank, Send, run_async
from esvector.search.options import RawFilter, SearchKeywords, SearchOptions
from esvector.search.rerank import Reranker
from esvector.search.results import Results
from esvector.search.searcher import as_list, batches_of, explained, msearch_answers, one_request
from esvector.search.searching import search_steps
from esvector.search.similar import similar_steps
from esvector.search.target import Target, read_target

if TYPE_CHECKING:
    from elasticsearch import AsyncElasticsearch

__all__ = ["AsyncSearcher"]


class AsyncSearcher:
    """``Searcher`` for asyncio, with the same arguments and methods. Safe to use from several tasks of one loop.

    ``client`` is an ``AsyncElasticsearch``. Tasks that ask at the same time share the encoder's batches.
    """

    def __init__(
        self,
        client: AsyncElasticsearch,
        alias: str,
        *,
        scope: Where = None,
        encoder: Encoder | None = None,
        device: str | None = None,
        query_cache: str | Path | None = None,
        reranker: Reranker | None = None,
    ) -> None:
        self.client = client
        self.alias = alias
        self.scope = scope
        self._models = Models(encoder, device, None if query_cache is None else Path(query_cache), reranker)
        self._target: Target | None = None

    @overload
    async def search(  # type: ignore[overload-overlap]  # a str is a sequence of str, too
        self, query: str, **options: Unpack[SearchKeywords]
    ) -> Results: ...
    @overload
    async def search(self, query: Sequence[str], **options: Unpack[SearchKeywords]) -> list[Results]: ...
    async def search(self, query: str | Sequence[str], **options: Unpack[SearchKeywords]) -> Results | list[Results]:
        """Return the ``k`` best documents for ``query``; see ``Searcher.search``."""
        asked = SearchOptions(**options)
        queries = [query] if isinstance(query, str) else list(query)
        if not queries:
            return []
        found = await run_async(search_steps(self.alias, queries, asked, self.scope), self._perform)
        return found[0] if isinstance(query, str) else found

    async def similar(
        self,
        like: str | Sequence[str] = (),
        *,
        unlike: str | Sequence[str] = (),
        text: str | Sequence[str] = (),
        **options: Unpack[SearchKeywords],
    ) -> Results:
        """Return the ``k`` documents nearest to examples; see ``Searcher.similar``."""
        steps = similar_steps(
            self.alias, as_list(like), as_list(unlike), as_list(text), SearchOptions(**options), self.scope
        )
        return await run_async(steps, self._perform)

    async def duplicates(
        self,
        min_score: float = 0.9,
        *,
        where: Where = None,
        filter: RawFilter = None,  # noqa: A002  # the word of Elasticsearch's own API
        progress: Callable[[int, int], None] | None = None,
    ) -> AsyncGenerator[Pair]:
        """Find the pairs of documents that are at least so similar; see ``Searcher.duplicates``."""
        target = await self._current()
        conditions = Conditions.of(target, self.scope, where, filter)
        client: Any = Forwarding(self.client, asyncio.get_running_loop())
        pairs = find_pairs(
            client, self.alias, target.passport, min_score, filters=conditions.document, progress=progress
        )
        try:
            while (pair := await asyncio.to_thread(next, pairs, None)) is not None:
                yield pair
        finally:
            await asyncio.to_thread(pairs.close)

    async def request(self, query: str, **options: Unpack[SearchKeywords]) -> dict[str, Any]:
        """Return the body that ``search`` would send; see ``Searcher.request``."""
        asked = one_request(SearchOptions(**options))
        steps = search_steps(self.alias, [query], asked, self.scope)
        need = next(steps)
        while not (isinstance(need, Send) and need.bodies[0].get("size")):
            need = steps.send(await self._perform(need))
        return need.bodies[0]

    async def _perform(self, need: Need) -> object:
        match need:
            case LookUp():
                return await self._current(again=need.again)
            case EncodeQueries():
                return await asyncio.to_thread(self._models.encode_queries, need)
            case EncodeDocuments():
                return await asyncio.to_thread(self._models.encode_documents, need)
            case Rerank():
                return await asyncio.to_thread(self._models.rerank, need)
            case Send():
                with explained(self.client, self.alias):
                    return await self._send(need)

    async def _send(self, need: Send) -> list[Mapping[str, Any]]:
        if len(need.bodies) == 1:
            answer = await self.client.search(
                index=self.alias, allow_partial_search_results=need.allow_partial, body=need.bodies[0]
            )
            return [answer.body]
        answers: list[Mapping[str, Any]] = []
        for lines in batches_of(self.alias, need):
            answers += msearch_answers(await self.client.msearch(searches=lines), self.alias)
        return answers

    async def _current(self, *, again: bool = False) -> Target:
        if again or self._target is None:
            with explained(self.client, self.alias):
                answer = await self.client.indices.get_mapping(index=self.alias)
                self._target = read_target(self.alias, answer.body)
        return self._target
