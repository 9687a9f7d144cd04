"""The packaged all-MiniLM-L6-v2, a real model, through esvector; finding models; and what is never loaded."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from esvector.encode.encoder import ModelEncoder, check_match
from esvector.encode.layout import read_layout
from esvector.encode.loading import load_encoder
from esvector.encode.models import find_model
from esvector.encode.profile import EncoderProfile
from esvector.errors import EncoderError, EncoderMismatchError
from tests.support import models

NAME = "sentence-transformers/all-MiniLM-L6-v2"
LONG = "Vector search finds what is near. " * 80
TEXTS = ["A short text.", LONG, "Ünïcödé 🚀", "two words", "[SEP] is a token, [CLS] too", "a\x00b"]


@pytest.fixture(scope="module")
def minilm() -> ModelEncoder:
    return load_encoder(EncoderProfile(NAME), device="cpu")


@pytest.fixture(scope="module")
def symmetric(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.symmetric(tmp_path_factory.mktemp("encoder") / "symmetric")


@pytest.fixture
def folder(symmetric: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(symmetric, tmp_path / "mine"))


def load(folder: Path) -> ModelEncoder:
    return load_encoder(EncoderProfile(str(folder)), device="cpu")


# A real model


def test_the_profile_of_a_real_model(minilm: ModelEncoder) -> None:
    profile = minilm.profile
    assert (profile.model, profile.revision, profile.family) == (NAME, None, "all-minilm")
    assert len(profile.weights or "") == 64
    assert (profile.dims, profile.max_length, profile.pooling, profile.dtype) == (384, 256, "mean", "float32")
    assert (profile.kind, profile.similarity, profile.normalize) == ("symmetric", "cosine", True)
    assert (profile.query_prompt, profile.document_prompt) == ("", "")
    assert not minilm.warnings


def test_vectors_are_those_of_sentence_transformers(minilm: ModelEncoder) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(find_model(NAME).path), device="cpu", local_files_only=True)
    ours, theirs = minilm.encode_document(TEXTS), np.asarray(model.encode(TEXTS, batch_size=1))
    assert (ours * theirs).sum(axis=1).min() >= 0.99999
    assert np.allclose(ours, theirs, atol=1e-5)
    assert np.allclose(minilm.encode_query(TEXTS[:1]), np.asarray(model.encode_query(TEXTS[:1])), atol=1e-5)
    assert np.allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-6)
    assert ours.dtype == np.float32


def test_what_a_real_model_does_not_read_is_counted(minilm: ModelEncoder) -> None:
    batcher = minilm.batcher("document")
    window = batcher.encode(batcher.tower.tokenize(["short", LONG]))
    assert window.truncated == 1
    assert window.tokens.tolist() == minilm.count_tokens(["short", LONG]).tolist() == [3, 7 * 80 + 2]
    assert np.array_equal(minilm.encode_document([LONG]), minilm.encode_document([LONG + "and more"]))


# Finding a model


@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", NAME])
def test_the_packaged_model_answers_to_both_names(name: str) -> None:
    found = find_model(name)
    assert (found.name, found.revision) == (NAME, None)
    assert (found.path / "model.safetensors").is_file()


def test_a_folder_is_found_by_any_way_of_naming_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("mine", "./mine", "mine/", "~/mine", str(folder)):
        found = find_model(name)
        assert (found.name, found.revision) == (str(folder.resolve()), None)
        assert found.path.samefile(folder)


def test_a_folder_wins_over_the_packaged_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.rename(folder.parent / "all-MiniLM-L6-v2")
    monkeypatch.chdir(folder.parent)
    assert find_model("all-MiniLM-L6-v2").path.samefile(folder.parent / "all-MiniLM-L6-v2")


@pytest.fixture
def hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str, Path]:
    """A hub's cache of two commits, of which the older is not on any branch, and no network: (old, new, path)."""
    old, new = "0" * 40, "1" * 40
    cache = tmp_path / "hub"
    repository = cache / "models--some-team--some-model"
    blobs = repository / "blobs"
    blobs.mkdir(parents=True)
    for number, commit in enumerate((old, new)):
        snapshot = repository / "snapshots" / commit
        shutil.copytree(folder, snapshot)
        for file in [file for file in snapshot.rglob("*") if file.is_file()]:  # as the hub keeps them
            blob = blobs / f"{number}-{file.relative_to(snapshot)}".replace("/", "-")
            file.rename(blob)
            file.symlink_to(blob)
        models.change_weight(folder)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(new)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return old, new, repository


def test_a_model_in_the_hubs_cache_works_offline(hub: tuple[str, str, Path], symmetric: Path) -> None:
    old, new, _ = hub
    found = find_model("some-team/some-model")
    assert (found.name, found.revision) == ("some-team/some-model", new)
    profile = load_encoder(EncoderProfile("some-team/some-model"), device="cpu").profile
    assert (profile.model, profile.revision) == ("some-team/some-model", new)

    pinned = load_encoder(EncoderProfile("some-team/some-model", revision=old), device="cpu")
    assert pinned.profile.revision == old
    assert pinned.profile.weights == read_layout(symmetric).fingerprint("document") != profile.weights
    assert np.array_equal(pinned.encode_query(["water"]), load(symmetric).encode_query(["water"]))
    again = load_encoder(pinned.profile, device="cpu")
    assert again.profile == pinned.profile


def test_a_branch_that_moved_is_noticed(hub: tuple[str, str, Path]) -> None:
    old, new, repository = hub
    (repository / "refs" / "main").write_text(old)
    recorded = load_encoder(EncoderProfile("some-team/some-model"), device="cpu").profile
    (repository / "refs" / "main").write_text(new)
    assert load_encoder(recorded, device="cpu").profile == recorded, "the revision is part of what is recorded"
    with pytest.raises(EncoderMismatchError, match="weights"):
        load_encoder(replace(recorded, revision=None), device="cpu")


def test_a_pickle_in_the_hubs_cache_is_refused(hub: tuple[str, str, Path]) -> None:
    _, new, repository = hub
    (repository / "blobs" / "x").write_bytes(b"")
    (repository / "snapshots" / new / "pytorch_model.bin").symlink_to(repository / "blobs" / "x")
    with pytest.raises(EncoderError, match=r"a pickle, pytorch_model\.bin"):
        find_model("some-team/some-model")


def test_a_model_that_nobody_has(hub: tuple[str, str, Path]) -> None:
    with pytest.raises(EncoderError, match="cannot get the model no-such/model"):
        find_model("no-such/model")
    with pytest.raises(EncoderError, match="cannot get the model some-team/some-model at revision v9"):
        find_model("some-team/some-model", "v9")
    with pytest.raises(EncoderError, match=r"no such folder: \./nowhere"):
        find_model("./nowhere")
    with pytest.raises(EncoderError, match="no such folder: a/b/c"):
        find_model("a/b/c")


# What is never loaded


def test_a_folder_without_modules_would_be_a_guess(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"no modules\.json.*\n.*save_pretrained"):
        load(models.without_modules(tmp_path))


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("config.json", r"config\.json is not JSON"),
        ("modules.json", r"modules\.json is not JSON"),
        ("tokenizer.json", "cannot load the model in"),
        ("1_Pooling/config.json", "cannot load the model in"),
    ],
)
def test_a_damaged_model_is_said_to_be_damaged(file: str, says: str, folder: Path) -> None:
    (folder / file).write_text('{"a": ')
    with pytest.raises(EncoderError, match=says):
        load(folder)


@pytest.mark.parametrize("file", ["tokenizer.json", "model.safetensors", "1_Pooling/config.json"])
def test_a_model_with_a_file_missing_cannot_be_loaded(file: str, folder: Path) -> None:
    (folder / file).unlink()
    with pytest.raises(EncoderError, match="cannot load the model in"):
        load(folder)


def test_weights_that_are_none(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"not a model")
    with pytest.raises(EncoderError, match="cannot load the model in"):
        load(folder)


def test_a_model_whose_weights_are_a_pickle(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"has a pickle, pytorch_model\.bin, which can run code.*\n.*safetensors"):
        load(models.pickled(tmp_path))


@pytest.mark.parametrize(
    "file",
    [
        "pytorch_model.bin",
        "2_Dense/pytorch_model.bin",
        "1_Pooling/weights.pt",
        "old/checkpoint.ckpt",
        "optimizer.pth",
        "a/b/c/data.pkl",
    ],
)
def test_a_pickle_anywhere_is_refused_even_beside_safetensors(file: str, folder: Path) -> None:
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file).write_bytes(b"")
    with pytest.raises(EncoderError, match=f"has a pickle, {file}, which can run code"):
        load(folder)


def test_a_pickled_projection_is_refused_although_the_transformer_is_none(tmp_path: Path) -> None:
    """sentence-transformers would read it: use_safetensors reaches the transformer only."""
    folder = models.instructor(tmp_path)
    (folder / "2_Dense" / "model.safetensors").rename(folder / "2_Dense" / "pytorch_model.bin")
    with pytest.raises(EncoderError, match=r"has a pickle, 2_Dense/pytorch_model\.bin"):
        load(folder)


def test_what_is_no_pickle_is_not_taken_for_one(folder: Path) -> None:
    (folder / "training_args.bin").write_bytes(b"")  # a pickle that nothing reads
    (folder / "openvino").mkdir()
    for name in ("openvino_model.bin", "openvino_model.xml"):
        (folder / "openvino" / name).write_bytes(b"")
    load(folder)


def test_a_pickle_is_not_made_harmless_by_an_xml_beside_it(tmp_path: Path) -> None:
    folder = models.instructor(tmp_path)
    (folder / "2_Dense" / "model.safetensors").rename(folder / "2_Dense" / "pytorch_model.bin")
    (folder / "2_Dense" / "pytorch_model.xml").write_text("<net/>")
    with pytest.raises(EncoderError, match="has a pickle"):
        find_model(str(folder))


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "code-was-run"


def code(marker: Path) -> str:
    """A module of a model's own, which leaves a mark where it is run."""
    return (
        f"open({str(marker)!r}, 'w').close()\n"
        "from sentence_transformers.sentence_transformer.modules import Pooling\n"
        "class Own(Pooling):\n    pass\n"
    )


def test_the_mark_of_code_is_left_where_code_is_run(marker: Path) -> None:
    exec(code(marker), {"__name__": "own"})
    assert marker.exists()


@pytest.mark.parametrize("type_", ["own.Own", "1_Pooling.own.Own", "sentence_transformers.own.Own"])
def test_a_module_of_the_models_own_is_refused_and_not_run(
    type_: str, folder: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in (folder, folder / "1_Pooling"):
        (place / "own.py").write_text(code(marker))
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["type"] = type_
    (folder / "modules.json").write_text(json.dumps(modules))
    monkeypatch.chdir(folder)
    with pytest.raises(EncoderError, match=r"cannot load the model(?s:.)*code of its own is refused"):
        load(folder)
    assert not marker.exists()


def test_a_module_of_a_routes_own_is_refused_and_not_run(tmp_path: Path, marker: Path) -> None:
    folder = models.router_deep(tmp_path / "router")
    (folder / "own.py").write_text(code(marker))
    config = json.loads((folder / "router_config.json").read_text())
    config["types"]["query_1_Pooling"] = "own.Own"
    (folder / "router_config.json").write_text(json.dumps(config))
    with pytest.raises(EncoderError, match=r"cannot load the model(?s:.)*code of its own is refused"):
        load(folder)
    assert not marker.exists()
    load_encoder(EncoderProfile(str(folder)), "document", "cpu")  # which is none of its own


def test_a_transformer_with_code_of_its_own_is_refused_and_not_run(folder: Path, marker: Path) -> None:
    (folder / "own.py").write_text(code(marker))
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModel": "own.Own"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(EncoderError, match="cannot load the model"):
        load(folder)
    assert not marker.exists()


def test_an_activation_that_is_no_torch_module_is_not_called(tmp_path: Path, marker: Path) -> None:
    folder = models.instructor(tmp_path / "dense")
    path = folder / "2_Dense" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"activation_function": "torch.hub.load"}))
    with pytest.raises(EncoderError, match="cannot load the model"):
        load(folder)


@pytest.mark.parametrize("place", ["../outside", "/tmp/outside"])
def test_modules_outside_the_models_folder_are_refused(place: str, folder: Path) -> None:
    shutil.copytree(folder / "1_Pooling", folder.parent / "outside")
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["path"] = place
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(EncoderError):
        load(folder)


def test_routes_outside_the_models_folder_are_refused(tmp_path: Path) -> None:
    folder = models.router_deep(tmp_path / "router")
    shutil.move(folder / "query_0_Transformer", tmp_path / "outside")
    path = folder / "router_config.json"
    path.write_text(path.read_text().replace("query_0_Transformer", "../outside"))
    with pytest.raises(EncoderError):
        load(folder)


# Is it the one?

FACTS: dict[str, Any] = {
    "weights": "ff" * 32,
    "query_prompt": "q: ",
    "document_prompt": "d: ",
    "separator": "[SEP]",
    "pooling": "cls",
    "normalize": False,
    "similarity": "dot",
    "dims": 16,
    "max_length": 100,
}


@pytest.mark.parametrize(("name", "value"), FACTS.items())
def test_an_encoder_that_differs_in_one_fact_is_refused_with_both_named(
    name: str, value: Any, minilm: ModelEncoder
) -> None:
    expected = replace(minilm.profile, model="the-index's", **{name: value})
    with pytest.raises(EncoderMismatchError) as error:
        check_match(expected, minilm.profile)
    said = str(error.value)
    assert f"{name}: {value!r} expected, {getattr(minilm.profile, name)!r} found" in said
    assert said.count("expected, ") == 1
    assert f"the encoder {NAME} is not the one expected (the-index's)" in said
    assert "index the documents again with this one" in said


@pytest.mark.parametrize("name", ["query_weights", "query_pooling", "query_max_length"])
def test_a_query_tower_that_differs_is_refused(name: str, minilm: ModelEncoder) -> None:
    dual = replace(minilm.profile, query_model="q", query_weights="aa", query_pooling="cls", query_max_length=8)
    value: Any = 9 if name == "query_max_length" else "bb"
    other = replace(dual, **{name: value})
    with pytest.raises(EncoderMismatchError, match=f"{name}: .* expected, .* found"):
        check_match(dual, other)


def test_what_is_not_expected_is_free(minilm: ModelEncoder) -> None:
    check_match(EncoderProfile("any"), minilm.profile)
    check_match(minilm.profile, minilm.profile)
    check_match(replace(minilm.profile, model="another name", revision="1", dtype="bfloat16"), minilm.profile)


def test_all_differences_are_named_at_once(minilm: ModelEncoder) -> None:
    with pytest.raises(EncoderMismatchError) as error:
        check_match(EncoderProfile("m", **FACTS), minilm.profile)
    assert all(f"  {name}: " in str(error.value) for name in FACTS)


def test_a_preset_by_the_folders_name_fills_in_what_the_files_leave_open(tmp_path: Path) -> None:
    for name, expected in (("multi-qa-mpnet-base-dot-v1", "dot"), ("my-own-model", "cosine")):
        folder = models.dot_trained(tmp_path / name)
        path = folder / "config_sentence_transformers.json"
        config = json.loads(path.read_text())
        del config["similarity_fn_name"]
        path.write_text(json.dumps(config))
        encoder = load(folder)
        assert encoder.profile.similarity == expected
        assert encoder.profile.normalize == (expected == "cosine")
        lengths = np.linalg.norm(encoder.encode_document(["water", "stone"]), axis=1)
        assert np.allclose(lengths, 1, atol=1e-6) == (expected == "cosine")


def test_another_similarity_than_the_models_is_used_with_a_warning(tmp_path: Path) -> None:
    folder = models.dot_trained(tmp_path)
    encoder = load_encoder(EncoderProfile(str(folder), similarity="cosine"), device="cpu")
    assert encoder.profile.similarity == "cosine"
    assert encoder.sources["similarity"] == "given"
    assert "trained for 'dot'" in encoder.warnings[0]
    assert np.allclose(np.linalg.norm(encoder.encode_query(["water"]), axis=1), 1, atol=1e-6)


def test_a_similarity_that_elasticsearch_has_no_exact_counterpart_of(tmp_path: Path) -> None:
    folder = models.symmetric(tmp_path, similarity="euclidean")
    with pytest.raises(EncoderError, match="'euclidean'"):
        load(folder)
    assert load_encoder(EncoderProfile(str(folder), similarity="dot"), device="cpu").profile.similarity == "dot"
