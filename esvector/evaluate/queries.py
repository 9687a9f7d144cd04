"""The queries of a measurement: texts of a file, or stored documents that are searched for by their own vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from esvector.encode.encoder import Encoder
from esvector.encode.probes import unpack_probes
from esvector.encode.queries import open_query_encoder, use_encoder
from esvector.errors import ConfigError, SourceError
from esvector.evaluate.live import Live, ask
from esvector.passport import HASH_FIELD
from esvector.search.requests import read_vectors
from esvector.vectors import to_elements

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = ["Query", "encode_queries", "read_queries", "sample_documents", "sampled"]

_TEXT_NAMES = ("text", "query")


@dataclass(frozen=True, slots=True)
class Query:
    """What is searched for: ``vector`` is (dims,), and ``id`` the document that it belongs to, which is no answer."""

    vector: tuple[float, ...]
    id: str | None = None


def read_queries(path: str | Path) -> list[str]:
    """Read queries from a file: JSON lines with "text" or "query" (as in BEIR's queries.jsonl), else a query a line.

    Raises SourceError for a file that cannot be read or has no query.
    """
    import orjson

    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"the queries {path} cannot be read: {error}", "give a file of JSON lines or text") from error
    texts = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if path.suffix != ".jsonl":
            texts.append(line.strip())
            continue
        try:
            record = orjson.loads(line)
            texts.append(next(str(record[name]) for name in _TEXT_NAMES if name in record))
        except (ValueError, TypeError, StopIteration) as error:
            raise SourceError(f"{path}:{number} has no query", 'write lines such as {"text": "..."}') from error
    if not texts:
        raise SourceError(f"{path} has no queries", "give a file with a query on each line")
    return texts


def encode_queries(
    live: Live,
    texts: Sequence[str],
    *,
    encoder: Encoder | None = None,
    device: str | None = None,
    cache: Path | None = None,
) -> list[Query]:
    """Encode ``texts`` as a search of the index does: with the passport's own encoder, or ``encoder`` if it is that."""
    profile = live.passport.encoder
    probes = unpack_probes(live.passport.probes, profile.dims or 0)
    if encoder is not None:
        encode = use_encoder(encoder, profile, probes)
    else:
        encode = open_query_encoder(profile, probes, device=device, cache=cache)
    return [Query(tuple(row)) for row in to_elements(encode(texts), live.passport.element_type).tolist()]


def sampled(live: Live, count: int, seed: int, filters: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """Return the body of a search for ``count`` documents with a vector, drawn by ``seed``: the same ones each time."""
    drawn = {
        "query": {"bool": {"filter": [live.has_vector(), *filters]}},
        # Drawn by the content, so that neither merges nor another order of loading change the sample.
        "random_score": {"seed": seed, "field": HASH_FIELD},
        "boost_mode": "replace",
    }
    return {"query": {"function_score": drawn}, "size": count, "track_total_hits": False}


def sample_documents(
    client: Elasticsearch, live: Live, count: int, seed: int, filters: Sequence[Mapping[str, Any]] = ()
) -> list[Query]:
    """Return stored vectors of ``count`` documents drawn by ``seed``; of a document in passages, that of one of them.

    Raises ConfigError where nothing has a vector.
    """
    field = live.passport.vector_field
    body = sampled(live, count, seed, filters) | {"_source": [field]}
    draw = np.random.default_rng(seed)
    found = []
    for hit in sorted(ask(client, live.name, body)["hits"]["hits"], key=lambda hit: str(hit["_id"])):
        if vectors := read_vectors(hit["_source"], field):
            found.append(Query(tuple(vectors[int(draw.integers(len(vectors)))]), hit["_id"]))
    if not found:
        raise ConfigError(f"no document of {live.name} that matches has a vector to search by", "index some first")
    return found
