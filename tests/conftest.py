"""What every test shares: query encoders and checkpoints go into folders of the session, never of the user."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


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
