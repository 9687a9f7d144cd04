"""Memory does not grow with the corpus."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest
from elasticsearch import Elasticsearch

from esvector import Indexer, connect
from esvector.types import Document
from tests.support.encoders import HashEncoder
from tests.support.proxy import Proxy
from tests.support.proxy_faults import Exchange

WINDOW = 1024
UNDER_WAY = 16  # windows in the hands of stages and senders, and between them, at most
LOAD = """
import resource, sys
from esvector import Indexer, connect
from tests.support.encoders import HashEncoder

url, alias, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
documents = ({"id": str(n), "text": f"a short text about subject {n}", "year": 1990 + n % 30} for n in range(count))
flat = {"mappings": {"properties": {"vector": {"type": "dense_vector", "index_options": {"type": "flat"}}}}}
report = Indexer(connect(url, {}), alias, encoder=HashEncoder(dims=16), mapping=flat, rebuild=True).run(documents)
assert report.indexed == count
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_memory(url: str, alias: str, documents: int, folder: Path) -> int:
    """Largest resident size of a process that indexes ``documents``, in KiB."""
    command = [sys.executable, "-c", LOAD, url, alias, str(documents)]
    root = str(Path(__file__).parents[2])
    done = subprocess.run(command, cwd=folder, env={"PYTHONPATH": root}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.nightly
def test_peak_memory_of_ten_times_the_documents_is_the_same(
    server_url: str, es: Elasticsearch, alias: str, tmp_path: Path
) -> None:
    few = peak_memory(server_url, alias, 10_000, tmp_path)
    many = peak_memory(server_url, alias, 100_000, tmp_path)
    assert es.count(index=alias)["count"] == 100_000
    print(f"peak of 10,000 documents {few / 1024:.0f} MiB, of 100,000 {many / 1024:.0f} MiB")  # noqa: T201
    assert many < 1.1 * few


@pytest.mark.nightly
def test_documents_do_not_pile_up_behind_one_request_that_is_held_up(
    server_url: str, es: Elasticsearch, alias: str, tmp_path: Path
) -> None:
    """Elasticsearch holds a single request up for seconds now and then, and the other senders go on meanwhile."""
    alive: list[int] = []
    windows = 2 * UNDER_WAY

    def hold(exchange: Exchange) -> None:
        proxy.wait_for(lambda: proxy.bulks >= windows, seconds=120)
        alive.append(sum(type(each) is Document for each in gc.get_objects()))
        exchange.client.sendall(exchange.forward())

    records = ({"id": str(n), "text": f"a short text about subject {n}"} for n in range(windows * WINDOW))
    with Proxy(server_url) as proxy, connect(proxy.url, {}) as client:
        proxy.on(1, hold)
        run = Indexer(
            client, alias, encoder=HashEncoder(dims=16), state=tmp_path / "state", dead_letters=tmp_path / "dead.jsonl"
        )
        assert run.run(records).indexed == windows * WINDOW
    assert 0 < alive[0] <= UNDER_WAY * WINDOW
