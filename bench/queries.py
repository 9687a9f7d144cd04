"""The query side: latency of one query against sentence-transformers' ``encode_query``, and threads against one thread.

No server is needed. Queries are distinct, so that nothing is remembered; sides take turns in one run.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np
from sentence_transformers import SentenceTransformer

from esvector.encode.loading import load_encoder
from esvector.encode.models import find_model
from esvector.encode.profile import EncoderProfile
from esvector.encode.queries import QueryEncoder, open_query_encoder, probe_vectors

WORDS = [
    "how",
    "long",
    "can",
    "cooked",
    "rice",
    "be",
    "kept",
    "graph",
    "neural",
    "networks",
    "for",
    "molecules",
    "who",
    "wrote",
    "the",
    "left",
    "hand",
    "of",
    "darkness",
    "best",
    "way",
    "to",
    "learn",
    "sailing",
    "alone",
    "treatment",
    "of",
    "mild",
    "asthma",
    "in",
    "children",
    "largest",
    "lake",
    "in",
    "south",
    "america",
    "parse",
    "dates",
    "from",
    "text",
]
THREADS = 32


@click.command()
@click.option("--model", default="sentence-transformers/all-MiniLM-L6-v2", show_default=True)
@click.option("--queries", default=320, show_default=True, help="Queries of each side in each round.")
@click.option("--rounds", default=5, show_default=True)
def main(model: str, queries: int, rounds: int) -> None:
    """Print latency and throughput with their ratios, medians over the rounds."""
    encoder = load_encoder(EncoderProfile(model), "query", "cpu")
    reference = SentenceTransformer(str(find_model(model).path), device="cpu", local_files_only=True)
    texts = make_queries(queries * (2 * rounds + 4) * 2)
    with TemporaryDirectory() as cache:
        ours = open_query_encoder(encoder.profile, probe_vectors(encoder), cache=Path(cache))
        print(f"{model}: queries encoded by {ours.how}; {queries} distinct queries of 7 words, {rounds} rounds")
        prompt = encoder.profile.query_prompt or ""
        theirs_alone: Callable[[str], object] = lambda text: reference.encode_query(text, prompt=prompt)  # noqa: E731
        latencies: dict[str, list[float]] = {"sentence-transformers": [], "esvector": []}
        throughput: dict[int, list[float]] = {1: [], THREADS: []}
        for turn in range(rounds + 1):
            found = {
                "sentence-transformers": median_latency(theirs_alone, take(texts, queries)),
                "esvector": median_latency(lambda text: ours([text]), take(texts, queries)),
            }
            rates = {threads: rate(ours, take(texts, queries), threads) for threads in throughput}
            if turn:
                for name, value in found.items():
                    latencies[name].append(value)
                for threads, value in rates.items():
                    throughput[threads].append(value)
    for name, values in latencies.items():
        print(f"{name:22} {1000 * statistics.median(values):7.2f} ms for one query (median)")
    ratios = [b / a for a, b in zip(latencies["sentence-transformers"], latencies["esvector"], strict=True)]
    print(f"esvector takes {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f}) of the time")
    for threads, values in throughput.items():
        print(f"{threads:3} threads {statistics.median(values):7.0f} queries/s")
    ratios = [b / a for a, b in zip(throughput[1], throughput[THREADS], strict=True)]
    print(f"{THREADS} threads: {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f}) times one thread")


def make_queries(count: int) -> list[str]:
    """Distinct queries of seven words."""
    rng = np.random.default_rng(7)
    return [f"{' '.join(rng.choice(WORDS, 6))} {n}" for n in range(count)]


def take(texts: list[str], count: int) -> list[str]:
    """Remove the last ``count`` texts and return them."""
    taken = texts[-count:]
    del texts[-count:]
    return taken


def median_latency(encode: Callable[[str], object], texts: Sequence[str]) -> float:
    """Median seconds of one query."""
    seconds = []
    for text in texts:
        started = time.perf_counter()
        encode(text)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def rate(encode: QueryEncoder, texts: Sequence[str], threads: int) -> float:
    """Queries per second of ``threads`` threads that ask one query at a time."""
    parts = [texts[n::threads] for n in range(threads)]
    workers = [threading.Thread(target=lambda part=part: [encode([text]) for text in part]) for part in parts]
    started = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return len(texts) / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
