"""A child process that encodes: how it is started, and both ends of its pipe.

It is started with a plain command rather than by ``multiprocessing``, which would run the caller's script once more in
each child: a script that indexes at its top level would index in every child, too.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from esvector.encode.batcher import Batcher, EncodedWindow
from esvector.encode.encoder import ModelEncoder
from esvector.encode.profile import EncoderProfile
from esvector.encode.tokens import TextTokenizer, Tokens
from esvector.encode.tower import ModelTower
from esvector.errors import DeviceLostError, EncoderError, EsvectorError

__all__ = ["Child", "Loaded", "Overtaken", "serve"]

_PATIENCE = 5.0  # seconds in which a process that has lost its pipe ends by itself
# A signal to the whole group is for the parent to answer: it may want to finish what it has, and the end of the pipe
# ends the child. That comes first, because importing takes a while.
_COMMAND = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sys.path[:] = {path!r}
from esvector.encode.child import serve
serve({descriptor})
"""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a child tells of its encoder of documents, and what tokenizes for it in any process.

    ``attention`` says how it runs texts, and why: nobody reads the child's log.
    """

    profile: EncoderProfile
    sources: dict[str, str]
    warnings: tuple[str, ...]
    dims: int
    tokenizer: TextTokenizer
    attention: str = ""


class Overtaken(Exception):
    """The child was lost over what came before: this was not begun, or is not to blame."""


class Child:
    """The parent's end. Nobody else holds the child's end, so its death ends the pipe.

    Several threads may have something encoded at once: the child takes it in turn, and has the next at hand when it is
    done with one. Who is at the front reads, so that a child that dies was at work for that thread and no other.

    Args:
        opening: the pickled function that loads the encoder.
        who: what to call the child in messages.
    """

    def __init__(self, opening: bytes, who: str) -> None:
        self._who = who
        self._loaded: Loaded | None = None
        self._sending = threading.Lock()
        self._changed = threading.Condition()
        self._turns: deque[object] = deque()
        self._lost = False
        self._pipe, theirs = Pipe()
        with theirs:
            code = _COMMAND.format(path=sys.path, descriptor=theirs.fileno())
            self._process = subprocess.Popen(  # noqa: S603  # this very Python, running esvector
                [sys.executable, "-c", code, who],
                stdin=subprocess.DEVNULL,
                stdout=2,  # what libraries print is no output of this program
                pass_fds=[theirs.fileno()],
                env=_environment(),
            )
        with suppress(OSError):  # when it is dead already, the first message tells
            self._pipe.send_bytes(opening)

    @property
    def lost(self) -> bool:
        """Whether it can encode nothing more."""
        return self._lost

    @property
    def idle(self) -> bool:
        """Whether it is loaded, and no thread waits for an answer."""
        return self._loaded is not None and not self._turns

    def loaded(self) -> Loaded:
        """Wait until the encoder is loaded. Raises what loading raised, EncoderError when the child dies of it."""
        if self._loaded is None:
            answer = self._receive()
            if isinstance(answer, EsvectorError):
                raise answer
            if answer is None:
                raise EncoderError(
                    f"{self._who} died before its encoder was loaded ({self.end()})",
                    "see what it wrote to stderr; signal 9 mostly means that the machine ran out of memory",
                )
            self._loaded = answer
        return self._loaded

    def encode(self, tokens: Tokens, on_batch: Callable[[int, int], None]) -> EncodedWindow | EsvectorError | None:
        """Return the answer to ``tokens``, or None when the child dies of them; ``on_batch`` is told of each batch.

        Raises Overtaken when the child is lost before it is their turn. What ``on_batch`` raises costs the child.
        """
        turn = object()
        with self._sending:  # turns are in the order of what is sent
            self._turns.append(turn)
            with suppress(OSError):  # when it is dead, the next message tells
                self._pipe.send(tokens)
        final: EncodedWindow | EsvectorError | None = None
        survived = False
        try:
            with self._changed:
                self._changed.wait_for(lambda: self._lost or self._turns[0] is turn)
            if self._lost:
                raise Overtaken
            while isinstance(answer := self._receive(), tuple):
                on_batch(*answer)
            final = answer
            survived = final is not None and not isinstance(final, DeviceLostError)
        finally:
            with self._changed:
                self._lost = self._lost or not survived
                self._turns.remove(turn)
                self._changed.notify_all()
        return final

    def kill(self) -> None:
        """Kill the process, from any thread; who waits for its answer gets None."""
        self._process.kill()

    def end(self) -> str:
        """Close the pipe, which ends an idle child; kill it when that takes long. Return how it ended."""
        with self._changed:
            self._changed.wait_for(lambda: not self._turns)
        with self._sending:
            self._pipe.close()
        try:
            code = self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def _receive(self) -> Any:  # noqa: ANN401
        """Return the next message, None when the child has died."""
        try:
            return self._pipe.recv()
        except (EOFError, OSError):
            return None


def _environment() -> dict[str, str]:
    """The environment of a child: on a GPU memory grows in segments, or batches of ever other shapes fragment it."""
    given = any(name in os.environ for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"))
    return {**os.environ, **({} if given else {"PYTORCH_ALLOC_CONF": "expandable_segments:True"})}


def serve(descriptor: int) -> None:
    """Be the child: load the encoder, then encode what comes over the pipe ``descriptor``, until its end.

    Threads of their own take in what comes next and hand out what is done, so that the device need not wait for them.
    """
    os.set_inheritable(descriptor, False)  # no process that a library starts may hold it
    with Connection(descriptor) as parent, suppress(EOFError, ConnectionError):
        batcher = _load(parent)
        if batcher is None:
            return
        requests: SimpleQueue[Tokens] = SimpleQueue()
        answers: SimpleQueue[Any] = SimpleQueue()
        threading.Thread(target=_pump, args=(parent.recv, requests.put), daemon=True).start()
        sender = threading.Thread(target=_pump, args=(iter(answers.get, None).__next__, parent.send), daemon=True)
        sender.start()
        lost = False
        while not lost:
            answer = _answer(batcher, requests.get(), answers)
            lost = isinstance(answer, DeviceLostError)
            answers.put(answer)
        answers.put(None)
        sender.join()


def _pump(take: Callable[[], Any], give: Callable[[Any], None]) -> None:
    """Take and give until there is no more; a parent that is gone ends this process, whatever it is doing."""
    try:
        while True:
            give(take())
    except StopIteration:
        return
    except (EOFError, OSError):
        os._exit(0)


def _load(parent: Connection[Any, Any]) -> Batcher | None:
    try:
        encoder: ModelEncoder = parent.recv()()
        batcher = encoder.batcher("document")
        loaded = _describe(encoder, batcher)
    except Exception as error:  # whatever it is, the parent has to know
        parent.send(_portable(error, "the encoder cannot be loaded"))
        return None
    parent.send(loaded)
    return batcher


def _describe(encoder: ModelEncoder, batcher: Batcher) -> Loaded:
    tower = batcher.tower
    if not isinstance(tower, ModelTower):
        raise EncoderError(
            f"{encoder.profile.model} tokenizes its texts itself, so it cannot run in a process of its own",
            "use one device",
        )
    attention = getattr(tower.backend, "attention", "")
    return Loaded(encoder.profile, encoder.sources, encoder.warnings, tower.dims, tower.tokenizer, attention)


def _answer(batcher: Batcher, tokens: Tokens, told: SimpleQueue[Any]) -> EncodedWindow | EsvectorError:
    try:
        return batcher.encode(tokens, lambda documents, count: told.put((documents, count)))
    except Exception as error:  # whatever it is, the parent has to know
        if not isinstance(error, EsvectorError) and batcher.tower.is_lost(error):
            return DeviceLostError(f"the device failed: {type(error).__name__}: {error}")
        return _portable(error, "the encoder failed")


def _portable(error: Exception, what: str) -> EsvectorError:
    """The error as the parent raises it: its own class where it is one of ours, with the traceback as a note."""
    known = error if isinstance(error, EsvectorError) else EncoderError(f"{what}: {type(error).__name__}: {error}")
    known.add_note("".join(traceback.format_exception(error)))
    return known
