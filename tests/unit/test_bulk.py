from __future__ import annotations

import base64
import json

import numpy as np
import pytest

from esvector.index.delivery import Delivery, read_fates
from esvector.index.outcomes import Outcome
from esvector.index.packing import pack
from esvector.index.passages import PassageWindow

VECTORS = np.array([[0.5, -1.25, 3e-8], [1, 2, 3]], np.float32)


def test_packed_vectors_are_big_endian_base64() -> None:
    block = pack(["a", 'b"\n'], [1, 2], [b'{"x":1}', b"{}"], VECTORS, "vector", packed=True)
    lines = block.body([0, 1]).splitlines()
    assert [json.loads(line) for line in lines[::2]] == [
        {"index": {"_id": "a", "version": 1, "version_type": "external_gte"}},
        {"index": {"_id": 'b"\n', "version": 2, "version_type": "external_gte"}},
    ]
    first, second = json.loads(lines[1]), json.loads(lines[3])
    assert first["x"] == 1
    assert set(second) == {"vector"}
    unpacked = [np.frombuffer(base64.b64decode(source["vector"]), ">f4") for source in (first, second)]
    assert np.array_equal(unpacked, VECTORS)


@pytest.mark.parametrize("dims", [1, 2, 3, 384, 385, 386])
def test_base64_is_padded_whatever_the_number_of_dims(dims: int) -> None:
    vectors = np.random.default_rng(dims).standard_normal((5, dims)).astype(np.float32)
    block = pack(list("abcde"), range(5), [b"{}"] * 5, vectors, "v", packed=True)
    sources = [json.loads(block.body([position]).splitlines()[1]) for position in range(5)]
    assert [source["v"] for source in sources] == [
        base64.b64encode(v.astype(">f4").tobytes()).decode() for v in vectors
    ]


def test_an_older_server_gets_lists_of_floats() -> None:
    block = pack(["a", "b"], [1, 2], [b'{"x":1}', b"{}"], VECTORS, "v", packed=False)
    sources = [json.loads(block.body([position]).splitlines()[1]) for position in (0, 1)]
    assert np.array_equal(np.array([source["v"] for source in sources], np.float32), VECTORS)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("dims", [2, 3, 4])
def test_passages_are_nested_in_their_documents(dims: int, packed: bool) -> None:
    texts = ['say "a\n"', "b", "c", "\N{GRINNING FACE}"]
    passages = PassageWindow(texts, [0, 9, 11, 0], [8, 10, 12, 1], np.array([0, 3, 4]))
    vectors = np.random.default_rng(dims).standard_normal((4, dims)).astype(np.float32)
    block = pack(["x", "y"], [1, 2], [b'{"year":1}', b"{}"], vectors, "passages.v", packed=packed, passages=passages)
    lines = [json.loads(line) for line in block.body([0, 1]).splitlines()]
    assert [line["index"]["_id"] for line in lines[::2]] == ["x", "y"]
    assert lines[1]["year"] == 1
    assert list(lines[3]) == ["passages"]
    nested = lines[1]["passages"] + lines[3]["passages"]
    assert [len(line["passages"]) for line in lines[1::2]] == [3, 1]
    assert [(p["text"], p["start"], p["end"]) for p in nested] == list(
        zip(texts, passages.starts, passages.ends, strict=True)
    )
    found = [np.frombuffer(base64.b64decode(p["v"]), ">f4") if packed else p["v"] for p in nested]
    assert np.array_equal(np.array(found, np.float32), vectors)


@pytest.mark.parametrize("limit", [1, 100, 1000, 5000, 10**9])
def test_bodies_are_cut_into_even_parts_without_losing_any(limit: int) -> None:
    sizes = np.random.default_rng(1).integers(1, 400, 60)
    sources = [b'{"x":"%b"}' % (b"y" * int(size)) for size in sizes]
    block = pack([str(n) for n in range(60)], range(60), sources, np.ones((60, 2), np.float32), "v", packed=True)
    parts = list(block.parts(limit))
    assert [position for part in parts for position in part] == list(range(60))
    largest = max(len(block.body([position])) for position in range(60))
    assert all(len(block.body(part)) <= limit + 2 * largest or len(part) == 1 for part in parts)
    if limit == 10**9:
        assert len(parts) == 1


def test_a_document_that_a_pipeline_of_the_index_dropped_is_refused_and_not_counted_as_written() -> None:
    delivery = Delivery(pack(["a", "b"], [1, 2], [b"{}", b"{}"], VECTORS, "vector", packed=True), 1000, deletes=False)
    delivery.next_part(1000)
    answer = {"items": [{"index": {"status": 201, "result": "created"}}, {"index": {"status": 200, "result": "noop"}}]}
    fates = read_fates(answer, 2)
    assert fates is not None
    assert delivery.settle(fates).outcome is Outcome.DONE
    assert (delivery.result.created, delivery.result.replaced, delivery.pending) == (1, 0, 0)
    assert [position for position, _ in delivery.result.refused] == [1]
