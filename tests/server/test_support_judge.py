"""The judge of the fault tests finds a defect of each kind, and nothing where there is none."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from elasticsearch import Elasticsearch, helpers

from tests.support.encoders import HashEncoder
from tests.support.judge import encoded_text, judge, read_index

GOOD: list[dict[str, Any]] = [
    {"id": n, "title": f"title {n}", "text": f"text {n}", "tags": ["a", n], "none": None} for n in range(20)
]
NEWER: dict[str, Any] = {"id": 3, "text": "newer", "tags": [], "none": None}
RECORDS: list[dict[str, Any]] = [*GOOD, {"id": "bad"}, NEWER, {"id": 98, "text": "left out"}]
DEAD, FILTERED = {21}, {23}
REPORT = {"read": 23, "indexed": 20, "superseded": 1, "dead": 1, "filtered": 1}


@dataclass
class Case:
    """A right index and right accounts of how it came to be, to be spoiled by a test."""

    es: Elasticsearch
    alias: str
    letters: Path
    report: dict[str, Any] = field(default_factory=lambda: dict(REPORT))
    acked: list[str] = field(default_factory=lambda: [str(n) for n in range(20)])
    encoded: Counter[str] = field(default_factory=lambda: Counter(map(encoded_text, [*GOOD, NEWER])))
    undisturbed: str | None = None

    @property
    def index(self) -> str:
        return f"{self.alias}-1"

    def change(self, id_: str, **fields: Any) -> None:
        self.es.update(index=self.index, id=id_, doc=fields)

    def __call__(self) -> None:
        self.undisturbed = judge(
            self.es,
            self.alias,
            RECORDS,
            HashEncoder(8),
            dead=DEAD,
            filtered=FILTERED,
            report=self.report,
            letters=self.letters,
            acked=self.acked,
            encoded=self.encoded,
            most_again=2,
            undisturbed=self.undisturbed,
        ).digest


@pytest.fixture
def case(es: Elasticsearch, alias: str, tmp_path: Path) -> Case:
    case = Case(es, alias, tmp_path / "dead.jsonl")
    case.letters.write_text(json.dumps({"id": "bad", "place": "papers.jsonl:21", "reason": "no text"}) + "\n")
    vector = {"type": "dense_vector", "dims": 8, "similarity": "l2_norm", "index_options": {"type": "flat"}}
    es.indices.create(index=case.index, aliases={alias: {}}, mappings={"properties": {"vector": vector}})
    documents = {str(record["id"]): record for record in [*GOOD, NEWER]}
    vectors = HashEncoder(8).encode_query([encoded_text(record) for record in documents.values()])
    actions = [
        {"_index": case.index, "_id": id_, **record, "vector": vector.tolist(), "esvector_hash": id_}
        for (id_, record), vector in zip(documents.items(), vectors, strict=True)
    ]
    helpers.bulk(es, actions, refresh=True)
    return case


def lose(case: Case) -> None:
    case.es.delete(index=case.index, id="7")


def keep_older(case: Case) -> None:
    vector = HashEncoder(8).encode_query([encoded_text(GOOD[3])])[0].tolist()
    case.es.index(index=case.index, id="3", document={**GOOD[3], "vector": vector, "esvector_hash": "3"})


def add(case: Case) -> None:
    case.es.index(index=case.index, id="98", document=RECORDS[-1])


def double(case: Case) -> None:
    case.es.indices.create(index=f"{case.alias}-2", aliases={case.alias: {}})
    case.es.index(index=f"{case.alias}-2", id="5", document=read_index(case.es, case.alias).fields["5"])


def another_vector(case: Case) -> None:
    case.change("4", vector=HashEncoder(8).encode_query(["another text"])[0].tolist())


def rough_vector(case: Case) -> None:
    vector = HashEncoder(8).encode_query([encoded_text(GOOD[4])])[0]
    vector[0] += 0.03
    case.change("4", vector=vector.tolist())


def zero_vector(case: Case) -> None:
    case.change("4", vector=[0.0] * 8)


def no_vector(case: Case) -> None:
    case.es.index(index=case.index, id="4", document={**GOOD[4], "esvector_hash": "4"})


def miscount(case: Case) -> None:
    case.report["indexed"] -= 1


def miss_a_record(case: Case) -> None:
    case.report["read"] -= 1
    case.report["indexed"] -= 1


def forget_a_state(case: Case) -> None:
    case.report |= {"superseded": 0, "indexed": 21}


def refuse_silently(case: Case) -> None:
    case.letters.write_text("")


def refuse_another(case: Case) -> None:
    case.letters.write_text(json.dumps({"id": "1", "place": "papers.jsonl:2", "reason": "?"}) + "\n")


def encode_again(case: Case) -> None:
    case.encoded.update(map(encoded_text, GOOD[:3]))


def another_hash(case: Case) -> None:
    case()
    case.change("4", esvector_hash="5")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lose, r"J1 acknowledged, and lost: 7\nJ2 missing: 7$"),
        (keep_older, r"J1 other content than the input: 3: .*\nJ4 another vector than its text has: 3: cosine"),
        (add, r"J2 not in the input: 98$"),
        (double, r"wrong:\nJ2 more than once: 5\nJ3 a count of 21, and 20 ids"),
        (another_vector, r"wrong:\nJ4 another vector than its text has: 4: cosine"),
        (rough_vector, r"wrong:\nJ4 another vector than its text has: 4: cosine 0.999"),
        (zero_vector, r"wrong:\nJ4 another vector than its text has: 4: cosine nan"),
        (no_vector, r"wrong:\nJ4 another vector than its text has: 4: 0 dims instead of 8"),
        (miscount, r"wrong:\nJ5 23 records read, and \{'indexed': 19, .*\}$"),
        (miss_a_record, r"wrong:\nJ5 22 read instead of 23$"),
        (forget_a_state, r"wrong:\nJ5 0 superseded instead of 1$"),
        (refuse_silently, r"wrong:\nJ5 dead letters of the records \[\], not \[21\]$"),
        (refuse_another, r"wrong:\nJ5 dead letters of the records \[2\], not \[21\]$"),
        (encode_again, r"wrong:\nJ6 3 documents were encoded again, 2 may be$"),
        (another_hash, r"wrong:\nJ7 another content than that of a run without faults$"),
    ],
)
def test_every_kind_of_defect_is_found(spoil: Callable[[Case], None], said: str, case: Case) -> None:
    spoil(case)
    with pytest.raises(AssertionError, match=said):
        case()


def test_a_right_index_passes(case: Case) -> None:
    case.encoded.update(map(encoded_text, GOOD[:2]))
    case()
    case()
    assert case.undisturbed is not None
