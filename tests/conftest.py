"""What every test shares: one real node, and folders for query encoders and checkpoints instead of the user's."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from elasticsearch import Elasticsearch

from esvector.client import connect
from esvector.local.ephemeral import ephemeral_node
from esvector.local.node import Node

_MEMORY = Path("/dev/shm")
_ROOM = 6 * 2**30  # bytes; far more than the servers and files of two processes


def _write_to_memory() -> None:
    """Let servers and temporary files lie in memory where there is room: a test waits for a disk often, and for naught.

    Servers map libraries from there, which a mount may forbid.
    """
    if "TMPDIR" in os.environ or not os.access(_MEMORY, os.W_OK):
        return
    if shutil.disk_usage(_MEMORY).free > _ROOM and not os.statvfs(_MEMORY).f_flag & os.ST_NOEXEC:
        os.environ["TMPDIR"] = str(_MEMORY)  # for the processes that tests start
        tempfile.tempdir = str(_MEMORY)


_write_to_memory()
# Torch on one thread, in the processes that tests start, too: each worker of the suite has a core, and the threads of a
# tiny model wait for each other for longer than they compute.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# How long an example takes says more about the machine than about the code.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that it is not waited for alone in the end."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(scope="session", autouse=True)
def query_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The cache of exported query towers, and the checkpoints: of this process, and of the commands it starts."""
    folder, state = tmp_path_factory.mktemp("queries"), tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ESVECTOR_STATE", str(state))
        patch.setattr("esvector.index.job.default_state", lambda: state)
        patch.setenv("ESVECTOR_QUERY_CACHE", str(folder))
        patch.setattr("esvector.encode.query_cache.cache_folder", lambda: folder)
        yield folder


@pytest.fixture(scope="session")
def node() -> Iterator[Node]:
    """A real Elasticsearch for the whole session, started by the first test that needs it and gone with the session.

    Its watch over the disk would lift, every 30 s, the flood-stage blocks that tests set.
    """
    with ephemeral_node(settings={"cluster.info.update.interval": "1d"}) as node:
        yield node


@pytest.fixture(scope="session")
def server_url(node: Node) -> str:
    assert node.url is not None
    return node.url


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
