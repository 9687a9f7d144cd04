"""Opening the query side of an index: exported towers where they can be, the model where not, and never another one."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from esvector.encode import queries, query_cache
from esvector.encode.encoder import ModelEncoder
from esvector.encode.light import export_light
from esvector.encode.loading import load_encoder
from esvector.encode.probes import PROBES, pack_probes, unpack_probes
from esvector.encode.profile import EncoderProfile
from esvector.encode.queries import export_query, open_query_encoder, probe_vectors, use_encoder
from esvector.encode.query_cache import LightFiles
from esvector.encode.tower import ModelTower
from esvector.errors import EncoderError, EncoderMismatchError
from tests.support import models
from tests.support.encoders import HashEncoder

Vectors = NDArray[np.float32]
TEXTS = ["which river runs through the old town", "apple", " ".join(models.words(4, seed=9))]
BUILD: dict[str, Callable[[Path], Path]] = {
    "symmetric": models.symmetric,
    "prompted": models.prompted,
    "router": models.router,
    "last_token": models.last_token,
    "instructor": models.instructor,
}


class Made:
    """A model, and what the passport of an index made with it says; its query tower is exported into ``cache``."""

    def __init__(self, folder: Path) -> None:
        self.encoder = load_encoder(EncoderProfile(str(folder)), device="cpu")
        self.profile = self.encoder.profile
        self.probes = unpack_probes(pack_probes(probe_vectors(self.encoder)), self.profile.dims or 0)
        self.vectors = self.encoder.encode_query(TEXTS)
        self.cache = folder.parent / f"{folder.name}-cache"
        export_query(self.encoder, self.cache)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    root, known = tmp_path_factory.mktemp("queries"), {}

    def make(name: str) -> Made:
        if name not in known:
            known[name] = Made(BUILD[name](root / name))
        return known[name]

    return make


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def filled(made: Made, cache: Path) -> LightFiles:
    """A copy of the cache, to damage."""
    shutil.copytree(made.cache, cache)
    files = query_cache.find(cache, made.profile.query_id)
    assert files is not None
    return files


def no_loading(*_: Any, **__: Any) -> ModelEncoder:
    raise AssertionError("the model was loaded")


def no_export(*_: Any, **__: Any) -> None:
    raise EncoderError("this model cannot be exported\nand here is the whole graph")


@pytest.mark.parametrize("name", BUILD)
def test_an_exported_tower_gives_the_models_vectors_and_loads_nothing(
    name: str, made: Callable[[str], Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    it = made(name)
    monkeypatch.setattr("esvector.encode.loading.load_encoder", no_loading)
    for device in (None, "cpu"):
        encoder = open_query_encoder(it.profile, it.probes, device=device, cache=it.cache)
        assert encoder.how == ("static" if name == "router" else "onnx")
        assert encoder.query_id == it.profile.query_id
        vectors = encoder(TEXTS)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(vectors, it.vectors, atol=1e-5)
        np.testing.assert_allclose([encoder([text])[0] for text in TEXTS], it.vectors, atol=1e-5)


def test_the_first_to_open_exports_for_the_next(
    made: Callable[[str], Made], cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    it = made("prompted")
    assert open_query_encoder(it.profile, it.probes, cache=cache).how == "onnx"
    monkeypatch.setattr("esvector.encode.loading.load_encoder", no_loading)
    again = open_query_encoder(it.profile, it.probes, cache=cache)
    np.testing.assert_allclose(again(TEXTS), it.vectors, atol=1e-5)
    assert not caplog.records


def test_what_computed_the_documents_does_not_bind_the_queries(made: Callable[[str], Made], cache: Path) -> None:
    it = made("symmetric")
    on_a_gpu = replace(it.profile, dtype="bfloat16", backend="openvino-int8")
    encoder = open_query_encoder(on_a_gpu, it.probes, cache=cache)
    np.testing.assert_allclose(encoder(TEXTS), it.vectors, atol=1e-5)


def test_the_cache_of_the_user_is_the_default(made: Callable[[str], Made], query_cache: Path) -> None:
    it = made("router")
    assert open_query_encoder(it.profile, it.probes).how == "static"
    assert any(path.name == "table.npy" for path in query_cache.rglob("*"))


# Damage


def truncated(files: LightFiles, other: LightFiles) -> None:
    files.tower.write_bytes(files.tower.read_bytes()[:-100])


def flipped(files: LightFiles, other: LightFiles) -> None:
    content = bytearray(files.tower.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = bytes(byte ^ 0x55 for byte in content[middle : middle + 2000])
    files.tower.write_bytes(content)


def garbage_tokenizer(files: LightFiles, other: LightFiles) -> None:
    files.tokenizer.write_bytes(b"x" * files.tokenizer.stat().st_size)


def another_tokenizer(files: LightFiles, other: LightFiles) -> None:
    """One that knows the words in another order; as many bytes, so that only what it does can show it."""
    tokenizer = json.loads(files.tokenizer.read_text())
    vocabulary: dict[str, int] = tokenizer["model"]["vocab"]
    inner = [word for word in vocabulary if word.isalpha()]
    tokenizer["model"]["vocab"] |= dict(zip(inner, [vocabulary[word] for word in inner[::-1]], strict=True))
    files.tokenizer.write_text(json.dumps(tokenizer))
    reseal(files)


def another_model(files: LightFiles, other: LightFiles) -> None:
    """The graph of another model, whole, and with a manifest that agrees."""
    shutil.copy(other.tower, files.tower)
    shutil.copy(other.tokenizer, files.tokenizer)
    reseal(files)


def no_manifest(files: LightFiles, other: LightFiles) -> None:
    (files.folder / "manifest.json").write_text("{")


def lost_file(files: LightFiles, other: LightFiles) -> None:
    files.tokenizer.unlink()


def reseal(files: LightFiles) -> None:
    (files.folder / "manifest.json").unlink()
    query_cache._seal(files.folder, files.facts)
    assert query_cache.is_intact(files)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (truncated, False),
        (flipped, True),
        (garbage_tokenizer, True),
        (another_tokenizer, True),
        (another_model, True),
        (no_manifest, False),
        (lost_file, False),
    ],
)
def test_a_damaged_cache_is_noticed_and_made_anew(
    damage: Callable[[LightFiles, LightFiles], None],
    said: bool,
    made: Callable[[str], Made],
    cache: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    it, other = made("symmetric"), made("last_token")
    files = filled(it, cache)
    found = query_cache.find(other.cache, other.profile.query_id)
    assert found is not None
    damage(files, found)
    encoder = open_query_encoder(it.profile, it.probes, cache=cache)
    np.testing.assert_allclose(encoder(TEXTS), it.vectors, atol=1e-5)
    assert ("is damaged: it is made anew" in caplog.text) == said
    monkeypatch.setattr("esvector.encode.loading.load_encoder", no_loading)
    assert open_query_encoder(it.profile, it.probes, cache=cache).how == "onnx"


def test_a_damaged_table_is_noticed(made: Callable[[str], Made], cache: Path) -> None:
    it = made("router")
    files = filled(it, cache)
    table = np.load(files.tower)
    np.save(files.tower, table[::-1])
    encoder = open_query_encoder(it.profile, it.probes, cache=cache)
    np.testing.assert_allclose(encoder(TEXTS), it.vectors, atol=1e-5)


def test_a_damaged_cache_that_cannot_be_mended_is_left_alone(
    made: Callable[[str], Made], cache: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A volume mounted read-only: root is not stopped by permissions, so that the calls are."""
    it = made("symmetric")
    files = filled(it, cache)
    garbage_tokenizer(files, files)

    def read_only(*_: Any, **__: Any) -> str:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(query_cache, "mkdtemp", read_only)
    encoder = open_query_encoder(it.profile, it.probes, cache=cache)
    assert encoder.how == "torch"
    np.testing.assert_allclose(encoder(TEXTS), it.vectors, atol=1e-6)
    assert "encoded by torch, which starts slowly" in caplog.text


# Without an exported tower


def test_a_cache_that_is_no_folder_leaves_torch_with_a_warning(
    made: Callable[[str], Made], cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    it = made("symmetric")
    cache.touch()
    encoder = open_query_encoder(it.profile, it.probes, cache=cache)
    assert encoder.how == "torch"
    np.testing.assert_allclose(encoder(TEXTS), it.vectors, atol=1e-6)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "encoded by torch, which starts slowly" in record.getMessage()
    assert str(it.profile.model) in record.getMessage()


def test_a_tower_that_cannot_be_exported_leaves_torch_with_a_warning(
    made: Callable[[str], Made], cache: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = made("prompted")
    monkeypatch.setattr("esvector.encode.export.export_onnx", no_export)
    encoder = open_query_encoder(it.profile, it.probes, cache=cache)
    assert encoder.how == "torch"
    np.testing.assert_allclose(encoder(TEXTS), it.vectors, atol=1e-6)
    assert "this model cannot be exported" in caplog.text
    assert "whole graph" not in caplog.text
    assert list(cache.iterdir()) == []


def test_a_model_with_a_tokenizer_of_its_own_is_asked_as_it_is(tmp_path: Path, cache: Path) -> None:
    folder = models.symmetric(tmp_path / "model")
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"truncation_side": "left"}))
    encoder = load_encoder(EncoderProfile(str(folder)), device="cpu")
    with pytest.raises(EncoderError, match="tokenizes in a way of its own"):
        export_query(encoder, cache)
    opened = open_query_encoder(encoder.profile, probe_vectors(encoder), cache=cache)
    assert opened.how == "torch"
    np.testing.assert_allclose(opened(TEXTS), encoder.encode_query(TEXTS), atol=1e-6)


def test_where_onnxruntime_is_not_installed_torch_is_used(
    made: Callable[[str], Made], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    it = made("symmetric")
    monkeypatch.setattr(queries, "find_spec", lambda _: None)
    encoder = open_query_encoder(it.profile, it.probes, device="cpu", cache=it.cache)
    assert encoder.how == "torch"
    np.testing.assert_allclose(encoder(TEXTS), it.vectors, atol=1e-6)


def test_an_export_that_is_there_is_used_and_one_that_is_damaged_is_not(
    made: Callable[[str], Made], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = made("symmetric")
    exported: list[Path] = []

    def export(tower: ModelTower, profile: EncoderProfile, folder: Path) -> LightFiles:
        exported.append(folder)
        return export_light(tower, profile, folder)

    monkeypatch.setattr(queries, "export_light", export)
    files = filled(it, cache)
    assert export_query(it.encoder, cache) == files
    assert not exported
    garbage_tokenizer(files, files)
    assert query_cache.is_intact(export_query(it.encoder, cache))
    assert exported == [cache]


# Another encoder


def test_a_model_that_does_not_reproduce_the_probes_is_refused_and_not_exported(
    made: Callable[[str], Made], cache: Path
) -> None:
    it, other = made("symmetric"), made("last_token")
    for probes in (other.probes, it.probes[::-1], -it.probes, it.probes * 2):
        with pytest.raises(EncoderMismatchError, match=f"query encoder of {it.profile.model} has the right files"):
            open_query_encoder(it.profile, probes, cache=cache)
    assert not cache.exists()


def test_one_probe_is_enough(made: Callable[[str], Made], cache: Path) -> None:
    it = made("symmetric")
    probes = it.probes.copy()
    probes[5] = probes[4]
    with pytest.raises(EncoderMismatchError):
        open_query_encoder(it.profile, probes, cache=cache)


def test_probes_of_other_dims_are_refused(made: Callable[[str], Made], cache: Path) -> None:
    it = made("symmetric")
    with pytest.raises(EncoderMismatchError):
        open_query_encoder(it.profile, it.probes[:, :16], cache=cache)


def test_an_index_without_probes_is_searched_by_its_ids(made: Callable[[str], Made]) -> None:
    it = made("symmetric")
    encoder = open_query_encoder(it.profile, np.zeros((0, models.DIMS), np.float32), cache=it.cache)
    np.testing.assert_allclose(encoder(TEXTS), it.vectors, atol=1e-5)


def test_a_changed_model_is_refused(made: Callable[[str], Made], tmp_path: Path, cache: Path) -> None:
    it = made("symmetric")
    folder = Path(shutil.copytree(it.profile.model, tmp_path / "copy"))
    models.change_weight(folder)
    with pytest.raises(EncoderMismatchError, match=f"weights: '{it.profile.weights}' expected"):
        open_query_encoder(replace(it.profile, model=str(folder)), it.probes, cache=cache)


def test_an_index_that_does_not_say_how_queries_are_encoded(cache: Path) -> None:
    unchecked = EncoderProfile("some-service/its-model", kind="given", dims=32, similarity="cosine", normalize=True)
    with pytest.raises(EncoderError, match="does not say how some-service/its-model encodes queries") as error:
        open_query_encoder(unchecked, np.zeros((0, 32), np.float32), cache=cache)
    assert "encoder=" in error.value.remedy


# An application's encoder


def test_an_encoder_of_ones_own_is_tried_on_the_probes() -> None:
    own = HashEncoder(32)
    probes = own.encode_query(PROBES)
    opened = use_encoder(own, own.profile, probes)
    assert opened.how == "own"
    assert np.array_equal(opened(TEXTS), own.encode_query(TEXTS))
    pretender = HashEncoder(32, "other")
    pretender.profile = own.profile
    with pytest.raises(EncoderMismatchError, match="hash-32 has the right files and settings"):
        use_encoder(pretender, own.profile, probes)
    with pytest.raises(EncoderMismatchError, match="is not the one expected"):
        use_encoder(HashEncoder(32, "other"), own.profile, probes)


def test_an_encoder_of_ones_own_need_only_match_what_is_stated() -> None:
    stated = EncoderProfile("some-service/its-model", kind="given", dims=32, similarity="cosine", normalize=True)
    own = HashEncoder(32)
    own.profile = replace(own.profile, query_prompt="query: ", separator="[SEP]")
    nothing = np.zeros((0, 32), np.float32)
    assert use_encoder(own, stated, nothing)(TEXTS).shape == (3, 32)
    with pytest.raises(EncoderMismatchError, match="query_prompt: 'q: ' expected, 'query: ' found"):
        use_encoder(own, replace(stated, query_prompt="q: "), nothing)
    with pytest.raises(EncoderMismatchError, match="dims: 64 expected, 32 found"):
        use_encoder(own, replace(stated, dims=64), nothing)


# Queries


@pytest.mark.parametrize("how", ["light", "torch"])
def test_a_query_without_a_usable_vector_is_refused_and_others_are_not(
    how: str, made: Callable[[str], Made], cache: Path
) -> None:
    it = made("router")
    if how == "torch":
        cache.touch()
    encoder = open_query_encoder(it.profile, it.probes, cache=it.cache if how == "light" else cache)
    for text in ("", "half \ud800 of a pair"):
        with pytest.raises(EncoderError, match="no usable vector for the query") as error:
            encoder([text])
        assert error.value.remedy == "ask with other words"
    np.testing.assert_allclose(encoder(TEXTS), it.vectors, atol=1e-5)


def test_the_same_query_is_encoded_once() -> None:
    own = HashEncoder(32)
    opened = use_encoder(own, own.profile, own.encode_query(PROBES))
    asked: Sequence[str] = ["a", "b", "a", "a"]
    before = own.encoded
    for _ in range(3):
        assert np.array_equal(opened(asked)[2], opened(["a"])[0])
    assert own.encoded - before == 2
