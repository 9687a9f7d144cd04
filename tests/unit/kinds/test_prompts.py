"""Prompts and titles: what a model reads before and beside a text."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from esvector.encode.loading import load_encoder
from esvector.encode.profile import EncoderProfile
from tests.unit.kinds.cases import SIDES, TEXTS, Built, assert_same, cosines, edit, embed, reference


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
