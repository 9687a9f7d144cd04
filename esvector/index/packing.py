"""Documents and vectors as the bytes of bulk requests."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import orjson
import pybase64
from numpy.typing import NDArray

if TYPE_CHECKING:
    from esvector.index.passages import PassageWindow

__all__ = ["Block", "pack"]

_GROUP_BYTES = 60_000


@dataclass(slots=True)
class Block:
    """Documents on their way, by position: ``heads[i] + vectors[i] + tail`` are the two lines of a document.

    Of a document in passages, ``vectors[i]`` is all of them. No object per document, and no vector copied before the
    body of a request is joined: each costs as much as all the rest of the work here. ``uncertain`` are those sent once
    without a clear answer.
    """

    ids: Sequence[str]
    heads: list[bytes]
    vectors: list[bytes]
    tail: bytes
    uncertain: set[int] = field(default_factory=set)

    def body(self, part: Sequence[int]) -> bytes:
        """Return the request for the documents at the positions of ``part``."""
        pieces = [self.tail] * (3 * len(part))
        pieces[0::3] = [self.heads[position] for position in part]
        pieces[1::3] = [self.vectors[position] for position in part]
        return b"".join(pieces)

    def parts(self, limit: int) -> Iterator[Sequence[int]]:
        """Cut the positions into parts of about equal bytes, at most ``limit`` where single documents allow it."""
        ends = np.cumsum(np.fromiter(map(len, self.heads), np.int64, len(self.heads)))
        ends += np.cumsum(np.fromiter(map(len, self.vectors), np.int64, len(self.vectors)))
        count = max(1, -(-int(ends[-1]) // limit)) if len(ends) else 0
        borders = np.searchsorted(ends, ends[-1] * np.arange(1, count) / count) if count else []
        edges = sorted({0, *map(int, borders), len(ends)})
        return (range(start, end) for start, end in itertools.pairwise(edges))


def pack(
    ids: Sequence[str],
    versions: Sequence[int],
    sources: Sequence[bytes],
    vectors: NDArray[np.float32] | NDArray[np.int8],
    vector_field: str,
    *,
    packed: bool,
    passages: PassageWindow | None = None,
) -> Block:
    """Return the documents as the lines of a bulk request.

    ``vectors`` is (n, dims), a document each; with ``passages`` (m, dims), a passage each, and ``vector_field`` is
    inside of the nested field.

    ``packed`` writes a vector as base64 of big-endian float32, or of bytes (2,048 characters for 384 floats, a quarter
    of a list, and far cheaper to read for the server: 9.3 or newer). Versions are external: the highest one stays.
    """
    path, _, name = vector_field.rpartition(".") if passages is not None else ("", "", vector_field)
    before, tail = orjson.dumps(name) + b":", b"}\n"
    if packed:
        values, padding = _base64_rows(vectors)
        before, tail = before + b'"', padding + b'"' + tail
    else:
        values = [orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY) for vector in vectors]
    if passages is not None:
        values = _nested(passages, values, b"," + before, tail[:-1])
        before, tail = orjson.dumps(path) + b":[", b"]}\n"
    # Put together by +: three times as fast as %, and this is done for every document.
    end, after = b',"version_type":"external_gte"}}\n', b"," + before
    heads = [
        b'{"index":{"_id":'
        + orjson.dumps(id_)
        + b',"version":'
        + str(version).encode()
        + end
        + source[:-1]
        + (after if len(source) > 2 else before)
        for id_, version, source in zip(ids, versions, sources, strict=True)
    ]
    return Block(ids, heads, values, tail)


def _nested(passages: PassageWindow, vectors: list[bytes], before: bytes, after: bytes) -> list[bytes]:
    """Return the passages of each document as JSON objects with commas between; ``vectors`` has one of each passage."""
    pieces = [b""] * (3 * len(vectors))
    pieces[0::3] = [
        orjson.dumps({"start": start, "end": end, "text": text})[:-1] + before
        for start, end, text in zip(passages.starts, passages.ends, passages.texts, strict=True)
    ]
    pieces[1::3] = vectors
    pieces[2::3] = [after + b","] * len(vectors)
    borders = (3 * passages.first).tolist()
    for end in borders[1:]:
        pieces[end - 1] = after
    return [b"".join(pieces[start:end]) for start, end in itertools.pairwise(borders)]


def _base64_rows(vectors: NDArray[np.float32] | NDArray[np.int8]) -> tuple[list[bytes], bytes]:
    """Base64 of each row of ``vectors`` (n, dims), floats as big-endian float32, and the padding that ends every row.

    A call encodes a group of rows, each filled up with zeros to whole groups of 3 bytes; of a filled-up row the last
    characters are left out, and the padding says so. An object per row costs several times as much, and so does one
    block for all: glibc gives large blocks of a thread back to the system at once, to be faulted in again.
    """
    rows, dims = vectors.shape
    kind = np.dtype(">f4") if vectors.dtype == np.float32 else vectors.dtype
    size = kind.itemsize * dims
    fill = -size % 3
    length = (size + fill) // 3 * 4
    encoded: list[bytes] = []
    step = max(1, _GROUP_BYTES // length)
    for start in range(0, rows, step):
        group = vectors[start : start + step].astype(kind).view(np.uint8).reshape(-1, size)
        filled = np.pad(group, ((0, 0), (0, fill))) if fill else group
        text = pybase64.b64encode(filled.reshape(-1).data)
        encoded += [text[at : at + length - fill] for at in range(0, len(text), length)]
    return encoded, b"=" * fill
