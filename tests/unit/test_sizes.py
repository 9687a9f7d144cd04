"""The arithmetic of sizes; that the formulas are right is asserted on the server (tests/server/test_sizes.py)."""

from __future__ import annotations

import pytest

from esvector.client import Server
from esvector.index.sizes import keeps_raw_in_memory, source_vector_bytes, vector_bytes, vector_types
from esvector.vectors import ElementType

NEW, OLD = Server((9, 5, 3)), Server((8, 19, 0))


@pytest.mark.parametrize(
    ("element_type", "index_type", "disk", "memory"),
    [
        ("float", "hnsw", 1536 + 64, 1536 + 64),
        ("float", "int8_hnsw", 1536 + 400 + 64, 400 + 64),
        ("float", "int4_hnsw", 1536 + 208 + 64, 208 + 64),
        ("float", "bbq_hnsw", 1536 + 62 + 64, 62 + 64),
        ("float", "flat", 1536, 1536),
        ("float", "int8_flat", 1536 + 400, 400),
        ("bfloat16", "hnsw", 768 + 64, 768 + 64),
        ("bfloat16", "bbq_hnsw", 768 + 62 + 64, 62 + 64),
        ("byte", "hnsw", 384 + 64, 384 + 64),
    ],
)
def test_disk_holds_all_and_memory_what_is_walked_through(
    element_type: ElementType, index_type: str, disk: int, memory: int
) -> None:
    size = vector_bytes(384, element_type, index_type)
    assert (size.disk, size.memory) == (disk, memory)
    assert keeps_raw_in_memory(index_type) == (size.quantized == 0)


def test_a_graph_of_more_neighbours_is_larger() -> None:
    assert vector_bytes(384, "float", "hnsw", 32).graph == 2 * vector_bytes(384, "float", "hnsw", 16).graph


def test_only_types_that_the_server_would_take_are_told() -> None:
    assert len(vector_types(384, "cosine", NEW)) == 9
    assert ("byte", "hnsw") not in vector_types(384, "dot", NEW)
    assert {element for element, _ in vector_types(384, "cosine", OLD)} == {"float", "byte"}
    assert [kind for _, kind in vector_types(33, "dot", OLD)] == ["hnsw", "int8_hnsw"]


def test_an_older_server_keeps_vectors_in_the_source_too() -> None:
    assert source_vector_bytes(384, "float", NEW) == 0
    assert source_vector_bytes(384, "float", OLD) > 3000
