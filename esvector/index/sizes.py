"""What vectors and documents take in Elasticsearch: bytes on disk and in memory, by type. Pure arithmetic.

Measured on Elasticsearch 9.5.3 with 64 to 768 dims, and asserted on the real server
(``tests/server/test_sizes.py``): vectors to the byte, the graph within a factor of two, stored fields within a half.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from esvector.client import Server
from esvector.encode.profile import Similarity
from esvector.vectors import ElementType

__all__ = [
    "HASH_BYTES",
    "STORED_SHARE",
    "VectorBytes",
    "keeps_raw_in_memory",
    "source_vector_bytes",
    "vector_bytes",
    "vector_types",
]

HASH_BYTES = 80
"""Bytes on disk of a document's field esvector_hash: in the stored document, and in a column."""

STORED_SHARE = 1.1
"""Bytes on disk for a byte of a document's JSON: compressed source, inverted indices, doc values. Five corpora had 0.9
(long prose) to 1.5 (short prose and many names); about half of it is the source."""

_ELEMENT_BYTES = {"float": 4, "bfloat16": 2, "byte": 1}
_QUANTIZED = ("int8", "int4", "bbq")
_BBQ_DIMS = 64  # Elasticsearch 9.5.3 refuses fewer


@dataclass(frozen=True, slots=True)
class VectorBytes:
    """Bytes of one vector: the ``raw`` one, its ``quantized`` form (0 for none) and its part of the ``graph``."""

    raw: int
    quantized: int
    graph: int

    @property
    def disk(self) -> int:
        """Bytes on disk, where the raw vector always stays, to score exactly and to quantize again in a merge."""
        return self.raw + self.quantized + self.graph

    @property
    def memory(self) -> int:
        """Bytes that a fast search reads again and again: what should fit into the page cache (not the Java heap)."""
        return (self.quantized or self.raw) + self.graph


def vector_bytes(dims: int, element_type: ElementType, index_type: str, m: int = 16) -> VectorBytes:
    """Bytes of a vector of ``dims`` in a field of ``element_type`` with ``index_options`` of ``index_type`` and ``m``.

    A quantized form is made of ``dims`` numbers and a few floats that correct it. The graph takes 4 bytes for each of
    ``m`` neighbours, says Elastic's sizing guide; measured were 2 to 4, less where vectors lie in clusters or m is 32
    and more. An index of less than about 1,500 vectors has no graph.
    """
    quantized = 0
    if index_type.startswith("int8"):
        quantized = dims + 16
    elif index_type.startswith("int4"):
        quantized = -(-dims // 2) + 16
    elif index_type.startswith("bbq"):
        quantized = -(-dims // 64) * 8 + 14  # a bit for each, in whole words of 64
    return VectorBytes(_ELEMENT_BYTES[element_type] * dims, quantized, 4 * m if index_type.endswith("hnsw") else 0)


def source_vector_bytes(dims: int, element_type: ElementType, server: Server) -> int:
    """Bytes that a vector takes once more in the stored document, as the text of numbers: 0 since 9.2."""
    if server.hides_source_vectors:
        return 0
    return round(dims * (2.4 if element_type == "byte" else 8.5))


def vector_types(dims: int, similarity: Similarity, server: Server) -> list[tuple[ElementType, str]]:
    """Element type and index type of every graph that ``server`` takes for vectors of ``dims``, the largest first."""
    found: list[tuple[ElementType, str]] = []
    for element_type in get_args(ElementType):
        if element_type == "byte":
            if similarity == "cosine":
                found.append((element_type, "hnsw"))
        elif element_type == "float" or server.takes_bfloat16:
            quantized = [
                name
                for name in _QUANTIZED
                if (name != "int4" or dims % 2 == 0) and (name != "bbq" or dims >= _BBQ_DIMS)
            ]
            found += [(element_type, kind) for kind in ("hnsw", *(f"{name}_hnsw" for name in quantized))]
    return found


def keeps_raw_in_memory(index_type: str) -> bool:
    """Whether a search walks through the raw vectors, nothing being quantized."""
    return not index_type.startswith(_QUANTIZED)
