"""Near-duplicates of a real index, compared with all pairs worked out one by one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from elasticsearch import Elasticsearch
from numpy.typing import NDArray

from esvector import EncoderProfile, Indexer, PassageOptions, Searcher
from esvector.cli import app
from esvector.errors import ConfigError, IndexNotFoundError, PartialResultsError, SearchError
from esvector.search import duplicates
from esvector.search.duplicates import Pair, clusters, find_pairs
from tests.support.encoders import HashEncoder

DIMS = 32
ALIAS = "duplicate-tests"


class NearEncoder(HashEncoder):
    """Texts of the same first word have a cosine of about 0.95, equal texts 1, others about 0."""

    def __init__(self, similarity: str = "cosine") -> None:
        super().__init__(DIMS, f"near-{similarity}")
        dot = similarity == "dot"
        self.profile = replace(self.profile, similarity="dot" if dot else "cosine", normalize=not dot)
        self._stretched = dot

    def _vector(self, text: str) -> NDArray[np.float32]:
        vector = super()._vector(text.split()[0]) + 0.25 * super()._vector(text)
        length = float(np.linalg.norm(vector)) / (1 + ord(text[-1]) % 3 if self._stretched else 1)
        unit: NDArray[np.float32] = (vector / length).astype(np.float32)
        return unit


def records(groups: int = 100) -> list[dict[str, Any]]:
    """Groups of one to four documents on one subject; of some, one text stands there twice, or ten times."""
    made: list[dict[str, Any]] = []
    for group in range(groups):
        texts = [f"subject{group} version {n}" for n in range(1 + group % 4)]
        texts += texts[:1] if group % 7 == 0 else texts[:1] * 39 if group == 50 else []
        made += [{"id": f"d{group * 7919 % 1000:03}-{n}", "text": text, "even": group % 2 == 0, "group": group}
                 for n, text in enumerate(texts)]  # fmt: skip
    return made


def all_pairs(encoder: HashEncoder, docs: Sequence[dict[str, Any]], least: float) -> dict[tuple[str, str], float]:
    docs = sorted(docs, key=lambda doc: doc["id"])
    vectors = encoder.encode_document([doc["text"] for doc in docs]).astype(np.float64)
    scores = vectors @ vectors.T
    rows, columns = np.nonzero(np.triu(scores >= least - 1e-6, 1))
    return {(docs[i]["id"], docs[j]["id"]): float(scores[i, j]) for i, j in zip(rows, columns, strict=True)}


def check(found: Sequence[Pair], expected: dict[tuple[str, str], float]) -> None:
    assert len(found) == len({(pair.first, pair.second) for pair in found}), "a pair came twice"
    assert {(pair.first, pair.second): pair.score for pair in found} == pytest.approx(expected, abs=5e-6)


def index(es: Elasticsearch, alias: str, folder: Path, docs: Sequence[dict[str, Any]], **how: Any) -> Searcher:
    encoder = how.setdefault("encoder", NearEncoder())
    Indexer(es, alias, dead_letters=folder / "dead.jsonl", **how).run(docs)
    return Searcher(es, alias, encoder=encoder)


@pytest.fixture(scope="module")
def searcher(es: Elasticsearch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searcher]:
    yield index(es, ALIAS, tmp_path_factory.mktemp("duplicates"), records())
    for name in es.indices.get(index=f"{ALIAS}*"):
        es.indices.delete(index=name)


def pairs_of(searcher: Searcher, least: float, **how: Any) -> list[Pair]:
    return list(find_pairs(searcher.client, searcher.alias, searcher.target.passport, least, **how))


@pytest.mark.parametrize("least", [1.0, 0.93, 0.3])
def test_all_pairs_are_found_once_with_exact_scores(searcher: Searcher, least: float) -> None:
    expected = all_pairs(NearEncoder(), records(), least)
    assert len(expected) > 700  # 40 copies alone are 780 pairs
    found = pairs_of(searcher, least)
    check(found, expected)
    assert all(pair.first < pair.second for pair in found)


def test_the_clusters_are_the_groups_that_were_planted(searcher: Searcher) -> None:
    groups: dict[int, list[str]] = {}
    for record in records():
        groups.setdefault(record["group"], []).append(record["id"])
    expected = {tuple(sorted(ids)) for ids in groups.values() if len(ids) > 1}
    found = clusters(pairs_of(searcher, 0.85))
    assert set(found) == expected
    assert len(found[0]) == 42


def test_filters_hold_for_both_documents(searcher: Searcher) -> None:
    some = [record for record in records() if record["even"] and record["group"] < 80]
    filters = [{"term": {"even": True}}, {"range": {"group": {"lt": 80}}}]
    check(pairs_of(searcher, 0.9, filters=filters), all_pairs(NearEncoder(), some, 0.9))
    assert pairs_of(searcher, 0.9, filters=[{"term": {"group": 1000}}]) == []


def test_pages_and_batches_are_of_no_matter(searcher: Searcher, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in (("_PAGE", 7), ("_BATCH", 3), ("_FIRST_K", 2), ("_ANSWERED", 50), ("_GROWTH", 2)):
        monkeypatch.setattr(duplicates, name, size)
    told: list[tuple[int, int]] = []
    found = pairs_of(searcher, 0.9, progress=lambda done, total: told.append((done, total)))
    check(found, all_pairs(NearEncoder(), records(), 0.9))
    total = len(records())
    assert told == [(min(7 * n, total), total) for n in range(1, -(-total // 7) + 1)]


def test_an_approximate_search_finds_them_from_either_side(searcher: Searcher) -> None:
    expected = all_pairs(NearEncoder(), records(), 0.9)
    found = pairs_of(searcher, 0.9, num_candidates=20)
    assert len(found) == len({(pair.first, pair.second) for pair in found})
    assert len(found) >= 0.99 * len(expected)
    scores = {(pair.first, pair.second): pair.score for pair in found}
    assert scores == pytest.approx({ids: expected[ids] for ids in scores}, abs=5e-6)


QUANTIZED: list[dict[str, Any]] = [
    {"type": "int8_hnsw", "rescore_vector": {"oversample": 0}},
    {"type": "int4_hnsw"},
    {"type": "int8_flat"},
    {"type": "hnsw"},
    {"type": "flat"},
]


@pytest.mark.parametrize("options", QUANTIZED, ids=lambda options: str(options["type"]))
def test_scores_are_exact_however_vectors_are_kept(
    es: Elasticsearch, alias: str, tmp_path: Path, options: dict[str, Any]
) -> None:
    mapping = {"mappings": {"properties": {"vector": {"type": "dense_vector", "index_options": options}}}}
    searcher = index(es, alias, tmp_path, records(60), mapping=mapping)
    check(pairs_of(searcher, 0.9), all_pairs(NearEncoder(), records(60), 0.9))


@pytest.mark.parametrize("element_type", ["bfloat16", "byte"])
def test_coarser_elements(es: Elasticsearch, alias: str, tmp_path: Path, element_type: str) -> None:
    searcher = index(es, alias, tmp_path, records(40), element_type=element_type)
    found = {(pair.first, pair.second): pair.score for pair in pairs_of(searcher, 0.85)}
    expected = all_pairs(NearEncoder(), records(40), 0.85)
    assert found == pytest.approx(expected, abs=0.01)


def test_dot_products_of_vectors_of_any_length(es: Elasticsearch, alias: str, tmp_path: Path) -> None:
    """The nearest document need not be the document itself."""
    encoder = NearEncoder("dot")
    searcher = index(es, alias, tmp_path, records(60), encoder=encoder)
    for least in (0.9, 2.5, 5.0):
        expected = all_pairs(encoder, records(60), least)
        assert expected
        check(pairs_of(searcher, least), expected)


def test_documents_without_a_vector_are_left_out(searcher: Searcher, es: Elasticsearch) -> None:
    es.index(index=ALIAS, id="no-vector", document={"text": "subject1 version 0", "even": True}, refresh=True)
    try:
        assert len(pairs_of(searcher, 0.9)) == len(all_pairs(NearEncoder(), records(), 0.9))
    finally:
        es.delete(index=ALIAS, id="no-vector", refresh=True)


def test_too_many_neighbours_are_an_error_that_names_the_document(
    searcher: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "MAX_K", 30)
    monkeypatch.setattr(duplicates, "_EXACT", 30)
    with pytest.raises(ConfigError, match=r"the document '\S+' has more than 29 others that are similar enough"):
        pairs_of(searcher, 0.9)


def test_the_index_is_compared_as_it_was_at_the_beginning(es: Elasticsearch, alias: str, tmp_path: Path) -> None:
    searcher = index(es, alias, tmp_path, records())
    with_hundreds = find_pairs(es, alias, searcher.target.passport, 0.9)
    first = next(with_hundreds)
    es.indices.delete(index=searcher.target.index)
    with pytest.raises((SearchError, PartialResultsError)):
        list(with_hundreds)
    assert first.score >= 0.9


def test_an_index_that_is_not_there(es: Elasticsearch, searcher: Searcher) -> None:
    with pytest.raises(IndexNotFoundError, match="there is no index no-such-alias"):
        list(find_pairs(es, "no-such-alias", searcher.target.passport, 0.9))


def test_an_ending_closes_the_moment(es: Elasticsearch, searcher: Searcher) -> None:
    def open_moments() -> int:
        return sum(node["indices"]["search"]["open_contexts"] for node in es.nodes.stats()["nodes"].values())

    before = open_moments()
    pairs = find_pairs(es, ALIAS, searcher.target.passport, 0.9)
    next(pairs)
    assert open_moments() > before
    pairs.close()
    assert open_moments() == before


def test_passages_are_refused(es: Elasticsearch, alias: str, tmp_path: Path) -> None:
    searcher = index(es, alias, tmp_path, records(5), encoder=HashEncoder(DIMS), passages=PassageOptions(32, 4))
    with pytest.raises(ConfigError, match="in passages"):
        pairs_of(searcher, 0.9)


def run(server_url: str, *arguments: str, **how: Any) -> Result:
    result = CliRunner().invoke(app, ["duplicates", *arguments, "--url", server_url], **how)
    assert result.exit_code == 0, result.output
    return result


def test_the_command_writes_json_lines(searcher: Searcher, server_url: str) -> None:
    result = run(server_url, ALIAS, "--min-score", "0.93", "--where", "even = true and group < 80")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    some = [record for record in records() if record["even"] and record["group"] < 80]
    expected = all_pairs(NearEncoder(), some, 0.93)
    check([Pair(**line) for line in lines], expected)
    assert result.stderr.splitlines()[-1] == f"{len(expected):,} pairs among {len(some)} documents"
    same = run(server_url, ALIAS, "--min-score", "0.93", "--filter",
               '[{"term": {"even": true}}, {"range": {"group": {"lt": 80}}}]')  # fmt: skip
    assert sorted(same.stdout.splitlines()) == sorted(result.stdout.splitlines())


def test_the_command_writes_clusters(searcher: Searcher, server_url: str) -> None:
    result = run(server_url, ALIAS, "--min-score", "0.85", "--clusters", "--limit", "3", "--json")
    lines = [json.loads(line)["ids"] for line in result.stdout.splitlines()]
    assert [tuple(ids) for ids in lines] == clusters(pairs_of(searcher, 0.85))[:3]
    assert re.fullmatch(r"[\d,]+ pairs among \d+ documents, in \d+ clusters", result.stderr.splitlines()[-1])


def test_the_command_stops_at_the_limit(searcher: Searcher, server_url: str) -> None:
    result = run(server_url, ALIAS, "--limit", "5")
    assert len(result.stdout.splitlines()) == 5
    assert result.stderr.splitlines()[-1] == "stopped after 5 pairs (--limit)"


def test_on_a_terminal_the_texts_are_shown(
    searcher: Searcher, server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("esvector.cli.duplicates.wants_json", lambda asked: asked)
    shown = run(server_url, ALIAS, "--where", "group = 7").stdout
    ids = {record["id"]: record["text"] for record in records() if record["group"] == 7}
    assert re.search(r"^ 1\.000  ", shown, re.MULTILINE)
    for id_, text in ids.items():
        assert f"{id_}  {text}\n" in shown
    cluster = run(server_url, ALIAS, "--where", "group = 50", "--clusters").stdout
    assert cluster.startswith("    42  ")
    assert "and 22 more (--json lists all)" in cluster


PARAPHRASES = [
    ("The cat sleeps on the sofa.", "A cat is sleeping on the couch."),
    ("How do I reset my password?", "How can I reset my password?"),
    ("The stock market fell sharply on Monday.", "On Monday the stock market dropped sharply."),
    ("He was born in Paris in 1950.", "He was born in 1950 in Paris."),
    ("The train to Berlin leaves at noon.", "The Berlin train departs at noon."),
    ("Vaccines protect children against measles.", "Children are protected against measles by vaccines."),
    ("She bought a new red bicycle.", "She has purchased a new red bike."),
    ("The recipe needs two cups of flour.", "You need two cups of flour for the recipe."),
    ("Scientists discovered water on Mars.", "Water was discovered on Mars by scientists."),
    ("The museum is closed on Mondays.", "On Mondays the museum is closed."),
]
OTHERS = [
    "The dog barks at the postman.",
    "How do I open a bank account?",
    "The football match ended in a draw.",
    "London is the capital of England.",
    "The bus station is near the river.",
    "Antibiotics do not help against a virus.",
    "He repaired the engine of the car.",
    "The soup is too salty.",
    "The telescope shows distant galaxies.",
    "The library opens at nine in the morning.",
]


def test_paraphrases_by_a_real_model(es: Elasticsearch, alias: str, tmp_path: Path) -> None:
    docs = [{"id": f"o{n}", "text": text} for n, text in enumerate(OTHERS)]
    for n, (text, other) in enumerate(PARAPHRASES):
        docs += [{"id": f"p{n}a", "text": text}, {"id": f"p{n}b", "text": other}]
    Indexer(es, alias, profile=EncoderProfile("all-MiniLM-L6-v2"), dead_letters=tmp_path / "dead.jsonl").run(docs)
    found = list(find_pairs(es, alias, Searcher(es, alias).target.passport, 0.75))
    assert {(pair.first, pair.second) for pair in found} == {(f"p{n}a", f"p{n}b") for n in range(len(PARAPHRASES))}
