"""What is likely to go wrong with an encoder, said before it does, and a few texts to try it on. Needs no torch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from esvector.encode.presets import Preset, find_preset, preset_named

if TYPE_CHECKING:
    from esvector.encode.encoder import Encoder
    from esvector.encode.profile import EncoderProfile, Side

__all__ = ["TRIALS", "Outcome", "Task", "Trial", "advise", "base_model_of", "run_trials", "same_sides", "words_read"]

Task = Literal["search", "similar"]

_PASSAGE_TOKENS = 64
"""Median length from which texts are taken for passages, and so a search for one with short questions."""

_TYPED = 32
"""Characters of a prompt that one would type on a command line."""

_FOR_SEARCH = "multi-qa-mpnet-base-cos-v1, intfloat/e5-base-v2 or BAAI/bge-base-en-v1.5"
_FOR_SEARCH_MULTILINGUAL = "intfloat/multilingual-e5-base or BAAI/bge-m3"
_FOR_SIMILAR = "all-mpnet-base-v2 or BAAI/bge-m3"
_FOR_LONG = "BAAI/bge-m3, Alibaba-NLP/gte-modernbert-base or nomic-ai/nomic-embed-text-v1.5"


def advise(
    profile: EncoderProfile,
    task: Task | None = None,
    *,
    median_tokens: float | None = None,
    base_model: str | None = None,
    sources: Mapping[str, str] | None = None,
) -> list[str]:
    """Return warnings, a line each, that say what is wrong with ``profile`` for ``task`` and what to do.

    Args:
        profile: asked for, or of a loaded encoder; what it does not state is not judged.
        task: what the vectors are for; None where nobody said.
        median_tokens: length of the documents.
        base_model: the model that this one was made from (``base_model_of``).
        sources: where facts came from, as ``ModelEncoder.sources``; what "the model" states itself is not judged.
    """
    sources = sources or {}
    named = preset_named(profile.family) if profile.family else find_preset(profile.model)
    base = find_preset(base_model) if base_model and named is None else None
    warnings: list[str] = []
    if named is not None:
        warnings += _task(profile, named, task, median_tokens)
        warnings += _towers(profile, named)
        warnings += _prompts(profile, named, sources, copy=False)
        if named.matches(profile.model):  # a family given for its prompts says nothing of another model's size
            warnings += _size(profile, named, sources)
    elif base is not None:
        warnings += _lost_settings(profile, base, base_model or "")
        warnings += _prompts(profile, base, sources, copy=True)
    warnings += _length(profile, median_tokens)
    return list(dict.fromkeys(warnings))


def base_model_of(folder: Path) -> str | None:
    """Name of the model that the one in ``folder`` was made from, where its files say so.

    transformers 4 wrote it into config.json; later versions leave it to the model card.
    """
    for name, pattern in (("config.json", r'"_name_or_path":\s*"([^"]+)"'), ("README.md", _CARD)):
        try:
            found = re.search(pattern, (folder / name).read_text(encoding="utf-8", errors="replace"))
        except OSError:
            continue
        if found:
            return found[1]
    return None


_CARD = r"\A---\n(?:(?!---\n).*\n)*?base_model:\s*(?:-\s*)?[\"']?([^\s\"']+)"


def _task(profile: EncoderProfile, preset: Preset, task: Task | None, median: float | None) -> Iterator[str]:
    passages = task is None and median is not None and median >= _PASSAGE_TOKENS
    if "search" not in preset.suits and (task == "search" or passages):
        multilingual = "multilingual" in preset.example or preset.family == "labse"
        seen = f", not passages ({median:.0f} tokens) with questions" if passages else ""
        yield (
            f"{preset.family} models compare like with like{seen}: for search use "
            f"{_FOR_SEARCH_MULTILINGUAL if multilingual else _FOR_SEARCH}; else say --task similar"
        )
    if task == "similar" and "similar" not in preset.suits:
        differ = profile.two_towers or profile.query_prompt != profile.document_prompt
        why = "their query and document sides differ" if differ else "trained on questions and their passages"
        yield (
            f"{preset.family} models are for search, {why}: encode both texts as documents (esvector similar does), "
            f"or use {_FOR_SIMILAR}"
        )


def _towers(profile: EncoderProfile, preset: Preset) -> Iterator[str]:
    """A pair of models with the two exchanged, or one twice: it loads, and finds nothing."""
    partner = preset.partner(profile.model)
    if partner is None:
        return
    own = partner.rpartition("/")[2].lower()
    if own in profile.model.lower():
        yield (
            f"{_short(profile.model)} is the question model of a pair, but is to encode documents: give the passage "
            "model (ctx_encoder) as the model, and this one as --query-model"
        )
    elif profile.query_model and preset.matches(profile.query_model) and own not in profile.query_model.lower():
        yield (
            f"{_short(profile.query_model)} does not encode queries for this model: give --query-model "
            f"{_short(partner)}"
        )


def _size(profile: EncoderProfile, preset: Preset, sources: Mapping[str, str]) -> Iterator[str]:
    dims = None if sources.get("dims") == "the model" else profile.dims
    if dims is not None and dims not in preset.dims and not preset.matryoshka:
        yield (
            f"vectors are cut to {dims} dims, which {preset.family} models were not trained for, so results get worse: "
            "leave --dims out, or use one of those with 'or fewer' dims in esvector models"
        )
    most = None if sources.get("max_length") == "the model" else profile.max_length
    if most is not None and preset.max_length is not None and most > preset.max_length:
        yield (
            f"{most} tokens are read of a text, but {preset.family} models were made for at most {preset.max_length}: "
            "leave --max-length out unless you have measured it"
        )


def _length(profile: EncoderProfile, median: float | None) -> Iterator[str]:
    if median is not None and profile.max_length is not None and median > profile.max_length:
        yield (
            f"most documents are longer (median {median:.0f} tokens) than the {profile.max_length} tokens that are "
            f"read: the rest is not searched; split them into passages, or use {_FOR_LONG}"
        )


def _lost_settings(profile: EncoderProfile, preset: Preset, base_model: str) -> Iterator[str]:
    """What a copy under another name has lost, because its files do not say it."""
    lost = {
        "similarity": (profile.similarity, preset.similarity),
        "separator of title and text": (profile.separator, preset.separator),
    }
    for fact, (ours, theirs) in lost.items():
        if ours is not None and ours != theirs:
            yield (
                f"it was made from {base_model}, whose {fact} is {theirs!r}, but used with {ours!r}: unless trained "
                f"anew for that, use --family {preset.family}"
            )


def _prompts(profile: EncoderProfile, preset: Preset, sources: Mapping[str, str], *, copy: bool) -> Iterator[str]:
    prompts: list[tuple[Side, str | None, str]] = [("query", profile.query_prompt, preset.query_prompt)]
    if profile.kind != "given":  # there, somebody else has encoded the documents
        prompts.append(("document", profile.document_prompt, preset.document_prompt))
    for side, ours, theirs in prompts:
        # A copy may have learnt a prompt that its base has not; what a model's own files say wins over any preset.
        own = sources.get(f"{side}_prompt") == "the model" or (copy and not theirs)
        if ours is None or ours == theirs or own or _is_another_instruction(ours, theirs):
            continue
        plural = "queries" if side == "query" else "documents"
        wanted = f"are trained with {_quoted(theirs)}" if theirs else "take no prompt"
        now = f"{_quoted(ours)} is put there" if ours else "there is none"
        now += ", which differs in white space" if ours and ours.strip() == theirs.strip() else ""
        yield f"{preset.family} models {wanted} before {plural}, but {now}: {_remedy(profile, preset, side, theirs)}"


def _is_another_instruction(ours: str, theirs: str) -> bool:
    """Whether a prompt of several words keeps its form and says another task, as its card invites one to do."""
    return len(theirs.split()) > 2 and ours.split()[:1] == theirs.split()[:1] and ours.strip() != theirs.strip()


def _remedy(profile: EncoderProfile, preset: Preset, side: Side, prompt: str) -> str:
    if not prompt:
        return f"leave --{side}-prompt out"
    ways = [f"--family {preset.family}"] if profile.family != preset.family else []
    ways += [f'--{side}-prompt "{prompt}"'] if len(prompt) <= _TYPED else []
    return f"use {' or '.join(ways) or f'--family {preset.family}, and no --{side}-prompt'}"


def _quoted(prompt: str) -> str:
    """The prompt in quotes; of a long one the beginning, and the end, whose white space counts."""
    return repr(prompt if len(prompt) <= 64 else f"{prompt[:28]}…{prompt[-20:]}")


def _short(name: str) -> str:
    """The model's own name and what stands before it: the folder of a cache is long."""
    return "/".join(name.rstrip("/").split("/")[-2:])


@dataclass(frozen=True, slots=True)
class Trial:
    """A text, the one of several that belongs to it, and others on the same subject that do not."""

    task: Task
    text: str
    right: str
    others: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Similarity of a trial's text to the right one, and to the best of all wrong ones of that task."""

    trial: Trial
    right: float
    best_other: float

    @property
    def first(self) -> bool:
        """Whether the right one came first."""
        return self.right > self.best_other


def run_trials(encoder: Encoder) -> list[Outcome]:
    """Try ``encoder``: questions as queries against passages, sentences as documents against sentences.

    Raises EncoderError where it cannot encode them.
    """
    outcomes: list[Outcome] = []
    for task, encode in (("search", encoder.encode_query), ("similar", encoder.encode_document)):
        trials = [trial for trial in TRIALS if trial.task == task]
        candidates = [text for trial in trials for text in (trial.right, *trial.others)]
        scores = encode([trial.text for trial in trials]) @ encoder.encode_document(candidates).T
        for trial, row in zip(trials, scores, strict=True):
            by_text = dict(zip(candidates, map(float, row), strict=True))
            right = by_text.pop(trial.right)
            outcomes.append(Outcome(trial, right, max(by_text.values())))
    return outcomes


def same_sides(encoder: Encoder) -> bool:
    """Whether queries and documents of the same text get the same vectors."""
    texts = [trial.text for trial in TRIALS]
    return bool(abs(encoder.encode_query(texts) - encoder.encode_document(texts)).max() < 1e-6)


def words_read(encoder: Encoder) -> int | None:
    """About how many words of an English document ``encoder`` reads; None for all."""
    most = encoder.profile.max_length
    if most is None:
        return None
    text = " ".join(part for trial in TRIALS for part in (trial.right, *trial.others))
    empty, full = map(int, encoder.count_tokens(["", text]))
    return max(0, (most - empty) * len(text.split()) // max(1, full - empty))


# Easy on purpose: what a working encoder gets right, and a wrong prompt, tower or similarity often does not.
# fmt: off
TRIALS: tuple[Trial, ...] = (
    Trial("search", "why do leaves change colour in autumn",
          "As the days grow shorter, trees stop making chlorophyll. The green breaks down, and the yellow and orange "
          "pigments that it had hidden come to light.",
          ("Raking keeps a lawn healthy: a thick wet layer shuts out the light and lets mould grow.",
           "Chameleons turn bright to signal to others: cells in the skin spread or gather their pigment.")),
    Trial("search", "how do vaccines protect against a disease",
          "A vaccine shows a harmless piece of the germ to the immune system, which makes antibodies and remembers "
          "it, so that a later infection is fought off at once.",
          ("The doses have to be kept between two and eight degrees, which is hard where power often fails.",
           "The plague spread through the port towns that summer, and physicians could do little for the sick.")),
    Trial("search", "who painted the ceiling of the sistine chapel",
          "From 1508 to 1512 Michelangelo stood on a scaffold in the chapel and covered the vault with scenes from "
          "Genesis for Pope Julius II.",
          ("The cardinals meet in the Vatican to elect a new pope, and white smoke tells the city of it.",
           "Before you paint a room, cover the floor; then begin at the edges and roll away from the window.")),
    Trial("search", "how to get rust off a bicycle chain",
          "Take it off the bike, leave it in white vinegar overnight, scrub the links with a stiff brush, then rinse, "
          "dry and oil them.",
          ("Bicycle tyres lose air with time: press them before every ride, and pump them up once a week.",
           "Rust is iron oxide, which forms where iron meets water and air; salt makes it form faster.")),
    Trial("similar", "The flight was cancelled because of heavy snow.", "Owing to the blizzard, the plane never left.",
          ("The skiing trip was a success because of heavy snow.", "The flight was full, and lunch was served late.")),
    Trial("similar", "The meeting was moved from Monday to Thursday.", "They put off Monday's meeting by three days.",
          ("The meeting on Monday moved everyone to tears.", "The shop is closed from Monday to Thursday.")),
    Trial("similar", "She could not sleep because of the noise outside.", "The racket in the street kept her awake.",
          ("She sells fruit from a stall in the street.", "He could not hear the radio in the kitchen.")),
    Trial("similar", "Children under six travel free of charge.",
          "Kids who are five or younger need no ticket for the journey.",
          ("The children had six weeks of holidays.", "Free entry to the museum is for students only.")),
)
# fmt: on
