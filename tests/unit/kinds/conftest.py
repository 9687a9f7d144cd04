"""Every kind of model, built once for all files of this folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.kinds.cases import Built


@pytest.fixture(scope="package")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return Built(tmp_path_factory.mktemp("kinds"))


@pytest.fixture
def copy(built: Built, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a model to change, elsewhere and under another name."""
    return lambda name: Path(shutil.copytree(built.folder(name), tmp_path / "elsewhere"))
