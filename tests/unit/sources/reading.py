"""Files in the working directory, and what is read of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

from esvector.index.sources import MAX_RECORD_BYTES, read_documents
from esvector.types import BadRecord, Record


def write(name: str, content: str | bytes) -> str:
    Path(name).write_bytes(content.encode() if isinstance(content, str) else content)
    return name


def read(
    *sources: str, stdin: BinaryIO | None = None, max_record_bytes: int = MAX_RECORD_BYTES
) -> list[Record | BadRecord]:
    return list(read_documents(*sources, stdin=stdin, max_record_bytes=max_record_bytes))


def fields(*sources: str) -> list[dict[str, Any]]:
    return [dict(record.fields) for record in read(*sources) if isinstance(record, Record)]


def the_bad(source: str, max_record_bytes: int = MAX_RECORD_BYTES) -> BadRecord:
    records = read(source, max_record_bytes=max_record_bytes)
    (bad,) = (record for record in records if isinstance(record, BadRecord))
    return bad
