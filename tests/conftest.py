"""What tests share: query encoders are exported into a folder of the session, never into the user's cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.threads import one_torch_thread


@pytest.fixture(scope="session", autouse=True)
def query_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The cache of exported query towers: of this process, and of the commands it starts."""
    folder = tmp_path_factory.mktemp("queries")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ESVECTOR_QUERY_CACHE", str(folder))
        patch.setattr("esvector.encode.query_cache.cache_folder", lambda: folder)
        yield folder


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Torch on one thread, for the files that ask for it."""
    with one_torch_thread():
        yield
