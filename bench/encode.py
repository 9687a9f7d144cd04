"""Texts per second of esvector's engine against sentence-transformers, all sides in turn in one run, on real text.

Sides: ``SentenceTransformer.encode`` over the whole list with its defaults, the same in calls of 32 (what scripts do),
and esvector with each backend at hand. Ratios are medians over the rounds; every side's vectors are compared with those
of sentence-transformers in float32.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import orjson
from numpy.typing import NDArray

from esvector.encode.calibrate import use_backend
from esvector.encode.encoder import ModelEncoder
from esvector.encode.engine import document_engine
from esvector.encode.loading import load_encoder
from esvector.encode.models import find_model
from esvector.encode.probes import agreement
from esvector.encode.profile import EncoderProfile
from esvector.errors import EsvectorError
from esvector.types import Document

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Vectors = NDArray[np.float32]
CALL = 32
WINDOW = {"cpu": 1024, "cuda": 8192}


@click.command()
@click.argument("corpora", nargs=-1, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--model", default="sentence-transformers/all-MiniLM-L6-v2", show_default=True)
@click.option("--texts", default=600, show_default=True, help="How many texts.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--device", default=None, help="cpu or cuda:0 [default: a GPU where there is one].")
@click.option("--backends", default="torch,onnx,openvino,openvino-int8", show_default=True, help="On a CPU.")
@click.option("--mix", type=click.Choice(["mixed", "short", "long"]), default="mixed", show_default=True)
def main(
    corpora: tuple[Path, ...], model: str, texts: int, rounds: int, device: str | None, backends: str, mix: str
) -> None:
    """Encode texts of CORPORA (JSON lines with "title" and "text"; none: Python's documentation) on every side."""
    import torch
    from sentence_transformers import SentenceTransformer

    encoder = load_encoder(EncoderProfile(model), device=device)
    chosen = pick(read_texts(corpora), texts, mix)
    tokens = encoder.count_tokens(chosen)
    on_gpu = encoder.profile.dtype != "float32"
    print(f"{len(chosen)} texts, {mix}: {np.percentile(tokens, [10, 50, 90]).astype(int)} tokens (10, 50, 90 %)")
    print(f"{torch.get_num_threads()} threads, {torch.cuda.get_device_name() if on_gpu else 'cpu'}, {model}")
    reference = SentenceTransformer(str(find_model(model).path), device=device, local_files_only=True)
    prompt = encoder.profile.document_prompt
    sides: dict[str, Callable[[], Vectors]] = {
        "sentence-transformers": lambda: encode_reference(reference, chosen, prompt),
        f"the same, calls of {CALL}": lambda: np.concatenate(
            [encode_reference(reference, chosen[at : at + CALL], prompt) for at in range(0, len(chosen), CALL)]
        ),
    }
    for name in ("torch",) if on_gpu else backends.split(","):
        try:
            ours = use_backend(encoder, name, sample(encoder, corpora, chosen))  # type: ignore[arg-type]
        except EsvectorError as error:
            print(f"{name}: {error.message}")
            continue
        sides[f"esvector, {name}"] = runner(ours, chosen, WINDOW["cuda" if on_gpu else "cpu"])
    read = int(np.minimum(tokens, encoder.profile.max_length or 10**9).sum())
    report(measure(sides, rounds), sides, len(chosen), read)
    if on_gpu:
        report_gpu(sides["esvector, torch"], encoder, read)


def runner(encoder: ModelEncoder, texts: Sequence[str], window: int) -> Callable[[], Vectors]:
    """Return what encodes ``texts`` as a load does: in windows, each tokenized while the one before is encoded."""
    engine = document_engine(encoder)
    documents = [Document(str(n), text, {}, "") for n, text in enumerate(texts)]

    def run() -> Vectors:
        parts = (documents[at : at + window] for at in range(0, len(documents), window))
        return np.concatenate([engine.encode(engine.tokenize(part)).vectors for part in parts])

    return run


def encode_reference(model: SentenceTransformer, texts: Sequence[str], prompt: str | None) -> Vectors:
    """Encode with sentence-transformers and its defaults, with the same explicit prompt."""
    vectors: Vectors = model.encode_document(list(texts), prompt=prompt or "", show_progress_bar=False)
    return vectors


def measure(sides: dict[str, Callable[[], Vectors]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each side in each round; the sides take turns. A round before that warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, side in sides.items():
            started = time.perf_counter()
            side()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def report(seconds: dict[str, list[float]], sides: dict[str, Callable[[], Vectors]], texts: int, tokens: int) -> None:
    """Print a line per side: speed, ratios to both ways of sentence-transformers, and agreement."""
    whole, calls, *_ = seconds.values()
    expected = next(iter(sides.values()))()
    heads = ("side", "texts/s", "tokens/s", "x whole list", "x calls", "cosine mean", "least")
    print("\n{:28} {:>8} {:>9} {:>20} {:>8} {:>12} {:>8}".format(*heads))
    for name, own in seconds.items():
        to_whole = sorted(a / b for a, b in zip(whole, own, strict=True))
        to_calls = statistics.median(a / b for a, b in zip(calls, own, strict=True))
        found = agreement(sides[name](), expected)
        median = statistics.median(own)
        spread = f"{statistics.median(to_whole):.2f} ({to_whole[0]:.2f}-{to_whole[-1]:.2f})"
        print(
            f"{name:28} {texts / median:8.0f} {tokens / median:9.0f} {spread:>20} {to_calls:8.2f} "
            f"{found.mean():12.5f} {found.min():8.5f}"
        )


def report_gpu(run: Callable[[], Vectors], encoder: ModelEncoder, tokens: int) -> None:
    """Print how busy the GPU is, its share of the measured bf16 peak, and what tokenizing alone could feed."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        started = time.perf_counter()
        run()
        wall = time.perf_counter() - started
    busy = sum(event.self_device_time_total for event in profiled.key_averages()) / 1e6
    tower: Any = encoder.towers["document"].tower
    weights = sum(p.numel() for n, p in tower.backend.embedder.named_parameters() if "embeddings" not in n)
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(50):
        a @ a
    torch.cuda.synchronize()
    peak = 50 * 2 * 8192**3 / (time.perf_counter() - started)
    reached = 2 * weights * tokens / wall / peak
    print(f"\nGPU busy {busy / wall:.2f} of the time, {reached:.2f} of {peak / 1e12:.0f} TFLOP/s")


def sample(encoder: ModelEncoder, corpora: tuple[Path, ...], measured: Sequence[str]) -> list[str]:
    """Inputs to calibrate on: other texts of the same corpora than those measured."""
    others = [text for text in read_texts(corpora) if text not in set(measured)][:2000] or list(measured)
    return [encoder.profile.document_input(text) for text in others]


def read_texts(corpora: tuple[Path, ...]) -> list[str]:
    """Title and text of every record, in an order that mixes the corpora; always the same."""
    if corpora:
        records = [orjson.loads(line) for path in corpora for line in path.read_bytes().splitlines()]
    else:
        from esvector.demo import python_docs

        records = list(python_docs())
    texts = [" ".join(part for part in (r.get("title"), r.get("text")) if part) for r in records]
    return [texts[row] for row in np.random.default_rng(5).permutation(len(texts))]


def pick(texts: Sequence[str], count: int, mix: str) -> list[str]:
    """The first ``count`` texts of a mix: all, at most 200 characters, or at least 1,500."""
    wanted = {"mixed": lambda _: True, "short": lambda t: len(t) <= 200, "long": lambda t: len(t) >= 1500}[mix]
    return [text for text in texts if wanted(text)][:count]


if __name__ == "__main__":
    main()
