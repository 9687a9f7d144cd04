"""The kinds of encoders, built and loaded once, and what other libraries make of the same texts."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer, DPRContextEncoder, DPRQuestionEncoder

from esvector.encode.encoder import ModelEncoder
from esvector.encode.loading import load_encoder
from esvector.encode.profile import EncoderProfile, Kind, Side
from tests.support import models

Vectors = NDArray[np.float32]

# Half of them are longer than what the models read.
TEXTS = [*models.words(10, seed=1), "Zürich, 1997: wholly un-known wordings?", " ".join(models.words(6, seed=2)) * 10]
SIDES: tuple[Side, Side] = ("query", "document")


@dataclass(frozen=True, slots=True)
class Case:
    """A kind of model: what it is called, its prompts, and where in its folder each side has files of its own."""

    build: Callable[[Path], Path]
    kind: Kind
    query_prompt: str = ""
    document_prompt: str = ""
    query_folder: str | None = None
    document_folder: str = ""
    two_models: bool = False

    def profile(self, folder: Path, **asked: Any) -> EncoderProfile:
        if not self.two_models:
            return EncoderProfile(str(folder), **asked)
        return EncoderProfile(
            str(folder / self.document_folder), query_model=str(folder / str(self.query_folder)), **asked
        )

    def prompt(self, side: Side) -> str:
        return self.query_prompt if side == "query" else self.document_prompt


_E5 = (models.E5_PROMPTS["query"], models.E5_PROMPTS["passage"])
CASES = {
    "symmetric": Case(models.symmetric, "symmetric"),
    "asymmetric": Case(models.dot_trained, "asymmetric"),
    "prompted": Case(models.prompted, "prompted", *_E5),
    "instructor": Case(models.instructor, "prompted", *_E5),
    "last_token": Case(models.last_token, "prompted", models.INSTRUCT_PROMPTS["query"]),
    "dual": Case(models.dual, "dual", query_folder="query", document_folder="document", two_models=True),
    "dpr": Case(models.dpr_pair, "dual", query_folder="question", document_folder="context", two_models=True),
    "router": Case(
        models.router, "router", query_folder="query_0_StaticEmbedding", document_folder="document_0_Transformer"
    ),
    "router_deep": Case(
        models.router_deep, "router", query_folder="query_0_Transformer", document_folder="document_0_Transformer"
    ),
}
TWO_TOWERS = [name for name, case in CASES.items() if case.query_folder is not None]
ONE_TOWER = [name for name in CASES if name not in TWO_TOWERS]


class Built:
    """Every model, and every encoder loaded once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = cache(self._build)
        self.encoder = cache(self._load)

    def _build(self, name: str) -> Path:
        return CASES[name].build(self.root / name)

    def _load(self, name: str) -> ModelEncoder:
        return load_encoder(CASES[name].profile(self.folder(name)), device="cpu")


def edit(path: Path, **facts: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))


def embed(encoder: ModelEncoder, side: Side, texts: Sequence[str] = TEXTS) -> Vectors:
    return encoder.encode_query(texts) if side == "query" else encoder.encode_document(texts)


def reference(folder: Path, **options: Any) -> SentenceTransformer:
    return SentenceTransformer(
        str(folder), device="cpu", local_files_only=True, model_kwargs={"dtype": torch.float32}, **options
    )


# For models that no test changes in memory; a folder that a test changes is its own.
unchanged = cache(reference)


def theirs(case: Case, folder: Path, side: Side, texts: Sequence[str] = TEXTS) -> Vectors:
    """What sentence-transformers, or for DPR transformers, gives for the same texts."""
    name = case.query_folder if side == "query" else case.document_folder
    if case.build is models.dpr_pair:
        return dpr(folder / str(name), side, texts)
    model = unchanged(folder / str(name) if case.two_models else folder)
    encode = model.encode_query if side == "query" else model.encode_document
    return np.asarray(encode(list(texts), prompt=case.prompt(side)), np.float32)


def dpr(folder: Path, side: Side, texts: Sequence[str]) -> Vectors:
    kind: Any = DPRQuestionEncoder if side == "query" else DPRContextEncoder
    model, tokenizer = kind.from_pretrained(folder, local_files_only=True), AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(list(texts), padding=True, truncation=True, max_length=128, return_tensors="pt")
    with torch.inference_mode():
        output = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).pooler_output
    return np.asarray(output, np.float32)


def cosines(a: Vectors, b: Vectors) -> NDArray[np.float64]:
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    found: NDArray[np.float64] = (a64 * b64).sum(1) / np.linalg.norm(a64, axis=1) / np.linalg.norm(b64, axis=1)
    return found


def assert_same(ours: Vectors, others: Vectors) -> None:
    assert cosines(ours, others).min() >= 0.99999
    assert np.allclose(ours, others, rtol=1e-4, atol=1e-5), "length included"
