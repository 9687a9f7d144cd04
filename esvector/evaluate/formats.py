"""Queries, judgements (qrels) and runs, in the formats of BEIR and TREC.

Each is read as the plain mappings that ir-measures and BEIR use. A file that is not what it should be is refused with
file, line and value: an evaluation that skips lines says something about another collection.
"""

from __future__ import annotations

import gzip
import math
import re
import zlib
from collections.abc import Iterator, Mapping, Sized
from pathlib import Path

import orjson

from esvector.errors import ConfigError, SourceError

__all__ = ["Qrels", "Queries", "Run", "find_beir", "read_qrels", "read_queries", "read_run", "write_run"]

Queries = Mapping[str, str]
"""Text by query id."""
Qrels = Mapping[str, Mapping[str, int]]
"""Relevance by document id by query id; 0 and less is not relevant."""
Run = Mapping[str, Mapping[str, float]]
"""Score by document id by query id. The ranking is by score, and of equal scores by their order."""

_HEADER = ["query-id", "corpus-id", "score"]
_QRELS = "query-id, corpus-id, score (BEIR), or query-id, 0, document-id, relevance (TREC)"
_RUN = "query-id, Q0, document-id, rank, score, tag"
_GZIP = b"\x1f\x8b"


def read_queries(path: str | Path) -> dict[str, str]:
    """Read the text of each query by its id: JSON lines with ``_id`` and ``text`` (BEIR), or ``id<TAB>text``.

    The first line tells which. May be gzipped, as all that is read here. Raises SourceError for a file that cannot be
    read, a line that is no query, and an id that comes twice.
    """
    queries: dict[str, str] = {}
    as_json: bool | None = None
    for place, line in _lines(Path(path)):
        if as_json is None:
            as_json = line.lstrip().startswith("{")
        name, text = _json_query(line, place) if as_json else _tab_query(line, place)
        if not text.strip():
            raise SourceError(f"{place}: the query {name!r} has no text", "write one, or leave the query out")
        if name in queries:
            raise SourceError(f"{place}: the query {name!r} comes a second time", "give each query an id of its own")
        queries[name] = text
    _refuse_empty(queries, path, "queries")
    return queries


def read_qrels(path: str | Path) -> dict[str, dict[str, int]]:
    """Read how relevant which documents are to which query, from a file of BEIR or TREC.

    BEIR has three columns and a header, TREC four columns without one. Raises SourceError for a file that cannot be
    read, a relevance that is no whole number, and a document that is judged twice for one query.
    """
    qrels: dict[str, dict[str, int]] = {}
    for number, (place, row) in enumerate(_rows(Path(path), (3, 4), _QRELS)):
        if number == 0 and [column.lower().replace("_", "-") for column in row] == _HEADER:
            continue
        query, document, relevance = row[0], row[-2], row[-1]
        if not re.fullmatch(r"[+-]?[0-9]{1,9}", relevance):
            raise SourceError(
                f"{place}: the relevance {relevance!r} is not a whole number",
                f"the columns are {_QRELS}; a header may only be: {' '.join(_HEADER)}",
            )
        judged = qrels.setdefault(query, {})
        if document in judged:
            raise SourceError(f"{place}: {document!r} is judged a second time for the query {query!r}", "keep one line")
        judged[document] = int(relevance)
    _refuse_empty(qrels, path, "judgements")
    return qrels


def read_run(path: str | Path) -> dict[str, dict[str, float]]:
    """Read what a search found, from a run file of TREC: six columns, query-id, Q0, document-id, rank, score, tag.

    As trec_eval does, the ranking is taken from the scores; equal scores are ordered by rank. Raises SourceError for a
    file that cannot be read, a score that is no finite number, and a document that is there twice for one query.
    """
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for place, (query, _, document, rank, score, _) in _rows(Path(path), (6,), _RUN):
        hits = found.setdefault(query, {})
        if document in hits:
            raise SourceError(f"{place}: {document!r} is found a second time for the query {query!r}", "keep one line")
        hits[document] = (-_number(score, "score", place), _number(rank, "rank", place))
    run = {
        query: {document: -hits[document][0] for document in sorted(hits, key=hits.__getitem__)}
        for query, hits in found.items()
    }
    _refuse_empty(run, path, "hits")
    return run


def write_run(path: str | Path, run: Run, *, tag: str = "esvector") -> None:
    """Write ``run`` as a run file of TREC, gzipped where ``path`` ends in ``.gz``.

    Raises ConfigError, before anything is written, for an id or tag that a file of columns cannot hold.
    """
    ids = {tag, *run, *(document for hits in run.values() for document in hits)}
    if unfit := next((name for name in ids if len(name.split()) != 1), None):
        raise ConfigError(
            f"{unfit!r} cannot stand in a run file, which separates its columns by white space",
            "index the documents under ids without white space to write a run file",
        )
    lines = "".join(
        f"{query} Q0 {document} {rank} {float(score)!r} {tag}\n"
        for query, hits in run.items()
        for rank, (document, score) in enumerate(hits.items(), 1)
    )
    data = lines.encode()
    try:
        Path(path).write_bytes(gzip.compress(data, mtime=0) if Path(path).suffix == ".gz" else data)
    except OSError as error:
        raise ConfigError(f"the run cannot be written to {path}: {error.strerror}") from error


def find_beir(folder: str | Path) -> tuple[Path, Path]:
    """Return the files of queries and judgements of a BEIR folder: queries.jsonl, and qrels.tsv or qrels/test.tsv.

    Each may be gzipped. Raises SourceError where one of them is missing.
    """
    found = []
    for names in (("queries.jsonl",), ("qrels.tsv", "qrels/test.tsv")):
        paths = [Path(folder) / (name + end) for name in names for end in ("", ".gz")]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            raise SourceError(f"{folder} has no {' or '.join(names)}", "name the files: --queries FILE --qrels FILE")
        found.append(path)
    return found[0], found[1]


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Lines that are not blank, each with its place, such as ``qrels.tsv:17``."""
    number = 0
    try:
        with path.open("rb") as plain:
            gzipped = plain.peek(2).startswith(_GZIP)
            with gzip.open(plain) if gzipped else plain as stream:
                for number, line in enumerate(stream, 1):
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                    if text.strip():
                        yield f"{path}:{number}", text
    except FileNotFoundError as error:
        raise SourceError(f"no such file: {path}", "check the path") from error
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}:{number} is not UTF-8", "convert the file with iconv") from error
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise SourceError(f"{path} cannot be read after line {number}: {reason}", "fetch the file again") from error


def _rows(path: Path, widths: tuple[int, ...], columns: str) -> Iterator[tuple[str, list[str]]]:
    """Rows of one width for the whole file; columns are separated by tabs where there are as many, else by spaces."""
    first: int | None = None
    for place, line in _lines(path):
        tabs = line.count("\t") + 1 in widths
        row = [cell.strip() for cell in line.split("\t")] if tabs else line.split()
        if len(row) not in widths or len(row) != (first or len(row)) or not all(row):
            lines = "" if first is None else f", the lines before have {first}"
            raise SourceError(f"{place}: {len(row)} columns in {line[:80]!r}{lines}", f"the columns are {columns}")
        first = len(row)
        yield place, row


def _json_query(line: str, place: str) -> tuple[str, str]:
    try:
        record = orjson.loads(line)
    except ValueError as error:
        raise SourceError(f"{place}: not JSON ({error}): {line[:80]!r}", "every line is one JSON object") from error
    if isinstance(record, dict):
        name, text = record.get("_id", record.get("id")), record.get("text")
        if isinstance(name, str | int) and isinstance(text, str):
            return str(name), text
    raise SourceError(f"{place}: no _id and text in {line[:80]!r}", 'every line is like {"_id": "q1", "text": "..."}')


def _tab_query(line: str, place: str) -> tuple[str, str]:
    name, tab, text = line.partition("\t")
    if not tab or not name.strip():
        raise SourceError(
            f"{place}: no tab in {line[:80]!r}",
            'queries are JSON lines such as {"_id": "q1", "text": "..."}, or lines of id<TAB>text',
        )
    return name.strip(), text


def _number(value: str, what: str, place: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise SourceError(f"{place}: the {what} {value!r} is not a finite number", f"the columns are {_RUN}")
    return number


def _refuse_empty(found: Sized, path: str | Path, what: str) -> None:
    if not found:
        raise SourceError(f"{path} has no {what}", "name another file")
