"""The batcher: every input in one state, in its place, whatever its neighbours are and whatever fails."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from esvector.encode.backends.torch import TorchBackend
from esvector.encode.batcher import Batcher, EncodedWindow
from esvector.encode.encoder import ModelEncoder
from esvector.encode.engine import document_engine
from esvector.encode.loading import load_encoder
from esvector.encode.profile import EncoderProfile
from esvector.encode.tower import TextTower, finish, unit_length
from esvector.errors import DeviceLostError, EncoderError
from esvector.types import Document
from tests.support import models
from tests.support.encoders import HashEncoder

DIMS = 8
TEXTS = models.words(24, seed=7)


@dataclass
class Words:
    """Inputs whose tokens are words, of which a tower reads ten."""

    texts: list[str]
    refused: dict[int, str] = field(default_factory=dict)

    @property
    def counts(self) -> NDArray[np.int64]:
        return np.array([len(text.split()) for text in self.texts], np.int64)

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.minimum(self.counts, 10)


class Lost(Exception):
    """A device that is gone."""


class WordTower:
    """Vectors by text alone; ``fault`` may raise for a batch, or return what to give for it."""

    dims = DIMS
    token_budget = 40

    def __init__(self, fault: Callable[[list[str], int], Any] = lambda texts, padded: None) -> None:
        self.fault = fault
        self.batches: list[list[str]] = []
        self.padded: list[int] = []
        self.collected = 0

    def tokenize(self, inputs: Sequence[str]) -> Words:
        return Words(list(inputs))

    def forward(self, inputs: Words, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        texts = [inputs.texts[row] for row in rows]
        padded = len(rows) * int(inputs.lengths[rows].max())
        answer = self.fault(texts, padded)
        self.batches.append(texts)
        self.padded.append(padded)
        return vectors_of(texts) if answer is None else np.asarray(answer, np.float32)

    def collect(self, outputs: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        self.collected += 1
        return np.concatenate(outputs)

    def is_out_of_memory(self, error: BaseException) -> bool:
        return isinstance(error, MemoryError | torch.OutOfMemoryError)

    def is_lost(self, error: BaseException) -> bool:
        return isinstance(error, Lost)


def vectors_of(texts: Sequence[str]) -> NDArray[np.float32]:
    return np.stack([np.random.default_rng(list(text.encode())).normal(size=DIMS) for text in texts]).astype(np.float32)


def run(tower: WordTower, texts: Sequence[str], **options: Any) -> EncodedWindow:
    return Batcher(tower, **options).encode(tower.tokenize(texts))


def numbered(*counts: int) -> list[str]:
    return [" ".join([f"text{number}", *["word"] * (count - 1)]) for number, count in enumerate(counts)]


# Order, budget, sums


@settings(max_examples=60)
@given(counts=st.lists(st.integers(1, 30), min_size=1, max_size=40), budget=st.integers(1, 200))
def test_vectors_come_back_in_input_order_whatever_the_mix(counts: list[int], budget: int) -> None:
    tower, texts = WordTower(), numbered(*counts)
    done: list[tuple[int, int]] = []
    batcher = Batcher(tower, token_budget=budget)
    window = batcher.encode(tower.tokenize(texts), on_batch=lambda *batch: done.append(batch))
    assert np.array_equal(window.vectors, vectors_of(texts))
    assert window.vectors.dtype == np.float32
    assert not window.refused
    assert window.tokens.tolist() == counts
    assert window.truncated == sum(count > 10 for count in counts)
    assert [sum(column) for column in zip(*done, strict=True)] == [len(counts), sum(counts)]
    assert len(done) == len(tower.batches)
    assert all(len(batch) == 1 or padded <= budget for batch, padded in zip(tower.batches, tower.padded, strict=True))
    assert tower.collected == 1, "one copy from the device for a window"


def test_the_longest_go_first_and_batches_hold_texts_of_like_length() -> None:
    tower = WordTower()
    run(tower, numbered(1, 9, 2, 8, 1, 9, 10, 2))
    assert [[len(text.split()) for text in batch] for batch in tower.batches] == [[10, 9, 9, 8], [2, 2, 1, 1]]


def test_a_window_of_nothing() -> None:
    tower = WordTower()
    window = run(tower, [])
    assert (window.vectors.shape, window.tokens.shape, window.truncated, window.refused) == ((0, DIMS), (0,), 0, {})
    assert not tower.batches


def test_on_batch_may_stop_the_work() -> None:
    def stop(texts: int, tokens: int) -> None:
        raise KeyboardInterrupt

    tower = WordTower()
    with pytest.raises(KeyboardInterrupt):
        Batcher(tower, token_budget=10).encode(tower.tokenize(numbered(5, 5, 5, 5)), on_batch=stop)
    assert len(tower.batches) == 1


# Inputs that are no texts to encode


def test_what_is_empty_or_refused_already_never_reaches_the_tower() -> None:
    tower, texts = WordTower(), ["one", "", "two", "three", " "]
    window = Batcher(tower).encode(Words(texts, refused={2: "half a surrogate pair"}))
    assert window.refused == {1: "the text is empty", 2: "half a surrogate pair", 4: "the text is empty"}
    assert sorted(text for batch in tower.batches for text in batch) == ["one", "three"]
    assert np.array_equal(window.vectors[[0, 3]], vectors_of(["one", "three"]))


def test_nothing_but_empty_texts_is_no_failure_of_the_encoder() -> None:
    tower = WordTower()
    assert set(run(tower, ["", " ", ""]).refused) == {0, 1, 2}
    assert not tower.batches


# Out of memory


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()], ids=["torch", "python"]
)
def test_out_of_memory_halves_the_budget_goes_on_and_is_remembered(error: Exception) -> None:
    def fault(texts: list[str], padded: int) -> None:
        tried.append(padded)
        if len(tried) > 500:
            pytest.fail("the same batch is tried for ever")
        if padded > 16:
            raise error

    tried: list[int] = []
    tower, texts = WordTower(fault), numbered(*[4, 3, 2, 1] * 20)
    batcher = Batcher(tower, token_budget=128)
    window = batcher.encode(tower.tokenize(texts))
    assert np.array_equal(window.vectors, vectors_of(texts))
    assert not window.refused
    assert tried[:4] == [128, 64, 32, 16]
    assert max(tried[3:]) <= 16
    assert batcher.token_budget == 16
    tried.clear()
    batcher.encode(tower.tokenize(texts))
    assert max(tried) <= 16, "the next window does not run out again"


class Activations(np.ndarray[Any, Any]):
    """What a batch puts on the device; unlike numpy's own it can be watched."""


@pytest.mark.parametrize("error", [MemoryError("no room"), ValueError("no such id")])
def test_nothing_of_a_batch_that_failed_is_held_while_the_next_one_runs(error: Exception) -> None:
    def fault(texts: list[str], padded: int) -> None:
        held.append(sum(reference() is not None for reference in made))
        hidden = np.zeros(1000).view(Activations)
        made.append(weakref.ref(hidden))
        if len(texts) > 2:
            raise type(error)(*error.args)

    made: list[weakref.ref[Activations]] = []
    held: list[int] = []
    window = run(WordTower(fault), numbered(*[4] * 8), token_budget=32)
    assert not window.refused
    assert len(held) > 4
    assert set(held) == {0}


def test_a_budget_that_was_cut_grows_again_and_never_beyond_what_it_was() -> None:
    def fault(texts: list[str], padded: int) -> None:
        sizes.append(padded)
        if crowded and padded > 16:
            raise MemoryError

    sizes: list[int] = []
    crowded = True
    tower, texts = WordTower(fault), numbered(*[4] * 400)
    batcher = Batcher(tower, token_budget=64)
    assert not batcher.encode(tower.tokenize(texts)).refused
    assert 16 <= batcher.token_budget <= 20
    crowded = False
    for _ in range(40):
        window = batcher.encode(tower.tokenize(texts))
        assert np.array_equal(window.vectors, vectors_of(texts))
    assert batcher.token_budget == 64
    assert max(sizes) == 64


def test_a_budget_at_its_limit_seldom_runs_into_it() -> None:
    failed = ran = 0

    def fault(texts: list[str], padded: int) -> None:
        nonlocal failed, ran
        if padded > 16:
            failed += 1
            raise MemoryError
        ran += 1

    tower, texts = WordTower(fault), numbered(*[4] * 400)
    batcher = Batcher(tower, token_budget=64)
    for _ in range(40):
        assert not batcher.encode(tower.tokenize(texts)).refused
    assert failed <= 8
    assert ran >= 4000


def test_out_of_memory_in_the_middle_keeps_what_is_done() -> None:
    def fault(texts: list[str], padded: int) -> None:
        if len(tower.batches) == 2 and padded > 20:
            raise MemoryError

    tower, texts = WordTower(fault), numbered(*[10] * 16)
    window = run(tower, texts)
    assert np.array_equal(window.vectors, vectors_of(texts))
    assert [len(batch) for batch in tower.batches] == [4, 4, 2, 2, 2, 2]


def test_a_text_too_large_for_the_device_is_refused_alone() -> None:
    def fault(texts: list[str], padded: int) -> None:
        if padded > 9:
            raise MemoryError("no room")

    texts = numbered(2, 10, 3)
    window = run(WordTower(fault), texts)
    assert window.refused == {1: "the encoder failed on this text: MemoryError: no room"}
    assert np.array_equal(window.vectors[[0, 2]], vectors_of([texts[0], texts[2]]))


# Other failures


@pytest.mark.parametrize("bad", [{0}, {7}, {3, 4}, {0, 9, 19}])
def test_texts_that_fail_are_refused_alone_with_the_reason(bad: set[int]) -> None:
    def fault(batch: list[str], padded: int) -> None:
        if any(text.split()[0] in names for text in batch):
            raise IndexError("index out of range in self")

    names = {f"text{number}" for number in bad}
    texts = numbered(*range(1, 21))
    tower = WordTower(fault)
    window = run(tower, texts)
    reason = "the encoder failed on this text: IndexError: index out of range in self"
    assert window.refused == dict.fromkeys(bad, reason)
    good = [row for row in range(20) if row not in bad]
    assert np.array_equal(window.vectors[good], vectors_of([texts[row] for row in good]))
    assert tower.token_budget == 40, "a bad text says nothing of memory"


def test_an_encoder_that_fails_on_everything_is_at_fault_itself() -> None:
    def fault(texts: list[str], padded: int) -> None:
        raise ValueError("no such layer")

    with pytest.raises(EncoderError, match="failed on every one of 3 texts: ValueError: no such layer") as error:
        run(WordTower(fault), numbered(1, 2, 3))
    assert isinstance(error.value.__cause__, ValueError)


def test_an_encoder_that_fails_on_everything_is_not_asked_for_every_text() -> None:
    asked = 0

    def fault(texts: list[str], padded: int) -> None:
        nonlocal asked
        asked += 1
        raise ValueError("no such layer")

    with pytest.raises(EncoderError, match="no such layer"):
        run(WordTower(fault), numbered(*[4] * 4096))
    assert asked < 1000


def test_many_texts_too_long_for_the_device_cost_no_shorter_one() -> None:
    def fault(texts: list[str], padded: int) -> None:
        if padded > 9:
            raise MemoryError("no room")

    texts = numbered(*[10] * 100, *[2] * 10)
    window = run(WordTower(fault), texts)
    assert set(window.refused) == set(range(100))
    assert np.array_equal(window.vectors[100:], vectors_of(texts[100:]))


def test_a_window_of_one_bad_text_is_the_texts_fault() -> None:
    def fault(texts: list[str], padded: int) -> None:
        raise ValueError("no")

    assert set(run(WordTower(fault), ["one"]).refused) == {0}


def test_a_lost_device_takes_no_more_work() -> None:
    def fault(texts: list[str], padded: int) -> None:
        if len(tower.batches) == 1:
            raise Lost("unspecified launch failure")

    tower = WordTower(fault)
    with pytest.raises(DeviceLostError, match=r"unspecified launch failure.*\n.*again"):
        run(tower, numbered(*[10] * 12))
    assert len(tower.batches) == 1, "nothing is tried in halves on a device that is gone"


def test_a_device_may_be_lost_only_when_vectors_are_fetched() -> None:
    class LateTower(WordTower):
        def collect(self, outputs: list[NDArray[np.float32]]) -> NDArray[np.float32]:
            raise Lost("illegal memory access")

    with pytest.raises(DeviceLostError, match="illegal memory access"):
        run(LateTower(), ["one"])


def test_a_tower_of_another_shape_than_it_says() -> None:
    tower = WordTower(lambda texts, padded: np.ones((len(texts), 3)))
    with pytest.raises(EncoderError, match=rf"shape \(2, 3\) for 2 texts, but says {DIMS} dims"):
        run(tower, ["one", "two"])
    short = WordTower(lambda texts, padded: vectors_of(texts)[1:])
    with pytest.raises(EncoderError, match=rf"shape \(1, {DIMS}\) for 2 texts"):
        run(short, ["one", "two"])


def test_an_applications_encoder_of_another_shape_than_it_says() -> None:
    encoder = HashEncoder()
    encoder.encode_document = lambda texts: np.ones((len(texts), 3), np.float32)  # type: ignore[method-assign]
    engine = document_engine(encoder)
    documents = [Document(name, name, {}, f"line {name}") for name in ("1", "2")]
    with pytest.raises(EncoderError, match=r"shape \(2, 3\) for 2 texts.*64 dims"):
        engine.encode(engine.tokenize(documents))


# Vectors that are no answer


def spoiled(value: float, *names: str) -> Callable[[list[str], int], NDArray[np.float32]]:
    """Answers in which the vectors of texts beginning with ``names`` hold ``value`` throughout."""

    def fault(texts: list[str], padded: int) -> NDArray[np.float32]:
        vectors = vectors_of(texts)
        vectors[[text.split()[0] in names for text in texts]] = value
        return vectors

    return fault


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0])
def test_what_half_precision_spoils_is_mended_in_float32(value: float) -> None:
    exact, asked = WordTower(), []

    def give() -> WordTower:
        asked.append(1)
        return exact

    texts = numbered(3, 1, 2, 5)
    tower = WordTower(spoiled(value, "text1", "text3"))
    batcher = Batcher(tower, exact=give)
    for _ in range(2):
        window = batcher.encode(tower.tokenize(texts))
        assert np.array_equal(window.vectors, vectors_of(texts))
        assert not window.refused
    assert sorted(map(sorted, exact.batches)) == [sorted([texts[1], texts[3]])] * 2, "together, and no others"
    assert len(asked) == 1, "made once, for all windows"


def test_the_exact_tower_is_not_made_for_nothing() -> None:
    def never() -> WordTower:
        raise AssertionError

    assert not run(WordTower(), numbered(1, 2), exact=never).refused


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("zero_allowed", [True, False])
def test_what_stays_unusable_is_refused(value: float, zero_allowed: bool) -> None:
    fault = spoiled(value, "text1")
    window = run(WordTower(fault), numbered(3, 1, 2), exact=lambda: WordTower(fault), zero_allowed=zero_allowed)
    assert window.refused == {1: "the encoder gave NaN or infinity in its vector for this text"}


def test_a_tower_without_an_exact_one_is_tried_once_more_itself() -> None:
    fault = spoiled(np.nan, "text1")
    once = WordTower(lambda texts, padded: fault(texts, padded) if len(texts) > 1 else None)
    assert not run(once, numbered(3, 1, 2)).refused
    assert set(run(WordTower(fault), numbered(3, 1, 2)).refused) == {1}


def test_a_zero_vector_has_no_direction_but_is_a_dot_product() -> None:
    texts = numbered(3, 1, 2)
    window = run(WordTower(spoiled(0.0, "text1")), texts)
    assert window.refused == {1: "the encoder gave a zero vector for this text"}
    kept = run(WordTower(spoiled(0.0, "text1")), texts, zero_allowed=True)
    assert not kept.refused
    assert not kept.vectors[1].any()


def test_a_failure_while_mending_costs_one_text() -> None:
    def fail(texts: list[str], padded: int) -> None:
        raise MemoryError("no room for float32")

    texts = numbered(3, 1, 2)
    window = run(WordTower(spoiled(np.nan, "text1")), texts, exact=lambda: WordTower(fail))
    assert window.refused == {1: "the encoder failed on this text: MemoryError: no room for float32"}
    assert np.array_equal(window.vectors[[0, 2]], vectors_of([texts[0], texts[2]]))


def test_mending_in_batches_costs_no_text_for_another() -> None:
    def fail(texts: list[str], padded: int) -> None:
        if any(text.startswith("text5") for text in texts):
            raise IndexError("index out of range in self")

    texts = numbered(*[3] * 10)
    every = tuple(f"text{number}" for number in range(10))
    window = run(WordTower(spoiled(np.nan, *every)), texts, exact=lambda: WordTower(fail))
    assert window.refused == {5: "the encoder failed on this text: IndexError: index out of range in self"}
    rest = [row for row in range(10) if row != 5]
    assert np.array_equal(window.vectors[rest], vectors_of([texts[row] for row in rest]))


def test_a_copy_in_float32_that_does_not_fit_is_not_tried_for_every_text() -> None:
    tried = 0

    def no_room() -> WordTower:
        nonlocal tried
        tried += 1
        raise torch.OutOfMemoryError("CUDA out of memory")

    texts = numbered(*[3] * 10)
    every = tuple(f"text{number}" for number in range(10))
    tower = WordTower(spoiled(np.nan, *every))
    batcher = Batcher(tower, exact=no_room)
    for _ in range(2):
        assert set(batcher.encode(tower.tokenize(texts)).refused) == set(range(10))
    assert tried == 1


def test_what_half_precision_spoils_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    texts = numbered(3, 1, 2, 5)
    tower = WordTower(spoiled(np.nan, "text1", "text3"))
    batcher = Batcher(tower, exact=WordTower)
    for _ in range(3):
        batcher.encode(tower.tokenize(texts))
    (said,) = [record.getMessage() for record in caplog.records]
    assert "2 of 4 texts" in said


def test_a_device_may_be_lost_while_mending() -> None:
    def fail(texts: list[str], padded: int) -> None:
        raise Lost("gone")

    with pytest.raises(DeviceLostError, match="gone"):
        run(WordTower(spoiled(np.nan, "text1")), numbered(3, 1, 2), exact=lambda: WordTower(fail))


# A real model


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("batcher")
    builders = (models.symmetric, models.last_token, models.instructor, models.router)
    return {build.__name__: build(root / build.__name__) for build in builders}


@pytest.fixture(scope="module")
def encoder(folders: dict[str, Path]) -> ModelEncoder:
    return load_encoder(EncoderProfile(str(folders["symmetric"])), device="cpu")


@pytest.mark.parametrize("kind", ["symmetric", "last_token", "instructor", "router"])
@pytest.mark.parametrize("side", ["query", "document"])
def test_neighbours_budget_and_window_do_not_show_in_a_vector(kind: str, side: Any, folders: dict[str, Path]) -> None:
    loaded = load_encoder(EncoderProfile(str(folders[kind])), device="cpu")
    tower, profile = loaded.towers[side].tower, loaded.profile
    texts = [(profile.query_input if side == "query" else profile.document_input)(text) for text in TEXTS]
    alone = np.concatenate([Batcher(tower).encode(tower.tokenize([text])).vectors for text in texts])
    shuffled = np.random.default_rng(4).permutation(len(texts))
    for budget in (100, 700, 100_000):
        together = Batcher(tower, token_budget=budget).encode(tower.tokenize([texts[row] for row in shuffled]))
        assert np.allclose(together.vectors, alone[shuffled], atol=1e-5)
        assert not together.refused
    halves = [Batcher(tower).encode(tower.tokenize(part)).vectors for part in (texts[:7], texts[7:])]
    assert np.allclose(np.concatenate(halves), alone, atol=1e-5)


def test_half_a_surrogate_pair_costs_no_other_text(encoder: ModelEncoder) -> None:
    batcher = encoder.batcher("document")
    window = batcher.encode(batcher.tower.tokenize(["water", "\ud83d", "stone"]))
    assert set(window.refused) == {1}
    assert "half a surrogate pair" in window.refused[1]
    assert np.allclose(window.vectors[[0, 2]], encoder.encode_document(["water", "stone"]), atol=1e-6)
    with pytest.raises(EncoderError, match="text 2 of 3 cannot be encoded: text with half a surrogate pair"):
        encoder.encode_document(["water", "\ud83d", "stone"])


def test_a_real_model_that_runs_out_of_memory(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_encoder(EncoderProfile(str(folders["symmetric"])), device="cpu")
    expected = loaded.encode_document(TEXTS)
    forward = TorchBackend.forward

    def cramped(self: TorchBackend, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> torch.Tensor:
        if ids.size > 200:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(self, ids, mask)

    monkeypatch.setattr(TorchBackend, "forward", cramped)
    assert np.allclose(loaded.encode_document(TEXTS), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("error", "memory", "lost"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True, False),
        (MemoryError(), True, False),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"), True, False),
        (RuntimeError("MPS backend out of memory"), True, False),
        (RuntimeError("CUDA error: device-side assert triggered"), False, True),
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered", 700), False, True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False, False),
        (IndexError("index out of range in self"), False, False),
    ],
    ids=lambda value: str(value)[:30],
)
def test_torch_tells_its_failures_apart(error: Exception, memory: bool, lost: bool, encoder: ModelEncoder) -> None:
    tower = encoder.towers["document"].tower
    assert (tower.is_out_of_memory(error), tower.is_lost(error)) == (memory, lost)


def test_float16_that_overflows_is_mended_and_not_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    """A weight that float16 holds and whose products it does not: the known fault of some models."""
    from safetensors.torch import load_file, save_file

    folder = models.symmetric(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.endswith("layer.1.intermediate.dense.weight"))
    water = torch.full_like(tensors[name], 30_000.0)
    save_file({**tensors, name: water}, folder / "model.safetensors", metadata={"format": "pt"})
    half = load_encoder(EncoderProfile(str(folder), dtype="float16"), device="cpu")
    raw = half.towers["document"].tower
    tokens = raw.tokenize(TEXTS[:4])
    broken = raw.collect([raw.forward(tokens, np.arange(4))])
    assert not np.isfinite(broken).all(), "or else this test shows nothing"
    vectors = half.encode_document(TEXTS[:4])
    exact = load_encoder(EncoderProfile(str(folder)), device="cpu").encode_document(TEXTS[:4])
    mended = ~np.isfinite(broken).all(axis=1)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert (vectors[mended] * exact[mended]).sum(axis=1).min() > 0.99


# Towers of texts, and what finishes a vector


def test_a_tower_of_texts_counts_and_cuts_as_it_is_told() -> None:
    tower = TextTower(vectors_of, lambda texts: np.array([len(text) for text in texts], np.int64), DIMS, 4, 100)
    inputs = tower.tokenize(["abc", "abcdefg", ""])
    assert (inputs.counts.tolist(), inputs.lengths.tolist()) == ([3, 7, 0], [3, 4, 0])
    window = Batcher(tower).encode(inputs)
    assert (window.truncated, set(window.refused)) == (1, {2})
    assert np.array_equal(window.vectors[:2], vectors_of(["abc", "abcdefg"]))


def test_a_vector_is_cut_before_it_is_scaled() -> None:
    vectors = np.array([[3, 4, 12], [0, 0, 5]], np.float32)
    assert np.allclose(finish(vectors, 2, normalize=True), [[0.6, 0.8], [0.0, 0.0]])
    assert finish(vectors, 2, normalize=False).tolist() == [[3, 4], [0, 0]]
    assert finish(vectors, 2, normalize=False).flags.c_contiguous


def test_unit_length_keeps_zero_and_nan_for_the_batcher_to_refuse() -> None:
    vectors = np.array([[3, 4], [0, 0], [np.nan, 1], [np.inf, 1]], np.float32)
    scaled = unit_length(vectors)
    assert np.allclose(scaled[0], [0.6, 0.8])
    assert not scaled[1].any()
    assert np.isnan(scaled[2:]).any(axis=1).all()
