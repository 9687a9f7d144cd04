"""Cross-encoders: loaded by the rules of encoders, and scores that are the model's own."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder

from esvector import EncoderProfile, Passport
from esvector.encode.reranking import PairReranker
from esvector.errors import ConfigError, EncoderError, SearchError
from esvector.search.rerank import judged_text, open_reranker, rerank, rerank_many
from esvector.types import Hit, Leg, Passage
from tests.support import models

QUERY = "where does the river meet the sea"
TEXTS = models.words(24, 7)  # of 1 to 120 words; the model reads 64 tokens


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.cross_encoder(tmp_path_factory.mktemp("models") / "cross")


class Overlap:
    """Scores by the share of the query's words that a text has: a re-ranker of an application's own."""

    def __init__(self) -> None:
        self.calls = 0

    def score(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        self.calls += 1
        wanted = set(query.lower().split())
        return np.array([len(wanted & set(text.lower().split())) / len(wanted) for text in texts], np.float32)


def hits_of(texts: Sequence[str]) -> list[Hit]:
    return [Hit(f"d{n}", 1 - n / 100, {"text": text}) for n, text in enumerate(texts)]


def text_of(hit: Hit) -> str:
    return str(hit.source["text"])


def test_scores_are_those_of_the_library_itself(folder: Path) -> None:
    ours = open_reranker(str(folder), "cpu").score(QUERY, TEXTS)
    theirs = CrossEncoder(str(folder), device="cpu")
    assert ours.dtype == np.float32
    assert ours.shape == (24,)
    assert len(set(ours.tolist())) > 20
    assert ours == pytest.approx(theirs.predict([(QUERY, text) for text in TEXTS]), abs=1e-6)
    for entry in theirs.rank(QUERY, TEXTS):
        assert ours[int(entry["corpus_id"])] == pytest.approx(entry["score"], abs=1e-6)
    assert 0 < ours.min() < ours.max() < 1  # a sigmoid, where the model names nothing else


def test_a_model_that_names_no_activation_of_its_own_gives_raw_scores(folder: Path, tmp_path: Path) -> None:
    """As those of ms-marco do."""
    model = CrossEncoder(str(folder), device="cpu", activation_fn=torch.nn.Identity())
    model.save_pretrained(str(tmp_path / "raw"), create_model_card=False)
    raw = open_reranker(str(tmp_path / "raw"), "cpu").score(QUERY, TEXTS)
    assert raw.min() < 0
    assert 1 / (1 + np.exp(-raw)) == pytest.approx(open_reranker(str(folder), "cpu").score(QUERY, TEXTS), abs=1e-5)


def test_a_longer_text_is_cut_and_the_rest_of_no_matter(folder: Path) -> None:
    reranker = open_reranker(str(folder), "cpu")
    long = " ".join(models.WORDS[:300])
    first, longer, other = reranker.score(QUERY, [long, f"{long} and more of it", f"{' '.join(models.WORDS[5:305])}"])
    assert first == pytest.approx(longer, abs=1e-6)
    assert abs(first - other) > 1e-4


def test_length_can_be_chosen_up_to_what_the_model_has_positions_for(folder: Path) -> None:
    short = open_reranker(str(folder), "cpu", max_length=16)
    long = " ".join(models.WORDS[:60])
    assert short.score("sea", [long])[0] == pytest.approx(
        short.score("sea", [" ".join(models.WORDS[:20])])[0], abs=1e-6
    )
    assert open_reranker(str(folder), "cpu", max_length=128).model.max_seq_length == 128
    with pytest.raises(ConfigError, match="max_length is 129, but the model has positions for 128 tokens"):
        open_reranker(str(folder), "cpu", max_length=129)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_model_that_states_no_length_is_held_to_its_positions(tmp_path: Path, kind: Any) -> None:
    """Of RoBERTa's positions two are no token's, which sentence-transformers does not know."""
    folder = models.cross_encoder(tmp_path / "cross", max_length=10**30, kind=kind)
    scores = open_reranker(str(folder), "cpu").score(QUERY, [" ".join(models.WORDS)])
    assert np.isfinite(scores).all()


def test_several_queries_at_once_give_what_each_gives_alone(folder: Path) -> None:
    reranker = open_reranker(str(folder), "cpu", batch_size=7)
    assert isinstance(reranker, PairReranker)
    queries = [QUERY, "bread", "how to sail a ship in the night"]
    hits = [hits_of(TEXTS), hits_of(TEXTS[:5]), []]
    together = rerank_many(queries, hits, reranker, text_of)
    for query, found, ranked in zip(queries, hits, together, strict=True):
        alone = rerank(query, found, reranker, text_of)
        assert [hit.id for hit in ranked] == [hit.id for hit in alone]
        assert [hit.score for hit in ranked] == pytest.approx([hit.score for hit in alone], abs=1e-6)
    assert rerank_many([], [], reranker, text_of) == []


def test_threads_share_one_model_and_take_turns(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reranker = open_reranker(str(folder), "cpu")
    expected = reranker.score(QUERY, TEXTS)
    together = threading.Barrier(8)
    predict, running = reranker.model.predict, threading.Lock()

    def alone(*arguments: Any, **options: Any) -> Any:
        assert running.acquire(blocking=False), "two threads are on the device"
        try:
            return predict(*arguments, **options)
        finally:
            running.release()

    monkeypatch.setattr(reranker.model, "predict", alone)

    def score(_: int) -> NDArray[np.float32]:
        together.wait(20)
        return reranker.score(QUERY, TEXTS)

    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(score, range(8)):
            assert found == pytest.approx(expected, abs=1e-6)


def test_no_texts(folder: Path) -> None:
    reranker = open_reranker(str(folder), "cpu")
    assert reranker.score(QUERY, []).shape == (0,)
    assert rerank(QUERY, [], reranker, text_of) == []


def test_the_order_and_the_scores_are_the_rerankers_and_the_retrievals_are_kept() -> None:
    hits = hits_of(["cats sleep", "the river runs to the sea", "the river", "where the sea meets the river"])
    ranked = rerank("where the river meets the sea", hits, Overlap(), text_of)
    assert [(hit.id, hit.score) for hit in ranked] == [
        ("d3", pytest.approx(1)), ("d1", pytest.approx(0.6)), ("d2", pytest.approx(0.4)), ("d0", 0),
    ]  # fmt: skip
    assert ranked[0].legs == {"vector": Leg(4, hits[3].score), "rerank": Leg(1, 1.0)}
    assert [hit.legs["rerank"].rank for hit in ranked] == [1, 2, 3, 4]
    assert ranked[1].source == hits[1].source


def test_legs_of_a_fusion_are_kept_and_equal_scores_stay_in_its_order() -> None:
    hits = [
        Hit(
            f"{n * 37 % 60}", 1 / (n + 60), {"text": "the sea" if n % 2 else "land"}, legs={"text": Leg(n + 5, 7.5 - n)}
        )
        for n in range(60)
    ]
    ranked = rerank("sea", hits, Overlap(), text_of)
    assert [hit.id for hit in ranked] == [hit.id for hit in (*hits[1::2], *hits[::2])]
    assert ranked[0].legs == {"text": Leg(6, 6.5), "rerank": Leg(1, 1.0)}
    assert ranked[59].legs == {"text": Leg(63, -50.5), "rerank": Leg(60, 0.0)}


def test_a_reranker_of_an_applications_own_is_asked_once_for_each_query_with_hits() -> None:
    overlap = Overlap()
    ranked = rerank_many(["sea", "cat", "x"], [hits_of(["a cat", "the sea"]), [], hits_of(["x"])], overlap, text_of)
    assert [[hit.id for hit in found] for found in ranked] == [["d1", "d0"], [], ["d0"]]
    assert overlap.calls == 2


@pytest.mark.parametrize(
    ("given", "complaint"),
    [([0.5, float("nan")], "1 scores that are no number"), ([0.5], r"shape \(1,\) for 2 texts"), ([[1, 2]], "shape")],
)
def test_scores_of_an_application_that_cannot_be_used(given: list[float], complaint: str) -> None:
    class Wrong:
        def score(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
            return np.array(given, np.float32)

    with pytest.raises(EncoderError, match=complaint):
        rerank("sea", hits_of(["a", "b"]), Wrong(), text_of)


def test_a_score_that_is_no_number_is_an_error_that_names_the_text(folder: Path, tmp_path: Path) -> None:
    model = CrossEncoder(str(folder), device="cpu")
    model.save_pretrained(str(tmp_path / "broken"), create_model_card=False)
    weights = tmp_path / "broken" / "model.safetensors"
    tensors = load_file(weights)
    table = next(name for name in tensors if name.endswith("word_embeddings.weight"))
    broken = tensors[table].clone()
    broken[models.vocabulary().index("pepper")] = float("nan")
    save_file({**tensors, table: broken}, weights, metadata={"format": "pt"})
    reranker = open_reranker(str(tmp_path / "broken"), "cpu")
    assert np.isfinite(reranker.score(QUERY, ["salt"])).all()
    with pytest.raises(EncoderError, match="nan as the score of 'salt and pepper' for the query 'sea'"):
        reranker.score("sea", ["salt", "salt and pepper"])


def test_hits_without_any_text() -> None:
    hits = [Hit("a", 0.5), Hit("b", 0.4)]
    with pytest.raises(SearchError, match="no text to judge"):
        rerank("sea", hits, Overlap(), lambda hit: "")


PASSPORT = Passport(EncoderProfile("m", separator=" [SEP] "), ("title", "abstract", "text"), "vector", "0.1.0")


def test_what_is_judged_is_the_passage_else_what_was_encoded() -> None:
    source = {"title": "The port", "abstract": "Ships.", "text": "Coal and iron.", "year": 2020}
    assert judged_text(Hit("a", 1, source), PASSPORT) == "The port [SEP] Ships. Coal and iron."
    assert judged_text(Hit("a", 1, source, Passage("iron.", 9, 14, 1)), PASSPORT) == "iron."
    assert judged_text(Hit("a", 1, {"abstract": "Ships.", "text": "Coal."}), PASSPORT) == "Ships. Coal."
    assert judged_text(Hit("a", 1, {"title": "The port"}), PASSPORT) == "The port"
    assert judged_text(Hit("a", 1, {"year": 2020, "text": None}), PASSPORT) == ""
    plain = replace(PASSPORT, encoder=EncoderProfile("m"), text_fields=("text",))
    assert judged_text(Hit("a", 1, source), plain) == "Coal and iron."


def test_a_name_without_an_organization_is_one_of_cross_encoder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As sentence-transformers takes it; out of the hub's cache, without a network."""
    commit, repository = "1" * 40, tmp_path / "models--cross-encoder--tiny"
    shutil.copytree(folder, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    expected = open_reranker(str(folder), "cpu").score(QUERY, TEXTS[:3])
    for name in ("tiny", "cross-encoder/tiny"):
        found = open_reranker(name, "cpu", revision=commit)
        assert found.name == "cross-encoder/tiny"
        assert np.array_equal(found.score(QUERY, TEXTS[:3]), expected)
    with pytest.raises(EncoderError, match="cannot get the model cross-encoder/all-MiniLM-L6-v2"):
        open_reranker("all-MiniLM-L6-v2", "cpu")


def test_half_precision_is_near(folder: Path) -> None:
    exact = open_reranker(str(folder), "cpu").score(QUERY, TEXTS)
    half = open_reranker(str(folder), "cpu", dtype="bfloat16")
    assert {parameter.dtype for parameter in half.model.parameters()} == {torch.bfloat16}
    assert half.score(QUERY, TEXTS) == pytest.approx(exact, abs=0.1)


def test_a_bi_encoder_given_by_mistake_is_refused(tmp_path: Path) -> None:
    """Sentence-transformers itself would load it and put a head of random weights on it."""
    with pytest.raises(EncoderError, match=r"all-MiniLM-L6-v2 is no cross-encoder, but encodes single texts") as error:
        open_reranker("sentence-transformers/all-MiniLM-L6-v2", "cpu")
    assert "cross-encoder/" in error.value.remedy
    with pytest.raises(EncoderError, match="encodes single texts"):
        open_reranker(str(models.symmetric(tmp_path / "symmetric")), "cpu")
    with pytest.raises(EncoderError, match=r"no cross-encoder \(BertModel\): it has no head"):
        open_reranker(str(models.without_modules(tmp_path / "plain")), "cpu")


def test_a_classifier_of_several_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="gives 3 labels for a pair, not one score"):
        open_reranker(str(models.cross_encoder(tmp_path / "nli", labels=3)), "cpu")


def test_pickles_and_code_of_a_models_own_are_refused(folder: Path, tmp_path: Path) -> None:
    pickled = models.cross_encoder(tmp_path / "pickled")
    torch.save(load_file(pickled / "model.safetensors"), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    with pytest.raises(EncoderError, match=r"has a pickle, pytorch_model\.bin"):
        open_reranker(str(pickled), "cpu")
    own = tmp_path / "own"
    CrossEncoder(str(folder), device="cpu").save_pretrained(str(own), create_model_card=False)
    listed = json.loads((own / "modules.json").read_text())
    listed[0]["type"] = "my_code.Judge"
    (own / "modules.json").write_text(json.dumps(listed))
    with pytest.raises(EncoderError, match="cannot load the model"):
        open_reranker(str(own), "cpu")


def test_what_is_not_there_or_damaged(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="no such folder"):
        open_reranker(str(tmp_path / "nowhere"), "cpu")
    (tmp_path / "empty").mkdir()
    with pytest.raises(EncoderError, match="nothing that says what it is"):
        open_reranker(str(tmp_path / "empty"), "cpu")
    damaged = models.cross_encoder(tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(EncoderError, match="cannot load the model"):
        open_reranker(str(damaged), "cpu")
    with pytest.raises(ConfigError, match="dtype 'int8'"):
        open_reranker(str(folder), "cpu", dtype="int8")
    with pytest.raises(ConfigError, match="batch_size is 0"):
        open_reranker(str(folder), "cpu", batch_size=0)
    with pytest.raises(EncoderError, match="cannot load the model"):
        open_reranker(str(folder), "no-such-device")
