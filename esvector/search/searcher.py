"""Searching an alias: the passport says how to encode the query, the mapping how to read the filter."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, overload

from esvector.client import error_details, explain_errors
from esvector.encode.encoder import Encoder
from esvector.errors import ConfigError, IndexNotFoundError
from esvector.search.conditions import Conditions, Where
from esvector.search.duplicates import Pair, find_pairs
from esvector.search.models import Models
from esvector.search.needs import EncodeDocuments, EncodeQueries, LookUp, Need, Rerank, Send, run
from esvector.search.options import RawFilter, SearchKeywords, SearchOptions
from esvector.search.requests import refusal
from esvector.search.rerank import Reranker
from esvector.search.results import Results
from esvector.search.searching import search_steps
from esvector.search.similar import similar_steps
from esvector.search.target import Target, read_target

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = ["Searcher", "as_list", "batches_of", "explained", "msearch_answers", "one_request"]

_BATCH = 100  # searches in one _msearch


class Searcher:
    """Searches ``alias`` with the encoder that made it; no model is named. Safe to use from several threads.

    One of a client of ``esvector.connect`` may be opened before a fork and used on both sides of it. A client of your
    own that was used before the fork is refused in the child.

    Args:
        client: the Elasticsearch client to read with.
        alias: name that the documents were indexed under.
        scope: a filter (expression or tree) that every search and every example document must satisfy, such as
            "tenant = acme"; filters of a search only ever narrow it.
        encoder: a loaded encoder to use instead of loading the one of the passport; it must be the same.
        device: where models run: None is the CPU, for queries without torch, by a tower exported once; "cuda:0" is
            torch.
        query_cache: folder of the exported towers; None is the user's cache.
        reranker: what judges hits where a search asks for re-ranking, instead of the cross-encoder that it names.
    """

    def __init__(
        self,
        client: Elasticsearch,
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

    @property
    def target(self) -> Target:
        """What the alias led to when it was last looked up. Raises IndexNotFoundError when it leads nowhere."""
        if self._target is None:
            self._target = self._look_up()
        return self._target

    @overload
    def search(  # type: ignore[overload-overlap]  # a str is a sequence of str, too
        self, query: str, **options: Unpack[SearchKeywords]
    ) -> Results: ...
    @overload
    def search(self, query: Sequence[str], **options: Unpack[SearchKeywords]) -> list[Results]: ...
    def search(self, query: str | Sequence[str], **options: Unpack[SearchKeywords]) -> Results | list[Results]:
        """Return the ``k`` best documents for ``query``, best first; a list of queries gives a list of results.

        The options are those of ``SearchOptions``: ``k``, ``offset``, ``where``, ``filter``, ``mode``, ``rerank`` and
        more. Only documents that match ``where`` and ``filter`` are searched, so k hits come back where k match.

        Raises EncoderMismatchError when the index was made by another encoder, FilterError for a filter that cannot be
        understood, ConfigError for an option that cannot be, PartialResultsError when a shard failed.
        """
        asked = SearchOptions(**options)
        queries = [query] if isinstance(query, str) else list(query)
        if not queries:
            return []
        found = run(search_steps(self.alias, queries, asked, self.scope), self._perform)
        return found[0] if isinstance(query, str) else found

    def similar(
        self,
        like: str | Sequence[str] = (),
        *,
        unlike: str | Sequence[str] = (),
        text: str | Sequence[str] = (),
        **options: Unpack[SearchKeywords],
    ) -> Results:
        """Return the ``k`` documents nearest to examples, which are not among them.

        ``like`` and ``unlike`` are ids of documents that are wanted and unwanted, ``text`` wanted texts, encoded as
        documents. Of several examples, what they have in common is searched for. Of a document in passages, the mean of
        their vectors is compared with the passages of the others. The options are those of ``search`` that need no
        words. Raises DocumentNotFoundError for an id without a vector, and as ``search``.
        """
        steps = similar_steps(
            self.alias, as_list(like), as_list(unlike), as_list(text), SearchOptions(**options), self.scope
        )
        return run(steps, self._perform)

    def duplicates(
        self,
        min_score: float = 0.9,
        *,
        where: Where = None,
        filter: RawFilter = None,  # noqa: A002  # the word of Elasticsearch's own API
        progress: Callable[[int, int], None] | None = None,
    ) -> Generator[Pair]:
        """Find the pairs of documents whose vectors are at least so similar, each pair once, as they are found.

        ``min_score`` is a cosine or a dot product; both documents of a pair match the filters. ``progress`` is told how
        many documents are compared, of how many. ``esvector.search.duplicates.clusters`` makes clusters of the pairs.
        Raises as ``find_pairs`` there does, and FilterError.
        """
        target = self.target
        conditions = Conditions.of(target, self.scope, where, filter)
        return find_pairs(
            self.client, self.alias, target.passport, min_score, filters=conditions.document, progress=progress
        )

    def request(self, query: str, **options: Unpack[SearchKeywords]) -> dict[str, Any]:
        """Return the body that ``search`` would send, to look at or to send yourself.

        What it depends on is looked up (the mapping, and how many documents match a filter). Raises ConfigError for a
        hybrid search, which sends two: they are in its explanation.
        """
        asked = one_request(SearchOptions(**options))
        steps = search_steps(self.alias, [query], asked, self.scope)
        need = next(steps)
        while not (isinstance(need, Send) and need.bodies[0].get("size")):
            need = steps.send(self._perform(need))
        return need.bodies[0]

    def _perform(self, need: Need) -> object:
        match need:
            case LookUp():
                if need.again:
                    self._target = None
                return self.target
            case EncodeQueries():
                return self._models.encode_queries(need)
            case EncodeDocuments():
                return self._models.encode_documents(need)
            case Rerank():
                return self._models.rerank(need)
            case Send():
                with explained(self.client, self.alias):
                    return self._send(need)

    def _send(self, need: Send) -> list[Mapping[str, Any]]:
        if len(need.bodies) == 1:
            answer = self.client.search(
                index=self.alias, allow_partial_search_results=need.allow_partial, body=need.bodies[0]
            )
            return [answer.body]
        answers: list[Mapping[str, Any]] = []
        for lines in batches_of(self.alias, need):
            answers += msearch_answers(self.client.msearch(searches=lines), self.alias)
        return answers

    def _look_up(self) -> Target:
        with explained(self.client, self.alias):
            return read_target(self.alias, self.client.indices.get_mapping(index=self.alias).body)


def one_request(options: SearchOptions) -> SearchOptions:
    """Return ``options`` of a search that finds its hits by one request. Raises ConfigError for others."""
    if options.mode == "hybrid":
        raise ConfigError(
            "a hybrid search sends two requests", "search(..., explain=True) shows them in its explanation"
        )
    return options


def as_list(one_or_more: str | Sequence[str]) -> list[str]:
    """Return a list, of one where one was given."""
    return [one_or_more] if isinstance(one_or_more, str) else list(one_or_more)


def batches_of(alias: str, need: Send) -> Iterator[list[Mapping[str, Any]]]:
    """Yield the lines of every _msearch that it takes."""
    header = {"index": alias, "allow_partial_search_results": need.allow_partial}
    for start in range(0, len(need.bodies), _BATCH):
        yield [line for body in need.bodies[start : start + _BATCH] for line in (header, body)]


def msearch_answers(answer: Any, alias: str) -> list[Mapping[str, Any]]:  # noqa: ANN401  # the client's own
    """Return the answers of an _msearch. Raises SearchError when one is an error."""
    answers: list[Mapping[str, Any]] = answer["responses"]
    if failed := [one for one in answers if "error" in one]:
        if failed[0].get("status") == 404:
            raise _not_found(alias)
        raise refusal(alias, failed[0]["error"])
    return answers


@contextmanager
def explained(client: Any, alias: str) -> Iterator[None]:  # noqa: ANN401  # of either kind
    """Turn what Elasticsearch refuses into our errors."""
    import elasticsearch

    try:
        with explain_errors(client):
            yield
    except elasticsearch.NotFoundError as error:
        raise _not_found(alias) from error
    except elasticsearch.ApiError as error:
        raise refusal(alias, error_details(error) or {"reason": str(error)}) from error


def _not_found(alias: str) -> IndexNotFoundError:
    return IndexNotFoundError(f"there is no index {alias}", "see 'esvector status' for those there are")
