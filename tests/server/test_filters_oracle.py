"""Filters on a real node against brute force in Python, over generated documents and expressions."""

from __future__ import annotations

import random
import re
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from elasticsearch import Elasticsearch

from esvector.fields import FieldType, field_types
from esvector.search.filters import (
    And,
    Comparison,
    Exists,
    Filter,
    Literal,
    Membership,
    Nested,
    Not,
    Or,
    Prefix,
    parse,
    to_query,
)
from tests.server.filter_oracle import KINDS, NESTED, Raw, holds, indexed

SEED = 20261
DOCUMENTS = 200
COMBINATIONS = 800

MAPPINGS: dict[str, Any] = {
    "properties": {
        "venue": {"type": "keyword"},
        "short note": {"type": "keyword", "ignore_above": 8},
        "title": {"type": "text", "fields": {"keyword": {"type": "keyword", "ignore_above": 12}}},
        "meta": {"properties": {"kind": {"type": "keyword"}, "n": {"type": "short"}}},
        "kind": {"type": "alias", "path": "meta.kind"},
        "year": {"type": "integer"},
        "size": {"type": "long"},
        "tiny": {"type": "byte"},
        "ratio": {"type": "float"},
        "weight": {"type": "double"},
        "half": {"type": "half_float"},
        "published": {"type": "date"},
        "seen": {"type": "date_nanos"},
        "born": {"type": "date", "format": "dd/MM/yyyy"},
        "open": {"type": "boolean"},
        "host": {"type": "ip"},
        "authors": {
            "type": "nested",
            "properties": {
                "name": {"type": "keyword"},
                "at": {"type": "keyword"},
                "year": {"type": "integer"},
                "born": {"type": "date"},
                "papers": {"type": "nested", "properties": {"title": {"type": "keyword"}, "n": {"type": "short"}}},
            },
        },
        "vector": {"type": "dense_vector", "dims": 2, "similarity": "l2_norm", "index_options": {"type": "flat"}},
    }
}

TEXTS = ["", "ACL", "acl", "EMNLP", "a", "zz", "é", "é", "日本", "￮", "😀", "😀b", "🂡", "02139", "1e3", "true", "it's",
         'say "hi"', "New York", "a\\b", "line\nbreak", "(x)", "2020-01-01", "*", "not", "ÿ", "or"]  # fmt: skip
LONG = ["exactly8", "nine char", "😀😀😀😀", "😀😀😀😀😀", "twelve chars", "thirteen char"]
INTEGERS = [-(2**31), -129, -128, -1, 0, 1, 5, 127, 128, 1999, 2019, 2020, 2021, 2**31 - 1]
LONGS = [-(2**63), -(2**53) - 1, -1, 0, 2**53, 2**53 + 1, 2**63 - 2, 2**63 - 1, 2020]
HALVES = [-0.0, 0.0, 0.1, -0.1, 1 / 3, 0.5, 1.0, 1e-7, 65504.0, 65519.0, -65504.0, 2020.0]
FLOATS = [*HALVES, 16777217.0, 3.4028234663852886e38]
DOUBLES = [*FLOATS, 0.10000000149011612, 1e300, -1e300, 5e-324]
DATES = ["2020-01-01", "2019-12-31T23:59:59.999Z", "2020-01-01T00:00:00Z", "2020-01-01T23:59:59.999Z",
         "2020-01-02T00:00:00.000Z", "2020-02-29T12:00:00+02:00", "2020-12-31T23:59:59.9999Z", "2021-01-01",
         "2020-03-01T10:20:30.1239Z", "2000-06-15T08:00:00-05:30", "1970-01-01", "2024-02-29"]  # fmt: skip
OLD = ["0001-01-01", "1969-12-31T23:59:59.9999Z", "1950-05-05", "9998-12-31T23:59:59.999Z"]
NANOS = ["2020-01-01T00:00:00.000000001Z", "2020-01-01T23:59:59.999999999Z", "2262-04-11T23:47:16.854775807Z"]
ADDRESSES = [
    "10.0.0.1",
    "10.0.0.255",
    "10.1.0.0",
    "192.168.0.1",
    "::1",
    "2001:db8::1",
    "::ffff:10.0.0.1",
    "255.255.255.255",
]

STORED: dict[str, Sequence[Any]] = {
    "venue": TEXTS,
    "short note": TEXTS + LONG,
    "title": TEXTS + LONG,
    "meta.kind": TEXTS,
    "meta.n": [-(2**15), -1, 0, 7, 2**15 - 1],
    "year": INTEGERS,
    "size": LONGS,
    "tiny": [-128, -1, 0, 5, 127],
    "ratio": FLOATS,
    "weight": DOUBLES,
    "half": HALVES,
    "published": DATES + OLD,
    "seen": DATES + NANOS,
    "born": ["01/01/2020", "31/12/2019", "29/02/2020", "01/06/1950"],
    "open": [True, False],
    "host": ADDRESSES,
}

FEW = ["a", "ACL", "acl", "A*", "é", "it's"]
INSIDE: dict[str, Sequence[Any]] = {
    "authors.name": FEW,
    "authors.at": FEW[:3],
    "authors.year": [-1, 0, 1999, 2020],
    "authors.born": DATES[:6],
    "authors.papers.title": FEW,
    "authors.papers.n": [0, 1, 5],
}

NUMBER_EDGES = [
    *["2019.5", "-0.5", "+5", "1e3", "2.02e3", "-0", "0.0", ".5", "5.", "300", "-129", "32768", "-32769", "2147483648"],
    *[
        "9223372036854775807.5",
        "9223372036854775808",
        "-9223372036854775809",
        "1e30",
        "-1e30",
        "1e39",
        "-1e400",
        "1e400",
    ],
    *["0.1", "0.10000000149011612", "0.09998", "65520", "70000", "1e-400", "1e-999999"],
]
DATE_EDGES = [
    *["2020", "2019", "1969", "1970", "2262", "0001", "2020-01", "2020-02", "2020-12", "1960-01", "9998-12"],
    *["2020-02-29", "1969-12-31", "2262-04-11", "2300-01-01", "2020-01-01T00:00", "2020-01-01T00:00:00.0000001Z"],
    *["2020-03-01T10:20:30.123", "2020-03-01T10:20:30.1239", "2020-02-29T10:00:00Z", "2020-01-01 23:59:59.999"],
    *["2020-01-01T00:00:00+0000", "2020-01-01T00:00:00,5-01:00"],
]
NETWORKS = ["10.0.0.0/8", "10.0.0.7/24", "0.0.0.0/0", "::/0", "2001:db8::/32", "::ffff:10.0.0.0/104", "192.168.0.1/32"]


def documents(rng: random.Random) -> list[Raw]:
    made: list[Raw] = []
    for number in range(DOCUMENTS):
        document: Raw = {}
        for name, pool in STORED.items():
            count = rng.choice([0, 1, 1, 1, 1, 2, 3])
            # The first documents go through every value once, so that no edge is left to chance.
            document[name] = [pool[number % len(pool)]] if number < 40 else rng.sample(pool, min(count, len(pool)))
        document["authors"] = nested_objects(rng, "authors")
        made.append({name: found for name, found in document.items() if found})
    return made


def nested_objects(rng: random.Random, path: str) -> list[Raw]:
    made: list[Raw] = []
    for _ in range(rng.choice([0, 1, 1, 2, 3])):
        each = {
            name.rpartition(".")[2]: rng.sample(pool, rng.choice([0, 1, 1, 1, 2]))
            for name, pool in INSIDE.items()
            if name.rpartition(".")[0] == path
        }
        if path == "authors":
            each["papers"] = nested_objects(rng, "authors.papers")
        made.append({name: found for name, found in each.items() if found})
    return made


def source(document: Raw, rng: random.Random) -> dict[str, Any]:
    """The document as JSON: lists of one and bare values mixed, dotted names and objects mixed, some nulls."""
    made: dict[str, Any] = {name: None for name in STORED if name not in document and rng.random() < 0.2}
    for name, found in document.items():
        made[name] = (
            found[0] if len(found) == 1 and rng.random() < 0.7 else [*found, *([None] if rng.random() < 0.1 else [])]
        )
    if "meta.kind" in made and rng.random() < 0.5:
        made["meta"] = {"kind": made.pop("meta.kind")}
    return made | {"vector": [rng.random(), rng.random()]}


def candidates(name: str) -> list[str]:
    """Texts to compare ``name`` with."""
    pool = (STORED | INSIDE)["meta.kind" if name == "kind" else name]
    match KINDS[name]:
        case "text":
            return [text for text in pool if indexed(name, text)]
        case "integer":
            return [str(value) for value in pool] + NUMBER_EDGES
        case "float" | "double" | "half":
            return [repr(value) for value in pool] + NUMBER_EDGES
        case "boolean":
            return ["true", "false", "True"]
        case "ip":
            return [*pool, *NETWORKS]
        case _:
            return [text for text in DATES + OLD + NANOS if "/" not in text] + DATE_EDGES


def operators(name: str, text: str) -> list[str]:
    if name == "title" or KINDS[name] == "boolean" or (KINDS[name] == "ip" and "/" in text):
        return ["=", "!="]
    return ["=", "!=", "<", "<=", ">", ">="]


def prefixes(name: str) -> list[str]:
    return sorted({text[:size] for text in candidates(name) for size in (0, 1, 2, 3, 99)})


def every_comparison() -> Iterator[Filter]:
    yield from (Exists(name) for name in NESTED)
    for name, kind in KINDS.items():
        yield Exists(name)
        for text in candidates(name):
            yield from (Comparison(name, op, Literal(text)) for op in operators(name, text))
        if kind == "text":
            yield from (Prefix(name, Literal(text)) for text in prefixes(name))


def condition(rng: random.Random, path: str = "") -> Filter:
    """A condition on a field, named as it is inside the nested field ``path`` ("authors.", say)."""
    name = rng.choice([name for name in KINDS if name.startswith(path)])
    texts, short = candidates(name), name.removeprefix(path)
    match rng.random():
        case chance if chance < 0.15:
            return Exists(short)
        case chance if chance < 0.35:
            return Membership(short, tuple(Literal(text) for text in rng.choices(texts, k=rng.randint(1, 6))))
        case chance if chance < 0.45:
            return And(tuple(Comparison(short, "=", Literal(text)) for text in rng.choices(texts, k=2)))
        case chance if chance < 0.55 and KINDS[name] == "text":
            return Prefix(short, Literal(rng.choice(prefixes(name))))
        case _:
            text = rng.choice(texts)
            return Comparison(short, rng.choice(operators(name, text)), Literal(text))


def combination(rng: random.Random, depth: int, path: str = "") -> Filter:
    if depth == 0 or rng.random() < 0.2:
        return condition(rng, path)
    nested = [name for name in NESTED if name.startswith(path) and name != path[:-1]]
    if nested and rng.random() < 0.25:
        name = rng.choice(nested)
        return Nested(name.removeprefix(path), combination(rng, depth - 1, f"{name}."))
    parts = [combination(rng, depth - 1, path) for _ in range(rng.randint(2, 4))]
    kind = rng.choice(["and", "or", "not"])
    if kind == "not":
        return Not(parts[0])
    made = And if kind == "and" else Or
    # What the parser gives has no And right inside an And.
    flat = [piece for part in parts for piece in (part.parts if isinstance(part, made) else (part,))]
    return made(tuple(flat))


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes a tree as one of the many texts that mean it."""

    rng: random.Random

    def text(self, tree: Filter, level: int = 0) -> str:
        made, own = self._node(tree)
        return f"({made})" if own < level or self.rng.random() < 0.1 else made

    def _node(self, tree: Filter) -> tuple[str, int]:  # noqa: C901  # one case a construct
        match tree:
            case Or(parts):
                return self._word(" or ").join(self.text(part, 1) for part in parts), 0
            case And((Comparison(name, "=", first), Comparison(same, "=", second))) if name == same:
                return f"{self._name(name)} {self._word('has all')} {self._list([first, second])}", 3
            case And(parts):
                return self._word(" and ").join(self.text(part, 2) for part in parts), 1
            case Not(Exists(name)) if self.rng.random() < 0.5:
                return f"{self._word('missing')} {self._name(name)}", 3
            case Not(Membership(name, texts)) if self.rng.random() < 0.7:
                return f"{self._name(name)} {self._word('not in')} {self._list(texts)}", 3
            case Not(Prefix(name, text)) if self.rng.random() < 0.5:
                return f"{self._name(name)} {self._word('not startswith')} {self._value(text)}", 3
            case Not(part):
                return f"{self._word('not')} {self.text(part, 2)}", 2
            case Nested(name, part):
                return f"{self._word('any')} {self._name(name)} ({self.text(part)})", 3
            case Prefix(name, text):
                return f"{self._name(name)} {self._word('startswith')} {self._value(text)}", 3
            case Exists(name):
                return f"{self._word('exists')} {self._name(name)}", 3
            case Membership(name, texts):
                return f"{self._name(name)} {self._word('in')} {self._list(texts)}", 3
            case Comparison(name, op, text):
                space = self.rng.choice(["", " ", "  "])
                sign = "==" if op == "=" and self.rng.random() < 0.3 else op
                return f"{self._name(name)}{space}{sign}{space}{self._value(text)}", 3

    def _word(self, word: str) -> str:
        return self.rng.choice([word, word, word.upper(), word.title()])

    def _name(self, name: str) -> str:
        return f"`{name}`" if " " in name or self.rng.random() < 0.1 else name

    def _list(self, texts: Sequence[Any]) -> str:
        return "(" + self.rng.choice([",", ", "]).join(self._value(text) for text in texts) + ")"

    def _value(self, value: Any) -> str:
        text: str = value.text
        if text and not re.search(r"[\s()'\"`,=!<>*&|;\[\]{}\\]", text) and self.rng.random() < 0.6:
            return text
        quote = self.rng.choice("'\"")
        escaped = text.replace("\\", "\\\\").replace(quote, "\\" + quote)
        return quote + (escaped.replace("\n", "\\n") if self.rng.random() < 0.5 else escaped) + quote


@dataclass(frozen=True, slots=True)
class Corpus:
    """An index, what is in it, and how its fields compare."""

    index: str
    documents: list[Raw]
    fields: dict[str, FieldType]

    def expected(self, tree: Filter) -> set[str]:
        return {str(number) for number, document in enumerate(self.documents) if holds(tree, document)}


@pytest.fixture(scope="module")
def corpus(es: Elasticsearch) -> Iterator[Corpus]:
    index = f"filt-{uuid.uuid4().hex[:12]}"
    rng = random.Random(SEED)
    made = documents(rng)
    es.indices.create(index=index, mappings=MAPPINGS, settings={"number_of_replicas": 0, "number_of_shards": 1})
    try:
        lines = [line for n, d in enumerate(made) for line in ({"index": {"_id": str(n)}}, source(d, rng))]
        answer = es.bulk(index=index, operations=lines, refresh=True)
        assert not answer["errors"], [item for item in answer["items"] if "error" in item["index"]][:3]
        fields = field_types(es.indices.get_mapping(index=index)[index]["mappings"])
        yield Corpus(index, made, fields)
    finally:
        es.indices.delete(index=index)


def search_all(es: Elasticsearch, corpus: Corpus, queries: Sequence[dict[str, Any]]) -> Iterator[set[str] | str]:
    """The ids that each query finds, or the error that it met."""
    for start in range(0, len(queries), 200):
        lines: list[dict[str, Any]] = []
        for query in queries[start : start + 200]:
            lines += [{}, {"query": {"bool": {"filter": [query]}}, "size": DOCUMENTS, "_source": False}]
        # The status keeps a place in the list for searches without hits, which filter_path would leave out.
        wanted = "responses.status,responses.error,responses.hits.hits._id"
        for answer in es.msearch(index=corpus.index, searches=lines, filter_path=wanted)["responses"]:
            hits = answer.get("hits", {}).get("hits", [])
            yield str(answer["error"]) if "error" in answer else {hit["_id"] for hit in hits}


def assert_same(es: Elasticsearch, corpus: Corpus, pairs: Sequence[tuple[str, Filter]]) -> None:
    queries = {}
    for text, tree in pairs:
        parsed = parse(text)
        assert parsed == tree, f"seed {SEED}: {text!r}"
        queries[text] = to_query(parsed, corpus.fields)
    distinct = {str(query): query for query in queries.values()}
    found = dict(zip(distinct, search_all(es, corpus, list(distinct.values())), strict=True))
    for text, tree in pairs:
        ids, expected = found[str(queries[text])], corpus.expected(tree)
        assert ids == expected, (
            f"seed {SEED}: {text!r} -> {queries[text]}: {ids if isinstance(ids, str) else sorted(ids ^ expected)[:9]}"
        )


def test_every_operator_with_every_value_finds_what_the_oracle_finds(es: Elasticsearch, corpus: Corpus) -> None:
    writer = Writer(random.Random(SEED + 1))
    pairs = [(writer.text(tree), tree) for tree in every_comparison()]
    assert len(pairs) >= 2000
    assert_same(es, corpus, pairs)


def test_combinations_and_lists_find_what_the_oracle_finds(es: Elasticsearch, corpus: Corpus) -> None:
    rng = random.Random(SEED + 2)
    writer = Writer(rng)
    trees = [combination(rng, rng.choice([0, 1, 2, 3])) for _ in range(COMBINATIONS)]
    assert_same(es, corpus, [(writer.text(tree), tree) for tree in trees])


def test_the_oracle_is_not_trivial(corpus: Corpus) -> None:
    rng = random.Random(SEED + 2)
    sizes = [len(corpus.expected(combination(rng, 2))) for _ in range(100)]
    assert sum(0 < size < DOCUMENTS for size in sizes) > 60


def test_as_a_knn_filter_the_same_documents_come_back(es: Elasticsearch, corpus: Corpus) -> None:
    rng = random.Random(SEED + 3)
    for tree in [combination(rng, 2) for _ in range(40)]:
        knn = {
            "field": "vector",
            "query_vector": [0.5, 0.5],
            "k": DOCUMENTS,
            "num_candidates": DOCUMENTS,
            "filter": [to_query(tree, corpus.fields)],
        }
        answer = es.search(index=corpus.index, knn=knn, size=DOCUMENTS, source=False)
        assert {hit["_id"] for hit in answer["hits"]["hits"]} == corpus.expected(tree), Writer(rng).text(tree)


def test_the_deepest_and_the_widest_filter_allowed_are_taken_by_the_server(es: Elasticsearch, corpus: Corpus) -> None:
    deep = "year = 2020"
    for level in range(22):
        deep = f"(year = {level} {'or' if level % 2 else 'and'} {deep})"
    nested = "exists papers"
    for level in range(21):
        nested = f"(year = {level} {'or' if level % 2 else 'and'} {nested})"
    nested = f"any authors {nested}"
    wide = " or ".join(f"year = {n}" for n in range(1000))
    listed = f"venue in ({', '.join(f'v{n}' for n in range(9_999))}, ACL)"
    knn = {"field": "vector", "query_vector": [0.5, 0.5], "k": DOCUMENTS, "num_candidates": DOCUMENTS}
    for text, same in [(deep, deep), (nested, nested), (wide, wide), (listed, "venue = ACL")]:
        query = {"bool": {"must_not": [to_query(parse(text), corpus.fields)]}}
        answer = es.search(index=corpus.index, knn=knn | {"filter": [query]}, size=DOCUMENTS, source=False)
        assert {hit["_id"] for hit in answer["hits"]["hits"]} == corpus.expected(Not(parse(same)))
