"""What searchers of both kinds share: the encoders that match what they search."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from esvector.encode.encoder import Encoder, check_match
from esvector.encode.probes import unpack_probes
from esvector.encode.queries import QueryEncoder, open_query_encoder, use_encoder
from esvector.encode.tower import unit_length
from esvector.forks import PerProcess
from esvector.passport import Passport
from esvector.search.needs import EncodeDocuments, EncodeQueries, Rerank
from esvector.search.rerank import Reranker, judged_text, open_reranker, rerank_many
from esvector.types import Hit
from esvector.vectors import to_elements

if TYPE_CHECKING:
    from esvector.encode.profile import EncoderProfile

__all__ = ["Models"]

_Vectors = NDArray[np.float32] | NDArray[np.int8]


class Models:
    """Opens the models that searches need, once each, and runs them. Safe to use from several threads.

    Args:
        encoder: a loaded encoder to use instead of loading the one of the passport; it must be the same.
        device: where models run; None is the CPU.
        query_cache: folder of exported query towers; None is the user's cache.
        reranker: what judges hits, whatever model a search names.
    """

    def __init__(
        self, encoder: Encoder | None, device: str | None, query_cache: Path | None, reranker: Reranker | None
    ) -> None:
        self._given = encoder
        self._device = device
        self._query_cache = query_cache
        self._reranker = reranker
        self._rerankers: dict[str, Reranker] = {}
        self._queries: tuple[EncoderProfile, QueryEncoder] | None = None  # one value, as a fork may come at any moment
        self._documents: Encoder | None = None
        self._lock = PerProcess(lambda _: threading.Lock())  # of what is open
        self._encoding = PerProcess(lambda _: threading.Lock())  # of the document encoder

    def encode_queries(self, need: EncodeQueries) -> _Vectors:
        """Embeddings of queries, as the index keeps vectors: (n, dims)."""
        vectors = self._query_encoder(need.passport)(need.texts)
        if need.passport.encoder.similarity != "dot":
            # Elasticsearch 9.5.3 takes a squared length within 1e-3 of 1 for 1: scores would be off by as much as 5e-4.
            vectors = unit_length(vectors)
        return to_elements(vectors, need.passport.element_type)

    def encode_documents(self, need: EncodeDocuments) -> _Vectors:
        """Embeddings of texts as documents, as the index keeps vectors: (n, dims)."""
        profile = need.passport.encoder
        if _same_on_both_sides(profile):
            vectors = self._query_encoder(need.passport)(need.texts)
        else:
            encoder = self._document_encoder(profile)
            with self._encoding():  # an encoder is used by one thread at a time
                vectors = encoder.encode_document(need.texts)
        return to_elements(vectors, need.passport.element_type)

    def rerank(self, need: Rerank) -> list[list[Hit]]:
        """The hits of each query, ranked anew."""
        with self._lock():
            reranker = self._reranker or self._rerankers.get(need.model)
            if reranker is None:
                reranker = self._rerankers[need.model] = open_reranker(need.model, device=self._device)
        return rerank_many(need.queries, need.hits, reranker, lambda hit: judged_text(hit, need.passport))

    def _query_encoder(self, passport: Passport) -> QueryEncoder:
        """Return the query encoder of ``passport``: the given one if it matches, else the one opened for it."""
        with self._lock():
            profile, current = self._queries or (None, None)
            # Of one target it is the same record each time, and its id is a hash that takes longer than the rest.
            if current is not None and profile is passport.encoder:
                return current
            if current is None or current.query_id != passport.encoder.query_id:
                probes = unpack_probes(passport.probes, passport.encoder.dims or 0)
                if self._given is not None:
                    current = use_encoder(self._given, passport.encoder, probes)
                else:
                    current = open_query_encoder(passport.encoder, probes, device=self._device, cache=self._query_cache)
            self._queries = passport.encoder, current
            return current

    def _document_encoder(self, profile: EncoderProfile) -> Encoder:
        with self._lock():
            if self._given is not None:
                check_match(profile, self._given.profile)
                return self._given
            if self._documents is None or self._documents.profile.space_id != profile.space_id:
                from esvector.encode.loading import load_encoder

                self._documents = load_encoder(profile, "document", self._device)
            return self._documents


def _same_on_both_sides(profile: EncoderProfile) -> bool:
    """Whether a text has the same vector as a query and as a document, so that the query encoder serves both."""
    one_tower = profile.kind in ("symmetric", "asymmetric") and profile.query_model is None
    one_length = profile.query_max_length in (None, profile.max_length)
    return one_tower and one_length and not (profile.query_prompt or profile.document_prompt)
