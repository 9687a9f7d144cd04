"""One contract for every kind of encoder: the vectors of sentence-transformers, from one profile, side by side."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer
from transformers import AutoTokenizer, DPRContextEncoder, DPRQuestionEncoder

from esvector.encode.encoder import ModelEncoder
from esvector.encode.loading import load_encoder
from esvector.encode.profile import EncoderProfile, Kind, Side
from esvector.encode.tower import ModelTower
from esvector.errors import ConfigError, EncoderError, EncoderMismatchError
from tests.support import models

pytestmark = pytest.mark.usefixtures("one_thread")

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


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return Built(tmp_path_factory.mktemp("kinds"))


@pytest.fixture
def copy(built: Built, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a model to change, elsewhere and under another name."""
    return lambda name: Path(shutil.copytree(built.folder(name), tmp_path / "elsewhere"))


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


# The contract


@pytest.mark.parametrize("name", CASES)
def test_vectors_are_those_of_sentence_transformers(name: str, built: Built) -> None:
    case, encoder = CASES[name], built.encoder(name)
    for side in SIDES:
        vectors, others = embed(encoder, side), theirs(case, built.folder(name), side)
        if encoder.profile.similarity == "cosine":
            assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
            others = others / np.linalg.norm(others, axis=1, keepdims=True)
        assert_same(vectors, others)
        assert vectors.dtype == np.float32
        assert vectors.shape == (len(TEXTS), encoder.profile.dims)


@pytest.mark.parametrize("name", CASES)
def test_sides_differ_where_they_should(name: str, built: Built) -> None:
    encoder = built.encoder(name)
    query, document = embed(encoder, "query"), embed(encoder, "document")
    if name in ("symmetric", "asymmetric"):
        assert np.array_equal(query, document)
    else:
        assert cosines(query, document).max() < 0.9999


@pytest.mark.parametrize("name", CASES)
def test_the_profile_is_complete_and_says_what_it_is(name: str, built: Built) -> None:
    case, profile = CASES[name], built.encoder(name).profile
    assert profile.kind == case.kind
    assert (profile.query_prompt, profile.document_prompt) == (case.query_prompt, case.document_prompt)
    assert profile.two_towers == (name in TWO_TOWERS)
    missing = {field for field in EncoderProfile.__slots__ if getattr(profile, field) is None}
    absent = {"revision", "query_revision"} | (set() if case.two_models else {"query_model"})
    if name in ONE_TOWER:
        absent |= {"query_weights", "query_pooling", "query_max_length"}
    if name == "router":  # a table of tokens reads everything
        absent |= {"query_max_length"}
    assert missing == absent
    assert profile.dims == (models.DENSE_DIMS if name == "instructor" else models.DIMS)
    assert profile.similarity == ("dot" if name in ("asymmetric", "dual", "dpr") else "cosine")
    assert profile.normalize == (profile.similarity == "cosine")
    assert (profile.dtype, profile.family, profile.separator) == ("float32", "", " ")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("symmetric", ("mean", None)),
        ("asymmetric", ("cls", None)),
        ("instructor", ("mean without prompt", None)),
        ("last_token", ("lasttoken", None)),
        ("dual", ("cls", "cls")),
        ("dpr", ("cls", "cls")),
        ("router", ("mean", "static")),
        ("router_deep", ("mean", "mean")),
    ],
)
def test_pooling(name: str, expected: tuple[str, str | None], built: Built) -> None:
    profile = built.encoder(name).profile
    assert (profile.pooling, profile.query_pooling) == expected


@pytest.mark.parametrize("name", CASES)
def test_every_kind_is_tokenized_directly(name: str, built: Built) -> None:
    assert all(isinstance(loaded.tower, ModelTower) for loaded in built.encoder(name).towers.values())


@pytest.mark.parametrize("name", CASES)
def test_a_text_alone_or_among_others_has_the_same_vector(name: str, built: Built) -> None:
    for side in SIDES:
        alone = np.concatenate([embed(built.encoder(name), side, [text]) for text in TEXTS])
        assert_same(alone, embed(built.encoder(name), side))


@pytest.mark.parametrize("name", CASES)
def test_no_texts(name: str, built: Built) -> None:
    for side in SIDES:
        assert embed(built.encoder(name), side, []).shape == (0, built.encoder(name).profile.dims)


# One side alone


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", TWO_TOWERS)
def test_one_side_needs_nothing_of_the_other(name: str, side: Side, built: Built, copy: Callable[[str], Path]) -> None:
    case, whole = CASES[name], built.encoder(name)
    folder = copy(name)
    other: Side = "document" if side == "query" else "query"
    gone = folder / str(case.query_folder if other == "query" else case.document_folder)
    if case.two_models:
        shutil.rmtree(gone)
    else:
        for file in gone.iterdir():
            file.unlink()
    recorded = replace(whole.profile, model=case.profile(folder).model, query_model=case.profile(folder).query_model)
    encoder = load_encoder(recorded, side, "cpu")
    assert np.array_equal(embed(encoder, side), embed(whole, side))
    assert (encoder.profile.space_id, encoder.profile.query_id) == (whole.profile.space_id, whole.profile.query_id)
    assert not encoder.profile.differences(whole.profile)
    assert set(encoder.towers) == {side}
    with pytest.raises(EncoderError, match=f"the {other} side of .* is not loaded\n.*side='{other}'"):
        embed(encoder, other)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", ONE_TOWER)
def test_one_tower_serves_both_sides_whichever_was_asked_for(name: str, side: Side, built: Built) -> None:
    encoder = load_encoder(CASES[name].profile(built.folder(name)), side, "cpu")
    for each in SIDES:
        assert np.array_equal(embed(encoder, each), embed(built.encoder(name), each))
    assert encoder.profile == built.encoder(name).profile


def test_one_side_of_a_router_has_no_weights_of_the_other(built: Built) -> None:
    from esvector.encode.backends.torch import TorchBackend

    sizes = {}
    for side in SIDES:
        tower = load_encoder(built.encoder("router_deep").profile, side, "cpu").towers[side].tower
        assert isinstance(tower, ModelTower)
        assert isinstance(tower.backend, TorchBackend)
        names = [name for name, _ in tower.backend.embedder.named_parameters() if ".layer." in name]
        sizes[side] = len({name.split(".layer.")[1][0] for name in names})
    assert sizes == {"query": 1, "document": 2}


# Ids


@pytest.mark.parametrize("name", CASES)
def test_ids_are_those_of_a_copy_elsewhere_and_of_the_same_model_loaded_again(
    name: str, built: Built, copy: Callable[[str], Path]
) -> None:
    before = built.encoder(name).profile
    folder = copy(name)
    (folder / "README.md").write_text("another readme")
    after = load_encoder(CASES[name].profile(folder), device="cpu").profile
    assert (after.space_id, after.query_id) == (before.space_id, before.query_id)
    assert not after.differences(before)
    assert load_encoder(after, device="cpu").profile == after


@pytest.mark.parametrize("name", CASES)
def test_a_changed_document_weight_is_another_space_and_is_refused(
    name: str, built: Built, copy: Callable[[str], Path]
) -> None:
    case, before = CASES[name], built.encoder(name).profile
    folder = copy(name)
    models.change_weight(folder / case.document_folder)
    profile = case.profile(folder)
    after = load_encoder(profile, device="cpu").profile
    assert after.space_id != before.space_id
    assert after.query_id != before.query_id
    recorded = replace(before, model=profile.model, query_model=profile.query_model)
    with pytest.raises(EncoderMismatchError, match="weights") as error:
        load_encoder(recorded, device="cpu")
    assert str(before.weights) in str(error.value)
    assert str(after.weights) in str(error.value)


@pytest.mark.parametrize("name", TWO_TOWERS)
def test_a_changed_query_weight_is_another_query_side_of_the_same_space(
    name: str, built: Built, copy: Callable[[str], Path]
) -> None:
    case, before = CASES[name], built.encoder(name).profile
    folder = copy(name)
    models.change_weight(folder / str(case.query_folder))
    profile = case.profile(folder)
    after = load_encoder(profile, device="cpu").profile
    assert after.space_id == before.space_id
    assert after.query_id != before.query_id
    assert set(after.differences(before)) == {"query_weights"}
    recorded = replace(before, model=profile.model, query_model=profile.query_model)
    with pytest.raises(EncoderMismatchError, match="query_weights") as error:
        load_encoder(recorded, "query", "cpu")
    assert str(before.query_weights) in str(error.value)
    assert str(after.query_weights) in str(error.value)
    assert np.array_equal(
        load_encoder(recorded, "document", "cpu").encode_document(TEXTS), embed(built.encoder(name), "document")
    ), "what documents need is untouched"


def test_a_changed_pooling_is_refused(built: Built, copy: Callable[[str], Path]) -> None:
    folder = copy("symmetric")
    edit(folder / "1_Pooling" / "config.json", pooling_mode="cls")
    recorded = replace(built.encoder("symmetric").profile, model=str(folder))
    with pytest.raises(EncoderMismatchError, match="pooling: 'mean' expected, 'cls' found"):
        load_encoder(recorded, device="cpu")


def test_what_is_recorded_wins_over_files_that_changed(built: Built, copy: Callable[[str], Path]) -> None:
    """Prompts and lengths are settings: the index remembers what they were."""
    folder = copy("prompted")
    edit(folder / "config_sentence_transformers.json", prompts={"query": "q: ", "passage": "p: "}, truncate_dim=8)
    edit(folder / "tokenizer_config.json", model_max_length=16)
    edit(folder / "config.json", torch_dtype="bfloat16", transformers_version="4.0.0")
    before = built.encoder("prompted")
    after = load_encoder(replace(before.profile, model=str(folder)), device="cpu")
    assert (after.profile.space_id, after.profile.query_id) == (before.profile.space_id, before.profile.query_id)
    for side in SIDES:
        assert np.array_equal(embed(after, side), embed(before, side))
    fresh = load_encoder(EncoderProfile(str(folder)), device="cpu").profile
    assert set(fresh.differences(before.profile)) == {"query_prompt", "document_prompt", "dims", "max_length"}


@pytest.mark.parametrize(
    ("asked", "space"),
    [
        ({"document_prompt": "d: "}, True),
        ({"max_length": 20}, True),
        ({"dims": 16}, True),
        ({"similarity": "dot"}, True),
        ({"separator": "[SEP]"}, True),
        ({"query_prompt": "q: "}, False),
    ],
)
def test_a_setting_that_decides_vectors_is_in_the_ids(asked: dict[str, Any], space: bool, built: Built) -> None:
    before = built.encoder("symmetric").profile
    after = load_encoder(EncoderProfile(str(built.folder("symmetric")), **asked), device="cpu").profile
    assert (after.space_id != before.space_id) == space
    assert after.query_id != before.query_id


@pytest.mark.parametrize("asked", [{"dtype": "bfloat16"}, {"dtype": "float16"}, {"backend": "onnx"}])
def test_what_computes_the_vectors_is_not(asked: dict[str, str], built: Built) -> None:
    before = built.encoder("symmetric").profile
    after = load_encoder(replace(before, **asked), device="cpu").profile  # type: ignore[arg-type]
    assert (after.space_id, after.query_id) == (before.space_id, before.query_id)
    assert after.dtype == asked.get("dtype", "float32")


def test_a_dtype_to_compute_in(built: Built) -> None:
    with pytest.raises(ConfigError, match="'int8' is not one to encode in"):
        load_encoder(EncoderProfile(str(built.folder("symmetric")), dtype="int8"), device="cpu")


# Prompts


def test_the_passage_prompt_is_reached(built: Built) -> None:
    """encode_document of sentence-transformers takes its own empty prompt "document" instead."""
    document = embed(built.encoder("prompted"), "document")
    model = reference(built.folder("prompted"))
    assert cosines(document, np.asarray(model.encode_document(TEXTS))).max() < 0.999
    assert_same(document, np.asarray(model.encode([f"passage: {text}" for text in TEXTS], prompt="")))


def test_no_default_prompt_is_put_before_texts_behind_our_back(built: Built, copy: Callable[[str], Path]) -> None:
    folder = copy("prompted")
    edit(
        folder / "config_sentence_transformers.json",
        prompts={"STS": "find passages: ", "query": "", "document": ""},
        default_prompt_name="STS",
    )
    encoder = load_encoder(EncoderProfile(str(folder)), device="cpu")
    plain = load_encoder(
        EncoderProfile(str(built.folder("prompted")), query_prompt="", document_prompt=""), device="cpu"
    )
    for side in SIDES:
        assert np.array_equal(embed(encoder, side), embed(plain, side))
    assert cosines(embed(encoder, "query"), np.asarray(reference(folder).encode(TEXTS))).max() < 0.9999
    assert "STS" in encoder.warnings[0]


def test_prompts_of_the_user(built: Built) -> None:
    folder = built.folder("symmetric")
    encoder = load_encoder(EncoderProfile(str(folder), query_prompt="ask ", document_prompt="tell "), device="cpu")
    plain = built.encoder("symmetric")
    assert encoder.profile.kind == "prompted"
    assert np.allclose(embed(encoder, "query"), plain.encode_query([f"ask {text}" for text in TEXTS]), atol=1e-6)
    assert np.allclose(embed(encoder, "document"), plain.encode_document([f"tell {text}" for text in TEXTS]), atol=1e-6)


def test_titles_are_read_with_the_text(built: Built) -> None:
    folder = str(built.folder("symmetric"))
    plain = built.encoder("symmetric")
    joined = load_encoder(EncoderProfile(folder, separator=" : "), device="cpu")
    assert_same(joined.encode_document(["sea", "sea"], ["water", None]), plain.encode_query(["water : sea", "sea"]))
    placed = load_encoder(EncoderProfile(folder, document_prompt="name: {title} | text: "), device="cpu")
    assert_same(
        placed.encode_document(["sea", "sea"], ["water", None]),
        plain.encode_query(["name: water | text: sea", "name: none | text: sea"]),
    )


def test_a_local_copy_of_an_instructor_still_leaves_its_prompts_out(built: Built, tmp_path: Path) -> None:
    """sentence-transformers knows these models by their names on the hub only."""
    folder = Path(shutil.copytree(built.folder("instructor"), tmp_path / "instructor-base"))
    edit(folder / "1_Pooling" / "config.json", include_prompt=True)
    asked = EncoderProfile(str(folder), query_prompt="query: ", document_prompt="passage: ")
    encoder = load_encoder(asked, device="cpu")
    assert encoder.profile.pooling == "mean without prompt"
    assert encoder.profile.family == "instructor"
    for side in SIDES:
        assert np.array_equal(embed(encoder, side), embed(built.encoder("instructor"), side))
    pooled = np.asarray(reference(folder).encode(TEXTS, prompt="query: "))
    assert cosines(embed(encoder, "query"), pooled).min() < 0.99
    assert encoder.profile.space_id == built.encoder("instructor").profile.space_id


# Lengths


@pytest.mark.parametrize("name", CASES)
def test_long_texts_are_cut_where_sentence_transformers_cuts_and_counted(name: str, built: Built) -> None:
    case, encoder = CASES[name], built.encoder(name)
    long = " ".join(["water", "stone", "bird"] * 430)
    for side in SIDES:
        batcher = encoder.batcher(side)
        window = batcher.encode(batcher.tower.tokenize([case.prompt(side) + text for text in (long, "water")]))
        bounded = not (name == "router" and side == "query")
        assert window.truncated == (1 if bounded else 0)
        assert window.tokens[0] > 10 * 128
        others = theirs(case, built.folder(name), side, [long])
        if encoder.profile.normalize:
            others = others / np.linalg.norm(others)
        assert_same(window.vectors[:1], others)


def test_tokens_of_documents_are_counted_before_the_cut(built: Built) -> None:
    encoder = built.encoder("prompted")
    tokenizer: Any = AutoTokenizer.from_pretrained(built.folder("prompted"))
    expected = [len(ids) for ids in tokenizer([f"passage: {text}" for text in TEXTS], truncation=False)["input_ids"]]
    assert encoder.count_tokens(TEXTS).tolist() == expected
    assert max(expected) > (encoder.profile.max_length or 0)


def test_each_route_of_a_router_has_its_own_length(built: Built) -> None:
    """sentence-transformers' model.max_seq_length is the longest of all routes."""
    encoder = built.encoder("router_deep")
    assert (encoder.profile.query_max_length, encoder.profile.max_length) == (32, 64)
    text = " ".join(["water"] * 50)
    ends = [f"{text} stone", f"{text} bird"]
    assert np.array_equal(*encoder.encode_query(ends)), "read to the 32nd token"
    assert not np.array_equal(*encoder.encode_document(ends)), "read to the 64th"
    table = built.encoder("router").profile
    assert (table.query_max_length, table.max_length) == (None, 64)


@pytest.mark.parametrize("length", [8, 100, 128])
def test_another_length_than_the_models(length: int, built: Built) -> None:
    folder = built.folder("symmetric")
    encoder = load_encoder(EncoderProfile(str(folder), max_length=length), device="cpu")
    model = reference(folder)
    model.max_seq_length = length
    assert_same(embed(encoder, "document"), np.asarray(model.encode(TEXTS, prompt="")))
    assert encoder.profile.max_length == length
    assert cosines(embed(encoder, "document"), embed(built.encoder("symmetric"), "document")).min() < 0.99


def test_another_length_for_queries(built: Built) -> None:
    asked = replace(built.encoder("router_deep").profile, query_max_length=16, max_length=20)
    encoder = load_encoder(asked, device="cpu")
    for side, length in (("query", 16), ("document", 20)):
        tower = encoder.towers[side].tower  # type: ignore[index]
        assert tower.tokenize(TEXTS).lengths.max() == length


@pytest.mark.parametrize("name", ["symmetric", "dpr", "router_deep"])
def test_a_length_beyond_the_table_of_positions(name: str, built: Built) -> None:
    with pytest.raises(ConfigError, match="max_length is 129, but the model has positions for 128 tokens"):
        load_encoder(CASES[name].profile(built.folder(name), max_length=129), device="cpu")


def test_a_model_that_promises_more_than_its_table_of_positions(copy: Callable[[str], Path]) -> None:
    folder = copy("symmetric")
    edit(folder / "tokenizer_config.json", model_max_length=512)
    encoder = load_encoder(EncoderProfile(str(folder)), device="cpu")
    assert encoder.profile.max_length == 128
    assert_same(embed(encoder, "document"), np.asarray(reference(folder).encode(TEXTS, prompt="")))


def test_a_table_of_tokens_is_not_cut_by_what_its_tokenizer_was_last_used_for(
    built: Built, copy: Callable[[str], Path]
) -> None:
    folder = copy("router")
    file = str(folder / "query_0_StaticEmbedding" / "tokenizer.json")
    tokenizer = Tokenizer.from_file(file)
    tokenizer.enable_truncation(8)
    tokenizer.save(file)
    encoder = load_encoder(EncoderProfile(str(folder)), device="cpu")
    assert np.array_equal(embed(encoder, "query"), embed(built.encoder("router"), "query"))
    assert cosines(embed(encoder, "query"), np.asarray(reference(folder).encode_query(TEXTS))).min() < 0.999
    assert encoder.profile.query_id == built.encoder("router").profile.query_id


def test_a_model_that_is_a_table_of_tokens_alone(built: Built, tmp_path: Path) -> None:
    table = built.folder("router") / "query_0_StaticEmbedding"
    static = StaticEmbedding.load(str(table))
    SentenceTransformer(modules=[static], device="cpu").save_pretrained(str(tmp_path / "table"))
    encoder = load_encoder(EncoderProfile(str(tmp_path / "table")), device="cpu")
    assert_same(embed(encoder, "document"), embed(built.encoder("router"), "query"))
    assert (encoder.profile.pooling, encoder.profile.max_length) == ("static", None)
    with pytest.raises(EncoderError, match="text 2 of 2 cannot be encoded: the text is empty"):
        encoder.encode_query(["water", ""])


def test_a_zero_vector_is_refused_for_cosine_and_kept_for_dot(copy: Callable[[str], Path]) -> None:
    """A table of tokens gives one for words that it knows nothing of."""
    from safetensors.torch import load_file, save_file

    folder = copy("router")
    file = folder / "query_0_StaticEmbedding" / "model.safetensors"
    ((name, table),) = load_file(file).items()
    table[models.vocabulary().index("water")] = 0
    save_file({name: table}, file)
    with pytest.raises(EncoderError, match="text 2 of 2 cannot be encoded: the encoder gave a zero vector"):
        load_encoder(EncoderProfile(str(folder)), "query", "cpu").encode_query(["stone", "water"])
    dot = load_encoder(EncoderProfile(str(folder), similarity="dot"), "query", "cpu")
    stone, water = dot.encode_query(["stone", "water"])
    assert stone.any()
    assert not water.any()


def test_a_model_that_cuts_the_beginning_is_left_to_itself(copy: Callable[[str], Path]) -> None:
    """What direct tokenizing would get wrong is noticed, and goes through sentence-transformers whole."""
    folder = copy("prompted")
    edit(folder / "tokenizer_config.json", truncation_side="left")
    encoder = load_encoder(EncoderProfile(str(folder)), device="cpu")
    for side in SIDES:
        assert_same(embed(encoder, side), theirs(CASES["prompted"], folder, side))
    assert encoder.profile.dims == models.DIMS


def test_a_model_of_any_length_may_cut_the_beginning(tmp_path: Path) -> None:
    """No probe is long enough to show it."""
    folder = models.symmetric(tmp_path, position_limit=4096, max_length=4000)
    edit(folder / "tokenizer_config.json", truncation_side="left")
    encoder = load_encoder(EncoderProfile(str(folder)), device="cpu")
    text = "stone bird " * 50 + "water sea " * 2000
    assert_same(encoder.encode_document([text]), np.asarray(reference(folder).encode([text], prompt="")))


# Number formats


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_checkpoint_of_two_bytes_a_weight_is_computed_in_four(dtype: Any, tmp_path: Path) -> None:
    folder = models.half_precision(tmp_path, dtype)
    encoder = load_encoder(EncoderProfile(str(folder)), device="cpu")
    tower = encoder.towers["document"].tower
    assert isinstance(tower, ModelTower)
    assert tower.backend.dtype == encoder.profile.dtype == "float32"
    assert_same(embed(encoder, "document"), np.asarray(reference(folder).encode(TEXTS, prompt="")))


@pytest.mark.parametrize("name", ["symmetric", "instructor", "last_token", "router", "router_deep"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_gives_unit_vectors_all_the_same(name: str, dtype: str, built: Built) -> None:
    encoder = load_encoder(CASES[name].profile(built.folder(name), dtype=dtype), device="cpu")
    for side in SIDES:
        tower = encoder.towers[side].tower
        assert isinstance(tower, ModelTower)
        assert tower.backend.dtype == dtype
        vectors = embed(encoder, side)
        assert vectors.dtype == np.float32
        assert np.isfinite(vectors).all()
        assert np.abs((vectors.astype(np.float64) ** 2).sum(axis=1) - 1).max() < 1e-6
        assert cosines(vectors, embed(built.encoder(name), side)).min() > 0.99
        tokens = tower.tokenize([encoder.profile.query_input(text) for text in TEXTS])
        raw = tower.backend.collect([tower.backend.forward(*tokens.padded(np.arange(len(TEXTS))))])
        assert np.abs((raw.astype(np.float64) ** 2).sum(axis=1) - 1).max() > 1e-6, "the model's own are not"


# Dims


@pytest.mark.parametrize("name", ["symmetric", "instructor", "router"])
def test_cut_vectors_are_those_of_sentence_transformers_at_unit_length(name: str, built: Built) -> None:
    case, folder = CASES[name], built.folder(name)
    encoder = load_encoder(case.profile(folder, dims=16), device="cpu")
    model = reference(folder, truncate_dim=16)
    for side in SIDES:
        encode = model.encode_query if side == "query" else model.encode_document
        vectors = embed(encoder, side)
        assert vectors.shape == (len(TEXTS), 16)
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
        assert_same(vectors, np.asarray(encode(TEXTS, prompt=case.prompt(side), normalize_embeddings=True)))


def test_cut_vectors_of_a_dot_product_keep_their_length(built: Built) -> None:
    encoder = load_encoder(EncoderProfile(str(built.folder("asymmetric")), dims=16), device="cpu")
    assert np.array_equal(embed(encoder, "document"), embed(built.encoder("asymmetric"), "document")[:, :16])


def test_dims_that_the_model_ships(built: Built, copy: Callable[[str], Path]) -> None:
    folder = copy("symmetric")
    edit(folder / "config_sentence_transformers.json", truncate_dim=16)
    assert load_encoder(EncoderProfile(str(folder)), device="cpu").profile.dims == 16
    assert load_encoder(EncoderProfile(str(folder), dims=32), device="cpu").profile.dims == 32


@pytest.mark.parametrize("name", ["symmetric", "dual", "router"])
def test_more_dims_than_the_model_has(name: str, built: Built) -> None:
    with pytest.raises(ConfigError, match=r"dims is 33, but .* gives 32"):
        load_encoder(CASES[name].profile(built.folder(name), dims=33), device="cpu")


# Two models


def test_two_models_of_different_dims(built: Built, tmp_path: Path) -> None:
    other = models.symmetric(tmp_path, dims=16)
    with pytest.raises(EncoderError, match="document tower has 32 dims, the query tower 16"):
        load_encoder(EncoderProfile(str(built.folder("symmetric")), query_model=str(other)), device="cpu")


def test_the_partner_of_a_passage_model_of_dpr_is_found_beside_it(built: Built, tmp_path: Path) -> None:
    for ours, published in (("question", "question"), ("context", "ctx")):
        shutil.copytree(built.folder("dpr") / ours, tmp_path / f"dpr-{published}_encoder-single-nq-base")
    encoder = load_encoder(EncoderProfile(str(tmp_path / "dpr-ctx_encoder-single-nq-base")), device="cpu")
    assert encoder.profile.kind == "dual"
    assert set(encoder.profile.differences(built.encoder("dpr").profile)) == {"separator"}
    assert encoder.profile.separator == " [SEP] "
    for side in SIDES:
        assert np.array_equal(embed(encoder, side), embed(built.encoder("dpr"), side))


def test_a_dpr_folder_that_lacks_weights_is_not_filled_by_chance(copy: Callable[[str], Path]) -> None:
    from safetensors.torch import load_file, save_file

    folder = copy("dpr")
    weights = folder / "context" / "model.safetensors"
    tensors = load_file(weights)
    gone = next(name for name in tensors if "layer.1.output.dense.weight" in name)
    del tensors[gone]
    save_file(tensors, weights)
    with pytest.raises(EncoderError, match=r"lacks 1 weights of a DPR encoder, such as encoder\.layer\.1"):
        load_encoder(CASES["dpr"].profile(folder), device="cpu")


def test_a_dpr_that_projects_is_refused(copy: Callable[[str], Path]) -> None:
    folder = copy("dpr")
    edit(folder / "context" / "config.json", projection_dim=16)
    with pytest.raises(EncoderError, match="projects its vectors"):
        load_encoder(CASES["dpr"].profile(folder), device="cpu")


@pytest.mark.parametrize(
    "side",
    [None, "query"],
)
def test_the_query_prompt_of_two_models_is_that_of_the_question_model(
    side: Side | None, copy: Callable[[str], Path]
) -> None:
    folder = copy("dual")
    edit(folder / "query" / "config_sentence_transformers.json", prompts={"query": "ask: "})
    edit(folder / "document" / "config_sentence_transformers.json", prompts={"passage": "tell: "})
    profile = load_encoder(CASES["dual"].profile(folder), side, "cpu").profile
    assert profile.query_prompt == "ask: "
    if side is None:
        assert profile.document_prompt == "tell: "
