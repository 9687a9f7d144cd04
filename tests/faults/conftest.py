"""A node that refuses a lot, and a proxy before the usual one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from elasticsearch import Elasticsearch

from esvector.client import connect
from esvector.local.ephemeral import ephemeral_node
from tests.support.proxy import Proxy
from tests.support.writing import create_target

TINY = {
    "http.max_content_length": "1mb",
    "node.processors": "1",
    "thread_pool.write.queue_size": "1",
    "indexing_pressure.memory.limit": "4mb",
    "indexing_pressure.memory.max_operation_size": "64kb",
}


@pytest.fixture(scope="session")
def tiny_url() -> Iterator[str]:
    """One write at a time and one that waits, requests of 1 MB, 4 MB of them together, operations of 64 KB."""
    with ephemeral_node(settings=TINY) as node:
        assert node.url is not None
        yield node.url


@pytest.fixture(scope="session")
def tiny(tiny_url: str) -> Iterator[Elasticsearch]:
    with connect(tiny_url, environ={}) as client:
        yield client


@pytest.fixture
def proxy(server_url: str) -> Iterator[Proxy]:
    with Proxy(server_url) as proxy:
        yield proxy


@pytest.fixture
def behind(proxy: Proxy) -> Iterator[Elasticsearch]:
    """A client of the usual node that goes through ``proxy``."""
    with connect(proxy.url, environ={}) as client:
        yield client


@pytest.fixture
def target(es: Elasticsearch, alias: str) -> str:
    """An alias with an empty index behind it on the usual node."""
    create_target(es, alias)
    return alias
