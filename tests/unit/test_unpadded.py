"""Texts laid end to end, on the CPU: the same vectors as with padding, by torch's kernel or a stand-in of it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from esvector.encode.backends import unpadded
from esvector.encode.backends.torch import TorchBackend
from esvector.encode.loading import load_encoder
from esvector.encode.profile import EncoderProfile
from esvector.encode.tokens import TextTokenizer
from esvector.encode.tower import ModelTower
from tests.support import models

LAYABLE = [
    models.symmetric,
    models.dot_trained,
    models.last_token,
    models.instructor,
    models.roberta,
    models.modern,
]


@pytest.fixture(autouse=True)
def fresh_kernel() -> Iterator[None]:
    unpadded._varlen_attention.cache_clear()
    yield
    unpadded._varlen_attention.cache_clear()


def document_tower(folder: Path, **asked: Any) -> tuple[ModelTower, TorchBackend]:
    tower = load_encoder(EncoderProfile(str(folder), **asked), device="cpu").towers["document"].tower
    assert isinstance(tower, ModelTower)
    assert isinstance(tower.backend, TorchBackend)
    return tower, tower.backend


def lay(backend: TorchBackend) -> None:
    """Run texts end to end from now on, without a trial."""
    laid = backend.embedder.end_to_end()
    assert laid.obstacle == ""
    laid.replace_attention()
    backend._end_to_end = laid


def run(tower: ModelTower, texts: list[str]) -> np.ndarray[Any, Any]:
    return tower.collect([tower.forward(tower.tokenize(texts), np.arange(len(texts)))])


@pytest.mark.parametrize("build", LAYABLE)
def test_a_batch_laid_end_to_end_gives_the_vectors_of_the_padded_one(
    build: Callable[[Path], Path], tmp_path: Path
) -> None:
    tower, backend = document_tower(build(tmp_path / build.__name__))
    texts = models.words(24, 3)
    expected = run(tower, texts)
    lay(backend)
    assert np.allclose(run(tower, texts), expected, atol=1e-5)
    padded = tower.tokenize(texts).padded(np.arange(len(texts)))
    assert np.allclose(tower.collect([backend.forward(*padded)]), expected, atol=1e-5)
    assert backend._end_to_end is not None
    backend._end_to_end.restore_attention()
    backend._end_to_end = None
    assert np.array_equal(run(tower, texts), expected)


# torch's kernel, by what its versions take


def kernel_of_2_11(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    return_aux: None = None,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
) -> Tensor:
    assert query.shape == key.shape == value.shape, "this version knows nothing of grouped heads"
    assert all(part.is_contiguous() for part in (query, key, value))
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
    assert max_q == max_k == int(cu_seq_q.diff().max())
    return unpadded._one_by_one(query, key, value, cu_seq_q, max_q, scale, window_size)


def kernel_of_2_12(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    return_aux: None = None,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
) -> Tensor:
    assert enable_gqa == (query.shape != key.shape)
    return unpadded._one_by_one(query, key, value, cu_seq_q, max_q, scale, window_size)


def kernel_of_2_10(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    is_causal: bool = False,
    return_aux: None = None,
) -> Tensor:
    raise AssertionError


def use_kernel(monkeypatch: pytest.MonkeyPatch, kernel: Callable[..., Tensor] | None) -> None:
    """As on a GPU whose torch has ``kernel``; None has no such module at all."""
    monkeypatch.setattr(unpadded, "_has_kernel", lambda query: True)
    if kernel is None:
        monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", None)
    else:
        monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", kernel)


@pytest.mark.parametrize("build", LAYABLE)
@pytest.mark.parametrize("kernel", [kernel_of_2_11, kernel_of_2_12])
def test_each_version_of_the_kernel_gives_the_same_vectors(
    build: Callable[[Path], Path], kernel: Callable[..., Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tower, backend = document_tower(build(tmp_path / build.__name__))
    texts = models.words(24, 3)
    expected = run(tower, texts)
    use_kernel(monkeypatch, kernel)
    lay(backend)
    assert np.allclose(run(tower, texts), expected, atol=1e-5)


def test_the_kernel_of_this_torch_takes_what_it_is_given() -> None:
    kernel, _ = unpadded._varlen_attention()
    options = {"scale": 0.5, "window_size": (-1, -1)}
    assert inspect.signature(kernel).bind(*range(7), **options)


@pytest.mark.parametrize("kernel", [None, kernel_of_2_10])
def test_a_torch_without_the_kernel_pads_and_says_why(
    kernel: Callable[..., Tensor] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tower, backend = document_tower(models.symmetric(tmp_path / "model"))
    texts = models.words(24, 3)
    expected = run(tower, texts)
    use_kernel(monkeypatch, kernel)
    backend.choose_attention(tower.tokenizer)
    assert not backend.lays
    assert torch.__version__ in backend.attention
    assert np.array_equal(run(tower, texts), expected)


def test_cudnn_is_never_chosen_on_hopper(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It plans anew for each shape, and no shape comes back."""
    varlen = pytest.importorskip("torch.nn.attention.varlen")
    chosen: list[int] = []

    def select(query: Tensor, key: Tensor, value: Tensor, borders: Tensor, *rest: Any, **options: Any) -> Tensor:
        with monkeypatch.context() as patch:
            patch.setattr(varlen, "_cudnn_rejection_reasons", lambda *_: [])
            chosen.append(varlen._select_backend(query, key, value, borders, borders, 64, [-1, -1]))
        return kernel_of_2_12(query, key, value, borders, *rest, **options)

    select.__signature__ = inspect.signature(kernel_of_2_12)  # type: ignore[attr-defined]
    tower, backend = document_tower(models.symmetric(tmp_path / "model"))
    use_kernel(monkeypatch, select)
    lay(backend)
    monkeypatch.setattr(backend, "_on_cuda", True)
    monkeypatch.setattr(backend, "_move", torch.from_numpy)
    assert torch.backends.cuda.cudnn_sdp_enabled()  # type: ignore[no-untyped-call]
    run(tower, models.words(5, 3))
    assert set(chosen) == {torch.nn.attention.SDPBackend.FLASH_ATTENTION.value}
    assert torch.backends.cuda.cudnn_sdp_enabled(), "the application's own attention is its own affair"  # type: ignore[no-untyped-call]


# Waiting for the device


class NoWaits(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Raises where the host would have to know what the device has computed."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name == "index" and any(part is not None and part.dtype == torch.bool for part in args[1])
        counts = name == "repeat_interleave" and (kwargs or {}).get("output_size") is None and len(args) == 1
        if name in ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "unique") or by_mask or counts:
            raise AssertionError(f"waits for the device: {func}")
        return func(*args, **(kwargs or {}))


def test_the_watch_for_waits_sees_them() -> None:
    for wait in (lambda: torch.ones(1).item(), lambda: torch.ones(3)[torch.ones(3) > 0]):
        with pytest.raises(AssertionError, match="waits"), NoWaits():  # type: ignore[no-untyped-call]
            wait()


@pytest.mark.parametrize(
    "build", [models.symmetric, models.dot_trained, models.last_token, models.roberta, models.modern]
)
def test_nothing_waits_for_the_device_before_the_vectors_are_fetched(
    build: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tower, backend = document_tower(build(tmp_path / build.__name__))

    def kernel(query: Tensor, *rest: Any, **options: Any) -> Tensor:
        return torch.zeros_like(query)

    kernel.__signature__ = inspect.signature(kernel_of_2_12)  # type: ignore[attr-defined]
    use_kernel(monkeypatch, kernel)
    lay(backend)
    tokens = tower.tokenize(models.words(9, 3))
    with NoWaits():  # type: ignore[no-untyped-call]
        tower.forward(tokens, np.arange(9))


@pytest.mark.parametrize("build", LAYABLE[:3] + LAYABLE[4:])
def test_the_whole_way_on_a_gpu_but_for_the_numbers(
    build: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensors without content, on a device that is not there: every shape, format and device of the real kernel."""
    varlen = pytest.importorskip("torch.nn.attention.varlen")
    # As on Hopper.
    monkeypatch.setattr(varlen, "_cudnn_version_and_major_capability", lambda index: (92600, 9), raising=False)
    monkeypatch.setattr(varlen, "_should_use_cudnn", lambda index: True)
    tower, backend = document_tower(build(tmp_path / "model"), dtype="bfloat16")
    tokens = tower.tokenize(models.words(5, 1))
    with FakeTensorMode(allow_non_fake_inputs=True):
        backend.embedder.to("cuda")
        monkeypatch.setattr(backend, "_on_cuda", True)
        monkeypatch.setattr(backend, "_move", lambda array: torch.from_numpy(array).to("cuda"))
        lay(backend)
        found = tower.forward(tokens, np.arange(5))
    assert (found.shape, found.dtype, found.device.type) == ((5, 32), torch.bfloat16, "cuda")


# What cannot be laid


def test_padded_batches_are_never_run_without_their_mask(tmp_path: Path) -> None:
    tower, backend = document_tower(models.symmetric(tmp_path / "model"))
    laid = backend.embedder.end_to_end()
    laid.replace_attention()
    ids, mask = tower.tokenize(["one", "two words more"]).padded(np.arange(2))
    with pytest.raises(ValueError, match="does not pass on where its texts begin"):
        backend.forward(ids, mask)


@pytest.mark.parametrize("option", ["softcap", "position_bias", "s_aux", "another_day"])
def test_attention_of_a_kind_unknown_here_is_refused(option: str) -> None:
    query = torch.ones(1, 2, 5, 4)
    borders = torch.tensor([0, 2, 5], dtype=torch.int32)
    module = torch.nn.Identity()
    attend: Any = unpadded._attend
    assert attend(module, query, query, query, None, 0.5, 0.0, borders, 3, use_cache=False, **{option: None})
    with pytest.raises(ValueError, match=option):
        attend(module, query, query, query, None, 0.5, 0.0, borders, 3, **{option: 30.0})


def test_what_is_told_of_causality_counts_more_than_the_layer() -> None:
    query = torch.randn(1, 2, 5, 4, generator=torch.Generator().manual_seed(1))
    borders = torch.tensor([0, 2, 5], dtype=torch.int32)
    module = torch.nn.Identity()
    causal, _ = unpadded._attend(module, query, query, query, None, 0.5, 0.0, borders, 3)
    both, _ = unpadded._attend(module, query, query, query, None, 0.5, 0.0, borders, 3, is_causal=False)
    assert torch.allclose(causal[0, 1], both[0, 1]), "the last token of a text sees all of it either way"
    assert not torch.allclose(causal[0, 0], both[0, 0])


@pytest.mark.parametrize("build", [models.mpnet, models.t5])
def test_a_model_whose_attention_stays_is_padded_and_says_so(build: Callable[[Path], Path], tmp_path: Path) -> None:
    tower, backend = document_tower(build(tmp_path / "model"))
    expected = run(tower, models.words(5, 3))
    backend.choose_attention(tower.tokenizer)
    assert not backend.lays
    assert "cannot be replaced" in backend.attention
    assert np.array_equal(run(tower, models.words(5, 3)), expected)


def test_a_table_of_tokens_is_not_laid_end_to_end(tmp_path: Path) -> None:
    encoder = load_encoder(EncoderProfile(str(models.router(tmp_path / "router"))), "query", "cpu")
    tower = encoder.towers["query"].tower
    assert isinstance(tower, ModelTower)
    assert isinstance(tower.backend, TorchBackend)
    assert tower.backend.embedder.end_to_end().obstacle


def test_the_copy_in_float32_has_padding_again(tmp_path: Path) -> None:
    tower, backend = document_tower(models.symmetric(tmp_path / "model"), dtype="bfloat16")
    lay(backend)
    exact = backend.exact()
    ids, mask = tower.tokenize(["one", "two words more"]).padded(np.arange(2))
    assert exact.dtype == "float32"
    together = exact.collect([exact.forward(ids, mask)])
    alone = exact.collect([exact.forward(ids[:1, : mask[0].sum()], mask[:1, : mask[0].sum()])])
    assert np.allclose(together[0], alone[0], atol=1e-5)
    assert np.isfinite(backend.collect([backend.forward(ids, mask)])).all()


def test_both_sides_of_one_model_attend_alike(tmp_path: Path) -> None:
    """They share its modules: the attention that one side has replaced is that of the other, too."""
    folder = models.prompted(tmp_path / "model")
    expected = load_encoder(EncoderProfile(str(folder)), device="cpu")
    encoder = load_encoder(EncoderProfile(str(folder)), device="cpu")
    document, query = (encoder.towers[side].tower for side in ("document", "query"))
    assert isinstance(document, ModelTower)
    assert isinstance(query, ModelTower)
    assert isinstance(document.backend, TorchBackend)
    assert isinstance(query.backend, TorchBackend)
    lay(document.backend)
    query.backend.attend_as(document.backend)
    texts = models.words(9, 6)
    assert np.allclose(encoder.encode_query(texts), expected.encode_query(texts), atol=1e-5)
    assert np.allclose(encoder.encode_document(texts), expected.encode_document(texts), atol=1e-5)


# The trial


class Timed(TorchBackend):
    """A backend on which a run end to end takes ``slower`` times as long, whatever the clock says."""

    slower = 0.5

    def _time(self, *arguments: Any) -> tuple[Any, float]:
        vectors, _ = super()._time(*arguments)
        return vectors, self.slower if self.lays else 1.0


def on_trial(folder: Path, kind: type[Timed]) -> tuple[Timed, TextTokenizer]:
    tower, backend = document_tower(folder)
    return kind(backend.embedder, "cpu"), tower.tokenizer


def test_a_trial_that_is_passed_lays_texts(tmp_path: Path) -> None:
    backend, tokenizer = on_trial(models.last_token(tmp_path / "model"), Timed)
    backend.choose_attention(tokenizer)
    assert backend.lays
    assert backend.attention == "end to end (2.00 times the speed of padding)"


def test_a_trial_that_is_slower_pads(tmp_path: Path) -> None:
    class Slow(Timed):
        slower = 1.5

    backend, tokenizer = on_trial(models.symmetric(tmp_path / "model"), Slow)
    backend.choose_attention(tokenizer)
    assert not backend.lays
    assert "1.50 times as long" in backend.attention


def test_a_trial_with_other_vectors_pads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend, tokenizer = on_trial(models.symmetric(tmp_path / "model"), Timed)
    monkeypatch.setattr(unpadded, "_one_by_one", lambda query, *_: query)
    backend.choose_attention(tokenizer)
    assert not backend.lays
    assert "other vectors" in backend.attention


@pytest.mark.parametrize("laid", [False, True])
def test_a_trial_that_fails_pads(laid: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Cramped(Timed):
        def _time(self, *arguments: Any) -> tuple[Any, float]:
            if self.lays is laid:
                raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2.00 GiB")
            return super()._time(*arguments)

    folder = models.symmetric(tmp_path / "model")
    backend, tokenizer = on_trial(folder, Cramped)
    backend.choose_attention(tokenizer)
    assert backend.attention == "with padding (OutOfMemoryError: CUDA out of memory.)"
    tower, _ = document_tower(folder)
    again = ModelTower(tower.tokenizer, backend, tower.dims, normalize=tower.normalize)
    assert np.array_equal(run(again, models.words(9, 3)), run(tower, models.words(9, 3)))


def test_a_trial_that_costs_the_device_is_no_matter_of_padding(tmp_path: Path) -> None:
    class Lost(Timed):
        def _time(self, *arguments: Any) -> tuple[Any, float]:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    backend, tokenizer = on_trial(models.symmetric(tmp_path / "model"), Lost)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        backend.choose_attention(tokenizer)


def test_a_trial_runs_no_shape_twice_and_no_more_than_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tower, backend = document_tower(models.symmetric(tmp_path / "model"))
    shapes: list[tuple[int, int]] = []
    plain = backend.forward_laid

    def watched(ids: Any, lengths: Any) -> Tensor:
        shapes.append((len(lengths), len(ids)))
        assert len(lengths) * lengths.max() <= backend.token_budget
        return plain(ids, lengths)

    monkeypatch.setattr(backend, "forward_laid", watched)
    backend.token_budget = 1500
    backend.choose_attention(tower.tokenizer)
    assert len(shapes) == len(set(shapes)) == 6
