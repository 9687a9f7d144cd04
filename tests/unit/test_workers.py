"""Encoding in child processes, on a CPU: what a device does to its process, a word in a text does here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from esvector.encode import workers
from esvector.encode.batcher import EncodedWindow
from esvector.encode.encoder import ModelEncoder
from esvector.encode.engine import DocumentEngine, document_engine
from esvector.encode.loading import load_encoder
from esvector.encode.profile import EncoderProfile
from esvector.encode.tokens import Tokens
from esvector.encode.workers import ProcessEngine
from esvector.errors import EncoderError, EncoderMismatchError, EsvectorError, MissingExtraError
from esvector.types import Document
from tests.support import workers as support

TEXTS = ["a b c", "d", "e f g h i j k l m n o p q r s t", "", "half a \ud800 pair", "u v w x y z", "a", "z y x"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ProcessEngine, Path]]:
    folder = tmp_path_factory.mktemp("shared")
    with ProcessEngine(partial(support.open_tiny, folder)) as engine:
        yield engine, folder


def documents(texts: list[str]) -> list[Document]:
    return [Document(str(place), text, {}, f"line {place}") for place, text in enumerate(texts)]


def encode(
    engine: DocumentEngine, texts: list[str], on_batch: Callable[[int, int], None] | None = None
) -> EncodedWindow:
    return engine.encode(engine.tokenize(documents(texts)), on_batch)


def expected(texts: list[str], folder: Path) -> EncodedWindow:
    return encode(document_engine(support.open_tiny(folder)), texts)


def assert_vectors(window: EncodedWindow, texts: list[str], refused: set[int], folder: Path) -> None:
    """Every text but the refused has the vector that it has in this process, when it is alone."""
    assert set(window.refused) == refused
    kept = [place for place in range(len(texts)) if place not in refused]
    alone = np.concatenate([expected([texts[place]], folder).vectors for place in kept])
    assert np.allclose(window.vectors[kept], alone, atol=1e-6)


def test_tokens_of_some_texts() -> None:
    tokens = Tokens(np.arange(6, dtype=np.int32), np.array([0, 2, 2, 3, 6]), np.array([2, 0, 1, 9]), {1: "no text"})
    some = tokens.select(np.array([3, 1, 0]))
    assert (some.ids.tolist(), some.starts.tolist(), some.counts.tolist()) == ([3, 4, 5, 0, 1], [0, 3, 3, 5], [9, 0, 2])
    assert some.refused == {1: "no text"}
    assert some.ids.dtype == np.int32
    nothing = tokens.select(np.array([], np.intp))
    assert (len(nothing), len(nothing.ids), nothing.starts.tolist()) == (0, 0, [0])


def test_a_child_gives_what_this_process_would(shared: tuple[ProcessEngine, Path], tmp_path: Path) -> None:
    engine, folder = shared
    batches: list[tuple[int, int]] = []
    window, here = encode(engine, TEXTS, lambda *batch: batches.append(batch)), expected(TEXTS, tmp_path)
    assert np.allclose(window.vectors, here.vectors, atol=1e-7)
    assert window.tokens.tolist() == here.tokens.tolist()
    assert (window.truncated, window.refused) == (here.truncated, here.refused)
    assert sorted(window.refused) == [4]
    assert len(batches) > 1
    done = [n for n in range(len(TEXTS)) if n not in window.refused]
    assert tuple(map(sum, zip(*batches, strict=True))) == (len(done), window.tokens[done].sum())
    assert (engine.profile, engine.sources, engine.warnings) == (
        support.open_tiny(tmp_path).profile,
        {"dims": "the model"},
        ("a warning",),
    )
    assert support.pids(folder)[0] != os.getpid()


def test_no_texts(shared: tuple[ProcessEngine, Path]) -> None:
    assert encode(shared[0], []).vectors.shape == (0, support.DIMS)


def test_signals_of_the_terminal_are_for_the_parent(shared: tuple[ProcessEngine, Path]) -> None:
    engine, folder = shared
    engine.wait_ready()
    for sent in (signal.SIGINT, signal.SIGTERM):
        os.kill(support.pids(folder)[-1], sent)
    assert encode(engine, ["a b"]).refused == {}
    assert engine.restarts == 0


def test_an_ordinary_failure_reaches_the_caller_and_costs_no_child(shared: tuple[ProcessEngine, Path]) -> None:
    engine, _ = shared
    assert list(encode(engine, ["a", "fail", "b"]).refused) == [1]
    with pytest.raises(EncoderError, match=r"failed on every one of 2 texts.*an ordinary failure") as caught:
        encode(engine, ["fail a", "b fail"])
    assert "models check" in caught.value.remedy
    assert "Traceback" in caught.value.__notes__[0]
    assert engine.restarts == 0


def test_what_is_stopped_leaves_no_answer_for_the_next(shared: tuple[ProcessEngine, Path], tmp_path: Path) -> None:
    engine, _ = shared

    def stop(documents: int, tokens: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode(engine, ["a b c"] * 50, stop)
    assert_vectors(encode(engine, ["x y", "z"]), ["x y", "z"], set(), tmp_path)


def test_only_the_texts_that_kill_are_refused(tmp_path: Path) -> None:
    texts = ["a b c", "kill d", "", "e f g h", "exit", "i", "j k"]
    told: list[tuple[int, int]] = []
    with ProcessEngine(partial(support.open_tiny, tmp_path), "cuda:1") as engine:
        window = encode(engine, texts, lambda *batch: told.append(batch))
        assert len(support.pids(tmp_path)) == 1 + engine.restarts
    assert window.refused[1] == "the encoder's process on cuda:1 died on this text (signal 9)"
    assert window.refused[4] == "the encoder's process on cuda:1 died on this text (exit code 3)"
    assert_vectors(window, texts, {1, 4}, tmp_path)
    assert tuple(map(sum, zip(*told, strict=True))) == (5, window.tokens[[0, 2, 3, 5, 6]].sum())


@pytest.mark.parametrize("once", ["lostonce", "killonce"])
def test_a_device_lost_once_costs_a_restart_and_no_text(once: str, tmp_path: Path) -> None:
    texts = ["a b c d e f g h", "i j k l m n o p", f"{once}", "q"]
    told: list[tuple[int, int]] = []
    with ProcessEngine(partial(support.open_tiny, tmp_path)) as engine:
        window = encode(engine, texts, lambda *batch: told.append(batch))
        assert engine.restarts == 1
    assert_vectors(window, texts, set(), tmp_path)
    assert tuple(map(sum, zip(*told, strict=True))) == (4, window.tokens.sum())
    if once == "lostonce":  # what a process that is killed has still to tell dies with it
        assert (0, 0) in told


def test_a_text_that_loses_the_device_is_refused_with_what_the_device_said(tmp_path: Path) -> None:
    with ProcessEngine(partial(support.open_tiny, tmp_path)) as engine:
        window = encode(engine, ["a", "lost"])
        assert window.refused == {1: "the device failed: RuntimeError: CUDA error: device-side assert triggered"}
        assert encode(engine, ["lost"]).refused.keys() == {0}
        assert_vectors(encode(engine, ["b c"]), ["b c"], set(), tmp_path)


def test_a_window_on_which_every_child_dies_ends_the_load(tmp_path: Path) -> None:
    with ProcessEngine(partial(support.open_tiny, tmp_path)) as engine:
        with pytest.raises(EncoderError, match=r"lost 4 times over 2 texts; the last time: .*signal 9"):
            encode(engine, ["kill", "kill a"])
        assert_vectors(encode(engine, ["b"]), ["b"], set(), tmp_path)


def test_too_many_losses_in_a_row_end_the_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_LOSSES", 0)
    with ProcessEngine(partial(support.open_tiny, tmp_path)) as engine:
        with pytest.raises(EncoderError, match="lost 5 times over 16 texts"):
            encode(engine, ["kill"] * 15 + ["a"])
        assert engine.restarts == 4


@pytest.mark.parametrize("guilty", [0, 1023])
def test_one_text_of_a_full_window_is_never_too_many(guilty: int) -> None:
    plan = workers._Plan(1024)
    while (rows := plan.next()) is not None:
        if guilty in rows:
            plan.lost(rows, "died")
            assert not plan.hopeless
        else:
            plan.answered(rows, {})
    assert plan.refused == {guilty: "died"}
    assert plan.losses == 12


@pytest.mark.parametrize(
    ("opening", "error", "message", "remedy"),
    [
        (support.open_mismatched, EncoderMismatchError, "another encoder", "take this one"),
        (support.open_missing, MissingExtraError, "this needs torch", "install it"),
        (support.open_buggy, EncoderError, "the encoder cannot be loaded: ValueError: a bug", ""),
        (support.open_whole, EncoderError, "tiny tokenizes its texts itself", "use one device"),
        (support.open_dying, EncoderError, "on cuda:1 died before its encoder was loaded (exit code 7)", "stderr"),
    ],
)
def test_an_error_of_loading_arrives_as_it_is(
    opening: Callable[[], ModelEncoder], error: type[EsvectorError], message: str, remedy: str
) -> None:
    with ProcessEngine(opening, "cuda:1") as engine:
        with pytest.raises(EsvectorError) as caught:
            engine.wait_ready()
        assert type(caught.value) is error
        assert message in caught.value.message
        assert remedy in caught.value.remedy


def test_a_model_that_changes_before_a_restart(tmp_path: Path) -> None:
    with (
        ProcessEngine(partial(support.open_twice, tmp_path)) as engine,
        pytest.raises(EncoderMismatchError, match="weights"),
    ):
        encode(engine, ["a", "killonce"])


def test_two_devices_in_two_threads(tmp_path: Path) -> None:
    texts = [["a b", "killonce", "c d e f"] * 5, ["u v", "w", "x y z"] * 5]
    openings = [partial(support.open_tiny, tmp_path), partial(support.open_tiny, tmp_path)]
    with ProcessEngine(openings[0]) as one, ProcessEngine(openings[1]) as two, ThreadPoolExecutor(2) as pool:
        inputs = [one.tokenize(documents(part)) for part in texts]  # one tokenizer serves both
        windows = list(pool.map(lambda engine, tokens: engine.encode(tokens), (one, two), inputs))
        assert (one.restarts, two.restarts) == (1, 0)
    for window, part in zip(windows, texts, strict=True):
        assert_vectors(window, part, set(), tmp_path)


def waited_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_next_window_is_with_the_child_before_it_is_done_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its megabytes go through the pipe while the device works, not while it rests."""
    with ProcessEngine(partial(support.open_tiny, tmp_path)) as engine, ThreadPoolExecutor(2) as pool:
        first = engine.tokenize(documents(["held"]))
        many = engine.tokenize(documents(["a b c d e f g h"] * 20_000))
        child = engine._child
        assert child is not None
        plain, sent = child._pipe.send, threading.Event()

        def send(tokens: Tokens) -> None:
            plain(tokens)
            if len(tokens) > 1:
                sent.set()

        monkeypatch.setattr(child._pipe, "send", send)
        one = pool.submit(engine.encode, first)
        waited_for(tmp_path / "holds")
        two = pool.submit(engine.encode, many)
        arrived = sent.wait(60)
        (tmp_path / "released").touch()
        assert arrived
        assert not one.result(60).refused
        assert len(two.result(60).vectors) == 20_000
        assert engine.restarts == 0


@pytest.mark.parametrize("deadly", ["kill", "lost", "killonce", "lostonce"])
def test_a_window_pays_for_no_other_that_is_in_flight(deadly: str, tmp_path: Path) -> None:
    bad = ["held a b", "c", f"d {deadly}"]
    good = ["e f g h", "i", "j k"]
    with ProcessEngine(partial(support.open_tiny, tmp_path)) as engine, ThreadPoolExecutor(2) as pool:
        one = pool.submit(encode, engine, bad)
        waited_for(tmp_path / "holds")
        two = pool.submit(encode, engine, good)
        child = engine._child
        assert child is not None
        deadline = time.monotonic() + 60
        while len(child._turns) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        (tmp_path / "released").touch()
        assert set(one.result(60).refused) == (set() if deadly.endswith("once") else {2})
        assert_vectors(two.result(60), good, set(), tmp_path)


def test_what_stops_one_window_costs_no_other(tmp_path: Path) -> None:
    def stop(documents: int, tokens: int) -> None:
        raise ValueError("enough")

    with ProcessEngine(partial(support.open_tiny, tmp_path)) as engine, ThreadPoolExecutor(2) as pool:
        one = pool.submit(encode, engine, ["held a b", "c"] * 9, stop)
        waited_for(tmp_path / "holds")
        two = pool.submit(encode, engine, TEXTS)
        (tmp_path / "released").touch()
        with pytest.raises(ValueError, match="enough"):
            one.result(60)
        assert_vectors(two.result(60), TEXTS, {4}, tmp_path)


def test_close_frees_every_thread_that_waits(tmp_path: Path) -> None:
    engine = ProcessEngine(partial(support.open_tiny, tmp_path))
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(encode, engine, ["held", "a"]) for _ in range(2)]
        waited_for(tmp_path / "holds")
        engine.close()
        for thread in waiting:
            with pytest.raises(EncoderError, match="closed"):
                thread.result(60)
    for pid in support.pids(tmp_path):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_close_ends_a_child_that_loads(tmp_path: Path) -> None:
    engine = ProcessEngine(partial(support.open_tiny, tmp_path))
    child = engine._child
    assert child is not None
    engine.close()
    assert child._process.poll() is not None
    with pytest.raises(EncoderError, match="closed"):
        engine.wait_ready()


def test_close_ends_the_child(tmp_path: Path) -> None:
    with ProcessEngine(partial(support.open_tiny, tmp_path)) as engine:
        inputs = engine.tokenize(documents(["a"]))
        (pid,) = support.pids(tmp_path)
        engine.close()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        with pytest.raises(EncoderError, match="closed"):
            engine.encode(inputs)


def test_close_frees_a_thread_that_waits_for_the_child(tmp_path: Path) -> None:
    engine = ProcessEngine(partial(support.open_tiny, tmp_path))
    with ThreadPoolExecutor(1) as pool:
        # The second loss of a text that is alone would be the text's fault, if it were not for close.
        waiting = pool.submit(encode, engine, ["killonce slow"])
        deadline = time.monotonic() + 30
        while not (tmp_path / "slow").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        engine.close()
        with pytest.raises(EncoderError, match="closed"):
            waiting.result(30)
    with pytest.raises(ProcessLookupError):
        os.kill(support.pids(tmp_path)[-1], 0)


SCRIPT = """
import signal, sys
from functools import partial
from pathlib import Path
from esvector.encode.workers import ProcessEngine
from esvector.types import Document
from tests.support.workers import open_tiny

engine = ProcessEngine(partial(open_tiny, Path(sys.argv[1])))
window = engine.encode(engine.tokenize([Document("1", "a b c", {}, "line 1")]))
print("encoded", len(window.vectors), "torch" in sys.modules, flush=True)
signal.pause()
"""


def test_a_killed_parent_takes_its_child_along(tmp_path: Path) -> None:
    # The script has no `if __name__ == "__main__"`, and does its work once nevertheless.
    (tmp_path / "script.py").write_text(SCRIPT)
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py"), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "encoded 1 False\n"
        parent.kill()
        _, errors = parent.communicate(timeout=30)  # ends when the child has let go of stderr, too
    assert errors == "a library talks\n"


def test_a_real_model(tmp_path: Path) -> None:
    from tests.support import models

    profile = EncoderProfile(str(models.symmetric(tmp_path)))
    texts = [*models.words(20, seed=1), ""]
    with ProcessEngine(partial(load_encoder, profile, "document", "cpu")) as engine:
        window = encode(engine, texts)
        here = load_encoder(profile, "document", "cpu")
        assert engine.profile == here.profile
        assert np.allclose(window.vectors, encode(document_engine(here), texts).vectors, atol=1e-6)
