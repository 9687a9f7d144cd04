"""The packaged all-MiniLM-L6-v2, a real model, through esvector and through sentence-transformers itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from esvector.encode.encoder import Encoder, load_encoder
from esvector.encode.engine import encode_window
from esvector.encode.models import find_model, hash_model
from esvector.encode.profile import EncoderProfile
from esvector.errors import ConfigError, EncoderError, EncoderMismatchError

NAME = "sentence-transformers/all-MiniLM-L6-v2"
TEXTS = ["A short text.", "Vector search finds what is near. " * 80, "", "Ünïcödé 🚀", "two words"]


@pytest.fixture(scope="module")
def minilm() -> Encoder:
    return load_encoder(EncoderProfile(NAME), device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packaged model: what a user has who downloaded one."""
    copy = tmp_path_factory.mktemp("models") / "mine"
    shutil.copytree(find_model(NAME).path, copy)
    return copy


def test_the_profile_of_a_loaded_encoder_is_complete(minilm: Encoder) -> None:
    profile = minilm.profile
    assert profile.model == NAME
    assert len(profile.weights or "") == 64
    assert (profile.dims, profile.max_length, profile.pooling, profile.dtype) == (384, 256, "mean", "float32")
    assert (profile.similarity, profile.normalize) == ("cosine", True)
    assert (profile.query_prompt, profile.document_prompt) == ("", "")


@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", NAME])
def test_the_packaged_model_answers_to_both_names(name: str) -> None:
    found = find_model(name)
    assert found.name == NAME
    assert (found.path / "model.safetensors").is_file()


def test_vectors_are_those_of_sentence_transformers(minilm: Encoder) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(find_model(NAME).path), device="cpu", local_files_only=True)
    texts = [text for text in TEXTS if text]
    ours = encode_window(minilm, texts)
    assert np.allclose(ours.vectors, model.encode(texts, batch_size=1), atol=1e-5)
    assert np.allclose(minilm.encode_query(texts), model.encode_query(texts), atol=1e-5)
    assert np.allclose(np.linalg.norm(ours.vectors, axis=1), 1, atol=1e-6)
    assert ours.vectors.dtype == np.float32


def test_truncation_is_counted(minilm: Encoder) -> None:
    window = encode_window(minilm, ["short", "Vector search finds what is near. " * 80])
    assert window.truncated == 1
    assert list(window.tokens) == [3, 7 * 80 + 2]


def test_prompts_go_on_each_side_explicitly(folder: Path) -> None:
    """sentence-transformers' own encode_document never uses a prompt called "passage"."""
    config = json.loads((folder / "config_sentence_transformers.json").read_text())
    prompted = folder.parent / "prompted"
    shutil.copytree(folder, prompted)
    config["prompts"] = {"query": "query: ", "passage": "passage: "}
    (prompted / "config_sentence_transformers.json").write_text(json.dumps(config))
    encoder = load_encoder(EncoderProfile(str(prompted)), device="cpu")
    assert (encoder.profile.query_prompt, encoder.profile.document_prompt) == ("query: ", "passage: ")
    plain = load_encoder(EncoderProfile(str(folder), query_prompt="", document_prompt=""), device="cpu")
    assert np.allclose(encoder.encode_document(["x"]), plain.encode_document(["passage: x"]), atol=1e-6)
    assert np.allclose(encoder.encode_query(["x"]), plain.encode_query(["query: x"]), atol=1e-6)
    assert not np.allclose(encoder.encode_query(["x"]), encoder.encode_document(["x"]), atol=1e-2)


def test_a_users_prompts_and_length_win_over_the_models(folder: Path) -> None:
    asked = EncoderProfile(str(folder), query_prompt="q: ", document_prompt="d: ", max_length=16, similarity="dot")
    profile = load_encoder(asked, device="cpu").profile
    assert (profile.query_prompt, profile.document_prompt, profile.max_length) == ("q: ", "d: ", 16)
    assert profile.similarity == "dot"


def test_the_hash_is_of_the_content_wherever_it_lies(folder: Path, minilm: Encoder) -> None:
    assert hash_model(folder) == minilm.profile.weights
    (folder / "README.md").write_text("another readme")
    assert hash_model(folder) == minilm.profile.weights


def test_a_changed_weight_is_another_encoder(folder: Path, minilm: Encoder) -> None:
    changed = folder.parent / "changed"
    shutil.copytree(folder, changed)
    with (changed / "model.safetensors").open("r+b") as weights:
        weights.seek(-4, 2)
        weights.write(b"\x00\x00\x80\x3f")
    expected = EncoderProfile(str(changed), weights=minilm.profile.weights)
    with pytest.raises(EncoderMismatchError, match="weights") as error:
        load_encoder(expected, device="cpu")
    assert str(minilm.profile.weights) in str(error.value)
    assert hash_model(changed) in str(error.value)


def test_a_model_from_the_hubs_cache_works_offline(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--some-team--some-model"
    shutil.copytree(folder, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    found = find_model("some-team/some-model")
    assert (found.name, found.revision) == ("some-team/some-model", commit)
    assert hash_model(found.path) == hash_model(folder)


def test_a_model_that_nobody_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(EncoderError, match="cannot get the model no-such/model"):
        find_model("no-such/model")
    with pytest.raises(EncoderError, match=r"no such folder: \./nowhere"):
        find_model("./nowhere")


def test_a_folder_without_modules_would_be_a_guess(folder: Path) -> None:
    bare = folder.parent / "bare"
    shutil.copytree(folder, bare)
    (bare / "modules.json").unlink()
    with pytest.raises(EncoderError, match=r"no modules\.json"):
        find_model(str(bare))


def test_pickled_weights_are_refused(folder: Path) -> None:
    pickled = folder.parent / "pickled"
    shutil.copytree(folder, pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(EncoderError, match="pickle"):
        find_model(str(pickled))


def test_a_folder_that_is_no_model(folder: Path) -> None:
    broken = folder.parent / "broken"
    shutil.copytree(folder, broken)
    (broken / "model.safetensors").write_bytes(b"not a model")
    with pytest.raises(EncoderError, match="cannot load the model"):
        load_encoder(EncoderProfile(str(broken)), device="cpu")


@pytest.mark.parametrize("wrong", [{"model": ""}, {"similarity": "l2"}, {"dims": 0}, {"max_length": -1}])
def test_a_profile_that_cannot_be(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        EncoderProfile(**({"model": "m"} | wrong))  # type: ignore[arg-type]
