from __future__ import annotations

import numpy as np
import pytest

from esvector.encode.encoder import unit_length
from esvector.encode.engine import encode_window, token_batches
from esvector.errors import EncoderError
from tests.support.encoders import HashEncoder


def test_batches_hold_every_row_once_within_the_budget() -> None:
    lengths = np.random.default_rng(2).integers(1, 300, 400)
    batches = list(token_batches(lengths, 1024))
    assert sorted(np.concatenate(batches)) == list(range(400))
    assert all(len(batch) * lengths[batch].max() <= 1024 for batch in batches)
    padded = sum(len(batch) * lengths[batch].max() for batch in batches)
    assert padded / lengths.sum() < 1.1


def test_a_text_longer_than_the_budget_is_a_batch_of_its_own() -> None:
    assert [list(batch) for batch in token_batches(np.array([5000, 10, 10]), 1000)] == [[0], [1, 2]]


def test_vectors_come_back_in_input_order_with_their_tokens() -> None:
    encoder = HashEncoder()
    texts = ["word " * n + str(n) for n in np.random.default_rng(3).integers(1, 100, 300)]
    done: list[tuple[int, int]] = []
    window = encode_window(encoder, texts, token_budget=128, on_batch=lambda *batch: done.append(batch))
    assert np.array_equal(window.vectors, encoder.encode_document(texts))
    assert list(window.tokens) == [len(text.split()) for text in texts]
    assert window.truncated == sum(len(text.split()) > 64 for text in texts)
    assert tuple(map(sum, zip(*done, strict=True))) == (300, window.tokens.sum())


def test_an_encoder_that_gives_other_dims_than_it_says() -> None:
    encoder = HashEncoder()
    encoder.encode_document = lambda texts: np.ones((len(texts), 3), np.float32)  # type: ignore[method-assign]
    with pytest.raises(EncoderError, match=r"shape \(2, 3\) for 2 texts.*64 dims"):
        encode_window(encoder, ["a", "b"])


def test_unit_length_keeps_zero_and_nan_for_the_writer_to_refuse() -> None:
    vectors = np.array([[3, 4], [0, 0], [np.nan, 1], [np.inf, 1]], np.float32)
    scaled = unit_length(vectors)
    assert np.allclose(scaled[0], [0.6, 0.8])
    assert not scaled[1].any()
    assert np.isnan(scaled[2:]).any(axis=1).all()
