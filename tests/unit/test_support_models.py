from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer, DPRContextEncoder, DPRQuestionEncoder

from tests.support import models

TEXTS = [*models.words(8, seed=1), "Zürich, 1997: wholly un-known wordings?"]
DUAL_VOCABULARIES = {"query": len(models.vocabulary(1)), "document": len(models.vocabulary())}

SYMMETRIC: dict[str, Callable[[Path], Path]] = {
    "symmetric": models.symmetric,
    "dot_trained": models.dot_trained,
    "pickled": models.pickled,
    "without_modules": models.without_modules,
    "half_precision": models.half_precision,
}
ASYMMETRIC: dict[str, Callable[[Path], Path]] = {
    "prompted": models.prompted,
    "instructor": models.instructor,
    "last_token": models.last_token,
    "router": models.router,
    "router_deep": models.router_deep,
}


def load(folder: Path) -> SentenceTransformer:
    return SentenceTransformer(str(folder), device="cpu", local_files_only=True)


def queries(model: SentenceTransformer) -> NDArray[np.float32]:
    return np.asarray(model.encode_query(TEXTS), np.float32)


def documents(model: SentenceTransformer) -> NDArray[np.float32]:
    return np.asarray(model.encode_document(TEXTS), np.float32)


def cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    products: NDArray[np.float32] = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return products


def assert_texts_differ(vectors: NDArray[np.float32]) -> None:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert (unit @ unit.T)[~np.eye(len(unit), dtype=bool)].max() < 0.995


def weights_and_tokenizers(folder: Path) -> dict[str, bytes]:
    names = [*folder.rglob("*.safetensors"), *folder.rglob("*.bin"), *folder.rglob("tokenizer.json")]
    return {str(name.relative_to(folder)): name.read_bytes() for name in names}


@pytest.mark.parametrize("kind", [*SYMMETRIC, *ASYMMETRIC])
def test_a_model_reads_its_texts_and_survives_saving(kind: str, tmp_path: Path) -> None:
    build = {**SYMMETRIC, **ASYMMETRIC}[kind]
    folder = build(tmp_path / "built")
    model = load(folder)
    read, written = queries(model), documents(model)

    size = len(models.vocabulary())
    vocabularies = [json.loads(path.read_text())["model"]["vocab"] for path in folder.rglob("tokenizer.json")]
    assert [len(vocabulary) for vocabulary in vocabularies] == [size] * (2 if kind.startswith("router") else 1)
    if kind != "router":  # whose first tokenizer is the table's
        assert model.tokenizer("water")["input_ids"][1:-1] == [models.vocabulary().index("water")]
    assert written.shape == (len(TEXTS), models.DENSE_DIMS if kind == "instructor" else models.DIMS)
    assert_texts_differ(read)
    assert_texts_differ(written)
    if kind in SYMMETRIC:
        assert np.array_equal(read, written)
    elif kind == "last_token":  # the instruction is all that tells queries apart
        assert cosines(read, written).max() < 0.995
        assert np.allclose(model.encode_document(models.INSTRUCT_PROMPTS["query"] + TEXTS[0]), read[0], atol=1e-5)
    else:
        assert cosines(read, written).max() < 0.995

    model.save_pretrained(str(tmp_path / "again"), create_model_card=False)
    again = load(tmp_path / "again")
    assert np.array_equal(queries(again), read)
    assert np.array_equal(documents(again), written)


@pytest.mark.parametrize("kind", ["symmetric", "instructor", "last_token", "router", "router_deep", "pickled"])
def test_the_same_seed_gives_the_same_bytes(kind: str, tmp_path: Path) -> None:
    build = {**SYMMETRIC, **ASYMMETRIC}[kind]
    assert weights_and_tokenizers(build(tmp_path / "a")) == weights_and_tokenizers(build(tmp_path / "b"))


def test_another_seed_gives_other_weights(tmp_path: Path) -> None:
    one, other = models.symmetric(tmp_path / "a"), models.symmetric(tmp_path / "b", seed=1)
    assert cosines(queries(load(one)), queries(load(other))).max() < 0.9


def test_what_the_configuration_says_is_what_was_asked(tmp_path: Path) -> None:
    folder = models.symmetric(tmp_path / "a", dims=16, pooling="max", normalize=False, max_length=20, position_limit=40)
    model = load(folder)
    assert documents(model).shape == (len(TEXTS), 16)
    assert model.max_seq_length == 20
    assert model.transformers_model is not None
    assert model.transformers_model.config.max_position_embeddings == 40
    assert "similarity_fn_name" not in json.loads((folder / "config_sentence_transformers.json").read_text())
    assert [type(module).__name__ for module in model] == ["Transformer", "Pooling"]
    assert load(models.dot_trained(tmp_path / "b")).similarity_fn_name == "dot"


def test_the_vocabulary_leaves_little_unknown(tmp_path: Path) -> None:
    tokenizer = load(models.symmetric(tmp_path)).tokenizer
    ids = tokenizer("The unfathomable x86-64 GLACIER: 1,024 (metres)!")["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
    texts = models.words(40, seed=3)
    assert {1, 120} <= {len(text.split()) for text in texts}
    assert texts == models.words(40, seed=3) != models.words(40, seed=4)
    assert all(tokenizer.unk_token_id not in ids for ids in tokenizer(texts, truncation=False)["input_ids"])


def test_encode_document_never_reaches_the_passage_prompt(tmp_path: Path) -> None:
    model = load(models.prompted(tmp_path))
    plain = np.asarray(model.encode(TEXTS, prompt=""))
    assert np.array_equal(documents(model), plain)
    assert cosines(np.asarray(model.encode(TEXTS, prompt_name="passage")), plain).max() < 0.999


def test_an_instruction_is_read_and_not_pooled(tmp_path: Path) -> None:
    model = load(models.instructor(tmp_path))
    apart = queries(model)
    model.set_pooling_include_prompt(True)
    assert cosines(apart, queries(model)).min() < 0.99


def test_two_towers_have_two_vocabularies(tmp_path: Path) -> None:
    folder = models.dual(tmp_path)
    towers = {name: load(folder / name) for name in DUAL_VOCABULARIES}
    assert {name: len(tower.tokenizer) for name, tower in towers.items()} == DUAL_VOCABULARIES
    assert {tower.similarity_fn_name for tower in towers.values()} == {"dot"}
    read, written = queries(towers["query"]), documents(towers["document"])
    assert read.shape == written.shape
    assert abs(cosines(read, written)).max() < 0.9
    ids = [tower.tokenizer("water over stone")["input_ids"] for tower in towers.values()]
    assert ids[0] != ids[1]


def test_dpr_towers_load_without_weights_of_chance(tmp_path: Path) -> None:
    folder = models.dpr_pair(tmp_path)
    vectors = []
    kinds: dict[str, Any] = {"question": DPRQuestionEncoder, "context": DPRContextEncoder}
    for name, kind in kinds.items():
        model, report = kind.from_pretrained(folder / name, output_loading_info=True, local_files_only=True)
        assert not any(report[problem] for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        tokenizer = AutoTokenizer.from_pretrained(folder / name, local_files_only=True)
        assert len(tokenizer) == model.config.vocab_size == len(models.vocabulary())
        assert not (folder / name / "modules.json").exists()
        batch = tokenizer(TEXTS, padding=True, truncation=True, max_length=64, return_tensors="pt")
        with torch.inference_mode():
            vectors.append(model(**batch).pooler_output.numpy())
    assert vectors[0].shape == (len(TEXTS), models.DIMS)
    assert abs(cosines(*vectors)).max() < 0.9


def test_a_router_of_two_depths_keeps_both_limits(tmp_path: Path) -> None:
    model: Any = load(models.router_deep(tmp_path))
    towers = model[0].sub_modules
    assert [towers[route][0].max_seq_length for route in ("query", "document")] == [32, 64]
    assert [towers[route][0].config.num_hidden_layers for route in ("query", "document")] == [1, 2]


def test_a_table_of_tokens_reads_a_query_to_its_end(tmp_path: Path) -> None:
    model = load(models.router(tmp_path))
    long = " ".join(["water"] * 100)
    whole, start = model.encode_query([f"{long} stone", long])
    assert not np.array_equal(whole, start)
    whole, start = model.encode_document([f"{long} stone", long])
    assert np.array_equal(whole, start)


def test_pickled_weights_are_the_only_weights(tmp_path: Path) -> None:
    folder = models.pickled(tmp_path / "a")
    assert not list(folder.rglob("*.safetensors"))
    assert np.array_equal(documents(load(folder)), documents(load(models.symmetric(tmp_path / "b"))))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_checkpoint_of_two_bytes_a_weight(dtype: Literal["float16", "bfloat16"], tmp_path: Path) -> None:
    folder = models.half_precision(tmp_path, dtype)
    assert {str(tensor.dtype) for tensor in load_file(folder / "model.safetensors").values()} == {f"torch.{dtype}"}
    assert str(load(folder).dtype) == f"torch.{dtype}"


@pytest.mark.parametrize("kind", ["symmetric", "last_token", "router"])
def test_a_changed_weight_changes_documents_and_not_a_loaded_model(kind: str, tmp_path: Path) -> None:
    folder = {**SYMMETRIC, **ASYMMETRIC}[kind](tmp_path)
    model = load(folder)
    before = documents(model)
    models.change_weight(folder)
    assert np.array_equal(documents(model), before)
    assert np.abs(documents(load(folder)) - before).max(1).min() > 1e-3
