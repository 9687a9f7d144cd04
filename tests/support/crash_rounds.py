"""Rounds of killing: a job is killed at random times, run again until it is done, and what it leaves is judged.

``tests/faults/test_crashes.py`` plays a few, ``bench/crashes.py`` hundreds. The seed decides how the load goes (see
``SCENES``) and when the kills come.
"""

from __future__ import annotations

import itertools
import json
import random
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elasticsearch import Elasticsearch

from esvector import Indexer
from tests.support.crashing import Finished, Job, run_until_done
from tests.support.encoders import HashEncoder
from tests.support.judge import encoded_text, judge
from tests.support.proxy import Proxy
from tests.support.proxy_faults import ApplyThenLose

__all__ = [
    "DIMS",
    "OPTIONS",
    "SCENES",
    "Ledger",
    "Records",
    "Rounds",
    "first_load",
    "in_flight",
    "papers",
    "revised",
    "write_source",
]

Records = list[dict[str, Any]]

SCENES = ("build", "answers lost", "update", "reembed")
DIMS = 16
_GRAPH = {"type": "hnsw", "m": 8, "ef_construction": 40}  # a real one, and quickly made
OPTIONS: dict[str, Any] = {
    "senders": 2,
    "body_bytes": 40_000,
    "retry": {"first_wait": 0.05, "longest_wait": 1.0},
    "mapping": {"mappings": {"properties": {"vector": {"type": "dense_vector", "index_options": _GRAPH}}}},
}
_DELAY = 0.0003  # seconds that a text takes, so that most of a run's time is the load
_MOST_KILLS = 3
_WINDOW = 2048  # documents of a window, once there is an index to compare with


def papers(count: int) -> Records:
    """``count`` records with ids of their own; the index that they make is large enough to get a graph at 5,000."""
    return [{"id": f"p{n}", "text": f"about subject {n} and others", "year": 1990 + n % 30} for n in range(count)]


def revised(records: Records) -> Records:
    """A later state of the source: a tenth is changed, some are gone, some new, some repeated, and some are bad."""
    later: Records = []
    for number, record in enumerate(records):
        if number % 100 == 50:
            continue
        later.append({**record, "text": f"{record['text']}, revised"} if number % 10 == 0 else record)
        if number % 50 == 7:
            later.append({"id": f"new {number}", "text": f"a new subject {number}"})
        if number % 1000 == 3:
            later.append({"id": f"bad {number}", "year": 2000})
    return [*later, *({**record, "year": 2026} for record in records[1:400:10])]


def in_flight(senders: int, window: int = _WINDOW) -> int:
    """Documents that may be encoded and not acknowledged.

    One window at the encoder, one that is packed, two that wait before and two after that, and one a sender.
    """
    return (1 + 1 + 2 + 2 + senders) * window


def write_source(path: Path, records: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def first_load(client: Elasticsearch, alias: str, folder: Path, records: Records) -> None:
    """Load ``records`` in this process, as jobs do, undisturbed."""
    indexer = Indexer(
        client,
        alias,
        encoder=HashEncoder(DIMS),
        mapping=OPTIONS["mapping"],
        state=folder / "first",
        dead_letters=folder / "first.dead.jsonl",
    )
    indexer.run(records)


@dataclass(slots=True)
class Ledger:
    """What was acknowledged, and how often each text had been encoded, at each kill of ``job``."""

    job: Job
    kills: list[tuple[frozenset[str], Counter[str]]] = field(default_factory=list)

    def note(self) -> None:
        """Take note of the kill that has just been."""
        self.kills.append((self.job.acked, self.job.encoded))

    def encoded_in_vain(self, records: Sequence[Mapping[str, Any]]) -> list[str]:
        """Ids of documents that the server had acknowledged before a kill, and that were encoded again after it.

        Repeated ids are left out: what is acknowledged may be another record of theirs.
        """
        often = Counter(str(record["id"]) for record in records)
        texts = {str(record["id"]): encoded_text(record) for record in records if often[str(record["id"])] == 1}
        last = self.job.encoded
        return [
            id_
            for acked, encoded in self.kills
            for id_ in acked
            if id_ in texts and last[texts[id_]] > encoded[texts[id_]]
        ]


def _early(scene: str, seed: int) -> str:
    """Where the first kill comes; an update has few requests."""
    chance = random.Random(seed)
    return f"{chance.choice(('before', 'after'))}:bulk:{chance.randint(1, 3 if scene == 'update' else 25)}"


@dataclass(frozen=True, slots=True)
class _Calm:
    """An undisturbed run: how long it took, and the digest of what it made."""

    seconds: float
    digest: str


class Rounds:
    """Plays rounds on the server at ``url``; ``folder`` is for what they leave behind.

    The first kill is amid the writing, at a bulk request that the seed chooses, the others come at any time.
    """

    def __init__(self, client: Elasticsearch, url: str, folder: Path, documents: int = 6000) -> None:
        self._client = client
        self._url = url
        self._folder = folder
        self._base = papers(documents)
        self._later = revised(self._base)
        self._calm: dict[str, _Calm] = {}
        self._numbers = itertools.count(1)

    def play(self, seed: int) -> Finished:
        """Kill and run again until it is done. Raises AssertionError when the judge finds anything wrong."""
        scene = SCENES[seed % len(SCENES)]
        calm = self._calm.get(scene) or self._undisturbed(scene)
        with self._job(scene, seed) as job:
            ledger = Ledger(job)
            first = job.run(_early(scene, seed))
            assert first.killed, first
            ledger.note()
            finished = run_until_done(job, seed, calm.seconds, most_kills=_MOST_KILLS - 1, after_kill=ledger.note)
            self._judge(scene, job, ledger, calm.digest)
        return Finished(finished.kills + 1, (first, *finished.attempts))

    def _undisturbed(self, scene: str) -> _Calm:
        with self._job("build" if scene == "answers lost" else scene, 0) as job:
            seconds = job.done().seconds
            digest = self._judge(scene, job, Ledger(job), None)
        self._calm[scene] = _Calm(seconds, digest)
        return self._calm[scene]

    @contextmanager
    def _job(self, scene: str, seed: int) -> Iterator[Job]:
        """What ``scene`` runs, on an alias of its own with what has to be there before."""
        number = next(self._numbers)
        alias, folder = f"round-{number}", self._folder / str(number)
        folder.mkdir(parents=True)
        source = write_source(folder / "source.jsonl", self._later)
        with ExitStack() as stack:
            stack.callback(self._clear, alias, folder)
            url = self._url
            if scene == "answers lost":
                proxy = stack.enter_context(Proxy(url))
                proxy.share(0.1, ApplyThenLose(), seed)
                url = proxy.url
            if scene in ("update", "reembed"):
                first_load(self._client, alias, folder, self._base)
            options = {**OPTIONS, "prune": True} if scene == "update" else OPTIONS
            if scene == "reembed":
                yield Job(url, alias, source, folder, {**options, "rebuild": True}, _DELAY, "other", DIMS, reembed=True)
            else:
                yield Job(url, alias, source, folder, options, _DELAY, dims=DIMS)

    def _judge(self, scene: str, job: Job, ledger: Ledger, undisturbed: str | None) -> str:
        records = self._base if scene == "reembed" else self._later
        held = judge(
            self._client,
            job.alias,
            records,
            HashEncoder(job.dims, job.encoder),
            dead={number for number, record in enumerate(records, 1) if "text" not in record},
            report=job.report,
            letters=job.letters,
            acked=job.acked,
            encoded=job.encoded,
            most_again=len(ledger.kills) * in_flight(OPTIONS["senders"]),
            undisturbed=undisturbed,
        )
        assert not (vain := ledger.encoded_in_vain(records)), f"acknowledged and encoded again: {vain[:5]}"
        return held.digest

    def _clear(self, alias: str, folder: Path) -> None:
        for index in self._client.indices.get(index=f"{alias}-0*", expand_wildcards="all"):
            self._client.indices.delete(index=index)
        shutil.rmtree(folder)
