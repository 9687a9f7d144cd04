"""Semantic search on Elasticsearch with your own open model, on your own GPU.

The public names are loaded when first used, so that ``esvector --help`` does not pay for numpy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import esvector.forks  # noqa: F401  # notes which sockets are open at a fork, whatever is used before it

if TYPE_CHECKING:
    from esvector.client import connect
    from esvector.encode.encoder import Encoder
    from esvector.encode.profile import EncoderProfile
    from esvector.errors import EsvectorError
    from esvector.index.deadletters import DeadLetters
    from esvector.index.indexer import Indexer
    from esvector.index.reembed import ReembedReport, reembed
    from esvector.index.retries import RetryPolicy
    from esvector.index.sources import read_documents
    from esvector.passport import Passport
    from esvector.search.async_searcher import AsyncSearcher
    from esvector.search.filter_field import Field
    from esvector.search.results import Results
    from esvector.search.searcher import Searcher
    from esvector.types import Hit, IndexReport, Leg, Passage, PassageOptions, Progress, SearchSettings

__all__ = [
    "AsyncSearcher",
    "DeadLetters",
    "Encoder",
    "EncoderProfile",
    "EsvectorError",
    "Field",
    "Hit",
    "IndexReport",
    "Indexer",
    "Leg",
    "Passage",
    "PassageOptions",
    "Passport",
    "Progress",
    "ReembedReport",
    "Results",
    "RetryPolicy",
    "SearchSettings",
    "Searcher",
    "connect",
    "read_documents",
    "reembed",
]

_HOMES = {
    "AsyncSearcher": "esvector.search.async_searcher",
    "DeadLetters": "esvector.index.deadletters",
    "Encoder": "esvector.encode.encoder",
    "EncoderProfile": "esvector.encode.profile",
    "EsvectorError": "esvector.errors",
    "Field": "esvector.search.filter_field",
    "Hit": "esvector.types",
    "IndexReport": "esvector.types",
    "Indexer": "esvector.index.indexer",
    "Leg": "esvector.types",
    "Passage": "esvector.types",
    "PassageOptions": "esvector.types",
    "Passport": "esvector.passport",
    "Progress": "esvector.types",
    "ReembedReport": "esvector.index.reembed",
    "Results": "esvector.search.results",
    "RetryPolicy": "esvector.index.retries",
    "SearchSettings": "esvector.types",
    "Searcher": "esvector.search.searcher",
    "connect": "esvector.client",
    "read_documents": "esvector.index.sources",
    "reembed": "esvector.index.reembed",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
