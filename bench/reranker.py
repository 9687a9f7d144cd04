"""Train a small cross-encoder, for ``bench/quality.py --reranker`` where no trained one is at hand.

It begins with the weights of a bi-encoder, and learns from one half of the documents of a BEIR folder (the first ones
of its corpus) and the questions that these answer: which of the documents that the bi-encoder finds is the right one.
OUT gets the cross-encoder, ``<model>-as-reranker``, and a folder ``<name>-unseen`` with all documents and the other
questions.
"""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from sentence_transformers import CrossEncoder

from esvector import EncoderProfile, read_documents
from esvector.encode.loading import load_encoder
from esvector.encode.models import find_model
from esvector.evaluate import find_beir, read_qrels, read_queries
from esvector.types import Record

CANDIDATES = 20  # that the bi-encoder finds; the wrong ones are drawn from them
WEIGHTS = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


@dataclass(frozen=True)
class Question:
    """A text, the number of a document that answers it, and of some that are near and do not."""

    text: str
    right: int
    wrong: tuple[int, ...]


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--model", default="sentence-transformers/all-MiniLM-L6-v2", show_default=True)
@click.option("--epochs", default=2, show_default=True)
@click.option("--wrong", default=4, show_default=True, help="Wrong documents for each question.")
@click.option("--batch", default=6, show_default=True, help="Questions of a step.")
@click.option("--rate", default=5e-5, show_default=True, help="Learning rate at the most.")
@click.option("--tokens", default=256, show_default=True, help="Read of a pair.")
@click.option("--seed", default=1, show_default=True)
def main(
    folder: Path, out: Path, model: str, epochs: int, wrong: int, batch: int, rate: float, tokens: int, seed: int
) -> None:
    """Train on one half of FOLDER; write OUT."""
    torch.manual_seed(seed)
    chance = random.Random(seed)
    ids, texts = corpus(folder)
    seen = set(ids[: len(ids) // 2])
    queries, qrels = find_beir(folder)
    asked, answers = read_queries(queries), read_qrels(qrels)
    mine = {query for query, found in answers.items() if query in asked and found.keys() <= seen}
    write_unseen(folder, out, {query for query, found in answers.items() if not found.keys() & seen})
    learn = questions({query: asked[query] for query in sorted(mine)}, answers, ids, texts, model)
    print(f"{len(learn)} questions of {len(asked)} to learn from")

    encoder = begin(model, out / "bare", tokens)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=rate, weight_decay=0.01)
    steps = epochs * -(-len(learn) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    encoder.train()
    started = time.perf_counter()
    for epoch in range(epochs):
        chance.shuffle(learn)
        losses = []
        for start in range(0, len(learn), batch):
            some = learn[start : start + batch]
            pairs = [(one.text, texts[at]) for one in some for at in (one.right, *chance.sample(one.wrong, wrong))]
            scores = score(encoder, pairs, tokens).view(len(some), -1)
            loss = torch.nn.functional.cross_entropy(scores, torch.zeros(len(some), dtype=torch.long))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.3f}, {time.perf_counter() - started:.0f} s", flush=True)
    encoder.eval()
    encoder.save_pretrained(str(out / f"{Path(model).name}-as-reranker"))
    shutil.rmtree(out / "bare")


def corpus(folder: Path) -> tuple[list[str], list[str]]:
    """Ids and texts, in the order of the file."""
    found = [record.fields for record in read_documents(folder / "corpus.jsonl") if isinstance(record, Record)]
    return [str(fields["_id"]) for fields in found], [
        " ".join(filter(None, (fields.get("title"), fields.get("text")))) for fields in found
    ]


def questions(
    asked: dict[str, str], answers: dict[str, dict[str, int]], ids: list[str], texts: list[str], model: str
) -> list[Question]:
    """Each question with what the bi-encoder finds for it among all documents."""
    encoder = load_encoder(EncoderProfile(model))
    near = np.argsort(-(encoder.encode_query(list(asked.values())) @ encoder.encode_document(texts).T), axis=1)
    at = {id_: number for number, id_ in enumerate(ids)}
    found = []
    for (query, text), row in zip(asked.items(), near, strict=True):
        right = {at[id_] for id_, grade in answers[query].items() if grade > 0}
        wrong = tuple(int(number) for number in row[:CANDIDATES] if int(number) not in right)
        found += [Question(text, number, wrong) for number in sorted(right)]
    return found


def begin(model: str, bare: Path, tokens: int) -> CrossEncoder:
    """Return a cross-encoder with the weights of ``model`` and a head that knows nothing yet."""
    source = find_model(model).path
    bare.mkdir(parents=True, exist_ok=True)
    for name in WEIGHTS:
        if (source / name).exists():
            shutil.copy(source / name, bare / name)
    return CrossEncoder(str(bare), num_labels=1, max_length=tokens, device="cpu", local_files_only=True)


def score(encoder: CrossEncoder, pairs: list[tuple[str, str]], tokens: int) -> torch.Tensor:
    """Scores (n,) before any activation, to be learned from."""
    features = encoder.tokenizer(
        [query for query, _ in pairs],
        [text for _, text in pairs],
        padding=True,
        truncation="longest_first",
        max_length=tokens,
        return_tensors="pt",
    )
    scores: torch.Tensor = encoder.model(**features).logits.squeeze(-1)
    return scores


def write_unseen(folder: Path, out: Path, unseen: set[str]) -> None:
    """Write the documents, and the questions of ``unseen`` with their answers, as a BEIR folder."""
    there = out / f"{folder.resolve().name}-unseen"
    there.mkdir(parents=True, exist_ok=True)
    queries, qrels = find_beir(folder)
    shutil.copy(folder / "corpus.jsonl", there / "corpus.jsonl")
    with (there / "queries.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(
            json.dumps({"_id": query, "text": text}) + "\n"
            for query, text in read_queries(queries).items()
            if query in unseen
        )
    with (there / "qrels.tsv").open("w", encoding="utf-8") as file:
        file.write("query-id\tcorpus-id\tscore\n")
        file.writelines(_judgements(read_qrels(qrels), unseen))


def _judgements(answers: dict[str, dict[str, int]], unseen: set[str]) -> Iterator[str]:
    for query, found in answers.items():
        if query in unseen:
            yield from (f"{query}\t{document}\t{grade}\n" for document, grade in found.items())


if __name__ == "__main__":
    main()
