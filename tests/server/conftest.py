"""A real Elasticsearch for the whole session, started by it and gone with it, also after a crash."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from elasticsearch import Elasticsearch

from esvector.client import connect
from esvector.local.ephemeral import ephemeral_node


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    with ephemeral_node() as node:
        assert node.url is not None
        yield node.url


@pytest.fixture(scope="session")
def es(server_url: str) -> Iterator[Elasticsearch]:
    with connect(server_url, environ={}) as client:
        yield client


@pytest.fixture
def alias(es: Elasticsearch, request: pytest.FixtureRequest) -> Iterator[str]:
    """A name of its own for each test; whatever was indexed under it is deleted afterwards."""
    name = "t-" + "".join(c if c.isalnum() else "-" for c in request.node.name.lower())[:60].strip("-")
    yield name
    for index in es.indices.get(index=f"{name}*", expand_wildcards="all"):
        es.indices.delete(index=index)
