"""What has to be true of an index after any fault: J1 to J7, each a function that returns what it finds wrong.

``judge`` reads the index once, asks them all, and raises when any of them finds something:

    judge(es, alias, records, HashEncoder(), report=job.report, acked=job.acked, encoded=job.encoded, most_again=1024)

Records are numbered from 1, and of those with the same id the last good one counts. It shares no code with what it
judges: an index is right when it is what the input says, however it came to be so.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import orjson
from elasticsearch import Elasticsearch, helpers
from numpy.typing import NDArray

from esvector.types import IndexReport

__all__ = ["Expected", "Held", "judge", "read_index"]

LEAST_COSINE = 1 - 1e-4  # the batch that a text is encoded in changes the last digits
_SHOWN = 5
_OWN_FIELDS = "esvector_"

Found = list[str]


class Encodes(Protocol):
    """What makes the vectors, for texts as they are stored."""

    def encode_query(self, texts: Sequence[str], /) -> NDArray[np.float32]:
        """Embeddings (n, dims)."""


@dataclass(frozen=True, slots=True)
class Held:
    """What readers of an alias see: ``ids`` of all hits, as often as they come, fields and vector of each by id."""

    ids: tuple[str, ...]
    count: int
    fields: Mapping[str, Mapping[str, Any]]
    vectors: Mapping[str, NDArray[np.float32]]

    @property
    def digest(self) -> str:
        """Of all ids and fields, esvector's own among them, in an order of its own; not of the vectors."""
        whole = hashlib.sha256()
        for id_ in sorted(self.fields):
            whole.update(orjson.dumps([id_, self.fields[id_]], option=orjson.OPT_SORT_KEYS))
        return whole.hexdigest()


@dataclass(frozen=True, slots=True)
class Expected:
    """What an index should hold.

    Attributes:
        records: the input.
        dead: numbers of the records that have to be refused.
        filtered: numbers of the records that a rule of the run leaves out.
    """

    records: Sequence[Mapping[str, Any]]
    dead: Collection[int] = ()
    filtered: Collection[int] = ()

    @property
    def good(self) -> list[Mapping[str, Any]]:
        """The records that end in the index, or are superseded by one that does."""
        out = {*self.dead, *self.filtered}
        return [record for number, record in enumerate(self.records, 1) if number not in out]

    @property
    def documents(self) -> dict[str, Mapping[str, Any]]:
        """The record that counts, by id."""
        return {str(record["id"]): record for record in self.good}


def read_index(client: Elasticsearch, alias: str, vector_field: str = "vector") -> Held:
    """Read everything behind ``alias``, vectors included."""
    client.indices.refresh(index=alias)
    query = {"_source": {"exclude_vectors": False}}
    hits = list(helpers.scan(client, index=alias, query=query, size=1000, raise_on_error=True))
    fields, vectors = {}, {}
    for hit in hits:
        vector = hit["_source"].pop(vector_field, None)
        fields[hit["_id"]] = hit["_source"]
        vectors[hit["_id"]] = np.asarray([] if vector is None else vector, np.float32)
    return Held(tuple(hit["_id"] for hit in hits), client.count(index=alias)["count"], fields, vectors)


def judge(
    client: Elasticsearch,
    alias: str,
    records: Sequence[Mapping[str, Any]],
    encoder: Encodes,
    *,
    dead: Collection[int] = (),
    filtered: Collection[int] = (),
    report: IndexReport | Mapping[str, Any] | None = None,
    letters: Path | None = None,
    acked: Iterable[str] = (),
    encoded: Mapping[str, int] | None = None,
    most_again: int = 0,
    undisturbed: str | None = None,
) -> Held:
    """Raise AssertionError unless ``alias`` holds what ``records`` say; return what it holds.

    Args:
        client: of the server, past any proxy.
        alias: what readers use.
        records: the input; an object with ``id``, ``text`` and perhaps ``title`` each.
        encoder: a fresh one of the kind that made the index.
        dead: numbers of the records that have to be refused.
        filtered: numbers of the records that a rule leaves out.
        report: of the attempt that got to the end; as it is, or as JSON.
        letters: the file of dead letters; None when there should be none.
        acked: ids that the server has acknowledged.
        encoded: how often each text was encoded, over all attempts; None when that is not judged.
        most_again: documents that may have been encoded again: kills times what is in flight.
        undisturbed: digest of the index that a run without faults made; None when that is not judged.
    """
    expected, held = Expected(records, dead, filtered), read_index(client, alias)
    found = [
        *j1_nothing_acknowledged_is_lost(held, expected, acked),
        *j2_every_id_once(held, expected),
        *j3_counts_agree(held),
        *j4_right_vectors(held, expected, encoder),
        *j5_report_adds_up(report, expected, letters),
        *j6_little_is_encoded_again(encoded, expected, most_again),
        *j7_as_without_faults(held, undisturbed),
    ]
    assert not found, "\n".join([f"{alias} is wrong:", *found])
    return held


def j1_nothing_acknowledged_is_lost(held: Held, expected: Expected, acked: Iterable[str]) -> Found:
    """Every document that the server has acknowledged is there, and every document has the newest content."""
    documents = expected.documents
    lost = [id_ for id_ in dict.fromkeys(acked) if id_ in documents and id_ not in held.fields]
    wrong = [
        f"{id_}: {_user_fields(held.fields[id_])} instead of {_user_fields(record)}"
        for id_, record in documents.items()
        if id_ in held.fields and _user_fields(held.fields[id_]) != _user_fields(record)
    ]
    return [*_some("J1 acknowledged, and lost", lost), *_some("J1 other content than the input", wrong)]


def j2_every_id_once(held: Held, expected: Expected) -> Found:
    """The ids are those of the input without what was refused or filtered: no other, each once."""
    documents = expected.documents
    return [
        *_some("J2 missing", [id_ for id_ in documents if id_ not in held.fields]),
        *_some("J2 not in the input", [id_ for id_ in held.fields if id_ not in documents]),
        *_some("J2 more than once", [id_ for id_, times in Counter(held.ids).items() if times > 1]),
    ]


def j3_counts_agree(held: Held) -> Found:
    """The server counts as many documents as there are ids."""
    uniques = len(held.fields)
    return [] if held.count == uniques else [f"J3 a count of {held.count}, and {uniques} ids"]


def j4_right_vectors(held: Held, expected: Expected, encoder: Encodes) -> Found:
    """Every vector is the one that its text has."""
    documents = {id_: record for id_, record in expected.documents.items() if id_ in held.vectors}
    if not documents:
        return []
    fresh = encoder.encode_query([encoded_text(record) for record in documents.values()])
    wrong = []
    for id_, vector in zip(documents, fresh, strict=True):
        stored = held.vectors[id_]
        if stored.shape != vector.shape:
            wrong.append(f"{id_}: {stored.size} dims instead of {vector.size}")
        elif not (cosine := _cosine(stored, vector)) >= LEAST_COSINE:  # NaN is no agreement either
            wrong.append(f"{id_}: cosine {cosine:.5f}")
    return _some("J4 another vector than its text has", wrong)


def j5_report_adds_up(
    report: IndexReport | Mapping[str, Any] | None, expected: Expected, letters: Path | None = None
) -> Found:
    """Every record is in one state of the report, in the right one, and the refused ones are in the dead letters."""
    places = [json.loads(line)["place"] for line in letters.read_bytes().splitlines()] if letters else []
    numbers = Counter(int(place.rpartition(":")[2].rpartition(" ")[2]) for place in places)
    found = []
    if numbers != Counter(expected.dead):
        found.append(f"J5 dead letters of the records {sorted(numbers.elements())}, not {sorted(expected.dead)}")
    if report is None:
        return found
    facts = dataclasses.asdict(report) if isinstance(report, IndexReport) else report
    states = {name: facts.get(name, 0) for name in ("indexed", "unchanged", "superseded", "dead", "filtered")}
    if facts["read"] != sum(states.values()):
        found.append(f"J5 {facts['read']} records read, and {states}")
    right = {
        "read": len(expected.records),
        "dead": len(expected.dead),
        "filtered": len(expected.filtered),
        "superseded": len(expected.good) - len(expected.documents),
    }
    return [
        *found,
        *(f"J5 {n} {name} instead of {right[name]}" for name in right if (n := facts.get(name, 0)) != right[name]),
    ]


def j6_little_is_encoded_again(encoded: Mapping[str, int] | None, expected: Expected, most: int) -> Found:
    """Of the texts of the input, no more than ``most`` were encoded oftener than they stand in it."""
    if encoded is None:
        return []
    once = Counter(encoded_text(record) for record in expected.records)
    again = sum(max(0, times - once[text]) for text, times in encoded.items())
    return [] if again <= most else [f"J6 {again} documents were encoded again, {most} may be"]


def j7_as_without_faults(held: Held, undisturbed: str | None) -> Found:
    """The index is the one that a run without faults makes."""
    if undisturbed in (None, held.digest):
        return []
    return ["J7 another content than that of a run without faults"]


def encoded_text(record: Mapping[str, Any]) -> str:
    """What is encoded of a record, when nothing else is said."""
    return " ".join(filter(None, (record.get("title"), record.get("text"))))


def _user_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in fields.items()
        if value is not None and name != "_id" and not name.startswith(_OWN_FIELDS)
    }


def _cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    wide = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):  # a vector of zeros has no direction: NaN
        return float(wide[0] @ wide[1] / (np.linalg.norm(wide[0]) * np.linalg.norm(wide[1])))


def _some(what: str, wrong: Sequence[str]) -> Found:
    if not wrong:
        return []
    more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
    return [f"{what}: {', '.join(wrong[:_SHOWN])}{more}"]
