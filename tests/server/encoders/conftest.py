"""An index of every kind of encoder, made once for all files of this folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from elasticsearch import Elasticsearch

from tests.server.encoders.cases import CASES, Indexed


@pytest.fixture(scope="package")
def indexed(es: Elasticsearch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Indexed]:
    root = tmp_path_factory.mktemp("encoders")
    indexed = Indexed(es, root, root / "queries")
    for name in CASES:
        indexed.index(name)
    yield indexed
    for index in es.indices.get(index="encoders-*"):
        es.indices.delete(index=index)


@pytest.fixture
def copy(indexed: Indexed, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a model to change."""
    return lambda name: Path(shutil.copytree(indexed.folder(name), tmp_path / "copy"))
