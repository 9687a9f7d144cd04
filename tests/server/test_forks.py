"""Searchers and indexers that an application opened before it forked its workers."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from elasticsearch import AsyncElasticsearch, Elasticsearch
from numpy.typing import NDArray

from esvector import AsyncSearcher, EncoderProfile, Indexer, Searcher, connect
from esvector.errors import ConfigError
from tests.support.encoders import HashEncoder
from tests.support.forking import in_children

WORKERS = 4
TURNS = 80
TENANTS = [f"tenant{n}" for n in range(WORKERS)]
RECORDS = [{"id": f"d{n}", "text": f"subject{n} remark{n}", "tenant": TENANTS[n % WORKERS]} for n in range(40)]


def index(client: Elasticsearch, alias: str, folder: Path) -> Indexer:
    indexer = Indexer(client, alias, encoder=HashEncoder(), dead_letters=folder / f"{alias}.dead.jsonl")
    assert indexer.run(RECORDS).indexed == len(RECORDS)
    return indexer


def test_workers_get_their_own_answers_and_never_another_tenants(
    server_url: str, es: Elasticsearch, alias: str, tmp_path: Path
) -> None:
    index(es, alias, tmp_path)
    with connect(server_url, {}) as client:
        scoped = [Searcher(client, alias, scope=f"tenant = {name}", encoder=HashEncoder()) for name in TENANTS]
        for searcher in scoped:
            searcher.search("warm up")

        def work(number: int) -> list[str]:
            wrong = []
            for turn in range(TURNS):
                record = RECORDS[(turn * WORKERS + number) % len(RECORDS)]
                hits = scoped[number].search(record["text"], k=3, fields=["tenant"])
                if hits[0].id != record["id"] or {hit.source["tenant"] for hit in hits} != {TENANTS[number]}:
                    wrong.append(f"{record['id']}: {[hit.id for hit in hits]}")
            return wrong

        stop = threading.Event()
        parents: list[str] = []

        def search_on() -> None:  # in the parent, at the moment of the forks and beside the children
            while not stop.is_set():
                parents.extend(work(0))

        thread = threading.Thread(target=search_on)
        thread.start()
        try:
            assert in_children(WORKERS, work) == [[]] * WORKERS
        finally:
            stop.set()
            thread.join()
        assert parents == []


class SlowToOpen(HashEncoder):
    """Its first query, in the process that made it, waits: the searcher is opening its model."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.answer, self._process = threading.Event(), threading.Event(), os.getpid()

    def encode_query(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if os.getpid() == self._process:
            self.asked.set()
            self.answer.wait(600)
        return super().encode_query(texts)


def test_a_child_does_not_wait_for_a_thread_that_was_opening_the_model(
    es: Elasticsearch, alias: str, tmp_path: Path
) -> None:
    index(es, alias, tmp_path)
    encoder = SlowToOpen()
    searcher = Searcher(es, alias, encoder=encoder)
    thread = threading.Thread(target=searcher.search, args=(RECORDS[0]["text"],))
    thread.start()
    try:
        assert encoder.asked.wait(60)
        assert in_children(2, lambda n: searcher.search(RECORDS[n]["text"], k=1)[0].id) == ["d0", "d1"]
    finally:
        encoder.answer.set()
        thread.join()


def test_the_model_of_the_index_answers_in_workers_that_were_forked_after_a_search(
    server_url: str, alias: str, tmp_path: Path
) -> None:
    texts = ["graph neural networks", "cooking pasta", "the history of Rome", "tides and the moon"]
    with connect(server_url, {}) as client:
        profile = EncoderProfile("all-MiniLM-L6-v2")
        Indexer(client, alias, profile=profile, devices="cpu", dead_letters=tmp_path / "dead.jsonl").run(
            [{"id": str(n), "text": text} for n, text in enumerate(texts)]
        )
        searcher = Searcher(client, alias)
        expected = {text: [hit.id for hit in searcher.search(text)] for text in texts}
        assert [found[0] for found in expected.values()] == ["0", "1", "2", "3"]

        def work(number: int) -> int:
            right = []

            def ask(text: str) -> None:
                right.append([hit.id for hit in searcher.search(f"{text}{' ' * number}")] == expected[text])

            threads = [threading.Thread(target=ask, args=(text,)) for text in texts * 4]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return sum(right)

        assert in_children(2, work) == [16, 16]


def test_indexers_work_before_and_after_a_fork_on_both_sides(server_url: str, alias: str, tmp_path: Path) -> None:
    with connect(server_url, {}) as client:
        indexers = [index(client, f"{alias}-{number}", tmp_path) for number in range(3)]

        def load(number: int) -> tuple[int, str | None]:
            report = indexers[number].run([{"id": f"new{n}", "text": f"new {n}", "tenant": "x"} for n in range(500)])
            return report.indexed, report.index

        assert in_children(3, load) == [(500, f"{alias}-{number}-000001") for number in range(3)]
        assert indexers[0].run([{"id": "parent", "text": "of the parent", "tenant": "x"}]).indexed == 1
        client.indices.refresh(index=f"{alias}-*")
        counts = [client.count(index=f"{alias}-{number}")["count"] for number in range(3)]
        assert counts == [len(RECORDS) + 501, len(RECORDS) + 500, len(RECORDS) + 500]


def test_a_client_of_ones_own_is_refused_where_it_was_used_before(
    server_url: str, es: Elasticsearch, alias: str, tmp_path: Path
) -> None:
    index(es, alias, tmp_path)

    def ask(client: Elasticsearch) -> list[str]:
        try:
            return [hit.id for hit in Searcher(client, alias, encoder=HashEncoder()).search(RECORDS[0]["text"], k=1)]
        except ConfigError:
            return ["refused"]

    def load(client: Elasticsearch) -> str:
        with pytest.raises(ConfigError):
            Indexer(client, alias, encoder=HashEncoder(), dead_letters=tmp_path / "dead.jsonl").run(RECORDS)
        return "refused"

    with Elasticsearch(server_url) as used, Elasticsearch(server_url) as new:
        used.indices.exists(index=alias)  # without esvector
        assert in_children(1, lambda _: (ask(used), load(used), ask(new))) == [(["refused"], "refused", ["d0"])]
        assert ask(used) == ask(new) == ["d0"]


def test_an_asynchronous_client_belongs_to_one_loop_of_one_process(
    server_url: str, es: Elasticsearch, alias: str, tmp_path: Path
) -> None:
    index(es, alias, tmp_path)

    async def ask(searcher: AsyncSearcher) -> list[str]:
        return [hit.id for hit in await searcher.search(RECORDS[0]["text"], k=1)]

    async def ask_and_close(searcher: AsyncSearcher) -> list[str]:
        async with searcher.client:
            return await ask(searcher)

    def refused(searcher: AsyncSearcher) -> str:
        with pytest.raises(ConfigError):
            asyncio.run(ask(searcher))
        return "refused"

    used, new = (AsyncSearcher(AsyncElasticsearch(server_url), alias, encoder=HashEncoder()) for _ in range(2))

    async def before_and_after() -> tuple[list[str], list[str]]:
        async with used.client:
            first = await ask(used)
            assert in_children(1, lambda _: (refused(used), asyncio.run(ask_and_close(new)))) == [("refused", ["d0"])]
            return first, await ask(used)

    assert asyncio.run(before_and_after()) == (["d0"], ["d0"])
    assert refused(used) == "refused"  # in another loop of the same process
    assert asyncio.run(ask_and_close(new)) == ["d0"]
